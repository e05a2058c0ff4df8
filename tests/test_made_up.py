"""Without data: inputs are made up, and what is fitted to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune as op
from onnxprune.analysis.inspect import inspect
from onnxprune.data.batch import length_of
from onnxprune.errors import ModelError
from onnxprune.pipeline import run as pipeline
from onnxprune.statistics import made_up
from onnxprune.statistics.made_up import made_up_samples
from tests.conftest import Build

MODELS = Path(__file__).resolve().parents[1] / "models"


def network(build: Build, batch: str = "batch") -> Path:
    graph = """
        net (float[BATCH, 6] x) => (float[BATCH, 3] y)
        <float[6, 16] first, float[16, 3] second>
        { h = MatMul(x, first)
          r = Relu(h)
          y = MatMul(r, second) }
    """
    rng = np.random.default_rng(0)
    return build(graph.replace("BATCH", batch), first=rng.standard_normal((6, 16)), second=rng.standard_normal((16, 3)))


def test_sizes_that_the_analysis_found_are_taken_where_the_usual_ones_do_not_run(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = """
        net (float[batch, length, 6] x) => (float[batch, length, 4] y) <float[9, 6] places, float[6, 4] weight>
        { s = Add(x, places)
          y = MatMul(s, weight) }
    """
    analysis = inspect(build(graph, places=np.ones((9, 6)), weight=np.ones((6, 4))))
    monkeypatch.setitem(analysis.shapes.bindings, "length", 9)
    batches = list(made_up_samples(analysis).batches())
    assert sum(map(length_of, batches)) == 128
    assert batches[0].feed["x"].shape[1] == 9


def test_large_networks_get_fewer_samples_and_the_largest_no_gradients(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    analysis, macs = inspect(network(build)), 6 * 16 + 16 * 3

    def samples(passes: int) -> np.ndarray:
        monkeypatch.setattr(made_up, "_MACS", 3 * macs * passes)
        monkeypatch.setattr(made_up, "_CALL", 0)
        return np.concatenate([batch.feed["x"] for batch in made_up_samples(analysis).batches()])

    drawn, fewer, most = samples(32), samples(40 * 50), samples(10**9)
    assert [len(drawn), len(fewer), len(most)] == [32, 50, 128]
    monkeypatch.setattr(made_up, "_FEWEST_STEPS", 10**10)
    plain = samples(10**9)
    assert np.array_equal(most[64:], plain[1::2])  # there is no BatchNormalization, so every other one stays
    assert np.abs(most[:64] - plain[::2]).max() > 0.1


def test_networks_of_one_sample_at_a_time_get_fewer(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a node takes its time, however small the batch."""
    pytest.importorskip("torch")
    macs = 6 * 16 + 16 * 3
    monkeypatch.setattr(made_up, "_MACS", 40 * 40 * (3 * macs + 3000))
    monkeypatch.setattr(made_up, "_CALL", 1000)
    fixed = network(build, batch="1")
    assert sum(map(length_of, made_up_samples(inspect(fixed)).batches())) == 40
    assert sum(map(length_of, made_up_samples(inspect(network(build))).batches())) == 128


def test_compress_without_data_recovers_on_made_up_inputs(build: Build) -> None:
    result = op.compress(network(build), ratio=0.25)
    assert result.report.recovery == "reconstruct"
    assert any("made-up inputs" in note for note in result.report.notes)
    plain = op.compress(network(build), ratio=0.25, recover="none")
    assert plain.report.recovery == "none"
    assert not any("made-up" in note for note in plain.report.notes)


def test_where_no_inputs_can_be_made_up_a_note_says_so(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelError("nothing fits")

    monkeypatch.setattr(pipeline, "made_up_samples", refuse)
    result = op.compress(network(build), ratio=0.25)
    assert "no inputs could be made up, so nothing was fitted: nothing fits" in result.report.notes
    assert result.report.after.parameters < result.report.before.parameters


@pytest.mark.slow
def test_half_of_a_trained_network_is_recovered_without_data() -> None:
    """448 of 450 before; 46 with nothing recovered, about 370 on inputs that are drawn only."""
    pytest.importorskip("torch")
    test = np.load(MODELS / "digits_test.npz")
    result = op.compress(MODELS / "digits_resnet.onnx", ratio=0.5)
    import onnxruntime

    session = onnxruntime.InferenceSession(result.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    right = (session.run(None, {"input": test["input"]})[0].argmax(1) == test["labels"]).sum()
    assert right >= 0.95 * 450
