"""Weights back into the graph: types, sharing and zeros stay, and what did not change is not touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from onnxprune.errors import ModelError
from onnxprune.model.check import check_model
from onnxprune.model.file import open_model, save
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.write import write_weights
from tests.conftest import Build
from tests.train.harness import LINEAR, blobs, normal, options, weights


def as_type(code: int) -> object:
    def edit(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = code
        for tensor in list(model.graph.initializer):
            array = onnx.numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(code))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    return edit


@pytest.mark.parametrize("code", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE])
def test_types_stay(build: Build, tmp_path: Path, code: int) -> None:
    path = build(LINEAR, edit=as_type(code))
    model = open_model(path)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code)
    trained = train_model(model, blobs(dtype=dtype), options(updates=30, learning_rate=0.02))
    assert trained.written.changed == ("w", "b", "v", "c")
    assert {value.dtype.value for value in trained.model.graph.initializers.values() if value.dtype} == {code}
    assert {
        value.const_value.dtype.value for value in trained.model.graph.initializers.values() if value.const_value
    } == {code}
    save(trained.model, tmp_path / "trained.onnx")
    check_model(tmp_path / "trained.onnx")


def test_small_updates_add_up_in_half_precision(build: Build) -> None:
    """Steps of a hundredth of what float16 can tell apart: the masters in float32 remember them."""
    path = build(LINEAR, edit=as_type(onnx.TensorProto.FLOAT16), w=normal(4, 8) + 8)
    given = options(updates=60, learning_rate=1e-4, rate_schedule="constant", rate_warmup=0.0, keep="last", holdout=0.0)
    before = weights(open_model(path))["w"].astype(np.float64)
    moved = np.abs(weights(train_model(open_model(path), blobs(), given).model)["w"].astype(np.float64) - before)
    assert float(np.spacing(np.float16(8))) > 60 * 1e-4
    assert moved.max() > 0


def test_what_a_type_cannot_hold_is_limited_and_said(build: Build) -> None:
    model = open_model(build(LINEAR, edit=as_type(onnx.TensorProto.FLOAT16)))
    written = write_weights(model, {"b": torch.full((8,), -1e6)})
    assert written.clipped == ("b",)
    assert (weights(model)["b"] == np.float16(-65504)).all()


def test_a_shared_weight_stays_one(build: Build) -> None:
    path = build("""
        net (float[batch, 4] x) => (float[batch, 4] logits) <float[4, 4] w, float[4] b>
        { h = Gemm(x, w, b)  r = Tanh(h)  logits = Gemm(r, w, b) }
    """)
    trained = train_model(open_model(path), blobs(), options())
    assert set(trained.model.graph.initializers) == {"w", "b"}
    assert trained.trained == 2
    assert len(trained.model.graph.initializers["w"].uses()) == 2
    assert set(trained.written.changed) == {"w", "b"}


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_zeros_stay_zero(build: Build, normalization: str) -> None:
    from tests.train.harness import CONVOLUTIONS, pictures

    mask = np.random.default_rng(1).random((6, 6, 3, 3)) < 0.3
    given = options(normalization=normalization, updates=60, learning_rate=1e-2, optimizer="adamw", keep="last")
    trained = train_model(open_model(build(CONVOLUTIONS)), pictures(labelled=True), given, zeros={"w2": mask})
    assert trained.best.step
    found = weights(trained.model)["w2"]
    assert not found[~mask].any()
    assert np.count_nonzero(found[mask]) == mask.sum()


def test_nothing_learned_is_the_same_bytes(build: Build, tmp_path: Path) -> None:
    path = build(LINEAR)
    save(open_model(path), tmp_path / "before.onnx")
    for name, given in (("none", {"updates": 0}), ("worse", {"updates": 3, "learning_rate": 50.0, "retries": 0})):
        start = train_model(open_model(path), blobs(), options(updates=60, learning_rate=0.05)).model
        save(start, tmp_path / "start.onnx")
        trained = train_model(start, blobs(), options(**given, smoothing=0.0))
        assert trained.best.step == 0
        assert trained.written.changed == ()
        save(trained.model, tmp_path / f"{name}.onnx")
        assert (tmp_path / f"{name}.onnx").read_bytes() == (tmp_path / "start.onnx").read_bytes()
    save(train_model(open_model(path), blobs(), options(updates=0)).model, tmp_path / "after.onnx")
    assert (tmp_path / "after.onnx").read_bytes() == (tmp_path / "before.onnx").read_bytes()


def test_the_model_that_was_given_is_not_changed(build: Build) -> None:
    model = open_model(build(LINEAR))
    before = {name: array.copy() for name, array in weights(model).items()}
    trained = train_model(model, blobs(), options())
    assert trained.written.changed
    assert all(np.array_equal(before[name], array) for name, array in weights(model).items())
    assert all(
        weight is not trained.model.graph.initializers[name] for name, weight in model.graph.initializers.items()
    )


def test_weights_that_do_not_fit_are_refused_before_anything_changes(build: Build) -> None:
    model = open_model(build(LINEAR))
    before = weights(model)["w"].copy()
    for wrong, said in (
        ({"w": torch.zeros(4, 8), "z": torch.zeros(1)}, "no weight 'z'"),
        ({"w": torch.zeros(2)}, r"\(4, 8\)"),
    ):
        with pytest.raises(ModelError, match=said):
            write_weights(model, wrong)
        assert np.array_equal(weights(model)["w"], before)


def test_an_initializer_without_changes_keeps_its_tensor(build: Build) -> None:
    model = open_model(build(LINEAR))
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    write_weights(model, {name: torch.from_numpy(array.copy()) for name, array in weights(model).items()})
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in tensors.items())
    assert isinstance(model, ir.Model)
