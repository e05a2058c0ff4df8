"""The bar of progress as rich draws it: what is being done, the share of the run, the time so far and that left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from onnxprune.report.progress import clock, seconds_left
from onnxprune.support.progress import Overall
from onnxprune.support.progress import Progress as Show

_BAR_WIDTH = 20


class _Left(ProgressColumn):
    """The time that is left, said to be that."""

    def render(self, task: Task) -> Text:
        """Like `0:00:12 left`."""
        left = seconds_left(task.elapsed or 0.0, task.completed)
        return Text("" if left is None else f"{clock(left)} left", style="progress.remaining")


@contextlib.contextmanager
def progress_bar(console: Console) -> Iterator[Show]:
    """Show progress on a console while the block lasts; nothing is left of it afterwards."""
    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (SpinnerColumn(), BarColumn(_BAR_WIDTH), TaskProgressColumn(), TimeElapsedColumn(), _Left(), words)
    with Progress(*columns, console=console, transient=True) as bars:
        run = bars.add_task("loading", total=1.0)

        def show(said: str) -> None:
            share = said.share if isinstance(said, Overall) else None
            bars.update(run, completed=share, description=str(said))

        yield show
