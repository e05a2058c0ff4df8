"""Pools with windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, auto_pads, torch_op, torch_pads

_MAX: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {
    1: F.max_pool1d_with_indices,
    2: F.max_pool2d_with_indices,
    3: F.max_pool3d_with_indices,
}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class PoolWindows:
    """Where the windows of a pool lie. `pads` are the stated ones, `reach` what the windows need at the ends."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    reach: list[int]

    @property
    def padded(self) -> bool:
        """Does any window look beyond the input?"""
        return any(self.pads) or any(self.reach)

    @property
    def around(self) -> list[int]:
        """Begins as stated, ends as the windows need them, for F.pad."""
        return torch_pads([*self.pads[: len(self.kernel)], *self.reach])


def _windows(op: TorchNode, sizes: Sequence[int]) -> PoolWindows:
    kernel = op.attr("kernel_shape")
    count = len(kernel)
    if len(sizes) != count or count not in _AVERAGE:
        raise op.refuse(f"pools have one to three spatial axes, this one has {len(sizes)}")
    strides = op.attr("strides") or [1] * count
    dilations = op.attr("dilations") or [1] * count
    pads = auto_pads(op, sizes, kernel, strides, dilations)
    reach = []
    for axis, size in enumerate(sizes):
        width = (kernel[axis] - 1) * dilations[axis] + 1
        begin, end = pads[axis], pads[axis + count]
        room = size + begin + end - width
        last = -(-room // strides[axis]) if op.attr("ceil_mode", 0) else room // strides[axis]
        if last * strides[axis] >= size + begin:  # no window starts behind the input
            last -= 1
        reach.append(last * strides[axis] + width - size - begin)
    return PoolWindows(kernel, strides, dilations, pads, reach)


@torch_op("MaxPool")
def max_pool(op: TorchNode, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The largest entry of each window and, when asked for, its place in the whole input."""
    windows = _windows(op, x.shape[2:])
    values = x if x.is_floating_point() else x.double()
    padded = F.pad(values, windows.around, value=-torch.inf) if windows.padded else values
    pool = _MAX[len(windows.kernel)]
    y, index = pool(padded, windows.kernel, windows.strides, 0, windows.dilations)
    if not op.wants(1):
        return y.to(x.dtype)
    return y.to(x.dtype), _places(op, index, x, padded.shape[2:], windows.pads)


def _places(op: TorchNode, index: Tensor, x: Tensor, padded: Sequence[int], pads: list[int]) -> Tensor:
    """Positions in a padded plane as positions in all of `x`, row by row or (storage_order=1) column by column."""
    sizes = list(x.shape[2:])
    coordinates = []
    for size in reversed(padded):
        coordinates.append(index % size)
        index = index // size
    coordinates = [at - pad for at, pad in zip(reversed(coordinates), pads, strict=False)]
    order = list(range(len(sizes)))
    if op.attr("storage_order", 0):
        order.reverse()
    place = torch.zeros_like(index)
    for axis in order:
        place = place * sizes[axis] + coordinates[axis]
    plane = torch.arange(x.shape[0] * x.shape[1], device=x.device) * prod(sizes)
    return place + plane.reshape(x.shape[0], x.shape[1], *[1] * len(sizes))


@torch_op("AveragePool")
def average_pool(op: TorchNode, x: Tensor) -> Tensor:
    """The mean of each window, the stated pads counted as zeros or not at all."""
    windows = _windows(op, x.shape[2:])
    if not windows.padded and max(windows.dilations) == 1:
        return _AVERAGE[len(windows.kernel)](x, windows.kernel, windows.strides)
    counted = torch.ones_like(x[:1, :1])
    if op.attr("count_include_pad", 0):
        reach = [min(a, b) for a, b in zip(windows.reach, windows.pads[len(windows.kernel) :], strict=True)]
        counted = F.pad(counted, torch_pads([*windows.pads[: len(windows.kernel)], *reach]), value=1.0)
        missing = [need - given for need, given in zip(windows.reach, reach, strict=True)]
        counted = F.pad(counted, torch_pads([0] * len(missing) + missing))
    else:
        counted = F.pad(counted, windows.around)
    return _window_sums(F.pad(x, windows.around), windows) / _window_sums(counted, windows)


def _window_sums(x: Tensor, windows: PoolWindows) -> Tensor:
    """The sum of each window of an input that has its pads already."""
    ones = torch.ones(1, 1, *windows.kernel, dtype=x.dtype, device=x.device)
    planes = x.reshape(-1, 1, *x.shape[2:])
    sums = _CONV[len(windows.kernel)](planes, ones, None, windows.strides, 0, windows.dilations)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


@torch_op("LpPool")
def lp_pool(op: TorchNode, x: Tensor) -> Tensor:
    """The norm of each window."""
    windows = _windows(op, x.shape[2:])
    p = op.attr("p", 2)
    return torch.pow(_window_sums(F.pad(x, windows.around).abs().pow(p), windows), 1 / p)


@torch_op("MaxUnpool", numbers=(2,))
def max_unpool(op: TorchNode, x: Tensor, index: Tensor, shape: list[int] | None = None) -> Tensor:
    """Each entry back to the place that MaxPool took it from, zeros elsewhere."""
    kernel = op.attr("kernel_shape")
    strides = op.attr("strides") or [1] * len(kernel)
    pads = op.attr("pads") or [0] * (2 * len(kernel))
    inferred = [
        (size - 1) * strides[axis] + kernel[axis] - pads[axis] - pads[axis + len(kernel)]
        for axis, size in enumerate(x.shape[2:])
    ]
    smaller = [*x.shape[:2], *inferred]
    flat = torch.zeros(prod(smaller), dtype=x.dtype, device=x.device).scatter(0, index.flatten(), x.flatten())
    y = flat.reshape(smaller)
    if shape is None or list(shape) == smaller:
        return y
    return F.pad(y, [size for axis in reversed(range(x.ndim)) for size in (0, shape[axis] - smaller[axis])])
