"""What every method of recovery promises, asserted for every one that is registered: a new file is under this test.

- On samples that it has not seen, the outputs come nearer to those of the original.
- The file is valid, and the same samples give the same bytes.
- It says what it does in one line. Like every pass it shows the graph before and after (tests/passes/test_contract.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.model.file import check
from onnxprune.steps.recover.base import METHODS
from tests.conftest import ROOT
from tests.recovery.pruned import Array, error, outputs, outputs_of, thinned


@pytest.fixture(scope="module")
def seen() -> list[dict[str, Array]]:
    with np.load(ROOT / "models" / "digits_calibration.npz") as data:
        return [{"input": part} for part in np.split(data["input"][:128], 4)]


@pytest.fixture(scope="module")
def unseen() -> list[dict[str, Array]]:
    with np.load(ROOT / "models" / "digits_test.npz") as data:
        return [{"input": data["input"]}]


def recovered(name: str, path: Path, seen: list[dict[str, Array]], unseen: list[dict[str, Array]]) -> Array:
    """The outputs for the unseen samples; the file lies in the current folder."""
    pairing = thinned(path, 3)
    method = METHODS[name]
    made = method.make(pairing, seen) if method.on_data else method.make(pairing)
    assert made(pairing.pruned.model).modified
    return outputs_of(pairing, Path(), unseen)


@pytest.mark.parametrize("name", METHODS)
def test_outputs_come_nearer_and_the_bytes_are_the_same_again(
    name: str,
    digits: dict[str, Path],
    seen: list[dict[str, Array]],
    unseen: list[dict[str, Array]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = digits["resnet"]
    due = outputs(path, unseen)
    before = error(outputs_of(thinned(path, 3), tmp_path, unseen), due)
    assert error(recovered(name, path, seen, unseen), due) < before
    check(Path("pruned.onnx"))
    written = Path("pruned.onnx").read_bytes()
    recovered(name, path, seen, unseen)
    assert Path("pruned.onnx").read_bytes() == written


@pytest.mark.parametrize("name", METHODS)
def test_says_what_it_does_in_one_line(name: str) -> None:
    assert 3 <= len(METHODS[name].summary.split()) <= 25
