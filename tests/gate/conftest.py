"""A folder with a trained model and its test images, as a user would have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.runtime import latency


@pytest.fixture(autouse=True)
def _few_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it only matters that latency is measured, not how well."""
    monkeypatch.setattr(latency, "SESSIONS", 1)


@pytest.fixture
def folder(digits: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: model.onnx, original.onnx (the same) and samples.npz (images and digit)."""
    for name in ("model.onnx", "original.onnx"):
        (tmp_path / name).write_bytes(digits["resnet"].read_bytes())
    archive = np.load(digits["resnet"].with_name("digits_test.npz"))
    np.savez(tmp_path / "samples.npz", input=archive["input"], digit=archive["labels"])
    for variable in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path
