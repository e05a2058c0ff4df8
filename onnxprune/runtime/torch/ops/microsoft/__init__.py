"""Operators of the domain com.microsoft, as ONNX Runtime fuses them, in torch."""
