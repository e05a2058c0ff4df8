"""Operators that move entries around: what was constant still is, somewhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np

from onnxprune.ops.base import Array
from onnxprune.ops.constants.base import KnownEntries, Site, constant
from onnxprune.ops.evaluate import slice_arguments


@constant("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(site: Site) -> KnownEntries | None:
    """Row-major: axes that hold the same entries before and after are reshaped block by block."""
    x = site.x[0]
    if x is None:
        return None
    before: list[int] = []
    after: list[int] = []
    for old, new in _blocks(site.shapes[0], site.y[0]):
        if any(axis in site.dynamic[0] for axis in old):
            x = x.collapsed(old)  # which entry comes where depends on a size that varies
        whole = any(x.values.shape[axis] > 1 for axis in old)
        before += [site.shapes[0][axis] if whole else 1 for axis in old]
        after += [site.y[0][axis] if whole else 1 for axis in new]
    return x.moved(lambda array: np.broadcast_to(array, before).reshape(after))


def _blocks(x: tuple[int, ...], y: tuple[int, ...]) -> Iterator[tuple[list[int], list[int]]]:
    """The smallest runs of axes before and after that hold the same entries."""
    i = j = 0
    while i < len(x) or j < len(y):
        old, new = [i] if i < len(x) else [], [j] if j < len(y) else []
        i, j = i + len(old), j + len(new)
        while (left := prod(x[axis] for axis in old)) != (right := prod(y[axis] for axis in new)):
            if left < right:
                old.append(i)
                i += 1
            else:
                new.append(j)
                j += 1
        yield old, new


@constant("Transpose")
def transpose(site: Site) -> KnownEntries | None:
    """Axis i of the output is axis perm[i] of the input."""
    x, perm = site.x[0], site.attr("perm")
    return None if x is None else x.moved(lambda array: np.transpose(array, perm))


@constant("Expand")
def expand(site: Site) -> KnownEntries | None:
    """New axes repeat what there is, which is what an axis of size 1 says."""
    x, rank = site.x[0], len(site.y[0])
    return None if x is None else x.moved(lambda array: array.reshape((1,) * (rank - array.ndim) + array.shape))


@constant("Concat")
def concat(site: Site) -> KnownEntries | None:
    """One after the other; on the other axes what is there in full for one input is for all."""
    if not any(site.x):
        return None
    rank, axis = len(site.y[0]), site.axis()
    parts = [
        (known or KnownEntries.nothing(rank, site.dtypes[0])).spread(axis, shape[axis])
        for known, shape in zip(site.x, site.shapes, strict=True)
    ]
    common = [max(part.values.shape[i] for part in parts) for i in range(rank)]
    values, masks = [], []
    for part in parts:
        shape = [*common[:axis], part.values.shape[axis], *common[axis + 1 :]]
        values.append(np.broadcast_to(part.values, shape))
        masks.append(np.broadcast_to(part.known, shape))
    return KnownEntries(np.concatenate(values, axis), np.concatenate(masks, axis))


@constant("Split")
def split(site: Site) -> list[KnownEntries | None]:
    """The parts, of the sizes that the outputs have."""
    x, axis = site.x[0], site.axis()
    if x is None or x.values.shape[axis] == 1:
        return [x] * len(site.y)
    ends = np.cumsum([shape[axis] for shape in site.y])
    starts = [0, *ends[:-1]]
    return [x.moved(_part(axis, slice(start, end))) for start, end in zip(starts, ends, strict=True)]


def _part(axis: int, entries: slice) -> Callable[[Array], Array]:
    index = (slice(None),) * axis
    return lambda array: array[(*index, entries)]


@constant("Slice")
def slice_(site: Site) -> KnownEntries | None:
    """Constant ranges; axes on which all entries are alike stay so."""
    x, inputs = site.x[0], range(1, len(site.node.inputs))
    bounds = tuple(site.constant(i) for i in inputs)
    if x is None or any(bound is None and site.has(i) for i, bound in zip(inputs, bounds, strict=True)):
        return None
    for start, end, axis, step in zip(*slice_arguments(site.node, bounds, x.values.ndim), strict=True):
        if x.values.shape[axis] > 1:
            to_front = step < 0 and end < -site.shapes[0][axis]
            x = x.moved(_part(axis, slice(start, None if to_front else end, step)))
    return x


@constant("Pad")
def pad(site: Site) -> KnownEntries | None:
    """Constant padding adds entries of a known value along the axes that grow."""
    rank = len(site.shapes[0])
    fill = site.attr("value", 0.0) if site.opset < 11 else 0.0
    if site.opset >= 11 and site.has(2):
        given = site.constant(2)
        if given is None:
            return None
        fill = given.item()
    pads = site.argument(1, "pads")
    if pads is None or site.has(3) or site.attr("mode", "constant") != "constant" or min(pads) < 0:
        return None
    x = site.x[0] or KnownEntries.nothing(rank, site.dtypes[0])
    for axis in range(rank):
        before, after = pads[axis], pads[axis + rank]
        if before or after:
            x = _padded(x, axis, site.shapes[0][axis], (before, after), fill)
    return x


def _padded(x: KnownEntries, axis: int, size: int, amounts: tuple[int, int], fill: float) -> KnownEntries:
    whole = x.spread(axis, size)
    widths = [(0, 0)] * whole.values.ndim
    widths[axis] = amounts
    values = np.pad(whole.values, widths, constant_values=fill)
    return KnownEntries(values, np.pad(whole.known, widths, constant_values=np.True_))


@constant("Gather")
def gather(site: Site) -> KnownEntries | None:
    """Entries at constant places; at places that depend on data only what all entries have in common."""
    x, axis = site.x[0], site.axis()
    if x is None:
        return None
    places = site.constant(1)
    if places is not None and x.values.shape[axis] > 1:
        return x.moved(lambda array: np.take(array, places, axis))
    common = x.collapsed([axis])
    ones = (1,) * len(site.shapes[1])
    return common.moved(lambda array: array.reshape(array.shape[:axis] + ones + array.shape[axis + 1 :]))


@constant("Tile")
def tile(site: Site) -> KnownEntries | None:
    """Copies beside each other."""
    x = site.x[0]
    if x is None:
        return None
    sizes = zip(site.y[0], site.shapes[0], x.values.shape, strict=True)
    repeats = [new // old if full > 1 else 1 for new, old, full in sizes]
    return x.moved(lambda array: np.tile(array, repeats))
