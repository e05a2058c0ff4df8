"""Random graphs of all operators (tests/graph_strategies.py) with weights zeroed at random: nothing changes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest

from onnxprune.errors import ModelError
from onnxprune.model import check
from onnxprune.pipeline import inspect
from onnxprune.runtime.ort import Feed, Session, synthetic_feed
from tests.graph_net import RUNS
from tests.graph_strategies import seeded_graph
from tests.lossless.harness import check_facts, check_lossless, plant
from tests.oracle import distance

NOISE = 1e-6  # how much inputs are disturbed to see how far a graph blows rounding errors up


def prove(seed: int, steps: int, folder: Path) -> None:
    graph = seeded_graph(seed, steps)
    onnx.save(graph.model, folder / "model.onnx")
    path = folder / "planted.onnx"
    try:
        check(folder / "model.onnx")
        plant(inspect(folder / "model.onnx"), path, whole=seed % 2 == 0)
        session = Session(path)
        given = [synthetic_feed(session.inputs, sizes) for sizes in RUNS[: 1 + graph.dynamic]]
        noise = max(_noise(session, feed) for feed in given)
    except ModelError:
        return  # for ONNX Runtime's own operators, or not even for those
    if np.isfinite(noise):
        check_facts(path, given, max(1e-4, 10 * noise))
        check_lossless(path, given, max(1e-5, 10 * noise), again=False)


def _noise(session: Session, feed: Feed) -> float:
    disturbed = {n: array * np.float32(1 + NOISE) if array.dtype == np.float32 else array for n, array in feed.items()}
    first, second = session.run(feed), session.run(disturbed)
    finite = all(np.isfinite(array).all() for array in first.values() if array.dtype.kind == "f")
    return distance(second, first) if finite else float("inf")


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int, tmp_path: Path) -> None:
    prove(seed, 40, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 500, 20))
def test_many_random_graphs(start: int) -> None:
    for seed in range(start, start + 20):
        with TemporaryDirectory() as folder:
            prove(seed, 60, Path(folder))
