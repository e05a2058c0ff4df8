"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, auto_pads, per_channel, torch_op, torch_pads

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def _steps(op: TorchNode, x: Tensor) -> tuple[int, list[int], list[int]]:
    """The number of spatial axes, strides and dilations. Raises ModelError where torch has no kernel."""
    count = x.ndim - 2
    if count not in _CONV:
        raise op.refuse(f"convolutions have one to three spatial axes, this one has {count}")
    return count, op.attr("strides") or [1] * count, op.attr("dilations") or [1] * count


@torch_op("Conv")
def convolution(op: TorchNode, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Of one, two or three spatial axes, grouped, strided, dilated, with any pads."""
    count, strides, dilations = _steps(op, x)
    pads = auto_pads(op, x.shape[2:], w.shape[2:], strides, dilations)
    pointwise = max(w.shape[2:]) == 1 < max(strides)
    if pointwise or pads[:count] != pads[count:] or min(pads, default=0) < 0:
        x, pads = F.pad(x, torch_pads(pads)), [0] * (2 * count)
    if pointwise:
        x, strides = _every(x, strides), [1] * count
    return _CONV[count](x, w, bias, strides, pads[:count], dilations, op.attr("group", 1))


def _every(x: Tensor, strides: list[int]) -> Tensor:
    """The entries that a window of a single entry reads at these strides.

    A strided convolution of such windows writes outside of its memory in torch 2.13, backwards on a processor, where
    channels are innermost and no multiple of 4.
    """
    return x[(slice(None), slice(None), *(slice(None, None, stride) for stride in strides))]


@torch_op("ConvTranspose")
def transposed_convolution(op: TorchNode, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """The gradient of a convolution: computed in full, then cut to the output's size."""
    count, strides, dilations = _steps(op, x)
    extra = op.attr("output_padding") or [0] * count
    full = _TRANSPOSED[count](x, w, None, strides, 0, 0, op.attr("group", 1), dilations)
    full = F.pad(full, [pad for size in reversed(extra) for pad in (0, size)]) if any(extra) else full
    y = F.pad(full, torch_pads([-pad for pad in _transposed_pads(op, x, full, strides)]))
    return y if bias is None else y + per_channel(bias, y.ndim)


def _transposed_pads(op: TorchNode, x: Tensor, full: Tensor, strides: list[int]) -> list[int]:
    """The entries that are cut from the full output on each side."""
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
