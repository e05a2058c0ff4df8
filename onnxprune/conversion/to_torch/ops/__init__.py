"""How each operator is written in torch; a file per family, see `conversion.to_torch.base`."""
