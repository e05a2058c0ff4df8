"""A model in memory runs as its file does, and no weight of it is written or serialized for that."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from onnxprune.data.base import load_data
from onnxprune.errors import ModelError
from onnxprune.evaluation.benchmark.drift import drift
from onnxprune.evaluation.benchmark.memory import peak_memory
from onnxprune.evaluation.benchmark.suite import BenchmarkRequest, benchmark
from onnxprune.evaluation.metrics import evaluate, metric, outputs_of
from onnxprune.evaluation.verify import verify
from onnxprune.model.file import as_model, open_model
from onnxprune.model.signature import ports_of, synthetic_feed
from onnxprune.runtime import page_cache
from onnxprune.runtime import session as sessions
from onnxprune.runtime.latency import Setting, measure_latency
from onnxprune.runtime.session import Session
from tests.conftest import Build
from tests.test_verify import original_of

NET = """
    net (float[batch, 40] x) => (float[batch, 30] y)
    <float[40, 50] w1, float[50] b1, float[50, 30] w2>
    { h = Gemm(x, w1, b1)  r = Relu(h)  y = MatMul(r, w2) }
"""

MODELS = [
    "hf.bert.ts17fp16",  # half precision
    "hf.llama.ts17ext",  # external data
    "hm.if_subgraph.dy",  # bodies
    "hm.lstm.dy",
    "tv.shufflenet_v2_x0_5.ts17bn",
]


def assert_same_outputs(path: Path, model: ir.Model) -> None:
    for optimized in (False, True):
        file, memory = Session(path, optimized=optimized), Session(model, optimized=optimized)
        assert memory.inputs == file.inputs
        assert memory.outputs == file.outputs
        feed = synthetic_feed(file.inputs, {})
        expected, found = file.run(feed), memory.run(feed)
        for name, array in expected.items():
            assert found[name].tobytes() == array.tobytes()


@pytest.fixture(params=["in memory", "through a file"])
def bound(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to a session: a small model, and one that is taken for a large one."""
    if request.param != "in memory":
        monkeypatch.setattr(sessions, "MEMORY_BYTES", -1)
    return str(request.param)


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize("name", MODELS)
def test_memory_and_file_agree(zoo_file: Callable[[str], Path], name: str) -> None:
    path = zoo_file(name)
    assert_same_outputs(path, open_model(path))


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize("form", [onnx.load, Path.read_bytes, lambda path: ir.from_proto(onnx.load(path))])
def test_whatever_it_was_given_as(digits: dict[str, Path], form: Callable[[Path], Any]) -> None:
    for path in digits.values():
        assert_same_outputs(path, as_model(form(path)))


@pytest.mark.usefixtures("bound")
def test_weights_of_every_type(build: Build) -> None:
    """Each as an output, the big and the small, so that its bytes are seen."""
    types = onnx.TensorProto
    kinds = [types.FLOAT, types.FLOAT16, types.DOUBLE, types.INT8, types.UINT16, types.INT64, types.BOOL]

    def add(model: onnx.ModelProto) -> None:
        rng = np.random.default_rng(0)
        for kind in kinds:
            for size in (7, 3000):
                name = f"{types.DataType.Name(kind)}{size}"
                array = rng.integers(0, 2, size).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
                model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
                model.graph.node.append(onnx.helper.make_node("Identity", [name], [f"{name} out"]))
                model.graph.output.append(onnx.helper.make_tensor_value_info(f"{name} out", kind, [size]))
        packed = onnx.helper.make_tensor("packed", types.INT4, [50, 61], rng.integers(-8, 8, 50 * 61).tolist())
        words = onnx.helper.make_tensor("words", types.STRING, [2], [b"a", "é".encode()])
        scale = onnx.helper.make_tensor("scale", types.FLOAT, [], [1.0])
        model.graph.initializer.extend([packed, words, scale])
        model.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["packed", "scale"], ["packed out"]))
        model.graph.node.append(onnx.helper.make_node("Identity", ["words"], ["words out"]))
        model.graph.output.append(onnx.helper.make_tensor_value_info("packed out", types.FLOAT, [50, 61]))
        model.graph.output.append(onnx.helper.make_tensor_value_info("words out", types.STRING, [2]))

    path = build(NET, edit=add, opset=21)
    expected, model = Session(path), Session(open_model(path))
    feed = synthetic_feed(expected.inputs, {})
    found = model.run(feed)
    for name, array in expected.run(feed).items():
        assert np.array_equal(found[name], array), name


def test_initializers_that_are_inputs_too(build: Build) -> None:
    """Before IR version 4 every weight was listed as an input, whose default it is."""

    def old(model: onnx.ModelProto) -> None:
        model.ir_version = 3
        for weight in model.graph.initializer:
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
            )

    path = build(NET, edit=old, opset=8)
    model = open_model(path)
    file, memory = Session(path), Session(model)
    assert memory.inputs == file.inputs
    feed = synthetic_feed(ports_of(model), {})
    assert (memory.run(feed)["y"] == file.run(feed)["y"]).all()


