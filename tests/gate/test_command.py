"""`onnxprune gate` as CI calls it: exit codes, what goes where."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main


def run(*args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["gate", *args])
    assert result.exit_code == code, result.output
    return result


def test_exit_codes(folder: Path) -> None:
    run("model.onnx", "--max-size", "5MB")
    run("model.onnx", "--max-size", "5kB", code=1)
    run("none.onnx", "--max-size", "5MB", code=2)
    run("model.onnx", "--max-size", "5XB", code=2)
    run("model.onnx", "--max-sizes", "5MB", code=2)
    run("model.onnx", code=2)
    run("--max-size", "5MB", code=2)


def test_wrong_usage_is_one_line(folder: Path) -> None:
    stderr = run("model.onnx", "--max-size", "5XB", code=2).stderr
    assert stderr == "onnxprune: gate: max-size: expected a size like 5MB, 5MiB or 101%, not '5XB'\n"


def test_table(folder: Path) -> None:
    out = run("model.onnx", "none.onnx", "--max-size", "1kB", "--opset", "17", code=1).stdout
    assert "717,481 bytes" in out
    assert "at most 1,000 bytes" in out
    assert out.count("model.onnx") == 1
    assert "2 models: budgets 1 held, 1 broken, 1 could not be checked" in out
    assert "::error" not in out


def test_quiet_prints_failures_only(folder: Path) -> None:
    assert run("model.onnx", "--max-size", "5MB", "-q").output == ""
    assert "broken" in run("model.onnx", "--max-size", "1kB", "-q", code=1).output


def test_json_and_nothing_else(folder: Path) -> None:
    result = run("model.onnx", "--max-size", "1kB", "--json", code=1)
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["models"][0]["checks"][0]["found"] == 717_481


def test_same_output_twice(folder: Path) -> None:
    options = ("*.onnx", "--max-macs", "5M", "--min-metric", "0.9", "--data", "samples.npz", "--labels", "digit")
    assert run(*options).output == run(*options).output


def test_junit_file(folder: Path) -> None:
    run("model.onnx", "--max-size", "1kB", "--junit", "out.xml", code=1)
    assert ElementTree.parse(folder / "out.xml").getroot().get("failures") == "1"
    assert "does not exist; create it" in run("model.onnx", "--opset", "17", "--junit", "no/o.xml", code=2).stderr
    before = (folder / "model.onnx").read_bytes()
    assert "belongs to the input" in run("m*.onnx", "--opset", "17", "--junit", "model.onnx", code=2).stderr
    assert (folder / "model.onnx").read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nothing can be created")
def test_a_report_that_cannot_be_written_is_no_broken_budget(folder: Path) -> None:
    result = run("model.onnx", "--opset", "17", "--junit", "/proc/out.xml", code=2)
    assert "cannot write /proc/out.xml" in result.stderr
    assert "1 held" in result.stdout


def test_github(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\n::error file=model.onnx" in run("model.onnx", "--max-size", "1kB", "--github", code=1).stdout
    (folder / "summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    result = run("model.onnx", "--max-size", "1kB", "--json", code=1)
    json.loads(result.stdout)
    assert result.stderr.startswith("::error file=model.onnx,title=onnxprune max-size::")
    summary = (folder / "summary.md").read_text()
    assert summary.startswith("before\n### onnxprune gate\n")
    assert "| :x: | model.onnx | max-size |" in summary


def test_summary_only_where_github_runs_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    run("model.onnx", "--max-size", "5MB")
    assert (folder / "summary.md").exists()


def test_a_summary_that_cannot_be_written_does_not_hide_the_verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/nowhere/summary.md")
    result = run("model.onnx", "--max-size", "1kB", code=1)
    assert "broken" in result.stdout
    assert "no step summary" in result.stderr


def test_update_says_so(folder: Path) -> None:
    out = run("*.onnx", "--baseline", "baseline.json", "--max-size", "101%", "--update-baseline").stdout
    assert "wrote baseline.json" in out
    assert "2 not compared yet" in out
    run("*.onnx", "--baseline", "baseline.json", "--max-size", "100%")


def test_broken_baseline(folder: Path) -> None:
    (folder / "baseline.json").write_text("{")
    stderr = run("model.onnx", "--baseline", "baseline.json", "--max-size", "100%", code=2).stderr
    assert stderr.startswith("onnxprune: the baseline baseline.json is not JSON")
    assert stderr.count("\n") == 1


def test_operators_are_gathered(folder: Path) -> None:
    names = ("--allowed-ops", "Conv,Relu", "--allowed-ops", "[A-HJ-Z]*")
    out = run("model.onnx", *names, code=1).stdout
    assert "also Identity" in out


def test_latency_options(folder: Path) -> None:
    fast = ("--latency-seconds", "0.01", "--providers", "cpu", "--threads", "1", "--latency-batch", "3")
    assert "at most 1,000 s" in run("model.onnx", "--max-latency", "1000s", *fast).stdout
    run("model.onnx", "--max-latency", "0.000001us", *fast, code=1)
