"""A part of many cases, for the default suite: whether a case is in it depends on its name alone."""

from __future__ import annotations

import zlib


def one_in(count: int, name: str) -> bool:
    """True for about one name in `count`, the same ones whatever other names there are."""
    return zlib.crc32(name.encode()) % count == 0
