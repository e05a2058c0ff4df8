"""What every budget promises, asserted for every one that is registered: a new file is under this test.

Its sample has a limit that is kept and one that is broken, through the command line and as a configuration says it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxprune.cli import main
from onnxprune.evaluation.gate.budgets.base import BUDGETS
from onnxprune.evaluation.gate.request import load_request


@pytest.mark.parametrize("name", BUDGETS)
def test_sample(name: str, folder: Path, digits: dict[str, Path]) -> None:
    (folder / "model.onnx").write_bytes(digits["lstm"].read_bytes())
    on = ("--baseline", "original.onnx", "--data", "samples.npz", "--labels", "digit", "--latency-seconds", "0.05")
    for limit, status, code in zip(BUDGETS[name].sample, ("ok", "broken"), (0, 1), strict=True):
        result = CliRunner().invoke(main, ["gate", "model.onnx", f"--{name}", str(limit), *on, "--json"])
        assert result.exit_code == code, result.output
        ((found,),) = (model["checks"] for model in json.loads(result.stdout)["models"])
        assert (found["budget"], found["status"]) == (name, status)
        assert found["limit"]


@pytest.mark.parametrize("name", BUDGETS)
def test_limits_of_a_configuration(name: str, tmp_path: Path) -> None:
    limit = json.dumps(BUDGETS[name].sample[0])
    (tmp_path / "onnxprune.toml").write_text(f"[gate]\nmodels = 'a.onnx'\n{name} = {limit}\n")
    assert list(load_request({}, folder=tmp_path).budgets) == [name]


@pytest.mark.parametrize("name", BUDGETS)
def test_says_what_it_is_in_one_line(name: str) -> None:
    assert 3 <= len(BUDGETS[name].summary.split()) <= 25
    assert BUDGETS[name].written
