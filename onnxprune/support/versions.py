"""The versions that a result depends on, read from what is installed and without importing it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("onnxprune", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy")


def installed(package: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of the installed packages that matter, this package first."""
    found = {package: installed(package) for package in _PACKAGES}
    return {**{package: number for package, number in found.items() if number}, "python": platform.python_version()}
