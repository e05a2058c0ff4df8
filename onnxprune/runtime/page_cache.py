"""Keep the resident memory of a large memory-mapped model small while ONNX Runtime walks through it.

ONNX Runtime maps external weights and leaves every page that it has read in the process. The system may take them back
at any time, since they are clean copies of the file, but until it is short of memory it does not, and they count.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_MADV_DONTNEED = 4
_INTERVAL_SECONDS = 0.02
# Maps of less than this in all are left alone.
_ALLOWED_BYTES = 256 << 20


def folder_with_much(folder: Path) -> Path | None:
    """The folder where its files are large enough for `returned` to have work; None spares it a thread at every run."""
    left = _ALLOWED_BYTES
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # what is wrong with it, loading will say
        for entry in entries:
            left -= entry.stat().st_size if entry.is_file() else 0
            if left < 0:
                return folder
    return None


@contextlib.contextmanager
def returned(folder: Path | None) -> Iterator[None]:
    """Give pages of private maps of files in `folder` back to the system every 20 ms for the length of a block.

    A page that is needed again comes back from the file cache; weights are never written to, so nothing is lost. Linux
    only; nothing is done elsewhere, and nothing without a folder.
    """
    if sys.platform != "linux" or folder is None:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_return_until, args=(str(folder.resolve()), done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _return_until(folder: str, done: threading.Event) -> None:
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    while not done.wait(_INTERVAL_SECONDS):
        maps = _maps(folder)
        if sum(length for _, length in maps) > _ALLOWED_BYTES:
            for start, length in maps:
                madvise(start, length, _MADV_DONTNEED)


def _maps(folder: str) -> list[tuple[int, int]]:
    """Address and length of the private maps that this process has of files in a folder."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, access, *rest = line.split(maxsplit=5)
        if access.endswith("p") and len(rest) == 4 and rest[3].rpartition("/")[0] == folder:
            start, end = (int(address, 16) for address in place.split("-"))
            found.append((start, end - start))
    return found
