"""The content of a report, before it is HTML or Markdown: cards, sections, tables and pictures.

A builder turns the document that `--json` prints into a `Page`; `report.html` and `report.markdown` write it down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True)
class Number:
    """A cell with a number: how it is shown, and its value to sort by."""

    text: str
    value: float


@dataclass(frozen=True)
class Chart:
    """A cell with a picture.

    Attributes:
        svg: the picture.
        text: what it says, beside it and wherever there are no pictures.
        value: to sort by.
    """

    svg: str
    text: str
    value: float = 0.0


@dataclass(frozen=True)
class VerdictCell:
    """A cell that says how something came out; `tone` is "good" or "bad" or empty."""

    text: str
    tone: str


Cell: TypeAlias = str | Number | Chart | VerdictCell


@dataclass(frozen=True)
class Table:
    """Rows of cells; columns whose name starts with `>` hold numbers, with `~` pictures."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Card:
    """One number in large type; `tone` is "good", "bad" or empty."""

    label: str
    value: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: for links.
        title: its heading.
        text: what a reader should know before looking.
        tables: in order.
        figure: a large picture as SVG.
        legend: pairs of a colour's class and what it represents.
        folded: only a heading until it is opened.
    """

    id: str
    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figure: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """All of a report.

    Attributes:
        title: what was done, and to which file.
        lead: the result in one sentence.
        cards: the numbers that matter most.
        sections: in order.
        notes: what a person should know besides.
        alert: what a person has to know first.
        request: options by name, as they were used.
    """

    title: str
    lead: str
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    alert: str = ""
    request: dict[str, str] = field(default_factory=dict)


def count(value: float) -> Number:
    """A whole number with thousands apart."""
    return Number(f"{value:,}", value)


def maybe(value: float | None, show: Callable[[float], str]) -> Number:
    """A number as `show` writes it; a dash where there is none."""
    return Number("-" if value is None else show(value), value or 0.0)


def counted(number: int, one: str, many: str = "") -> str:
    """`1 layer`, `2 layers`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def file_name(path: str) -> str:
    """The last part of a path, written on whatever system."""
    return path.replace("\\", "/").rpartition("/")[2]


def asked(request: dict[str, object]) -> dict[str, str]:
    """The options of a request that say something, as text."""
    return {
        name.replace("_", "-"): ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in request.items()
        if value not in (None, [], (), "")
    }
