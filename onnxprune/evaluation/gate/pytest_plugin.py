"""For pytest: `onnx_budget`, a marker and a fixture that fail a test where a model does not keep its budgets.

    @pytest.mark.onnx_budget("models/small.onnx", max_size="5MB")
    def test_small() -> None: ...

    def test_exported(onnx_budget, tmp_path):
        export(tmp_path / "model.onnx")
        onnx_budget(tmp_path / "model.onnx", max_params="1.2M")

Budgets of `[tool.onnxprune.gate]` hold as well. Paths are relative to pytest's root folder. What pytest loads at its
start is this file only; all else waits for the first budget.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from onnxprune.evaluation.gate.run import GateVerdict

Budgets = Callable[..., "GateVerdict"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "onnx_budget(*models, **budgets): fails unless the models keep these budgets (see: onnxprune gate)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Check what is marked, before the test itself runs."""
    for mark in item.iter_markers("onnx_budget"):
        _check(item.config.rootpath, *mark.args, **mark.kwargs)


@pytest.fixture
def onnx_budget(request: pytest.FixtureRequest) -> Budgets:
    """Call it with models and budgets, named as the options of `onnxprune gate` with underscores."""
    root = request.config.rootpath
    return lambda *models, **budgets: _check(root, *models, **budgets)


def _check(root: Path, *models: str | Path, **options: Any) -> GateVerdict:
    """Fails the test unless every budget could be checked and holds."""
    from onnxprune.errors import OnnxpruneError
    from onnxprune.evaluation.gate.request import load_request
    from onnxprune.evaluation.gate.run import run_gate, to_lines

    with contextlib.chdir(root):
        try:
            request = load_request({"models": tuple(map(str, models)), **options})
            verdict = run_gate(request)
        except OnnxpruneError as error:
            pytest.fail(f"onnxprune gate: {error}", pytrace=False)
    if verdict.exit_code:
        pytest.fail("\n".join(to_lines(verdict)), pytrace=False)
    return verdict
