"""Options from the command line and from configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.evaluation.gate.request import GateRequest, load_request
from onnxprune.evaluation.options import MeasureOptions
from onnxprune.support.options import options_of


def written(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_options_win_over_the_configuration(tmp_path: Path) -> None:
    written(tmp_path, '[tool.onnxprune.gate]\nmodels = ["a.onnx"]\nmax-size = "5MB"\nmax_params = 10\nthreads = 3')
    request = load_request({"models": ("b.onnx",), "max_params": "20", "threads": None}, folder=tmp_path)
    assert request.models == ("b.onnx",)
    assert request.threads == 3
    assert set(request.budgets) == {"max-size", "max-params"}
    assert request.budgets["max-params"].allows(20)
    assert load_request({}, folder=tmp_path).models == ("a.onnx",)


def test_own_file_comes_first(tmp_path: Path) -> None:
    written(tmp_path, "[tool.onnxprune.gate]\nmodels = ['a.onnx']\nopset = 13")
    written(tmp_path, "[gate]\nmodels = ['b.onnx']\nopset = 17", "onnxprune.toml")
    assert load_request({}, folder=tmp_path).models == ("b.onnx",)
    assert load_request({}, tmp_path / "pyproject.toml").models == ("a.onnx",)


def test_files_that_do_not_speak_of_the_gate(tmp_path: Path) -> None:
    path = written(tmp_path, "[project]\nname = 'x'")
    assert load_request({"models": ("a",), "opset": "17"}, folder=tmp_path).models == ("a",)
    with pytest.raises(UsageError, match=r"has no table \[tool.onnxprune.gate\]"):
        load_request({"models": ("a",), "opset": "17"}, path)


def test_values_of_a_configuration(tmp_path: Path) -> None:
    text = """
        [gate]
        models = "a.onnx, b.onnx"
        max-latency = "10ms"
        min-agreement = 1
        data = "images"
        resize = [224, 288]
        crop = 224
        mean = [0.5, 0.5, 1]
        input-shape = ["x:1x3x224x224"]
    """
    request = load_request({}, written(tmp_path, text, "gate.toml"))
    assert request.models == ("a.onnx", "b.onnx")
    assert request.budgets == {"max-latency": 0.01, "min-agreement": 1.0}
    assert (request.resize, request.crop, request.mean) == ("224x288", "224", "0.5,0.5,1")
    assert request.measured_on == {"data": "images", "resize": "224x288", "crop": "224", "mean": "0.5,0.5,1"}
    assert request.input_shape == ("x:1x3x224x224",)


def test_every_option_of_data_and_of_measuring_is_a_key() -> None:
    """What a command takes, a configuration can say too."""
    assert {*options_of(DataOptions), *options_of(MeasureOptions)} < set(options_of(GateRequest))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[gate]\nmax-sizes = 5", "unknown key 'max-sizes'; did you mean 'max-size'"),
        ("[gate]\nmax-size = '5XB'", "max-size: expected a size like 5MB"),
        ("[gate]\nmax-params = true", "max-params: expected a number like 1.2M"),
        ("[gate]\nmax-latency = 10", "max-latency: expected a time with its unit"),
        ("[gate]\nmin-agreement = 1.5", "min-agreement: expected a number above 0 and up to 1, not 1.5"),
        ("[gate]\nmin-metric = nan", "min-metric: expected a number, not nan"),
        ("[gate]\nmin-metric = true", "min-metric: expected a number, not True"),
        ("[gate]\nthreads = '2'", "threads is a whole number, not '2'"),
        ("[gate]\nallowed-ops = []", "allowed-ops: expected one or more texts"),
        ("[gate]\nresize = [1, 2, 3]", "resize '1x2x3' is not a size like 256"),
        ("[gate]\nmodels = [3]", "models is a list of texts, not"),
        ("gate = 3", r"has no table \[gate\]"),
        ("[gate", "is not TOML"),
    ],
)
def test_mistakes_in_a_configuration(tmp_path: Path, text: str, message: str) -> None:
    written(tmp_path, text, "onnxprune.toml")
    with pytest.raises(UsageError, match=message) as found:
        load_request({"models": ("a.onnx",), "opset": "17"}, folder=tmp_path)
    assert "onnxprune.toml" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"opset": "17"}, "no model is given"),
        ({"models": ("a",)}, "no budget is given"),
        ({"models": ("a",), "opset": "17", "update_baseline": True}, "name it with --baseline FILE.json"),
        ({"models": ("a",), "update_baseline": True, "baseline": Path("b.onnx")}, "name it with --baseline FILE.json"),
    ],
)
def test_requests_that_would_check_nothing(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_request(given, folder=tmp_path)


def test_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_request({"models": ("a",), "opset": "17"}, tmp_path / "none.toml")
