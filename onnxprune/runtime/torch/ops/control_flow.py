"""Nodes that run bodies: each body comes as a function from its inputs to the list of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op

Bodies = Mapping[str, Callable[..., list[Any]]]


@torch_op("If", bodies=True)
def if_(_: TorchNode, bodies: Bodies, condition: Tensor) -> tuple[Any, ...]:
    """One of two bodies."""
    return tuple(bodies["then_branch" if bool(condition) else "else_branch"]())


@torch_op("Loop", bodies=True)
def loop(
    op: TorchNode, bodies: Bodies, count: Tensor | None, condition: Tensor | None, *carried: Any
) -> tuple[Any, ...]:
    """A body again and again, at most `count` times while the condition holds; what it scans out is stacked."""
    limit = None if count is None else int(count)
    state = list(carried)
    going = condition is None or bool(condition)
    scanned: list[list[Tensor]] = [[] for _ in range(len(op.wanted) - len(state))]
    step = 0
    while going and (limit is None or step < limit):
        flag = torch.tensor(True) if condition is None else condition
        condition, *results = bodies["body"](torch.tensor(step), flag, *state)
        state = results[: len(state)]
        for values, value in zip(scanned, results[len(state) :], strict=True):
            values.append(value)
        going = bool(condition)
        step += 1
    return *state, *(torch.stack(values) if values else torch.zeros(0) for values in scanned)


@torch_op("Scan", bodies=True)
def scan(op: TorchNode, bodies: Bodies, *inputs: Any) -> tuple[Any, ...]:
    """A body along an axis of some inputs; before opset 9 for every sample alone."""
    if op.version >= 9:
        return _scanned(op, bodies, inputs)
    if inputs[0] is not None:
        raise op.refuse("sequences of unequal lengths (opset 8) are not supported")
    samples = [_scanned(op, bodies, [x[i] for x in inputs[1:]]) for i in range(inputs[1].shape[0])]
    return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))


def _scanned(op: TorchNode, bodies: Bodies, inputs: Any) -> tuple[Any, ...]:
    count = op.attr("num_scan_inputs")
    state, sequences = list(inputs[: len(inputs) - count]), inputs[len(inputs) - count :]
    axes = op.attr("scan_input_axes") or [0] * count
    backwards = op.attr("scan_input_directions") or op.attr("directions") or [0] * count
    read = [
        list(x.unbind(axis))[:: -1 if back else 1] for x, axis, back in zip(sequences, axes, backwards, strict=True)
    ]
    written: list[list[Tensor]] = [[] for _ in range(len(op.wanted) - len(state))]
    for step in zip(*read, strict=True):
        results = bodies["body"](*state, *step)
        state = results[: len(state)]
        for values, value in zip(written, results[len(state) :], strict=True):
            values.append(value)
    out_axes = op.attr("scan_output_axes") or [0] * len(written)
    out_backwards = op.attr("scan_output_directions") or [0] * len(written)
    stacked = [
        torch.stack(values[:: -1 if back else 1], axis)
        for values, axis, back in zip(written, out_axes, out_backwards, strict=True)
    ]
    return *state, *stacked


@torch_op("SequenceMap", bodies=True)
def sequence_map(op: TorchNode, bodies: Bodies, sequence: list[Any], *others: Any) -> tuple[Any, ...]:
    """A body for every entry of a sequence."""
    results = [
        bodies["body"](entry, *(other[i] if isinstance(other, list) else other for other in others))
        for i, entry in enumerate(sequence)
    ]
    return tuple([result[i] for result in results] for i in range(len(op.wanted)))
