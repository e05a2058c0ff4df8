"""Sizes, counts, times and opsets as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune.evaluation.gate.limits import byte_limit, count_limit, opsets, time_limit


@pytest.mark.parametrize(
    ("text", "most"),
    [("5MB", 5_000_000), ("5MiB", 5_242_880), ("1.5 kb", 1500), ("7", 7), (7, 7), ("2GiB", 2**31), ("10B", 10)],
)
def test_sizes_are_exact(text: str | int, most: int) -> None:
    limit = byte_limit(text)
    assert limit.allows(most)
    assert not limit.allows(most + 1)


@pytest.mark.parametrize(
    ("text", "most"), [("1.2M", 1_200_000), ("7B", 7 * 10**9), ("3g", 3 * 10**9), ("0", 0), ("2e6", 2_000_000)]
)
def test_counts_are_exact(text: str, most: int) -> None:
    limit = count_limit(text)
    assert limit.allows(most)
    assert not limit.allows(most + 1)


def test_shares_of_the_baseline_are_exact() -> None:
    limit = byte_limit("100.1%")
    assert limit.relative
    assert limit.allows(1001, 1000)
    assert not limit.allows(1002, 1000)
    assert not count_limit("100%").allows(10**18 + 1, 10**18)


@pytest.mark.parametrize(("text", "value"), [("10ms", 0.01), ("250us", 0.00025), ("1.5 s", 1.5)])
def test_times(text: str, value: float) -> None:
    assert time_limit(text) == value


@pytest.mark.parametrize(
    ("text", "allowed", "refused"),
    [
        ("17", [17], [16, 18]),
        (17, [17], [16]),
        ("13-21", [13, 21], [12, 22]),
        (">= 13", [13, 99], [12]),
        ("<=9", [9], [10]),
    ],
)
def test_opsets(text: str | int, allowed: list[int], refused: list[int]) -> None:
    assert all(version in opsets(text) for version in allowed)
    assert not any(version in opsets(text) for version in refused)


@pytest.mark.parametrize("value", ["", "5 M B", "5XB", "-5MB", "5e", "1e6e", True, None, "MB", "1,200", "٣MB"])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a size like 5MB"):
        byte_limit(value)


@pytest.mark.parametrize("value", ["10", 10, "10 min", "10%", "ms", True])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        time_limit(value)


@pytest.mark.parametrize("value", ["", "21-13", "v17", ">17", True, 17.0])
def test_what_is_no_opset(value: Any) -> None:
    with pytest.raises(ValueError, match="expected an opset"):
        opsets(value)
