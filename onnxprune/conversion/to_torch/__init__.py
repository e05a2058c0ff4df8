"""From ONNX back to torch: a Python file that needs nothing of us, and its weights."""
