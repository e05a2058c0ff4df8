"""Small things of the command line: near names, where results go, options that have nothing to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxprune.cli import main

CUT = ["--criterion", "l1", "--ratio", "0.05", "--recover", "none", "-q"]


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    return result.exit_code, result.stderr


def test_a_command_that_is_not_there() -> None:
    code, error = run("compres", "model.onnx")
    assert code == 2
    assert "there is no command 'compres'; did you mean 'compress'?" in error


def test_the_second_file_is_the_output(digits: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    assert run("compress", digits["resnet"], out, *CUT)[0] == 0
    assert out.exists()
    code, error = run("compress", digits["resnet"], out, "-o", out, *CUT)
    assert (code, "both say where to write" in error) == (2, True)


def test_a_folder_takes_the_name_of_the_file(digits: dict[str, Path], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert run("compress", digits["resnet"], "-o", tmp_path, "--plan", plan, *CUT)[0] == 0
    small = tmp_path / "digits_resnet.pruned.onnx"
    before = small.read_bytes()
    small.unlink()
    assert run("apply", digits["resnet"], plan, "-o", tmp_path, "-q")[0] == 0
    assert small.read_bytes() == before
    recover = ["recover", small, "--like", digits["resnet"], "--plan", plan, "--method", "fold", "-o", tmp_path, "-q"]
    assert run(*recover)[0] == 0
    assert (tmp_path / "digits_resnet.pruned.recovered.onnx").exists()


@pytest.mark.parametrize("option", ["--threads", "--latency-batch"])
def test_options_of_timing_are_refused_by_evaluate_too(digits: dict[str, Path], option: str) -> None:
    code, error = run("evaluate", digits["resnet"], digits["resnet"], option, "2")
    assert code == 2
    assert f"{option} says how latency is measured, which nothing asks for; add --measure" in error


def test_a_metric_without_labels_and_a_schedule_without_rounds_are_refused(digits: dict[str, Path]) -> None:
    code, error = run("compress", digits["resnet"], "--dry-run", "--metric", "accuracy", *CUT)
    assert (code, "labels" in error) == (2, True)
    code, error = run("compress", digits["resnet"], "--dry-run", "--schedule", "linear", *CUT)
    assert (code, "add --steps" in error) == (2, True)


@pytest.mark.parametrize("option", ["--threads", "--latency-batch"])
def test_options_of_timing_without_timing_are_refused(digits: dict[str, Path], option: str) -> None:
    code, error = run("compress", digits["resnet"], "--dry-run", option, "2", *CUT)
    assert code == 2
    assert f"{option} says how latency is measured, which nothing asks for; add --measure" in error
