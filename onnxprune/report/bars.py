"""The line of progress as rich draws it: what is being done, and with a count a bar and the times."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from onnxprune.support.progress import Counted
from onnxprune.support.progress import Progress as Show

_BAR_WIDTH = 20


class _IfCounted(ProgressColumn):
    """A column that is empty where nobody knows how much there is to do."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__(column.get_table_column())
        self.column = column

    def render(self, task: Task) -> RenderableType:
        """What the column shows."""
        return Text("") if task.total is None else self.column(task)


class _Left(TimeRemainingColumn):
    """The time that is left, said to be that."""

    def render(self, task: Task) -> Text:
        """Like `0:00:12 left`."""
        return Text.assemble(super().render(task), " left")


@contextlib.contextmanager
def line(console: Console) -> Iterator[Show]:
    """Show progress on a console while the block lasts; nothing is left of it afterwards."""
    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    counted = map(_IfCounted, (BarColumn(_BAR_WIDTH), MofNCompleteColumn(), _Left()))
    with Progress(SpinnerColumn(), words, TimeElapsedColumn(), *counted, console=console, transient=True) as bars:
        bars.add_task("loading", total=None)

        def show(said: str) -> None:
            done, total = (said.done, said.total) if isinstance(said, Counted) else (0, None)
            (now,) = bars.tasks
            if total is not None and total == now.total and done >= now.completed:
                bars.update(now.id, completed=done, description=str(said))
            else:  # other work: a new task, whose clock starts now
                bars.remove_task(now.id)
                bars.add_task(str(said), total=total, completed=done)

        yield show
