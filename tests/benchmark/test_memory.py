"""Memory of a model in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from onnxprune.evaluation.benchmark.memory import peak_memory
from onnxprune.runtime.latency import Setting
from tests.conftest import Build

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not measured there")


def test_a_large_weight_shows(build: Build) -> None:
    graph = "net (float[batch, 1000] x) => (float[batch, {n}] y) <float[1000, {n}] w> {{ y = MatMul(x, w) }}"
    feed = {"x": np.zeros((1, 1000), np.float32)}
    small, large = (peak_memory(build(graph.format(n=n), name=f"m{n}"), Setting(), feed) for n in (4, 4000))
    assert small is not None
    assert large is not None
    assert small.peak > small.added > 0
    assert large.added - small.added > 15e6  # the weight alone is 16 MB


def test_none_where_it_cannot_be_measured(build: Build, tmp_path: Path) -> None:
    path = build("net (float[batch, 3] x) => (float[batch, 3] y) { y = Relu(x) }")
    assert peak_memory(path, Setting(), {"x": np.array([["a"]], dtype=object)}) is None
    assert peak_memory(tmp_path / "gone.onnx", Setting(), {"x": np.zeros((1, 3), np.float32)}) is None
