"""Models side by side in ONNX Runtime: how fast, how large, how far apart in what they answer."""
