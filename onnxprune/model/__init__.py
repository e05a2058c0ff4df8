"""The ONNX file in memory: bytes, graph, weights, signature."""
