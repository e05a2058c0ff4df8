"""The step `train`: fine-tune the graph itself, beside the original, on labels, or both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError
from onnxprune.steps.base import Context, Step, step
from onnxprune.steps.train.options import TrainOptions
from onnxprune.support.extras import check_torch

if TYPE_CHECKING:
    from pathlib import Path

    from onnxprune.steps.state import State
    from onnxprune.steps.train.distil import Teacher
    from onnxprune.steps.train.setup import Zeros
    from onnxprune.steps.train.trained import Trained

# Of the losses of single updates, so many means are recorded.
_POINTS = 100


@step("train")
@dataclass(frozen=True)
class Train(TrainOptions, Step):
    """Train the model: fine-tune it on labels, distil it from the original, or both.

    Without labels it learns what the original answers. Every evaluation is on samples that are not trained on, and the
    weights at the start are a candidate for the best, so training never ends worse than it began.
    """

    @property
    def effort(self) -> float:
        """Every epoch takes about as long as a recovery, or longer."""
        return 10.0 * max(self.epochs, 1.0)

    def needs(self, context: Context) -> None:
        """Raises UsageError where there are no samples, MissingExtraError where there is no torch."""
        check_torch()
        if context.training is None and context.data is None:
            raise UsageError("train needs samples to train on: give --data, labels are not needed beside the original")

    def __call__(self, state: State, context: Context) -> State:
        """The same units with trained weights; byte for byte the same ones where nothing better was found.

        Raises UsageError for options that do not fit the model or its data, ModelError where torch cannot train it.
        """
        from onnxprune.analysis.copy import copy_analysis
        from onnxprune.steps.train.loop import train_model
        from onnxprune.steps.train.setup import Running

        data = context.training or context.data
        assert data is not None
        earlier = sum(record.step == Train.name for record in state.records)
        context.progress("preparing to train")
        trained = train_model(
            state.model,
            data,
            self,
            teacher=self._teacher(state),
            evaluation=context.apart.measuring if context.apart is not None and context.apart.apart else None,
            zeros=state.zeros,
            analysis=state.analysis,
            running=Running(
                loss=context.loss,
                metric=context.metric,
                device=context.device,
                seed=context.seed + earlier,  # rounds of a loop see other orders of the samples
                progress=context.progress,
                checkpoint=_place(context, earlier),
                every=context.save_every,
                resume=True,
            ),
        )
        analysis = copy_analysis(state.analysis)
        for name, value in trained.model.graph.initializers.items():
            analysis.model.graph.initializers[name].const_value = value.const_value
        atoms = {group.id: group.atom for group in analysis.groups}
        analysis.learned = {atoms[name]: scores for name, scores in trained.scores.items()}
        last = context.loop.number == context.loop.rounds
        notes = (*trained.notes, *_calibrated(state, context)) if last else ()
        after = replace(state.with_weights(analysis), zeros=_both(state.zeros, trained.zeros))
        return after.noted(self.record(_numbers(trained), notes))

    def _teacher(self, state: State) -> Teacher | None:
        """The original, where the model is not the original itself."""
        from onnxprune.steps.train.distil import teacher_of

        if self.distil == 0:
            return None
        if state.analysis is state.original:
            if self.distil is not None:
                raise UsageError("the model is the original itself, so there is nothing to distil: give --teacher")
            return None
        return teacher_of(state.original, state.left)


def _both(zeros: Zeros, found: Zeros) -> Zeros:
    """Zeros of before, and those that a training has made."""
    return {**zeros, **{name: mask & zeros.get(name, True) for name, mask in found.items()}}


def _calibrated(state: State, context: Context) -> Iterator[str]:
    """Says where criteria and recovery have seen the samples that are trained on."""
    if context.training is None and any(record.step in ("prune", "recover") for record in state.records):
        yield "units were chosen and recovered on the samples that are trained on; --calibration names others"


def _place(context: Context, earlier: int) -> Path | None:
    """The checkpoint of a training that comes after so many others."""
    if context.resume is None:
        return None
    try:
        context.resume.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"--resume {context.resume} is not a folder and cannot become one: {error.strerror}") from None
    return context.resume / f"training-{earlier + 1}.safetensors"


def _numbers(trained: Trained) -> dict[str, Any]:
    """The results of the training, as plain data; nothing in it depends on time."""
    found = trained.losses
    size = -(-len(found) // _POINTS) or 1
    curve = []
    for at in range(0, len(found), size):
        part = found[at : at + size]
        curve.append({"update": part[-1][0], "rate": part[-1][1], "loss": sum(loss for *_, loss in part) / len(part)})
    return {
        "metric": trained.metric,
        "start": _evaluated(trained.start),
        "best": _evaluated(trained.best),
        "history": [_evaluated(each) for each in trained.history],
        "losses": curve,
        "updates": trained.steps,
        "samples": trained.samples,
        "weights": trained.trained,
    }


def _evaluated(found: Any) -> dict[str, Any]:
    plain = asdict(found)
    return {"update": plain.pop("step"), **plain}
