"""ONNX Runtime's fused attention: Attention, QAttention, MultiHeadAttention, GroupQueryAttention (com.microsoft)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod, sqrt

import onnx_ir as ir

from onnxprune.dims import Atom, Dim, concat, product
from onnxprune.ops.base import CostView, Op, RefuseError, Typed, attribute, cost, rule, shape_rule
from onnxprune.ops.matmul_view import FORMS, Form, affine

MICROSOFT = "com.microsoft"
_KEYS = "softmax runs over the keys, which are as many"


@rule("Attention", domain=MICROSOFT)
def attention(op: Op) -> None:
    """Input [B, S, D], w [D, N*E + N*E + N*F], bias alike, past [2, B, N, P, E] -> y [B, S, N*F], present as past."""
    w = op.x[1]
    sizes = op.attr("qkv_hidden_sizes") or [w[1].size // 3] * 3
    heads, size, value_size = _packed_projection(op, list(sizes))
    for index, entry in enumerate((size, size, value_size)):
        op.names("qkv_hidden_sizes", index, product(heads, entry), w[1])
    _past_and_present(op, 4, heads, size, value_size)
    _per_batch(op, 3, 5)
    if op.has(5):
        _bias_of_scores(op, op.x[5], heads)


@rule("QAttention", domain=MICROSOFT)
def quantized_attention(op: Op) -> None:
    """The same on integers, with scales and zero points per tensor or per column of w; E = F."""
    w = op.x[1]
    op.zeros = {0: 6, 1: 7}
    heads, size, value_size = _packed_projection(op, [w[1].size // 3] * 3)
    op.same(size, value_size)
    for i in (4, 7):
        if op.has(i) and op.x[i] and op.x[i][0].size == w[1].size:
            op.same(op.x[i][0], w[1])
    _per_batch(op, 5)
    _past_and_present(op, 8, heads, size, value_size)


def _packed_projection(op: Op, sizes: list[int]) -> tuple[Dim, Dim, Dim]:
    """State the input, the packed weight and bias, and the output; the heads, E and F."""
    x, w, y = op.x[0], op.x[1], op.y[0]
    op.contract(0, 2, w[0])
    op.contract(1, 1)  # what is summed in q·k is made inside: switched off by its weights and biases
    query, rest = op.cut(w[1], sizes[0])
    key, value = op.cut(rest, sizes[1])
    op.same(query, key)
    count = int(op.attr("num_heads"))
    heads, size = op.factor(query, count)
    value_heads, value_size = op.factor(value, count)
    op.same(heads, value_heads)
    if op.has(2):
        op.contract(2, 0, w[1])
    _finish(op, x, y, (heads, size, value_size))
    op.freeze(x[1], _KEYS)
    op.tag("read", w[0])
    if op.attr("do_rotary", 0):
        op.freeze(size, "its entries turn by angles that follow from their places")
    return heads, size, value_size


def _finish(op: Op, x: list[Atom], y: list[Atom], parts: tuple[Dim, Dim, Dim]) -> None:
    """The output [B, S, N*F], the attributes that follow from sizes, and the labels."""
    heads, size, value_size = parts
    op.same(y[0], x[0])
    op.same(y[1], x[1])
    op.same(y[2], product(heads, value_size))
    op.names("num_heads", None, heads)
    if not op.attr("scale", 0):  # 0 asks for the default
        op.pin("scale", 1 / sqrt(size.size), size)
    op.tag("heads", heads)
    op.tag("head-dim", size, value_size)


def _past_and_present(op: Op, past: int, heads: Dim, size: Dim, value_size: Dim) -> None:
    """Keys and values stacked: [2, B, N, L, E], so that both are of one size."""
    for dims in ([op.x[past]] if op.has(past) else []) + op.y[1:2]:
        if dims:
            op.same(size, value_size)
            op.same(dims[1], op.x[0][0])
            op.same(dims[2], heads)
            op.same(dims[4], size)


def _per_batch(op: Op, *inputs: int) -> None:
    """Masks, lengths and biases: one entry or row per sequence, one for all, or in a form that ties the batch down."""
    batch = op.x[0][0]
    for i in inputs:
        dims = op.x[i] if op.has(i) else []
        if dims and dims[0].size == batch.size:
            op.same(dims[0], batch)
        elif dims and dims[0].size > 1:
            op.freeze(batch, "the mask counts over the batch")


def _bias_of_scores(op: Op, dims: list[Atom], heads: Dim) -> None:
    """Added to q·k: [B or 1, N or 1, S, L]."""
    for dim, other in ((dims[1], heads), (dims[2], op.x[0][1])):
        if dim.size == other.size:
            op.same(dim, other)


@rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(op: Op) -> None:
    """Query [B, S, N*E], k [B, L, N*E], v [B, L, N*F], bias [N*E + N*E + N*F] -> y [B, S, N*F].

    Also q, k and v in one, [B, S, N, 3, E]; k and v in one, [B, L, N, 2, E]; or k and v as caches, [B, N, L, E].
    """
    heads, size, value_size = _query_key_value(op)
    if op.has(3):
        op.same(op.x[3][0], concat(product(heads, size), product(heads, size), product(heads, value_size)))
        op.contract(3, 0)
    _per_batch(op, 4, 5)
    if op.has(5):
        _bias_of_scores(op, op.x[5], heads)
    if op.has(6):
        op.same(size, value_size)
    caches = [(op.x[6:7], size), (op.x[7:8], value_size), (op.y[1:2], size), (op.y[2:3], value_size)]
    for dims, entry in caches:
        _cache(op, dims, heads, entry)
    if len(op.y) > 3 and op.y[3]:
        op.same_all(op.y[3][:2], (op.x[0][0], heads))
    _finish(op, op.x[0], op.y[0], (heads, size, value_size))
    if not op.has(1) or op.attr("unidirectional", 0):
        op.freeze(op.x[0][1], _KEYS)


def _query_key_value(op: Op) -> tuple[Dim, Dim, Dim]:
    """The heads, E and F of any of the four layouts."""
    q, count = op.x[0], int(op.attr("num_heads"))
    op.contract(0, len(q) - 1)
    if len(q) == 5:
        op.free(q[2])
        return q[2], q[4], q[4]
    heads, size = op.factor(q[2], count)
    key = op.x[1]
    if len(key) == 5:
        op.same(key[0], q[0])
        op.same(key[2], heads)
        op.same(key[4], size)
        return heads, size, size
    _cache(op, [key], heads, size)
    value = op.x[2]
    value_size = size
    if len(value) == 3:
        value_heads, value_size = op.factor(value[2], count)
        op.same(heads, value_heads)
    _cache(op, [value], heads, value_size)
    return heads, size, value_size


def _cache(op: Op, given: Sequence[list[Atom]], heads: Dim, size: Dim) -> None:
    """Keys or values, [B, N, L, E] or [B, L, N*E]."""
    for dims in given:
        if dims:
            op.same(dims[0], op.x[0][0])
        if len(dims) == 4:
            op.same(dims[1], heads)
            op.same(dims[3], size)
        elif len(dims) == 3:
            op.same(dims[2], product(heads, size))


@rule("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(op: Op) -> None:
    """Query [B, S, M*P*E], k and v [B, S, M*E], or all in one -> y [B, S, M*P*E].

    Caches are [B, M, L, E], tables [max, R/2]. Each of the M key-value heads serves P query heads.
    """
    if {op.attr(name, "NONE") for name in ("k_quant_type", "v_quant_type")} != {"NONE"}:
        raise RefuseError("a quantized cache")
    count, groups = int(op.attr("num_heads")), int(op.attr("kv_num_heads"))
    q = op.x[0]
    op.contract(0, 2)
    query: Dim = q[2]
    if op.has(1):
        keys: Dim = op.x[1][2]
        values: Dim = op.x[2][2]
    else:
        width = q[2].size // (count + 2 * groups)
        query, rest = op.cut(q[2], count * width)
        keys, values = op.cut(rest, groups * width)
    heads, size = op.factor(query, count)
    served, per = op.factor(heads, groups)
    op.same(keys, product(served, size))
    op.same(values, keys)
    _finish(op, q, op.y[0], (product(served, per), size, size))
    op.freeze(q[1], _KEYS)
    op.names("kv_num_heads", None, served)
    for dims in (*op.x[1:3], *op.x[3:5], *op.y[1:3]):
        _cache(op, [dims], served, size)
    _rotary(op, size)
    _per_batch(op, 5, 9, 10, 16)
    _extras(op, heads, size)


def _rotary(op: Op, size: Dim) -> None:
    """The first R of the E entries turn in pairs, by tables [max, R/2]; E goes in blocks, as the kernels want it."""
    still, pairs, block = size, Atom(2, op.reason("rotated in pairs")), 8
    if op.attr("do_rotary", 0):
        block = 16
        cos, sin = op.x[7], op.x[8]
        op.same_all(sin, cos)
        op.freeze(cos[0], "rows are looked up by position")
        turning, still = op.cut(size, 2 * cos[1].size)
        op.same(turning, product(cos[1], pairs) if op.attr("rotary_interleaved", 0) else concat(cos[1], cos[1]))
        _in_blocks(op, cos[1], block // 2)
    _in_blocks(op, still, block)


def _in_blocks(op: Op, dim: Dim, block: int) -> None:
    """Only whole blocks can go."""
    if dim.size % block:
        op.freeze(dim, f"the kernel wants multiples of {block}")
    elif dim.size:
        _, inner = op.factor(dim, dim.size // block)
        op.freeze(inner, f"the kernel wants multiples of {block}")


def _extras(op: Op, heads: Dim, size: Dim) -> None:
    """A bias of the scores, a sink per head, and norms of the queries' and keys' entries."""
    if op.has(10):
        _bias_of_scores(op, op.x[10], heads)
    if op.has(11):
        op.same(op.x[11][0], heads)
    for i in (14, 15):
        if op.has(i):
            op.same(op.x[i][0], size)
            op.tag("statistics", size)
    if len(op.y) > 3 and op.y[3]:
        op.same_all(op.y[3][:2], (op.x[0][0], heads))


@shape_rule("Attention", "QAttention", domain=MICROSOFT)
def attention_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """The value part of the packed projection, and the cache made longer."""
    quantized = node.op_type == "QAttention"
    (shape, dtype), (weights, _), past = _given(x, 0), _given(x, 1), _maybe(x, 8 if quantized else 4)
    if quantized:
        dtype = _given(x, 3)[1]
    sizes = attribute(node, "qkv_hidden_sizes") or [weights[1] // 3] * 3
    heads = int(attribute(node, "num_heads"))
    length = shape[1] if past is None else shape[1] + past[0][3]
    if past is not None and attribute(node, "past_present_share_buffer", 0):
        length = past[0][3]
    present = (2, shape[0], heads, length, sizes[2] // heads)
    return [((*shape[:2], sizes[2]), dtype), (present, dtype)]


@shape_rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As wide as the values; the caches grow by the new keys unless their buffer is shared."""
    (query, dtype), heads = _given(x, 0), int(attribute(node, "num_heads"))
    key, value, past = _maybe(x, 1), _maybe(x, 2), _maybe(x, 6)
    size = query[-1] if len(query) == 5 else query[2] // heads
    length = query[1] if key is None else key[0][1 if len(key[0]) != 4 else 2]
    value_size = size
    if value is not None:
        value_size = value[0][3] if len(value[0]) == 4 else value[0][2] // heads
    total = length if past is None else past[0][2] if _maybe(x, 8) else past[0][2] + length
    return [
        ((*query[:2], heads * value_size), dtype),
        ((query[0], heads, total, size), dtype),
        ((query[0], heads, total, value_size), dtype),
        ((query[0], heads, query[1], total), dtype),
    ]


