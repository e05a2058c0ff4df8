"""Small pictures: what they draw, measured on the shapes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from onnxprune.report import charts
from onnxprune.report.measured_pages import time_axis


def widths(svg: str) -> list[float]:
    return [float(each.get("width") or 0) for each in ElementTree.fromstring(svg).iter("rect")]


def test_bar_is_as_wide_as_its_share() -> None:
    assert widths(charts.bar(50, 10, 200)) == [25, 5]
    assert widths(charts.bar(0, 0, 0)) == [0, 0]


def test_pair_and_shares() -> None:
    assert widths(charts.pair(1, 4, 4)) == [25, 100]
    assert widths(charts.shares({"Conv": 1.0, "Add": 1.0}, 4.0)) == [100, 25, 25]


def test_spread_stacks_kept_on_removed() -> None:
    picture = ElementTree.fromstring(charts.spread([0, 1, 2], [4, 1, 0]))
    drawn = [(each.get("class"), each.get("d")) for each in picture.iter("path") if each.get("class") != "axis"]
    assert [kind for kind, _ in drawn] == ["removed", "removed", "kept", "kept"]
    assert drawn[0][1] == "M0.0 40v-40.0h9.0V40z"
    assert drawn[2][1] == "M10.0 30v-10.0h9.0V30z"  # on top of the one that goes


@pytest.mark.parametrize("middle", [1.0, 3.0])
def test_distribution_peaks_at_the_median(middle: float) -> None:
    percentiles = [middle + (percent - 50) ** 3 / 1e6 for percent in range(101)]
    svg = charts.distribution(percentiles, (0.0, 4.0))
    (points,) = (each.get("points") or "" for each in ElementTree.fromstring(svg).iter("polygon"))
    heights = {float(x): float(y) for x, y in (pair.split(",") for pair in points.split())}
    assert min(heights, key=lambda x: heights[x]) == pytest.approx(20 * middle, abs=1)
    (at,) = (re.match(r"M([\d.]+) 0V", each.get("d") or "") for each in ElementTree.fromstring(svg)[3:])
    assert at is not None
    assert float(at[1]) == pytest.approx(20 * middle)


def test_distribution_of_equal_times() -> None:
    assert "nan" not in charts.distribution([0.5] * 101, (0.5, 0.5))


def test_curve_goes_up_for_more() -> None:
    (line,) = ElementTree.fromstring(charts.curve([(0, 0), (1, 1)])).iter("polyline")
    assert line.get("points") == "0.0,38.0 100.0,4.0"


def test_times_are_drawn_around_the_medians() -> None:
    """A few runs that took a hundred times as long do not push the medians to the edge."""
    quiet = [1.0 + at / 100 for at in range(101)]
    busy = [*quiet[:90], *(100.0 for _ in range(11))]
    low, high = time_axis([quiet, busy])
    assert (low, high) == (1.0, pytest.approx(2.0))
    assert time_axis([[1.0, *(5.0 for _ in range(100))]]) == (1.0, 5.0)
