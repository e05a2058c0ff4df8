"""The command line: parse, call, print; no logic."""

from onnxprune.cli.group import main

__all__ = ["main"]
