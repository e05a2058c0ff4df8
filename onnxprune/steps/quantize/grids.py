"""Integers and the numbers that they represent: real = scale * (integer - zero)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Matrix = npt.NDArray[np.float64]
# The smallest scale: its inverse is still finite in float32.
TINY = 1e-30


@dataclass(frozen=True)
class Grid:
    """Where the integers of an activation lie.

    Attributes:
        scale: between two neighbours.
        zero: the integer that represents 0.
        signed: int8, else uint8.
        seen: the least and the largest number in calibration; nothing where that is not known.
    """

    scale: float
    zero: int
    signed: bool
    seen: tuple[float, ...] = field(default=(), compare=False)

    @property
    def covered(self) -> tuple[float, float]:
        """The least and the largest number of the grid."""
        low, high = (-128, 127) if self.signed else (0, 255)
        return self.scale * (low - self.zero), self.scale * (high - self.zero)

    @property
    def dtype(self) -> ir.DataType:
        """How it is stored."""
        return ir.DataType.INT8 if self.signed else ir.DataType.UINT8

    def rounded(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The nearest numbers of the grid, as QuantizeLinear and DequantizeLinear give them: half to even, clipped."""
        low, high = (-128, 127) if self.signed else (0, 255)
        scale = np.float32(self.scale)
        integers = np.clip(np.rint(array / scale) + self.zero, low, high) - self.zero
        return np.asarray(integers * scale, np.float32)


def grid_of(low: float, high: float, *, signed: bool) -> Grid:
    """The grid of 256 numbers from about `low` to about `high`, with 0 among them.

    A signed one of numbers that are not negative uses all of int8, too: its zero is -128.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max((high - low) / 255, TINY)))
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return Grid(scale, zero - 128 if signed else zero, signed)


def largest_integer(bits: int) -> int:
    """Of weights with so many bits, which are symmetric about 0."""
    return (1 << (bits - 1)) - 1


def scales_of(matrix: Matrix, bits: int) -> Matrix:
    """The scale of each output with which its largest weight is the largest integer: [groups, outputs]."""
    largest = np.abs(matrix).max(axis=1) / largest_integer(bits)
    return np.asarray(np.maximum(largest, TINY), np.float64)


def to_integers(matrix: Matrix, scales: Matrix, bits: int) -> Matrix:
    """The nearest integers, as floats: [groups, features, outputs]."""
    most = largest_integer(bits)
    return np.asarray(np.clip(np.rint(matrix / scales[:, None]), -most, most), np.float64)
