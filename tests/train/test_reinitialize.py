"""Fresh weights by the rule that fits each layer."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from onnxprune.model.check import check_model
from onnxprune.model.file import open_model, save
from onnxprune.steps.train.reinitialize import reinitialize
from tests.conftest import Build
from tests.train.harness import weights
from tests.train.networks import NETWORKS, exported, made


def fresh(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    model = open_model(path)
    reinitialize(model, seed)
    return weights(model)


def test_a_layer_in_front_of_a_rectifier_is_drawn_as_he_says(build: Build) -> None:
    path = build("""
        net (float[n, 16, 9, 9] x) => (float[n, 200] y)
        <float[64, 8, 3, 3] w, float[64] b, float[64, 300] v, float[300] c, float[200, 300] u, float[200] d,
         float[64] s, float[64] t, float[64] mean, float[64] var>
        {
            a = Conv<group = 2>(x, w, b)  n1 = BatchNormalization(a, s, t, mean, var)  r = Relu(n1)
            p = GlobalAveragePool(r)  f = Flatten(p)  h = MatMul(f, v)  g = Add(h, c)  q = Relu(g)
            y = Gemm<transB = 1>(q, u, d)
        }
    """, var=np.ones(64))  # fmt: skip
    found = fresh(path)
    assert found["w"].std() == pytest.approx(sqrt(2 / 72), rel=0.05)
    assert found["v"].std() == pytest.approx(sqrt(2 / 64), rel=0.05)
    assert np.abs(found["w"]).max() > 3 * sqrt(2 / 72)  # normal
    limit = sqrt(6 / 500)
    assert 0.98 * limit < np.abs(found["u"]).max() <= limit  # uniform
    assert found["u"].std() == pytest.approx(limit / sqrt(3), rel=0.05)
    for name, content in {"b": 0, "c": 0, "d": 0, "t": 0, "mean": 0, "s": 1, "var": 1}.items():
        assert (found[name] == content).all()


def test_recurrent_weights_are_orthogonal_gate_by_gate(build: Build) -> None:
    path = build("""
        net (float[t, n, 5] x) => (float[t, 2, n, 7] y) <float[2, 28, 5] w, float[2, 28, 7] r, float[2, 56] b>
        { y = LSTM<hidden_size = 7, direction = "bidirectional">(x, w, r, b) }
    """)
    found = fresh(path)
    for direction in range(2):
        for gate in range(4):
            matrix = found["r"][direction, 7 * gate : 7 * gate + 7].astype(np.float64)
            np.testing.assert_allclose(matrix @ matrix.T, np.eye(7), atol=1e-6)
    assert len(np.unique(found["r"])) == found["r"].size
    assert 0.9 * sqrt(6 / 12) < np.abs(found["w"]).max() <= sqrt(6 / 12)
    assert found["b"].sum() == 14
    assert (found["b"][:, 14:21] == 1).all()  # gates in ONNX's order: input, output, forget, cell


def test_tables_are_small(build: Build) -> None:
    path = build("net (int64[n] x) => (float[n, 50] y) <float[90, 50] w> { y = Gather(w, x) }")
    assert fresh(path)["w"].std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gets_fresh_weights(name: str, tmp_path: Path) -> None:
    path = exported(made(name), tmp_path / "model.onnx")
    model = open_model(path)
    written = reinitialize(model)
    assert written.changed
    save(model, tmp_path / "fresh.onnx")
    check_model(tmp_path / "fresh.onnx")
    for key, array in weights(model).items():
        assert np.isfinite(array).all(), key


def test_the_seed_decides(tmp_path: Path) -> None:
    path = exported(made("residual"), tmp_path / "model.onnx")
    first, again, other = fresh(path, 1), fresh(path, 1), fresh(path, 2)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["stem.weight"], other["stem.weight"])
    assert not np.array_equal(first["conv1.weight"], first["conv2.weight"])


def test_zeros_stay_zero(tmp_path: Path) -> None:
    model = open_model(exported(made("plain"), tmp_path / "model.onnx"))
    mask = np.random.default_rng(0).random((6, 3, 3, 3)) < 0.5
    reinitialize(model, zeros={"0.weight": mask})
    assert not weights(model)["0.weight"][~mask].any()
    assert np.count_nonzero(weights(model)["0.weight"]) == mask.sum()
