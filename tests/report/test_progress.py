"""Progress is for a person: a bar at a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import io
import itertools
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import onnxprune as op
from onnxprune.report.bars import progress_bar
from onnxprune.report.progress import _lines, clock, progress, seconds_left
from onnxprune.support.progress import Overall
from tests.conftest import ROOT


def test_nothing_of_a_short_job_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
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
    run = subprocess.Popen([*command, *(["-q"] if quiet else [])], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b"".join(iter(lambda: _read(ours), b""))  # as it comes: a terminal holds a few kB only
    os.close(ours)
    printed, _ = run.communicate()
    assert run.returncode == 0
    assert (b"loading" in seen) != quiet
    assert (b"parameters" in printed) != quiet
    assert b"loading" not in printed


def _read(terminal: int) -> bytes:
    """What comes next; nothing once the other end is closed, which Linux calls an error."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def shown(*said: str) -> str:
    """What stands at the terminal after these lines."""
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with progress_bar(console) as show:
        for each in said:
            show(each)
        assert console.is_terminal
        (live,) = console._live_stack
        with console.capture() as captured:
            console.print(live.renderable)
    return captured.get()


def test_one_bar_for_the_whole_run_with_times() -> None:
    text = shown("analysing", Overall("recovering layer 6 of 20: conv", 0.25), "removing")
    assert "removing" in text
    assert "━" in text
    assert " 25%" in text
    assert "0:00:00 left" in text


def test_no_time_is_told_too_early() -> None:
    assert "left" not in shown(Overall("analysing", 0.01))
    assert seconds_left(10, 0.25) == 30
    assert seconds_left(10, 0.01) is None


def test_a_clock() -> None:
    assert [clock(seconds) for seconds in (0.4, 65, 3725)] == ["0:00:00", "0:01:05", "1:02:05"]


def test_lines_where_there_is_no_terminal() -> None:
    stream, seen = io.StringIO(), 0
    with _lines(stream, 0.01) as show:
        show(Overall("recovering layer 6 of 20: conv", 0.5))
        while "layer 6" not in stream.getvalue() and seen < 1000:
            seen += 1
            time.sleep(0.01)
    line = stream.getvalue().splitlines()[-1]
    assert line == "onnxprune: 0:00:00, 50%, about 0:00:00 left: recovering layer 6 of 20: conv"
    told = stream.getvalue()
    time.sleep(0.05)
    assert stream.getvalue() == told


def test_a_run_goes_from_its_start_to_its_end(digits: dict[str, Path]) -> None:
    told: list[str] = []
    with np.load(ROOT / "models" / "digits_calibration.npz") as samples:
        data = {"input": samples["input"][:32]}
    op.compress(digits["lstm"], data=data, ratio=0.5, steps=2, progress=told.append)
    shares = [each.share for each in told if isinstance(each, Overall)]
    assert len(shares) == len(told)
    assert shares == sorted(shares)
    assert (shares[0], max(shares)) == (0, pytest.approx(1, abs=0.06))
    assert max(after - before for before, after in itertools.pairwise(shares)) < 0.3
    assert any(each.startswith("round 2 of 2: recovering layer") for each in told)
