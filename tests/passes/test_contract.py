"""What every pass promises, asserted for every pass that there is: adding a file to passes/ puts it under this test.

- It is a frozen dataclass; its fields are its options; its docstring shows the graph before and after.
- `modified=False` means that the model is equal; a second run changes nothing.
- The outputs of the model do not change (RemoveUnits, which is there to change them, has its own oracle; FoldConstants
  is the first half of a removal; what recovers a pruned model is there to change its outputs back).
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune import passes
from onnxprune.model.file import check, open_model, save
from onnxprune.model.signature import synthetic_feed
from onnxprune.passes.base import Pass, PassResult
from onnxprune.passes.fold_batchnorm import FoldBatchNorm
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.runtime.session import Session
from onnxprune.steps.recover.batchnorm import RecalibrateBatchNorm
from onnxprune.steps.recover.bias import CompensateBias
from onnxprune.steps.recover.fold import FoldUnits
from onnxprune.steps.recover.reconstruct import Reconstruct
from tests.conftest import Build


def discovered() -> list[type[Pass]]:
    """The classes of passes/ that are called with a model and give a PassResult."""
    found = []
    for info in pkgutil.iter_modules(passes.__path__):
        module = importlib.import_module(f"onnxprune.passes.{info.name}")
        found += [
            entry
            for name, entry in vars(module).items()
            if isinstance(entry, type) and entry.__module__ == module.__name__ and not name.startswith("_")
        ]
    calls = [(entry, entry.__call__) for entry in found if entry.__module__ != "onnxprune.passes.base"]
    return [entry for entry, call in calls if getattr(call, "__annotations__", {}).get("return") == "PassResult"]


PASSES = discovered()
RECOVERING = (CompensateBias, FoldUnits, RecalibrateBatchNorm, Reconstruct)
EXACT = [entry for entry in PASSES if entry not in (RemoveUnits, FoldConstants, *RECOVERING)]

MESSY = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] a, float[8] zeros = {0, 0, 0, 0, 0, 0, 0, 0}, float[8] nulls = {0, 0, 0, 0, 0, 0, 0, 0},
     float[8, 8] b, float[8, 3] c, float[3] unread, float[3] gain, float[3] shift, float[3] mean, float[3] variance,
     float[8, 8] big, float[8, 8] small>
    {
        h = Gemm(x, a, zeros)  k = local.layer(h, b)  m = Add(k, zeros)  n = Add(m, nulls)
        sizes = Shape(n)  last = Constant<value = int64 {1}>()  width = Gather(sizes, last)
        number = Cast<to = 1>(width)  d = Div(n, number)
        e = Gemm(d, big)  f = Relu(e)  g = Gemm(f, small)  i = Gemm(g, c)
        y = BatchNormalization(i, gain, shift, mean, variance)
        waste = MatMul(h, b)  more = Relu(waste)
    }
"""
RNG = np.random.default_rng(1)
ARRAYS = {
    "variance": [0.5, 1.0, 2.0],
    "big": 30 * RNG.standard_normal((8, 8)),
    "small": 0.01 * RNG.standard_normal((8, 8)),
}
LAYER = '<domain: "local", opset_import: ["" : 17]> layer (t, w) => (r) { m = MatMul(t, w)  r = Relu(m) }'
MODELS = ["messy", "resnet", "transformer", "lstm", "if_subgraph"]


@pytest.fixture(params=MODELS)
def path(request: pytest.FixtureRequest, build: Build, digits: dict[str, Path]) -> Path:
    """A model with everything to tidy up in it, or a real one."""
    if request.param == "messy":
        return build(MESSY, functions=LAYER, opsets={"local": 1}, edit=_annotate, **ARRAYS)
    if request.param == "if_subgraph":
        zoo_file: Callable[[str], Path] = request.getfixturevalue("zoo_file")
        return zoo_file("hm.if_subgraph.dy")
    return digits[request.param]


def _annotate(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.doc_string = 'File "/home/ann/net.py", line 7'
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=node.doc_string)


def content(model: ir.Model, folder: Path) -> bytes:
    save(model, folder / "content.onnx", external=False)
    return (folder / "content.onnx").read_bytes()


def outputs(path: Path, feed: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    session = Session(path)
    dynamic = {axis for port in session.inputs for axis in port.shape if isinstance(axis, str)}
    feed = synthetic_feed(session.inputs, dict.fromkeys(dynamic, 2), seed=1) if feed is None else feed
    return feed, session.run(feed)


def test_there_are_passes() -> None:
    assert {"Canonicalize", "RemoveDead", "RemoveUnits", "ShareInitializers", "StripMetadata"} <= {
        entry.__name__ for entry in PASSES
    }


@pytest.mark.parametrize("entry", PASSES, ids=lambda entry: entry.__name__)
def test_is_a_frozen_dataclass_that_shows_before_and_after(entry: type[Pass]) -> None:
    assert dataclasses.is_dataclass(entry)
    assert entry.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "Before:" in (entry.__doc__ or "")
    assert "After:" in (entry.__doc__ or "")


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.__name__)
def test_second_run_changes_nothing(entry: type[Pass], path: Path, tmp_path: Path) -> None:
    model = open_model(path)
    before = content(model, tmp_path)
    first = entry()(model)
    assert isinstance(first, PassResult)
    assert first.model is model
    after = content(model, tmp_path)
    assert first.modified == (after != before)
    assert not entry()(model).modified
    assert content(model, tmp_path) == after


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.__name__)
def test_outputs_do_not_change(entry: type[Pass], path: Path, tmp_path: Path) -> None:
    model = open_model(path)
    entry()(model)
    save(model, tmp_path / "after.onnx")
    check(tmp_path / "after.onnx")
    feed, before = outputs(path)
    _, after = outputs(tmp_path / "after.onnx", feed)
    assert list(after) == list(before)
    for name, array in before.items():
        rounding = 1e-5 if entry is FoldBatchNorm else 1e-6
        np.testing.assert_allclose(after[name], array, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.__name__)
def test_messy_model_is_a_case_for_every_pass(entry: type[Pass], build: Build) -> None:
    """Otherwise the tests above would prove little."""
    assert entry()(open_model(build(MESSY, functions=LAYER, opsets={"local": 1}, edit=_annotate, **ARRAYS))).modified
