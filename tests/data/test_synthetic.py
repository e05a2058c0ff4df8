"""Made-up data: shapes and ranges that models take, and statistics that are those of what they were trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.data.base import Data, Hints, ImageStatistics
from onnxprune.data.index_ranges import compared_values, index_ranges
from onnxprune.data.natural_images import natural_noise
from onnxprune.data.sources import synthetic
from onnxprune.data.sources.synthetic import SAMPLES, hints_of, match_batchnorm
from onnxprune.errors import DataError, ModelError
from onnxprune.model.file import open_model
from onnxprune.model.signature import IndexRange, Port, ports_of
from onnxprune.runtime.session import Session
from tests.conftest import Build
from tests.data.harness import IDS, IMAGES, MASK, assert_same_again, gathered, load, sizes


def test_shapes_types_and_number() -> None:
    data = load("synthetic", IDS, MASK, IMAGES, Port("flag", "tensor(bool)", ()))
    assert sizes(data) == [32] * (SAMPLES // 32)
    batch = next(data.batches())
    assert not data.labelled
    assert {name: array.shape for name, array in batch.feed.items()} == {
        "input_ids": (32, 32),
        "attention_mask": (32, 32),
        "pixels": (32, 3, 8, 8),
        "flag": (),
    }
    assert (batch.feed["attention_mask"] == 1).all()
    assert batch.feed["flag"].all()
    assert_same_again(data)


@pytest.mark.parametrize("most", [0, 32 * 32 * 8 * 3 * 8 * 4, 1 << 30])
def test_passes_are_alike_whether_their_batches_are_kept_or_made_again(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "_KEPT_BYTES", most)
    made = []
    monkeypatch.setattr(synthetic, "_feed", lambda *args, make=synthetic._feed: made.append(args[2]) or make(*args))
    assert_same_again(load("synthetic", IMAGES, samples=70))
    assert made.count(0) == (3 if most == 0 else 1)  # looked at once, fed twice


def test_batches_and_seeds_differ() -> None:
    data = load("synthetic", IMAGES, samples=40)
    assert sizes(data) == [32, 8]
    first, second = data.batches()
    assert not np.allclose(first.feed["pixels"][:8], second.feed["pixels"])
    assert not np.allclose(gathered(data, "pixels"), gathered(load("synthetic", IMAGES, samples=40, seed=1), "pixels"))


def test_static_axes_and_given_sizes() -> None:
    port = Port("x", "tensor(float)", (4, "channels", None))
    data = load("synthetic", port, samples=10, sizes={"channels": 3, "x[2]": 5})
    assert [batch.feed["x"].shape for batch in data.batches()] == [(4, 3, 5)] * 2
    state = Port("state", "tensor(float)", (2, "batch", 3))
    rows = Port("rows", "tensor(float)", ("batch", 7))
    (batch,) = load("synthetic", rows, state, samples=2, sizes={"batch": 2}).batches()
    assert (batch.feed["state"].shape, batch.feed["rows"].shape) == ((2, 2, 3), (2, 7))


def test_types_that_cannot_be_made() -> None:
    with pytest.raises(ModelError, match="bfloat16"):
        load("synthetic", Port("x", "tensor(bfloat16)", (1,)))
    with pytest.raises(DataError, match="fewer samples than the 4"):
        load("synthetic", Port("x", "tensor(float)", (4, 3)), samples=3)


def test_hints_are_limits_and_statistics() -> None:
    positions = Port("position_ids", "tensor(int64)", ("batch", "length"))
    hints = Hints(
        {"input_ids": IndexRange(0, 1000), "position_ids": IndexRange(0, 5)},
        {"pixels": ImageStatistics(np.array([1.0, 2, 3]), np.diag([4.0, 1, 0.01]), 1.0)},
    )
    (batch,) = load(
        "synthetic", IDS, positions, IMAGES, hints=hints, sizes={"length": 7}, batch=500, samples=500
    ).batches()
    ids, pixels = batch.feed["input_ids"], batch.feed["pixels"]
    assert 0 <= ids.min() < 10
    assert 990 < ids.max() < 1000
    assert (batch.feed["position_ids"] == [0, 1, 2, 3, 4, 0, 1]).all()
    assert np.allclose(pixels.mean((0, 2, 3)), [1, 2, 3], atol=0.15)
    assert np.allclose(pixels.std((0, 2, 3)), [2, 1, 0.1], rtol=0.1)


def test_images_of_bytes() -> None:
    (batch,) = load("synthetic", Port("x", "tensor(uint8)", (None, 16, 16, 3)), samples=32).batches()
    assert batch.feed["x"].dtype == np.uint8
    assert 100 < batch.feed["x"].mean() < 156
    assert batch.feed["x"].std() > 30


def test_noise_has_the_spectrum_of_natural_images() -> None:
    noise = natural_noise((200, 32, 48), np.random.default_rng(0))
    assert noise.shape == (200, 32, 48)
    assert noise.var() == pytest.approx(1, rel=0.05)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(48)[None, :])
    slope = np.polyfit(np.log(frequency[frequency > 0]), np.log(power[frequency > 0]), 1)[0]
    assert slope == pytest.approx(-2.4, abs=0.05)  # of power: twice that of amplitude


# ---- what the model tells -----------------------------------------------------------------------------------------

MEAN = np.array([0.3, -1.0, 0.6])
MIXING = np.array([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.2, 0.7]])
COVARIANCE = MIXING @ MIXING.T


def normalized(build: Build, *, layout: str = "NCHW", dilation: int = 1, slope: float = 1.2) -> Path:
    """Conv and BatchNormalization whose running statistics are those of natural noise with MEAN and COVARIANCE."""
    rng = np.random.default_rng(1)
    weight, bias = rng.standard_normal((10, 3, 3, 3)).astype("f"), rng.standard_normal(10).astype("f")
    noise = np.einsum("ij,njhw->nihw", MIXING, natural_noise((300, 3, 24, 20), rng, slope)) + MEAN[:, None, None]
    shape, turn = (
        ("24, 20, 3", "t = Transpose<perm = [0, 3, 1, 2]>(x)") if layout == "NHWC" else ("3, 24, 20", "t = Identity(x)")
    )
    graph = f"""
        net (float[batch, {shape}] x) => (float[batch, 10, h, w] y)
        <float[10, 3, 3, 3] weight, float[10] bias, float[10] one, float[10] zero, float[10] mean, float[10] var>
        {{ {turn}
           c = Conv<dilations = [{dilation}, {dilation}]>(t, weight, bias)
           y = BatchNormalization(c, one, zero, mean, var) }}
    """
    arrays = {"weight": weight, "bias": bias, "one": np.ones(10), "zero": np.zeros(10)}
    fed = noise.transpose(0, 2, 3, 1) if layout == "NHWC" else noise
    plain = build(graph, name="plain", **arrays, mean=np.zeros(10), var=np.full(10, 1 - 1e-5))
    outputs = Session(plain).run({"x": fed.astype("f")})["y"]
    return build(graph, **arrays, mean=outputs.mean((0, 2, 3)), var=outputs.var((0, 2, 3)))


@pytest.mark.parametrize(
    ("layout", "dilation", "slope"), [("NCHW", 1, 1.2), ("NHWC", 1, 1.2), ("NCHW", 2, 1.2), ("NCHW", 1, 1.6)]
)
def test_statistics_are_found_again_in_a_batchnorm(build: Build, layout: str, dilation: int, slope: float) -> None:
    path = normalized(build, layout=layout, dilation=dilation, slope=slope)
    found = match_batchnorm(open_model(path))["x"]
    assert np.allclose(found.mean, MEAN, atol=0.05)
    assert np.allclose(found.covariance, COVARIANCE, atol=0.15)
    assert found.slope == pytest.approx(slope, abs=0.11)


def test_synthetic_data_meets_the_batchnorm(build: Build) -> None:
    path = normalized(build)
    model = open_model(path)

    def normal(data: Data) -> Any:
        outputs = [Session(path).run(batch.feed)["y"] for batch in data.batches()]
        return np.concatenate(outputs)

    matched = normal(load("synthetic", *ports_of(model), hints=hints_of(model), samples=300))
    assert np.abs(matched.mean((0, 2, 3))).max() < 0.15
    assert np.abs(np.log(matched.std((0, 2, 3)))).max() < 0.15
    plain = normal(load("synthetic", *ports_of(model), samples=300))
    assert np.abs(plain.mean((0, 2, 3))).max() > 0.5


def test_an_impossible_covariance_is_made_possible(build: Build) -> None:
    weight = np.array([[1, 1], [1, -1], [1, 0]], "f").reshape(3, 2, 1, 1)
    graph = """
        net (float[n, 4, 8, 8] x) => (float[n, 3, 8, 8] y)
        <float[3, 4, 1, 1] w, float[3] one, float[3] zero, float[3] var>
        { c = Conv(x, w)  y = BatchNormalization(c, one, zero, zero, var) }
    """
    w = np.concatenate([weight, np.zeros_like(weight)], 1)
    model = open_model(build(graph, w=w, one=np.ones(3), zero=np.zeros(3), var=np.array([100, 1e-9, 1e-9])))
    found = match_batchnorm(model)["x"]
    assert np.isfinite(found.mean).all()
    assert np.linalg.eigvalsh(found.covariance).min() > 0
    assert np.allclose(found.covariance, found.covariance.T)


def test_a_batchnorm_that_reads_the_input(build: Build) -> None:
    model = open_model(build("""
        net (float[n, 3, 8, 8] x) => (float[n, 3, 8, 8] y)
        <float[3] one, float[3] zero, float[3] mean = {1, 2, 3}, float[3] var = {4, 5, 6}>
        { y = BatchNormalization(x, one, zero, mean, var) }
    """, one=np.ones(3), zero=np.zeros(3)))  # fmt: skip
    found = match_batchnorm(model)["x"]
    assert found.mean.tolist() == [1, 2, 3]
    assert found.covariance.tolist() == np.diag([4, 5, 6]).tolist()


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w)  r = Relu(c)  y = BatchNormalization(r, one, one, one, one)",
        "c = Mul(x, x)  y = BatchNormalization(c, one, one, one, one)",
        "y = Conv(x, w)",
        "y, m, v = BatchNormalization<training_mode = 1>(x, one, one, one, one)",
    ],
)
def test_nothing_is_guessed(build: Build, body: str) -> None:
    path = build(f"net (float[n, 3, 8, 8] x) => (float[n, 3, 8, 8] y) <float[3, 3, 1, 1] w, float[3] one> {{ {body} }}")
    assert match_batchnorm(open_model(path)) == {}


def test_digits_are_matched(digits: dict[str, Path]) -> None:
    """The resnet was trained on images of mean 0 and variance 1, black borders and all."""
    found = match_batchnorm(open_model(digits["resnet"]))["input"]
    assert abs(found.mean[0]) < 0.1
    assert 0.7 < found.covariance[0, 0] < 1.3


def test_limits_are_the_rows_of_tables(build: Build) -> None:
    model = open_model(build("""
        net (int64[n, l] ids, int32[n, l] types, int64[n] free, float[n, l] x) => (float[n, l, 4] y, int64[n] z)
        <float[50, 4] words, float[60, 4] more, float[4, 2] kinds>
        { a = Gather(words, ids)  b = Gather(more, ids)  f = Cast<to = 7>(types)
          c = Gather<axis = 1>(kinds, f)  d = Transpose<perm = [1, 2, 0]>(c)  s = Add(a, b)  y = Add(s, d)
          z = Add(free, free) }
    """))  # fmt: skip
    assert index_ranges(model) == {"ids": IndexRange(0, 50), "types": IndexRange(0, 2)}


def test_shifted_positions_and_positions_along_a_dynamic_axis(build: Build) -> None:
    """Ids from 100 on, as where the first ones are reserved; edges of a graph, whose ends are nodes."""
    model = open_model(build("""
        net (int64[n] ids, int64[2, edges] ends, float[nodes, 4] x) => (float[n, 4] y, float[edges, 4] z)
        <float[20, 4] words, int64 first = {100}, int64 zero = {0}>
        { i = Sub(ids, first)  y = Gather(words, i)  start = Gather(ends, zero)  z = Gather(x, start) }
    """))  # fmt: skip
    found = index_ranges(model)
    assert found == {"ids": IndexRange(100, 120), "ends": IndexRange(0, "nodes")}
    assert found["ends"].bounds({"nodes": 7}) == (0, 7)


def test_lengths_go_up_to_the_whole(build: Build) -> None:
    """Of a sequence, or of what a Slice leaves: with 0 there would be nothing to learn from, with 1 hardly anything."""
    model = open_model(build("""
        net (int32[n] lens, int64 end, int64[1] more, int64 count, int64[n, 1] seen, float[t, n, 3] x,
             float[n, 9] z) => (float[t, 1, n, 2] y, float[n, p] a, float[q, n, 3] b, float[n, c] d, bool[n, 5] e)
        <float[1, 8, 3] k, float[1, 8, 2] r, int64[1] zeros = {0}, int64[1] ones = {1}, int64 zero = {0},
         int64 one = {1}, int64[5] places = {0, 1, 2, 3, 4}>
        { y = LSTM<hidden_size = 2>(x, k, r, , lens)
          i = Unsqueeze(end, zeros)  a = Slice(z, zeros, i, ones)
          j = Add(more, ones)  b = Slice(x, zeros, j, zeros)
          up = Range(zero, count, one)  d = Gather<axis = 1>(z, up)
          e = Less(places, seen) }
    """))  # fmt: skip
    assert index_ranges(model) == {
        "lens": IndexRange(1, "t"),
        "end": IndexRange(1, 10),
        "more": IndexRange(0, "t"),
        "count": IndexRange(1, 10),
        "seen": IndexRange(1, 6),
    }
    assert index_ranges(model)["lens"].bounds({"t": 6}) == (1, 7)


def test_values_that_the_graph_compares_an_input_with(build: Build) -> None:
    model = open_model(build("""
        net (int64 rate, int64[1] other, float[n] x) => (bool y, bool[1] z)
        <int64 high = {16000}, int64[1] low = {8}, int64[1] one = {1}>
        { y = Equal(rate, high)  shifted = Add(other, one)  z = Less(low, shifted) }
    """))  # fmt: skip
    assert compared_values(model) == {"rate": [16000, 15999, 16001], "other": [7, 6, 8]}


def test_models_of_the_zoo_run_on_made_up_data(zoo_file: Callable[[str], Path], zoo: ModuleType) -> None:
    for name in ("hf.bert.ts17", "tv.resnet18.ts17bn", "hm.lstm.ts17", "hf.clip.ts17"):
        path = zoo_file(name)
        model = open_model(path)
        session = Session(path)
        for batch in load("synthetic", *ports_of(model), hints=hints_of(model), samples=2, batch=2).batches():
            outputs = session.run(batch.feed)
            assert all(np.isfinite(array).all() for array in outputs.values())


def test_the_model_is_left_as_it_is(digits: dict[str, Path]) -> None:
    model = open_model(digits["resnet"])
    before = ir.to_proto(model).SerializeToString()
    hints_of(model)
    assert ir.to_proto(model).SerializeToString() == before