@shape_rule("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """As wide as the queries; the caches grow by the new keys."""
    (query, dtype), past = _given(x, 0), _maybe(x, 3)
    heads, groups = int(attribute(node, "num_heads")), int(attribute(node, "kv_num_heads"))
    size = query[2] // heads if _maybe(x, 1) else query[2] // (heads + 2 * groups)
    length = query[1] + (past[0][2] if past else 0)
    cache = (query[0], groups, length, size)
    scores = (query[0], heads, query[1], length)
    return [((*query[:2], heads * size), dtype), (cache, dtype), (cache, dtype), (scores, dtype)]


def _given(x: list[Typed | None], i: int) -> Typed:
    found = x[i]
    if found is None:
        raise ValueError(f"input {i} is missing")
    return found


def _maybe(x: list[Typed | None], i: int) -> Typed | None:
    return x[i] if i < len(x) else None


@cost("Attention", "QAttention", domain=MICROSOFT)
def attention_macs(view: CostView) -> int:
    """The projection, then q·k and the weighted sum of v."""
    x, w, y = view.x[0], view.x[1], view.y[0]
    slot = 8 if view.node.op_type == "QAttention" else 4
    past = view.x[slot][3] if len(view.x) > slot and view.x[slot] else 0
    queries = prod(x[:2]) * (w[1] - y[2]) // 2
    return prod(x) * w[1] + (queries + prod(y)) * (x[1] + past)


@cost("MultiHeadAttention", "GroupQueryAttention", domain=MICROSOFT)
def multi_head_attention_macs(view: CostView) -> int:
    """q·k and the weighted sum of v: every query entry and every output entry meets every key."""
    q, y = view.x[0], view.y[0]
    key = view.x[1] if len(view.x) > 1 else ()
    length = q[1] if not key else key[2 if len(key) == 4 else 1]
    slot = 3 if view.node.op_type == "GroupQueryAttention" else 6
    past = view.x[slot][2] if len(view.x) > slot and view.x[slot] else 0
    queries = prod(q) if key and len(q) == 3 else prod(y)
    return (queries + prod(y)) * (length + past)


@affine("Attention", domain=MICROSOFT)
def attention_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """The projection to queries, keys and values."""
    form = FORMS["", "MatMul"](node, x, w)
    return form and replace(form, bias=2, hidden=1)
