"""What every method of recovery promises, asserted for every one that is registered: a new file is under this test.

- Where the removed units were much like others, the outputs for unseen samples come nearer to those of the original.
- The file is valid, and the same samples give the same bytes.
- It says what it does in one line. Like every pass it shows the graph before and after (tests/passes/test_contract.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.model.check import check_model
from onnxprune.steps.recover.base import METHODS
from tests.conftest import Build
from tests.recovery.pruned import error, feeds, outputs, outputs_of, pair

# Units 4 and 5 give about what 1 and 2 give.
PERCEPTRON = """
    net (float[batch, 4] x) => (float[batch, 3] y) <float[4, 6] a, float[6] p, float[6, 3] b>
    { h = Gemm(x, a, p)  r = Relu(h)  y = MatMul(r, b) }
"""
RNG = np.random.default_rng(1)
WEIGHT, BIAS = RNG.standard_normal((4, 6)), RNG.standard_normal(6)
WEIGHT[:, 4:], BIAS[4:] = 2 * WEIGHT[:, 1:3] + 0.1 * WEIGHT[:, 4:], 2 * BIAS[1:3]


@pytest.mark.parametrize("name", METHODS)
def test_outputs_come_nearer_and_the_bytes_are_the_same_again(name: str, build: Build, tmp_path: Path) -> None:
    path = build(PERCEPTRON, a=WEIGHT, p=BIAS)
    seen, unseen = feeds(), [{"x": np.random.default_rng(2).standard_normal((200, 4)).astype(np.float32)}]
    due, method, written = outputs(path, unseen), METHODS[name], []
    before = error(outputs_of(pair(path, {"a": (4, 5)}), tmp_path, unseen), due)
    for _ in range(2):
        pairing = pair(path, {"a": (4, 5)})
        made = method.make(pairing, seen) if method.on_data else method.make(pairing)
        assert made(pairing.pruned.model).modified
        assert error(outputs_of(pairing, tmp_path, unseen), due) < 0.9 * before
        check_model(tmp_path / "pruned.onnx")
        written.append((tmp_path / "pruned.onnx").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("name", METHODS)
def test_says_what_it_does_in_one_line(name: str) -> None:
    assert 3 <= len(METHODS[name].summary.split()) <= 25
