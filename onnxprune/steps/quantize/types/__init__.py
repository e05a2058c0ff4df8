"""What a model can be quantized to: a file each, which registers itself."""
