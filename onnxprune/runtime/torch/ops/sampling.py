"""Images read between their pixels, at places that are computed."""

from __future__ import annotations

from itertools import product as every
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, per_channel, torch_op


def _corners(x: Tensor, row: Tensor, column: Tensor) -> list[Tensor]:
    """The four pixels around each place, each with its share; x [B, C, H, W], places [B, K] -> four times [B, C, K].

    A pixel beyond the image is zero.
    """
    height, width = x.shape[2:]
    flat = x.flatten(2)
    top, left = row.floor(), column.floor()
    found = []
    for down, right in every((0, 1), (0, 1)):
        r, c = top + down, left + right
        share = (1 - (row - r).abs()) * (1 - (column - c).abs())
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        place = r.clamp(0, height - 1).long() * width + c.clamp(0, width - 1).long()
        pixels = flat.gather(2, place.unsqueeze(1).expand(-1, x.shape[1], -1))
        found.append(pixels * (share * inside).unsqueeze(1))
    return found


@torch_op("DeformConv")
def deformable_convolution(
    op: TorchNode, x: Tensor, w: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Every tap reads at a place of its own, between the pixels (Dai et al., 2017; with a mask Zhu et al., 2019)."""
    if x.ndim != 4:
        raise op.refuse("deformable convolutions have two spatial axes")
    strides, dilations = op.attr("strides") or [1, 1], op.attr("dilations") or [1, 1]
    pads = op.attr("pads") or [0] * 4
    groups, parts = op.attr("group", 1), op.attr("offset_group", 1)
    batch, channels = x.shape[:2]
    rows, columns = offset.shape[-2:]
    taps = list(every(range(w.shape[2]), range(w.shape[3])))
    offset = offset.reshape(batch * parts, len(taps), 2, rows, columns)
    weight = None if mask is None else mask.reshape(batch * parts, 1, len(taps), rows * columns)
    top = torch.arange(rows, device=x.device, dtype=x.dtype).reshape(-1, 1) * strides[0] - pads[0]
    left = torch.arange(columns, device=x.device, dtype=x.dtype) * strides[1] - pads[1]
    image = x.reshape(batch * parts, channels // parts, *x.shape[2:])
    read = []
    for tap, (i, j) in enumerate(taps):
        row = (offset[:, tap, 0] + top + i * dilations[0]).flatten(1)
        column = (offset[:, tap, 1] + left + j * dilations[1]).flatten(1)
        seen = torch.stack(_corners(image, row, column)).sum(0)
        read.append(seen if weight is None else seen * weight[:, :, tap])
    stacked = torch.stack(read, 2).reshape(batch, groups, channels // groups, len(taps), rows, columns)
    kernel = w.reshape(groups, -1, w.shape[1], len(taps))
    y = torch.einsum("bgctij,goct->bgoij", stacked, kernel).reshape(batch, -1, rows, columns)
    return y if bias is None else y + per_channel(bias, 4)


@torch_op("RoiAlign")
def roi_align(op: TorchNode, x: Tensor, boxes: Tensor, samples: Tensor) -> Tensor:
    """Each box as an image of one size: the mean (or maximum) of points read in each cell (He et al., 2017)."""
    height, width = op.attr("output_height", 1), op.attr("output_width", 1)
    shift = 0.5 if op.version >= 16 and op.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel" else 0.0
    corners = boxes * op.attr("spatial_scale", 1.0) - shift
    pooled = [
        _aligned(op, x[sample].unsqueeze(0), box, height, width, shift)
        for sample, box in zip(samples.tolist(), corners, strict=True)
    ]
    return torch.cat(pooled) if pooled else x.new_zeros(0, x.shape[1], height, width)


def _aligned(op: TorchNode, x: Tensor, box: Tensor, height: int, width: int, shift: float) -> Tensor:
    extent = box[2:] - box[:2]
    extent = extent if shift else extent.clamp(min=1)
    given = op.attr("sampling_ratio", 0)
    points = [given or max(1, int(torch.ceil(extent[axis] / cells))) for axis, cells in ((1, height), (0, width))]
    row, column = (
        box[axis] + extent[axis] / cells * (torch.arange(cells * count, device=x.device, dtype=x.dtype) + 0.5) / count
        for axis, cells, count in ((1, height, points[0]), (0, width, points[1]))
    )
    outside = ((row < -1) | (row > x.shape[2])).unsqueeze(1) | (column < -1) | (column > x.shape[3])
    rows, columns = torch.meshgrid(row.clamp(0, x.shape[2] - 1), column.clamp(0, x.shape[3] - 1), indexing="ij")
    seen = [corner * ~outside.reshape(1, 1, -1) for corner in _corners(x, rows.reshape(1, -1), columns.reshape(1, -1))]
    shape = (x.shape[1], height, points[0], width, points[1])
    if op.attr("mode", "avg") == "avg":
        return torch.stack(seen).sum(0).reshape(shape).mean((2, 4)).unsqueeze(0)
    return torch.stack(seen).amax(0).reshape(shape).amax((2, 4)).unsqueeze(0)  # the largest share of a pixel


@torch_op("MaxRoiPool")
def max_roi_pool(op: TorchNode, x: Tensor, boxes: Tensor) -> Tensor:
    """Each box as an image of one size: the maximum of each cell (Girshick, 2015)."""
    size: Any = tuple(op.attr("pooled_shape"))
    pooled = []
    for box in boxes:
        sample = int(box[0])
        left, top, right, bottom = (box[1:] * op.attr("spatial_scale", 1.0)).round().long().tolist()
        region = x[sample : sample + 1, :, top : max(bottom, top) + 1, left : max(right, left) + 1]
        pooled.append(F.adaptive_max_pool2d(region, size))
    return torch.cat(pooled) if pooled else x.new_zeros(0, x.shape[1], *size)
