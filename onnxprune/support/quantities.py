"""Numbers for people."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from onnxprune.errors import UsageError


def show_time(seconds: float) -> str:
    """`1.31 ms`, to three digits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:,.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0"


def show_bytes(size: float) -> str:
    """`4.2 MB`, in powers of ten."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def show_share(value: float | None) -> str:
    """`99.50%`; a dash for what there is not."""
    return "-" if value is None else f"{value:.2%}"


_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z%]*)\s*", re.ASCII)


BYTES = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmg", 1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


SECONDS = {"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1)}


def seconds(value: Any) -> float:
    """`10ms`, `250us` or `1.5s`; a number without a unit says too little."""
    number, unit = split(value, "a time like 10ms or 1.5s")
    if unit not in SECONDS:
        raise ValueError(f"expected a time with its unit, like 10ms or 1.5s, not {value!r}")
    return float(number * SECONDS[unit])


def split(value: Any, expected: str) -> tuple[Decimal, str]:
    """`5MB` as 5 and "mb". Raises ValueError with what is expected."""
    match = None if isinstance(value, bool) else _NUMBER.fullmatch(str(value))
    if match is None:
        raise ValueError(f"expected {expected}, not {value!r}")
    return Decimal(match[1]), match[2].lower()


def show_seconds(value: float) -> str:
    """Milliseconds, with three digits that say something."""
    return f"{value * 1000:.3g} ms"


_ABSOLUTE: dict[str, dict[str, float]] = {
    "params": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9},
    "macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    "size": {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30},
    "latency": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
}


VALUE = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z%]*)", re.IGNORECASE)


def unit_factor(kind: str, unit: str, text: str) -> float:
    """What a unit of a target stands for. Raises UsageError for one that the kind does not have."""
    units = _ABSOLUTE[kind]
    if unit not in units:
        known = ", ".join(name.upper() if kind != "latency" else name for name in units if name)
        raise UsageError(f"target '{text}': unknown unit '{unit}' for {kind}; there are: {known}")
    return units[unit]


def amount(kind: str, value: float) -> str:
    """A quantity for people: `15.9M`, `4.98 MB`, `1.23 ms`."""
    if kind == "drop":
        return f"{value:.4f}"
    if kind == "latency":
        return f"{value * 1e3:.3f} ms"
    suffix = " B" if kind == "size" else ""
    for scale, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{' ' if suffix else ''}{name}{suffix.strip()}"
    return f"{value:.0f}{suffix}"
