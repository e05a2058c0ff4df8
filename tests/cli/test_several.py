"""`compress` with several models: which they are, where results go, and that one that fails stops no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.cli.several import Named, named, targets
from onnxprune.errors import UsageError

CUT = ["--criterion", "l1", "--ratio", "0.25", "--recover", "none", "--allow-damage"]


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def folder(digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models and a file that is none."""
    monkeypatch.chdir(tmp_path)
    Path("a.onnx").write_bytes(digits["resnet"].read_bytes())
    Path("b.onnx").write_bytes(digits["lstm"].read_bytes())
    Path("bad.onnx").write_text("no model")
    return tmp_path


def test_each_model_comes_out_as_it_does_alone_and_one_that_fails_stops_none(folder: Path) -> None:
    result = run("compress", "*.onnx", "-o", "small/", *CUT, "--jobs", "2", "--json", "--markdown", "all.md")
    assert result.exit_code == 1
    assert sorted(path.name for path in Path("small").iterdir()) == ["a.pruned.onnx", "b.pruned.onnx"]
    assert "onnxprune: bad.onnx: bad.onnx is not an ONNX file" in result.stderr
    document = json.loads(result.stdout)
    assert (document["kind"], document["failed"]) == ("results", 1)
    a, b, bad = document["models"]
    assert (a["model"], a["output"], a["error"]) == ("a.onnx", "small/a.pruned.onnx", None)
    assert (bad["result"], bad["output"]) == (None, None)
    alone = run("compress", "a.onnx", "alone.onnx", *CUT, "--json")
    assert Path("alone.onnx").read_bytes() == Path("small/a.pruned.onnx").read_bytes()
    assert {**json.loads(alone.stdout), "output": a["output"]} == a["result"]
    assert b["result"]["after"]["parameters"] < b["result"]["before"]["parameters"]
    page = Path("all.md").read_text()
    assert "2 of 3 models compressed, 1 failed" in page


def test_the_summary_and_a_dry_run(folder: Path) -> None:
    result = run("compress", "a.onnx", "bad.onnx", "a.onnx", "--dry-run", *CUT, "-o", "nowhere")
    assert (result.exit_code, Path("nowhere").exists()) == (1, False)
    assert "dry run" in result.stdout
    assert "1 of 2 models compressed, 1 failed" in result.stdout  # a model that is named twice is one


def test_names(folder: Path) -> None:
    a, b, small = Path("a.onnx"), Path("b.onnx"), Path("small")
    assert named([a], None) == Named((a,), None, False)
    assert named([a, b], None) == Named((a,), b, False)
    assert named([a, b], small) == Named((a, b), small, True)
    assert named([a, b, small], None) == Named((a, b), small, True)
    assert named([Path("[ab].onnx")], small) == Named((a, b), small, True)
    assert named([Path("a*.onnx"), small], None) == Named((a,), small, True)
    Path("x[1].onnx").write_bytes(a.read_bytes())
    assert named([Path("x[1].onnx")], None).models == (Path("x[1].onnx"),)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["a.onnx", "b.onnx", "bad.onnx"], "bad.onnx is not a folder"),
        (["a.onnx", "b.onnx", "-o", "out.onnx"], "-o out.onnx and b.onnx both say where to write"),
        (["a.onnx", "b.onnx", "bad.onnx", "-o", "out.onnx"], "out.onnx is not a folder"),
        (["c*.onnx", "-o", "small/"], "no file matches c*.onnx"),
        (["*.onnx"], "say which folder"),
        (["a.onnx", "b.onnx", "-o", "small/", "--plan", "plan.json"], "--plan says what was removed from one model"),
    ],
)
def test_what_is_not_clear_is_refused(folder: Path, args: list[str], said: str) -> None:
    result = run("compress", *args, *CUT)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_models_of_one_name_lie_in_folders() -> None:
    small = Path("small")
    assert targets([Path("x/m.onnx"), Path("y/z/m.onnx")], small) == [
        small / "x/m.pruned.onnx",
        small / "y/z/m.pruned.onnx",
    ]
    assert targets([Path("x/a.onnx"), Path("y/b.onnx")], small) == [small / "a.pruned.onnx", small / "b.pruned.onnx"]
    with pytest.raises(UsageError, match="two of the models"):
        targets([Path("m.onnx"), Path("m.pb")], small)
