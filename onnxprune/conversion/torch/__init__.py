"""Exporters of torch, one a file: each is a function `export(network) -> ir.Model` named in its `NAME`."""
