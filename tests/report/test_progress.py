"""Progress is for a person at a terminal, and for nobody else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.report.progress import progress


def test_nothing_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as say:
        say("working")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("quiet", [False, True])
def test_steps_at_a_terminal(digits: dict[str, Path], tmp_path: Path, quiet: bool) -> None:
    command = [sys.executable, "-m", "onnxprune", "compress", str(digits["resnet"]), "-o", str(tmp_path / "out.onnx")]
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
