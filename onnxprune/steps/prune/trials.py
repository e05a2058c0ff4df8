"""What a cut of each group alone does to the outputs: made, fitted behind the group, and measured.

Scores say how wrong the layers come out that read the units. They do not know how much of that reaches the outputs:
errors in a recurrent state pile up, those in front of a softmax may vanish, some layers cannot be fitted at all. So a
quarter of each group is removed, the layers that read it are fitted to the original as recovery would, those behind
them stay as they are, and the harm to the outputs is measured on samples kept apart. Where scores say that a quarter
does next to nothing, more is removed: of harm that cannot be seen nothing follows. The damage that an allocation
predicts for the group is scaled to what was measured, see `AllocationProblem.damage`. benchmarks/damage.py holds it
against the damage that is measured after a whole recovery.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.analysis import cost
from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.groups import Analysis, Group
from onnxprune.analysis.layers import layers
from onnxprune.data.base import Data
from onnxprune.data.split import hold_out
from onnxprune.dims import atoms
from onnxprune.model.signature import ports_of
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.prune.allocation.base import AllocationProblem, weakest
from onnxprune.steps.prune.harm import harm_of
from onnxprune.steps.recover.base import METHODS
from onnxprune.steps.recover.layerwise import LayerwiseRecovery
from onnxprune.steps.recover.methods import batches_to_fit
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.recover.step import NONE, Recover
from onnxprune.steps.state import State
from onnxprune.support.progress import Counted

# How many units, the damage that is worth a measurement, and the most units that go for it.
SHARE = 0.25
_WORTH = 0.003
_MOST = 0.6
# The most samples that the harm is measured on, and about the most that layers are fitted to.
_SAMPLES = 128
_FITTED = 384
# Of more groups than this the largest are tried, of large networks as many as so many MACs allow, some two minutes of a
# processor: a trial runs the original and the cut over what it is fitted to, twice as much as what is measured, and the
# cut over that.
_GROUPS, _MACS, _RUNS = 64, 3e12, 5


def measure_trials(state: State, problem: AllocationProblem, context: Context) -> dict[str, tuple[int, float]]:
    """Per group id, how many units went in its trial and the harm that this did; see `harm_of`.

    Args:
        state: nothing was removed from it.
        problem: the groups to try, their scores and what these predict; the weakest units go.
        context: samples, devices and the recovery that follows.

    Raises ModelError where a cut cannot be run.
    """
    recover = next((step for step in context.following if isinstance(step, Recover)), None)
    if context.data is None or state.left or recover is None or len(problem.groups) < 2:
        return {}
    apart = hold_out(context.data, ports_of(state.original.model), most=_SAMPLES)
    original = Session(state.source, context.execution, optimized=True)
    macs = cost.before(state.original).macs
    most = min(_GROUPS, int(_MACS / (_RUNS * max(1, macs * apart.samples))))
    tried = sorted((group for group in problem.groups if group.units > 1), key=lambda group: -group.units)[:most]
    found = {}
    for number, group in enumerate(tried):
        context.progress(Counted(f"trying group {number + 1} of {len(tried)}: {group.id}", number, len(tried)))
        seen = int(np.searchsorted(problem.damage[group.id], _WORTH))
        count = max(1, int(SHARE * group.units), min(seen, int(_MOST * group.units)))
        cut = state.cut({group.atom: weakest(problem.scores[group.id], count)})
        model = _fitted(cut, group, recover.chosen(data=True), apart.fitting, context)
        found[group.id] = count, max(0.0, harm_of(original, model, apart.measuring, context.execution, _SAMPLES))
    return found


def _fitted(cut: State, group: Group, method: str, data: Data, context: Context) -> ir.Model:
    """A model that units of one group were removed from, with the layers fitted that read it."""
    make = METHODS[method].make if method != NONE else None
    if not (isinstance(make, type) and issubclass(make, LayerwiseRecovery)):
        return cut.model
    pruned = copy_analysis(cut.analysis)
    feeds, _ = batches_to_fit((batch.feed for batch in data.batches()), _FITTED)
    only = readers_of(cut.original, group)
    fit = make(
        Pairing(cut.original, pruned, cut.left),
        feeds,
        seed=context.seed,
        providers=context.execution,
        rounds=0,
        only=only,
    )
    fit(pruned.model)
    pruned.remove_dead()
    return pruned.model


def readers_of(analysis: Analysis, group: Group) -> set[str]:
    """The layers that multiply the units of a group with weights, by the value that their node makes."""
    found = set()
    for layer in layers(analysis, hidden=True, bodies=True):
        dims = [analysis.dims[layer.x][layer.form.axis]]
        if layer.form.hidden is not None:  # a cell that reads its own units of the step before
            dims += analysis.dims.get(layer.y, ())
        if any(group.atom in set(atoms(dim)) for dim in dims):
            found.add(layer.node.outputs[0].name or "")
    return found
