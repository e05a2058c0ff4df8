"""Inputs read from a model, sizes read from text, and made-up values."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.file import open_model
from onnxprune.model.signature import Port, given_sizes, ports_of, synthetic_feed
from onnxprune.runtime.session import Session
from tests.conftest import Build

IMAGES = Port("images", "tensor(float)", ("batch", 3, "height", None))


def test_ports_are_those_of_onnx_runtime(build: Build) -> None:
    path = build("""
        net (float[batch, 4, ?] x, int64[batch] ids, float16[2] h, bool m, float[4, 3] w) => (float[batch, 4, ?] y)
        <float[4, 3] w>
        { k = Cast<to = 1>(m)  y = Mul(x, k) }
    """)
    ports = ports_of(open_model(path))
    assert [port.name for port in ports] == ["x", "ids", "h", "m"]
    assert ports == Session(path).inputs


def test_ports_of_kinds_that_are_no_tensors(build: Build) -> None:
    (port,) = ports_of(
        open_model(build("net (seq(float[2, 3]) x, int64 at) => (float[2, 3] y) { y = SequenceAt(x, at) }"))
    )[:1]
    with pytest.raises(ModelError, match="'x' has type"):
        synthetic_feed([port], {})


def test_sizes_from_text() -> None:
    assert given_sizes(["images:8x3x64x48"], [IMAGES]) == {"batch": 8, "height": 64, "images[3]": 48}
    assert given_sizes(["images:Nx3x64x?"], [IMAGES]) == {"height": 64}
    assert IMAGES.bound({"height": 64, "images[3]": 48}).shape == ("batch", 3, 64, 48)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("8x3x64x48", "name:1x3x224x224"),
        ("images:", "name:1x3x224x224"),
        ("image:8x3x64x48", "did you mean 'images'"),
        ("images:3x64x48", "4 axes, but .* gives 3"),
        ("images:8x1x64x48", r"axis 1 cannot have size 1"),
        ("images:0x3x64x48", "axis 0 cannot have size 0"),
    ],
)
def test_sizes_that_cannot_be(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        given_sizes([text], [IMAGES])


def test_one_axis_cannot_have_two_sizes() -> None:
    masks = Port("masks", "tensor(bool)", ("batch", "height"))
    with pytest.raises(UsageError, match="axis 0 cannot have size 4"):
        given_sizes(["images:8x3x?x?", "masks:4x?"], [IMAGES, masks])


def test_synthetic_values_follow_type_and_seed() -> None:
    ports = [IMAGES, Port("m", "tensor(bool)", (2,)), Port("i", "tensor(int32)", (50,))]
    feed = synthetic_feed(ports, {"batch": 2, "height": 5}, seed=3)
    assert feed["images"].shape == (2, 3, 5, 1)
    assert feed["images"].dtype == np.float32
    assert feed["m"].all()
    assert set(feed["i"].tolist()) == {0, 1}
    again = synthetic_feed(ports, {"batch": 2, "height": 5}, seed=3)
    assert all((feed[name] == again[name]).all() for name in feed)


def test_too_large_an_input_is_refused() -> None:
    with pytest.raises(ModelError, match="too many"):
        synthetic_feed([Port("x", "tensor(float)", (1 << 20, 1 << 20))], {})
