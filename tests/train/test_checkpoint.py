"""Checkpoints: a training that is killed and resumed ends as if nothing had happened, and others' are refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.file import open_model, save
from onnxprune.steps.train import setup
from onnxprune.steps.train.checkpoint import read_checkpoint, write_checkpoint
from onnxprune.steps.train.distil import Teacher
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.reinitialize import reinitialize
from onnxprune.steps.train.setup import Running
from onnxprune.steps.train.trained import Trained
from tests.conftest import Build
from tests.train.harness import CONVOLUTIONS, LINEAR, blobs, options, pictures

# Everything that has a state: moments, a moving average, normalizations, drawn augmentation, an evaluation in between.
GIVEN: dict[str, Any] = {
    "updates": 24,
    "augment": ("crop", "flip"),
    "ema": 0.9,
    "evaluations": 5,
    "learning_rate": 5e-3,
}
SCRIPT = """
import os, signal, sys
from pathlib import Path
from onnxprune.model.file import open_model, save
from onnxprune.steps.train.loop import train_model
from onnxprune.steps.train.setup import Running
from onnxprune.support.progress import Counted
from tests.train.harness import options, pictures
from tests.train.test_checkpoint import GIVEN, teacher

model, kill_at, place, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]

def progress(line):
    if isinstance(line, Counted) and line.done == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

