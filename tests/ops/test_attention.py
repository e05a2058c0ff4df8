"""Attention, rotary embeddings and caches against the rule oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rule_oracle import SampleDraw, oracle, sample

MICROSOFT = "com.microsoft"


@sample("Attention", prunable="q[1] q[3] k[1] k[3] v[1] v[3] y[1] y[3]", fed="q k v")
def heads_on_an_axis(d: SampleDraw) -> dict[str, Any]:
    n, s, length, e, f = d.sizes(5)
    return {"q": d.normal(2, n, s, e), "k": d.normal(2, n, length, e), "v": d.normal(2, n, length, f)}


@sample("Attention", prunable="q[2] k[2] v[2] y[2]", fed="q k v")
def heads_in_the_last_axis(d: SampleDraw) -> dict[str, Any]:
    n, s, length, e, f = d.sizes(5)
    tensors = {"q": d.normal(2, s, n * e), "k": d.normal(2, length, n * e), "v": d.normal(2, length, n * f)}
    return dict(**tensors, q_num_heads=n, kv_num_heads=n)


@sample("Attention", prunable="q[2] k[2] v[2] y[2]", fed="q k v")
def shared_keys(d: SampleDraw) -> dict[str, Any]:
    m, p, s, e, f = d.sizes(5)
    tensors = {"q": d.normal(2, s, m * p * e), "k": d.normal(2, s, m * e), "v": d.normal(2, s, m * f)}
    return dict(**tensors, q_num_heads=m * p, kv_num_heads=m, is_causal=1, scale=0.3, softcap=2.0)


@sample("Attention", prunable="q[1] k[1] k[3] v[3] y[1]", fed="q k v")
def shared_keys_on_an_axis(d: SampleDraw) -> dict[str, Any]:
    m, p, s, e, f = d.sizes(5)
    return {"q": d.normal(2, m * p, s, e), "k": d.normal(2, m, s, e), "v": d.normal(2, m, s, f)}


@sample("Attention", prunable="q[2] k[2] v[2] y[2]", fed="q k v")
def one_key_head(d: SampleDraw) -> dict[str, Any]:
    n, s, e, f = d.sizes(4)
    tensors = {"q": d.normal(2, s, n * e), "k": d.normal(2, s, e), "v": d.normal(2, s, f)}
    return dict(**tensors, q_num_heads=n, kv_num_heads=1)


@sample("Attention", prunable="q[1] q[2] mask[1] mask[2] y[1]", fed="q k v")
def mask_per_head(d: SampleDraw) -> dict[str, Any]:
    n, s, length, e = d.sizes(4)
    tensors = {"q": d.normal(2, n, s, e), "k": d.normal(2, n, length, e), "v": d.normal(2, n, length, e)}
    return dict(**tensors, mask=d.normal(2, n, s, length))


@sample("Attention", prunable="q[2] y[2] y[1]", fed="q k v", outputs="y - - scores")
def flat_mask_and_scores(d: SampleDraw) -> dict[str, Any]:
    n, s, length, e = d.sizes(4)
    tensors = {"q": d.normal(2, s, n * e), "k": d.normal(2, length, n * e), "v": d.normal(2, length, n * e)}
    mask = d.rng.random((s, length)) < 0.8
    mask[:, 0] = True
    return dict(**tensors, mask=mask, q_num_heads=n, kv_num_heads=n, qk_matmul_output_mode=2)


@sample(
    "Attention",
    prunable="q[2] k[2] v[2] past_key[1] past_key[3] past_value[3] present_key[1] present_value[3]",
    fed="q k v past_key past_value",
    outputs="y present_key present_value",
)
def with_a_cache(d: SampleDraw) -> dict[str, Any]:
    m, s, e, f, past = d.sizes(5)
    tensors = {"q": d.normal(2, s, m * 2 * e), "k": d.normal(2, s, m * e), "v": d.normal(2, s, m * f), "mask": None}
    caches = {"past_key": d.normal(2, m, past, e), "past_value": d.normal(2, m, past, f)}
    return dict(**tensors, **caches, q_num_heads=2 * m, kv_num_heads=m)


@sample("Attention", prunable="q[1] q[3] k[3] v[3]", fed="q k v lengths", since=24)
def with_lengths(d: SampleDraw) -> dict[str, Any]:
    n, s, length, e, f = d.sizes(5)
    tensors = {"q": d.normal(2, n, s, e), "k": d.normal(2, n, length, e), "v": d.normal(2, n, length, f)}
    return dict(**tensors, a=None, b=None, c=None, lengths=np.full(2, length, np.int64))


def _tables(d: SampleDraw, *shape: int) -> dict[str, Any]:
    angles = d.normal(*shape)
    return {"cos": np.cos(angles), "sin": np.sin(angles)}


@sample("RotaryEmbedding", prunable="x[1] x[2] x[3] cos[1] sin[1] y[3]")
def turned(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    positions = 17
    return dict(x=d.normal(2, n, s, 2 * h), **_tables(d, positions, h), ids=d.integers(positions, 2, s))


@sample("RotaryEmbedding", prunable="x[2] cos[2] sin[2] y[2]", fed="x cos sin")
def turned_in_the_last_axis(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    return dict(x=d.normal(2, s, n * 2 * h), **_tables(d, 2, s, h), num_heads=n)


@sample("RotaryEmbedding", prunable="x[1] x[3] cos[1] sin[1] y[3]")
def turned_by_neighbours(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    positions = 17
    ids = d.integers(positions, 2, s)
    return dict(x=d.normal(2, n, s, 2 * h), **_tables(d, positions, h), ids=ids, interleaved=1)


@sample("RotaryEmbedding", prunable="x[2] cos[1] sin[1] y[2]")
def turned_in_part(d: SampleDraw) -> dict[str, Any]:
    n, s, h, rest = d.sizes(4)
    positions = 17
    width = 2 * h + 2 * rest
    ids = d.integers(positions, 2, s)
    tables = _tables(d, positions, h)
    return dict(x=d.normal(2, s, n * width), **tables, ids=ids, num_heads=n, rotary_embedding_dim=2 * h)


def _positions_second(drawn: dict[str, Any]) -> dict[str, Any]:
    order = ["x", "ids", "cos", "sin"]
    return {**{name: drawn[name] for name in order}, **{k: v for k, v in drawn.items() if k not in order}}


@sample("RotaryEmbedding", prunable="x[1] x[3] cos[1] sin[1] y[3]", domain=MICROSOFT)
def microsoft_on_an_axis(d: SampleDraw) -> dict[str, Any]:
    return _positions_second(turned(d))


@sample("RotaryEmbedding", prunable="x[2] cos[1] sin[1] y[2]", domain=MICROSOFT)
def microsoft_by_neighbours(d: SampleDraw) -> dict[str, Any]:
    n, s, h = d.sizes(3)
    positions = 17
    ids = d.integers(positions, 2, s)
    return dict(x=d.normal(2, s, n * 2 * h), ids=ids, **_tables(d, positions, h), interleaved=1)


@sample("RotaryEmbedding", prunable="x[2] cos[1] sin[1] y[2]", domain=MICROSOFT)
def microsoft_in_part(d: SampleDraw) -> dict[str, Any]:
    return _positions_second(turned_in_part(d))


@sample("TensorScatter", prunable="cache[0] cache[1] cache[3] update[1] update[3] y[3]", fed="cache update at")
def cached(d: SampleDraw) -> dict[str, Any]:
    b, n, length, e = d.sizes(4)
    return {"cache": d.normal(b, n, length + 4, e), "update": d.normal(b, n, 3, e), "at": d.integers(length, b)}


test_rule = oracle(__name__)
