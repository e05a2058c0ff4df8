"""Attention of the standard domain (opset 23 and later), rotary embeddings of both domains, and the key-value cache."""

from __future__ import annotations

from math import prod, sqrt

import onnx_ir as ir

from onnxprune.dims import Atom, Dim, concat, product
from onnxprune.ops.base import CostView, Op, RefuseError, Typed, cost, rule, shape_rule

MICROSOFT = "com.microsoft"


@rule("Attention")
def attention(op: Op) -> None:
    """Query [B, N, S, E], k [B, M, L, E], v [B, M, L, F] -> y [B, N, S, F], or [B, S, N*E] and so on; N = M * P.

    Each of the M key-value heads serves P query heads. The sum over E is q·k, the sum over L runs behind a softmax.
    """
    q, k, v, y = op.x[0], op.x[1], op.x[2], op.y[0]
    wide = len(q) == 3
    queries, size = _heads(op, q, "q_num_heads")
    keys, key_size = _heads(op, k, "kv_num_heads")
    values, value_size = _heads(op, v, "kv_num_heads")
    served, per = op.factor(queries, keys.size)
    op.same(keys, served)
    op.same(values, served)
    op.same(size, key_size)
    op.contract(0, len(q) - 1, over=size)
    op.free(k[-1], v[-1], y[-1])
    op.same(y[0], q[0])
    if wide:
        op.names("q_num_heads", None, product(served, per))
        op.names("kv_num_heads", None, served)
        op.same(y[2], product(queries, value_size))
    else:
        op.same(y[1], queries)
        op.same(y[3], value_size)
    op.same(k[0], q[0])
    op.same(v[0], q[0])
    _positions(op, y[1 if wide else 2], q[1 if wide else 2], (k[1 if wide else 2], v[1 if wide else 2]))
    _mask(op, queries)
    _cache(op, served, size, value_size)
    if op.attr("scale") is None:
        op.pin("scale", 1 / sqrt(size.size), size)
    op.tag("heads", product(served, per))
    op.tag("head-dim", size, value_size)


def _heads(op: Op, dims: list[Atom], attribute: str) -> tuple[Dim, Dim]:
    """The heads and the entries of each: two axes of four, or the factors of the last of three."""
    return (dims[1], dims[3]) if len(dims) == 4 else op.factor(dims[2], int(op.attr(attribute)))


def _positions(op: Op, y: Atom, q: Atom, others: tuple[Atom, Atom]) -> None:
    """Queries pass through unless their positions differ in meaning; keys compete in the softmax."""
    op.same(y, q)
    windowed = max(int(op.attr("left_window_size", -1)), int(op.attr("right_window_size", -1))) >= 0
    if op.attr("is_causal", 0) or windowed:
        op.freeze(q, "queries see the keys before them")
    for dim in others:
        op.freeze(dim, "softmax runs over it")


def _mask(op: Op, heads: Dim) -> None:
    """The mask, the lengths and the scores: [B, N, S, L], of which heads and queries may be prunable."""
    queries = op.x[0][1 if len(op.x[0]) == 3 else 2]
    scores = op.y[3] if len(op.y) > 3 else []
    for dims in (op.x[3] if op.has(3) else [], scores):
        for offset, dim in ((2, queries), (3, heads), (4, op.x[0][0])):
            if len(dims) >= offset and dims[-offset].size == dim.size:
                op.same(dims[-offset], dim)
    if op.has(6):
        op.same(op.x[6][0], op.x[0][0])


def _cache(op: Op, heads: Dim, size: Dim, value_size: Dim) -> None:
    """Past and present keys [B, M, L, E] and values [B, M, L, F]."""
    for dims, entry in ((op.x[4:5], size), (op.x[5:6], value_size), (op.y[1:2], size), (op.y[2:3], value_size)):
        for cache in dims:
            if cache:
                op.same(cache[0], op.x[0][0])
                op.same(cache[1], heads)
                op.same(cache[3], entry)


@rule("RotaryEmbedding")
def rotary_embedding(op: Op) -> None:
    """Input [B, N, S, E] or [B, S, N*E], cos and sin [..., R/2]: the first R of the E entries turn in pairs."""
    _rotate(op, 1, 3, 0 if len(op.x[0]) == 4 else int(op.attr("num_heads")))


@rule("RotaryEmbedding", domain=MICROSOFT)
def microsoft_rotary_embedding(op: Op) -> None:
    """The same with the positions second; without `num_heads` a head is as wide as the tables say."""
    x, table = op.x[0], op.x[2]
    heads = int(op.attr("num_heads", 0)) or x[-1].size // (2 * table[-1].size)
    _rotate(op, 2, 1, 0 if len(x) == 4 else heads)


def _rotate(op: Op, table: int, positions: int, heads: int) -> None:
    """Inputs `table` and the next are the cosines and sines, `heads` lie in the last axis (0: in one of their own)."""
    x, cos, sin = op.x[0], op.x[table], op.x[table + 1]
    op.same_all(op.y[0], x)
    outer, size = op.factor(x[-1], heads) if heads else (x[1], x[3])
    width = int(op.attr("rotary_embedding_dim", 0))
    if 2 * cos[-1].size > size.size or width not in (0, 2 * cos[-1].size):
        raise RefuseError("tables of cosines that are wider than what turns")
    turning, _ = op.cut(size, 2 * cos[-1].size)
    op.same(turning, _pairs(op, cos[-1], bool(op.attr("interleaved", 0))))
    op.same_all(sin, cos)
    if width:
        op.names("rotary_embedding_dim", None, turning)
    if heads and op.attr("num_heads", 0):
        op.names("num_heads", None, outer)
    if len(cos) == 2:
        op.freeze(cos[0], "rows are looked up by position")
    for dims in (cos[:2] if len(cos) == 3 else [], op.x[positions] if op.has(positions) else []):
        if len(dims) == 2:
            op.same_all(dims, (x[0], x[1] if heads else x[2]))
    op.tag("heads", outer)
    op.tag("head-dim", size)


def _pairs(op: Op, half: Dim, interleaved: bool) -> Dim:
    """The entries that turn, from the pairs: (a, b, a, b, ...) or all a before all b."""
    op.free(half)
    return product(half, Atom(2, op.reason("rotated in pairs"))) if interleaved else concat(half, half)


@rule("TensorScatter")
def tensor_scatter(op: Op) -> None:
    """Rows of the update replace rows of the cache along `axis`, which keeps its size; the other axes pass through."""
    axis = op.axis(default=-2)
    op.same_all(op.y[0], op.x[0])
    for i, (cache, update) in enumerate(zip(op.x[0], op.x[1], strict=True)):
        if i == axis:
            op.freeze(cache, "entries are written by position")
        else:
            op.same(update, cache)
    if op.has(2):
        op.same(op.x[2][0], op.x[0][0])


@shape_rule("RotaryEmbedding", domain=MICROSOFT)
def rotary_shape(_: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As the input."""
    return x[:1]


@cost("Attention")
def attention_macs(view: CostView) -> int:
    """q·k and the weighted sum of v: every query entry and every output entry meets every key."""
    q, k, y = view.x[0], view.x[1], view.y[0]
    past = view.x[4][2] if len(view.x) > 4 and view.x[4] else 0
    length = past + k[1 if len(k) == 3 else 2]
    return (prod(q) + prod(y)) * length
