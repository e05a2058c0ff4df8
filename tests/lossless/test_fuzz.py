"""Random graphs of all operators (tests/graph_strategies.py) with weights zeroed at random: nothing changes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest

from onnxprune.errors import ModelError
from onnxprune.model.check import check_model
from onnxprune.model.signature import synthetic_feed
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.session import Session
from tests.graph_net import RUNS
from tests.graph_strategies import seeded_graph
from tests.lossless.harness import TOLERANCE, check_facts, check_lossless, noise, plant


def prove(seed: int, steps: int, folder: Path) -> None:
    graph = seeded_graph(seed, steps)
    onnx.save(graph.model, folder / "model.onnx")
    path = folder / "planted.onnx"
    try:
        check_model(folder / "model.onnx")
        plant(inspect(folder / "model.onnx"), path, whole=seed % 2 == 0)
        session = Session(path)
        given = [synthetic_feed(session.inputs, sizes) for sizes in RUNS[: 1 + graph.dynamic]]
        rounding = noise(session, given)
    except ModelError:
        return  # for ONNX Runtime's own operators, or not even for those
    if np.isfinite(rounding):
        check_facts(path, given, max(1e-4, rounding))
        check_lossless(path, given, max(TOLERANCE, rounding), again=False)


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int, tmp_path: Path) -> None:
    prove(seed, 40, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 500, 20))
def test_many_random_graphs(start: int) -> None:
    for seed in range(start, start + 20):
        with TemporaryDirectory() as folder:
            prove(seed, 60, Path(folder))
