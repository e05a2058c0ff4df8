"""Python's garbage collector, out of the way for a while."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """No search for garbage inside the block: where many objects are made and kept, or time is measured, it is in vain
    or in the way. A collector that is off already stays so.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
