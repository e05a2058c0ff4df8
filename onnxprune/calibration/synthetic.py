"""Data made from the signature of a model, and from what the model itself says about its inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxprune.calibration.base import Array, Batch, Hints, Request, Start, source
from onnxprune.signature import Port, synthetic_feed

SAMPLES = 128
# Sizes for dynamic axes that no one gave: height and width of images, anything else.
_SIDE, _LENGTH = 224, 32


@source("synthetic", "synthetic", lambda request: request.spec == "synthetic", batched=True)
def open_synthetic(request: Request) -> Start:
    """Made-up inputs, 128 samples unless more or fewer are asked for.

    Images are noise with the spectrum of natural ones (`natural_noise`), with the channels' mean and covariance where
    the model tells them; other floats are normal; integers lie within the table that they index where that is known;
    masks are all true. Dynamic axes without a size get 224 (height and width) or 32.
    """
    return lambda: _batches(request)


def _batches(request: Request) -> Iterator[Batch]:
    left, index = request.samples or SAMPLES, 0
    while left > 0:
        count = min(left, request.batch)
        yield Batch(_feed(request, count, index))
        left, index = left - count, index + 1


def _feed(request: Request, count: int, index: int) -> dict[str, Array]:
    sizes: dict[str, int] = {}
    for port in request.ports:
        for axis in range(len(port.shape)):
            default = count if axis == 0 else _SIDE if len(port.shape) == 4 else _LENGTH
            sizes.setdefault(port.symbol(axis), default)
    return {
        port.name: _array(port.bound(sizes), request.hints, np.random.default_rng([request.seed, index, place]))
        for place, port in enumerate(request.ports)
    }


def _array(port: Port, hints: Hints, rng: np.random.Generator) -> Array:
    made = synthetic_feed([port], {}, int(rng.integers(1 << 32)))[port.name]
    if made.dtype.kind in "iu":
        if "mask" in port.name.lower():
            return np.ones_like(made)
        if port.name in hints.limits:
            return np.asarray(rng.integers(0, hints.limits[port.name], made.shape)).astype(made.dtype)
    return made
