"""Pooling, resizing and sampling against the rule oracle."""

from __future__ import annotations

import numpy as np

from tests.rule_oracle import Case, SampleDraw, case, ints, oracle, sample


@sample("AveragePool", "MaxPool", prunable="x[0] x[1] y[0] y[1]")
def windows(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 6, 5), kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])


@sample("LpPool", prunable="x[0] x[1] y[0] y[1]")
def windows_of_norms(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 6, 5), kernel_shape=[3, 2], p=2)


@sample("MaxPool", outputs="y places", since=8)
def windows_with_places(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 6, 5), kernel_shape=[2, 2], strides=[2, 2])


@sample("MaxPool", prunable="x[0] x[1] y[0] y[1]", outputs="y -", since=8)
def windows_with_places_left_out(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 6), kernel_shape=[2])


@sample("MaxUnpool", fed="x places")
def windows_undone(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    places = np.arange(n * c * 4).reshape(n, c, 2, 2) * 4
    return case(x=d.normal(n, c, 2, 2), places=places, kernel_shape=[2, 2], strides=[2, 2])


def _mean(x: np.ndarray, **_: object) -> np.ndarray:
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


def _largest(x: np.ndarray, **_: object) -> np.ndarray:
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


_EVERY = "x[0] x[1] x[2] x[3] y[0] y[1]"


def _whole_planes(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(x=d.normal(n, c, h, w))


sample("GlobalAveragePool", prunable=_EVERY, reference=_mean)(_whole_planes)
sample("GlobalMaxPool", prunable=_EVERY, reference=_largest)(_whole_planes)
sample("GlobalLpPool", prunable=_EVERY, until=21)(_whole_planes)


def _windows_as_large_as_the_plane(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(x=d.normal(n, c, h, w), kernel_shape=[h, w], strides=[1, 2])


sample("AveragePool", prunable=_EVERY, reference=_mean)(_windows_as_large_as_the_plane)
sample("MaxPool", prunable=_EVERY, reference=_largest)(_windows_as_large_as_the_plane)


@sample("LpPool", prunable=_EVERY)
def norms_of_the_plane(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(x=d.normal(n, c, h, w), kernel_shape=[h, w], p=2)


@sample("GridSample", prunable="x[0] x[1] grid[0] y[0] y[1]", fed="x grid")
def sampled(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 5, 4), grid=d.unit(n, 3, 6, 2))


@sample("MaxRoiPool", prunable="x[1] y[1]", fed="x rois", until=21)
def pooled_regions(d: SampleDraw) -> Case:
    n, c, r = d.sizes(3)
    rois = np.array([[i % n, 0, 0, 4, 3] for i in range(r)], np.float32)
    return case(x=d.normal(n, c, 6, 6), rois=rois, pooled_shape=[2, 2])


@sample("RoiAlign", prunable="x[1] y[1]", fed="x rois batch", until=21)
def aligned_regions(d: SampleDraw) -> Case:
    n, c, r = d.sizes(3)
    rois = np.array([[0, 0, 4, 3]] * r, np.float32)
    return case(x=d.normal(n, c, 6, 6), rois=rois, batch=d.integers(n, r), output_height=2, output_width=3)


def _scales(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@sample("Upsample", prunable="x[0] x[1] y[0] y[1]", until=8)
def upsampled_by_attribute(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 3, 4), scales=[1.0, 1.0, 2.0, 3.0])


@sample("Upsample", prunable="x[0] x[1] y[0] y[1]", since=9, until=9)
def upsampled_by_input(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 3, 4), scales=_scales(1, 1, 2, 3))


@sample("Resize", prunable="x[0] x[1] y[0] y[1]", until=10)
def resized_by_scales_alone(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 3, 4), scales=_scales(1, 1, 2, 0.5))


@sample("Resize", prunable="x[0] x[1] y[0] y[1]", since=11)
def resized_by_scales(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 3, 4), roi=_scales(), scales=_scales(1, 1, 2, 3), mode="linear")


@sample("Resize", prunable="x[0] x[1] y[0] y[1]", since=11, until=12)
def resized_to_sizes_with_empty_inputs(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 3, 4), roi=_scales(), scales=_scales(), sizes=ints(n, c, 5, 6))


@sample("Resize", prunable="x[0] x[1] y[0] y[1]", since=13)
def resized_to_sizes(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 3, 4), roi=None, scales=None, sizes=ints(n, c, 5, 6), mode="nearest")


@sample("Resize", prunable="x[0] x[1] y[0] y[1]", since=18)
def resized_along_some_axes(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 3, 4), roi=None, scales=None, sizes=ints(5, 6), axes=[2, 3])


@sample("Resize", prunable="x[1] y[1]", since=18)
def resized_along_axes_counted_from_the_back(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c, 3, 4), roi=None, scales=None, sizes=ints(c, 5, 6), axes=[-3, -2, -1])


@sample("Resize", prunable="x[0] y[0]", since=13)
def channels_resampled_onto_themselves(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    scales = _scales(1, (c + 0.5) / c, 2, 2)
    return case(x=d.normal(n, c, 3, 4), roi=None, scales=scales, mode="nearest")


@sample("Resize", since=13, runtime="onnx")
def cropped_by_regions(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    roi = _scales(0, 0, 0, 0, 0.5, 0.5, 1, 1)
    sizes = ints(n, c, 3, 4)
    mode = "tf_crop_and_resize"
    return case(x=d.normal(n, c, 3, 4), roi=roi, scales=None, sizes=sizes, coordinate_transformation_mode=mode)


test_rule = oracle(__name__)
