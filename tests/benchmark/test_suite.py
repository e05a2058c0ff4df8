"""The benchmark as a command: what it measures, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.evaluation.benchmark import suite
from onnxprune.evaluation.benchmark.comparison import Comparison
from onnxprune.evaluation.benchmark.suite import BenchmarkRequest, benchmark
from onnxprune.report import benchmark_tables as tables
from onnxprune.runtime.latency import Latency, Setting
from tests.conftest import Build

FAST = ("--rounds", "24", "--warmup", "1")


def run(*args: object, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["benchmark", *map(str, args)])
    assert result.exit_code == exit_code, result.output
    return result


def document(*args: object) -> dict[str, Any]:
    result = run(*args, *FAST, "--json")
    assert result.stderr == ""
    return dict(json.loads(result.stdout))


@pytest.fixture(scope="module")
def pair(digits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    small = tmp_path_factory.mktemp("pair") / "small.onnx"
    assert (
        CliRunner()
        .invoke(main, ["compress", str(digits["resnet"]), "--recover", "none", "--ratio", "0.5", "-o", str(small)])
        .exit_code
        == 0
    )
    return digits["resnet"], small


def test_everything_is_in_the_document(pair: tuple[Path, Path]) -> None:
    found = document(*pair, "--batch", "1", "--batch", "8", "--profile", "--seed", "3")
    assert found["models"] == [{"path": str(path), "file_bytes": path.stat().st_size} for path in pair]
    assert [(each["batch"], each["threads"], each["sizes"]) for each in found["settings"]] == [
        (1, 1, {"batch": 1}),
        (8, 1, {"batch": 8}),
    ]
    for setting in found["settings"]:
        assert setting["provider"] == "CPUExecutionProvider"
        first, other = setting["models"]
        for each in (first, other):
            assert each["rounds"] == 24
            assert each["median"] <= each["p90"] <= each["p99"] <= each["percentiles"][100]
            assert each["percentiles"][50] == pytest.approx(each["median"])
            assert each["throughput"] == pytest.approx(setting["batch"] / each["median"])
            assert each["memory"]["peak"] > each["memory"]["added"] > 0
            assert each["load"] > 0
        assert first["comparison"] is None
        comparison = other["comparison"]
        assert comparison["low"] < comparison["ratio"] < comparison["high"]
    assert [each["output"] for each in found["drift"]["outputs"]] == ["logits"]
    assert 0 < found["drift"]["outputs"][0]["agreement"] <= 1
    assert found["metric"] == []
    assert {node["name"] for node in found["profile"]["movers"][0]["nodes"]} >= {"/stem/stem.0/Conv"}
    assert found["request"]["seed"] == 3
    assert found["versions"]["onnxruntime"] == onnxruntime.__version__


def test_tables_say_it_in_words(pair: tuple[Path, Path]) -> None:
    out = run(*pair, *FAST, "--profile").stdout
    assert "cpu, batch 1, 1 thread" in out
    assert "resnet.onnx" in out
    assert any(words in out for words in ("faster (", "slower (", "no real difference ("))
    for title in ("outputs against digits_resnet.onnx on made-up inputs", "where the time goes", "changed most"):
        assert title in out
    assert run(*pair, *FAST, "-q").output == ""


def test_data_with_labels_give_drift_and_accuracy(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with np.load(pair[0].parent / "digits_test.npz") as digits:
        np.savez(tmp_path / "test.npz", input=digits["input"][:96], labels=digits["labels"][:96])
    found = document(*pair, "--data", tmp_path / "test.npz", "--labels", "labels", "--batch", "100")
    assert found["settings"][0]["batch"] == 100
    assert found["drift"]["outputs"][0]["samples"] == 96
    assert [each["metric"] for each in found["metric"]] == ["accuracy", "accuracy"]
    assert found["metric"][0]["value"] > 0.95
    asked = document(*pair, "--data", tmp_path / "test.npz", "--metric", "agreement")
    assert asked["metric"][0]["value"] == 1
    assert asked["metric"][1]["value"] == asked["drift"]["outputs"][0]["agreement"]


def test_one_model_alone(pair: tuple[Path, Path]) -> None:
    found = document(pair[0], "--threads", "2")
    assert found["drift"]["outputs"] == []
    assert found["profile"] is None
    assert found["settings"][0]["models"][0]["processor_median"] is None
    assert found["settings"][0]["threads"] == 2


def test_dynamic_axes_get_sizes_that_run_unless_they_are_given(build: Build) -> None:
    path = build("""
        net (float[batch, seq, 6] x) => (float[batch, seq, 2, 3] y)
        <int64[4] shape = {0, 0, 2, 3}> { y = Reshape(x, shape) }
    """)
    result = benchmark([path], BenchmarkRequest(rounds=1))
    sizes = result.measured[0][0].latency.sizes
    assert sizes["seq"] > 1
    assert any(f"sizes that run (seq={sizes['seq']})" in note for note in result.notes)
    given = document(path, "--input-shape", "x:?x9x6")
    assert given["settings"][0]["sizes"] == {"batch": 1, "seq": 9}
    assert not any("--input-shape" in note for note in given["notes"])


@pytest.mark.parametrize(
    ("args", "says", "code"),
    [
        (["--providers", "gpu"], "unknown execution provider 'gpu'", 2),
        (["--metric", "accuracy"], "metric 'accuracy' is computed on data, which is not there; add --data", 2),
        (["--input-shape", "y:1x2"], "the model has no input 'y'", 2),
        (["--batch", "0"], "batch 0 is outside 1 or more", 2),
        (["gone.onnx"], "gone.onnx", 1),
    ],
)
def test_refusals(pair: tuple[Path, Path], args: list[str], says: str, code: int) -> None:
    result = run(pair[0], *args, *FAST, exit_code=code)
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_provider_falls_back_with_a_word(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    found = document(pair[0], "--providers", "cuda,cpu")
    assert [each["provider"] for each in found["settings"]] == ["CPUExecutionProvider"]
    assert "so the CPU is used instead" in found["notes"][0]


def test_a_provider_that_does_not_start_and_a_busy_machine_are_told() -> None:
    slow = Latency("m", Setting(), (3.0, 3.0), (0, 0), (1.0, 1.0), (0.1,), {})
    measured = (suite.Measured(slow, None, None),)
    asked = Setting("CUDAExecutionProvider")
    did_not_start, busy = suite._remarks(asked, measured)
    assert "CUDAExecutionProvider did not start here" in did_not_start
    assert "up to 3.0 times their processor time" in busy


def test_labels_tell_models_apart() -> None:
    assert tables._labels(["a/x.onnx", "b/y.onnx"]) == ["x.onnx", "y.onnx"]
    assert tables._labels(["a/x.onnx", "b/x.onnx"]) == ["a/x.onnx", "b/x.onnx"]
    assert tables._labels(["a/x.onnx", "a/x.onnx"]) == ["x.onnx", "x.onnx (2)"]


def test_styles() -> None:
    ratios = ((0.5, 0.4, 0.6), (1.5, 1.4, 1.6), (1.0, 0.9, 1.1))
    assert [tables._style(Comparison(*each)) for each in ratios] == ["bold green", "bold red", "bold"]
