"""The measuring loop: what is run, how often, in which order. Never how long it takes."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.signature import Port
from onnxprune.runtime import latency
from onnxprune.runtime.latency import Latency, Setting, measure_latency
from tests.conftest import Build

NET = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] w, float[8, 3] v> { h = MatMul(x, w)  y = MatMul(h, v) }
"""
FAST = Setting(warmup=1)


def test_every_round_times_every_model(digits: dict[str, Path]) -> None:
    paths = [digits["resnet"], digits["lstm"], digits["resnet"]]
    found = measure_latency(paths, FAST, rounds=27)
    assert [each.model for each in found] == [str(path) for path in paths]
    for each in found:
        assert len(each.seconds) == len(each.sessions) == 27
        assert len(each.load_seconds) == latency.SESSIONS
        assert min(each.seconds) > 0
        assert each.sessions == found[0].sessions == tuple(sorted(each.sessions))
        assert {each.sessions.count(session) for session in range(latency.SESSIONS)} == {2, 3}
        assert each.setting == FAST
        assert each.sizes == {"batch": 1}


def test_a_short_time_still_times_every_session(digits: dict[str, Path]) -> None:
    (found,) = measure_latency([digits["transformer"]], FAST, seconds=1e-9)
    assert found.sessions == tuple(range(latency.SESSIONS))


def test_order_is_drawn_from_the_seed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    time = latency._Turn.time
    monkeypatch.setattr(latency._Turn, "time", lambda turn, session: (order.append(turn.name), time(turn, session)))
    one, other = build(NET), build(NET, name="other")

    def ordered(seed: int) -> list[str]:
        order.clear()
        measure_latency([one, other], FAST, rounds=30, seed=seed)
        return list(order)

    first = ordered(1)
    assert first == ordered(1) != ordered(2)
    assert {tuple(first[i : i + 2]) for i in range(0, 60, 2)} == {(str(one), str(other)), (str(other), str(one))}


def test_numbers_of_known_times() -> None:
    seconds = tuple(i / 1000 for i in range(1, 101))
    found = Latency("m", Setting(batch=4), seconds, (0,) * 100, (), (0.1,), {})
    assert found.median == pytest.approx(0.0505)
    assert found.p90 == pytest.approx(0.0901)
    assert found.p99 == pytest.approx(0.09901)
    assert found.throughput == pytest.approx(4 / 0.0505)


@pytest.mark.skipif(sys.platform == "win32", reason="processor time is too coarse there")
def test_processor_time_is_kept_for_one_thread(digits: dict[str, Path]) -> None:
    (one,), (two,) = (measure_latency([digits["lstm"]], Setting(threads=n, warmup=1), rounds=12) for n in (1, 2))
    assert len(one.processor_seconds) == len(one.seconds) == 12
    assert all(0 < inner <= outer for inner, outer in zip(one.processor_seconds, one.seconds, strict=True))
    assert two.processor_seconds == ()


def test_batch_and_sizes_reach_the_model(build: Build) -> None:
    path = build("net (float[batch, seq, 5] x) => (float[batch, seq, 5] y) { y = Relu(x) }")
    (found,) = measure_latency([path], Setting(batch=6, warmup=1), rounds=1, sizes={"seq": 7})
    assert found.sizes == {"batch": 6, "seq": 7}
    assert found.setting.batch == 6
    (found,) = measure_latency([path], FAST, rounds=1, sizes={"batch": 3})
    assert (found.setting.batch, found.sizes["batch"]) == (3, 3)


def test_a_fixed_batch_counts_as_it_is(build: Build) -> None:
    path = build("net (float[4, 5] x) => (float[4, 5] y) { y = Relu(x) }")
    (found,) = measure_latency([path], FAST, rounds=1)
    assert found.setting.batch == 4
    with pytest.raises(
        UsageError, match=r"batch 64 cannot be run: the model's inputs have fixed sizes .'x' float.4, 5.."
    ):
        measure_latency([path], Setting(batch=64), rounds=1)


