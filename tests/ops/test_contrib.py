"""ONNX Runtime's activations and norms against the rule oracle."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np

from tests.rule_oracle import Array, SampleDraw, oracle, sample

MICROSOFT = "com.microsoft"


@sample("Gelu", "QuickGelu", "FastGelu", prunable="x[0] x[1] x[2] y[2]", domain=MICROSOFT)
def alone(d: SampleDraw) -> dict[str, Any]:
    return {"x": d.normal(*d.sizes(3))}


@sample("BiasGelu", "FastGelu", prunable="x[0] x[1] x[2] b[0] y[2]", domain=MICROSOFT)
def with_bias(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    return {"x": d.normal(n, s, h), "b": d.normal(h)}


def _add(x: Array, b: Array, skip: Array) -> Array:
    return x + b + skip


@sample("BiasAdd", prunable="x[0] x[1] x[2] b[0] skip[2] y[2]", runtime="reference", reference=_add, domain=MICROSOFT)
def bias_and_skip(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    return {"x": d.normal(n, s, h), "b": d.normal(h), "skip": d.normal(n, s, h)}


def _gated(x: Array, b: Array) -> Array:
    left, right = np.split(x + b, 2, axis=-1)
    return left * right * (1 + np.vectorize(erf)(right / sqrt(2)))


@sample("BiasSplitGelu", prunable="x[0] x[1] x[2] b[0] y[2]", runtime="reference", reference=_gated, domain=MICROSOFT)
def gate(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    return {"x": d.normal(n, s, 2 * h), "b": d.normal(2 * h)}


def _softmax(x: Array, b: Array, axis: int, is_inner_broadcast: int) -> Array:
    assert axis == 3
    raised = np.exp(x + b)
    return raised / raised.sum(axis=-1, keepdims=True)


@sample("BiasSoftmax", prunable="x[1] y[1]", runtime="reference", reference=_softmax, domain=MICROSOFT)
def masked(d: SampleDraw) -> dict[str, Any]:
    n, heads, s, keys = d.sizes(4)
    return {"x": d.normal(n, heads, s, keys), "b": d.normal(n, 1, s, keys), "axis": 3, "is_inner_broadcast": 0}


def _norm(x: Array, scale: Array, shift: Array | float, epsilon: float, center: bool) -> Array:
    mean = x.mean(axis=-1, keepdims=True) if center else 0.0
    deviation = np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + epsilon)
    return (x - mean) / deviation * scale + shift


def _skip_layer(
    x: Array, skip: Array, scale: Array, shift: Array | None = None, b: Array | None = None, epsilon: float = 1e-12
) -> tuple[Array, Array]:
    total = x + skip + (0 if b is None else b)
    return _norm(total, scale, 0 if shift is None else shift, epsilon, center=True), total


@sample(
    "SkipLayerNormalization",
    prunable="x[0] x[1] x[2] skip[2] scale[0] shift[0] b[0] y[2] total[2]",
    fed="x skip",
    outputs="y - - total",
    reference=_skip_layer,
    domain=MICROSOFT,
)
def sum_and_norm(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    tensors = {
        "x": d.normal(n, s, h),
        "skip": d.normal(n, s, h),
        "scale": d.normal(h),
        "shift": d.normal(h),
        "b": d.normal(h),
    }
    return dict(**tensors, epsilon=1e-5)


@sample(
    "SkipLayerNormalization",
    prunable="x[1] x[2] skip[0] skip[1] scale[0] y[2]",
    fed="x skip",
    reference=lambda *args, **kwargs: _skip_layer(*args, **kwargs)[0],
    domain=MICROSOFT,
)
def skip_for_all(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    return {"x": d.normal(n, s, h), "skip": d.normal(s, h), "scale": d.normal(h), "epsilon": 1e-5}


def _skip_simplified(x: Array, skip: Array, scale: Array, b: Array, epsilon: float) -> tuple[Array, Array]:
    return _norm(x + skip + b, scale, 0.0, epsilon, center=False), x + skip + b


@sample(
    "SkipSimplifiedLayerNormalization",
    prunable="x[0] x[1] x[2] skip[2] scale[0] b[0] y[2] total[2]",
    fed="x skip",
    outputs="y - - total",
    reference=_skip_simplified,
    domain=MICROSOFT,
)
def sum_and_simplified_norm(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    return {"x": d.normal(n, s, h), "skip": d.normal(n, s, h), "scale": d.normal(h), "b": d.normal(h), "epsilon": 1e-5}


def _simplified(x: Array, scale: Array, epsilon: float) -> Array:
    return _norm(x, scale, 0.0, epsilon, center=False)


@sample("SimplifiedLayerNormalization", prunable="x[0] x[1] x[2] scale[0] y[2]", reference=_simplified)
def simplified_norm(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    return {"x": d.normal(n, s, h), "scale": d.normal(h), "epsilon": 1e-5}


@sample(
    "SimplifiedLayerNormalization",
    prunable="x[0] x[1] x[2] scale[0] y[2]",
    runtime="reference",
    reference=_simplified,
    domain=MICROSOFT,
)
def simplified_norm_elsewhere(d: SampleDraw) -> dict[str, Any]:
    return simplified_norm(d)


def _embed(
    ids: Array,
    segments: Array,
    words: Array,
    places: Array,
    kinds: Array,
    scale: Array,
    shift: Array,
    mask: Array,
    epsilon: float,
) -> tuple[Array, Array, Array]:
    total = words[ids] + places[: ids.shape[1]] + kinds[segments]
    lengths = mask.sum(axis=1).astype(np.int32)
    return _norm(total, scale, shift, epsilon, center=True), lengths, total


@sample(
    "EmbedLayerNormalization",
    prunable="words[1] places[1] kinds[1] scale[0] shift[0] y[2] total[2]",
    fed="ids segments mask",
    outputs="y lengths total",
    reference=_embed,
    domain=MICROSOFT,
)
def embedded(d: SampleDraw) -> dict[str, Any]:
    n, s, h, v = d.sizes(4)
    ids = {"ids": d.integers(v, n, s).astype(np.int32), "segments": d.integers(2, n, s).astype(np.int32)}
    tables = {"words": d.normal(v, h), "places": d.normal(20, h), "kinds": d.normal(2, h)}
    return dict(**ids, **tables, scale=d.normal(h), shift=d.normal(h), mask=np.ones((n, s), np.int32), epsilon=1e-5)


def _group_norm(
    x: Array,
    scale: Array,
    shift: Array,
    skip: Array | None = None,
    b: Array | None = None,
    *,
    groups: int,
    activation: int,
    channels_last: int = 1,
) -> tuple[Array, ...]:
    assert activation == 0
    assert channels_last == 1
    total = x
    if skip is not None:
        total = x + (skip if skip.ndim == 4 else skip[:, None, None, :]) + (0 if b is None else b)
    grouped = total.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, deviation = grouped.mean(axis=(1, 3), keepdims=True), grouped.std(axis=(1, 3), keepdims=True)
    y = ((grouped - mean) / (deviation + 1e-5)).reshape(x.shape) * scale + shift
    return (y,) if skip is None else (y, total)


@sample(
    "GroupNorm",
    prunable="x[3] scale[0] shift[0] y[3]",
    runtime="reference",
    reference=_group_norm,
    domain=MICROSOFT,
)
def groups_last(d: SampleDraw) -> dict[str, Any]:
    n, g, c = d.sizes(3)
    return {
        "x": d.normal(n, 4, 4, g * c),
        "scale": d.normal(g * c),
        "shift": d.normal(g * c),
        "groups": g,
        "activation": 0,
    }


@sample(
    "SkipGroupNorm",
    prunable="x[3] scale[0] shift[0] skip[1] b[0] y[3] total[3]",
    fed="x skip",
    outputs="y total",
    runtime="reference",
    reference=_group_norm,
    domain=MICROSOFT,
)
def groups_of_a_sum(d: SampleDraw) -> dict[str, Any]:
    n, g, c = d.sizes(3)
    skips = {"skip": d.normal(n, g * c), "b": d.normal(g * c)}
    tensors = dict(x=d.normal(n, 4, 4, g * c), scale=d.normal(g * c), shift=d.normal(g * c), **skips)
    return dict(**tensors, groups=g, activation=0)


test_rule = oracle(__name__)
