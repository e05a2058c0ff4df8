"""Entries picked or placed by index."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _positive(index: Tensor, size: int) -> Tensor:
    """Indices counted from the front."""
    index = index.long()
    return torch.where(index < 0, index + size, index)


@torch_op("Gather")
def gather(op: TorchNode, x: Tensor, index: Tensor) -> Tensor:
    """Slices along an axis."""
    axis = op.attr("axis", 0) % x.ndim
    index = _positive(index, x.shape[axis])
    return x.index_select(axis, index.flatten()).reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


@torch_op("GatherElements")
def gather_elements(op: TorchNode, x: Tensor, index: Tensor) -> Tensor:
    """An entry along an axis for every position."""
    axis = op.attr("axis", 0) % x.ndim
    return torch.gather(x, axis, _positive(index, x.shape[axis]))


@torch_op("GatherND")
def gather_nd(op: TorchNode, x: Tensor, index: Tensor) -> Tensor:
    """Slices by tuples of indices, sample by sample in the first `batch_dims` axes."""
    batched = op.attr("batch_dims", 0)
    depth = index.shape[-1]
    parts = [_positive(index[..., i], x.shape[batched + i]) for i in range(depth)]
    samples = []
    for axis in range(batched):
        view = [1] * (index.ndim - 1)
        view[axis] = -1
        samples.append(torch.arange(x.shape[axis], device=x.device).reshape(view))
    return x[tuple(samples + parts)] if samples or parts else x


@torch_op("ScatterElements", "Scatter")
def scatter_elements(op: TorchNode, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """`updates` put in, or combined with what is there, along an axis."""
    axis = op.attr("axis", 0) % x.ndim
    index = _positive(index, x.shape[axis])
    reduction = op.attr("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCTIONS[reduction])


@torch_op("ScatterND")
def scatter_nd(op: TorchNode, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """The same by tuples of indices."""
    depth = index.shape[-1]
    parts = [_positive(index[..., i], x.shape[i]) for i in range(depth)]
    reduction = op.attr("reduction", "none")
    if reduction in ("none", "add"):
        return x.index_put(tuple(parts), updates, accumulate=reduction == "add")
    flat = torch.zeros_like(parts[0])
    for i, part in enumerate(parts):
        flat = flat * x.shape[i] + part
    rows = x.reshape(prod(x.shape[:depth]), -1)
    placed = updates.reshape(-1, rows.shape[1])
    result = rows.scatter_reduce(0, flat.reshape(-1, 1).expand_as(placed), placed, _REDUCTIONS[reduction])
    return result.reshape(x.shape)


@torch_op("TensorScatter")
def tensor_scatter(op: TorchNode, past: Tensor, update: Tensor, start: Tensor | None = None) -> Tensor:
    """A cache with new steps written into it, at a place of its own per sample, around the end when circular."""
    axis = op.attr("axis", -2) % past.ndim
    steps = torch.arange(update.shape[axis], device=past.device)
    begins = torch.zeros(past.shape[0], 1, dtype=torch.int64) if start is None else start.reshape(-1, 1).long()
    at = begins.to(past.device) + steps
    at = at % past.shape[axis] if op.attr("mode", "linear") == "circular" else at
    view = [1] * past.ndim
    view[0], view[axis] = at.shape
    return past.scatter(axis, at.reshape(view).expand_as(update), update)


@torch_op("NonZero", data_sized=True)
def non_zero(_: TorchNode, x: Tensor) -> Tensor:
    """The places of what is not zero, one per column."""
    return torch.nonzero(x).T if x.ndim else torch.nonzero(x.reshape(1)).T


@torch_op("Compress", data_sized=True)
def compress(op: TorchNode, x: Tensor, condition: Tensor) -> Tensor:
    """The slices for which the condition holds."""
    axis = op.attr("axis")
    x = x.flatten() if axis is None else x
    return x.index_select(axis or 0, torch.nonzero(condition).flatten().to(x.device))


@torch_op("OneHot", numbers=(1,))
def one_hot(op: TorchNode, index: Tensor, depth: Any, values: Tensor) -> Tensor:
    """values[1] at the index along a new axis, else values[0]."""
    count = int(depth[0] if isinstance(depth, list) else depth)
    axis = op.attr("axis", -1) % (index.ndim + 1)
    positions = torch.arange(count, device=index.device).reshape([-1] + [1] * (index.ndim - axis))
    index = index.long()
    index = torch.where((index < 0) & (index >= -count), index + count, index).unsqueeze(axis)
    return torch.where(index == positions, values[1], values[0])


@torch_op("Unique", data_sized=True)
def unique(op: TorchNode, x: Tensor) -> tuple[Tensor, ...]:
    """The distinct entries or slices, where they first are, which one each is, how often it occurs."""
    axis = op.attr("axis")
    array = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
    values, first, inverse, counts = np.unique(
        array, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not op.attr("sorted", 1):
        order = np.argsort(first)
        rank = np.argsort(order)
        values = np.take(values, order, axis=axis or 0)
        first, counts, inverse = first[order], counts[order], rank[inverse]
    indices = [torch.from_numpy(np.asarray(part, dtype=np.int64)) for part in (first, inverse, counts)]
    picked = x.flatten() if axis is None else x
    return picked.index_select(axis or 0, indices[0].to(x.device)), *indices


@torch_op("NonMaxSuppression", numbers=(2, 3, 4), data_sized=True)
def non_max_suppression(
    op: TorchNode,
    boxes: Tensor,
    scores: Tensor,
    count: Any = 0,
    overlap: Any = 0.0,
    least: Any = None,
) -> Tensor:
    """Rows (batch, class, box): the best boxes of each class, without those that overlap a better one too much."""
    limit, share, threshold = (part[0] if isinstance(part, list) else part for part in (count, overlap, least))
    corners = boxes.detach()
    if op.attr("center_point_box", 0):
        centre, half = corners[..., :2], corners[..., 2:] / 2
        corners = torch.cat([centre - half, centre + half], -1)
    low, high = torch.minimum(corners[..., :2], corners[..., 2:]), torch.maximum(corners[..., :2], corners[..., 2:])
    kept = [
        (b, c, box)
        for b in range(scores.shape[0])
        for c in range(scores.shape[1])
        for box in _suppressed(low[b], high[b], scores[b, c].detach(), int(limit or 0), share or 0.0, threshold)
    ]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _suppressed(
    low: Tensor, high: Tensor, scores: Tensor, limit: int, share: float, threshold: float | None
) -> list[int]:
    order = torch.argsort(scores, descending=True, stable=True)
    if threshold is not None:
        order = order[scores[order] > threshold]
    area = (high - low).prod(-1)
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best, order = order[0], order[1:]
        kept.append(int(best))
        common = (torch.minimum(high[best], high[order]) - torch.maximum(low[best], low[order])).clamp(min=0).prod(-1)
        union = area[best] + area[order] - common
        order = order[~(common > share * union)]
    return kept
