"""Real weights back to integers: nearest to what they were, with the zero points that are there."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.ops.dequantize import dequantized, packed, unpacked
from onnxprune.ops.requantize import requantized, requantized_vector

RNG = np.random.default_rng(0)


def value(array: np.ndarray) -> ir.Value:
    return ir.Value(name="v", const_value=ir.Tensor(array), type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))


def node(operator: str, arrays: list[np.ndarray | None], domain: str = "", **attributes: int) -> ir.Node:
    inputs = [None if array is None else value(array) for array in arrays]
    return ir.node(operator, inputs, attributes=attributes, domain=domain)


F = np.float32
FORMS = {
    "one scale": lambda: node("DequantizeLinear", [RNG.integers(-127, 128, (6, 4)).astype(np.int8), F(0.01)]),
    "by column": lambda: node(
        "DequantizeLinear",
        [
            RNG.integers(0, 256, (6, 4)).astype(np.uint8),
            RNG.random(4, F) + F(0.1),
            np.array([9, 99, 128, 250], np.uint8),
        ],
    ),
    "by row": lambda: node(
        "DequantizeLinear", [RNG.integers(-127, 128, (6, 4)).astype(np.int8), RNG.random(6, F) + F(0.1)], axis=0
    ),
    "by block": lambda: node(
        "DequantizeLinear",
        [RNG.integers(-127, 128, (6, 4)).astype(np.int8), RNG.random((2, 4), F) + F(0.1)],
        axis=0,
        block_size=3,
    ),
    "16 bits": lambda: node("DequantizeLinear", [RNG.integers(-32767, 32768, (6, 4)).astype(np.int16), F(0.01)]),
    "4 bits packed": lambda: node(
        "MatMulNBits",
        [None, RNG.integers(0, 256, (5, 2, 8)).astype(np.uint8), RNG.random(10, F) + F(0.1)],
        "com.microsoft",
        bits=4,
    ),
}


def integers_of(found: ir.Node) -> tuple[int, np.ndarray]:
    slot = 1 if found.op_type == "MatMulNBits" else 0
    return slot, found.inputs[slot].const_value.numpy()


@pytest.mark.parametrize("form", FORMS)
def test_nearest_integers(form: str) -> None:
    """Each weight is within half a step of what it was, and the largest of those that share a scale is at the end."""
    found = FORMS[form]()
    slot, before = integers_of(found)
    wanted = dequantized(found, slot, before) * F(1.7)
    wanted = wanted + 0.01 * np.abs(wanted).max() * RNG.standard_normal(wanted.shape)
    stored, scale = requantized(found, slot, wanted, before)
    layout_slot = 2 if slot else 1
    assert (stored.dtype, stored.shape) == (before.dtype, before.shape)
    given = found.inputs[layout_slot].const_value.numpy()
    assert (scale.dtype, scale.shape) == (given.dtype, given.shape)
    found.inputs[layout_slot].const_value = ir.Tensor(scale)
    got = dequantized(found, slot, stored)
    if slot:
        steps = np.repeat(scale, 16).reshape(wanted.shape)
    elif form == "by row":
        steps = scale[:, None]
    elif form == "by block":
        steps = np.repeat(scale, 3, axis=0)
    else:
        steps = np.broadcast_to(scale, wanted.shape)
    assert (np.abs(got - wanted) <= 0.5001 * steps).all()
    assert np.abs(got - wanted).max() > 0.1 * steps.min()


def test_seven_bits_stay_seven_bits() -> None:
    """A file without the largest integers keeps sums of products of bytes in 16 bits; so does the result."""
    before = np.arange(-64, 64).reshape(16, 8).astype(np.int8)
    found = node("DequantizeLinear", [before, F(0.01)])
    stored, _ = requantized(found, 0, RNG.standard_normal((16, 8)), before)
    assert int(np.abs(stored.astype(int)).max()) == 64


def test_scale_of_an_empty_column_is_no_zero() -> None:
    before = RNG.integers(-127, 128, (6, 4)).astype(np.int8)
    found = node("DequantizeLinear", [before, np.ones(4, F)])
    wanted = RNG.standard_normal((6, 4))
    wanted[:, 2] = 0
    stored, scale = requantized(found, 0, wanted, before)
    assert (scale > 0).all()
    assert not stored[:, 2].any()


def test_vector_gets_a_zero_point_of_its_own() -> None:
    """All of one sign, they would have half of the integers only."""
    found = node("DequantizeLinear", [np.array([1, 2, 200], np.uint8), F(0.01), np.array(7, np.uint8)])
    wanted = np.array([-3.0, -1.0, -0.01])
    for slot, array in requantized_vector(found, wanted).items():
        found.inputs[slot].const_value = ir.Tensor(array)
    got = dequantized(found, 0, found.inputs[0].const_value.numpy())
    np.testing.assert_allclose(got, wanted, atol=0.5 * 3 / 255 + 1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_packing(bits: int) -> None:
    bytes_ = RNG.integers(0, 256, (3, 5)).astype(np.uint8)
    np.testing.assert_array_equal(packed(unpacked(bytes_, bits), bits), bytes_)
