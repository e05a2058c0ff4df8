"""From torch, Keras, TensorFlow and scikit-learn to ONNX, and from ONNX back to a plain torch module."""
