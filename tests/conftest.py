"""Shared by all tests: the files to work on, and a way to write a small model as text.

`shared`  the folder with the zoo and the real models (see its README.md), `zoo` its zoo.py, `zoo_file` a model of it
`digits`  the models that the project trained itself
`build`   ONNX's own textual syntax in, a model file out
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import settings

from onnxprune.support import registry as registries_module
from onnxprune.support.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED") or ROOT.parent / "shared")

Build = Callable[..., Path]

# A busy machine is not a fault: how long an example takes says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@contextlib.contextmanager
def forgotten(*registries: Registry[Any, Any]) -> Iterator[None]:
    """What is registered and loaded meanwhile is forgotten at the end, and plug-ins are looked for once more."""
    with contextlib.ExitStack() as stack:
        for registry in registries:
            registry.names()
            stack.enter_context(mock.patch.dict(registry._members))
        stack.enter_context(mock.patch.object(registries_module, "_LOADED", set()))
        yield


TORCH = importlib.util.find_spec("torch") is not None
collect_ignore_glob = (
    []
    if TORCH
    else [
        "conversion/test_*torch*.py",
        "runtime/test_torch*.py",
        "criteria/test_activations.py",
        "criteria/test_gradients.py",
        "runtime/test_accumulators.py",
        "steps/test_rewind.py",
        "train/*.py",
    ]
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sweeps over the whole zoo wait for `-m slow`."""
    if config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands print does not depend on how fast the machine is."""
    monkeypatch.setattr("onnxprune.report.progress.EVERY", 1e6)


@pytest.fixture(autouse=True)
def width_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as in a file, whatever the terminal that the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def quick_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs that a model without data gets are few and rough: for tests of anything but how good they are."""
    monkeypatch.setattr("onnxprune.statistics.made_up._SAMPLES", 32)
    monkeypatch.setattr("onnxprune.statistics.made_up._STEPS", 15)


def pytest_report_header() -> str:
    """What is not collected, and why: modules that import torch at their top."""
    left_out = ", ".join(collect_ignore_glob)
    return f"torch is not installed (pip install torch==2.13.0), left out: {left_out}" if left_out else ""


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} does not exist; set ONNXPRUNE_SHARED to the folder with zoo/, real/ and data/")
    return SHARED


@pytest.fixture(scope="session")
def zoo(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("zoo", shared / "zoo" / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def zoo_file(zoo: ModuleType, tmp_path: Path) -> Callable[[str], Path]:
    """`zoo_file(name)` writes a model of the zoo the way that its exporter did."""
    return lambda name: Path(zoo.save(name, str(tmp_path / f"{name}.onnx")))


@pytest.fixture(scope="session")
def digits() -> dict[str, Path]:
    """models/digits_*.onnx by what they are: resnet, transformer, lstm."""
    return {path.stem.removeprefix("digits_"): path for path in sorted((ROOT / "models").glob("*.onnx"))}


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """`build(graph)` writes a graph in ONNX's textual syntax to a file of its own.

    What the graph declares in its <...> and no node computes is a weight of normal numbers:

        build('''
            net (float[batch, 4] x) => (float[batch, 3] y)
            <float[4, 8] w, float[8, 3] v, int64[1] axes = {1}>
            { h = MatMul(x, w)  h2 = Relu(h)  y = MatMul(h2, v) }
        ''')

    Keywords: `opset` (17), `opsets` of other domains, `functions` as text, `edit` to change the ModelProto before it is
    written, `name` of the file, and arrays for weights that have to be something else than normal numbers.
    """

    def write(
        graph: str,
        *,
        opset: int = 17,
        opsets: dict[str, int] | None = None,
        functions: str = "",
        edit: Callable[[onnx.ModelProto], None] = lambda model: None,
        name: str = "model",
        **arrays: Any,
    ) -> Path:
        imports = ", ".join(f'"{domain}" : {version}' for domain, version in {"": opset, **(opsets or {})}.items())
        model = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]>\n{graph}\n{functions}")
        _add_weights(model.graph, arrays)
        edit(model)
        path = tmp_path / f"{name}.onnx"
        onnx.save_model(model, path)
        return path

    return write


def _add_weights(graph: onnx.GraphProto, arrays: dict[str, Any]) -> None:
    """Give every declared value that has no content and no producer one."""
    rng = np.random.default_rng(0)
    made = {name for node in graph.node for name in node.output} | {weight.name for weight in graph.initializer}
    for value in [value for value in graph.value_info if value.name not in made]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        array = arrays.pop(value.name) if value.name in arrays else rng.standard_normal(shape)
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, dtype).reshape(shape), value.name))
        graph.value_info.remove(value)
    assert not arrays, f"the graph declares no {sorted(arrays)}"


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `code`, however that ends."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\n', *{name.partition('.')[0] for name in sys.modules}))\n"
        f"{code}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return set(done.stdout.splitlines()[-1].split())


# One projection makes queries, keys and values: its columns are Product(3, heads, head size).
FUSED_ATTENTION = """
    net (float[batch, 7, 24] x) => (float[batch, 7, 24] y)
    <float[24, 72] qkv, float[72] bias, float[24, 24] out,
     int64[5] apart = {0, 7, 3, 4, 6}, int64[3] merge = {0, 7, 24},
     int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}>
    {
        h = MatMul(x, qkv)  hb = Add(h, bias)  t = Reshape(hb, apart)  u = Transpose<perm = [2, 0, 3, 1, 4]>(t)
        q = Gather<axis = 0>(u, i0)  k = Gather<axis = 0>(u, i1)  v = Gather<axis = 0>(u, i2)
        kt = Transpose<perm = [0, 1, 3, 2]>(k)
        qk = MatMul(q, kt)  w = Softmax<axis = -1>(qk)  av = MatMul(w, v)
        back = Transpose<perm = [0, 2, 1, 3]>(av)  flat = Reshape(back, merge)
        y = MatMul(flat, out)
    }
"""
