"""What is said when a block fails over a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.analysis.inspect import blaming
from onnxprune.errors import ModelError


def test_a_failure_over_no_model_blames_the_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("no model")
    with pytest.raises(ModelError, match="not a valid ONNX model"), blaming(path):
        raise KeyError("x")


def test_memory_that_runs_out_is_not_the_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("no model")
    with pytest.raises(MemoryError), blaming(path):
        raise MemoryError
