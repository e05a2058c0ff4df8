"""Training through the rounding of the file: the same numbers as ONNX Runtime, exact gradients, integers at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import onnxprune as op
from onnxprune.model.file import open_model, save
from onnxprune.runtime.session import Session
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.base import Context
from onnxprune.steps.state import State
from onnxprune.steps.train.distil import Teacher
from onnxprune.steps.train.integers import train_integers
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.trained import Trained
from tests.conftest import Build
from tests.train.harness import CONVOLUTIONS, blobs, data_of, normal, options, pictures, weights

X = normal(1000, 3, 8, 8, seed=5)
# Per channel, per tensor with a zero point of uint8, and a bias in the unit of both scales.
STORED = """
    net (float[batch, 2] x) => (float[batch, 2] y)
    <float xs = {0.02}, uint8 xz = {128}, float ws = {0.05}, uint8 wz = {7}, float bs = {0.001},
     uint8[2, 2] w = {0, 255, 9, 30}, int32[2] b = {100000, -7}>
    {
        q = QuantizeLinear(x, xs, xz)  d = DequantizeLinear(q, xs, xz)
        m = DequantizeLinear(w, ws, wz)  c = DequantizeLinear(b, bs)  y = Gemm(d, m, c)
    }
"""


def quantized(build: Build, folder: Path, **given: Any) -> tuple[Path, Path]:
    """A float network, and what it becomes."""
    path, target = build(CONVOLUTIONS, name="float"), folder / "quantized.onnx"
    result = op.quantize(path, "int8", data=normal(64, 3, 8, 8), allow_damage=True, **given)
    result.save(target)
    return path, target


def answers(model: ir.Model | Path, x: np.ndarray = X) -> np.ndarray:
    """Of ONNX Runtime, as deployed."""
    return np.asarray(next(iter(Session(model, optimized=True).run({"x": x}).values())))


def in_torch(path: Path, *, scales: bool) -> np.ndarray:
    """Of the network in training, before the first update."""
    working = open_model(path)
    train_integers(working, scales=scales)
    with torch.no_grad():
        return next(iter(TorchModel(working)({"x": torch.from_numpy(X)}).values())).numpy()


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one.argmax(1) == other.argmax(1)).mean())


def trained_on(path: Path, target: Path, **given: Any) -> Trained:
    data = data_of({"x": normal(128, 3, 8, 8, seed=1)})
    return train_model(open_model(target), data, options(**given), teacher=Teacher(open_model(path)))


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("bits", [8, 3])
def test_torch_and_onnxruntime_agree(scales: bool, bits: int, build: Build, tmp_path: Path) -> None:
    _, target = quantized(build, tmp_path, weight_bits=bits)
    assert agreement(answers(target), in_torch(target, scales=scales)) >= 0.999


def test_without_updates_every_byte_stays(build: Build, tmp_path: Path) -> None:
    path, target = quantized(build, tmp_path)
    trained = trained_on(path, target, updates=0)
    save(trained.model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == target.read_bytes()


@pytest.mark.parametrize("scales", [False, True])
def test_it_makes_up_for_rounding(scales: bool, build: Build, tmp_path: Path) -> None:
    """Two bits, rounded to nearest: far off at first, and half as far after a training, in ONNX Runtime, too."""
    path, target = quantized(build, tmp_path, weight_bits=2, rounding="nearest")
    trained = trained_on(path, target, updates=200, learning_rate=0.01, scales=scales, distance=("mse",))
    exact, before, after = answers(path), answers(target), answers(trained.model)
    assert np.square(after - exact).sum() < 0.5 * np.square(before - exact).sum()
    stored = weights(trained.model)
    integers = {name: array for name, array in stored.items() if name.endswith("/integers") and array.dtype == np.int8}
    assert len(integers) == 4
    assert {int(np.abs(array).max()) for array in integers.values()} == {1}
    save(trained.model, tmp_path / "trained.onnx")
    assert agreement(after, in_torch(tmp_path / "trained.onnx", scales=False)) >= 0.999
    scale = {name: array for name, array in stored.items() if name.endswith("/scale")}
    moved = [name for name in scale if not np.array_equal(scale[name], weights(open_model(target))[name])]
    assert bool(moved) == scales


def test_the_scale_of_a_bias_stays_the_product_of_two(build: Build, tmp_path: Path) -> None:
    path, target = quantized(build, tmp_path, weight_bits=3, rounding="nearest")
    stored = weights(trained_on(path, target, updates=50, learning_rate=0.003, scales=True, distance=("mse",)).model)
    assert not np.array_equal(stored["w2/scale"], weights(open_model(target))["w2/scale"])
    np.testing.assert_allclose(stored["b2/scale"], stored["r1/scale"] * stored["w2/scale"], rtol=1e-6)


def test_one_step_by_hand(build: Build) -> None:
    """A step of gradient descent on what the integers represent: gradients pass straight through the rounding."""
    working = open_model(build(STORED))
    w, b = (weights(working)[name].astype(np.float64) for name in "wb")
    matrix, bias = (w - 7) * 0.05, b * 0.001
    found = train_integers(working, scales=False)
    module = TorchModel(working)
    x = np.array([[0.5, -0.3], [1.1, 0.7]], np.float32)
    y = module({"x": torch.from_numpy(x)})["y"]
    (y - 1).square().mean().backward()
    seen = (np.clip(np.rint(x / np.float32(0.02)) + 128, 0, 255) - 128) * 0.02
    gradient = 2 * (seen @ matrix + bias - 1) / 4
    by_hand = {"w": seen.T @ gradient, "b": gradient.sum(0)}
    for name, wanted in by_hand.items():
        np.testing.assert_allclose(module.weights[name].grad, wanted, rtol=1e-5, atol=1e-6)
    moved = {name: module.weights[name] - 0.01 * module.weights[name].grad for name in by_hand}
    written = found.written(moved, module.weights)
    begun = module.weights["w"].detach().numpy()
    exact = np.clip(np.rint((begun - 0.01 * by_hand["w"]) / 0.05) + 7, 0, 255)
    np.testing.assert_array_equal(written["w"], exact)
    np.testing.assert_allclose(written["b"], np.rint((bias - 0.01 * by_hand["b"]) / 0.001), atol=1)
    assert (exact != w).sum() > 1


def test_a_small_common_way_changes_a_share_of_the_integers(build: Build, tmp_path: Path) -> None:
    """Weights go a fifth of a step, and one in six becomes another integer: they begin anywhere in their interval."""
    working = open_model(quantized(build, tmp_path, weight_bits=8)[1])
    found = train_integers(working, scales=False)
    module = TorchModel(working)
    for each in found.weights:
        scale = module.weights[each.scale].detach()
        begun = module.weights[each.name].detach()
        torch.testing.assert_close(each.of(begun, scale, same_scale=False), each.integers)
        if each.high < 128 and begun.numel() > 200:
            moved = begun - 0.2 * scale.reshape(each.shape) * begun.sign()
            share = float((each.of(moved, scale, same_scale=True) != each.integers).float().mean())
            assert 0.08 < share < 0.28


def test_zeros_stay_zero_through_quantization_and_training(build: Build) -> None:
    mask = np.random.default_rng(1).random((6, 6, 3, 3)) < 0.5
    path = build(CONVOLUTIONS, w2=normal(6, 6, 3, 3) * mask)
    state = replace(State.of(op.inspect(path), path), zeros={"w2": mask})
    context = Context(data=pictures(128))
    before = op.Quantize("int8", weight_bits=4, rounding="nearest")(state, context)
    found = op.Train(updates=100, learning_rate=0.01, batch_size=16, distance=("mse",))(before, context)
    one, other = (weights(each.model)["w2/integers"] for each in (before, found))
    assert not other[~mask].any()
    assert (one != other).any()


def test_compress_trains_through_the_rounding(build: Build) -> None:
    path, data = build(CONVOLUTIONS), pictures(96, labelled=True)
    found = op.compress(path, data=data, ratio=0.3, quantize="int8", train=2, batch_size=16, allow_damage=True)
    assert [step["step"] for step in found.recipe["step"]][:4] == ["prune", "recover", "quantize", "train"]
    assert any("weights are trained through the rounding" in note for note in found.report.notes)
    rounds = op.Recipe.of_options({"ratio": 0.3, "quantize": "int8", "train": 1, "steps": 2})
    assert [each.name for each in rounds.steps] == ["repeat", "quantize", "clean"]
    weights_alone = op.Recipe.of_options({"ratio": 0.3, "quantize": "int8-dynamic", "train": 1})
    assert [each.name for each in weights_alone.steps] == ["prune", "recover", "train", "quantize", "clean"]


def test_integers_that_are_not_trained_are_counted(build: Build) -> None:
    path = build("""
        net (float[batch, 4] x) => (float[batch, 3] y) <int8[4, 8] w, float s = {0.1}, float[8, 3] v>
        { q, qs, qz = DynamicQuantizeLinear(x)  i = MatMulInteger(q, w, qz)  f = Cast<to = 1>(i)
          m = Mul(qs, s)  h = Mul(f, m)  y = MatMul(h, v) }
    """)
    trained = train_model(open_model(path), blobs(64), options(updates=2))
    assert any("1 weights stay as they are: integers in a form of their own" in note for note in trained.notes)
