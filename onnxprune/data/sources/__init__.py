"""Calibration data: what a user has, as batches that the model takes. A source is a file here; see base.py."""
