"""Small inputs, and what a pass over data gives as whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxprune.data.base import Array, Data, load_data
from onnxprune.model.signature import Port

ROWS = Port("x", "tensor(float)", ("batch", 3))
FIXED = Port("x", "tensor(float)", (4, 3))
IMAGES = Port("pixels", "tensor(float)", ("batch", 3, 8, 8))
IDS = Port("input_ids", "tensor(int64)", ("batch", "length"))
MASK = Port("attention_mask", "tensor(int64)", ("batch", "length"))


def load(spec: object, *ports: Port, **options: Any) -> Data:
    return load_data(str(spec), ports, **options)


def sizes(data: Data) -> list[int]:
    """The number of samples in each batch."""
    return [len(next(iter(batch.feed.values()))) for batch in data.batches()]


def gathered(data: Data, name: str = "x") -> Array:
    """One input of all samples."""
    return np.concatenate([batch.feed[name] for batch in data.batches()])


def labels_of(data: Data) -> Array:
    found = [batch.labels for batch in data.batches() if batch.labels is not None]
    return np.concatenate(found)


def assert_same_again(data: Data) -> None:
    """Two passes give the same, byte for byte."""
    first, second = list(data.batches()), list(data.batches())
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.feed.keys() == other.feed.keys()
        for name, array in one.feed.items():
            assert array.dtype == other.feed[name].dtype
            assert array.tobytes() == other.feed[name].tobytes()
        assert (one.labels is None) == (other.labels is None)
        assert one.labels is None or other.labels is None or (one.labels == other.labels).all()
