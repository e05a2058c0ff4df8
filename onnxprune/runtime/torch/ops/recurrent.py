"""RNN, GRU and LSTM, step by step; where torch's own kernels do the same and no second derivative is due, by those."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

Activation = Callable[[Tensor], Tensor]
# One step: what the input contributes, the states before -> the states after.
Cell = Callable[..., tuple[Tensor, ...]]

# name -> (function of x, alpha, beta; default alpha; default beta)
_ACTIVATIONS: dict[str, tuple[Callable[[Tensor, float, float], Tensor], float, float]] = {
    "Affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "Elu": (lambda x, a, _: F.elu(x, a), 1.0, 0.0),
    "HardSigmoid": (lambda x, a, b: torch.clamp(a * x + b, 0, 1), 0.2, 0.5),
    "LeakyRelu": (lambda x, a, _: F.leaky_relu(x, a), 0.01, 0.0),
    "Relu": (lambda x, _, __: torch.relu(x), 0.0, 0.0),
    "ScaledTanh": (lambda x, a, b: a * torch.tanh(b * x), 1.0, 1.0),
    "Sigmoid": (lambda x, _, __: torch.sigmoid(x), 0.0, 0.0),
    "Softplus": (lambda x, _, __: F.softplus(x), 0.0, 0.0),
    "Softsign": (lambda x, _, __: F.softsign(x), 0.0, 0.0),
    "Tanh": (lambda x, _, __: torch.tanh(x), 0.0, 0.0),
    "ThresholdedRelu": (lambda x, a, _: F.threshold(x, a, 0.0), 1.0, 0.0),
}
_WITH_ALPHA = {"Affine", "Elu", "HardSigmoid", "LeakyRelu", "ScaledTanh", "ThresholdedRelu"}
_WITH_BETA = {"Affine", "HardSigmoid", "ScaledTanh"}


def _activations(op: TorchNode, defaults: list[str], directions: int) -> list[list[Activation]]:
    """The functions of each direction; alphas and betas are dealt out to those that take one."""
    known = {name.lower(): name for name in _ACTIVATIONS}
    names = [known[name.lower()] for name in op.attr("activations") or defaults * directions]
    alphas, betas = iter(op.attr("activation_alpha") or ()), iter(op.attr("activation_beta") or ())
    limit = op.attr("clip")
    functions: list[Activation] = []
    for name in names:
        function, alpha, beta = _ACTIVATIONS[name]
        alpha = next(alphas, alpha) if name in _WITH_ALPHA else alpha
        beta = next(betas, beta) if name in _WITH_BETA else beta
        functions.append(partial(_activated, function, alpha, beta, limit))
    count = len(defaults)
    return [functions[start : start + count] for start in range(0, len(functions), count)]


def _activated(
    function: Callable[[Tensor, float, float], Tensor], alpha: float, beta: float, limit: float | None, x: Tensor
) -> Tensor:
    return function(x if limit is None else torch.clamp(x, -limit, limit), alpha, beta)


# Each makes the cell of a direction, and says what is added to the product of the input.


def _rnn(_: TorchNode, f: list[Activation], r: Tensor, bias: Tensor, __: Tensor | None) -> tuple[Tensor, Cell]:
    def cell(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        return (f[0](x + h @ r.T),)

    return _sum_of_halves(bias), cell


def _gru(op: TorchNode, f: list[Activation], r: Tensor, bias: Tensor, _: Tensor | None) -> tuple[Tensor, Cell]:
    size = r.shape[1]
    of_input, of_state = bias.chunk(2)
    after = op.attr("linear_before_reset", 0)

    def cell(x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        gates = x[:, : 2 * size] + h @ r[: 2 * size].T + of_state[: 2 * size]
        update, reset = f[0](gates).chunk(2, 1)
        if after:
            hidden = reset * (h @ r[2 * size :].T + of_state[2 * size :])
        else:
            hidden = (reset * h) @ r[2 * size :].T + of_state[2 * size :]
        return ((1 - update) * f[1](x[:, 2 * size :] + hidden) + update * h,)

    return of_input, cell


def _lstm(op: TorchNode, f: list[Activation], r: Tensor, bias: Tensor, peep: Tensor | None) -> tuple[Tensor, Cell]:
    coupled = op.attr("input_forget", 0)

    def cell(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        into, out, forget, new = (x + h @ r.T).chunk(4, 1)
        of_cell = None if peep is None else peep.chunk(3)
        if of_cell is not None:
            into, forget = into + of_cell[0] * c, forget + of_cell[2] * c
        into = f[0](into)
        forget = 1 - into if coupled else f[0](forget)
        c = forget * c + into * f[1](new)
        out = f[0](out if of_cell is None else out + of_cell[1] * c)
        return out * f[2](c), c

    return _sum_of_halves(bias), cell


def _sum_of_halves(bias: Tensor) -> Tensor:
    of_input, of_state = bias.chunk(2)
    return of_input + of_state


# Order of the gates in torch, by their places in ONNX.
_GATES = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
_KINDS = {"RNN": (_rnn, ["Tanh"]), "GRU": (_gru, ["Sigmoid", "Tanh"]), "LSTM": (_lstm, ["Sigmoid", "Tanh", "Tanh"])}


@torch_op("RNN", "GRU", "LSTM")
def recurrent(
    op: TorchNode,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    *others: Tensor | None,
) -> tuple[Tensor, ...]:
    """Over [steps, batch, inputs] (layout=1: batch first), forward, reverse or both.

    Returns: the hidden state at every step [steps, directions, batch, size], the last one, and LSTM's last cell state.
    """
    make, defaults = _KINDS[op.op_type]
    batch_first = op.attr("layout", 0)
    x = x.transpose(0, 1) if batch_first else x
    states = 2 if op.op_type == "LSTM" else 1
    directions, size = w.shape[0], r.shape[2]
    before = [_initial(others, i, directions, x, size, batch_first) for i in range(states)]
    peepholes = others[2] if op.op_type == "LSTM" and len(others) > 2 else None
    bias = torch.zeros(directions, 2 * w.shape[1], dtype=x.dtype, device=x.device) if bias is None else bias
    if lengths is None and peepholes is None and _is_plain(op, defaults):
        return _by_kernel(op, x, w, r, bias, before, batch_first)
    functions = _activations(op, defaults, directions)
    backward = [op.attr("direction", "forward") == "reverse", True]
    outputs, finals = [], []
    for d in range(directions):
        added, cell = make(op, functions[d], r[d], bias[d], None if peepholes is None else peepholes[d])
        order = _order(x.shape[0], lengths, x, backward[d])
        steps = _permuted(x, order) @ w[d].T + added
        output, last = _run(cell, steps, [state[d] for state in before], lengths)
        outputs.append(_permuted(output, order))
        finals.append(last)
    y = torch.stack(outputs, 1)
    last_states = [torch.stack([last[i] for last in finals]) for i in range(states)]
    if batch_first:
        y, last_states = y.permute(2, 0, 1, 3), [state.transpose(0, 1) for state in last_states]
    return y, *last_states


def _is_plain(op: TorchNode, defaults: list[str]) -> bool:
    """Does torch have a kernel for it? Those can be differentiated once, which is enough in training."""
    names = [name.lower() for name in op.attr("activations") or ()]
    usual = names in ([], [name.lower() for name in defaults], [name.lower() for name in defaults * 2])
    reset_last = op.op_type != "GRU" or bool(op.attr("linear_before_reset", 0))
    once = op.settings.training or not torch.is_grad_enabled()
    return once and usual and reset_last and op.attr("clip") is None and not op.attr("input_forget", 0)


def _by_kernel(
    op: TorchNode, x: Tensor, w: Tensor, r: Tensor, bias: Tensor, before: list[Tensor], batch_first: int
) -> tuple[Tensor, ...]:
    """The same by torch's function for all steps; x [steps, batch, inputs]."""
    order, directions, size = _GATES[op.op_type], w.shape[0], r.shape[2]

    def gates(part: Tensor) -> Tensor:
        chunks = part.chunk(len(order))
        return torch.cat([chunks[index] for index in order])

    parts = [(w[d], r[d], *bias[d].chunk(2)) for d in range(directions)]
    weights = [gates(part) for direction in parts for part in direction]
    reversed_ = op.attr("direction", "forward") == "reverse"
    kernel: Any = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[op.op_type]
    states: Any = [state.contiguous() for state in before] if op.op_type == "LSTM" else before[0].contiguous()
    x = x.flip(0) if reversed_ else x
    y, *last = kernel(x, states, weights, True, 1, 0.0, op.settings.training, directions == 2, False)
    y = y.flip(0) if reversed_ else y
    y = y.reshape(*y.shape[:2], directions, size)
    if batch_first:
        return y.transpose(0, 1), *(state.transpose(0, 1) for state in last)
    return y.transpose(1, 2), *last


