"""Scores and a ratio in, units per group out."""
