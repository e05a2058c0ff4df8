"""Matrix products: MatMul, Gemm, Einsum and their relatives."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from onnxprune.dims import Atom
from onnxprune.ops.base import CostView, Op, RefuseError, attribute, cost, rule
from onnxprune.ops.matmul_view import Form, affine, by_product, by_sample

_ELLIPSIS = "..."


@rule("Gemm")
def gemm(op: Op) -> None:
    """Y = a·b + c, with optional transposes."""
    trans_a, trans_b = int(op.attr("transA", 0)), int(op.attr("transB", 0))
    a, b, y = op.x[0], op.x[1], op.y[0]
    op.contract(0, 0 if trans_a else 1, b[1 if trans_b else 0])
    op.same(y[0], a[1 if trans_a else 0])
    op.same(y[1], b[0 if trans_b else 1])
    op.tag("produced", y[1])
    op.tag("read", b[1 if trans_b else 0])
    if op.has(2):
        _broadcast_onto(op, op.x[2], y)


def _broadcast_onto(op: Op, x: list[Atom], y: list[Atom]) -> None:
    for offset in range(1, len(x) + 1):
        if x[-offset].size == y[-offset].size:
            op.same(y[-offset], x[-offset])
        else:
            op.free(x[-offset])


@rule("MatMul")
def matmul(op: Op) -> None:
    """Numpy's matmul: the last axis of a with the second to last of b, the rest broadcast."""
    a, b, y = op.x[0], op.x[1], op.y[0]
    if not a or not b:
        raise RefuseError("an operand of unknown rank")
    k = max(len(b) - 2, 0)
    op.contract(0, len(a) - 1, b[k])
    if op.is_activation(1):
        op.contract(1, k)
    rows = a[:-1]
    columns = b[-1:] if len(b) > 1 else []
    if columns:
        op.same(y[-1], columns[0])
    if rows:
        op.same(y[-1 - len(columns)], rows[-1])
    batch = y[: len(y) - len(columns) - (1 if rows else 0)]
    for operand in (rows[:-1], b[:-2]):
        _broadcast_onto(op, operand, batch)
    op.free(*batch)
    if op.is_activation(0) and op.is_activation(1):
        _tag_attention(op, batch)
    else:
        op.tag("produced", *columns)
        op.tag("read", a[-1])


def _tag_attention(op: Op, batch: list[Atom]) -> None:
    """A product of two activations: queries with keys, or weights with values."""
    op.tag("heads", *batch)
    op.tag("head-dim", op.x[0][-1], *op.y[0][-2:])


@rule("Einsum")
def einsum(op: Op) -> None:
    """One dimension per label; labels that the output lacks are summed over, those of an ellipsis broadcast."""
    terms, right = _labels(str(op.attr("equation")), [len(x) for x in op.x])
    place = dict(zip(right, op.y[0], strict=True))
    labelled = [(i, axis, label) for i, term in enumerate(terms) for axis, label in enumerate(term)]
    for i, axis, label in labelled:  # a label that is summed over represents its largest axis
        if label not in right and (label not in place or op.x[i][axis].size > place[label].size):
            place[label] = op.x[i][axis]
    for i, axis, label in labelled:
        dim = op.x[i][axis]
        if dim.size != place[label].size:  # an axis of size 1 is repeated
            op.free(dim, place[label])
        elif label in right:
            op.same(place[label], dim)
        else:
            op.contract(i, axis, place[label])
    if sum(op.is_activation(i) for i in range(len(terms))) > 1:
        shared = set(terms[0]).intersection(*terms[1:], right)
        op.tag("heads", *[place[label] for label in right if label in shared])
        op.tag("head-dim", *[place[label] for label in place if label not in shared])
    else:
        op.tag("produced", *op.y[0])
        op.tag("read", *[place[label] for label in place if label not in right])


