"""Weights packed in blocks against the rule oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rule_oracle import Array, SampleDraw, oracle, sample

MICROSOFT = "com.microsoft"


def packed(d: SampleDraw, *shape: int) -> Array:
    return d.integers(256, *shape).astype(np.uint8)


@sample("MatMulNBits", prunable="a[0] a[1] a[2] b[0] b[1] scales[0] bias[0] y[2]", domain=MICROSOFT)
def four_bits(d: SampleDraw) -> dict[str, Any]:
    m, s, n, blocks = d.sizes(4)
    sizes = {"N": n, "K": 16 * blocks, "bits": 4, "block_size": 16}
    tensors = {"a": d.normal(m, s, 16 * blocks), "b": packed(d, n, blocks, 8), "scales": d.positive(n * blocks) / 64}
    return dict(**tensors, zeros=None, order=None, bias=d.normal(n), **sizes)


@sample("MatMulNBits", prunable="a[1] b[0] b[1] scales[0] scales[1] zeros[0] zeros[1] y[1]", domain=MICROSOFT)
def with_packed_zero_points(d: SampleDraw) -> dict[str, Any]:
    m, n, pairs = d.sizes(3)
    k = 2 * pairs * 16
    tables = {"scales": d.positive(n, 2 * pairs) / 64, "zeros": packed(d, n, pairs)}
    return dict(a=d.normal(m, k), b=packed(d, n, 2 * pairs, 8), **tables, N=n, K=k, bits=4, block_size=16)


@sample("MatMulNBits", prunable="b[0] scales[0] zeros[0] y[1]", domain=MICROSOFT)
def with_half_a_byte_to_spare(d: SampleDraw) -> dict[str, Any]:
    m, n, pairs = d.sizes(3)
    blocks = 2 * pairs + 1
    tables = {"scales": d.positive(n * blocks) / 64, "zeros": packed(d, n * (pairs + 1))}
    return dict(
        a=d.normal(m, 16 * blocks), b=packed(d, n, blocks, 8), **tables, N=n, K=16 * blocks, bits=4, block_size=16
    )


@sample("MatMulNBits", prunable="a[1] b[0] b[1] scales[0] zeros[0] y[1]", domain=MICROSOFT)
def eight_bits(d: SampleDraw) -> dict[str, Any]:
    m, n, blocks = d.sizes(3)
    tables = {"scales": d.positive(n, blocks) / 64, "zeros": packed(d, n, blocks)}
    return dict(
        a=d.normal(m, 32 * blocks), b=packed(d, n, blocks, 32), **tables, N=n, K=32 * blocks, bits=8, block_size=32
    )


@sample("MatMulNBits", prunable="b[0] y[1]", domain=MICROSOFT)
def last_block_not_full(d: SampleDraw) -> dict[str, Any]:
    m, n, blocks = d.sizes(3)
    k = 16 * blocks - 6
    return {
        "a": d.normal(m, k),
        "b": packed(d, n, blocks, 8),
        "scales": d.positive(n * blocks),
        "N": n,
        "K": k,
        "bits": 4,
        "block_size": 16,
    }


@sample("GatherBlockQuantized", prunable="data[1] scales[1] zeros[1] y[2]", fed="ids", domain=MICROSOFT)
def rows(d: SampleDraw) -> dict[str, Any]:
    v, n, s, pairs = d.sizes(4)
    tables = {"scales": d.positive(v, 2 * pairs) / 64, "zeros": packed(d, v, pairs)}
    data = packed(d, v, 2 * pairs * 8)
    return dict(data=data, ids=d.integers(v, n, s), **tables, block_size=16, bits=4, quantize_axis=1, gather_axis=0)


test_rule = oracle(__name__)
