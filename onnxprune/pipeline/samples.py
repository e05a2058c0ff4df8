"""Which samples are for what: calibration, training, evaluation. What is evaluated on, nothing is fitted to.

given                     fitted to         trained on        evaluated on
data                      the rest          the rest          a share of data: every fifth sample, up to 256; of its own
                                                              where something is trained or a drop is measured
data, evaluation          data              data              evaluation
data, calibration         calibration       the rest          a share of data
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.data.base import NO_HINTS, Data, Hints
from onnxprune.data.carry import carried_states, in_sequence
from onnxprune.data.given import as_data
from onnxprune.data.options import DataOptions
from onnxprune.data.split import Split, hold_out
from onnxprune.errors import UsageError
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.recipe import Recipe
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.evaluate import EVERY, MOST
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.prune.targets import HARM
from onnxprune.steps.recover.step import Recover, keep_apart
from onnxprune.steps.train.decoding import decoded
from onnxprune.steps.train.samples import hold_apart
from onnxprune.steps.train.step import Train


def samples_of(
    data: Any,
    model: ir.Model,
    context: Context,
    sizes: Mapping[str, int] = {},
    hints: Hints | None = None,
    source: Path | None = None,
) -> Data | None:
    """Samples as they were given, checked against the inputs of the model; see `load_data`.

    Args:
        data: as it was given.
        model: what they are for.
        context: its seed.
        sizes: of dynamic axes, by name or `input[axis]`.
        hints: what made-up samples may know of the model; None: what its file says.
        source: the file of the model, which takes less memory to run.
    """
    if data is None or isinstance(data, Data):
        return data
    ports, outputs = ports_of(model), [value.name or "" for value in model.graph.outputs]
    states = carried_states(context.carry, ports, outputs)
    if isinstance(data, DataOptions):
        found = data.open(lambda: model, context.seed, sizes, hints, without=states)
    else:
        fed = [port for port in ports if port.name not in states]
        found = as_data(data, fed, seed=context.seed, sizes=sizes, hints=hints or NO_HINTS)
    if not states or found is None:
        return found
    original = Session(source if source is not None else model, context.execution, optimized=True)
    return in_sequence(found, original.run, ports, states)


@dataclass(frozen=True)
class Sources:
    """Samples as they were given, each as for `compress`; None where none were.

    Attributes:
        data: for everything that nothing else is given for.
        calibration: what criteria and recovery are fitted to.
        evaluation: what trainings and drops are measured on.
    """

    data: Any = None
    calibration: Any = None
    evaluation: Any = None

    def into(self, context: Context, recipe: Recipe, model: ir.Model, sizes: Mapping[str, int]) -> Context:
        """The context with its samples, parted as the recipe needs it; `sizes` as for `samples_of`.

        Raises UsageError for samples beside none to fit to, DataError for what does not fit the model.
        """
        data, calibration, evaluation = (
            samples_of(given, model, context, sizes) for given in (self.data, self.calibration, self.evaluation)
        )
        if data is None and (calibration is not None or evaluation is not None):
            raise UsageError("samples for calibration or evaluation go with data; give that too")
        if data is None:
            return context
        steps = list(recipe.every())
        trainings = [step for step in steps if isinstance(step, Train)]
        if trainings:
            data = decoded(data, context.jobs if context.jobs > 1 else 0)
        context = replace(context, data=data)
        if evaluation is not None:
            context = replace(context, apart=Split(data, evaluation))
        elif any(target.kind in HARM for step in steps if isinstance(step, Prune) for target in step.targets):
            recover = next((step for step in steps if isinstance(step, Recover)), None)
            context = keep_apart(context, recover, ports_of(model))
        elif trainings:
            context = _for_training(context, model, max(step.holdout for step in trainings))
        else:
            apart = hold_out(data, ports_of(model), EVERY, MOST)
            context = replace(context, data=apart.fitting, apart=apart)
        if calibration is None:
            return context
        return replace(context, data=calibration, training=context.data)


def _for_training(context: Context, model: ir.Model, share: float) -> Context:
    """A share of the samples apart, which no step of the recipe is fitted to."""
    assert context.data is not None
    fixed = any(isinstance(size, int) for port in ports_of(model) for size in port.shape[:1])
    fitting, measuring = hold_apart(context.data, share, fixed=fixed)
    if measuring is None:
        return context
    return replace(context, data=fitting, apart=Split(fitting, measuring))
