"""Many values in, one out: sums, extremes, norms, and sums that run along an axis."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _whole(function: Reduction) -> Reduction:
    """In the type of the input, where torch would widen integers."""
    return lambda x, axes, keep: function(x, axes, keep).to(x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keep)
    return torch.div(x.sum(axes, keep), _count(x, axes), rounding_mode="trunc").to(x.dtype)


def _count(x: Tensor, axes: list[int]) -> int:
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _extreme(function: Callable[..., Tensor], largest: bool) -> Reduction:
    def reduce(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if _count(x, axes) == 0:  # of nothing: what any other value is beyond
            shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
            limit = _limit(x.dtype, lowest=largest)
            result = torch.full(shape, limit, dtype=x.dtype, device=x.device)
            return result if keep else result.squeeze(axes)
        return function(x, axes, keep)

    return reduce


def _limit(dtype: torch.dtype, lowest: bool) -> float | int | bool:
    if dtype == torch.bool:
        return not lowest
    if dtype.is_floating_point:
        return -torch.inf if lowest else torch.inf
    return torch.iinfo(dtype).min if lowest else torch.iinfo(dtype).max


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": _whole(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _whole(
        lambda x, axes, keep: torch.linalg.vector_norm(x if x.is_floating_point() else x.double(), 2, axes, keep)
    ),
    "ReduceLogSum": _whole(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _whole(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
    "ReduceMax": _extreme(torch.amax, largest=True),
    "ReduceMean": _mean,
    "ReduceMin": _extreme(torch.amin, largest=False),
    "ReduceProd": _whole(_prod),
    "ReduceSum": _whole(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceSumSquare": _whole(lambda x, axes, keep: x.square().sum(axes, keep)),
}


def _register() -> None:
    for name, reduction in _REDUCTIONS.items():
        torch_op(name, numbers=(1,))(lambda op, x, axes=None, f=reduction: _reduced(op, x, axes, f))


def _reduced(op: TorchNode, x: Tensor, axes: list[int] | None, function: Reduction) -> Tensor:
    axes = op.attr("axes") if axes is None else axes
    if not axes:
        if op.attr("noop_with_empty_axes", 0):
            return _of_each(op, x)
        axes = list(range(x.ndim))
    if x.ndim == 0:
        return _of_each(op, x)
    return function(x, [axis % x.ndim for axis in axes], bool(op.attr("keepdims", 1)))


def _of_each(op: TorchNode, x: Tensor) -> Tensor:
    """The reduction of every entry alone."""
    reduction = _REDUCTIONS[op.op_type]
    return reduction(x.unsqueeze(-1), [x.ndim], False)


_register()


@torch_op("ArgMax", "ArgMin")
def arg_extreme(op: TorchNode, x: Tensor) -> Tensor:
    """The first index of the largest (smallest) entry, or the last."""
    axis = op.attr("axis", 0) % x.ndim
    last = op.attr("select_last_index", 0)
    values = x.flip(axis) if last else x
    extreme = torch.argmax if op.op_type == "ArgMax" else torch.argmin
    index = extreme(values.to(torch.float64) if values.dtype == torch.bool else values, axis, keepdim=True)
    index = x.shape[axis] - 1 - index if last else index
    return index if op.attr("keepdims", 1) else index.squeeze(axis)


@torch_op("CumSum", "CumProd", numbers=(1,))
def cumulate(op: TorchNode, x: Tensor, axis: int | list[int]) -> Tensor:
    """Running sums or products along an axis, without the entry itself (exclusive), from the end (reverse)."""
    along = (axis[0] if isinstance(axis, list) else axis) % x.ndim
    running, neutral = (torch.cumsum, 0) if op.op_type == "CumSum" else (torch.cumprod, 1)
    values = x.flip(along) if op.attr("reverse", 0) else x
    if op.attr("exclusive", 0):
        first = torch.full_like(values.narrow(along, 0, 1), neutral)
        values = torch.cat([first, values.narrow(along, 0, x.shape[along] - 1)], along)
    result = running(values, along).to(x.dtype)
    return result.flip(along) if op.attr("reverse", 0) else result


@torch_op("TopK", numbers=(1,))
def top_k(op: TorchNode, x: Tensor, k: list[int] | int | None = None) -> tuple[Tensor, Tensor]:
    """The k largest (smallest) entries and where they were; of equal ones the first."""
    count = op.attr("k") if k is None else k[0] if isinstance(k, list) else k
    axis = op.attr("axis", -1)
    values, indices = torch.sort(x, dim=axis, descending=bool(op.attr("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


@torch_op("LpNormalization")
def lp_normalization(op: TorchNode, x: Tensor) -> Tensor:
    """Divided by the norm along an axis; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, op.attr("p", 2), op.attr("axis", -1), keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@torch_op("GlobalAveragePool")
def global_average_pool(_: TorchNode, x: Tensor) -> Tensor:
    """The mean over all positions."""
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@torch_op("GlobalMaxPool")
def global_max_pool(_: TorchNode, x: Tensor) -> Tensor:
    """The maximum over all positions."""
    return x.amax(list(range(2, x.ndim)), keepdim=True)


@torch_op("GlobalLpPool")
def global_lp_pool(op: TorchNode, x: Tensor) -> Tensor:
    """The norm over all positions."""
    norm: Tensor = torch.linalg.vector_norm(x, op.attr("p", 2), list(range(2, x.ndim)), keepdim=True)
    return norm


@torch_op("LRN")
def local_response_normalization(op: TorchNode, x: Tensor) -> Tensor:
    """Divided by a power of the squares of the neighbouring channels (AlexNet, section 3.3)."""
    size, alpha, beta, bias = op.attr("size"), op.attr("alpha", 1e-4), op.attr("beta", 0.75), op.attr("bias", 1.0)
    before = (size - 1) // 2
    squares = F.pad(x.square().transpose(1, -1), (before, size - 1 - before)).unfold(-1, size, 1).sum(-1)
    return x / torch.pow(bias + alpha / size * squares.transpose(1, -1), beta)
