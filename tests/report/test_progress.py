"""Progress is for a person at a terminal, and for nobody else."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from onnxprune.report.bars import line
from onnxprune.report.progress import progress
from onnxprune.support.progress import Counted


def test_nothing_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as say:
        say("working")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("quiet", [False, True])
def test_steps_at_a_terminal(digits: dict[str, Path], tmp_path: Path, quiet: bool) -> None:
    command = [
        sys.executable,
        "-m",
        "onnxprune",
        "compress",
        str(digits["resnet"]),
        "--recover",
        "none",
        "--ratio",
        "0.5",
        "-o",
        str(tmp_path / "out.onnx"),
    ]
    ours, theirs = pty.openpty()
    run = subprocess.run([*command, *(["-q"] if quiet else [])], stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.write(theirs, b"end")
    seen = b""
    while not seen.endswith(b"end"):
        seen += os.read(ours, 4096)
    for descriptor in (ours, theirs):
        os.close(descriptor)
    assert (b"loading" in seen) != quiet
    assert (b"parameters" in run.stdout) != quiet
    assert b"loading" not in run.stdout


def shown(*said: str) -> str:
    """What stands at the terminal after these lines."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with line(console) as show:
        for each in said:
            show(each)
        assert console.is_terminal
        (live,) = console._live_stack
        with console.capture() as captured:
            console.print(live.renderable)
    return captured.get()


def test_a_count_becomes_a_bar_with_times() -> None:
    text = shown("analysing", Counted("recovering layer 6 of 20: conv", 5, 20))
    assert "recovering layer 6 of 20: conv" in text
    assert "━" in text
    assert " 5/20" in text
    assert "left" in text


def test_without_a_count_there_is_no_bar() -> None:
    text = shown(Counted("batch 6", 5, 20), "removing")
    assert "removing" in text
    assert "0:00:00" in text
    assert "━" not in text
    assert "left" not in text
    assert "20" not in text


def test_a_smaller_count_is_other_work() -> None:
    assert " 1/20" in shown(Counted("one", 19, 20), Counted("another", 1, 20))
