"""What is chosen by measurement, with the measurement in the hand of the test."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import nan
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest

import onnxprune as op
from onnxprune.errors import TargetError, UsageError
from onnxprune.evaluation.benchmark.comparison import Comparison
from onnxprune.steps.quantize import choose
from onnxprune.steps.quantize.base import Quantized, QuantizeJob
from onnxprune.steps.quantize.fit import LayerNoise
from tests.conftest import ROOT, Build

NOISE = {"a": 30.0, "b": 10.0, "c": 20.0, "d": 40.0}


@dataclass(frozen=True)
class Job:
    noisy: dict[str, str] = field(default_factory=dict)


def make(job: QuantizeJob) -> Quantized:
    layers = [LayerNoise(name, "Conv", 0 if name in job.noisy else 8, snr) for name, snr in NOISE.items()]
    return Quantized(cast("ir.Model", None), tuple(layers))


def kept(found: Quantized) -> set[str]:
    return {layer.layer for layer in found.layers if not layer.bits}


@pytest.mark.parametrize(("allowed", "expected"), [(4, set()), (3, {"b"}), (2, {"b", "c"}), (1, {"b", "c", "a"})])
def test_as_few_of_the_noisiest_as_keep_the_drop(allowed: float, expected: set[str]) -> None:
    """Every layer on integers costs 1 here."""
    drop: Any = lambda found: 4.0 - len(kept(found))  # noqa: E731
    assert kept(choose.keep_within(cast("QuantizeJob", Job()), make, drop, allowed)) == expected


def test_a_drop_that_cannot_be_kept() -> None:
    with pytest.raises(TargetError, match="as long as any layer is quantized"):
        choose.keep_within(cast("QuantizeJob", Job()), make, lambda _: 1.0, 0.5)


@pytest.mark.parametrize(("most", "expected"), [(0, set()), (1, {"b"}), (2.5, {"b", "c"}), (9, {"b", "c", "a"})])
def test_as_many_of_the_noisiest_as_a_limit_allows(most: float, expected: set[str]) -> None:
    """Every layer in float takes one more here; the last stays on integers, or nothing would be quantized."""
    limit = choose.Allowed("size", most, lambda found: float(len(kept(found))))
    found = choose.keep_while(cast("QuantizeJob", Job()), make, [limit])
    assert kept(found) == expected
    with pytest.raises(TargetError, match="the size may be -1 of the float model's, and with every layer on integers"):
        choose.keep_while(cast("QuantizeJob", Job()), make, [replace(limit, most=-1)])


NETWORK = """
    net (float[batch, 3, 8, 8] x) => (float[batch, 4] y)
    <float[32, 3, 3, 3] w, float[32] b, float[32, 32, 3, 3] v, float[4, 32] u, float[4] c>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(h)  k = Conv<pads = [1, 1, 1, 1]>(r, v)  t = Relu(k)
        p = GlobalAveragePool(t)  f = Flatten(p)  y = Gemm<transB = 1>(f, u, c)
    }
"""
IMAGES = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)


def test_an_allowed_size_keeps_what_it_can_in_float(build: Build, tmp_path: Any) -> None:
    path = build(NETWORK)
    options = {"data": IMAGES, "weight_bits": 4, "rounding": "nearest"}
    bare, held = (
        op.quantize(path, "int8", **options, **more, allow_damage=True) for more in ({}, {"allowed_size": 0.5})
    )
    sizes = [each.save(tmp_path / f"{at}.onnx").file_bytes for at, each in enumerate((bare, held))]
    assert sizes[0][1] < sizes[1][1] <= 0.5 * sizes[1][0]
    floats = [layer for layer in held.report.quantization["layers"] if not layer["bits"]]
    assert floats
    assert all("and the size allows it" in layer["why"] for layer in floats)
    with pytest.raises(TargetError, match=r"the size may be 0\.1 of the float model's"):
        op.quantize(path, "int8", **options, allowed_size=0.1)


def test_an_allowed_latency_is_that_of_both_in_turns(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer in float takes 0.2 of the time here."""

    def timed(_: QuantizeJob, model: ir.Model) -> Comparison:
        return Comparison(0.3 + 0.2 * len({"w", "v", "u"} & set(model.graph.initializers)), nan, nan)

    monkeypatch.setattr(choose, "time_beside_float", timed)
    report = op.quantize(build(NETWORK), "int8", data=IMAGES, rounding="nearest", allowed_latency=0.6).report
    assert [not layer["bits"] for layer in report.quantization["layers"]].count(True) == 1


