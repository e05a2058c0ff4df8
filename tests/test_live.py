"""Memory of a run: which values are there at once, and batches that are cut to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import onnxprune as op
from onnxprune.analysis.inspect import inspect
from onnxprune.analysis.layers import layers
from onnxprune.analysis.live import live_bytes
from onnxprune.pipeline.opening import open_and_inspect
from onnxprune.statistics.accumulators import drawn_rows, layer_rows
from onnxprune.steps.base import Context
from tests.conftest import Build

BRANCHES = """
    net (float[3, 4] x) => (float[3, 2] y)
    <float[4, 5] a, float[4, 6] b, float[5, 7] c, float[6, 7] d, float[7, 2] e>
    { p = MatMul(x, a)  q = MatMul(x, b)  r = MatMul(p, c)  s = MatMul(q, d)  t = Add(r, s)  y = MatMul(t, e) }
"""
IMAGES = """
    net (float[n, 3, h, w] x) => (float[n, 2, h, w] y)
    <float[8, 3, 3, 3] a, float[2, 8, 3, 3] b>
    { h1 = Conv<pads = [1, 1, 1, 1]>(x, a)  r = Relu(h1)  y = Conv<pads = [1, 1, 1, 1]>(r, b) }
"""


def test_values_are_there_from_the_node_that_makes_them_to_the_last_that_reads_them(build: Build) -> None:
    """Most at once: r, s and their sum, when all before them are no longer read."""
    assert live_bytes(inspect(build(BRANCHES))) == 4 * 3 * (7 + 7 + 7)
    assert live_bytes(inspect(build(BRANCHES.replace("7", "4")))) == 4 * 3 * (4 + 5 + 6)  # x, p and q


def test_texts_count_like_numbers(build: Build) -> None:
    graph = """
        net (string[3, 1] names, float[3, 4] x) => (string[3, 1] same, float[3, 2] y) <float[4, 2] w>
        { same = Identity(names)  y = MatMul(x, w) }
    """
    assert live_bytes(inspect(build(graph))) == 4 * 3 * (1 + 4 + 2)


def test_batches_are_cut_to_what_fits(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(IMAGES)
    data = {"x": np.zeros((20, 3, 12, 10), np.float32)}
    given = open_and_inspect(path, Context(), data)
    assert given.data is not None
    assert [len(batch.feed["x"]) for batch in given.data.batches()] == [20]
    monkeypatch.setattr("onnxprune.pipeline.opening.bytes_for", lambda _: 26 * 16 * 120)  # 8 + 8 channels of 120 places
    given = open_and_inspect(path, Context(), data)
    assert given.data is not None
    assert [len(batch.feed["x"]) for batch in given.data.batches()] == [6, 6, 6, 2]


def test_images_of_another_size_are_not_unrolled(build: Build) -> None:
    """Of a value of another size than the analysis has, places are drawn before their windows are taken."""
    path, asked = build(IMAGES), []
    layer = list(layers(inspect(path)))[1]
    rows = layer.form.rows

    def seen(array: Any, positions: Any) -> Any:
        asked.append(array.nbytes if positions is None else 0)
        return rows(array, positions)

    value = np.random.default_rng(0).standard_normal((4, 8, 9, 11)).astype(np.float32)
    spied = replace(layer, form=replace(layer.form, rows=seen))
    view = drawn_rows(spied, (2, 8, 32, 32), (2, 2, 32, 32), np.random.default_rng(1), 50)
    (found,) = view(value, op.Data)  # type: ignore[arg-type]
    assert found.shape == (1, 4 * 50, 72)
    assert max(asked) == 9 * 11  # one sample, one channel, a byte each
    (whole,) = layer_rows(layer)(value, op.Data)  # type: ignore[arg-type]
    places = {tuple(row) for row in whole[0].round(4).tolist()}
    assert all(tuple(row) in places for row in found[0].round(4).tolist())
