"""The parts that an operator is written with: the view of its node, the table it goes into, the element types.

An operator is a function of its node and its inputs, tensors or None where left out; it returns its output, or a tuple
of them:

    @torch_op("LeakyRelu")
    def leaky_relu(op, x):
        return F.leaky_relu(x, op.attr("alpha", 0.01))

    @torch_op("Expand", numbers=(1,))     # input 1 comes as Python numbers: sizes, axes, scales
    def expand(op, x, shape): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.ops.base import Key, keys
from onnxprune.support.registry import Registry, summary

Function = Callable[..., Any]
MICROSOFT = "com.microsoft"
_NEWEST = 24  # what the fused operators were made from

# Types that torch cannot compute with are computed in a wider one: unsigned integers beyond a byte in int64 (from 2^63
# on they wrap), sub-byte integers in bytes, 4-bit floats in float32.
TORCH_TYPES: dict[int, torch.dtype] = {
    ir.DataType.FLOAT.value: torch.float32,
    ir.DataType.DOUBLE.value: torch.float64,
    ir.DataType.FLOAT16.value: torch.float16,
    ir.DataType.BFLOAT16.value: torch.bfloat16,
    ir.DataType.FLOAT8E4M3FN.value: torch.float8_e4m3fn,
    ir.DataType.FLOAT8E4M3FNUZ.value: torch.float8_e4m3fnuz,
    ir.DataType.FLOAT8E5M2.value: torch.float8_e5m2,
    ir.DataType.FLOAT8E5M2FNUZ.value: torch.float8_e5m2fnuz,
    ir.DataType.FLOAT8E8M0.value: torch.float8_e8m0fnu,
    ir.DataType.FLOAT4E2M1.value: torch.float32,
    ir.DataType.COMPLEX64.value: torch.complex64,
    ir.DataType.COMPLEX128.value: torch.complex128,
    ir.DataType.BOOL.value: torch.bool,
    ir.DataType.INT8.value: torch.int8,
    ir.DataType.INT16.value: torch.int16,
    ir.DataType.INT32.value: torch.int32,
    ir.DataType.INT64.value: torch.int64,
    ir.DataType.UINT8.value: torch.uint8,
    ir.DataType.UINT16.value: torch.int64,
    ir.DataType.UINT32.value: torch.int64,
    ir.DataType.UINT64.value: torch.int64,
    ir.DataType.INT4.value: torch.int8,
    ir.DataType.UINT4.value: torch.uint8,
    ir.DataType.INT2.value: torch.int8,
    ir.DataType.UINT2.value: torch.uint8,
}
_WIDENED: dict[str, dict[torch.dtype, torch.dtype]] = {
    "stored": {},
    "float32": dict.fromkeys((torch.float16, torch.bfloat16), torch.float32),
    "float64": dict.fromkeys((torch.float16, torch.bfloat16, torch.float32), torch.float64),
}
PRECISIONS = tuple(_WIDENED)


@dataclass
class Settings:
    """Facts that hold for all operators of a model.

    Attributes:
        precision: what is computed in.
        training: BatchNormalization uses the statistics of the batch.
        across: adds a tensor up over all processes that train together, differentiably; None where there is one.
    """

    precision: str = "float32"
    training: bool = False
    across: Callable[[Tensor], Tensor] | None = None

    def widened(self, dtype: torch.dtype) -> torch.dtype:
        """The type that values of `dtype` are computed in."""
        return _WIDENED[self.precision].get(dtype, dtype)

    def dtype(self, code: int) -> torch.dtype:
        """The torch type for an ONNX element type. Raises ModelError for strings and types unknown to torch."""
        if code not in TORCH_TYPES:
            raise ModelError(f"torch cannot compute with values of type {ir.DataType(code).name}")
        return self.widened(TORCH_TYPES[code])

    def tensor(self, stored: ir.TensorProtocol) -> Tensor:
        """A copy of an ONNX tensor. Raises ModelError for strings."""
        dtype = self.dtype(stored.dtype.value)
        array = stored.numpy()
        if array.dtype.kind == "V" or array.dtype.name not in _NUMPY_TYPES:  # the types of ml_dtypes
            array = array.astype(np.float32)
        elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        return torch.from_numpy(np.array(array, copy=True)).to(dtype)


_NUMPY_TYPES = {np.dtype(code).name for code in "?bBhHiIlLqQefdFD"}


@dataclass(frozen=True)
class TorchNode:
    """The view of a node that its function gets.

    Attributes:
        name: the node's name, for messages.
        op_type: the operator.
        version: of the operator set it belongs to.
        attributes: by name, in plain Python; tensors as torch tensors.
        wanted: per output: does anyone read it?
        types: of the inputs, as ONNX element types; None where the file does not say.
        shared: positions of the inputs that other nodes read too.
        settings: of the model.
    """

    name: str
    op_type: str
    version: int
    attributes: Mapping[str, Any]
    wanted: tuple[bool, ...]
    types: tuple[int | None, ...] = ()
    shared: frozenset[int] = frozenset()
    settings: Settings = field(default_factory=Settings)

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as plain Python."""
        return self.attributes.get(name, default)

    def dtype(self, code: int) -> torch.dtype:
        """The torch type for an ONNX element type, in the model's precision."""
        return self.settings.dtype(code)

    def type_of(self, index: int) -> int | None:
        """The ONNX element type of an input, None where the file does not say."""
        return self.types[index] if index < len(self.types) else None

    def wants(self, index: int) -> bool:
        """Does anyone read output `index`?"""
        return index < len(self.wanted) and self.wanted[index]

    def refuse(self, why: str) -> ModelError:
        """The error for what this operator cannot do."""
        return ModelError(f"torch cannot run {self.op_type} '{self.name}': {why}")


