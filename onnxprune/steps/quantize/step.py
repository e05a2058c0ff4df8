"""The step `quantize`: weights and activations of fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.steps.base import Context, Step, step
from onnxprune.support.options import option

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxprune.dims import Mask
    from onnxprune.steps.state import State

_SECTION = "Quantization"
AUTO = "auto"
ON_MADE_UP = "quantized on made-up inputs: with --data, a few hundred real samples, it does much better"


def _types() -> list[str]:
    from onnxprune.steps.quantize.base import TYPES

    return [AUTO, *TYPES]


def _ranges() -> list[str]:
    from onnxprune.steps.quantize.ranges.base import RANGES

    return [AUTO, *RANGES]


@step("quantize")
@dataclass(frozen=True)
class Quantize(Step):
    """Weights and activations of fewer bits, so that the file is smaller and runs faster.

    What a type of integers is fast on is known of the processor that this runs on. Layers are rounded so that what they
    give changes little, one after the other, on samples without labels.
    """

    type: str = option(
        AUTO,
        "What to quantize to, see: onnxprune list types; auto is int8, or weights of 16 bits where that is slower.",
        choices=_types,
        metavar="TYPE",
        flag="quantize",
        called="type",
    )
    weight_bits: int = option(
        8, "Bits of integer weights; fewer are stored in 8 and compress better.", low=2, high=8, section=_SECTION
    )
    ranges: str = option(
        AUTO,
        "How to choose what part of its range an activation's integers cover, see: onnxprune list ranges; auto tries "
        "all and takes what its layers give least error with.",
        choices=_ranges,
        metavar="NAME",
        section=_SECTION,
    )
    rounding: str = option(
        "fitted",
        "fitted: weights are fitted to what the float layer gives, then rounded together; nearest: each for itself.",
        choices=lambda: ("fitted", "nearest"),
        metavar="NAME",
        section=_SECTION,
    )
    keep_float: tuple[str, ...] = option(
        (), "Layers that stay in float, by name or pattern.", metavar="LAYER", section=_SECTION
    )

    equalize: str = option(
        AUTO,
        "Scale each channel so that its weights have the same range in both of its layers (cross-layer equalization): "
        "auto tries it, always or never.",
        choices=lambda: (AUTO, "always", "never"),
        metavar="WHEN",
        section=_SECTION,
    )
    allowed_drop: float | None = option(
        None,
        "The most that the metric may be worse than in float, like 0.002; the noisiest layers stay in float for it.",
        low=0,
        metavar="NUMBER",
        section=_SECTION,
    )
    allowed_size: float | None = option(
        None,
        "The most that the file may be, as a share of the float one; the noisiest layers stay in float as far as it "
        "allows.",
        low=0,
        metavar="SHARE",
        section=_SECTION,
    )
    allowed_latency: float | None = option(
        None,
        "The longest that a run may take, as a share of the float model's time, measured in turns; the noisiest layers "
        "stay in float as far as it allows.",
        low=0,
        metavar="SHARE",
        section=_SECTION,
    )

    @classmethod
    def sample(cls) -> tuple[Step, ...]:
        """For the contract tests."""
        return (cls("int8"),)

    @property
    def on_samples(self) -> bool:
        """Does it need samples, so that inputs are to be made up where there are none?"""
        from onnxprune.steps.quantize.base import TYPES

        return self.type == AUTO or TYPES[self.type].calibrated

    @property
    def before_training(self) -> bool:
        """Does a training come behind it, through its rounding?"""
        from onnxprune.steps.quantize.base import TYPES

        return self.type == AUTO or TYPES[self.type].trained

    def __call__(self, state: State, context: Context) -> State:
        """The same units in another type; what became of each layer is in the record.

        Raises UsageError where the model has nothing to quantize, TargetError where an allowed drop cannot be kept,
        ModelError where ONNX Runtime refuses the result.
        """
        from onnxprune.runtime.session import Session
        from onnxprune.steps.quantize.base import TYPES, QuantizeJob
        from onnxprune.steps.quantize.choose import quantize_best, quantize_chosen

        context.progress("quantizing")
        job = QuantizeJob(state, context, self)
        chosen, found = quantize_best(job) if self.type == AUTO else (self.type, quantize_chosen(job, self.type))
        Session(found.model, context.execution, optimized=True)  # as deployed: operators on integers are made then
        made_up = context.data is None and TYPES[chosen].calibrated
        numbers = {"type": chosen, "layers": [asdict(each) for each in found.layers], **(found.choices or {})}
        notes = (*found.notes, *([ON_MADE_UP] if made_up else []))
        after = replace(state, current=state.current.rebuilt(found.model), zeros=_carried(state.zeros, found.model))
        return after.noted(self.record(numbers, notes))


def _carried(zeros: Mapping[str, Mask], model: ir.Model) -> dict[str, Mask]:
    """The masks, also under the names of the integers that weights have become, where these have the same shape."""
    found = dict(zeros)
    for name, mask in zeros.items():
        value = model.graph.initializers.get(f"{name}/integers")
        if value is not None and value.shape is not None and value.shape.numpy() == mask.shape:
            found[f"{name}/integers"] = mask
    return found
