"""The parts that an operator is written with: the view of its node, and the table it goes into.

    @written("LeakyRelu")
    def leaky_relu(op: Call) -> str:
        return f"F.leaky_relu({op.tensor(0)}, {op.attr('alpha', 0.01)})"

A function returns the Python expression of the output, a list of them for several outputs, or `Sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.ops.base import Key, attribute, keys
from onnxprune.support.registry import Registry

if TYPE_CHECKING:
    from onnxprune.conversion.to_torch.writer import Writer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """Whole numbers that Python computes while the module runs: sizes, positions, lists of them.

    Attributes:
        entries: an expression per number: `12`, `x.shape[0]`, `x.shape[0] // 2`.
        scalar: it is one number, not a list of one.
    """

    entries: tuple[str, ...]
    scalar: bool = False


Written = str | Sizes | list[str]
DTYPES = {
    ir.DataType.FLOAT: "torch.float32",
    ir.DataType.DOUBLE: "torch.float64",
    ir.DataType.FLOAT16: "torch.float16",
    ir.DataType.BFLOAT16: "torch.bfloat16",
    ir.DataType.INT64: "torch.int64",
    ir.DataType.INT32: "torch.int32",
    ir.DataType.INT16: "torch.int16",
    ir.DataType.INT8: "torch.int8",
    ir.DataType.UINT8: "torch.uint8",
    ir.DataType.BOOL: "torch.bool",
}


@dataclass(frozen=True)
class Call:
    """A node that is being written."""

    node: ir.Node
    writer: Writer

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as plain Python."""
        return attribute(self.node, name, default)

    @property
    def version(self) -> int:
        """Of the operator set that the node belongs to."""
        return self.writer.opset

    def has(self, slot: int) -> bool:
        """Is there such an input?"""
        return slot < len(self.node.inputs) and self.node.inputs[slot] is not None

    def wants(self, slot: int) -> bool:
        """Does anyone read output `slot`?"""
        outputs = self.node.outputs
        return slot < len(outputs) and bool(outputs[slot].uses() or outputs[slot].is_graph_output())

    def _input(self, slot: int) -> ir.Value:
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        if value is None:
            raise self.refuse(f"input {slot} is left out")
        return value

    def constant(self, slot: int) -> Array | None:
        """The content of an input that is the same in every run; None for others, and where it is left out."""
        return self.writer.constant(self._input(slot)) if self.has(slot) else None

    def sizes(self, slot: int) -> Sizes | None:
        """An input as whole numbers that Python knows; None for tensors, and where it is left out."""
        return self.writer.sizes(self._input(slot)) if self.has(slot) else None

    def numbers(self, slot: int) -> list[str]:
        """The same as a list. Raises ModelError for an input that only a tensor holds."""
        found = self.sizes(slot)
        if found is None:
            raise self.refuse(f"input {slot} is computed from data")
        return list(found.entries)

    def tensor(self, slot: int) -> str:
        """An input as the name of a tensor; constants become parameters or buffers of the module."""
        return self.writer.tensor(self._input(slot))

    def operand(self, slot: int, *others: int) -> str:
        """The same, or a number where it is one and the other operand has the axes of the result."""
        value = self._input(slot)
        rank = max((self.rank(other) or 0 for other in others), default=0)
        number = self.writer.number(value, rank) if others else None
        return self.writer.tensor(value) if number is None else number

    def rank(self, slot: int) -> int | None:
        """The number of axes of an input, None where it is unknown."""
        shape = self.writer.shapes.shapes.get(self._input(slot).name or "")
        return None if shape is None else len(shape)

    def known_rank(self, slot: int) -> int:
        """The same. Raises ModelError where it is unknown."""
        found = self.rank(slot)
        if found is None:
            raise self.refuse("the number of axes of its input is unknown")
        return found

    def size(self, slot: int, axis: int) -> str:
        """The size of an axis of an input: a number where it is static."""
        return self.writer.size(self._input(slot), axis % self.known_rank(slot))

    def axis(self, default: int | None = 0, slot: int = 0) -> int:
        """Attribute `axis`, counted from the front where the number of axes is known."""
        stated = self.attr("axis", default)
        rank = self.rank(slot)
        return int(stated % rank if rank else stated)

    def is_input(self, slot: int) -> bool:
        """Is it an input of the model?"""
        return self._input(slot).is_graph_input()

    def dtype(self, slot: int = 0) -> ir.DataType | None:
        """The element type of an input."""
        return self.writer.dtype(self._input(slot))

    def is_float(self, slot: int = 0) -> bool:
        """Does an input hold floats? Those of unknown type count as such."""
        dtype = self.dtype(slot)
        return dtype is None or dtype.is_floating_point()

    def module(self, kind: str, arguments: str, parameters: dict[str, Array]) -> str:
        """`self.name` of a module of torch.nn with these weights; nodes of the same weights share one."""
        return self.writer.module(self.node, kind, arguments, parameters)

    def refuse(self, why: str) -> ModelError:
        """The error for what cannot be written."""
        return ModelError(f"{self.node.op_type} '{self.node.name}' cannot be written in torch: {why}")


TORCH_CODE: Registry[Key, Callable[[Call], Written]] = Registry(
    "operator that can be written in torch", "onnxprune.conversion.to_torch.ops", "onnxprune.torch_code"
)


def written(*names: str, domain: str = "") -> Callable[[Callable[[Call], Written]], Callable[[Call], Written]]:
    """Decorator: the function writes these operators. Raises ValueError when one is there already."""
    return TORCH_CODE.register(*keys(names, domain))


def listed(entries: Sequence[object]) -> str:
    """`2, 3`."""
    return ", ".join(map(str, entries))


def tupled(entries: Sequence[object]) -> str:
    """`(2, 3)`, or the number where all are the same: how torch takes sizes of windows."""
    return str(entries[0]) if len(set(entries)) == 1 else f"({listed(entries)})"


def python_number(array: Array) -> str:
    """A number as Python writes it."""
    value = array.astype(np.float64).item() if array.dtype.kind not in "iub" else array.item()
    if isinstance(value, float) and not np.isfinite(value):
        return f'float("{value}")'
    return repr(value).replace("e+", "e")
