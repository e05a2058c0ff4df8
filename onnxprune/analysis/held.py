"""The reasons why weights keep their size where nothing can be pruned."""

from __future__ import annotations

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.states import offer_of, states_that_hold
from onnxprune.dims import atoms
from onnxprune.model.weights import is_weight


def nothing_to_prune(analysis: Analysis, name: str) -> str:
    """Why no group is left to take units from, and what to do."""
    if analysis.groups:
        return f"{name}: all {len(analysis.groups)} groups are excluded by --only / --skip; loosen them"
    if not any(is_weight(value) for value in analysis.model.graph.initializers.values()):
        return f"{name}: nothing can be pruned, there are no weights of layers in this file"
    states = states_that_hold(analysis)
    if states:
        return f"{name}: nothing can be pruned, every dimension is frozen: {offer_of(states)}"
    held = _held_by(analysis)
    tied = None if held else _tied(analysis)
    if tied:
        return (
            f"{name}: nothing can be pruned: the graph ties the units of '{tied}' to each other, so one goes with all; "
            f"see: onnxprune inspect {name}"
        )
    if not held:
        return (
            f"{name}: nothing can be pruned, every dimension is frozen: no weight has an axis that is not one of an "
            f"input or output of the model, which keeps its shape; see: onnxprune inspect {name}"
        )
    reason, parameters = max(held.items(), key=lambda each: (each[1], each[0]))
    return (
        f"{name}: nothing can be pruned, every dimension is frozen; most weights ({parameters:,} parameters) are held "
        f"because of: {reason}; see all reasons with: onnxprune inspect {name}"
    )


def _held_by(analysis: Analysis) -> dict[str, int]:
    """Per reason that names an operator, how many parameters are in weights that it holds."""
    weights = analysis.model.graph.initializers
    held: dict[str, dict[str, int]] = {}
    for frozen in analysis.frozen:
        value = weights.get(frozen.tensor)
        if frozen.reason.node and value is not None and is_weight(value) and value.const_value is not None:
            held.setdefault(str(frozen.reason), {})[frozen.tensor] = value.const_value.size
    return {reason: sum(sizes.values()) for reason, sizes in held.items()}


def _tied(analysis: Analysis) -> str | None:
    """A weight whose units are free but all one, like those that are added to themselves in another order."""
    weights = analysis.model.graph.initializers
    for name, value in weights.items():
        for dim in analysis.dims.get(name, []) if is_weight(value) else ():
            if dim.size > 1 and any(atom.reason is None and atom.size == 1 for atom in atoms(dim)):
                return name
    return None
