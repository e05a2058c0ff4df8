"""A small classifier with its samples, and searches of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Build

NET = """
    net (float[batch, 12] x) => (float[batch, 6] y)
    <float[12, 24] a, float[24, 16] b, float[16, 6] c>
    { h = MatMul(x, a)  r = Relu(h)  k = MatMul(r, b)  s = Relu(k)  y = MatMul(s, c) }
"""
SPACE = """
[[step]]
step = "prune"
ratio = { low = 0.1, high = 0.8 }
tilt = [{ low = -1, high = 1 }, { low = -1, high = 1 }]

[[step]]
step = "recover"
"""


@pytest.fixture
def here(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.onnx, samples.npz and space.toml, which is the current one."""
    monkeypatch.chdir(tmp_path)
    build(NET)
    x = np.random.default_rng(0).standard_normal((96, 12)).astype(np.float32)
    np.savez("samples.npz", x=x, labels=(np.arange(96) % 6).astype(np.int64))
    Path("space.toml").write_text(SPACE)
    return tmp_path


def searched(**options: Any) -> Any:
    from onnxprune.pipeline.search.run import search

    settings = {"space": Path("space.toml"), "trials": 9, "minimize": ["macs", "drop"], **options}
    return search(Path("model.onnx"), data="samples.npz", **settings)


def values(found: Any) -> list[list[float]]:
    """Of every candidate, in their order."""
    return [[each.measured[aim.text].value for aim in found.request.aims] for each in found.candidates]
