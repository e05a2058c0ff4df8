"""Targets of size and time, and widths that kernels like, are of the file as it ends where a quantization follows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxprune as op
from onnxprune.errors import TargetError
from onnxprune.model.file import estimated_bytes
from onnxprune.runtime.latency import Setting
from onnxprune.steps.base import Context
from onnxprune.steps.prune import candidates
from onnxprune.steps.prune.candidates import Candidates
from onnxprune.steps.prune.decide import NARROW
from onnxprune.steps.prune.kernels import liked_multiples
from onnxprune.steps.state import State
from tests.conftest import Build

WIDE = """
    net (float[batch, 3, 8, 8] x) => (float[batch, 4] y)
    <float[64, 3, 3, 3] w, float[64] b, float[64, 64, 3, 3] v, float[64] a, float[4, 64] u, float[4] c>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, w, b)  r = Relu(h)
        k = Conv<pads = [1, 1, 1, 1]>(r, v, a)  t = Relu(k)
        p = GlobalAveragePool(t)  f = Flatten(p)  y = Gemm<transB = 1>(f, u, c)
    }
"""
IMAGES = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)


def compressed(path: Path, folder: Path, **options: Any) -> tuple[Path, Any]:
    target = folder / "small.onnx"
    given = {"data": IMAGES, "rounding": "nearest", "ranges": "minmax", "recover": "none", "criterion": "l1"}
    result = op.compress(path, **{**given, **options}, allow_damage=True)
    result.save(target)
    return target, result


@pytest.mark.parametrize("to", ["int8", "int8-weights", "fp16-weights"])
def test_a_size_is_that_of_the_quantized_file(to: str, build: Build, tmp_path: Path) -> None:
    """It is met, and not by much more than it has to be: units are given back until then."""
    path = build(WIDE)
    limit = 0.16 if to != "fp16-weights" else 0.3
    target, result = compressed(path, tmp_path, target=f"size={limit}", quantize=to)
    share = target.stat().st_size / path.stat().st_size
    assert 0.85 * limit <= share <= limit
    assert result.plan.removed_units > 0
    assert f"size of the file as it ends, quantized to {to}" in result.report.notes


def test_a_size_that_the_quantization_meets_alone_removes_nothing(build: Build, tmp_path: Path) -> None:
    target, result = compressed(build(WIDE), tmp_path, target="size=0.4", quantize="int8")
    assert result.plan.removed_units == 0
    assert target.stat().st_size < 0.4 * build(WIDE).stat().st_size


def test_rounds_look_at_the_quantization_behind_them(build: Build, tmp_path: Path) -> None:
    path = build(WIDE)
    target, _ = compressed(path, tmp_path, target="size=0.16", quantize="int8", steps=2)
    assert 0.85 * 0.16 <= target.stat().st_size / path.stat().st_size <= 0.16


def test_widths_are_those_that_integer_kernels_like(build: Build) -> None:
    analysis = op.inspect(build(WIDE))
    groups, model = analysis.groups, analysis.model
    for context, number in (
        (Context(), 8),
        (Context(following=(op.Recover(), op.Quantize("int8"))), 16),
        (Context(beyond=(op.Quantize("int8"),)), 16),
        (Context(following=(op.Quantize("fp16-weights"),)), 8),
    ):
        assert set(liked_multiples(groups, model, context).values()) == {number}


def kernels_of(path: Path) -> set[int]:
    """The outputs of the kernels in a file."""
    values = ir.load(path).graph.initializers.values()
    shapes = [value.shape.numpy() for value in values if value.shape is not None]
    return {shape[0] for shape in shapes if len(shape) == 4}


def test_channels_on_integers_are_not_fewer_than_sixteen(build: Build, tmp_path: Path) -> None:
    """Kernels take longer for fewer; where a target cannot be met in this way, it is met in another."""
    given = {"target": "macs=0.5", "quantize": "int8"}
    found = kernels_of(
        compressed(
            build(
                WIDE.replace("64, 3", "16, 3").replace("64, 64, 3", "64, 16, 3").replace("float[64] b", "float[16] b")
            ),
            tmp_path,
            **given,
        )[0]
    )
    assert min(found) == 16
    assert max(found) < 64
    assert all(each % 4 == 0 for each in found)
    target, result = compressed(build(WIDE), tmp_path, target="macs=0.02", quantize="int8")
    assert min(kernels_of(target)) < 16
    assert NARROW in result.report.notes
    floats = kernels_of(compressed(build(WIDE), tmp_path, target="macs=0.02", quantize="fp16-weights")[0])
    assert min(floats) < 16


def test_the_quantized_cut_is_timed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes by bytes here: integers take a quarter of what floats do."""
    path = build(WIDE)
    timed: list[int] = []

    def measure(models: list[Path | ir.Model], _: Setting, **__: object) -> list[SimpleNamespace]:
        sizes = [each.stat().st_size if isinstance(each, Path) else estimated_bytes(each) for each in models]
        timed.append(len(models))
        return [SimpleNamespace(seconds=(size,) * 3, processor_seconds=()) for size in sizes]

    monkeypatch.setattr(candidates, "measure_latency", measure)
    state = State.of(op.inspect(path), path)
    for quantize, models, share in ((None, 2, 1.0), ("int8", 2, 0.28), ("auto", 3, 0.28)):
        following = () if quantize is None else (op.Quantize(quantize),)
        made = Candidates(state, Context(data=samples_of(path), following=following))
        before, after = made.latency({})
        assert timed[-1] == models
        assert after / before == pytest.approx(share, rel=0.1)


def samples_of(path: Path) -> Any:
    from onnxprune.data.given import as_data
    from onnxprune.model.signature import ports_of

    return as_data(IMAGES, ports_of(op.inspect(path).model))


def test_what_cannot_be_met_says_how_far_the_quantized_file_gets(build: Build, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"size=0.001 cannot be met"):
        compressed(build(WIDE), tmp_path, target="size=0.001", quantize="int8")
