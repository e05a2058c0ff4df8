"""Operators of the domain com.microsoft, as ONNX Runtime fuses and quantizes them."""
