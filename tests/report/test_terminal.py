"""The tables for people: figures that add up, names in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.analysis.cost import Cost
from onnxprune.pipeline.result import GroupReport, Report
from onnxprune.report import terminal

GROUPS = (
    GroupReport("a" * 90, "channels", 64, 32, statistics=False),
    GroupReport("b", "channels", 36, 18, statistics=False),
    GroupReport("c", "neurons", 1000, 1000, statistics=False),
)
REPORT = Report(
    before=Cost(2_000_000, 10_000_000, 8_000_000, 50),
    after=Cost(500_000, 0, 2_000_000, 51),
    sizes={"batch": 1, "sequence": 11},
    file_bytes=(8_100_000, 2_025_000),
    estimated=False,
    groups=GROUPS,
    unruled={"acme.B": 2, "acme.A": 1},
    notes=("something to know",),
)


def printed(capsys: pytest.CaptureFixture[str], *, verbose: bool) -> list[str]:
    terminal.show_result(REPORT, Path("m.onnx"), Path("m.pruned.onnx"), verbose=verbose)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, verbose=False)
    assert "parameters 2,000,000 500,000 25.0% 4.00x" in lines
    assert "MACs 10,000,000 0 0.0% - at batch=1, sequence=11" in lines
    assert "file bytes 8,100,000 2,025,000 25.0% 4.00x" in lines
    assert "nodes 50 51 102.0% 0.98x" in lines
    assert "note: something to know" in lines
    assert "operators without a rule, whose dimensions keep their size: acme.A (1), acme.B (2)" in lines
    assert lines[-1] == "wrote m.pruned.onnx"


def test_groups_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, verbose=False)
    assert "channels 2 100 50 50.0%" in lines
    assert "neurons 1 1,000 1,000 100.0%" in lines


def test_each_group_with_its_whole_name(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, verbose=True)
    assert f"{'a' * 90} channels 64 32 50.0%" in lines
    assert "c neurons 1,000 1,000 100.0%" in lines


def test_narrow_terminal_cuts_nothing_off(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = printed(capsys, verbose=True)
    assert "".join(lines).count("a") > 90
