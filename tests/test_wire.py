"""The wire format: big weights are found without being read, and written one at a time."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.model import protobuf as wire
from onnxprune.model.protobuf import BIG, Initializer, WireError, split_weights


def model_of(**weights: np.ndarray) -> onnx.ModelProto:
    """A model with weights and one node."""
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "net", [x], [y], tensors)
    return onnx.helper.make_model(graph)


def streamed(model: onnx.ModelProto) -> bytes:
    """What `write` makes of a model whose weights are taken out and streamed."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.graph.ClearField("initializer")
    tensors = []
    for tensor in model.graph.initializer:
        header = onnx.TensorProto()
        header.CopyFrom(tensor)
        header.ClearField("raw_data")
        data = tensor.raw_data
        tensors.append(Initializer(header, len(data), lambda out, data=data: out.write(data)))
    out = io.BytesIO()
    wire.write_model(rest, tensors, out)
    return out.getvalue()


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "big": rng.standard_normal((20, 30)).astype(np.float32),
        "limit": rng.integers(0, 9, BIG, dtype=np.uint8),
        "below": rng.integers(0, 9, BIG - 1, dtype=np.uint8),
        "shape": np.array([0, -1], dtype=np.int64),
    }


def test_ranges_are_where_the_bytes_of_big_weights_lie(weights: dict[str, np.ndarray]) -> None:
    data = model_of(**weights).SerializeToString()
    skeleton, ranges = split_weights(data)
    assert set(ranges) == {"big", "limit"}
    for name, (offset, length) in ranges.items():
        assert data[offset : offset + length] == weights[name].tobytes()
    contents = {tensor.name: tensor.raw_data for tensor in skeleton.graph.initializer}
    assert contents == {
        "big": b"",
        "limit": b"",
        "below": weights["below"].tobytes(),
        "shape": weights["shape"].tobytes(),
    }


def test_everything_but_the_bytes_is_in_the_skeleton(weights: dict[str, np.ndarray]) -> None:
    model = model_of(**weights)
    skeleton, ranges = split_weights(model.SerializeToString())
    for tensor in model.graph.initializer:
        if tensor.name in ranges:
            tensor.ClearField("raw_data")
    assert skeleton == model


def test_streamed_file_reads_back_equal(weights: dict[str, np.ndarray]) -> None:
    model = model_of(**weights)
    assert onnx.ModelProto.FromString(streamed(model)) == model


def test_only_one_weight_is_asked_for_at_a_time(weights: dict[str, np.ndarray]) -> None:
    """A writer is called when its bytes are due, after what comes before it was written."""
    positions: list[int] = []

    def write(out: io.BytesIO) -> None:
        positions.append(out.tell())
        out.write(b"\1" * 2_000)

    header = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8, dims=[2_000])
    out = io.BytesIO()
    wire.write_model(model_of(), [Initializer(header, 2_000, write)] * 3, out)
    assert len(positions) == 3
    assert all(second - first > 2_000 for first, second in itertools.pairwise(positions))


def test_weight_in_typed_fields_stays_in_the_skeleton() -> None:
    """Exporters may use float_data instead of raw_data."""
    model = model_of()
    model.graph.initializer.append(onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1_000], [0.5] * 1_000))
    skeleton, ranges = split_weights(model.SerializeToString())
    assert not ranges
    assert skeleton == model


def test_graph_in_two_fields_is_merged_as_protobuf_does(weights: dict[str, np.ndarray]) -> None:
    first, second = model_of(big=weights["big"]), onnx.ModelProto()
    second.graph.initializer.append(onnx.numpy_helper.from_array(weights["limit"], "limit"))
    data = first.SerializeToString() + second.SerializeToString()
    skeleton, ranges = split_weights(data)
    assert set(ranges) == {"big", "limit"}
    assert [tensor.name for tensor in skeleton.graph.initializer] == ["big", "limit"]
    assert len(skeleton.graph.node) == 1


def test_bytes_of_any_kind_of_buffer(weights: dict[str, np.ndarray]) -> None:
    data = model_of(**weights).SerializeToString()
    assert split_weights(memoryview(data))[1] == split_weights(data)[1]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x3a\xff", "a number runs past the end"),
        (b"\x3a\x05ab", "a field runs past the end"),
        (b"\x3a" + b"\xff" * 10, "a number runs past the end"),
        (b"\x3b", "unknown wire type 3"),
        (b"\x39\x00\x00", "a field runs past the end"),
    ],
)
def test_damage_is_named(data: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        split_weights(data)


def test_every_truncation_is_a_wire_error_or_ends_between_fields(digits: dict[str, Path]) -> None:
    data = model_of(w=np.ones(300, np.float32)).SerializeToString()
    whole = 0
    for end in range(len(data)):
        try:
            split_weights(data[:end])
            whole += 1
            onnx.ModelProto.FromString(data[:end])
        except WireError:
            continue
    assert whole < 10, "only where one of the few outermost fields ends"


@given(st.binary(max_size=200))
def test_any_bytes_split_or_are_refused(data: bytes) -> None:
    try:
        proto, ranges = split_weights(data)
    except WireError:
        return
    assert onnx.ModelProto.FromString(data) is not None
    assert all(offset + length <= len(data) for offset, length in ranges.values())
    assert proto.ByteSize() <= len(data) + 16


@given(st.data())
def test_damaged_bytes_split_or_are_refused(data: st.DataObject) -> None:
    content = bytearray(model_of(w=np.ones(300, np.float32), v=np.ones(3, np.int64)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        _, ranges = split_weights(bytes(content))
    except WireError:
        return
    assert all(offset + length <= len(content) for offset, length in ranges.values())
