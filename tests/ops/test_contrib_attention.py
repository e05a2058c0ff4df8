"""ONNX Runtime's fused attention against the rule oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rule_oracle import Array, SampleDraw, oracle, sample

MICROSOFT = "com.microsoft"


@sample("Attention", prunable="x[0] x[2] w[0] w[1] b[0] y[2]", domain=MICROSOFT)
def packed(d: SampleDraw) -> dict[str, Any]:
    batch, s, width, n, e = d.sizes(5)
    return {"x": d.normal(batch, s, width), "w": d.normal(width, 3 * n * e), "b": d.normal(3 * n * e), "num_heads": n}


@sample("Attention", prunable="x[2] w[0] w[1] b[0] y[2]", domain=MICROSOFT)
def values_of_another_size(d: SampleDraw) -> dict[str, Any]:
    s, width, n, e, f = d.sizes(5)
    sizes = [n * e, n * e, n * f]
    tensors = {"x": d.normal(2, s, width), "w": d.normal(width, sum(sizes)), "b": d.normal(sum(sizes))}
    return dict(**tensors, num_heads=n, qkv_hidden_sizes=sizes, unidirectional=1)


@sample(
    "Attention",
    prunable="x[2] w[0] w[1] b[0] past[2] past[4] y[2] present[2] present[4]",
    fed="x mask past",
    outputs="y present",
    domain=MICROSOFT,
)
def packed_with_a_cache(d: SampleDraw) -> dict[str, Any]:
    s, width, n, e, past = d.sizes(5)
    tensors = {"x": d.normal(2, s, width), "w": d.normal(width, 3 * n * e), "b": d.normal(3 * n * e)}
    mask = np.ones((2, s + past), np.int32)
    return dict(**tensors, mask=mask, past=d.normal(2, 2, n, past, e), num_heads=n, scale=0.4)


@sample("Attention", prunable="w[1] bias[1] y[2]", domain=MICROSOFT)
def packed_with_biased_scores(d: SampleDraw) -> dict[str, Any]:
    s, width, n, e = d.sizes(4)
    tensors = {"x": d.normal(2, s, width), "w": d.normal(width, 3 * n * e), "b": None, "mask": None, "past": None}
    return dict(**tensors, bias=d.normal(2, n, s, s), num_heads=n)


def _integers(d: SampleDraw, *shape: int) -> Any:
    return d.integers(255, *shape).astype(np.uint8)


@sample("QAttention", prunable="x[2] w[0] w[1] b[0] y[2]", domain=MICROSOFT)
def packed_integers(d: SampleDraw) -> dict[str, Any]:
    s, width, n, e = d.sizes(4)
    tensors = {"x": _integers(d, 2, s, width), "w": _integers(d, width, 3 * n * e), "b": d.normal(3 * n * e)}
    scales = {"x_scale": np.float32(0.02), "w_scale": np.float32(0.01)}
    zeros = {"x_zero": np.uint8(120), "w_zero": np.uint8(130)}
    return dict(**tensors, **_arrays(scales), mask=None, **_arrays(zeros), num_heads=n)


@sample("QAttention", prunable="x[2] w[0] w[1] w_scale[0] w_zero[0] y[2]", domain=MICROSOFT)
def integers_with_a_scale_per_column(d: SampleDraw) -> dict[str, Any]:
    s, width, n, e = d.sizes(4)
    columns = 3 * n * e
    tensors = {"x": _integers(d, 2, s, width), "w": d.int7(width, columns), "b": d.normal(columns)}
    scales = dict(**_arrays({"x_scale": np.float32(0.02)}), w_scale=d.positive(columns) / 100)
    zeros = dict(**_arrays({"x_zero": np.uint8(120)}), w_zero=np.zeros(columns, np.int8))
    return dict(**tensors, **scales, mask=None, **zeros, num_heads=n)


def _arrays(scalars: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value) for name, value in scalars.items()}


@sample("MultiHeadAttention", prunable="q[0] q[2] k[2] v[2] y[2]", fed="q k v", domain=MICROSOFT)
def separate(d: SampleDraw) -> dict[str, Any]:
    batch, s, n, e, f = d.sizes(5)
    return {
        "q": d.normal(batch, s, n * e),
        "k": d.normal(batch, s, n * e),
        "v": d.normal(batch, s, n * f),
        "num_heads": n,
    }


@sample("MultiHeadAttention", prunable="q[2] k[2] v[2] b[0] bias[1] y[1] y[2]", fed="q k v", domain=MICROSOFT)
def separate_with_biases(d: SampleDraw) -> dict[str, Any]:
    s, length, n, e, f = d.sizes(5)
    tensors = {"q": d.normal(2, s, n * e), "k": d.normal(2, length, n * e), "v": d.normal(2, length, n * f)}
    return dict(**tensors, b=d.normal(2 * n * e + n * f), mask=None, bias=d.normal(2, n, s, length), num_heads=n)


@sample("MultiHeadAttention", prunable="q[2] k[1] k[3] v[1] v[3] y[2]", fed="q k v", domain=MICROSOFT)
def keys_from_a_cache(d: SampleDraw) -> dict[str, Any]:
    s, length, n, e = d.sizes(4)
    tensors = {"q": d.normal(2, s, n * e), "k": d.normal(2, n, length, e), "v": d.normal(2, n, length, e)}
    return dict(**tensors, num_heads=n)


def _attend(q: Array, kv: Array | None = None, *, num_heads: int, scale: float | None = None) -> Array:
    """All in one, [B, S, N, 3, E], or queries [B, S, N*E] and the rest [B, L, N, 2, E]."""
    if kv is None:
        q, k, v = np.moveaxis(q, 3, 0)
    else:
        q = q.reshape(*q.shape[:2], num_heads, -1)
        k, v = np.moveaxis(kv, 3, 0)
    scores = np.exp(np.einsum("bsne,blne->bnsl", q, k) * (scale or q.shape[-1] ** -0.5))
    mixed = np.einsum("bnsl,blne->bsne", scores / scores.sum(axis=-1, keepdims=True), v)
    return mixed.reshape(*mixed.shape[:2], -1).astype(np.float32)


@sample(
    "MultiHeadAttention",
    prunable="qkv[0] qkv[2] qkv[4] y[2]",
    runtime="reference",
    reference=_attend,
    domain=MICROSOFT,
)
def all_in_one(d: SampleDraw) -> dict[str, Any]:
    batch, s, n, e = d.sizes(4)
    return {"qkv": d.normal(batch, s, n, 3, e), "num_heads": n}


@sample(
    "MultiHeadAttention",
    prunable="q[0] q[2] kv[0] kv[2] kv[4] y[2]",
    fed="q kv",
    runtime="reference",
    reference=_attend,
    domain=MICROSOFT,
)
def keys_and_values_in_one(d: SampleDraw) -> dict[str, Any]:
    batch, s, length, n, e = d.sizes(5)
    return {"q": d.normal(batch, s, n * e), "kv": d.normal(batch, length, n, 2, e), "num_heads": n}


@sample(
    "MultiHeadAttention",
    prunable="q[2] v[2] past_k[1] past_k[3] past_v[3] y[2] present_k[3] present_v[3]",
    fed="q k v past_k past_v",
    outputs="y present_k present_v",
    domain=MICROSOFT,
)
def separate_with_a_cache(d: SampleDraw) -> dict[str, Any]:
    s, past, n, e = d.sizes(4)
    tensors = {"q": d.normal(2, s, n * e), "k": d.normal(2, s, n * e), "v": d.normal(2, s, n * e)}
    caches = {"past_k": d.normal(2, n, past, e), "past_v": d.normal(2, n, past, e)}
    return dict(**tensors, b=None, mask=None, bias=None, **caches, num_heads=n, unidirectional=1)


def _group_query(d: SampleDraw, m: int, p: int, size: int, s: int, past: int = 0) -> dict[str, Any]:
    tensors = {"q": d.normal(2, s, m * p * size), "k": d.normal(2, s, m * size), "v": d.normal(2, s, m * size)}
    caches = {"past_k": d.normal(2, m, past, size), "past_v": d.normal(2, m, past, size)} if past else {}
    lengths = {"last": np.full(2, s + past - 1, np.int32), "total": np.array(s + past, np.int32)}
    return dict(**tensors, **(caches or {"past_k": None, "past_v": None}), **lengths, num_heads=m * p, kv_num_heads=m)


@sample("GroupQueryAttention", prunable="q[2] k[2] v[2] y[2]", fed="q k v", outputs="y - -", domain=MICROSOFT)
def grouped(d: SampleDraw) -> dict[str, Any]:
    m, p, size, s = d.sizes(4)
    return _group_query(d, m, p, 8 * size, s)


@sample(
    "GroupQueryAttention",
    prunable="q[2] k[2] v[2] past_k[1] past_k[3] y[2] present_k[1] present_v[3]",
    fed="q k v past_k past_v",
    outputs="y present_k present_v",
    domain=MICROSOFT,
)
def grouped_with_a_cache(d: SampleDraw) -> dict[str, Any]:
    m, p, size, past = d.sizes(4)
    return _group_query(d, m, p, 8 * size, 1, past)


@sample("GroupQueryAttention", prunable="q[2] k[2] cos[1] sin[1] y[2]", fed="q k v", outputs="y - -", domain=MICROSOFT)
def grouped_and_turned(d: SampleDraw) -> dict[str, Any]:
    m, p, half, s = d.sizes(4)
    half *= 8
    angles = d.normal(20, half)
    tables = {"cos": np.cos(angles), "sin": np.sin(angles)}
    return dict(**_group_query(d, m, p, 2 * half, s), **tables, do_rotary=1)


@sample(
    "GroupQueryAttention",
    prunable="q[2] bias[1] sinks[0] y[2] scores[1]",
    fed="q k v",
    outputs="y - - scores",
    domain=MICROSOFT,
)
def grouped_with_sinks_and_scores(d: SampleDraw) -> dict[str, Any]:
    m, p, size, s = d.sizes(4)
    more = {"cos": None, "sin": None, "ids": None, "bias": d.normal(2, m * p, s, s), "sinks": d.normal(m * p)}
    return dict(**_group_query(d, m, p, 8 * size, s), **more, scale=0.0, qk_output=1)


@sample("GroupQueryAttention", prunable="qkv[2] cos[1] y[2]", outputs="y - -", domain=MICROSOFT)
def grouped_in_one(d: SampleDraw) -> dict[str, Any]:
    m, p, half, s = d.sizes(4)
    drawn = {name: value for name, value in grouped_and_turned(d_like(d, m, p, half, s)).items() if name not in "qkv"}
    width = (m * p + 2 * m) * 16 * half
    return dict(qkv=d.normal(2, s, width), k=None, v=None, **drawn, rotary_interleaved=1)


def d_like(d: SampleDraw, *sizes: int) -> SampleDraw:
    """The same generator, with the sizes given."""
    other = SampleDraw(sizes, 0)
    other.rng = d.rng
    return other


test_rule = oracle(__name__)