def _initial(
    others: tuple[Tensor | None, ...], index: int, directions: int, x: Tensor, size: int, batch_first: int
) -> Tensor:
    given = others[index] if index < len(others) else None
    if given is None:
        return torch.zeros(directions, x.shape[1], size, dtype=x.dtype, device=x.device)
    return given.transpose(0, 1) if batch_first else given


def _order(steps: int, lengths: Tensor | None, x: Tensor, backward: bool) -> Tensor | None:
    """[steps, batch]: which step is the t-th; None where the order is the natural one. Its own inverse."""
    if not backward:
        return None
    t = torch.arange(steps, device=x.device).reshape(-1, 1).expand(steps, x.shape[1])
    if lengths is None:
        return steps - 1 - t
    return torch.where(t < lengths.to(x.device), lengths.to(x.device) - 1 - t, t)


def _permuted(x: Tensor, order: Tensor | None) -> Tensor:
    return x if order is None else x.gather(0, order.unsqueeze(-1).expand_as(x))


def _run(cell: Cell, steps: Tensor, states: list[Tensor], lengths: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """The output of every step, zero beyond a sample's length, and the states after its last."""
    outputs = []
    for t, step in enumerate(steps):
        after = list(cell(step, *states))
        if lengths is not None:
            alive = (lengths.to(steps.device) > t).unsqueeze(1)
            outputs.append(torch.where(alive, after[0], torch.zeros_like(after[0])))
            after = [torch.where(alive, new, old) for new, old in zip(after, states, strict=True)]
        else:
            outputs.append(after[0])
        states = after
    return torch.stack(outputs), states
