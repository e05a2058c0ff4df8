"""The step `sparsify`: set the weights to zero that matter least."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.steps.base import Context, Step, step
from onnxprune.support.options import option

if TYPE_CHECKING:
    from onnxprune.steps.sparsify.base import WeightCriterion
    from onnxprune.steps.state import State

SPARSITY = 0.5
UPDATES = ("auto", "weights", "biases", "none")


def _criteria() -> list[str]:
    from onnxprune.steps.sparsify.base import WEIGHT_CRITERIA

    return list(WEIGHT_CRITERIA)


def _allocations() -> list[str]:
    from onnxprune.steps.sparsify.base import ALLOCATIONS

    return list(ALLOCATIONS)


@step("sparsify")
@dataclass(frozen=True)
class Sparsify(Step):
    """Set the weights to zero that matter least; shapes and operators stay, and the zeros stay from then on.

    Weights stay in plain tensors: the file becomes smaller when it is zipped, not faster by itself. With samples the
    weights that stay are fitted to what each layer gave before, layer after layer, without labels.
    """

    sparsity: float | None = option(
        None,
        "Share of the weights that become zero; 0.5 by default, and 1 - N/M for a pattern N:M.",
        low=0,
        high=1,
        below=True,
        metavar="SHARE",
        search=(0.3, 0.95),
    )
    pattern: str = option(
        "none",
        "Where zeros may be: none (anywhere), row (as many in every output), channel (whole outputs), N:M like 2:4, "
        "or blocks of outputs x input channels like 1x4.",
        metavar="PATTERN",
    )
    weight_criterion: str | None = option(
        None,
        "How weights are scored, see: onnxprune list weight-criteria; obs with data, lamp without.",
        choices=_criteria,
        metavar="NAME",
        called="weight criterion",
    )
    sparsity_allocation: str | None = option(
        None,
        "How sparsity is shared out over layers, see: onnxprune list sparsity-allocations; global for criteria whose "
        "scores compare across layers, else uniform.",
        choices=_allocations,
        metavar="NAME",
    )
    update: str = option(
        "auto",
        "What is fitted on samples to what the layers gave before: weights that stay, biases, or none; auto is weights "
        "with obs, else biases, and none without data.",
        choices=lambda: UPDATES,
        metavar="NAME",
    )
    shuffle: bool = option(
        False,
        "Shuffle which weights go inside each layer: the control that a criterion has to beat.",
    )
    sparsity_drop: float | None = option(
        None,
        "The most that the metric may be worse than before, like 0.01: as sparse as that allows, up to --sparsity.",
        low=0,
        metavar="NUMBER",
    )
    sparsify_only: tuple[str, ...] = option(
        (), "Layers to sparsify, by name or pattern; all by default.", metavar="LAYER"
    )
    keep_dense: tuple[str, ...] = option((), "Layers that stay dense, by name or pattern.", metavar="LAYER")

    @classmethod
    def sample(cls) -> tuple[Step, ...]:
        """For the contract tests."""
        return (cls(sparsity=0.5, weight_criterion="magnitude"),)

    def check(self) -> None:
        """Raises UsageError for a pattern that is none, or a sparsity that it does not allow."""
        from onnxprune.analysis.sparse_patterns import parse_pattern

        fixed = parse_pattern(self.pattern).fixed
        for name in ("sparsity", "sparsity_allocation", "sparsity_drop") if fixed is not None else ():
            if getattr(self, name) is not None:
                flag = name.replace("_", "-")
                raise UsageError(f"--pattern {self.pattern} makes {fixed:.0%} zero in every layer; drop --{flag}")
        if self.shuffle and self.pattern != "none":
            raise UsageError("--shuffle puts zeros anywhere in a layer; drop --pattern")

    @property
    def effort(self) -> float:
        """A pass over the samples for every layer."""
        return 8.0 if self.sparsity_drop is None else 40.0

    @property
    def on_samples(self) -> bool:
        """Was a criterion asked for that looks at samples, so that inputs are to be made up where there are none?"""
        from onnxprune.steps.sparsify.base import WEIGHT_CRITERIA

        return self.weight_criterion is not None and WEIGHT_CRITERIA[self.weight_criterion].on_data

    def scored_by(self, *, data: bool) -> WeightCriterion:
        """The criterion, with or without data at hand."""
        from onnxprune.steps.sparsify.base import WEIGHT_CRITERIA

        return WEIGHT_CRITERIA[self.weight_criterion or ("obs" if data else "lamp")]

    def __call__(self, state: State, context: Context) -> State:
        """The same units with zeros; what became of each layer is in the record.

        Raises UsageError where there is nothing to sparsify or samples are needed, TargetError where an allowed drop
        cannot be kept, ModelError where a model cannot be run.
        """
        from onnxprune.steps.sparsify.run import sparsify_state

        context.progress("sparsifying")
        found = sparsify_state(state, self, context)
        made = replace(state.with_weights(found.analysis), zeros=found.zeros, recovered=None)
        return made.noted(self.record(found.numbers, found.notes))
