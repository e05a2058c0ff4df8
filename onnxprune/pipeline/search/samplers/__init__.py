"""Ways to choose the next trial, one file per way. Every file of this package, and every plug-in of the entry point
group `onnxprune.samplers`, adds to the table of `base`.
"""
