"""Pooling, resizing and sampling: batch and channels pass through, spatial axes keep their sizes."""

from __future__ import annotations

from onnxprune.ops.base import Op, rule


def per_channel(*names: str) -> None:
    """Register operators on [N, C, ...] that treat every channel alike; the driver freezes the spatial axes."""
    rule(*names)(_per_channel)


def _per_channel(op: Op) -> None:
    for y in op.y:
        op.same(y[0], op.x[0][0])
        op.same(y[1], op.x[0][1])


per_channel("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
per_channel("GridSample", "MaxUnpool")


@rule("MaxRoiPool", "RoiAlign")
def roi(op: Op) -> None:
    """Regions replace the batch; channels pass through."""
    op.same(op.y[0][1], op.x[0][1])


@rule("Resize", "Upsample")
def resize(op: Op) -> None:
    """Axes whose size does not change pass through; entries of `sizes` follow them."""
    x, y = op.x[0], op.y[0]
    old = op.node.op_type == "Upsample" or op.opset < 11
    axes = op.attr("axes") or list(range(len(x)))
    for axis in range(len(x)):
        if x[axis].size != y[axis].size:
            continue
        if axis < 2:
            op.same(x[axis], y[axis])
        if not old and op.has(3) and axis in axes:
            op.names(3, axes.index(axis), y[axis])
