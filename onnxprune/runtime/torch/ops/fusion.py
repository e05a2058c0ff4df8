"""Several nodes as one call, where torch has a function for them: what exporters took apart is put together again.

    Div(x, 1.414...) ── Erf ── Add(1) ── Mul(x) ── Mul(0.5)    GELU (Hendrycks and Gimpel, 2016)
    Sigmoid(x) ── Mul(x)                                       SiLU (Elfwing, Uchibe and Doya, 2018)
    MatMul(x, w) ── Add(b)                                     a linear layer

For training only: inner values are not there to be asked for, and the numbers of a GELU get no gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchOperator


@dataclass(frozen=True)
class _Graph:
    """The steps of a program: who makes and who reads a value, and what is known of its content."""

    steps: Sequence[Any]
    reads: Counter[str]
    makers: Mapping[str, Any]
    readers: Mapping[str, Any]  # of values that are read once
    values: Mapping[str, Any]

    def maker(self, name: str, op_type: str) -> Any:
        """The step of that operator which makes a value, None where it is another."""
        step = self.makers.get(name)
        return step if step is not None and step.op.op_type == op_type else None

    def reader(self, name: str, op_type: str) -> Any:
        """The step of that operator which alone reads a value."""
        step = self.readers.get(name) if self.reads[name] == 1 else None
        return step if step is not None and step.op.op_type == op_type else None

    def number(self, name: str) -> float | None:
        """The content of a constant of one entry that is not learned."""
        value = self.values.get(name)
        if isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad and name not in self.makers:
            return float(value)
        return None

    def other(self, step: Any, name: str) -> str:
        """The input of a step beside `name`."""
        first, second = step.inputs
        return str(second if first == name else first)


def fused(steps: Sequence[Any], values: Mapping[str, Any], kept: Sequence[str]) -> tuple[list[Any], frozenset[str]]:
    """The steps with some of them put together, and the names of the values that are not made any more.

    Args:
        steps: those of a program, in order.
        values: tensors that are known before it runs, by name.
        kept: names that are read from outside: outputs, and what bodies of other steps read.
    """
    reads = Counter(name for step in steps for name in step.inputs if name)
    reads.update(kept)
    readers = {name: step for step in steps for name in step.inputs if name}
    graph = _Graph(steps, reads, {name: step for step in steps for name in step.outputs}, readers, values)
    replaced: dict[int, Any] = {}  # by the identity of the last step of each pattern
    gone: dict[int, Any] = {}
    hidden: set[str] = set()
    for step in steps:
        found = _gelu(graph, step) or _silu(graph, step) or _linear(graph, step)
        if found is None or any(id(part) in gone or id(part) in replaced for part in found[0]):
            continue
        parts, entry, inputs = found
        last = parts[-1]
        inner = {name for part in parts[:-1] for name in part.outputs}
        released = tuple(sorted({name for part in parts for name in part.last} - inner))
        replaced[id(last)] = replace(last, entry=entry, inputs=inputs, numbers={}, last=released)
        gone.update({id(part): part for part in parts[:-1]})
        hidden |= inner
    return [replaced.get(id(step), step) for step in steps if id(step) not in gone], frozenset(hidden)


Found = tuple[list[Any], TorchOperator, tuple[str, ...]]


def _gelu(graph: _Graph, erf: Any) -> Found | None:
    if erf.op.op_type != "Erf":
        return None
    scaled = graph.maker(erf.inputs[0], "Div") or graph.maker(erf.inputs[0], "Mul")
    if scaled is None or graph.reads[erf.inputs[0]] != 1:
        return None
    x, due = scaled.inputs[0], sqrt(2) if scaled.op.op_type == "Div" else sqrt(0.5)
    if not _is(graph.number(scaled.inputs[1]), due):
        return None
    one = graph.reader(erf.outputs[0], "Add")
    if one is None or not _is(graph.number(graph.other(one, erf.outputs[0])), 1.0):
        return None
    parts = _halved(graph, x, one)
    return None if parts is None else ([scaled, erf, one, *parts], TorchOperator(lambda _, value: F.gelu(value)), (x,))


def _halved(graph: _Graph, x: str, one: Any) -> list[Any] | None:
    """The products of x, one half and what `one` makes, in any order."""
    first = graph.reader(one.outputs[0], "Mul")
    if first is None:
        return None
    beside = graph.other(first, one.outputs[0])
    if (half := graph.maker(beside, "Mul")) is not None and graph.reads[beside] == 1 and x in half.inputs:
        return [half, first] if _is(graph.number(graph.other(half, x)), 0.5) else None
    second = graph.reader(first.outputs[0], "Mul")
    if second is None:
        return None
    rest = {beside, graph.other(second, first.outputs[0])}
    numbers = [graph.number(name) for name in rest - {x}]
    return [first, second] if x in rest and len(numbers) == 1 and _is(numbers[0], 0.5) else None


def _silu(graph: _Graph, sigmoid: Any) -> Found | None:
    if sigmoid.op.op_type != "Sigmoid":
        return None
    product = graph.reader(sigmoid.outputs[0], "Mul")
    x = sigmoid.inputs[0]
    if product is None or graph.other(product, sigmoid.outputs[0]) != x:
        return None
    return [sigmoid, product], TorchOperator(lambda _, value: F.silu(value)), (x,)


def _linear(graph: _Graph, product: Any) -> Found | None:
    if product.op.op_type != "MatMul":
        return None
    weight = graph.values.get(product.inputs[1])
    added = graph.reader(product.outputs[0], "Add")
    if added is None or not isinstance(weight, Tensor) or weight.ndim != 2 or product.inputs[1] in graph.makers:
        return None
    name = graph.other(added, product.outputs[0])
    bias = graph.values.get(name)
    if not isinstance(bias, Tensor) or tuple(bias.shape) != tuple(weight.shape[1:]) or name in graph.makers:
        return None
    return [product, added], TorchOperator(_apply_linear), (*product.inputs, name)


def _apply_linear(_: object, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.ndim < 2 or x.dtype != weight.dtype:
        return torch.matmul(x, weight) + bias
    return F.linear(x, weight.T, bias)


def _is(number: float | None, due: float) -> bool:
    return number is not None and isclose(number, due, rel_tol=1e-3)
