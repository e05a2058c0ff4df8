"""Every example of docs/gate.md is run."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxprune.cli import main
from onnxprune.evaluation.gate.budgets.base import BUDGETS
from tests.conftest import ROOT
from tests.gate.test_action import action, run_steps
from tests.test_pytest_plugin import run_pytest

PAGE = (ROOT / "docs" / "gate.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(folder: Path) -> Path:
    """What the page speaks of: models/, and its configuration."""
    (folder / "models").mkdir()
    for name in ("a.onnx", "b.onnx"):
        (folder / "models" / name).write_bytes((folder / "model.onnx").read_bytes())
    (configuration,) = blocks("toml")
    (folder / "pyproject.toml").write_text(configuration + "latency-seconds = 0.05\n")
    return folder


def test_nothing_is_left_out() -> None:
    languages = re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)
    assert set(languages) == {"shell", "toml", "yaml", "python"}


def test_commands(project: Path) -> None:
    commands = [line for block in blocks("shell") for line in block.splitlines()]
    assert len(commands) == 9
    for line in commands:
        tool, *args = shlex.split(line)
        assert tool == "onnxprune"
        result = CliRunner().invoke(main, args)
        # a ratio of two runs of the same file on a busy machine may come out as anything
        assert result.exit_code == 0 or ("--max-latency-ratio" in line and result.exit_code == 1), result.output


def test_pytest(project: Path) -> None:
    (test,) = blocks("python")
    (project / "test_models.py").write_text(test)
    out = run_pytest(project, "test_models.py")
    assert "2 passed" in out, out


def test_workflow_and_hook() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the examples")
    workflow, commit = (yaml.safe_load(block) for block in blocks("yaml"))
    step = workflow["jobs"]["models"]["steps"][-1]
    assert step["uses"].split("@")[0].endswith("/onnxprune")
    assert set(step["with"]) <= set(action()["inputs"])
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [found["id"] for found in commit["repos"][0]["hooks"]] == [hook["id"]]


def test_workflow_example_runs(project: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the examples")
    given = yaml.safe_load(blocks("yaml")[0])["jobs"]["models"]["steps"][-1]["with"]
    assert run_steps(project, Path(sys.executable), given, slice(1, None)) == [0]


def test_every_budget_is_in_the_table() -> None:
    assert re.findall(r"^\| `--([\w-]+)` \|", PAGE, re.MULTILINE) == list(BUDGETS)
