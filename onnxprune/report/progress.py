"""A line on standard error that says what is being done. Imports nothing heavy: it is up before the rest is loaded."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with what is being done; it prints nothing unless standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True, markup=False, emoji=False).status("loading") as status:
        yield status.update
