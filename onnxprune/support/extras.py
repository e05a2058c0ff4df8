"""Packages that are extras of this one: are they there, before any work?"""

from __future__ import annotations

from importlib.util import find_spec

from onnxprune.errors import MissingExtraError


def check_torch() -> None:
    """Raises MissingExtraError where a package of the extra `torch` is not installed; none is imported."""
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "torch")
