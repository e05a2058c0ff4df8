"""A line on standard error that says what is being done. Imports nothing heavy: it is up before the rest is loaded."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from onnxprune.support.progress import Progress


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Yield a function to call with what is being done; it prints nothing unless standard error is a terminal.

    Lines with a count (`support.progress.Counted`) are shown with a bar, the time so far and the time that is left.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    from onnxprune.report.bars import line

    with line(Console(stderr=True, markup=False, emoji=False)) as show:
        yield show
