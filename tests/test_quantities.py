"""Numbers with units: what is written is read exactly, and what is shown has as many digits as say something."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.support.quantities import (
    BYTES,
    COUNTS,
    SECONDS,
    show_bytes,
    show_count,
    show_seconds,
    show_share,
    split_quantity,
)


@pytest.mark.parametrize(
    ("value", "number", "unit"),
    [
        ("5MB", "5", "mb"),
        (" 1.5 kib ", "1.5", "kib"),
        (".5", "0.5", ""),
        ("3.", "3", ""),
        ("50%", "50", "%"),
        (7, "7", ""),
        (0.25, "0.25", ""),
        ("2e6", "2000000", ""),
        ("1.5e-3s", "0.0015", "s"),
        ("2 e", "2", "e"),
    ],
)
def test_a_number_and_its_unit(value: Any, number: str, unit: str) -> None:
    assert split_quantity(value) == (Decimal(number), unit)


@pytest.mark.parametrize("value", ["", "5 M B", "-5", "+5", True, None, "MB", "1,200", "nan", "٣", "0x10"])
def test_what_is_no_number_with_a_unit(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a number with a unit"):
        split_quantity(value)


def test_units_are_exact() -> None:
    assert BYTES["mb"] == 10**6
    assert BYTES["mib"] == 2**20
    assert BYTES["gib"] == 2**30
    assert COUNTS["g"] == COUNTS["b"] == 10**9
    assert SECONDS["us"] * 10**6 == SECONDS["s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (2.5, "2.5 s"),
        (0.0123, "12.3 ms"),
        (45e-6, "45 us"),
        (3e-9, "3 ns"),
        (4e-10, "0.4 ns"),
        (1234.5, "1,234 s"),
        (0.99949, "999 ms"),
        (0.9996, "1 s"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


def test_seconds_to_more_digits() -> None:
    assert show_seconds(1.2344e-3, digits=4) == "1.234 ms"
    assert show_seconds(0.99996, digits=4) == "1 s"
    assert show_seconds(0.9996, digits=4) == "999.6 ms"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (950, "950"), (999.6, "1k"), (999_700, "1M"), (15_940_000, "15.9M"), (4.1e9, "4.1G"), (2e13, "20,000G")],
)
def test_counts(count: float, text: str) -> None:
    assert show_count(count) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (12, "12 B"), (4_980_000, "4.98 MB"), (102_146_512, "102 MB")])
def test_bytes(size: float, text: str) -> None:
    assert show_bytes(size) == text


def test_shares() -> None:
    assert show_share(0.995) == "99.50%"
    assert show_share(None) == "-"


@given(st.floats(1, 1e15))
def test_what_is_shown_is_near_and_short(value: float) -> None:
    text = show_count(value)
    number, unit = split_quantity(text.replace(",", ""))
    assert float(number * COUNTS[unit]) == pytest.approx(value, rel=0.006)
    assert "e" not in text
    assert float(number) < 1000 or unit == "g"
