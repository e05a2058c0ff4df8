"""What every pass promises, asserted for every pass that there is: adding a file to passes/ puts it under this test.

- It is a frozen dataclass; its fields are its options; its docstring shows the graph before and after.

And for those that need no arguments (the others are parts of a removal or of a recovery, which are there to change the
outputs; they have oracles of their own):

- `modified=False` means that the model is equal; a second run changes nothing.
- The outputs of the model do not change.
- There is a case for it: the sample of a clean-up, else the messy model below.
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
from onnxprune.errors import UsageError
from onnxprune.model.check import check_model
from onnxprune.model.file import open_model, save
from onnxprune.model.signature import synthetic_feed
from onnxprune.passes.base import CLEAN_UPS, Pass, PassResult, in_order
from onnxprune.runtime.session import Session
from onnxprune.steps import recover
from tests.conftest import Build


def discovered() -> list[type[Pass]]:
    """The classes in the rooms of passes that are called with a model and give a PassResult."""
    found = []
    for room in (passes, recover):
        for info in pkgutil.iter_modules(room.__path__):
            module = importlib.import_module(f"{room.__name__}.{info.name}")
            found += [
                entry
                for name, entry in vars(module).items()
                if isinstance(entry, type) and entry.__module__ == module.__name__ and not name.startswith("_")
            ]
    bases = {base for entry in found for base in entry.__mro__[1:]}
    return [
        entry for entry in found if entry not in bases and dataclasses.is_dataclass(entry) and gives_a_result(entry)
    ]


def gives_a_result(entry: type) -> bool:
    return getattr(entry.__call__, "__annotations__", {}).get("return") == "PassResult"  # type: ignore[operator]


def needs_nothing(entry: Any) -> bool:
    fields = dataclasses.fields(entry)
    return all(field.default is not field.default_factory for field in fields)  # both are MISSING where one is needed


PASSES = discovered()
EXACT = [entry for entry in PASSES if needs_nothing(entry)]
SAMPLES = {CLEAN_UPS[name].make: CLEAN_UPS[name].sample for name in CLEAN_UPS}

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
        return messy(build)
    if request.param == "if_subgraph":
        zoo_file: Callable[[str], Path] = request.getfixturevalue("zoo_file")
        return zoo_file("hm.if_subgraph.dy")
    return digits[request.param]


def messy(build: Build) -> Path:
    return build(MESSY, functions=LAYER, opsets={"local": 1}, edit=_annotate, **ARRAYS)


def case_for(entry: type[Pass], build: Build) -> Path:
    """A model with something to do for a pass."""
    return build(SAMPLES[entry]) if entry in SAMPLES else messy(build)


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


def second_run_changes_nothing(entry: type[Pass], path: Path, folder: Path) -> bool:
    """Asserts it, and whether the first run changed something."""
    model = open_model(path)
    before = content(model, folder)
    first = entry()(model)
    assert isinstance(first, PassResult)
    assert first.model is model
    after = content(model, folder)
    assert first.modified == (after != before)
    assert not entry()(model).modified
    assert content(model, folder) == after
    return first.modified


def outputs_do_not_change(entry: type[Pass], path: Path, folder: Path) -> None:
    model = open_model(path)
    entry()(model)
    save(model, folder / "after.onnx")
    check_model(folder / "after.onnx")
    feed, before = outputs(path)
    _, after = outputs(folder / "after.onnx", feed)
    assert list(after) == list(before)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.__name__)
def test_second_run_changes_nothing(entry: type[Pass], path: Path, tmp_path: Path) -> None:
    second_run_changes_nothing(entry, path, tmp_path)


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.__name__)
def test_outputs_do_not_change(entry: type[Pass], path: Path, tmp_path: Path) -> None:
    outputs_do_not_change(entry, path, tmp_path)


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.__name__)
def test_there_is_a_case_for_every_pass(entry: type[Pass], build: Build, tmp_path: Path) -> None:
    """Otherwise the tests above would prove little."""
    path = case_for(entry, build)
    assert second_run_changes_nothing(entry, path, tmp_path)
    outputs_do_not_change(entry, path, tmp_path)


# -- clean-ups


def test_clean_ups_that_change_nodes_come_first() -> None:
    names = [found.name for found in in_order({"equalize", "fold-batchnorm"})]
    assert names == ["fold-batchnorm", "equalize"]
    with pytest.raises(UsageError, match="unknown clean-up 'equalise'; did you mean 'equalize'"):
        in_order({"equalise"})


@pytest.mark.parametrize("name", CLEAN_UPS)
def test_clean_up_says_what_it_does_in_one_line(name: str) -> None:
    assert 3 <= len(CLEAN_UPS[name].summary.split()) <= 25
