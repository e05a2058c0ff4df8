"""Numbers for people."""

from __future__ import annotations


def show_time(seconds: float) -> str:
    """`1.31 ms`, to three digits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:,.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0"


def show_bytes(size: float) -> str:
    """`4.2 MB`, in powers of ten."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def show_share(value: float | None) -> str:
    """`99.50%`; a dash for what there is not."""
    return "-" if value is None else f"{value:.2%}"
