"""Points of several series on two axes: shapes in pixels, and these as SVG.

Hover says what a point is, and a click leads to its part of a page. `report.raster` draws the same shapes as PNG.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10

WIDTH, HEIGHT = 720, 400
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
    """Points of one colour, by its class; joined by a line, or with none; a name is written into the picture."""

    kind: str
    dots: tuple[Dot, ...]
    joined: bool = False
    name: str = ""


@dataclass(frozen=True)
class Line:
    """Through these points, in pixels."""

    kind: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Circle:
    """Around a point; what is said of it, and where a click leads."""

    kind: str
    x: float
    y: float
    radius: float
    title: str
    link: str


@dataclass(frozen=True)
class Text:
    """Words whose baseline begins, ends or has its middle (`anchor`: start, end, middle) at a point."""

    kind: str
    x: float
    y: float
    words: str
    anchor: str
    upwards: bool = False


Shape = Line | Circle | Text


def scatter(series: Sequence[Series], labels: tuple[str, str], *, style: str = "") -> str:
    """The picture as SVG.

    Args:
        series: points that are not finite are left out.
        labels: of the axes.
        style: a style sheet, where the picture is a file of its own.
    """
    shapes = drawing(series, labels)
    said = f"{sum(isinstance(shape, Circle) for shape in shapes)} points: {labels[1]} against {labels[0]}"
    return (
        f'<svg class="flow scatter" xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">{style}'
        f"{''.join(map(_as_svg, shapes))}</svg>"
    )


def drawing(series: Sequence[Series], labels: tuple[str, str]) -> list[Shape]:
    """The shapes of the picture, from back to front; series that have a name are listed in a corner."""
    dots = [dot for each in series for dot in each.dots if isfinite(dot.x) and isfinite(dot.y)]
    x, y = _Axis([dot.x for dot in dots]), _Axis([dot.y for dot in dots])
    shapes = [*_axes(x, y, labels)]
    for each in series:
        shapes += _drawn(each, x, y)
    named = [each for each in series if each.name]
    for at, each in enumerate(named):
        shapes.append(Text(each.kind, _across(1) - 8, _down(0) - 10 - 16 * (len(named) - 1 - at), each.name, "end"))
    return shapes


def _as_svg(shape: Shape) -> str:
    if isinstance(shape, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        return f'<polyline class="{shape.kind}" points="{points}"/>'
    if isinstance(shape, Text):
        at = f'x="{shape.x:.1f}" y="{shape.y:.1f}"'
        at = f'transform="translate({shape.x:g} {shape.y:g}) rotate(-90)"' if shape.upwards else at
        kind = f'class="{shape.kind}" ' if shape.kind else ""
        return f'<text {kind}{at} text-anchor="{shape.anchor}">{escape(shape.words)}</text>'
    circle = (
        f'<circle class="{shape.kind}" cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius:g}">'
        f"<title>{escape(shape.title)}</title></circle>"
    )
    return f'<a href="#{escape(shape.link)}">{circle}</a>' if shape.link else circle


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
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * share


def _down(share: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share


def _axes(x: _Axis, y: _Axis, labels: tuple[str, str]) -> Iterator[Shape]:
    left, bottom, top, right = _across(0), _down(0), _down(1), _across(1)
    yield Line("axis", ((left, top), (left, bottom), (right, bottom)))
    for value in x.ticks():
        at = _across(x(value))
        yield Line("axis", ((at, bottom), (at, bottom + 5)))
        yield Text("", at, bottom + 18, f"{value:.4g}", "middle")
    for value in y.ticks():
        at = _down(y(value))
        yield Line("axis", ((left - 5, at), (right, at)))
        yield Text("", left - 9, at + 4, f"{value:.4g}", "end")
    yield Text("", (left + right) / 2, HEIGHT - 8, labels[0], "middle")
    yield Text("", 14, (top + bottom) / 2, labels[1], "middle", upwards=True)


def _drawn(series: Series, x: _Axis, y: _Axis) -> Iterator[Shape]:
    placed = [(_across(x(dot.x)), _down(y(dot.y)), dot) for dot in series.dots if isfinite(dot.x) and isfinite(dot.y)]
    if series.joined and placed:
        yield Line(f"joined {series.kind}", tuple((across, down) for across, down, _ in placed))
    for across, down, dot in placed:
        yield Circle(series.kind, across, down, 5 if dot.link or series.joined else 3.5, dot.title, dot.link)
