"""What a watcher of a long job is told: a line of text, which may say how much of the work is done.

A watcher is any function of a string. Where a count is known the string is a `Counted`, so that a bar can be drawn;
whoever only wants the words never notices.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Progress that nobody watches."""


class Counted(str):
    """A line of text with a count.

    Attributes:
        done: parts of the work that are finished.
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


def within(where: str, said: str) -> str:
    """The line with `where: ` in front of it and the same count."""
    text = f"{where}: {said}"
    return Counted(text, said.done, said.total) if isinstance(said, Counted) else text
