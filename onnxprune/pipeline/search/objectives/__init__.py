"""Objectives of a search, one file per kind. Every file of this package, and every plug-in of the entry
point group `onnxprune.objectives`, adds to the table of `base`; metrics are objectives under their own names.
"""
