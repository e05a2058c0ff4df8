"""`--resume`: the command that is killed and called again ends with the same bytes as if it had never been killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import onnxprune as op
from onnxprune.errors import UsageError
from onnxprune.steps.train.checkpoint import read_checkpoint
from tests.conftest import ROOT, Build
from tests.train.harness import LINEAR, blobs

SAMPLES = ROOT / "models" / "digits_calibration.npz"
ASKED = [
    "compress",
    str(ROOT / "models" / "digits_resnet.onnx"),
    "--data",
    str(SAMPLES),
    "--steps",
    "2",
    "--train",
    "4",
]


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "onnxprune", *ASKED, "--resume", str(folder), "--save-every", "0", "-o", str(out)]
    around = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "-q"], env=around, stderr=subprocess.PIPE)


def killed_behind(folder: Path, out: Path, training: int, step: int) -> None:
    """Kill -9 once the checkpoint of a training has come so far."""
    process, place = start(folder, out), folder / f"training-{training}.safetensors"
    while not (place.exists() and read_checkpoint(place)[1]["place"]["step"] >= step):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()


@pytest.mark.slow
def test_a_command_that_is_killed_twice_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, again = tmp_path / "whole.onnx", tmp_path / "again.onnx"
    assert start(tmp_path / "never killed", whole).wait() == 0
    killed_behind(tmp_path / "killed", again, 1, 3)
    killed_behind(tmp_path / "killed", again, 2, 2)
    assert start(tmp_path / "killed", again).wait() == 0
    assert again.read_bytes() == whole.read_bytes()
    names = ["training-1.safetensors", "training-2.safetensors"]
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == names


def test_a_training_that_is_there_is_not_repeated(build: Build, tmp_path: Path) -> None:
    given = {"data": blobs(96), "updates": 12, "learning_rate": 0.02, "batch_size": 16, "resume": tmp_path}
    first = op.train(build(LINEAR), **given)
    said: list[str] = []
    again = op.train(build(LINEAR), **given, progress=said.append)
    assert again.report.trainings == first.report.trainings
    assert not any("step 1 of" in line for line in said)


def test_checkpoints_of_another_command_are_refused(build: Build, tmp_path: Path) -> None:
    given = {"updates": 4, "batch_size": 16, "resume": tmp_path}
    op.train(build(LINEAR), data=blobs(96), **given)
    for other, said in (
        ({"learning_rate": 0.5}, "with learning-rate None, not 0.5; resume with the same options"),
        ({"metric": "accuracy"}, "of a training with another metric"),
        ({"seed": 1}, "with another seed"),
        ({"data": blobs(95)}, "on other samples"),
    ):
        with pytest.raises(UsageError, match=said):
            op.train(build(LINEAR), **{"data": blobs(96), **given, **other})
    with pytest.raises(UsageError, match="of another model"):
        op.compress(build(LINEAR), data=blobs(96), ratio=0.25, train=1, batch_size=16, updates=4, resume=tmp_path)