running = Running(progress=progress, checkpoint=place, every=0.0, resume=True)
trained = train_model(open_model(model), pictures(), options(**GIVEN), teacher=teacher(model), running=running)
save(trained.model, out)
"""


def teacher(path: str | Path) -> Teacher:
    model = open_model(path)
    reinitialize(model, seed=9)
    return Teacher(model)


@pytest.fixture
def network(build: Build, tmp_path: Path) -> Path:
    """A deployed network with weights of a sensible size."""
    model = open_model(build(CONVOLUTIONS, name="raw"))
    reinitialize(model)
    save(model, tmp_path / "network.onnx")
    return tmp_path / "network.onnx"


def resumed_after_kills(network: Path, kills: list[int], folder: Path) -> bytes:
    place, out = folder / "training.safetensors", folder / "resumed.onnx"
    for kill_at in (*kills, -1):
        command = [sys.executable, "-c", SCRIPT, str(network), str(kill_at), str(place), str(out)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert done.returncode == (-signal.SIGKILL if kill_at > 0 else 0), done.stderr
        assert out.exists() == (kill_at < 0)
    return out.read_bytes()


def test_after_a_kill_it_ends_as_if_nothing_had_happened(network: Path, tmp_path: Path) -> None:
    trained = train_model(open_model(network), pictures(), options(**GIVEN), teacher=teacher(network))
    assert trained.best.step == 24
    save(trained.model, tmp_path / "whole.onnx")
    assert resumed_after_kills(network, [4, 17], tmp_path) == (tmp_path / "whole.onnx").read_bytes()


def interrupted(network: Path, place: Path, at: int = 9, **given: Any) -> None:
    """A training that stops in the middle, right behind a checkpoint."""

    def progress(line: str) -> None:
        if f"step {at} of" in line:
            raise KeyboardInterrupt

    running = Running(progress=progress, checkpoint=place, every=0.0)
    with pytest.raises(KeyboardInterrupt):
        train_model(
            open_model(network), pictures(), options(**{**GIVEN, **given}), teacher=teacher(network), running=running
        )


def resume(network: Path, place: Path, **given: Any) -> Trained:
    running = Running(checkpoint=place, resume=True)
    return train_model(
        open_model(network), pictures(), options(**{**GIVEN, **given}), teacher=teacher(network), running=running
    )


@pytest.mark.parametrize("given", [
    {"optimizer": "sgd", "ema": 0.0},
    {},
    {"optimizer": "rmsprop", "normalization": "none", "accumulate": 2},
    {"augment": ("none",), "features": 1.0},
], ids=["sgd", "streamed", "rmsprop in parts", "what the teacher said"])  # fmt: skip
def test_every_kind_of_training_can_be_resumed(
    network: Path, tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not given:  # no memory for the samples: they are read again in every epoch
        monkeypatch.setattr(setup, "bytes_for", lambda _: 10_000)
    place = tmp_path / "training.safetensors"
    interrupted(network, place, **given)
    _, facts = read_checkpoint(place)
    assert facts["place"]["step"] == 8
    whole = train_model(open_model(network), pictures(), options(**{**GIVEN, **given}), teacher=teacher(network))
    found = resume(network, place, **given)
    assert found.losses == whole.losses
    assert found.history == whole.history
    save(whole.model, tmp_path / "whole.onnx")
    save(found.model, tmp_path / "resumed.onnx")
    assert (tmp_path / "whole.onnx").read_bytes() == (tmp_path / "resumed.onnx").read_bytes()


def test_a_training_that_has_ended_is_not_repeated(network: Path, tmp_path: Path) -> None:
    place = tmp_path / "training.safetensors"
    first = resume(network, place)  # there is none yet: from the beginning
    said: list[str] = []
    running = Running(progress=said.append, checkpoint=place, resume=True)
    again = train_model(open_model(network), pictures(), options(**GIVEN), teacher=teacher(network), running=running)
    assert not said
    assert again.losses == first.losses
    assert again.best == first.best
    assert again.seconds >= first.seconds


def test_without_resume_it_starts_anew(network: Path, tmp_path: Path) -> None:
    place = tmp_path / "training.safetensors"
    interrupted(network, place)
    trained = train_model(
        open_model(network), pictures(), options(**GIVEN), teacher=teacher(network), running=Running(checkpoint=place)
    )
    assert len(trained.losses) == 24


def test_checkpoints_of_other_trainings_are_refused(network: Path, build: Build, tmp_path: Path) -> None:
    place = tmp_path / "training.safetensors"
    interrupted(network, place)
    running = Running(checkpoint=place, resume=True)
    other = open_model(network)
    reinitialize(other, seed=1)
    with pytest.raises(UsageError, match=r"training.safetensors is a checkpoint of another model"):
        train_model(other, pictures(), options(**GIVEN), teacher=teacher(network), running=running)
    with pytest.raises(UsageError, match="with another teacher"):
        train_model(open_model(network), pictures(labelled=True), options(**GIVEN), running=running)
    with pytest.raises(UsageError, match="on other samples"):
        train_model(open_model(network), pictures(seed=1), options(**GIVEN), teacher=teacher(network), running=running)
    again = Running(checkpoint=place, resume=True, seed=1)
    with pytest.raises(UsageError, match="with another seed"):
        train_model(open_model(network), pictures(), options(**GIVEN), teacher=teacher(network), running=again)
    with pytest.raises(UsageError, match=r"with learning-rate 0.005, not 0.1; resume with the same options"):
        resume(network, place, learning_rate=0.1)


def test_files_that_are_no_checkpoints_are_refused(network: Path, tmp_path: Path) -> None:
    place = tmp_path / "training.safetensors"
    interrupted(network, place)
    whole = place.read_bytes()
    for content, said in ((whole[:-100], "damaged"), (b"", "not a checkpoint"), (b"x" * 100, "not a checkpoint")):
        place.write_bytes(content)
        with pytest.raises(ModelError, match=said):
            resume(network, place)
        assert place.read_bytes() == content
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, place)
    with pytest.raises(ModelError, match="is not a checkpoint of a training with onnxprune"):
        resume(network, place)


def test_a_crash_while_writing_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "training.safetensors"
    write_checkpoint(place, {"a": torch.zeros(3)}, {"n": 1})

    def failing(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", failing)
    with pytest.raises(ModelError, match=r"cannot write the checkpoint .*No space left on device"):
        write_checkpoint(place, {"a": torch.ones(3)}, {"n": 2})
    assert read_checkpoint(place)[1]["n"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]


def test_tensors_that_share_memory_and_bfloat16_are_kept(tmp_path: Path) -> None:
    place, base = tmp_path / "some.safetensors", torch.arange(6.0)
    tensors = {"a": base, "b": base[:], "c": base.to(torch.bfloat16), "d": base.reshape(2, 3).T}
    write_checkpoint(place, tensors, {})
    found, _ = read_checkpoint(place)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_checkpoint_needs_a_folder(build: Build, tmp_path: Path) -> None:
    running = Running(checkpoint=tmp_path / "nowhere" / "training.safetensors")
    with pytest.raises(UsageError, match="does not exist; create it first"):
        train_model(open_model(build(LINEAR)), blobs(), options(), running=running)
