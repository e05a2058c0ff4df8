"""The command `evaluate`, and what `compress` says of a model that fell apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxprune.cli import main


def run(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def ruined(digits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ruined") / "small.onnx"
    command = [
        "compress",
        str(digits["resnet"]),
        "--recover",
        "none",
        "--criterion",
        "l1",
        "--ratio",
        "0.5",
        "-o",
        str(path),
        "--json",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0
    assert "warning: the model fell apart" in result.stderr
    assert json.loads(result.stdout)["quality"]["damage"] in result.stderr
    return path


def test_labels_decide(digits: dict[str, Path], ruined: Path) -> None:
    test = digits["resnet"].with_name("digits_test.npz")
    given = [digits["resnet"], ruined, "--data", test, "--labels", "labels"]
    code, out, error = run("evaluate", *given)
    assert code == 0
    assert "accuracy" in out.splitlines()[1]
    assert "99.6%" in out.splitlines()[1]
    assert "on 450 samples" in out.splitlines()[1]
    assert error.startswith("onnxprune: warning: the model fell apart: accuracy 99.6% -> ")
    assert run("evaluate", *given, "--allow-damage")[2] == ""
    code, out, error = run("evaluate", *given, "--strict")
    assert (code, out) == (1, "")
    assert error.startswith("onnxprune: the model fell apart: ")


def test_one_model_alone(digits: dict[str, Path]) -> None:
    test = digits["resnet"].with_name("digits_test.npz")
    code, out, _ = run("evaluate", digits["resnet"], "--data", test, "--labels", "labels")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["accuracy"]
    code, _, error = run("evaluate", digits["resnet"])
    assert (code, "one model alone is judged by labels" in error) == (2, True)


def test_strict_writes_nothing(digits: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    code, _, error = run(
        "compress", digits["resnet"], "--recover", "none", "--criterion", "l1", "--ratio", "0.5", "-o", out, "--strict"
    )
    assert (code, out.exists(), list(tmp_path.iterdir())) == (1, False, [])
    assert len(error.strip().splitlines()) == 1
    assert "give samples to fit it to (--data)" in error


def test_quality_leads_every_report(digits: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="writes HTML")
    page, notes = tmp_path / "r.html", tmp_path / "r.md"
    command = ["compress", digits["resnet"], "--recover", "none", "--criterion", "l1", "--ratio", "0.5", "--dry-run"]
    code, out, _ = run(*command, "--report", page, "--markdown", notes)
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()[1:4]] == ["top-1 agreement", "SNR", "parameters"]
    markdown, html = notes.read_text(), page.read_text()
    for text in (markdown, html):
        size = "parameters</span" if text is html else "| parameters"
        first = [text.index(each) for each in ("the model fell apart", "top-1 agreement", size)]
        assert first == sorted(first)
        assert "made-up inputs" in text
    code, _, _ = run("evaluate", digits["resnet"], digits["resnet"], "--report", page, "--markdown", notes)
    assert code == 0
    assert "was 100.0%" in page.read_text()
