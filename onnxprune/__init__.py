"""Structured pruning of ONNX files."""
