"""Progress of a long job: a line of text, which may say how much of the work is done.

A watcher is any function of a string. Where a count is known the string is a `Counted`; what comes from a `Stretch` is
an `Overall`, which says how much of the whole run is finished. Whoever only wants the words never notices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Progress = Callable[[str], None]

_OF_THE_REST = 0.9


def silent(_: str) -> None:
    """Progress that nobody watches."""


class Counted(str):
    """A line of text about a piece of work with a count.

    Attributes:
        done: parts of the piece that are finished.
        total: parts there are.
    """

    __slots__ = ("done", "total")

    done: int
    total: int

    def __new__(cls, text: str, done: int, total: int) -> Counted:
        """The text and the count."""
        counted = super().__new__(cls, text)
        counted.done, counted.total = done, total
        return counted


class Overall(str):
    """A line of text with the share of all the work that is finished, in [0, 1]; it never falls."""

    __slots__ = ("share",)

    share: float

    def __new__(cls, text: str, share: float) -> Overall:
        """The text and the share."""
        overall = super().__new__(cls, text)
        overall.share = share
        return overall


class Stretch:
    """A stretch of a run, as a watcher: from `start` to `end` of it.

    How many pieces of work it consists of is not known before; most have one, so a piece with a count takes most of
    what is left.
    """

    def __init__(self, tell: Progress, start: float = 0.0, end: float = 1.0) -> None:
        self._tell, self._start, self._end = tell, start, end
        self._begun = self._share = 0.0
        self._piece: tuple[int, int] | None = None  # of the last line: done, total

    def __call__(self, said: str) -> None:
        """Pass a line on, with what it comes to of the whole run."""
        if isinstance(said, Overall):
            self._share = max(self._share, said.share)
        elif isinstance(said, Counted):
            if self._piece is None or said.total != self._piece[1] or said.done < self._piece[0]:
                self._begun = self._share  # another piece
            self._piece = (said.done, said.total)
            self._share = self._begun + (1 - self._begun) * _OF_THE_REST * said.done / max(said.total, 1)
        self._tell(Overall(said, self._start + (self._end - self._start) * self._share))


def parts(progress: Progress, efforts: Sequence[float]) -> list[Stretch]:
    """A watcher for each part of a run, one after the other; efforts say how long they take beside each other."""
    whole, ends = sum(efforts) or 1.0, [sum(efforts[: at + 1]) for at in range(len(efforts))]
    return [Stretch(progress, (end - effort) / whole, end / whole) for effort, end in zip(efforts, ends, strict=True)]


def within(where: str, said: str) -> str:
    """The line with `where: ` in front of it, and what else it says."""
    text = f"{where}: {said}"
    if isinstance(said, Counted):
        return Counted(text, said.done, said.total)
    return Overall(text, said.share) if isinstance(said, Overall) else text


def duration(seconds: float) -> str:
    """In the unit that fits: `40 s`, `3 min`, `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
