"""The step as a whole: how many zeros, that they stay through everything, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

import onnxprune as op
from onnxprune.cli import main
from onnxprune.errors import TargetError, UsageError
from onnxprune.steps.sparsify import within
from onnxprune.steps.sparsify.measure import zipped_bytes
from tests.conftest import TORCH, Build

NETWORK = """
    net (float[batch, 4, 8, 8] x) => (float[batch, 4] y)
    <float[8, 4, 3, 3] w, float[8] b, float[8, 8, 3, 3] v, float[4, 8] u, float[4] c>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(h)
        k = Conv<pads = [1, 1, 1, 1]>(r, v)  s = Add(k, r)  t = Relu(s)
        p = GlobalAveragePool(t)  f = Flatten(p)  y = Gemm<transB = 1>(f, u, c)
    }
"""
IMAGES = np.random.default_rng(0).standard_normal((64, 4, 8, 8)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 4, 64)


def stored(path: Path) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def zeros(path: Path, *names: str) -> float:
    arrays = [stored(path)[name] for name in names]
    return float(sum((array == 0).sum() for array in arrays) / sum(array.size for array in arrays))


@pytest.mark.parametrize(
    "options", [{}, {"weight_criterion": "magnitude"}, {"weight_criterion": "wanda"}, {"sparsity_allocation": "erk"}]
)
def test_as_sparse_as_asked_and_biases_stay(options: dict[str, str], build: Build, tmp_path: Path) -> None:
    report = op.sparsify(build(NETWORK), 0.7, data=IMAGES, allow_damage=True, **options).save(tmp_path / "s.onnx")
    assert zeros(tmp_path / "s.onnx", "w", "v", "u") == pytest.approx(0.7, abs=0.02)
    assert report.sparsity is not None
    layers = report.sparsity["layers"]
    assert sum(layer["zeros"] for layer in layers) / sum(layer["weights"] for layer in layers) >= 0.69
    assert "are zero" in str(report)


def test_obs_loses_less_than_magnitude(build: Build, tmp_path: Path) -> None:
    path = build(NETWORK)
    found = {}
    for name in ("obs", "magnitude"):
        result = op.sparsify(path, 0.5, weight_criterion=name, update="auto" if name == "obs" else "none", data=IMAGES)
        found[name] = next(each for each in result.report.quality.scores if each.metric == "snr").after  # type: ignore[union-attr]
    assert found["obs"] > found["magnitude"] + 3


def test_two_of_four_along_input_channels_in_every_kernel(build: Build, tmp_path: Path) -> None:
    op.sparsify(build(NETWORK), pattern="2:4", data=IMAGES, allow_damage=True).save(tmp_path / "s.onnx")
    kernels = stored(tmp_path / "s.onnx")
    assert ((kernels["v"] != 0).reshape(8, 2, 4, 3, 3).sum(axis=2) == 2).all()
    assert ((kernels["u"] != 0).reshape(4, 2, 4).sum(axis=2) == 2).all()


def test_rounds_come_to_the_whole(build: Build, tmp_path: Path) -> None:
    loop = op.Repeat(times=3, steps=(op.Sparsify(sparsity=0.8, weight_criterion="magnitude"),))
    state = op.Recipe([loop])(build(NETWORK), allow_damage=True).state
    done = [
        sum(layer["zeros"] for layer in each.numbers["layers"]) for each in state.records if each.step == "sparsify"
    ]
    assert done == sorted(set(done))
    assert done[-1] == round(0.8 * sum(mask.size for mask in state.zeros.values()))


def test_zeros_stay_when_units_go(build: Build, tmp_path: Path) -> None:
    steps = [op.Sparsify(sparsity=0.6), op.Prune(ratio=0.3, round_to=1), op.Recover("bias"), op.Clean()]
    result = op.Recipe(steps)(build(NETWORK), data=IMAGES, allow_damage=True)
    result.save(tmp_path / "s.onnx")
    assert result.plan.removed_units
    for name, array in stored(tmp_path / "s.onnx").items():
        if name in result.state.zeros:
            mask = result.state.zeros[name]
            assert mask.shape == array.shape
            assert not array[~mask].any()
            assert (~mask).any()


def test_zeros_stay_when_weights_are_quantized(build: Build, tmp_path: Path) -> None:
    steps = [op.Sparsify(sparsity=0.6), op.Quantize("int8"), op.Clean()]
    result = op.Recipe(steps)(build(NETWORK), data=IMAGES, allow_damage=True)
    result.save(tmp_path / "s.onnx")
    integers = [array for array in stored(tmp_path / "s.onnx").values() if array.dtype == np.int8 and array.size > 30]
    kernel = next(array for array in integers if array.size == 8 * 4 * 9)
    assert np.array_equal(kernel == 0, (kernel == 0) | ~result.state.zeros["w"])
    assert (kernel == 0).mean() >= (~result.state.zeros["w"]).mean()


@pytest.mark.skipif(not TORCH, reason="needs torch")
def test_zeros_stay_when_the_model_is_trained(build: Build, tmp_path: Path) -> None:
    steps = [op.Sparsify(sparsity=0.6), op.Train(epochs=2), op.Clean()]
    result = op.Recipe(steps)(build(NETWORK), data=(IMAGES, LABELS), allow_damage=True)
    result.save(tmp_path / "s.onnx")
    before = stored(build(NETWORK))
    after = stored(tmp_path / "s.onnx")
    mask = result.state.zeros["v"]
    assert not after["v"][~mask].any()
    assert not np.array_equal(after["v"][mask], before["v"][mask])


def test_masks_only_shrink(build: Build) -> None:
    steps = [op.Sparsify(sparsity=0.6, weight_criterion="random"), op.Sparsify(sparsity=0.7)]
    path = build(NETWORK)
    first = op.Recipe(steps[:1])(path, data=IMAGES, allow_damage=True).state.zeros
    both = op.Recipe(steps)(path, data=IMAGES, allow_damage=True).state.zeros
    assert all(not (both[name] & ~first[name]).any() for name in first)
    total = sum(mask.size for mask in both.values())
    assert sum((~mask).sum() for mask in both.values()) / total == pytest.approx(0.7, abs=0.02)


def test_layers_that_are_skipped_stay_as_they_are(build: Build, tmp_path: Path) -> None:
    path = build(NETWORK)
    op.sparsify(path, 0.6, keep_dense="w", data=IMAGES, allow_damage=True).save(tmp_path / "s.onnx")
    assert np.array_equal(stored(tmp_path / "s.onnx")["w"], stored(path)["w"])


def test_an_allowed_drop_decides_how_sparse(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (IMAGES, LABELS)
    loose = op.sparsify(build(NETWORK), 0.95, sparsity_drop=1.0, data=data, allow_damage=True).report.sparsity
    rough = {"weight_criterion": "random", "update": "none", "allow_damage": True}
    tight = op.sparsify(build(NETWORK), 0.95, sparsity_drop=0.1, data=IMAGES, **rough).report.sparsity
    assert loose is not None
    assert tight is not None
    first, second = (sum(layer["zeros"] for layer in each["layers"]) for each in (loose, tight))
    assert first > second > 0
    with pytest.raises(UsageError, match="--data"):
        op.sparsify(build(NETWORK), 0.5, sparsity_drop=0.1)
    monkeypatch.setattr(within, "drop_between", lambda *_, **__: float("nan"))
    with pytest.raises(TargetError, match="allow more"):
        op.sparsify(build(NETWORK), 0.95, sparsity_drop=0.1, data=IMAGES, **rough)


def test_command_says_what_runtimes_make_of_it(build: Build, tmp_path: Path) -> None:
    path = build(NETWORK)
    np.savez(tmp_path / "x.npz", x=IMAGES)
    args = ["sparsify", str(path), "--sparsity", "0.8", "--data", str(tmp_path / "x.npz"), "--allow-damage"]
    said = CliRunner().invoke(main, args)
    assert said.exit_code == 0, said.output
    assert "when zipped" in said.stdout
    assert "OpenVINO" in said.stdout
    assert (tmp_path / f"{path.stem}.sparse.onnx").exists()
    found = json.loads(CliRunner().invoke(main, [*args, "--json"]).stdout)["sparsity"]
    assert found["zipped_bytes"]["after"] < 0.5 * found["zipped_bytes"]["before"]
    refused = CliRunner().invoke(main, [*args[:2], "--pattern", "2:8:4"])
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1


def test_zipped_bytes_shrink_with_zeros(build: Build) -> None:
    model = op.inspect(build(NETWORK)).model
    sparse = op.sparsify(build(NETWORK), 0.9, weight_criterion="magnitude", allow_damage=True).model
    assert zipped_bytes(sparse) < 0.35 * zipped_bytes(model)


def test_shuffled_masks_have_as_many_zeros_in_each_layer(build: Build) -> None:
    options = {"weight_criterion": "magnitude", "update": "none", "allow_damage": True}
    own = op.sparsify(build(NETWORK), 0.6, sparsity_allocation="erk", **options).state.zeros
    other = op.sparsify(build(NETWORK), 0.6, sparsity_allocation="erk", shuffle=True, **options).state.zeros
    for name, mask in own.items():
        assert mask.sum() == other[name].sum()
        assert mask.all() or not np.array_equal(mask, other[name])
    with pytest.raises(UsageError, match="drop --pattern"):
        op.Sparsify(pattern="1x4", shuffle=True)
