"""Numbers with units, as people write and read them: 5MB, 1.2M, 10ms, 50%."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"\s*((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([a-z%]*)\s*", re.ASCII | re.IGNORECASE)

# What each unit represents, in lower case; "" where a bare number is enough.
BYTES: Mapping[str, Decimal] = {"": Decimal(1), "b": Decimal(1)} | {
    f"{letter}{suffix}": Decimal(base**power)
    for power, letter in enumerate("kmg", 1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
COUNTS: Mapping[str, Decimal] = {
    unit: Decimal(10**power) for unit, power in {"": 0, "k": 3, "m": 6, "g": 9, "b": 9, "t": 12}.items()
}
SECONDS: Mapping[str, Decimal] = {"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1)}


def split_quantity(value: Any) -> tuple[Decimal, str]:
    """`5MB` as 5 and "mb", `50%` as 50 and "%", `7` as 7 and "". Raises ValueError for anything else."""
    match = None if isinstance(value, bool) else _NUMBER.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a number with a unit")
    return Decimal(match[1]), match[2].lower()


def show_count(value: float) -> str:
    """`15.9M`, to three digits."""
    return _shown(value, ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")), 3)


def show_bytes(size: float) -> str:
    """`4.98 MB`, to three digits, in powers of ten."""
    return _shown(size, ((1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B")), 3)


def show_seconds(seconds: float, digits: int = 3) -> str:
    """`1.31 ms`."""
    return _shown(seconds, ((1, " s"), (1e-3, " ms"), (1e-6, " us"), (1e-9, " ns")), digits) if seconds else "0"


def show_share(value: float | None) -> str:
    """`99.50%`; a dash for what there is not."""
    return "-" if value is None else f"{value:.2%}"


def _shown(value: float, units: Sequence[tuple[float, str]], digits: int) -> str:
    """In the largest unit of which there is one or more, once rounded; else in the last."""
    one = 1 - 0.5 * 10.0**-digits
    factor, unit = next((each for each in units if abs(value) >= one * each[0]), units[-1])
    number = value / factor
    return f"{number:,.0f}{unit}" if abs(number) >= 10**digits else f"{number:.{digits}g}{unit}"
