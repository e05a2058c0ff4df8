"""Points of several series on two axes as one SVG: hover says what a point is, a click leads to its part of a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 15, 12, 48
_TICKS = 5


@dataclass(frozen=True)
class Dot:
    """A point: where it is, what is said of it, and the id of the part of the page that a click leads to."""

    x: float
    y: float
    title: str
    link: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one colour, by its class; joined by a line, or with none."""

    kind: str
    dots: tuple[Dot, ...]
    joined: bool = False


def scatter(series: Sequence[Series], labels: tuple[str, str], *, style: str = "") -> str:
    """The picture, in pixels.

    Args:
        series: points that are not finite are left out.
        labels: of the axes.
        style: a style sheet, where the picture is a file of its own.
    """
    dots = [dot for each in series for dot in each.dots if isfinite(dot.x) and isfinite(dot.y)]
    x, y = _Axis([dot.x for dot in dots]), _Axis([dot.y for dot in dots])
    shapes = [*_axes(x, y, labels)]
    for each in series:
        shapes += _drawn(each, x, y)
    said = f"{len(dots)} points: {labels[1]} against {labels[0]}"
    return (
        f'<svg class="flow scatter" xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}">{style}{"".join(shapes)}</svg>'
    )


class _Axis:
    """From values to shares of the axis, with round numbers at its ticks."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = 0.04 * (high - low) or abs(high) or 1.0
        self.low, self.high = low - room, high + room

    def __call__(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        step = 10 ** floor(log10((self.high - self.low) / _TICKS))
        step *= next(each for each in (1, 2, 5, 10) if (self.high - self.low) / (each * step) <= _TICKS + 1)
        first = floor(self.low / step) + 1
        return [number * step for number in range(first, floor(self.high / step) + 1)]


def _across(share: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share


def _down(share: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _axes(x: _Axis, y: _Axis, labels: tuple[str, str]) -> Iterator[str]:
    left, bottom, top, right = _across(0), _down(0), _down(1), _across(1)
    yield f'<path class="axis" d="M{left:g} {top:g}V{bottom:g}H{right:g}"/>'
    for value in x.ticks():
        at = _across(x(value))
        yield f'<path class="axis" d="M{at:.1f} {bottom:g}v5"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 18:g}" text-anchor="middle">{value:.4g}</text>'
    for value in y.ticks():
        at = _down(y(value))
        yield f'<path class="axis" d="M{left - 5:g} {at:.1f}H{right:g}"/>'
        yield f'<text x="{left - 9:g}" y="{at + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    yield f'<text x="{(left + right) / 2:g}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(labels[0])}</text>'
    yield (
        f'<text transform="translate(14 {(top + bottom) / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(labels[1])}</text>"
    )


def _drawn(series: Series, x: _Axis, y: _Axis) -> Iterator[str]:
    placed = [(_across(x(dot.x)), _down(y(dot.y)), dot) for dot in series.dots if isfinite(dot.x) and isfinite(dot.y)]
    if series.joined and placed:
        line = " ".join(f"{across:.1f},{down:.1f}" for across, down, _ in placed)
        yield f'<polyline class="joined {series.kind}" points="{line}"/>'
    for across, down, dot in placed:
        radius = 5 if dot.link or series.joined else 3.5
        circle = (
            f'<circle class="{series.kind}" cx="{across:.1f}" cy="{down:.1f}" r="{radius}">'
            f"<title>{escape(dot.title)}</title></circle>"
        )
        yield f'<a href="#{escape(dot.link)}">{circle}</a>' if dot.link else circle
