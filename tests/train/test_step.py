"""The step `train`: in recipes, in Python and on the command line; and which samples it sees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import onnxprune as op
from onnxprune.cli import main
from onnxprune.errors import MissingExtraError, UsageError
from onnxprune.model.file import open_model
from onnxprune.pipeline.samples import Sources
from onnxprune.steps.base import Context
from onnxprune.steps.state import State
from onnxprune.steps.train.samples import TrainingSamples
from tests.conftest import ROOT, Build
from tests.train.harness import LINEAR, blobs, normal, weights

CALIBRATION = ROOT / "models" / "digits_calibration.npz"
SHORT = ["--updates", "6", "--batch-size", "64", "--evaluations", "2", "--learning-rate", "1e-4"]


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, args)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def cut(digits: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A pruned file and its plan."""
    small, plan = tmp_path / "small.onnx", tmp_path / "plan.json"
    op.compress(digits["resnet"], ratio=0.5, recover="none").save(small, plan=plan)
    return small, plan


def test_compress_trains_when_it_is_asked_to(build: Build) -> None:
    path = build(LINEAR)
    result = op.compress(path, data=blobs(200), ratio=0.25, train=40, learning_rate=0.03, batch_size=32)
    assert [step["step"] for step in result.recipe["step"]] == ["prune", "recover", "train", "clean"]
    assert result.recipe["step"][2] == {"step": "train", "epochs": 40.0, "learning_rate": 0.03, "batch_size": 32}
    (training,) = result.report.trainings
    assert training["metric"] == "accuracy"
    assert training["best"]["loss"] < training["start"]["loss"]
    assert "trained on 180 samples, evaluated on 20 others" in result.report.notes
    assert any("chosen and recovered on the samples that are trained on" in note for note in result.report.notes)
    assert "trained for" in repr(result)


def test_every_round_trains_what_the_last_one_left(build: Build) -> None:
    recipe = op.Recipe(
        [op.Repeat(times=3, steps=[op.Prune(ratio=0.5), op.Recover(), op.Train(updates=5, batch_size=16)])]
    )
    found = recipe(build(LINEAR), data=blobs(96))
    starts = [training["start"]["loss"] for training in found.report.trainings]
    assert len(set(starts)) == 3
    assert [record.step for record in found.state.records if record.step == "train"] == ["train"] * 3
    assert sum(note.startswith("trained on") for note in found.report.notes) == 1  # of the last round


def test_the_original_teaches_without_labels(build: Build, tmp_path: Path) -> None:
    path = build(LINEAR)
    small = op.compress(path, ratio=0.25, criterion="random", recover="none")
    small.save(tmp_path / "small.onnx", plan=tmp_path / "plan.json")
    x = normal(200, 4)
    found = op.train(tmp_path / "small.onnx", data=x, teacher=path, epochs=40, batch_size=32, features=0.1)
    (training,) = found.report.trainings
    assert training["metric"] == "agreement"
    assert training["best"]["loss"] < training["start"]["loss"]
    (said,) = (note for note in found.report.notes if note.startswith("inner values beside the original's: "))
    assert "none that fit" not in said
    assert not any("not known" in note for note in found.report.notes)


def test_zeros_stay_zero(build: Build) -> None:
    mask = np.random.default_rng(0).random((4, 8)) < 0.5
    state = op.Reinitialize()(replace(State.of(op.inspect(build(LINEAR))), zeros={"w": mask}), Context())
    found = op.Train(updates=10, learning_rate=0.05, batch_size=16, distil=0)(state, Context(data=blobs(96)))
    after, before = (weights(each.model)["w"] for each in (found, state))
    assert (after[~mask] == 0).all()
    assert (after[mask] != before[mask]).any()
    assert list(found.zeros) == ["w"]
    assert (found.zeros["w"] == mask).all()


def test_another_network_may_teach(build: Build) -> None:
    small, other = build(LINEAR, name="small"), build(LINEAR.replace("8", "16"), name="other")
    found = op.train(small, data=normal(100, 4), teacher=other, updates=20, learning_rate=0.02)
    assert found.report.trainings[0]["best"]["loss"] < found.report.trainings[0]["start"]["loss"]
    assert any("which units of the teacher are left is not known" in note for note in found.report.notes)
    with pytest.raises(UsageError, match="the teacher lacks the output 'logits'"):
        op.train(small, data=normal(8, 4), teacher=build(LINEAR.replace("logits", "scores"), name="third"))
    with pytest.raises(UsageError, match="the model lacks the input 'z'"):
        op.train(small, data=normal(8, 4), teacher=build(LINEAR.replace("x", "z"), name="fourth"))


