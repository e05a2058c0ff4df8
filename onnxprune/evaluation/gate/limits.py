"""Sizes, counts and times as people write them: 5MB, 1.2M, 10ms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import inf, isfinite
from typing import Any

from onnxprune.support.quantities import BYTES, COUNTS, SECONDS, split_quantity


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
    return _limit(value, BYTES, "a size like 5MB, 5MiB or 101%")


def count_limit(value: Any) -> Limit:
    """`1.2M`, `3G`, a number, or `101%` of the baseline."""
    return _limit(value, COUNTS, "a number like 1.2M, 3G or 101%")


def time_limit(value: Any) -> float:
    """`10ms`, `250us` or `1.5s`, in seconds; a number without a unit says too little."""
    return float(_limit(value, SECONDS, "a time with its unit, like 10ms or 1.5s", relative=False).amount)


def _limit(value: Any, units: Mapping[str, Decimal], expected: str, *, relative: bool = True) -> Limit:
    try:
        number_reader, unit = split_quantity(value)
        share = relative and unit == "%"
        return Limit(str(value), number_reader if share else number_reader * units[unit], share)
    except (KeyError, ValueError):
        raise ValueError(f"expected {expected}, not {value!r}") from None


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


def number_reader(*, above: float = -inf, low: float = -inf, high: float = inf) -> Callable[[Any], float]:
    """A reader of finite numbers in a range; `above` is not in it, `low` and `high` are."""
    parts = [f"above {above:g}"] * (above > -inf) + [f"of at least {low:g}"] * (low > -inf)
    expected = " and ".join([*parts, *([f"up to {high:g}"] * (high < inf))])

    def read(value: Any) -> float:
        plain = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not plain or not above < value or not low <= value <= high:
            raise ValueError(f"expected {' '.join(filter(None, ('a number', expected)))}, not {value!r}")
        return float(value)

    return read


def texts(value: Any) -> tuple[str, ...]:
    """One or more texts; `a, b` is as good as ["a", "b"]."""
    found = [entry.strip() for entry in value.split(",")] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not found or not all(isinstance(entry, str) and entry for entry in found):
        raise ValueError(f"expected one or more texts, not {value!r}")
    return tuple(found)
