"""The file that a cut ends as, where a quantization follows: targets of size and time speak of that.

A cut that is tried is quantized as quickly as that goes: ranges from a few samples, weights rounded to nearest. Bytes
and time do not depend on how well integers are chosen, only on where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import onnx_ir as ir

from onnxprune.data.base import Data
from onnxprune.errors import UsageError
from onnxprune.model.file import estimated_bytes
from onnxprune.steps.base import Context
from onnxprune.steps.clean import Clean
from onnxprune.steps.quantize.step import AUTO, Quantize
from onnxprune.steps.state import State
from onnxprune.support.progress import silent

_BATCHES = 1
# How a weight is called in the file, behind its name: see `quantize.insert`, `quantize.packed`, `quantize.types.half`.
_STORED = ("integers", "packed", "float16", "bfloat16")


def quantization(context: Context) -> Quantize | None:
    """The quantization that follows in the recipe, inside of a loop or behind it."""
    return next((each for each in (*context.following, *context.beyond) if isinstance(each, Quantize)), None)


@dataclass
class Shipped:
    """What the steps that follow make of a cut.

    Attributes:
        quantize: the quantization that follows; its quick form is run here.
        context: samples, of which a few are seen.
    """

    quantize: Quantize
    context: Context

    @staticmethod
    def of(context: Context) -> Shipped | None:
        """None where the file stays as it is."""
        found = quantization(context)
        return None if found is None else Shipped(found, context)

    @property
    def type(self) -> str:
        """What the file is quantized to; integers, where that is still to be found out."""
        return "int8" if self.quantize.type == AUTO else self.quantize.type

    def model(self, state: State) -> ir.Model:
        """The model of a state as it ends; the same where there is nothing to quantize."""
        quick = replace(self.quantize, type=self.type, rounding="nearest", ranges="minmax", equalize="never")
        quick = replace(quick, allowed_drop=None, allowed_size=None, allowed_latency=None)
        try:
            return Clean()(quick(replace(state, records=()), self._quickly), self._quickly).model
        except UsageError:
            return state.model

    def ends(self, state: State) -> Sequence[ir.Model]:
        """The models that a state may end as: `auto` leaves it in float where integers are slower."""
        made = self.model(state)
        return [made, state.model] if self.quantize.type == AUTO else [made]

    @cached_property
    def _quickly(self) -> Context:
        """A few samples, and nothing said."""
        context = self.context
        data, made_up = _few(context.data), _few(context.made_up)
        return replace(context, progress=silent, apart=None, data=data, made_up=made_up)

    def sizes(self, state: State) -> StoredSizes:
        """The bytes that the weights of a model end as."""
        made = self.model(state)
        bits = {}
        for name, value in state.model.graph.initializers.items():
            if value.const_value is not None and value.const_value.size:
                bits[name] = round(8 * _bytes(made, name) / value.const_value.size)
        return StoredSizes(estimated_bytes(made), bits, self.type)


@dataclass(frozen=True)
class StoredSizes:
    """What a model that is not cut comes to.

    Attributes:
        whole: bytes of the file.
        bits: of each entry of a weight, by its name; 0: it is part of another.
        type: what it is quantized to.
    """

    whole: int
    bits: Mapping[str, int]
    type: str


def _bytes(model: ir.Model, name: str) -> int:
    """Of a weight as it is stored in the file, without its scales."""
    names = (name, *(f"{name}/{each}" for each in _STORED))
    tensors = [model.graph.initializers[each].const_value for each in names if each in model.graph.initializers]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _few(data: Data | None) -> Data | None:
    return None if data is None else replace(data, start=lambda: islice(data.batches(), _BATCHES), part=None)
