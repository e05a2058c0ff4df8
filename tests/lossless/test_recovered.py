"""What recovery leaves without effect goes in a second, lossless step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxprune.analysis.layers import bias_of, layers, matrix_of
from onnxprune.model.file import save
from onnxprune.passes.write_back import set_bias, set_matrix
from onnxprune.pipeline.run import compress, inspect
from tests.conftest import Build
from tests.recovery.pruned import feeds, outputs

NET = """
    net (float[batch, 4, 6, 6] x) => (float[batch, 3, 4, 4] y)
    <float[6, 4, 1, 1] a, float[6] p, float[5, 6, 3, 3] b, float[3, 5, 1, 1] c>
    { h = Conv(x, a, p)  r = Relu(h)  i = Conv(r, b)  s = Relu(i)  y = Conv(s, c) }
"""


def test_units_that_recovery_switched_off_disappear(build: Build, tmp_path: Path) -> None:
    """Unread: the columns of the reader are zero. Constant: the unit's own weights are; its value goes into biases."""
    analysis = inspect(build(NET))
    first, second, last = layers(analysis)
    matrix, bias = matrix_of(first), bias_of(first, 6)
    matrix[0, :, 2], bias[2] = 0.0, 0.7  # constant
    set_matrix(analysis.model, first, matrix)
    set_bias(analysis.model, first, bias)
    matrix = matrix_of(second)
    matrix[0, second.feature_channels(6)[0] == 4] = 0.0  # unread
    set_matrix(analysis.model, second, matrix)
    set_bias(analysis.model, second, np.zeros(5))
    matrix = matrix_of(last)
    matrix[0, 1] = 0.0  # unread
    set_matrix(analysis.model, last, matrix)
    save(analysis.model, tmp_path / "recovered.onnx")

    result = compress(tmp_path / "recovered.onnx", lossless=True)
    assert {removal.group: removal.remove for removal in result.plan.removals} == {"a": (2, 4), "b": (1,)}
    result.save(tmp_path / "small.onnx")
    data = feeds(shape=(4, 6, 6), batches=1)
    np.testing.assert_allclose(
        outputs(tmp_path / "small.onnx", data), outputs(tmp_path / "recovered.onnx", data), rtol=1e-4, atol=1e-4
    )
