"""What the tests of training share: data in memory, and small models that train within a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.data.base import Batch, Data
from onnxprune.steps.train.options import TrainOptions

Array = npt.NDArray[Any]

# Blobs that a straight line parts.
LINEAR = """
    net (float[batch, 4] x) => (float[batch, 3] logits) <float[4, 8] w, float[8] b, float[8, 3] v, float[3] c>
    { h = Gemm(x, w, b)  r = Relu(h)  logits = Gemm(r, v, c) }
"""
# A deployed network: three convolutions with biases, no norm.
CONVOLUTIONS = """
    net (float[batch, 3, 8, 8] x) => (float[batch, 4] logits)
    <float[6, 3, 3, 3] w1, float[6] b1, float[6, 6, 3, 3] w2, float[6] b2, float[8, 6, 3, 3] w3, float[8] b3,
     float[8, 4] v, float[4] c>
    {
        y1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)  r1 = Relu(y1)
        y2 = Conv<pads = [1, 1, 1, 1]>(r1, w2, b2)  s = Add(y2, r1)  r2 = Relu(s)
        y3 = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(r2, w3, b3)  r3 = Relu(y3)
        p = GlobalAveragePool(r3)  f = Flatten(p)  logits = Gemm(f, v, c)
    }
"""
# A normalization of its own.
NORMALIZED = """
    net (float[batch, 3, 8, 8] x) => (float[batch, 4] logits)
    <float[6, 3, 3, 3] w, float[6] s, float[6] m, float[6] mean, float[6] var, float[6, 4] v, float[4] c>
    {
        y = Conv(x, w)  n = BatchNormalization(y, s, m, mean, var)  r = Relu(n)
        p = GlobalAveragePool(r)  f = Flatten(p)  logits = Gemm(f, v, c)
    }
"""


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def data_of(feed: dict[str, Array], labels: Array | None = None, size: int = 16, name: str = "samples") -> Data:
    """Samples in batches of `size`."""
    count = max(len(array) for array in feed.values() if array.ndim)
    batches = [
        Batch(
            {key: array[at : at + size] if array.ndim else array for key, array in feed.items()},
            None if labels is None else labels[at : at + size],
        )
        for at in range(0, count, size)
    ]
    return Data(name, labels is not None, lambda: iter(batches))


def blobs(count: int = 96, seed: int = 0, dtype: npt.DTypeLike = np.float32) -> Data:
    """Three classes of points [count, 4]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centres = np.eye(4)[:3] * 3
    return data_of({"x": (centres[labels] + rng.normal(size=(count, 4))).astype(dtype)}, labels)


def pictures(count: int = 64, seed: int = 0, *, labelled: bool = False) -> Data:
    """[count, 3, 8, 8] of four classes, each noise around a colour of its own."""
    labels = np.arange(count) % 4
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]], np.float32)[labels]
    x = normal(count, 3, 8, 8, seed=seed) + 0.5 * colours[:, :, None, None]
    return data_of({"x": x}, labels if labelled else None)


def weights(model: ir.Model) -> dict[str, Array]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}


def options(**given: Any) -> TrainOptions:
    """Without augmentation, 20 updates of 16 samples."""
    return TrainOptions(**{"updates": 20, "batch_size": 16, "augment": ("none",), "evaluations": 4, **given})
