"""Normalizations put in and folded away: nothing changes until something is learned, and then the fold is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxprune.model.file import open_model
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.normalization import folded, insert_normalization, lacks_normalization
from onnxprune.steps.train.reinitialize import reinitialize
from onnxprune.steps.train.write import write_weights
from tests.conftest import Build
from tests.train.harness import CONVOLUTIONS, normal, options, pictures, weights
from tests.train.networks import exported, made

CPU = torch.device("cpu")
X = torch.from_numpy(normal(32, 3, 8, 8))


def test_they_change_nothing_at_first(build: Build) -> None:
    model = open_model(build(CONVOLUTIONS))
    names = ["y1", "y2", "y3", "r2"]
    expected = TorchModel(model)({"x": X}, names)
    working = model.clone()
    inserted = insert_normalization(working, [{"x": X[:16]}, {"x": X[16:]}], CPU)
    assert [norm.weight for norm in inserted] == ["w1", "w2", "w3"]
    module = TorchModel(working)
    for name, value in module({"x": X}, names).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-3)
    # nor while training, for the statistics are those of the batch
    torch.testing.assert_close(module.train()({"x": X})["logits"], expected["logits"], rtol=1e-3, atol=1e-4)


def test_kernels_have_the_norm_of_fresh_ones(build: Build) -> None:
    model = open_model(build(CONVOLUTIONS, w2=normal(6, 6, 3, 3) * 1e-3))
    insert_normalization(model, [{"x": X}], CPU)
    for name in ("w1", "w2", "w3"):
        norms = np.linalg.norm(weights(model)[name].reshape(len(weights(model)[name]), -1), axis=1)
        np.testing.assert_allclose(norms, np.sqrt(2), rtol=1e-5)


def test_what_was_learned_is_folded_exactly(build: Build) -> None:
    model = open_model(build(CONVOLUTIONS))
    working = model.clone()
    inserted = insert_normalization(working, [{"x": X}], CPU)
    module = TorchModel(working, "float64").train()
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        module({"x": X.double()})["logits"].square().mean().backward()
        optimizer.step()
    learned = module.eval()({"x": X.double()})["logits"]
    write_weights(model, folded({**module.weights, **module.statistics}, inserted))
    assert set(weights(model)) == {"w1", "b1", "w2", "b2", "w3", "b3", "v", "c"}
    found = TorchModel(model, "float64")({"x": X.double()})["logits"]
    torch.testing.assert_close(found, learned, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(
        found, TorchModel(open_model(build(CONVOLUTIONS)), "float64")({"x": X.double()})["logits"]
    )


def test_a_channel_that_never_varies_stays_as_it_is(build: Build) -> None:
    weight = normal(6, 6, 3, 3)
    weight[2] = 0
    model = open_model(build(CONVOLUTIONS, w2=weight))
    expected = TorchModel(model)({"x": X})["logits"]
    working = model.clone()
    inserted = insert_normalization(working, [{"x": X}], CPU)
    module = TorchModel(working)
    torch.testing.assert_close(module({"x": X})["logits"], expected, rtol=1e-4, atol=1e-4)
    result = folded({**module.weights, **module.statistics}, inserted)
    assert not result["w2"][2].any()
    assert all(torch.isfinite(value).all() for value in result.values())


def test_which_networks_get_them(build: Build, digits: dict[str, Path], tmp_path: Path) -> None:
    assert lacks_normalization(open_model(build(CONVOLUTIONS)))
    assert not lacks_normalization(open_model(digits["resnet"]))  # it has them
    assert not lacks_normalization(open_model(digits["transformer"]))
    assert not lacks_normalization(open_model(digits["lstm"]))
    assert lacks_normalization(open_model(exported(made("residual"), tmp_path / "folded.onnx", training=False)))
    assert not lacks_normalization(open_model(exported(made("encoder"), tmp_path / "encoder.onnx", training=False)))


def test_a_convolution_that_gives_the_output_gets_none(build: Build) -> None:
    path = build("""
        net (float[n, 3, 8, 8] x) => (float[n, 2, 8, 8] y)
        <float[4, 3, 3, 3] w, float[4] b, float[4, 4, 3, 3] w2, float[4] b2, float[2, 4, 1, 1] v, float[2] c>
        { a = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(a)  a2 = Conv<pads = [1, 1, 1, 1]>(r, w2, b2)
          r2 = Relu(a2)  y = Conv(r2, v, c) }
    """)
    assert [norm.weight for norm in insert_normalization(open_model(path), [{"x": X}], CPU)] == ["w", "w2"]


def test_a_weight_of_two_convolutions_gets_none(build: Build) -> None:
    path = build("""
        net (float[n, 4, 8, 8] x) => (float[n, 3] y)
        <float[4, 4, 3, 3] w, float[4] b, float[4] b2, float[4, 3] v>
        { a = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(a)  a2 = Conv<pads = [1, 1, 1, 1]>(r, w, b2)
          p = GlobalAveragePool(a2)  f = Flatten(p)  y = MatMul(f, v) }
    """)
    assert insert_normalization(open_model(path), [{"x": torch.from_numpy(normal(4, 4, 8, 8))}], CPU) == []


def test_a_rate_that_breaks_the_folded_network_trains_the_normalized_one(build: Build) -> None:
    """A trained network whose kernels differ in size, as folding leaves them: what it computes is the same."""
    data = pictures(128, labelled=True)
    start = open_model(build(CONVOLUTIONS))
    reinitialize(start)
    start = train_model(start, data, options(updates=150, learning_rate=0.01)).model
    scale(start, {"w1": 16, "b1": 16, "b2": 16, "w3": 1 / 16})
    given = {"optimizer": "sgd", "learning_rate": 0.03, "updates": 60, "retries": 0}
    plain = train_model(start, data, options(**given, normalization="none"))
    normalized = train_model(start, data, options(**given))
    assert any("collapsed" in note for note in plain.notes)
    assert plain.best.step == 0
    assert normalized.best.step > 0
    assert not any("collapsed" in note for note in normalized.notes)
    assert any("3 normalizations put in and folded away" in note for note in normalized.notes)


def scale(model: ir.Model, factors: dict[str, float]) -> None:
    for name, factor in factors.items():
        value = model.graph.initializers[name]
        value.const_value = ir.Tensor(weights(model)[name] * np.float32(factor), name=name)


@pytest.mark.parametrize("wanted", ["batch", "none"])
def test_they_are_put_in_or_not_on_request(build: Build, wanted: str) -> None:
    trained = train_model(
        open_model(build(CONVOLUTIONS)), pictures(labelled=True), options(updates=1, normalization=wanted)
    )
    assert any("normalizations put in" in note for note in trained.notes) == (wanted == "batch")
