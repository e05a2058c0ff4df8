"""How much memory may be used for all that comes of samples: one bound for a process, shared out by use.

The model itself is not in it, nor are copies of weights that ONNX Runtime makes. Who keeps something that grows with
samples, with the size of an image or with the square of a layer's width asks here how much of it there may be:

    bytes_for("values")
"""

from __future__ import annotations

from contextvars import ContextVar

from onnxprune.errors import UsageError
from onnxprune.support.quantities import BYTES, split_quantity

DEFAULT = "2GB"
_LEAST = 64_000_000

# Of the bound, for each use; some are never there at the same time.
_SHARES = {
    "values": 1 / 8,  # of one batch, that are looked at together
    "matrices": 3 / 8,  # products of features with each other, for as many layers as fit
    "layer": 3 / 8,  # the same for the one layer that is worked on, and what solving it takes
    "waiting": 1 / 16,  # values between two layers, of each of two models; more goes to a file
    "samples": 1 / 8,  # inputs that are read again and again
    "training": 1.0,  # samples and teacher's outputs that are read in every epoch; nothing else is there then
}
_bound: ContextVar[int] = ContextVar("memory", default=2 * 10**9)


def set_bound(size: str | float) -> None:
    """From now on, as much as `2GB` says. Raises UsageError for a text that is not a size, and for one too small."""
    try:
        number, unit = split_quantity(size)
        found = int(number * BYTES[unit])
    except (KeyError, ValueError):
        raise UsageError(f"memory: expected a size like 2GB or 500MB, not {str(size)!r}") from None
    if found < _LEAST:
        raise UsageError(f"memory: {size} is too little to work in; give {_LEAST // 1_000_000}MB or more")
    _bound.set(found)


def bytes_for(use: str) -> int:
    """How many bytes one use may take."""
    return int(_SHARES[use] * _bound.get())
