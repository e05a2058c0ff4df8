"""LSTM, GRU, RNN and attention, as torch has them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.conversion.to_torch.base import Array, Call, written
from onnxprune.conversion.to_torch.nesting import Assignment
from onnxprune.ops.base import attribute

# Order of the gates in torch, by their places in ONNX, and the usual activations.
_GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


@written("LSTM", "GRU", "RNN")
def recurrent(op: Call) -> list[str]:
    """Over [steps, batch, inputs]; ONNX has the directions as an axis of their own."""
    kind = op.node.op_type
    w, r, bias = op.constant(1), op.constant(2), op.constant(3)
    if w is None or r is None or (op.has(3) and bias is None):
        raise op.refuse("its weights are computed")
    _check_usual(op, len(w))
    parameters = _parameters(kind, w, r, bias)
    size, both, backward = r.shape[2], len(w) == 2, op.attr("direction", "forward") == "reverse"
    arguments = (
        f"{w.shape[2]}, {size}{'' if bias is not None else ', bias=False'}{', bidirectional=True' if both else ''}"
    )
    x = op.tensor(0) + (".flip(0)" if backward else "")
    states = [op.tensor(slot) for slot in (5, 6) if op.has(slot)]
    given = f", ({', '.join(states)})" if kind == "LSTM" and states else "".join(f", {state}" for state in states)
    if kind == "LSTM" and len(states) == 1:
        raise op.refuse("one of its two initial states is left out")
    module = op.module(kind, arguments, parameters)
    names = [op.writer.name(each) for each in ("steps", "hidden", "cell")[: 3 if kind == "LSTM" else 2]]
    last = names[1] if kind != "LSTM" else f"({names[1]}, {names[2]})"
    op.writer.lines.append(Assignment(f"{names[0]}, {last}", f"{module}({x}{given})"))
    steps = f"{names[0]}.flip(0)" if backward else names[0]
    readers = _readers_that_undo(op, size * len(w))
    for node in readers:
        op.writer.join(node, op.node)
    if readers:
        return [steps, *names[1:]]
    y = f"{steps}.unflatten(2, (2, {size})).transpose(1, 2)" if both else f"{steps}.unsqueeze(1)"
    return [y, *names[1:]]


def _readers_that_undo(op: Call, width: int) -> list[ir.Node]:
    """The nodes that make [steps, batch, all directions] of the output, which is how torch gives it; else none."""
    value, found = op.node.outputs[0], list[ir.Node]()
    for kind in ("Transpose", "Reshape") if op.attr("direction", "forward") == "bidirectional" else ("Squeeze",):
        sizes = found and kind == "Reshape"  # of steps and batch, which are the first axes of both
        uses = [use for use in value.uses() if not (sizes and use.node.op_type == "Shape")]
        if len(uses) != 1 or uses[0].node.op_type != kind or value.is_graph_output():
            return []
        found.append(uses[0].node)
        value = found[-1].outputs[0]
    shape, given = (op.writer.shapes.shapes.get(each.name or "") for each in (value, op.node.inputs[0]) if each)
    same = shape is not None and given is not None and tuple(shape) == (*given[:2], width)
    otherwise = len(found) == 2 and tuple(attribute(found[0], "perm", ())) != (0, 2, 1, 3)
    return found if same and not otherwise else []


def _check_usual(op: Call, directions: int) -> None:
    """Raises ModelError for what torch has no kernel for."""
    kind = op.node.op_type
    usual = [name.lower() for name in _ACTIVATIONS[kind]] * directions
    if [name.lower() for name in op.attr("activations") or usual] != usual:
        raise op.refuse("it has other activations than torch")
    if op.has(4) or op.has(7) or op.attr("clip") is not None or op.attr("input_forget", 0) or op.attr("layout", 0):
        raise op.refuse("it has lengths, peepholes, a clip, coupled gates or the batch first")
    if kind == "GRU" and not op.attr("linear_before_reset", 0):
        raise op.refuse("it resets the state before the product, torch after it")


def _parameters(kind: str, w: Array, r: Array, bias: Array | None) -> dict[str, Array]:
    order = _GATES[kind]

    def gates(part: Array) -> Array:
        chunks = np.split(part, len(order))
        return np.concatenate([chunks[index] for index in order])

    found: dict[str, Array] = {}
    for direction, suffix in zip(range(len(w)), ("_l0", "_l0_reverse"), strict=False):
        found[f"weight_ih{suffix}"], found[f"weight_hh{suffix}"] = gates(w[direction]), gates(r[direction])
        if bias is not None:
            of_input, of_state = np.split(bias[direction], 2)
            found[f"bias_ih{suffix}"], found[f"bias_hh{suffix}"] = gates(of_input), gates(of_state)
    return found


@written("Attention")
def attention(op: Call) -> str:
    """Scaled dot-product attention over [batch, heads, steps, size]."""
    if any(op.has(slot) for slot in (4, 5, 6)) or op.wants(1) or op.wants(3) or op.attr("softcap", 0.0):
        raise op.refuse("it has a cache, a cap, or gives out its scores")
    if op.known_rank(0) != 4:
        raise op.refuse("its heads are not an axis of their own")
    options = f", attn_mask={op.tensor(3)}" if op.has(3) else ""
    options += ", is_causal=True" if op.attr("is_causal", 0) else ""
    options += f", scale={op.attr('scale'):.9g}" if op.attr("scale") is not None else ""
    options += ", enable_gqa=True" if op.size(0, 1) != op.size(1, 1) else ""
    q, k, v = (op.tensor(slot) for slot in range(3))
    return f"F.scaled_dot_product_attention({q}, {k}, {v}{options})"
