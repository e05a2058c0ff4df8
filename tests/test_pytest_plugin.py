"""The marker and the fixture, in a pytest of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.conftest import ROOT

TESTS = """
import pytest

@pytest.mark.onnx_budget("model.onnx", max_size="5MB", opset=17)
def test_holds():
    pass

@pytest.mark.onnx_budget("model.onnx", max_size="1kB")
def test_broken():
    raise NotImplementedError("is not reached")

@pytest.mark.onnx_budget("model.onnx", min_metric=0.5)
def test_unchecked():
    pass

@pytest.mark.onnx_budget("model.onnx")
def test_budgets_of_the_configuration():
    pass

@pytest.mark.onnx_budget("model.onnx", max_sizes=3)
def test_wrong_usage():
    pass

def test_fixture(onnx_budget):
    verdict = onnx_budget("model.onnx", max_size="5MB")
    assert verdict.count("ok") == 2

def test_fixture_fails(onnx_budget, tmp_path):
    onnx_budget(tmp_path / "none.onnx", max_size="5MB")
"""

PLUGIN = "onnxprune.evaluation.gate.pytest_plugin"


def run_pytest(folder: Path, *args: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            PLUGIN,
            "-p",
            "no:cacheprovider",
            "-rA",
            *args,
        ],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_marker_and_fixture(digits: dict[str, Path], tmp_path: Path) -> None:
    """Run from a folder inside: paths are relative to the root."""
    (tmp_path / "model.onnx").write_bytes(digits["resnet"].read_bytes())
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_models.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\naddopts = '--strict-markers'\n[tool.onnxprune.gate]\nmax-params = 176000\n"
    )
    out = run_pytest(tmp_path / "tests", "test_models.py")
    assert "3 passed, 4 failed" in out or "4 failed, 3 passed" in out, out
    for name in ("test_holds", "test_budgets_of_the_configuration", "test_fixture"):
        assert re.search(rf"^PASSED \S*test_models.py::{name}$", out, re.MULTILINE)
    for line in (
        "model.onnx: max-size broken: 717,481 bytes, at most 1,000 bytes",
        "model.onnx: min-metric could not be checked: a metric needs samples",
        "onnxprune gate: gate: unknown key 'max-sizes'; did you mean 'max-size'?",
        "none.onnx: model could not be checked: does not exist (check the path)",
    ):
        assert line in out
    assert "NotImplementedError" not in out


def test_pytest_finds_it_where_onnxprune_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"onnxprune": "onnxprune.evaluation.gate.pytest_plugin"}


def test_loading_it_is_cheap() -> None:
    code = f"import sys, {PLUGIN}; print(sorted({{'onnx', 'numpy', 'pydantic'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
