"""Tables for a terminal of any width: words wrap, numbers and the names of rows are never cut.

Where a row's name is too long for its column, it gets a line of its own. Where the columns do not fit beside each
other, the last one goes under each row; where that is not enough, a row becomes a list: `median: 158 us  p90: 163 us`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_GAP, _INDENT = 2, 2
# Names longer than this may get a line of their own; text columns are not made narrower than this, and words are
# only broken where they are longer than that.
_LONG_NAME, _NARROW, _LONG_WORD = 24, 12, 18


@dataclass(frozen=True)
class _Column:
    """Attributes:
    header: its name.
    number: its cells are set to the right and never wrapped.
    narrowest, natural: width in characters.
    """

    header: str
    number: bool
    narrowest: int
    natural: int


class TextTable:
    """Rows of text under headers; the first column holds the names of the rows."""

    def __init__(self, *headers: str, title: str | None = None, caption: str | None = None) -> None:
        """Headers that start with `>` are of columns of numbers."""
        self.title, self.caption = title, caption
        self._headers = headers
        self._rows: list[tuple[list[Text], str]] = []

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        """A row with as many cells as there are headers."""
        assert len(cells) == len(self._headers)
        self._rows.append(([Text(cell) if isinstance(cell, str) else cell for cell in cells], style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, for rich."""
        width = options.max_width
        if self.title:
            yield from Text(self.title, style="bold").wrap(console, width)
        columns = [self._column(at) for at in range(len(self._headers))]
        widths = _fitted(columns, width)
        if widths is None and not columns[-1].number:
            widths = _fitted(columns[:-1], width)
        if widths and any(column.header for column in columns):
            yield from _as_row([Text(column.header, style="dim") for column in columns], "", columns, widths, console)
        for cells, style in self._rows:
            beside = len(widths) if widths else 0
            if widths:
                yield from _as_row(cells, style, columns, widths, console)
            elif cells[0].plain:
                yield _styled(cells[0], style)
            under = range(beside or 1, len(columns))
            yield from _as_list(
                [_named(columns[at], cells[at]) for at in under if cells[at].plain], style, width, console
            )
        if self.caption:
            yield from Text(self.caption, style="dim italic").wrap(console, width)

    def _column(self, at: int) -> _Column:
        """A column as wide as its cells ask for. Headers wrap between words."""
        header, number = self._headers[at].removeprefix(">"), self._headers[at].startswith(">")
        cells = [cells[at] for cells, _ in self._rows]
        lines = [line for cell in cells for line in cell.plain.split("\n")]
        widest = max(map(cell_len, lines), default=0)
        words = max((cell_len(word) for line in lines for word in line.split()), default=0)
        whole = number or at == 0
        narrowest = widest if whole else min(widest, max(_NARROW, min(words, _LONG_WORD)))
        narrowest = max(narrowest, *map(cell_len, header.split() or [""]))
        return _Column(header, number, narrowest, max(widest, cell_len(header)))


def _fitted(columns: Sequence[_Column], width: int) -> list[int] | None:
    """Widths that fit side by side: the widest that can be narrowed is, first; None where that is not enough.

    The first column may end up narrower than the longest name in it.
    """
    lowest = [min(columns[0].narrowest, _LONG_NAME), *(column.narrowest for column in columns[1:])]
    room = width - _GAP * (len(columns) - 1)
    if sum(lowest) > room:
        return None
    widths = [column.natural for column in columns]
    narrowest = [column.narrowest for column in columns]
    while (over := sum(widths) - room) > 0:
        slack = [have - least for have, least in zip(widths, narrowest, strict=True)]
        if max(slack) == 0:
            widths[0] -= over  # of the names, long ones get a line of their own
            break
        widest = max((at for at, left in enumerate(slack) if left), key=lambda at: widths[at])
        widths[widest] -= 1
    return widths


def _as_row(
    cells: Sequence[Text], style: str, columns: Sequence[_Column], widths: Sequence[int], console: Console
) -> Iterator[Text]:
    """The lines of a row, as many cells as there are widths; a name that is longer than its column comes first."""
    name, *rest = cells
    if any(cell_len(line) > widths[0] for line in name.plain.split("\n")):
        yield _styled(name, style)
        cells = [Text(""), *rest]
    wrapped = [_lines(cell, width, console) for cell, width in zip(cells, widths, strict=False)]
    for number in range(max(map(len, wrapped))):
        line = Text(style=style)
        for column, texts, width in zip(columns, wrapped, widths, strict=False):
            part = texts[number] if number < len(texts) else Text("")
            gap = " " * (width - part.cell_len)
            line.append_text(Text.assemble(gap, part) if column.number else Text.assemble(part, gap))
            line.append(" " * _GAP)
        line.rstrip()
        yield line


def _lines(cell: Text, width: int, console: Console) -> Sequence[Text]:
    """A cell as lines of a width; what fits keeps its blanks."""
    lines = list(cell.split("\n"))
    return lines if all(line.cell_len <= width for line in lines) else list(cell.wrap(console, width))


def _named(column: _Column, cell: Text) -> Text:
    return Text.assemble((f"{column.header}: " if column.header else "", "dim"), cell)


def _as_list(parts: Sequence[Text], style: str, width: int, console: Console) -> Iterator[Text]:
    """Parts one after the other, as many to an indented line as fit."""
    line = Text()
    for part in parts:
        if line and line.cell_len + _GAP + part.cell_len > width - _INDENT:
            yield from _indented(_styled(line, style), width, console)
            line = Text()
        line = Text.assemble(line, " " * _GAP, part) if line else part
    if line:
        yield from _indented(_styled(line, style), width, console)


def _indented(text: Text, width: int, console: Console) -> Iterator[Text]:
    for line in text.wrap(console, width - _INDENT):
        yield Text.assemble(" " * _INDENT, line)


def _styled(text: Text, style: str) -> Text:
    copy = text.copy()
    copy.stylize(style)
    return copy
