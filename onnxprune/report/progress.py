"""How far a command is, on standard error: a bar at a terminal, elsewhere a line every ten seconds.

Imports nothing heavy: it is up before the rest is loaded.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from onnxprune.support.progress import Overall, Progress, Stretch

# Seconds between two lines where there is no terminal.
EVERY = 10.0
# Below this share of the work nobody knows how long the rest takes.
_TOO_EARLY = 0.03


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Yield a function to call with what is being done; `quiet`: it prints nothing."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        from rich.console import Console

        from onnxprune.report.bars import progress_bar

        with progress_bar(Console(stderr=True, markup=False, emoji=False)) as show:
            yield Stretch(show)
    else:
        with _lines(sys.stderr, EVERY) as show:
            yield Stretch(show)


def seconds_left(elapsed: float, share: float) -> float | None:
    """How long the rest takes if it goes on like this; None where it is too early to say."""
    return None if share < _TOO_EARLY else elapsed * (1 - share) / share


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: `0:02:05`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


@contextlib.contextmanager
def _lines(stream: TextIO, every: float) -> Iterator[Progress]:
    """Print how far the work is every so many seconds, as long as the block lasts."""
    start, stop, now = time.monotonic(), threading.Event(), [Overall("loading", 0.0)]

    def show(said: str) -> None:
        now[0] = said if isinstance(said, Overall) else Overall(said, now[0].share)

    def tell() -> None:
        while not stop.wait(every):
            elapsed = time.monotonic() - start
            left = seconds_left(elapsed, now[0].share)
            rest = "" if left is None else f", about {clock(left)} left"
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                print(f"onnxprune: {clock(elapsed)}, {now[0].share:.0%}{rest}: {now[0]}", file=stream, flush=True)

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield show
    finally:
        stop.set()
        thread.join()
