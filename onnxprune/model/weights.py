"""Weights of a model: read from the file when they are needed, written as ONNX stores them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def write_raw(tensor: ir.TensorProtocol, out: BinaryIO) -> None:
    """Write a tensor as ONNX stores it (little-endian, row-major), from its memory where that already is so."""
    with reading(tensor) as array:
        if array.nbytes != tensor.nbytes or sys.byteorder != "little":
            out.write(tensor.tobytes())  # packed 4-bit types, big-endian machines
        else:
            out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def reading(tensor: ir.TensorProtocol) -> Iterator[npt.NDArray[Any]]:
    """The tensor's array for the length of a block; a memory-mapped one is unmapped after it, so that memory does not
    grow with the file. A view that is kept keeps it mapped.
    """
    yield tensor.numpy()
    if isinstance(tensor, ir.ExternalTensor):
        with contextlib.suppress(BufferError):  # the caller's name for the array: the map goes when that does
            tensor.release()
        tensor.raw = None


def is_weight(value: ir.Value | ir.TensorProtocol) -> bool:
    """Is an initializer a weight, rather than a shape constant or an index?

    Running statistics of a normalization are weights too; `ops.traits.is_parameter` leaves them out.
    """
    dtype = value.dtype
    if dtype is None or dtype in (ir.DataType.BOOL, ir.DataType.STRING):
        return False
    return dtype.is_floating_point() or dtype.bitwidth <= 8
