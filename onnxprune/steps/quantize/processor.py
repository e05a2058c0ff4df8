"""What a processor multiplies integers with: that decides which types are fast on it, and which overflow."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxprune.runtime.providers import CPU

# Instructions that add products of bytes in 32 bits. Without them pairs of products are added in 16 bits first.
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
_X86 = {"x86_64", "amd64", "i386", "i686", "x86"}


@dataclass(frozen=True)
class Processor:
    """How a machine multiplies integers.

    Attributes:
        name: for people.
        unsigned: activations are uint8, else int8.
        reduced: pairs of products are added in 16 bits, so weights have 7 bits, or sums would saturate.
    """

    name: str
    unsigned: bool
    reduced: bool


def find_processor(providers: Sequence[str], machine: str = "", flags: set[str] | None = None) -> Processor:
    """The one that a model will run on: this machine's processor, or the device of the first execution provider.

    On x86, ONNX Runtime has fast kernels for uint8 activations with int8 weights; with int8 activations it is slower
    than float. Where no VNNI is known of, weights get 7 bits.

    Args:
        providers: full names of execution providers, by preference.
        machine: as `platform.machine` names it; empty: this one.
        flags: what the processor can do, as /proc/cpuinfo names it; None: read there.
    """
    if providers and providers[0] != CPU:
        return Processor(providers[0].removesuffix("ExecutionProvider"), unsigned=False, reduced=False)
    machine = (machine or platform.machine()).lower()
    if machine not in _X86:
        return Processor(machine, unsigned=False, reduced=False)
    known = _flags() if flags is None else flags
    vnni = bool(_VNNI & known)
    return Processor(f"x86 {'with' if vnni else 'without'} VNNI", unsigned=True, reduced=not vnni)


def _flags() -> set[str]:
    """Empty where there is no such file: then nothing is taken for granted."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    line = next((line for line in lines if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())
