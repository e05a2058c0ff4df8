"""Control flow: a choice between branches, and bodies that are run again and again.

The bodies are walked like the rest of the graph; here is how their inputs and outputs are tied to those of the node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.dims import Atom
from onnxprune.ops.base import Dims, Op, RefuseError, attribute, rule

# Scan of opset 8 has another form.
_SCAN_SINCE = 9


@rule("If")
def choice(op: Op) -> None:
    """Output k is output k of either branch."""
    op.free(*op.x[0])
    for outputs in op.branches:
        for y, chosen in zip(op.y, outputs, strict=True):
            if len(y) != len(chosen):
                raise RefuseError("the branches differ in rank")
            op.same_all(y, chosen)


def branch_taken(node: ir.Node, condition: bool) -> ir.Graph | None:
    """The body that an If runs under a condition; None for any other node."""
    if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
        return None
    return node.attributes["then_branch" if condition else "else_branch"].as_graph()


@dataclass(frozen=True)
class Ports:
    """How a node that runs its body again and again is tied to it; all are positions.

    Attributes:
        states: (input of the node, input of the body, output of the body, output of the node): carried on.
        slices: (input of the node, its axis, input of the body): one entry along the axis a step.
        stacks: (output of the body, output of the node, its axis): one entry along the axis a step.
    """

    states: list[tuple[int, int, int, int]]
    slices: list[tuple[int, int, int]]
    stacks: list[tuple[int, int, int]]


def loop_ports(node: ir.Node) -> Ports | None:
    """Of a Loop or a Scan; None for any other node and for forms that are not walked."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Loop", "Scan"):
        return None
    body = node.attributes["body"].as_graph()
    if node.op_type == "Loop":  # a count and a condition come first
        carried = len(body.inputs) - 2
        states = [(i + 2, i + 2, i + 1, i) for i in range(carried)]
        return Ports(states, [], [(i + 1, i, 0) for i in range(carried, len(body.outputs) - 1)])
    read = int(attribute(node, "num_scan_inputs"))
    carried, written = len(body.inputs) - read, len(body.outputs) - (len(body.inputs) - read)
    if len(node.inputs) != len(body.inputs):
        return None
    along = attribute(node, "scan_input_axes") or [0] * read
    beside = attribute(node, "scan_output_axes") or [0] * written
    return Ports(
        [(i, i, i, i) for i in range(carried)],
        [(carried + i, int(axis), carried + i) for i, axis in enumerate(along)],
        [(carried + i, carried + i, int(axis)) for i, axis in enumerate(beside)],
    )


@rule("Loop", "Scan")
def repetition(op: Op) -> None:
    """States keep their dimensions from step to step; slices and stacks lack the axis that the steps lie along."""
    tied = loop_ports(op.node) if op.node.op_type == "Loop" or op.opset >= _SCAN_SINCE else None
    if tied is None:
        raise RefuseError("a form of it that is not walked")
    given, made = op.body_inputs[0], op.branches[0]
    if any(len(op.x[x]) != len(given[inside]) for x, inside, _, _ in tied.states):
        raise RefuseError("a state whose shape changes from step to step")
    for x, inside, result, y in tied.states:
        op.same_all(op.x[x], given[inside])
        op.same_all(given[inside], made[result])
        op.same_all(op.y[y], made[result])
    for x, axis, inside in tied.slices:
        op.same_all(list(_without(op, op.x[x], axis)), given[inside])
    for result, y, axis in tied.stacks:
        op.same_all(list(_without(op, op.y[y], axis)), made[result])


def _without(op: Op, dims: Dims, axis: int) -> Iterator[Atom]:
    """All but the axis of the steps, which stays."""
    for i, dim in enumerate(dims):
        if i == axis % len(dims):
            op.freeze(dim, "the steps of a loop")
        else:
            yield dim