def _labels(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """The labels of each operand's axes and of the output's: letters; of an ellipsis `...1`, `...2` from the right.

    Raises RefuseError for an ellipsis that the output lacks.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_spelled(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    dots = max((sum(label.startswith(_ELLIPSIS) for label in term) for term in terms), default=0)
    if not arrow:
        once = sorted(letter for letter in set(left) - {",", "."} if left.count(letter) == 1)
        right = _ELLIPSIS * (dots > 0) + "".join(once)
    if dots and _ELLIPSIS not in right:
        raise RefuseError("an ellipsis that the output lacks")
    return terms, _spelled(right, len(right.replace(_ELLIPSIS, "")) + dots)


def _spelled(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition(_ELLIPSIS)
    unnamed = rank - len(before) - len(after) if dots else 0
    return [*before, *(f"{_ELLIPSIS}{offset}" for offset in range(unnamed, 0, -1)), *after]


@cost("MatMul")
def matmul_macs(view: CostView) -> int:
    """One multiply-accumulate per output entry and summed index."""
    return prod(view.y[0]) * view.x[0][-1]


@cost("Gemm")
def gemm_macs(view: CostView) -> int:
    """The same, transposed or not."""
    return prod(view.y[0]) * view.x[0][0 if attribute(view.node, "transA", 0) else 1]


@cost("Einsum")
def einsum_macs(view: CostView) -> int:
    """The product of all labels' sizes, as if evaluated in one loop."""
    terms, _ = _labels(str(attribute(view.node, "equation")), [len(shape) for shape in view.x])
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, view.x, strict=True):
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return prod(sizes.values()) if len(terms) > 1 else 0


@affine("Gemm")
def gemm_form(node: ir.Node, _x: tuple[int, ...], _w: tuple[int, ...]) -> Form | None:
    """Input [N, I], weight [I, O] or its transpose."""
    if attribute(node, "transA", 0) or float(attribute(node, "beta", 1.0)) == 0:
        return None
    turned, alpha = bool(attribute(node, "transB", 0)), float(attribute(node, "alpha", 1.0))
    return Form(
        1,
        1,
        1,
        1,
        lambda array, _: array[None],
        lambda weight: alpha * (weight.T if turned else weight)[None],
        lambda matrix: (matrix[0].T if turned else matrix[0]) / alpha,
        bias=2,
        bias_factor="beta",
    )


@affine("MatMul")
def matmul_form(_node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Input [..., I], weight [I, O] or [B, I, O] for input [..., B, M, I]; the first axis enumerates samples."""
    if len(w) == 3 and len(x) > 2 and x[-3] == w[0] > 1:
        return _stacked_form(len(x), w[0])
    if len(w) != 2 or len(x) < 2:
        return None
    last = len(x) - 1
    return Form(
        last,
        last,
        1,
        1,
        lambda array, positions: by_sample(array, positions)[None],
        lambda weight: weight[None],
        lambda matrix: matrix[0],
    )


@affine("Einsum")
def einsum_form(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Form | None:
    """Input and weight [I, O], in any order, that share the label of I; samples come first and outputs last."""
    if len(node.inputs) != 2:
        return None
    try:
        (given, weight), right = _labels(str(attribute(node, "equation")), [len(x), len(w)])
    except RefuseError:
        return None
    summed, made = (set(given) & set(weight)) - set(right), (set(weight) & set(right)) - set(given)
    if (
        len(summed) != 1
        or made != set(right[-1:])
        or given[0] != right[0]
        or len(weight) != 2
        or len(set(given)) < len(x)
    ):
        return None
    (label,) = summed
    if set(given) != {*right[:-1], label} or x[given.index(label)] != w[weight.index(label)]:
        return None
    order, turned = [given.index(each) for each in (*right[:-1], label)], weight.index(label) == 1
    return Form(
        given.index(label),
        len(right) - 1,
        1,
        1,
        lambda array, positions: by_sample(array.transpose(order), positions)[None],
        lambda array: (array.T if turned else array)[None],
        lambda matrix: matrix[0].T if turned else matrix[0],
    )


def _stacked_form(rank: int, products: int) -> Form:
    last, stack = rank - 1, rank - 3
    return Form(
        last,
        last,
        1,
        products,
        lambda array, positions: by_product(array, stack, positions),
        lambda weight: weight,
        lambda matrix: matrix,
        stack=stack,
    )
