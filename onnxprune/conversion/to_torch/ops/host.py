"""Arithmetic on sizes, written as Python: `x.shape[0] // 2` in place of a Shape, a Gather and a Div."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import onnx_ir as ir

from onnxprune.conversion.to_torch.base import Call, Sizes

_BINARY: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "Add": ("{} + {}", lambda a, b: a + b),
    "Sub": ("{} - {}", lambda a, b: a - b),
    "Mul": ("{} * {}", lambda a, b: a * b),
    "Div": ("{} // {}", lambda a, b: a // b),
    "Mod": ("{} % {}", lambda a, b: a % b),
    "Max": ("max({}, {})", max),
    "Min": ("min({}, {})", min),
    "Equal": ("{} == {}", lambda a, b: a == b),
    "Less": ("{} < {}", lambda a, b: a < b),
    "Greater": ("{} > {}", lambda a, b: a > b),
    "LessOrEqual": ("{} <= {}", lambda a, b: a <= b),
    "GreaterOrEqual": ("{} >= {}", lambda a, b: a >= b),
    "And": ("{} and {}", lambda a, b: a and b),
    "Or": ("{} or {}", lambda a, b: a or b),
}
_WHOLE = {ir.DataType.INT64, ir.DataType.INT32}


def on_host(op: Call) -> Sizes | None:
    """The numbers that a node gives, where it works on sizes; None where it needs tensors."""
    kind = op.node.op_type
    if op.node.domain not in ("", "ai.onnx"):
        return None
    if kind == "Shape":
        rank = op.rank(0)
        if rank is None:
            return None
        axes = range(rank)[op.attr("start", 0) : op.attr("end")]
        return Sizes(tuple(op.size(0, axis) for axis in axes))
    given = [op.sizes(slot) if op.has(slot) else None for slot in range(len(op.node.inputs))]
    known = [each for each in given if each is not None]
    if not known or len(known) < sum(map(op.has, range(len(given)))):
        return None
    return _computed(op, kind, known)


def _computed(op: Call, kind: str, given: list[Sizes]) -> Sizes | None:
    first = given[0]
    if kind in _BINARY and len(given) == 2:
        return _elementwise(kind, *given)
    if kind == "Where":
        return _chosen(*given)
    if kind == "Concat":
        return Sizes(tuple(entry for each in given for entry in each.entries))
    if kind == "Identity" or (kind == "Cast" and op.attr("to") in _WHOLE):
        return first
    if kind == "Gather":
        return _gathered(first, given[1])
    if kind == "Slice":
        return _sliced(given)
    if kind in ("Squeeze", "Unsqueeze", "Reshape"):
        return _reshaped(kind, first, given[1:])
    if kind == "ReduceProd" and len(first.entries) > 0:
        return Sizes((_product(first.entries),), scalar=not op.attr("keepdims", 1))
    return None


def _reshaped(kind: str, first: Sizes, others: list[Sizes]) -> Sizes | None:
    """A number as a list of one, or the other way around."""
    if kind == "Squeeze" and len(first.entries) == 1:
        return Sizes(first.entries, scalar=True)
    if kind == "Unsqueeze" and first.scalar:
        return Sizes(first.entries)
    if kind == "Reshape" and len(others[0].entries) < 2:
        return Sizes(first.entries, scalar=not others[0].entries)
    return None


def _elementwise(kind: str, a: Sizes, b: Sizes) -> Sizes | None:
    count = max(len(a.entries), len(b.entries))
    if {len(a.entries), len(b.entries)} - {1, count}:
        return None
    pairs = zip(*(each.entries * (count if len(each.entries) == 1 else 1) for each in (a, b)), strict=True)
    return Sizes(tuple(_applied(kind, *pair) for pair in pairs), a.scalar and b.scalar)


def _applied(kind: str, a: str, b: str) -> str:
    text, function = _BINARY[kind]
    if _is_number(a) and _is_number(b):
        return str(function(int(a), int(b)))
    neutral = {"Add": "0", "Sub": "0", "Mul": "1", "Div": "1"}.get(kind)
    if b == neutral:
        return a
    if a == neutral and kind in ("Add", "Mul"):
        return b
    return text.format(in_brackets(a), in_brackets(b))


def in_brackets(entry: str) -> str:
    """An expression as a part of a larger one."""
    return entry if all(letter.isalnum() or letter in "._[]" for letter in entry) else f"({entry})"


def _is_number(entry: str) -> bool:
    return entry.removeprefix("-").isdecimal()


def _chosen(condition: Sizes, a: Sizes, b: Sizes) -> Sizes | None:
    count = max(len(each.entries) for each in (condition, a, b))
    if any(len(each.entries) not in (1, count) for each in (condition, a, b)):
        return None
    rows = zip(*(each.entries * (count if len(each.entries) == 1 else 1) for each in (condition, a, b)), strict=True)
    entries = tuple(
        {"True": x, "False": y}.get(choice, f"{in_brackets(x)} if {choice} else {in_brackets(y)}")
        for choice, x, y in rows
    )
    return Sizes(entries, condition.scalar and a.scalar and b.scalar)


def _gathered(data: Sizes, index: Sizes) -> Sizes | None:
    if data.scalar or not all(map(_is_number, index.entries)):
        return None
    return Sizes(tuple(data.entries[int(each)] for each in index.entries), index.scalar)


def _sliced(given: list[Sizes]) -> Sizes | None:
    """Of opset 10 and later: starts, ends, axes and steps are inputs."""
    if len(given) < 3 or any(len(each.entries) != 1 or not _is_number(each.entries[0]) for each in given[1:]):
        return None
    start, end = (int(each.entries[0]) for each in given[1:3])
    step = int(given[4].entries[0]) if len(given) > 4 else 1
    return Sizes(given[0].entries[start:end:step])


def _product(entries: tuple[str, ...]) -> str:
    if all(map(_is_number, entries)):
        return str(prod(map(int, entries)))
    return " * ".join(map(in_brackets, entries))