@dataclass(frozen=True)
class TorchOperator:
    """An operator in the table.

    Attributes:
        function: `(op, *inputs)`; with `bodies` it is `(op, bodies, *inputs)`, see control_flow.
        numbers: the inputs that come as Python numbers and lists of them.
        stored: the inputs that come so where the file holds them, and as tensors where they are computed.
        bodies: does it run subgraphs?
        random: does it draw, so that it must not be computed once and for all?
        data_sized: does the shape of an output depend on the content of an input that is not a number?
    """

    function: Function
    numbers: frozenset[int] = frozenset()
    stored: frozenset[int] = frozenset()
    bodies: bool = False
    random: bool = False
    data_sized: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return summary(self.function)


TABLE: Registry[Key, TorchOperator] = Registry("torch operator", __package__, "onnxprune.runtime.torch_ops")


def torch_op(
    *names: str,
    domain: str = "",
    numbers: Sequence[int] = (),
    stored: Sequence[int] = (),
    bodies: bool = False,
    random: bool = False,
    data_sized: bool = False,
) -> Callable[[Function], Function]:
    """Decorator: the function computes these operators; see Entry. Raises ValueError when one is there already."""

    def add(function: Function) -> Function:
        entry = TorchOperator(function, frozenset(numbers), frozenset(stored), bodies, random, data_sized)
        TABLE.register(*keys(names, domain))(entry)
        return function

    return add


def standard(op: TorchNode, name: str, *inputs: Any, **attributes: Any) -> Any:
    """The result of the standard's operator of that name, with the attributes of `op` and some more."""
    merged = {**op.attributes, **attributes}
    plain = replace(op, op_type=name, version=_NEWEST, attributes=merged, types=(), wanted=(True,))
    return TABLE["", name].function(plain, *inputs)


def spatial(x: Tensor) -> list[int]:
    """The axes behind batch and channel."""
    return list(range(2, x.ndim))


def per_channel(vector: Tensor, rank: int, axis: int = 1) -> Tensor:
    """A vector along `axis` of a tensor of rank `rank`, for broadcasting."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


def auto_pads(
    op: TorchNode, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """The pads of Conv and of pools, all begins and then all ends, with `auto_pad` worked out."""
    mode = op.attr("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(op.attr("pads") or [0] * (2 * len(kernel)))
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    begins, ends = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(large if mode == "SAME_LOWER" else small)
        ends.append(small if mode == "SAME_LOWER" else large)
    return begins + ends


def torch_pads(pads: Sequence[int]) -> list[int]:
    """ONNX's pads (all begins, all ends, first axis first) as F.pad takes them (pairs, last axis first)."""
    half = len(pads) // 2
    return [pads[axis + end] for axis in reversed(range(half)) for end in (0, half)]
