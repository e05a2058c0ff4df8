"""Matrix products: MatMul, Gemm, Einsum and their relatives."""

from __future__ import annotations

from math import prod

from onnxprune.dims import Atom
from onnxprune.ops.base import CostView, Op, RefuseError, attribute, cost, rule


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
    """One dimension per letter; letters that the output lacks are summed over."""
    equation = str(op.attr("equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "..." in equation:
        raise RefuseError("an equation with an ellipsis")
    if not arrow:
        letters = sorted(set(left) - {","})
        right = "".join(letter for letter in letters if left.count(letter) == 1)
    place = dict(zip(right, op.y[0], strict=True))
    for i, term in enumerate(terms):
        for axis, letter in enumerate(term):
            if letter in right:
                op.same(place[letter], op.x[i][axis])
            else:
                op.contract(i, axis, place.setdefault(letter, op.x[i][axis]))
    if sum(op.is_activation(i) for i in range(len(terms))) > 1:
        shared = set(terms[0]).intersection(*terms[1:], right)
        op.tag("heads", *[place[letter] for letter in right if letter in shared])
        op.tag("head-dim", *[place[letter] for letter in place if letter not in shared])
    else:
        op.tag("produced", *op.y[0])
        op.tag("read", *[place[letter] for letter in place if letter not in right])


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
    """The product of all letters' sizes, as if evaluated in one loop."""
    terms = str(attribute(view.node, "equation")).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, view.x, strict=True):
        sizes.update(zip(term, shape, strict=False))
    return prod(sizes.values()) if len(terms) > 1 else 0
