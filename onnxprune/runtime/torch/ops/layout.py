"""The same entries in another arrangement."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op


@torch_op("Reshape", numbers=(1,))
def reshape(op: TorchNode, x: Tensor, shape: list[int] | None = None) -> Tensor:
    """To a shape; 0 keeps an axis, -1 is what is left."""
    target = op.attr("shape") if shape is None else shape
    if not op.attr("allowzero", 0):
        target = [x.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    return x.reshape(target)


@torch_op("Flatten")
def flatten(op: TorchNode, x: Tensor) -> Tensor:
    """To a matrix, the axes before `axis` and those from there on."""
    axis = op.attr("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@torch_op("Transpose")
def transpose(op: TorchNode, x: Tensor) -> Tensor:
    """Axes in another order; reversed where none is stated."""
    return x.permute(op.attr("perm") or list(range(x.ndim))[::-1])


@torch_op("Squeeze", numbers=(1,))
def squeeze(op: TorchNode, x: Tensor, axes: list[int] | int | None = None) -> Tensor:
    """Without axes of size one."""
    axes = op.attr("axes") if axes is None else axes
    if axes is None:
        return x.reshape([size for size in x.shape if size != 1])
    return x.squeeze([axes] if isinstance(axes, int) else axes)


@torch_op("Unsqueeze", numbers=(1,))
def unsqueeze(op: TorchNode, x: Tensor, axes: list[int] | int | None = None) -> Tensor:
    """With new axes of size one; `axes` are positions in the result."""
    axes = op.attr("axes") if axes is None else axes
    axes = [axes] if isinstance(axes, int) else axes
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@torch_op("Expand", numbers=(1,))
def expand(_: TorchNode, x: Tensor, shape: list[int]) -> Tensor:
    """Broadcast to a shape, which may have ones where x has more."""
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(shape)))


@torch_op("Tile", numbers=(1, 2))
def tile(op: TorchNode, x: Tensor, repeats: Any, axis: Any = None) -> Tensor:
    """Repeated along the axes."""
    if op.version < 6:
        counts = [1] * x.ndim
        counts[int(axis if not isinstance(axis, list) else axis[0])] = int(
            repeats if not isinstance(repeats, list) else repeats[0]
        )
        return x.repeat(counts)
    return x.repeat(repeats)


@torch_op("Concat")
def concat(op: TorchNode, *inputs: Tensor) -> Tensor:
    """One after the other along an axis."""
    return inputs[0] if len(inputs) == 1 else torch.cat(inputs, op.attr("axis", 1))


@torch_op("Split", numbers=(1,))
def split(op: TorchNode, x: Tensor, sizes: list[int] | None = None) -> tuple[Tensor, ...]:
    """Pieces of stated sizes, or as many equal ones as there are outputs (the last one may be smaller)."""
    axis = op.attr("axis", 0)
    sizes = op.attr("split") if sizes is None else sizes
    if sizes is None:
        count = op.attr("num_outputs") or len(op.wanted)
        size = -(-x.shape[axis] // count)
        sizes = [min(size, x.shape[axis] - size * index) for index in range(count)]
    return torch.split(x, sizes, axis)


@torch_op("Slice", numbers=(1, 2, 3, 4))
def slice_(
    op: TorchNode,
    x: Tensor,
    starts: list[int] | None = None,
    ends: list[int] | None = None,
    axes: list[int] | None = None,
    steps: list[int] | None = None,
) -> Tensor:
    """Ranges along axes, as Python slices."""
    starts = op.attr("starts") if starts is None else starts
    ends = op.attr("ends") if ends is None else ends
    assert starts is not None
    assert ends is not None
    axes = axes or op.attr("axes") or list(range(len(starts)))
    where = [slice(None)] * x.ndim
    backwards = []
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        if step > 0:
            where[axis] = slice(start, end, step)
            continue
        taken = range(*slice(start, end, step).indices(x.shape[axis]))
        where[axis] = slice(taken[-1], taken[0] + 1, -step) if taken else slice(0, 0)
        backwards.append(axis)
    y = x[tuple(where)]
    return y.flip(backwards) if backwards else y


@torch_op("Pad", numbers=(1, 2, 3))
def pad(
    op: TorchNode, x: Tensor, pads: list[int] | None = None, value: Any = None, axes: list[int] | None = None
) -> Tensor:
    """Entries around the input (negative: fewer of them): a constant, or its own, mirrored, repeated or wrapped."""
    stated = (op.attr("pads") or op.attr("paddings")) if pads is None else pads
    axes = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes]
    pairs = {axis: (stated[i], stated[i + len(axes)]) for i, axis in enumerate(axes)}
    mode = op.attr("mode", "constant")
    if mode == "constant":
        filler = op.attr("value", 0.0) if value is None else value[0] if isinstance(value, list) else value
        flat = [size for axis in reversed(range(x.ndim)) for size in pairs.get(axis, (0, 0))]
        return F.pad(x, flat, value=filler)
    for axis, (begin, end) in pairs.items():
        x = x.narrow(axis, max(0, -begin), x.shape[axis] - max(0, -begin) - max(0, -end))
        if begin > 0 or end > 0:
            around: Any = (max(0, begin), max(0, end))
            index = np.pad(np.arange(x.shape[axis]), around, mode)
            x = x.index_select(axis, torch.tensor(index.tolist(), device=x.device))
    return x


@torch_op("DepthToSpace")
def depth_to_space(op: TorchNode, x: Tensor) -> Tensor:
    """Channels to blocks of pixels."""
    block = op.attr("blocksize")
    n, c, h, w = x.shape
    if op.attr("mode", "DCR") == "DCR":
        y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // block**2, h * block, w * block)


@torch_op("SpaceToDepth")
def space_to_depth(op: TorchNode, x: Tensor) -> Tensor:
    """Blocks of pixels to channels."""
    block = op.attr("blocksize")
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block, block, w // block, block)
    order = (0, 1, 3, 5, 2, 4) if op.attr("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return y.permute(order).reshape(n, c * block**2, h // block, w // block)


@torch_op("ReverseSequence", numbers=(1,))
def reverse_sequence(op: TorchNode, x: Tensor, lengths: list[int]) -> Tensor:
    """The first `lengths[b]` steps of each sample backwards."""
    time, batch = op.attr("time_axis", 0), op.attr("batch_axis", 1)
    samples = [
        torch.cat(
            [sample.narrow(axis, 0, length).flip(axis), sample.narrow(axis, length, x.shape[time] - length)], axis
        )
        for sample, length in zip(x.unbind(batch), lengths, strict=True)
        for axis in [time - (time > batch)]
    ]
    return torch.stack(samples, batch)


@torch_op("Trilu", numbers=(1,))
def trilu(op: TorchNode, x: Tensor, k: int | list[int] = 0) -> Tensor:
    """The upper or lower triangle."""
    diagonal = k[0] if isinstance(k, list) else k
    return torch.triu(x, diagonal) if op.attr("upper", 1) else torch.tril(x, diagonal)


@torch_op("Col2Im", numbers=(1, 2))
def column_to_image(op: TorchNode, x: Tensor, image: list[int], block: list[int]) -> Tensor:
    """Blocks laid back over an image, summed where they overlap."""
    count = len(image)
    dilations, strides = op.attr("dilations") or [1] * count, op.attr("strides") or [1] * count
    pads = op.attr("pads") or [0] * (2 * count)
    sizes = [size + pads[axis] + pads[axis + count] for axis, size in enumerate(image)]
    place = torch.zeros(1, 1, dtype=torch.int64)
    for axis in range(count):
        width = (block[axis] - 1) * dilations[axis] + 1
        starts = torch.arange(0, sizes[axis] - width + 1, strides[axis])
        along = torch.arange(block[axis]).unsqueeze(1) * dilations[axis] + starts
        place = place.unsqueeze(1).unsqueeze(3) * sizes[axis] + along.unsqueeze(0).unsqueeze(2)
        place = place.reshape(place.shape[0] * place.shape[1], -1)
    n, channels = x.shape[0], x.shape[1] // prod(block)
    flat = torch.zeros(n, channels, prod(sizes), dtype=x.dtype, device=x.device)
    flat = flat.index_add(2, place.flatten().to(x.device), x.reshape(n, channels, -1))
    y = flat.reshape(n, channels, *sizes)
    for axis in range(count):
        y = y.narrow(axis + 2, pads[axis], image[axis])
    return y


def _sizes(values: Sequence[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64)


@torch_op("Shape")
def shape(op: TorchNode, x: Tensor) -> Tensor:
    """The sizes, on the host."""
    return _sizes(x.shape[op.attr("start", 0) : op.attr("end")])


@torch_op("Size")
def size(_: TorchNode, x: Tensor) -> Tensor:
    """The number of entries, on the host."""
    return torch.tensor(x.numel(), dtype=torch.int64)