def test_given_inputs_are_what_runs(build: Build) -> None:
    path = build(NET)
    (found,) = measure_latency([path], FAST, rounds=1, feed={"x": np.zeros((9, 5), np.float32)})
    assert found.setting.batch == 9
    with pytest.raises(UsageError, match="takes the inputs x, but the data has z"):
        measure_latency([path], FAST, rounds=1, feed={"z": np.zeros((9, 5), np.float32)})
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run model.onnx: .*x"):
        measure_latency([path], FAST, rounds=1, feed={"x": np.zeros((9, 6), np.float32)})


def test_models_with_other_inputs_are_not_compared(build: Build) -> None:
    one = build(NET)
    other = build("net (float[batch, 5] z) => (float[batch, 5] y) { y = Relu(z) }", name="other")
    with pytest.raises(UsageError, match=r"other.onnx takes the inputs z, but the data has x as .*model.onnx"):
        measure_latency([one, other], FAST, rounds=1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rounds": 0}, "rounds 0"),
        ({"seconds": 0.0}, "seconds 0"),
        ({"seconds": float("inf")}, "seconds inf"),
        ({"seconds": float("nan")}, "seconds nan"),
        ({"setting": Setting(batch=0)}, "batch 0"),
        ({"setting": Setting(threads=-1)}, "threads -1"),
        ({"setting": Setting(threads=100_000)}, "threads 100000 makes no sense: give at most 1024"),
        ({"setting": Setting(warmup=-1)}, "warmup -1"),
    ],
)
def test_numbers_that_make_no_sense(digits: dict[str, Path], arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure_latency([digits["lstm"]], **arguments)


def test_no_model_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        measure_latency([])
    with pytest.raises(ModelError, match=r"cannot load gone\.onnx"):
        measure_latency([tmp_path / "gone.onnx"])


def test_short_runs_are_timed_several_at_a_time(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 30 microseconds is repeated to 200; one of 1 second is not, and is not settled before."""
    now = 0.0
    runs: list[float] = []

    def run(length: float) -> None:
        nonlocal now
        now += length
        runs.append(length)

    monkeypatch.setattr(latency, "perf_counter", lambda: now)
    monkeypatch.setattr(latency, "_runner", lambda *_: lambda: run(length))
    for length, timed, settled in ((3e-5, 7, 1), (1.0, 1, 0)):
        runs.clear()
        (found,) = measure_latency([build(NET)], FAST, rounds=1)
        assert found.seconds == (pytest.approx(length, rel=1e-3),)
        assert len(runs) == 1 + 3 + settled + timed
    assert gc.isenabled()


def test_warm_up_does_not_outlast_the_measurement(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def run() -> None:
        nonlocal now
        now += 1.0

    monkeypatch.setattr(latency, "perf_counter", lambda: now)
    monkeypatch.setattr(latency, "_runner", lambda *_: run)
    measure_latency([build(NET)], Setting(warmup=100), seconds=20)
    assert now < 12 * (2 + 3 + 2) + 3  # per session: warm-up of two seconds and a bit, and two of measuring


def test_inputs_and_outputs_stay_on_a_device(digits: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU in the part of a device that has its own memory: the bound run computes what the plain one does."""
    path = digits["resnet"]
    session = latency.deployed_session(path, "CPUExecutionProvider")
    bound: list[Any] = []
    binding = session.io_binding
    monkeypatch.setattr(session, "io_binding", lambda: bound.append(binding()) or bound[-1])
    feed = latency.made_inputs([Port("input", "tensor(float)", ("batch", 1, 8, 8))], 3)
    latency._runner(session, feed, "cpu")()
    np.testing.assert_array_equal(bound[0].copy_outputs_to_cpu()[0], session.run(None, feed)[0])
    monkeypatch.setattr(latency, "_DEVICES", {"CPUExecutionProvider": "cpu"})
    (found,) = measure_latency([path], FAST, rounds=3)
    assert len(found.seconds) == 3
