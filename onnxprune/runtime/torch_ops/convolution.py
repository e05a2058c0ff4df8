"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product as every

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch_ops.base import Op, auto_pads, per_channel, torch_op, torch_pads

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


@torch_op("Conv")
def convolution(op: Op, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Of one, two or three spatial axes, grouped, strided, dilated, with any pads."""
    count = x.ndim - 2
    if count not in _CONV:
        raise op.refuse(f"convolutions have one to three spatial axes, this one has {count}")
    strides = op.attr("strides") or [1] * count
    dilations = op.attr("dilations") or [1] * count
    pads = auto_pads(op, x.shape[2:], w.shape[2:], strides, dilations)
    same = pads[:count] == pads[count:] and min(pads, default=0) >= 0
    x = x if same else F.pad(x, torch_pads(pads))
    return _CONV[count](x, w, bias, strides, pads[:count] if same else 0, dilations, op.attr("group", 1))


@torch_op("ConvTranspose")
def transposed_convolution(op: Op, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """The gradient of a convolution: computed in full, then cut to the output's size."""
    count = x.ndim - 2
    if count not in _TRANSPOSED:
        raise op.refuse(f"convolutions have one to three spatial axes, this one has {count}")
    strides = op.attr("strides") or [1] * count
    dilations = op.attr("dilations") or [1] * count
    extra = op.attr("output_padding") or [0] * count
    full = _TRANSPOSED[count](x, w, None, strides, 0, 0, op.attr("group", 1), dilations)
    full = F.pad(full, [pad for size in reversed(extra) for pad in (0, size)]) if any(extra) else full
    y = F.pad(full, torch_pads([-pad for pad in _transposed_pads(op, x, full, strides)]))
    return y if bias is None else y + per_channel(bias, y.ndim)


def _transposed_pads(op: Op, x: Tensor, full: Tensor, strides: list[int]) -> list[int]:
    """What is cut from the full output on each side."""
    count = len(strides)
    mode = op.attr("auto_pad", "NOTSET")
    shape = op.attr("output_shape")
    if shape is None and mode not in ("SAME_UPPER", "SAME_LOWER"):
        return list(op.attr("pads") or [0] * (2 * count))
    target = shape[-count:] if shape else [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    totals = [size - wanted for size, wanted in zip(full.shape[2:], target, strict=True)]
    small = [total // 2 for total in totals]
    large = [total - part for total, part in zip(totals, small, strict=True)]
    return small + large if mode == "SAME_UPPER" else large + small


@torch_op("DeformConv")
def deformable_convolution(
    op: Op, x: Tensor, w: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Every tap reads at a place of its own, between the pixels (Dai et al., 2017; with a mask Zhu et al., 2019)."""
    if x.ndim != 4:
        raise op.refuse("deformable convolutions have two spatial axes")
    strides, dilations = op.attr("strides") or [1, 1], op.attr("dilations") or [1, 1]
    pads = op.attr("pads") or [0] * 4
    groups, offset_groups = op.attr("group", 1), op.attr("offset_group", 1)
    batch, channels, height, width = x.shape
    rows, columns = offset.shape[-2:]
    taps = list(every(range(w.shape[2]), range(w.shape[3])))
    offset = offset.reshape(batch, offset_groups, len(taps), 2, rows, columns)
    weight = None if mask is None else mask.reshape(batch, offset_groups, len(taps), 1, rows, columns)
    top = torch.arange(rows, device=x.device, dtype=x.dtype).reshape(-1, 1) * strides[0] - pads[0]
    left = torch.arange(columns, device=x.device, dtype=x.dtype) * strides[1] - pads[1]
    grouped = x.reshape(batch * offset_groups, channels // offset_groups, height, width)
    read = []
    for tap, (i, j) in enumerate(taps):
        y_at = top + i * dilations[0] + offset[:, :, tap, 0]
        x_at = left + j * dilations[1] + offset[:, :, tap, 1]
        grid = torch.stack([(2 * x_at + 1) / width - 1, (2 * y_at + 1) / height - 1], -1).flatten(0, 1)
        seen = F.grid_sample(grouped, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        seen = seen.reshape(batch, offset_groups, -1, rows, columns)
        read.append(seen if weight is None else seen * weight[:, :, tap])
    stacked = torch.stack(read, 3).reshape(batch, groups, channels // groups, len(taps), rows, columns)
    kernel = w.reshape(groups, -1, *w.shape[1:2], len(taps))
    y = torch.einsum("bgctij,gotc->bgoij", stacked, kernel.transpose(2, 3)).reshape(batch, -1, rows, columns)
    return y if bias is None else y + per_channel(bias, 4)
