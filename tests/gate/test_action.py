"""The GitHub Action and the pre-commit hook, by running what they run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

yaml = pytest.importorskip("yaml", reason="PyYAML reads the action and the hook")

EXPRESSION = re.compile(r"\$\{\{\s*(\w+)\.([\w-]+)\s*\}\}")


def action() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "action.yml").read_text()))


def run_steps(folder: Path, python: Path, given: dict[str, str], steps: slice = slice(None)) -> list[int]:
    """The steps of the action with these inputs, as a runner runs them; their exit codes."""
    description = action()
    assert set(given) <= set(description["inputs"])
    values = {
        "inputs": {name: given.get(name, field["default"]) for name, field in description["inputs"].items()},
        "github": {"action_path": str(folder / "action")},
    }
    codes = []
    for step in description["runs"]["steps"][steps]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input in a script would be run as a part of it"
        env = {
            name: EXPRESSION.sub(lambda match: values[match[1]][match[2]], value)
            for name, value in step.get("env", {}).items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=folder,
            env={**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "", **env},
            check=False,
        )
        codes.append(done.returncode)
    return codes


@pytest.fixture
def job(folder: Path) -> tuple[Path, Path]:
    """A folder with the action checked out in it, and the Python of the job: with our dependencies, without us."""
    checkout = folder / "action"
    checkout.mkdir()
    for name in ("onnxprune", "passes", "recipes"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md", "action.yml"):
        shutil.copy(ROOT / name, checkout)
    venv.create(folder / "venv", symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    Path(packages, "outer.pth").write_text(sysconfig.get_path("purelib"))
    return folder, folder / "venv" / "bin" / "python"


def test_the_whole_action(
    job: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for option in ("NO_INDEX", "NO_DEPS", "DISABLE_PIP_VERSION_CHECK"):
        monkeypatch.setenv(f"PIP_{option}", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # 0 turns isolation off: pip reads it as --no-build-isolation
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    folder, python = job
    assert run_steps(folder, python, {"models": "model.onnx", "options": "--max-size 1kB"}) == [0, 1]
    assert "::error file=model.onnx,title=onnxprune max-size" in capfd.readouterr().out
    assert "| :x: | model.onnx |" in (folder / "summary.md").read_text()
    code = "import onnxprune; print(onnxprune.__file__)"
    found = subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert Path(found).is_relative_to(folder / "venv")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"models": "*.onnx\n$(touch gotcha)\n", "options": "--allowed-ops '$(touch gotcha)'"}, 1),
        ({}, 0),
    ],
)
def test_inputs_reach_the_gate(folder: Path, given: dict[str, str], code: int) -> None:
    (folder / "pyproject.toml").write_text("[tool.onnxprune.gate]\nmodels = 'model.onnx'\nmax-params = '1.2M'\n")
    assert run_steps(folder, Path(sys.executable), given, slice(1, None)) == [code]
    assert not (folder / "gotcha").exists()


def test_options_that_are_not_closed_do_not_pass(folder: Path) -> None:
    given = {"models": "model.onnx", "options": "--max-size '5MB"}
    assert run_steps(folder, Path(sys.executable), given, slice(1, None)) != [0]


def test_hook(folder: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["language"]) == ("onnxprune-gate", "python")
    assert hook["require_serial"]
    assert re.search(hook["files"], "models/model.onnx")
    assert not re.search(hook["files"], "model.onnx.data")
    command = [sys.executable, "-m", *shlex.split(hook["entry"]), "model.onnx", "original.onnx"]
    (folder / "pyproject.toml").write_text("[tool.onnxprune.gate]\nmax-size = '5kB'\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "2 models: budgets 0 held, 2 broken" in done.stdout
