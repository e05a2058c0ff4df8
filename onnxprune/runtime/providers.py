"""Execution providers by the names that people type."""

from __future__ import annotations

from collections.abc import Iterable

from onnxprune.errors import MissingExtraError, UsageError
from onnxprune.support.messages import did_you_mean

_SUFFIX = "ExecutionProvider"
CPU = f"CPU{_SUFFIX}"
CPU_ONLY = (CPU,)


def short(provider: str) -> str:
    """`cuda` for `CUDAExecutionProvider`."""
    return provider.removesuffix(_SUFFIX).lower()


def available() -> list[str]:
    """Full names of the providers that this installation of ONNX Runtime was built with, best first.

    Raises MissingExtraError without ONNX Runtime.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "cpu") from None
    return list(onnxruntime.get_available_providers())


def choose_providers(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Full names of the providers to use, each once, and notes for the user.

    Args:
        names: short (`cuda`) or full (`CUDAExecutionProvider`), upper or lower case.

    A provider that exists but is not installed here falls back to the CPU, and a note says so. Raises UsageError for a
    name that ONNX Runtime does not know.
    """
    here = available()
    import onnxruntime

    known = {short(provider): provider for provider in (*onnxruntime.get_all_providers(), *here)}
    found, notes = [], []
    for name in names:
        key = name.lower().removesuffix(_SUFFIX.lower())
        if key not in known:
            raise UsageError(f"unknown execution provider '{name}'{did_you_mean(key, known)}")
        if known[key] in here:
            found.append(known[key])
        else:
            installed = ", ".join(map(short, here))
            notes.append(f"{known[key]} is not part of this ONNX Runtime ({installed}), so the CPU is used instead")
            found.append(CPU)
    return list(dict.fromkeys(found)), notes
