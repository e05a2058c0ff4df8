"""Units of quantized models: one whose readers are all at their zero point goes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import Build
from tests.lossless.harness import check_lossless, removed

RNG = np.random.default_rng(0)


def readers(rows: int, columns: int, zero: np.ndarray, dead: list[int]) -> np.ndarray:
    """uint8 weights [rows, columns] of which the rows `dead` are at the zero point [1] or [columns]."""
    weights = RNG.integers(0, 256, (rows, columns)).astype(np.uint8)
    weights[weights == zero] += 1
    weights[dead] = zero
    return weights


PER_TENSOR = np.array([7], np.uint8)
PER_COLUMN = np.arange(3, 9).astype(np.uint8)


@pytest.mark.parametrize("zero", [PER_TENSOR, PER_COLUMN], ids=["per tensor", "per column"])
@pytest.mark.parametrize("kind", ["QDQ", "QLinearMatMul"])
def test_unit_read_at_the_zero_point_goes(build: Build, kind: str, zero: np.ndarray) -> None:
    """Row 1 of the stored weights is 0, which is not a zero weight."""
    weights = readers(8, 6, zero, [2, 5])
    weights[1] = 0
    product = {
        "QDQ": "d = DequantizeLinear(q, xs, xz)  v = DequantizeLinear<axis = 1>(w, ws, wz)  y = MatMul(d, v)",
        "QLinearMatMul": "p = QLinearMatMul(q, xs, xz, w, ws, wz, ys, xz)  y = DequantizeLinear(p, ys, xz)",
    }[kind]
    path = build(
        f"""
        net (float[n, 5] x) => (float[n, 6] y)
        <float[5, 8] up, float xs = {{0.05}}, uint8 xz = {{128}}, uint8[8, 6] w, float[{zero.size}] ws,
         uint8[{zero.size}] wz, float ys = {{4}}>
        {{ h = MatMul(x, up)  q = QuantizeLinear(h, xs, xz)  {product} }}
        """,
        w=weights,
        ws=np.linspace(0.01, 0.05, zero.size),
        wz=zero,
    )
    assert removed(check_lossless(path)) == {"up": (2, 5)}


def test_channel_read_at_the_zero_point_goes(build: Build) -> None:
    weights = readers(4, 8 * 9, PER_TENSOR, []).reshape(4, 8, 3, 3)
    weights[:, 6] = 7
    path = build(
        """
        net (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y)
        <float[8, 3, 1, 1] up, float xs = {0.05}, uint8 xz = {128}, uint8[4, 8, 3, 3] w, float ws = {0.02},
         uint8 wz = {7}, float ys = {4}>
        {
            h = Conv(x, up)  q = QuantizeLinear(h, xs, xz)
            p = QLinearConv<pads = [1, 1, 1, 1]>(q, xs, xz, w, ws, wz, ys, xz)  y = DequantizeLinear(p, ys, xz)
        }
        """,
        w=weights,
    )
    assert removed(check_lossless(path)) == {"up": (6,)}
