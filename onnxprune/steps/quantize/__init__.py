"""Weights and activations of fewer bits: see `step`."""
