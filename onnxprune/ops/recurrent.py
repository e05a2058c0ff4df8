"""LSTM, GRU and RNN: hidden units, with as many gates beside each other as the cell has."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Atom, concat
from onnxprune.ops.base import Array, CostView, Op, attribute, cost, rule
from onnxprune.ops.matmul_view import Form, affine, by_sample

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@rule(*_GATES)
def recurrent(op: Op) -> None:
    """W [D, g*H, I], R [D, g*H, H], B [D, 2g*H]; X [S, N, I] -> Y [S, D, N, H], last states [D, N, H].

    Both directions share one dimension of hidden units, since they come out side by side on one axis. `layout=1`
    moves the batch to the front.
    """
    gates = _GATES[op.node.op_type]
    x, weights, recurrence = op.x[0], op.x[1], op.x[2]
    hidden = recurrence[2]
    op.contract(0, 2, weights[2])
    op.contract(2, 2)
    op.same(weights[1], concat(*[hidden] * gates))
    op.same(recurrence[1], concat(*[hidden] * gates))
    op.names("hidden_size", None, hidden)
    op.tag("recurrent", hidden)
    if op.has(3):
        op.same(op.x[3][1], concat(*[hidden] * gates * 2))
    for state in (*op.x[5:7], *op.y):
        if state:
            op.same(state[-1], hidden)
    if op.has(7):
        op.same(op.x[7][1], concat(*[hidden] * 3))
    _keep_places(op, x)


def _keep_places(op: Op, x: list[Atom]) -> None:
    """Time, batch and direction pass by unchanged."""
    for dim in x[:2]:
        op.freeze(dim, "time and batch of a recurrent layer")


@cost(*_GATES)
def recurrent_macs(view: CostView) -> int:
    """Input and recurrent products at every step, for every direction."""
    steps_and_batch = prod(view.x[0][:2])
    return steps_and_batch * (prod(view.x[1]) + prod(view.x[2]))


@affine(*_GATES)
def recurrent_form(_node: ir.Node, _x: tuple[int, ...], w: tuple[int, ...]) -> Form:
    """The products of a recurrent cell with its inputs [sequence, batch, I] with W [directions, gates*H, I]."""
    directions, outputs, features = w
    return Form(
        2,
        3,
        1,
        1,
        lambda array, positions: by_sample(array, positions)[None],
        lambda weight: weight.reshape(-1, features).T[None],
        lambda matrix: matrix[0].T.reshape(directions, outputs, features),
        bias=3,
        hidden=1,
        bias_parts=2,
        drawn=False,
    )


def gates_of_states(node: ir.Node) -> int:
    """How many of a cell's gates, the first ones, add a product with the states as they are, not with reset ones."""
    reset_first = node.op_type == "GRU" and not attribute(node, "linear_before_reset", 0)
    return _GATES[node.op_type] - int(reset_first)


def states_before(node: ir.Node) -> Callable[..., Array]:
    """From all states of a cell to those that its recurrent weights multiply: each of the step before.

    The function takes Y and the states that are given for the first step [directions, samples, units], zeros by
    default, in the order of the node's layout; it gives rows [directions, steps * samples, units].
    """
    backwards = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    reverse = backwards[attribute(node, "direction", "forward")]
    batch_first = bool(attribute(node, "layout", 0))

    def rows(states: Array, first: Array | None = None) -> Array:
        if batch_first:  # [samples, steps, directions, units]
            states, first = states.transpose(1, 2, 0, 3), None if first is None else first.transpose(1, 0, 2)
        found = []
        for direction, back in enumerate(reverse):
            own = states[::-1, direction] if back else states[:, direction]
            start = np.zeros_like(own[:1]) if first is None else first[None, direction]
            found.append(np.concatenate([start, own[:-1]]).reshape(-1, own.shape[-1]))
        return np.stack(found)

    return rows
