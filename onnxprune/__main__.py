"""`python -m onnxprune` is the command `onnxprune`."""

from onnxprune.cli import main

main()
