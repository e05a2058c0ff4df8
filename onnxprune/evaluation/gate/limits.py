"""Sizes, counts and times as people write them: 5MB, 1.2M, 10ms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z%]*)\s*", re.ASCII)

_BYTES = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmg", 1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_SECONDS = {"us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1)}


@dataclass(frozen=True)
class Limit:
    """At most this many, or at most this share of the baseline.

    Attributes:
        text: as it was written.
        amount: the number, or the percentage of the baseline.
        relative: which of them.
    """

    text: str
    amount: Decimal
    relative: bool

    def allows(self, found: int, baseline: int = 0) -> bool:
        """Exactly: one byte too many is too many."""
        return found * 100 <= self.amount * baseline if self.relative else found <= self.amount


def byte_limit(value: Any) -> Limit:
    """`5MB` (5,000,000 bytes), `5MiB` (5,242,880), a number of bytes, or `101%` of the baseline; `5mb` is the same.

    Raises ValueError, as all functions here do, with what is expected.
    """
    return _limit(value, _BYTES, "a size like 5MB, 5MiB or 101%")


def count_limit(value: Any) -> Limit:
    """`1.2M`, `3G`, a number, or `101%` of the baseline."""
    return _limit(value, _COUNTS, "a number like 1.2M, 3G or 101%")


def seconds(value: Any) -> float:
    """`10ms`, `250us` or `1.5s`; a number without a unit says too little."""
    number, unit = _split(value, "a time like 10ms or 1.5s")
    if unit not in _SECONDS:
        raise ValueError(f"expected a time with its unit, like 10ms or 1.5s, not {value!r}")
    return float(number * _SECONDS[unit])


def _limit(value: Any, units: dict[str, int], expected: str) -> Limit:
    number, unit = _split(value, expected)
    if unit != "%" and unit not in units:
        raise ValueError(f"expected {expected}, not {value!r}")
    return Limit(str(value), number if unit == "%" else number * units[unit], unit == "%")


def _split(value: Any, expected: str) -> tuple[Decimal, str]:
    match = None if isinstance(value, bool) else _NUMBER.fullmatch(str(value))
    if match is None:
        raise ValueError(f"expected {expected}, not {value!r}")
    return Decimal(match[1]), match[2].lower()


def show_seconds(value: float) -> str:
    """Milliseconds, with three digits that say something."""
    return f"{value * 1000:.3g} ms"


@dataclass(frozen=True)
class Opsets:
    """Versions of the standard operators that are allowed, both ends included."""

    text: str
    low: int
    high: int

    def __contains__(self, version: int) -> bool:
        return self.low <= version <= self.high


def opsets(value: Any) -> Opsets:
    """`17`, `13-21`, `>=13` or `<=21`."""
    text = "" if isinstance(value, bool) else str(value).replace(" ", "")
    newest = 10**6
    if re.fullmatch(r"\d{1,4}", text):
        return Opsets(text, int(text), int(text))
    if match := re.fullmatch(r"(\d{1,4})-(\d{1,4})", text):
        if int(match[1]) <= int(match[2]):
            return Opsets(text, int(match[1]), int(match[2]))
    elif match := re.fullmatch(r"(>=|<=)(\d{1,4})", text):
        low, high = (int(match[2]), newest) if match[1] == ">=" else (0, int(match[2]))
        return Opsets(text, low, high)
    raise ValueError(f"expected an opset like 17, 13-21, >=13 or <=21, not {value!r}")
