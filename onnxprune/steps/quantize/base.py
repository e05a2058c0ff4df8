"""What a model can be quantized to: each a function in a file of `types`, which registers itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.groups import Analysis
from onnxprune.data.base import Data
from onnxprune.errors import UsageError
from onnxprune.steps.quantize.fit import LayerNoise
from onnxprune.steps.quantize.prepare import join_biases, prepared
from onnxprune.steps.quantize.processor import Processor, find_processor
from onnxprune.support.messages import did_you_mean
from onnxprune.support.registry import Registry, summary

if TYPE_CHECKING:
    from onnxprune.steps.base import Context
    from onnxprune.steps.quantize.step import Quantize
    from onnxprune.steps.state import State


@dataclass(frozen=True)
class QuantizeJob:
    """A model that is to be quantized.

    Attributes:
        state: its state, which stays as it is.
        context: samples and devices.
        options: how.
        noisy: layers that stay in float for what they would cost, by name, and why.
        equalized: each channel is scaled so that its weights have the same range in both of its layers.
    """

    state: State
    context: Context
    options: Quantize
    noisy: Mapping[str, str] = field(default_factory=dict)
    equalized: bool = False

    @cached_property
    def processor(self) -> Processor:
        """What the result will run on."""
        return find_processor(self.context.execution)

    @property
    def weight_bits(self) -> int:
        """Of integer weights that meet integer activations: 7 of 8 where sums of products would saturate."""
        bits = self.options.weight_bits
        return min(bits, 7) if self.processor.reduced else bits

    @property
    def fits(self) -> bool:
        """Are weights fitted before they are rounded? On made-up inputs they are not: those say too little."""
        return self.options.rounding == "fitted" and self.context.data is not None

    @cached_property
    def float_model(self) -> Analysis:
        """The model with its normalizations folded into weights."""
        current = self.state.current.rebuilt(prepared(self.state.model, equalize=self.equalized))
        joined = copy_analysis(current.analysis)
        return current.rebuilt(joined.model).analysis if join_biases(joined) else current.analysis

    @property
    def samples(self) -> Data | None:
        """Calibration data, made up where there is none."""
        return self.context.samples

    def left_out(self, names: Sequence[str]) -> dict[str, str]:
        """Names of layers that were asked to stay in float, and the pattern.

        Raises UsageError for one that fits none.
        """
        found = {name: why for name, why in self.noisy.items() if name in names}
        for pattern in self.options.keep_float:
            fits = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
            if not fits:
                raise UsageError(f"no layer of this model is called '{pattern}'{did_you_mean(pattern, names)}")
            found.update(dict.fromkeys(fits, f"--keep-float {pattern}"))
        return found


@dataclass(frozen=True)
class Quantized:
    """A model that was quantized.

    Attributes:
        model: the result.
        layers: what became of each layer, in topological order.
        notes: what a person should know.
        choices: what was chosen, by name; plain data.
    """

    model: ir.Model
    layers: tuple[LayerNoise, ...] = ()
    notes: tuple[str, ...] = ()
    choices: Mapping[str, Any] | None = None


Make = Callable[[QuantizeJob], Quantized]


@dataclass(frozen=True)
class QuantizedType:
    """What a model can be quantized to.

    Attributes:
        name: what the command line calls it.
        make: quantizes.
        calibrated: it needs inputs, made up where there are none.
        trained: a training goes on through its rounding, see `train.integers`; so that comes behind it.
    """

    name: str
    make: Make
    calibrated: bool = False
    trained: bool = False

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return summary(self.make)


TYPES: Registry[str, QuantizedType] = Registry("type", "onnxprune.steps.quantize.types", "onnxprune.types")


def quantized_type(name: str, *, calibrated: bool = False, trained: bool = False) -> Callable[[Make], Make]:
    """Decorator: make a type that a model can be quantized to known by a name. Raises ValueError when it is taken."""

    def add(make: Make) -> Make:
        TYPES.register(name)(QuantizedType(name, make, calibrated, trained))
        return make

    return add
