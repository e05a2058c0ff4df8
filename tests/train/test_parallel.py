"""Several processes: each step is that of one process, on all of the batch, statistics included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.model.file import open_model
from onnxprune.steps.train.parallel import Processes
from onnxprune.steps.train.samples import Portion
from tests.train.harness import data_of, normal, weights
from tests.train.networks import exported, made

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("parallel_script.py")
GIVEN: dict[str, Any] = {
    "updates": 3, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.02, "rate_warmup": 0.0,
    "normalization": "none", "augment": ["crop", "flip"], "holdout": 0.0, "keep": "last", "statistics": "batch",
    "smoothing": 0.1,
}  # fmt: skip
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def run(count: int, model: Path, out: Path, *more: str, **given: Any) -> None:
    start = [*TORCHRUN, str(count)] if count > 1 else []
    command = [sys.executable, *start, str(SCRIPT), str(model), str(out), json.dumps({**GIVEN, **given}), *more]
    around = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=around)
    assert done.returncode == 0, done.stderr


def result(out: Path, rank: int = 0) -> tuple[dict[str, Any], list[Any]]:
    model = open_model(out.with_name(f"{out.stem}.{rank}.onnx"))
    return weights(model), json.loads(out.with_name(f"{out.stem}.{rank}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "encoder"])
def test_two_processes_do_what_one_does(name: str, tmp_path: Path) -> None:
    path = exported(made(name), tmp_path / "model.onnx")
    run(1, path, tmp_path / "one")
    run(2, path, tmp_path / "two")
    one, (_, samples, _) = result(tmp_path / "one")
    first, (_, both, _) = result(tmp_path / "two", 0)
    second, _ = result(tmp_path / "two", 1)
    assert samples == both == 48
    before = weights(open_model(path))
    for key, array in one.items():
        assert np.array_equal(first[key], second[key])
        np.testing.assert_allclose(first[key], array, atol=1e-5)
    assert any(not np.array_equal(before[key], array) for key, array in one.items())


@pytest.mark.slow
def test_the_state_of_the_optimizer_can_be_spread_and_resumed(tmp_path: Path) -> None:
    path = exported(made("residual"), tmp_path / "model.onnx")
    given = {"optimizer": "adamw", "learning_rate": 1e-3}
    run(2, path, tmp_path / "whole", **given)
    run(2, path, tmp_path / "spread", str(tmp_path / "state.safetensors"), **given, shard="optimizer")
    for key, array in result(tmp_path / "whole")[0].items():
        np.testing.assert_allclose(result(tmp_path / "spread")[0][key], array, atol=1e-6)


def command(count: int, out: Path, model: Path) -> subprocess.CompletedProcess[str]:
    """`onnxprune compress` in rounds that train, in so many processes."""
    start = [*TORCHRUN, str(count)] if count > 1 else []
    samples = ROOT / "models" / "digits_calibration.npz"
    asked = ["compress", str(model), "--data", str(samples), "--steps", "2", "--train", "0.5", "-o", str(out), "--json"]
    around = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *start, "-m", "onnxprune", *asked], capture_output=True, text=True, env=around
    )


@pytest.mark.slow
def test_the_command_runs_in_two_processes_and_one_of_them_writes(tmp_path: Path, digits: dict[str, Path]) -> None:
    one = command(1, tmp_path / "one.onnx", digits["resnet"])
    two = command(2, tmp_path / "two.onnx", digits["resnet"])
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    first, second = (json.loads(done.stdout) for done in (one, two))  # one document, of one process
    assert [each["updates"] for each in second["trainings"]] == [each["updates"] for each in first["trainings"]]
    before, after = (weights(open_model(tmp_path / f"{name}.onnx")) for name in ("one", "two"))
    for key, array in before.items():
        np.testing.assert_allclose(after[key], array, atol=1e-4)


def portion(count: int, *, whole: bool = False) -> Portion:
    return Portion(next(data_of({"x": normal(count, 2)}, size=count).batches()), np.arange(count), whole)


def test_every_sample_goes_to_one_process() -> None:
    found = [
        (part.numbers.tolist(), start)
        for rank in range(3)
        for part, start in Processes(rank, 3).parts([portion(12)], 12)
    ]
    assert found == [([0, 1, 2, 3], 0), ([4, 5, 6, 7], 4), ([8, 9, 10, 11], 8)]


def test_whole_portions_are_dealt_out() -> None:
    update = [portion(2, whole=True) for _ in range(4)]
    places = [[start for _, start in Processes(rank, 2).parts(update, 8)] for rank in range(2)]
    assert places == [[0, 4], [2, 6]]


def test_batches_that_cannot_be_parted_are_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 12 samples cannot go evenly to 5 processes"):
        Processes(0, 5).parts([portion(12)], 12)
    with pytest.raises(UsageError, match="3 batches of the data to an update cannot go to 2 processes"):
        Processes(0, 2).parts([portion(2, whole=True)] * 3, 6)
