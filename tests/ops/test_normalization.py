"""Normalizations against the rule oracle, and against numpy where removing units changes the statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.rule_oracle import Array, Case, SampleDraw, case, oracle, sample


def _per_channel(parameter: Array, x: Array) -> Array:
    return parameter.reshape(-1, *[1] * (x.ndim - 2))


def _normalized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


@sample("BatchNormalization", prunable="x[0] x[1] x[2] scale[0] bias[0] mean[0] var[0] y[1]")
def batch(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), scale=d.normal(c), bias=d.normal(c), mean=d.normal(c), var=d.positive(c))


@sample("BatchNormalization", prunable="x[0] x[1] scale[0] y[1]")
def batch_of_vectors(d: SampleDraw) -> Case:
    n, c = d.sizes(2)
    return case(x=d.normal(n, c), scale=d.normal(c), bias=d.normal(c), mean=d.normal(c), var=d.positive(c))


def _batch_in_training(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, momentum: float, epsilon: float, training_mode: int
) -> tuple[Array, Array, Array]:
    axes = (0, *range(2, x.ndim))
    y = _normalized(x, axes, epsilon) * _per_channel(scale, x) + _per_channel(bias, x)
    running = momentum * mean + (1 - momentum) * x.mean(axes), momentum * var + (1 - momentum) * x.var(axes)
    return y, *running


@sample("BatchNormalization", prunable="x[1] scale[0] y[1]", outputs="y m v", since=14, reference=_batch_in_training)
def batch_in_training(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    parameters = {"scale": d.normal(c), "bias": d.normal(c), "mean": d.normal(c), "var": d.positive(c)}
    return case(x=d.normal(n, c, h), **parameters, momentum=0.7, epsilon=0.01, training_mode=1)


def _instance(x: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    return _normalized(x, tuple(range(2, x.ndim)), epsilon) * _per_channel(scale, x) + _per_channel(bias, x)


@sample("InstanceNormalization", prunable="x[0] x[1] scale[0] bias[0] y[1]", reference=_instance)
def instance(d: SampleDraw) -> Case:
    n, c, h, w = d.sizes(4)
    return case(x=d.normal(n, c, h, w), scale=d.normal(c), bias=d.normal(c), epsilon=0.01)


def _layer(x: Array, scale: Array, bias: Array | None = None, axis: int = -1, epsilon: float = 1e-5) -> Array:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return _normalized(x, axes, epsilon) * scale + (0 if bias is None else bias)


def _layer_with_statistics(
    x: Array, scale: Array, bias: Array | None, axis: int, epsilon: float
) -> tuple[Array, Array, Array]:
    axes = tuple(range(axis % x.ndim, x.ndim))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return _layer(x, scale, bias, axis, epsilon), mean, 1 / np.sqrt(var + epsilon)


@sample("LayerNormalization", prunable="x[0] x[1] x[2] scale[0] bias[0] y[2]", reference=_layer)
def layer(d: SampleDraw) -> Case:
    n, s, h = d.sizes(3)
    return case(x=d.normal(n, s, h), scale=d.normal(h), bias=d.normal(h), epsilon=0.01)


@sample(
    "LayerNormalization",
    prunable="x[0] x[1] x[2] y[1] mean[0]",
    outputs="y mean spread",
    reference=_layer_with_statistics,
)
def layer_over_two_axes(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), scale=d.normal(c, h), bias=None, axis=1, epsilon=0.01)


@sample(
    "LayerNormalization",
    prunable="x[0] x[2] scale[1] y[1]",
    outputs="y - spread",
    reference=lambda *inputs, **attributes: _layer_with_statistics(*inputs, **attributes)[::2],
)
def layer_with_an_output_left_out(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), scale=d.normal(1, h), bias=d.normal(h), axis=-1, epsilon=0.01)


def _root_mean_square(x: Array, scale: Array, axis: int = -1, epsilon: float = 1e-5) -> Array:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + epsilon) * scale


@sample("RMSNormalization", "SimplifiedLayerNormalization", prunable="x[0] x[1] x[2] y[2]", reference=_root_mean_square)
def root_mean_square(d: SampleDraw) -> Case:
    n, s, h = d.sizes(3)
    return case(x=d.normal(n, s, h), scale=d.normal(h), axis=-1)


def _group(x: Array, scale: Array, bias: Array, num_groups: int, epsilon: float) -> Array:
    grouped = x.reshape(len(x), num_groups, -1)
    repeats = x.shape[1] // len(scale)  # opset 18 has one scale per group, later ones one per channel
    scale, bias = np.repeat(scale, repeats), np.repeat(bias, repeats)
    y = _normalized(grouped, (2,), epsilon).reshape(x.shape)
    return y * _per_channel(scale, x) + _per_channel(bias, x)


@sample("GroupNormalization", prunable="x[0] x[1] scale[0] y[1]", since=21, reference=_group)
def groups(d: SampleDraw) -> Case:
    n, g, c, h = d.sizes(4)
    return case(x=d.normal(n, g * c, h), scale=d.normal(g * c), bias=d.normal(g * c), num_groups=g, epsilon=0.01)


@sample("GroupNormalization", prunable="x[0] x[1] scale[0] y[1]", until=20, reference=_group, runtime="onnx")
def groups_with_one_scale_each(d: SampleDraw) -> Case:
    n, g, c, h = d.sizes(4)
    return case(x=d.normal(n, g * c, h), scale=d.normal(g), bias=d.normal(g), num_groups=g, epsilon=0.01)


@sample("GroupNormalization", prunable="x[0] x[1] scale[0] y[1]", since=21, reference=_group)
def one_group(d: SampleDraw) -> Case:
    n, c, h = d.sizes(3)
    return case(x=d.normal(n, c, h), scale=d.normal(c), bias=d.normal(c), num_groups=1, epsilon=0.01)


def _unit_norm(x: Array, p: int = 2, axis: int = -1) -> Array:
    return x / np.linalg.norm(x, p, axis, keepdims=True)


@sample("LpNormalization", prunable="x[0] x[1] x[2] y[2]", reference=_unit_norm)
def unit_norm(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)))


@sample("LpNormalization", prunable="x[0] x[1] x[2] y[2]", reference=_unit_norm)
def unit_sum_of_magnitudes(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), p=1, axis=1)


def _mean_variance(x: Array, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """Step by step as onnx defines it: what is divided by nearly 0 must come out the same."""
    mean, squares = x.mean(tuple(axes), keepdims=True), (x**2).mean(tuple(axes), keepdims=True)
    return (x - mean) / (np.sqrt(squares - mean**2) + np.float32(1e-9))


@sample("MeanVarianceNormalization", prunable="x[0] x[1] y[1]", reference=_mean_variance, until=12, runtime="onnx")
def mean_variance(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(4)))


@sample("MeanVarianceNormalization", prunable="x[0] x[1] y[1]", reference=_mean_variance, since=13, runtime="onnx")
def mean_variance_over_some_axes(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(4)), axes=[2, -1])


@sample("LRN", prunable="x[0] y[0]")
def neighbours(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(4)), size=3)


@sample("Softmax", "LogSoftmax", "Hardmax", prunable="x[0] x[1] y[1]", since=13)
def last_axis(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)))


@sample("Softmax", "LogSoftmax", "Hardmax", prunable="x[0] x[2] y[2]", since=13)
def inner_axis(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axis=-2)


@sample("Softmax", "LogSoftmax", "Hardmax", prunable="x[0] y[0]", until=12)
def flattened(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)))


@sample("Softmax", "LogSoftmax", "Hardmax", prunable="x[0] x[1] y[1]", since=11, until=12)
def flattened_from_the_back(d: SampleDraw) -> Case:
    return case(x=d.normal(*d.sizes(3)), axis=-1)


test_rule = oracle(__name__)