@pytest.mark.parametrize("equalize", ["auto", "always", "never"])
def test_channels_of_unequal_ranges_are_equalized(equalize: str, build: Build) -> None:
    """Channels between two convolutions are 2^k times as large as they might be: int8 has to come out as without."""
    rng = np.random.default_rng(0)
    size = np.exp2(rng.integers(-5, 6, 32)).astype(np.float32)
    w, v = (rng.standard_normal(shape).astype(np.float32) / 8 for shape in ((32, 3, 3, 3), (32, 32, 3, 3)))
    made = {"w": w * size[:, None, None, None], "v": v / size[None, :, None, None], "b": np.zeros(32, np.float32)}
    path = build(NETWORK, **made)
    report = op.quantize(path, "int8", data=IMAGES, equalize=equalize, allow_damage=True).report
    assert report.quantization["equalized"] == (equalize != "never")
    ratio = next(score.after for score in report.quality.scores if score.metric == "snr")
    assert (ratio > 25) == (equalize != "never")


def test_equal_channels_stay_as_they_are(build: Build) -> None:
    report = op.quantize(build(NETWORK), "int8", data=IMAGES, allow_damage=True).report
    assert report.quantization["equalized"] is False


def test_ranges_and_zipped_bytes_are_reported(build: Build) -> None:
    found = op.quantize(build(NETWORK), "int8", data=IMAGES, ranges="minmax", allow_damage=True).report.quantization
    first = found["layers"][0]
    assert IMAGES.min() <= first["seen"][0] < -3 < 3 < first["seen"][1] <= IMAGES.max()
    np.testing.assert_allclose(first["covered"], first["seen"], atol=(IMAGES.max() - IMAGES.min()) / 255)
    assert 0 < found["zipped_bytes"]["after"] < 0.3 * found["zipped_bytes"]["before"]


def test_an_allowed_drop_is_kept_on_a_model() -> None:
    """Two bits ruin the digits model, so layers stay in float until it agrees with itself often enough."""
    path, data = ROOT / "models/digits_transformer.onnx", ROOT / "models/digits_calibration.npz"
    options = {"data": data, "weight_bits": 2, "rounding": "nearest", "ranges": "minmax"}
    bare = op.quantize(path, "int8", **options, allow_damage=True).report
    held = op.quantize(path, "int8", **options, allowed_drop=0.05).report
    agreement = [next(s.after for s in each.quality.scores if s.metric == "agreement") for each in (bare, held)]
    assert agreement[0] < 0.95 <= agreement[1]
    floats = [layer for layer in held.quantization["layers"] if not layer["bits"]]
    assert 0 < len(floats) < len(held.quantization["layers"])
    assert all("to keep within the drop" in layer["why"] for layer in floats)


@pytest.mark.parametrize(("ratio", "chosen"), [(0.5, "int8"), (1.3, "fp16-weights")])
def test_auto_is_never_slower(ratio: float, chosen: str, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "time_beside_float", lambda *_: Comparison(ratio, ratio, ratio))
    path = build(
        "net (float[batch, 16] x) => (float[batch, 8] y) <float[16, 32] w, float[32, 8] v> "
        "{ h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }"
    )
    report = op.quantize(path, data=np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)).report
    assert report.quantization["type"] == chosen
    assert any(f"{ratio:.2f} times as long as float" in note for note in report.notes)


def test_a_drop_needs_samples(build: Build) -> None:
    path = build("net (float[batch, 4] x) => (float[batch, 4] y) <float[4, 4] w> { y = MatMul(x, w) }")
    with pytest.raises(UsageError, match="give --data"):
        op.quantize(path, "int8", allowed_drop=0.1)
