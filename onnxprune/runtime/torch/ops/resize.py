"""Images in another size: along each axis a product with a matrix of interpolation weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

Floats = npt.NDArray[np.float64]


@torch_op("Resize", numbers=(1, 2, 3))
def resize(op: TorchNode, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    """Interpolated to `sizes`, or by `scales`; opset 10 had the scales second and laid pixels at their corners."""
    if op.version < 11:
        return _resized(op, x, [floor(n * s) for n, s in zip(x.shape, roi, strict=True)], roi, "asymmetric", "floor")
    axes = [axis % x.ndim for axis in op.attr("axes") or range(x.ndim)]
    wanted: list[int] = list(x.shape)
    factors = [1.0] * x.ndim
    if sizes:
        chosen = [size / x.shape[axis] for size, axis in zip(sizes, axes, strict=True)]
        policy = op.attr("keep_aspect_ratio_policy", "stretch")
        common = {"not_larger": min(chosen), "not_smaller": max(chosen)}.get(policy)
        for axis, size, factor in zip(axes, sizes, chosen, strict=True):
            factors[axis] = factor if common is None else common
            wanted[axis] = size if common is None else floor(common * x.shape[axis] + 0.5)
    else:
        for axis, factor in zip(axes, scales, strict=True):
            factors[axis], wanted[axis] = factor, floor(x.shape[axis] * factor)
    regions = None
    if roi and op.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        regions = {axis: (roi[i], roi[i + len(axes)]) for i, axis in enumerate(axes)}
    mode = op.attr("coordinate_transformation_mode", "half_pixel")
    return _resized(op, x, wanted, factors, mode, op.attr("nearest_mode", "round_prefer_floor"), regions)


@torch_op("Upsample", numbers=(1,))
def upsample(op: TorchNode, x: Tensor, scales: list[float] | None = None) -> Tensor:
    """Resize of old: by scales, pixels at their corners."""
    factors = op.attr("scales") if scales is None else scales
    if factors is None:
        factors = [1.0, 1.0, op.attr("height_scale"), op.attr("width_scale")]
    sizes = [floor(n * s) for n, s in zip(x.shape, factors, strict=True)]
    return _resized(op, x, sizes, factors, "asymmetric", "floor")


def _resized(
    op: TorchNode,
    x: Tensor,
    sizes: Sequence[int],
    scales: Sequence[float],
    mode: str,
    nearest: str,
    regions: dict[int, tuple[float, float]] | None = None,
) -> Tensor:
    outside = None
    y = x if x.is_floating_point() else x.double()
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        if size == x.shape[axis] and scale == 1 and not regions:
            continue
        at = _coordinates(mode, x.shape[axis], size, scale, (regions or {}).get(axis, (0.0, 1.0)))
        if op.attr("mode", "nearest") == "nearest":
            y = y.index_select(axis, torch.tensor(_nearest(at, x.shape[axis], nearest), device=x.device))
        else:
            matrix = torch.tensor(_weights(op, at, x.shape[axis], scale).tolist(), dtype=y.dtype, device=x.device)
            y = torch.tensordot(y, matrix, ([axis], [1])).movedim(-1, axis)
        if regions:
            beyond = torch.tensor(((at < 0) | (at > x.shape[axis] - 1)).tolist(), device=x.device)
            beyond = beyond.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
            outside = beyond if outside is None else outside | beyond
    if outside is not None:
        y = torch.where(outside, op.attr("extrapolation_value", 0.0), y)
    return y if x.is_floating_point() else y.round().to(x.dtype)


def _coordinates(mode: str, size: int, wanted: int, scale: float, region: tuple[float, float]) -> Floats:
    """Where each entry of the output lies in the input."""
    at = np.arange(wanted, dtype=np.float64)
    start, end = region
    if mode == "align_corners":
        length = size * scale
        return at * (size - 1) / (length - 1) if wanted > 1 else np.zeros(1)
    if mode == "asymmetric":
        return at / scale
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if mode == "tf_crop_and_resize":
        if wanted == 1:
            return np.full(1, 0.5 * (start + end) * (size - 1))
        return start * (size - 1) + at * (end - start) * (size - 1) / (wanted - 1)
    if mode == "pytorch_half_pixel" and wanted == 1:
        return np.full(1, -0.5)
    middle = (at + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return middle + size / 2 * (1 - wanted / (scale * size))
    return middle


def _nearest(at: Floats, size: int, mode: str) -> list[int]:
    rounded = {
        "round_prefer_floor": lambda: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda: np.floor(at + 0.5),
        "floor": lambda: np.floor(at),
        "ceil": lambda: np.ceil(at),
    }[mode]()
    return [int(index) for index in np.clip(rounded, 0, size - 1)]


def _weights(op: TorchNode, at: Floats, size: int, scale: float) -> Floats:
    """[outputs, inputs]: how much of each input entry goes into each output."""
    cubic = op.attr("mode") == "cubic"
    shrink = min(scale, 1.0) if op.attr("antialias", 0) else 1.0
    reach = ceil((2 if cubic else 1) / shrink)
    taps = np.floor(at)[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(taps - at[:, None]) * shrink
    weights = _cubic(distance, op.attr("cubic_coeff_a", -0.75)) if cubic else np.clip(1 - distance, 0, None)
    if op.attr("exclude_outside", 0):
        weights = np.where((taps < 0) | (taps >= size), 0, weights)
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((len(at), size))
    rows = np.broadcast_to(np.arange(len(at))[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, size - 1).astype(np.int64)), weights)
    return matrix


def _cubic(distance: Floats, a: float) -> Floats:
    """Keys (1981), equation 4 with a free parameter."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


@torch_op("GridSample")
def grid_sample(op: TorchNode, x: Tensor, grid: Tensor) -> Tensor:
    """Entries read between the pixels, at places given from -1 to 1 (Jaderberg et al., 2015)."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(op.attr("mode", "linear"), op.attr("mode", "linear"))
    return F.grid_sample(x, grid, mode, op.attr("padding_mode", "zeros"), bool(op.attr("align_corners", 0)))
