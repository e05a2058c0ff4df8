"""Penalties: what a training keeps small, one file each."""
