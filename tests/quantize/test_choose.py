"""What is chosen by measurement, with the measurement in the hand of the test."""

from __future__ import annotations

from dataclasses import dataclass, field
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