def test_without_a_teacher_or_labels_there_is_nothing_to_learn(build: Build) -> None:
    with pytest.raises(UsageError, match="nothing to learn from"):
        op.train(build(LINEAR), data=normal(32, 4))
    with pytest.raises(UsageError, match="the model is the original itself"):
        op.train(build(LINEAR), data=blobs(32), distil=0.5)
    with pytest.raises(UsageError, match="train needs samples"):
        op.compress(build(LINEAR), train=1)
    with pytest.raises(UsageError, match="unknown option 'epoch'; did you mean 'epochs'"):
        op.train(build(LINEAR), data=blobs(32), epoch=1)


def seen(data: Any) -> set[int]:
    return TrainingSamples(data, 8, 1 << 30).digests()


def test_what_is_evaluated_on_is_neither_fitted_to_nor_trained_on(build: Build) -> None:
    model, recipe = open_model(build(LINEAR)), op.Recipe([op.Prune(), op.Recover(), op.Train(holdout=0.25)])
    data, calibration, evaluation = blobs(80), blobs(24, seed=1), blobs(16, seed=2)
    parted = Sources(data).into(Context(), recipe, model, {})
    assert parted.apart is not None
    assert parted.apart.samples == len(seen(parted.apart.measuring)) == 20
    assert not seen(parted.data) & seen(parted.apart.measuring)
    assert seen(parted.data) | seen(parted.apart.measuring) == seen(data)
    given = Sources(data, calibration, evaluation).into(Context(), recipe, model, {})
    assert given.apart is not None
    assert (seen(given.data), seen(given.training), seen(given.apart.measuring)) == (
        seen(calibration), seen(data), seen(evaluation),
    )  # fmt: skip
    without = Sources(data).into(Context(), op.Recipe([op.Prune(), op.Recover()]), model, {})
    assert without.apart is not None  # what a cut costs is measured apart, too
    assert not seen(without.data) & seen(without.apart.measuring)
    assert seen(without.data) | seen(without.apart.measuring) == seen(data)


def test_samples_that_are_on_both_sides_are_counted(build: Build) -> None:
    found = op.train(build(LINEAR), data=blobs(64), evaluation=blobs(64), updates=2)
    assert any(
        note.startswith("64 of the samples that it is evaluated on are also trained on") for note in found.report.notes
    )
    assert not any(
        "also trained on" in note for note in op.train(build(LINEAR), data=blobs(64), updates=2).report.notes
    )


def test_the_command(digits: dict[str, Path], cut: tuple[Path, Path], tmp_path: Path) -> None:
    small, plan = cut
    asked = [str(small), "--teacher", str(digits["resnet"]), "--plan", str(plan), "--data", str(CALIBRATION)]
    out, report = tmp_path / "out.onnx", tmp_path / "report.md"
    done = run("train", *asked, *SHORT, "-o", str(out), "--json", "--markdown", str(report), "--features", "0.5")
    document = json.loads(done.stdout)
    (training,) = document["trainings"]
    assert training["updates"] == 6
    assert [each["update"] for each in training["history"]] == [0, 3, 6]
    assert training["losses"][-1]["update"] == 6
    assert document["recipe"]["step"][0]["updates"] == 6
    assert any(note.startswith("inner values beside") for note in document["notes"])
    assert "Every evaluation" in report.read_text()
    changed = weights(open_model(out))
    assert any(not np.array_equal(changed[name], array) for name, array in weights(open_model(small)).items())
    table = run("train", *asked, *SHORT, "-o", str(out)).stdout
    assert "agreement" in table
    assert "wrote" in table


def test_labels_alone_train_any_file(build: Build) -> None:
    found = op.train(build(LINEAR), data=blobs(96), updates=20, learning_rate=0.02, batch_size=16)
    assert found.report.trainings[0]["metric"] == "accuracy"
    assert found.report.notes == ("trained on 87 samples, evaluated on 9 others",)


def test_no_update_leaves_the_file_as_it_is(cut: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    run("train", str(cut[0]), "--data", str(CALIBRATION), "--labels", "labels", "--epochs", "0", "-o", str(out))
    assert out.read_bytes() == cut[0].read_bytes()


@pytest.mark.parametrize(("given", "said"), [
    (["--plan", "plan.json"], "add --teacher"),
    (["--optimizer", "adamm"], "unknown optimizer 'adamm'; did you mean 'adam'"),
    (["--momentum", "1"], "momentum 1 is outside [0, 1)"),
    (["--resume", "small.onnx"], "--resume small.onnx is not a folder"),
    (["--feature-values", "x"], "add features"),
    (["--feature-values", "inputt", "--features", "1"], "the model has no value 'inputt'; did you mean 'input'"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(
    cut: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("train", "small.onnx", "--data", str(CALIBRATION), "--labels", "labels", *given, code=2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("small.trained.onnx").exists()


def test_without_torch_it_says_what_to_install(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.support.extras.find_spec", lambda name: None if name == "torch" else name)
    for step in (op.Train(), op.Rewind(), op.Reinitialize()):
        with pytest.raises(MissingExtraError, match=r"torch is not installed; install it with: pip install"):
            op.Recipe([step])(build(LINEAR), data=blobs(16))
