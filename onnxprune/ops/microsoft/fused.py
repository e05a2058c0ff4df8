"""ONNX Runtime's fused operators (com.microsoft): activations with biases, norms of sums, norms of embeddings."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.dims import concat
from onnxprune.ops.base import Op, Typed, attribute, rule, shape_rule
from onnxprune.ops.evaluate import shape_as

MICROSOFT = "com.microsoft"


def broadcasting(*names: str) -> None:
    """Register operators whose only output is the numpy-style broadcast of their inputs."""
    rule(*names, domain=MICROSOFT)(lambda op: op.like("Sum"))
    shape_rule(*names, domain=MICROSOFT)(_broadcast_shape)


def _broadcast_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    given = [typed for typed in x if typed is not None]
    return [(shape_as("Sum", node, [shape for shape, _ in given]), given[0][1])]


def shaped_like_input(*names: str, domain: str = MICROSOFT) -> None:
    """Register operators whose only output has the shape and type of the first input."""
    shape_rule(*names, domain=domain)(lambda _, x: x[:1])


broadcasting("Gelu", "QuickGelu", "FastGelu", "BiasGelu", "BiasAdd")
shaped_like_input("BiasSoftmax")


@rule("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(op: Op) -> None:
    """Input [B, S, 2*H] and bias [2*H]: one half is multiplied by the gelu of the other."""
    x, y = op.x[0], op.y[0]
    op.same_all(y[:-1], x[:-1])
    op.same(x[-1], concat(y[-1], y[-1]))
    op.same(op.x[1][0], x[-1])
    op.free(y[-1])


@shape_rule("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu_shape(_: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """Half as wide."""
    assert x[0] is not None
    shape, dtype = x[0]
    return [((*shape[:-1], shape[-1] // 2), dtype)]


@rule("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(op: Op) -> None:
    """A softmax over the axes from `axis` on; the bias keeps its shape, and so does what it is added to."""
    x = op.x[0]
    axis = op.axis(default=1)
    op.same_all(op.y[0], x)
    for i, dim in enumerate(x):
        if i >= axis:
            op.freeze(dim, "softmax runs over it")
        elif any(dim.size == other.size for other in op.x[1]):
            op.freeze(dim, "a bias may be repeated along it")


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(op: Op) -> None:
    """Input and skip [B, S, H], scale, shift and bias [H] -> the norm of their sum [B, S, H], statistics, the sum."""
    x = op.x[0]
    for y in op.y:
        for offset in range(1, len(y) + 1):
            if y[-offset].size == x[-offset].size:
                op.same(y[-offset], x[-offset])
    for given in op.x[1:]:
        for offset in range(1, len(given) + 1):
            if given[-offset].size == x[-offset].size:
                op.same(given[-offset], x[-offset])
    op.tag("statistics", x[-1])
    op.tag("normalized", x[-1])
    op.tag("scale", *op.x[2])
    op.tag("residual", *[dim for dim in x if dim.size > 1])


@shape_rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization_shape(_: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """The norm, the mean, the inverse deviation, the sum."""
    assert x[0] is not None
    shape, dtype = x[0]
    row = ((*shape[:-1], 1), ir.DataType.FLOAT)
    return [x[0], row, row, (shape, dtype)]


@rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(op: Op) -> None:
    """Rows of the tables [V, H], [P, H] and [T, H] are added up and normalized over H."""
    hidden = op.y[0][2]
    tables = [op.x[i] for i in (2, 3, 4) if op.has(i)]
    for table in tables:
        op.freeze(table[0], "rows are looked up by data")
    for given in (*tables, op.x[5], op.x[6]):
        op.same(given[-1], hidden)
    op.freeze(op.y[0][1], "positions are counted along it")
    for ids in (op.x[0], op.x[1], *op.x[7:9], *op.y[1:]):
        for dim, other in zip(ids, op.y[0], strict=False):
            if dim.size == other.size:
                op.same(dim, other)
    op.tag("statistics", hidden)
    op.tag("normalized", hidden)
    op.tag("scale", *op.x[5])


@shape_rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization_shape(_: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """The norm, the lengths, the sum."""
    assert x[0] is not None
    assert x[2] is not None
    normal = ((*x[0][0], x[2][0][1]), x[2][1])
    return [normal, ((x[0][0][0],), ir.DataType.INT32), normal]


@rule("SimplifiedLayerNormalization", domain=MICROSOFT)
def layer_normalization(op: Op) -> None:
    """As in the standard domain."""
    op.like("LayerNormalization")


@shape_rule("SimplifiedLayerNormalization", "LayerNormalization")
@shape_rule("SimplifiedLayerNormalization", domain=MICROSOFT)
def layer_normalization_shape(node: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """ONNX Runtime writes these into the standard domain too, also where its opset does not have them."""
    assert x[0] is not None
    shape, _ = x[0]
    axis = attribute(node, "axis", -1) % len(shape)
    row = (tuple(size if i < axis else 1 for i, size in enumerate(shape)), ir.DataType.FLOAT)
    return [x[0], row, row]


@rule("GroupNorm", "SkipGroupNorm", domain=MICROSOFT)
def group_norm(op: Op) -> None:
    """Input [N, ..., C] or [N, C, ...], scale, shift and bias [C], skip alike or [N, C]: statistics over the groups."""
    x = op.x[0]
    channels = x[-1] if op.attr("channels_last", 1) else x[1]
    for other in (*op.y, *op.x[3:4]):
        pairs = zip(other, x if len(other) == len(x) else (x[0], channels), strict=True)
        for dim, given in pairs:
            if dim.size == given.size:
                op.same(dim, given)
    for parameter in (*op.x[1:3], *op.x[4:5]):
        op.same(parameter[0], channels)
    groups, inner = op.factor(channels, int(op.attr("groups")))
    op.names("groups", None, groups)
    op.tag("statistics", inner, *[dim for dim in x[1:] if dim is not channels])
    op.tag("scale", *op.x[1])


@shape_rule("GroupNorm", "SkipGroupNorm", domain=MICROSOFT)
def group_norm_shape(_: ir.Node, x: list[Typed | None]) -> list[Typed | None]:
    """The norm, and the sum."""
    return [x[0], x[0]]
