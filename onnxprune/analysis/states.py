"""Inputs that look like states: what a model hands out in one call and takes in again in the next."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.analysis.copy import copy_model
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import analyze_model
from onnxprune.dims import atoms
from onnxprune.model.weights import is_weight

# States that hold less than this share of all parameters are not worth a word.
_SHARE = 0.2
# Caches of keys and values come by the dozen.
_SHOWN = 3


def states_that_hold(analysis: Analysis) -> dict[str, str]:
    """States whose shapes hold much of a model, with the output that each comes from; units could go but for them.

    An output of the same type and shape is taken for it; of several, in their order. What comes first is data: a frame
    that goes in and comes out cleaner has one shape, too.
    """
    graph = analysis.model.graph
    inputs = [value for value in graph.inputs if value.name not in graph.initializers]
    found: dict[str, str] = {}
    for value in inputs[1:]:
        alike = [other for other in graph.outputs[1:] if _alike(value, other) and other.name not in found.values()]
        if alike:
            found[value.name or ""] = alike[0].name or ""
    if not found or not _hold_much(analysis, found):
        return {}
    freed = analyze_model(copy_model(analysis.model), open_ends={*found, *found.values()})
    values = {value.name: value for value in inputs}
    return {name: other for name, other in found.items() if removable_axes(freed, values[name])}


def removable_axes(analysis: Analysis, value: ir.Value) -> list[int]:
    """The axes of a value whose units could go."""
    removable = {group.atom for group in analysis.groups}
    dims = analysis.dims.get(value.name or "", [])
    return [axis for axis, dim in enumerate(dims) if any(atom in removable for atom in atoms(dim))]


def offer_of(states: dict[str, str]) -> str:
    """How to let their units go, for messages."""
    shown = dict(list(states.items())[:_SHOWN])
    more = f" and {len(states) - _SHOWN} more" if len(states) > _SHOWN else ""
    options = " ".join(f"--resize-states {name}={other}" for name, other in shown.items()) + more
    names = ", ".join(f"'{name}'" for name in shown) + more
    return (
        f"the shape of {names} holds units that could go; where that is a state, handed from call to call, let them go "
        f"with {options}: the interface stays, and what went is zero in it"
    )


def _alike(one: ir.Value, other: ir.Value) -> bool:
    """Of one type and rank, and of the same size where both are static."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape) or one.dtype != other.dtype:
        return False
    sizes = [size for size in zip(one.shape, other.shape, strict=True) if all(isinstance(each, int) for each in size)]
    return len(one.shape) > 1 and any(size[0] != 1 for size in sizes) and all(size[0] == size[1] for size in sizes)


def _hold_much(analysis: Analysis, states: dict[str, str]) -> bool:
    weights = analysis.model.graph.initializers
    sizes = {
        name: value.const_value.size
        for name, value in weights.items()
        if is_weight(value) and value.const_value is not None
    }
    ends = {*states, *states.values()}
    held = {frozen.tensor for frozen in analysis.frozen if not frozen.reason.node and frozen.reason.tensor in ends}
    return sum(sizes.get(name, 0) for name in held) > _SHARE * sum(sizes.values())
