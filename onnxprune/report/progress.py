"""A line on standard error that says what is being done. Imports nothing heavy: it is up before the rest is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with what is being done; it prints nothing unless standard error is a terminal."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, emoji=False)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("loading") as status:
        yield status.update