def test_weights_are_handed_over_instead_of_being_serialized(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(build(NET))
    sizes = []
    make = onnxruntime.InferenceSession

    def noted(given: bytes, *args: Any, **options: Any) -> Any:
        sizes.append(len(given))
        return make(given, *args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    Session(model)
    assert sizes[0] < 1500
    assert sum(value.const_value.nbytes for value in model.graph.initializers.values()) > 14_000  # type: ignore[union-attr]


@pytest.mark.usefixtures("bound")
def test_a_session_has_weights_of_its_own(build: Build) -> None:
    """Whatever becomes of the model and its arrays, and of the file that they are mapped from."""
    path = build(NET)
    model = open_model(path)
    array = np.ones((40, 50), np.float32)
    model.graph.initializers["w1"].const_value = ir.Tensor(array, name="w1")
    session = Session(model)
    feed = synthetic_feed(session.inputs, {"batch": 3})
    before = session.run(feed)["y"]
    array[:] = 0
    model.graph.initializers["w2"].const_value = ir.Tensor(np.zeros((50, 30), np.float32), name="w2")
    path.unlink()
    del model
    gc.collect()
    assert before.any()
    assert (session.run(feed)["y"] == before).all()


def test_the_file_of_a_large_model_is_temporary(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MEMORY_BYTES", 1000)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(sessions.tempfile, "tempdir", str(folder))
    session = Session(open_model(build(NET)))
    (kept,) = folder.iterdir()
    assert {file.name for file in kept.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert session.run(synthetic_feed(session.inputs, {}))["y"].shape == (1, 30)
    del session
    gc.collect()
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("bound")
def test_a_model_that_cannot_be_loaded(build: Build) -> None:
    path = build("net (float[batch, 5] x) => (float[batch, 5] y) { y = acme.Mystery(x) }", opsets={"acme": 1})
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot load the model: .*Mystery") as caught:
        Session(open_model(path))
    assert "\n" not in str(caught.value)


# -- all that runs models takes both


def test_latency_of_a_model_in_memory(build: Build) -> None:
    path = build(NET)
    file, memory = measure_latency([path, open_model(path)], Setting(batch=2), rounds=3)
    assert file.model == str(path)
    assert memory.model == "the Model that was given"
    assert len(memory.seconds) == len(file.seconds) == 3
    assert memory.setting.batch == 2


def test_metrics_of_a_model_in_memory(build: Build) -> None:
    path = build(NET)
    model = open_model(path)
    data = load_data("synthetic", ports_of(model), samples=8)
    reference = list(outputs_of(model, data))
    assert evaluate(path, data, metric("agreement", False), reference) == 1.0
    assert evaluate(model, data, metric("snr", False), outputs_of(path, data)) == float("inf")


def test_an_original_in_memory_is_run_and_compared_with(build: Build) -> None:
    path = build(NET)
    original = original_of(as_model(onnx.load(path)))
    assert original.trials[0].results.keys() == {"y"}
    assert verify(path, original) == []


def test_where_the_checker_refuses_an_original_in_memory_too(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(NET.replace("float[batch, 30] y", "float[batch, 31] y"))  # the runtime goes by what it computes
    original = original_of(as_model(onnx.load(path)))
    (note,) = verify(path, original)
    assert note.startswith("the onnx checker refuses the original too")


def test_benchmark_of_models_in_memory(build: Build) -> None:
    path = build(NET)
    proto = onnx.load(path)
    found = benchmark([proto, path], BenchmarkRequest(rounds=2, profile=True))
    assert found.models == ("the Model that was given", str(path))
    assert found.file_bytes == (pytest.approx(path.stat().st_size, abs=20), path.stat().st_size)
    assert [each.max_difference for each in found.drift] == [0.0]
    assert found.measured[0][0].memory is not None
    assert {node.name for node in found.profiles[0].nodes} == {node.name for node in found.profiles[1].nodes}


def test_drift_and_memory_of_a_model_in_memory(build: Build) -> None:
    model = open_model(build(NET))
    feed = synthetic_feed(ports_of(model), {"batch": 2})
    (found,) = drift([model, model], [feed])
    assert found.max_difference == 0
    memory = peak_memory(model, Setting(), feed)
    assert memory is not None
    assert memory.added > 0


def test_a_thread_gives_pages_back_where_files_are_large_only(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread at every run would cost small models more than the run."""
    path = build("net (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w> { y = MatMul(x, w) }")
    started = []
    monkeypatch.setattr(page_cache.threading.Thread, "start", lambda thread: started.append(thread))
    monkeypatch.setattr(page_cache.threading.Thread, "join", lambda thread: None)
    assert page_cache.folder_with_much(tmp_path) is None
    Session(path).run({"x": np.eye(2, dtype=np.float32)})
    assert not started
    monkeypatch.setattr(page_cache, "_ALLOWED_BYTES", path.stat().st_size - 1)
    assert page_cache.folder_with_much(tmp_path) == tmp_path
    Session(path).run({"x": np.eye(2, dtype=np.float32)})
    assert len(started) == 2  # loading, and the run
    assert page_cache.folder_with_much(tmp_path / "none") is None
