"""Roundings of a model, timed side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxprune.cli import main
from onnxprune.errors import UsageError
from onnxprune.evaluation.benchmark.comparison import Comparison
from onnxprune.evaluation.benchmark.suite import BenchmarkRequest
from onnxprune.report import benchmark_tables as tables
from onnxprune.runtime.latency import Latency, Setting
from onnxprune.steps.prune.alignment import Alignment, Rounding, alignment
from tests.conftest import Build


def test_every_rounding_is_measured_and_keeps_more(build: Build, tmp_path: Path) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 64] w, float[64, 3] v> { h = MatMul(x, w)  y = MatMul(h, v) }
    """)
    options = ["--alignment", "--rounds", "12", "--warmup", "1"]
    result = CliRunner().invoke(main, ["benchmark", str(path), *options, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(step["round_to"], step["parameters"] // 8) for step in found["steps"]] == [
        (1, 42),
        (4, 44),
        (8, 48),
        (32, 64),
    ]
    assert [step["comparison"] is None for step in found["steps"]] == [True, False, False, False]
    assert found["best"] in (1, 4, 8, 32)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show_alignment(steps(None, Comparison(0.5, 0.4, 0.6)))
    out = capsys.readouterr().out
    assert "axes rounded up to multiples" in out
    assert "2.00x faster (1.67 to 2.50)" in out
    assert "use --round-to 2" in out


def steps(*found: Comparison | None) -> Alignment:
    latency = Latency("m", Setting(), (1.0,), (0,), (), (1.0,), {})
    return Alignment("m", Setting(), tuple(Rounding(2**i, 1, latency, each) for i, each in enumerate(found)))


def test_the_fastest_is_advised_where_it_is_really_faster() -> None:
    faster, fastest = Comparison(0.9, 0.89, 0.91), Comparison(0.7, 0.69, 0.71)
    same, noisy = Comparison(0.99, 0.98, 1.0), Comparison(0.6, 0.3, 1.2)
    assert steps(None, faster, fastest, noisy).best == 4
    assert "use --round-to 4" in steps(None, faster, fastest, noisy).words
    assert steps(None, same).words == "no rounding was seen to pay for this model on cpu, batch 1"
    assert steps(None, noisy).best == 1
    assert "too noisy to be sure" in steps(None, noisy).words


def test_nothing_to_round(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 2] w, float[2, 3] v> { h = MatMul(x, w)  y = MatMul(h, v) }
    """)
    with pytest.raises(UsageError, match="come out the same however they are rounded"):
        alignment(path, BenchmarkRequest(rounds=1))


@pytest.mark.parametrize("more", [["other.onnx"], ["--profile"], ["--metric", "snr"]])
def test_what_does_not_go_with_it(digits: dict[str, Path], more: list[str]) -> None:
    result = CliRunner().invoke(main, ["benchmark", str(digits["resnet"]), "--alignment", *more])
    assert result.exit_code == 2
    assert "--alignment times prunings of one model" in result.stderr
