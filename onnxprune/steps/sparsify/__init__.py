"""Weights that are exactly zero: which ones, in which pattern, and how the others make up for them. See `step`."""
