"""Pooling, resizing and sampling: batch and channels pass through, spatial axes keep their sizes."""

from __future__ import annotations

from onnxprune.ops.base import Op, RefuseError, rule


def per_channel(*names: str) -> None:
    """Register operators on [N, C, ...] that treat every channel alike; the driver freezes the spatial axes."""
    rule(*names)(_per_channel)


def _per_channel(op: Op) -> None:
    if len(op.y) > 1 and op.y[1]:
        raise RefuseError("places counted over all channels are an output")
    op.same_all(op.y[0][:2], op.x[0][:2])


per_channel("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")


@rule("MaxUnpool")
def max_unpool(_: Op) -> None:
    """Places are counted over all channels: every axis keeps its size (the driver freezes what is not mentioned)."""


@rule("GridSample")
def grid_sample(op: Op) -> None:
    """Every image of the batch has its grid; channels pass through."""
    op.same_all(op.y[0][:2], op.x[0][:2])
    op.same(op.x[1][0], op.x[0][0])


@rule("MaxRoiPool", "RoiAlign")
def roi(op: Op) -> None:
    """Regions replace the batch; channels pass through."""
    op.same(op.y[0][1], op.x[0][1])


@rule("Resize", "Upsample")
def resize(op: Op) -> None:
    """Axes whose size does not change pass through; entries of `sizes` follow them."""
    x, y = op.x[0], op.y[0]
    if op.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise RefuseError("regions are cropped")
    old = op.node.op_type == "Upsample" or op.opset < 11
    axes = [axis % len(x) for axis in op.attr("axes") or range(len(x))]
    for axis in range(len(x)):
        if x[axis].size != y[axis].size:
            continue
        if axis < 2:
            op.same(x[axis], y[axis])
        if not old and op.has(3) and axis in axes:
            op.names(3, axes.index(axis), y[axis])
