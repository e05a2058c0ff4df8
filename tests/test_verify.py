"""The last gate before a file is written: a valid model with the interface of the original."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import onnx_ir as ir
import pytest

import onnxprune as op
from onnxprune.analysis import cost
from onnxprune.analysis.inspect import inspect
from onnxprune.errors import ModelError, UsageError, VerificationError
from onnxprune.evaluation.trial_inputs import TrialMaker
from onnxprune.evaluation.verify import Original, run_original, verify
from tests.conftest import Build


def original_of(model: Path | ir.Model) -> Original:
    return run_original(model, TrialMaker(inspect(model)))


MODEL = "net (float[batch, 5] x) => (float[batch, 3] y) <float[5, 3] w> { y = MatMul(x, w) }"


def test_model_passes_against_itself(build: Build) -> None:
    path = build(MODEL)
    original = original_of(path)
    assert verify(path, original) == []


def test_batch_is_tried_at_one_first(build: Build) -> None:
    assert original_of(build(MODEL)).trials[0].feed["x"].shape == (1, 5)


def test_batch_that_must_not_be_one_is_run_as_given(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[3, 5] y)
        <int64[2] shape = {3, 5}>
        { y = Reshape(x, shape) }
    """)
    assert original_of(path).trials[0].feed["x"].shape == (3, 5)


def test_model_that_does_not_run_is_refused(build: Build) -> None:
    path = build("net (float[batch, 5] x) => (float[batch, 5] y) { y = acme.Mystery(x) }", opsets={"acme": 1})
    with pytest.raises(ModelError, match="cannot load"):
        original_of(path)


CHANGES = {
    "input renamed": (MODEL.replace("x", "other"), "another interface"),
    "output renamed": (MODEL.replace("y", "other"), "another interface"),
    "one more input": (MODEL.replace(" x)", " x, float[3] z)", 1), "another interface"),
    "another rank": (
        "net (float[batch, 5] x) => (float[batch, 3, 1] y) <float[5, 3] w, int64[3] s = {-1, 3, 1}>"
        "{ h = MatMul(x, w)  y = Reshape(h, s) }",
        "another interface",
    ),
    "another type": (
        "net (float[batch, 5] x) => (double[batch, 3] y) <float[5, 3] w> { h = MatMul(x, w)  y = Cast<to = 11>(h) }",
        "another interface",
    ),
    "no longer a model": (MODEL.replace("[5, 3]", "[4, 3]"), "not valid"),
    "no longer finite": (
        MODEL.replace("y = MatMul(x, w)", "h = MatMul(x, w)  z = Sub(h, h)  y = Div(h, z)"),
        "is not finite",
    ),
}


@pytest.mark.parametrize(("changed", "message"), CHANGES.values(), ids=CHANGES)
def test_change_that_matters_is_refused(build: Build, changed: str, message: str) -> None:
    original = original_of(build(MODEL))
    with pytest.raises(VerificationError, match=message) as refusal:
        verify(build(changed, name="changed"), original)
    assert "nothing was written" in str(refusal.value)


def test_size_may_be_named_differently(build: Build, tmp_path: Path) -> None:
    """Names of dynamic axes are not part of the interface."""
    original = original_of(build(MODEL))
    verify(build(MODEL.replace("batch", "n"), name="changed"), original)


def test_output_that_never_was_finite_may_stay_so(build: Build) -> None:
    path = build(MODEL.replace("y = MatMul(x, w)", "h = MatMul(x, w)  z = Sub(h, h)  y = Div(h, z)"))
    verify(path, original_of(path))


def test_result_is_tried_at_other_sizes_too(build: Build) -> None:
    """One that was fixed to a batch of one is found out at three."""
    changed = """
        net (float[batch, 5] x) => (float[batch, 3] y) <float[5, 3] w, int64[2] one = {1, 5}>
        { h = Reshape(x, one)  y = MatMul(h, w) }
    """
    original = original_of(build(MODEL))
    assert [trial.feed["x"].shape[0] for trial in original.trials] == [1, 3]
    with pytest.raises(VerificationError, match="not valid"):
        verify(build(changed, name="changed"), original)


def test_what_is_to_stay_the_same_is_compared(build: Build) -> None:
    """Twice the output is finite and of the same type; where nothing was to change that is not enough."""
    original = original_of(build(MODEL))
    twice = build(MODEL.replace("y = MatMul(x, w)", "h = MatMul(x, w)  y = Add(h, h)"), name="changed")
    verify(twice, original)
    with pytest.raises(VerificationError, match="differs from the original's"):
        verify(twice, original, same=True)
    verify(build(MODEL, name="again"), original, same=True)


SECRET = """
    net (float[n, 6] x) => (float[n, 3] y) <float[6, 8] w, float[8, 8] v, float[8, 3] u>
    { h = MatMul(x, w)  a = Relu(h)  b = MatMul(a, v)  s = acme.Secret(b)  y = MatMul(s, u) }
"""


def test_what_does_not_run_here_is_written_on_request(build: Build, tmp_path: Path) -> None:
    path = build(SECRET, opsets={"acme": 1})
    with pytest.raises(ModelError, match="--unverified"):
        op.compress(path, ratio=0.5, recover="none")
    result = op.compress(path, unverified=True, ratio=0.5, recover="none")
    report = result.save(tmp_path / "small.onnx")
    assert report.after.parameters < report.before.parameters
    assert any("written without being run" in note and "acme:Secret" in note for note in report.notes)


def test_library_of_operators(build: Build, tmp_path: Path) -> None:
    path = build(MODEL)
    with pytest.raises(UsageError, match="does not exist; check the path of --custom-ops"):
        op.compress(path, custom_ops=tmp_path / "nowhere.so", ratio=0.5, recover="none")
    (tmp_path / "text.so").write_text("no library")
    with mock.patch.dict(os.environ), pytest.raises(ModelError, match=r"cannot load the operators in .*text\.so"):
        op.compress(path, custom_ops=tmp_path / "text.so", ratio=0.5, recover="none")
    inspect(path)


EXTENDED = """
    net (float[n, 6] x) => (float[n, 3] y) <float[6, 8] w, float[8, 4] v, float[4, 3] u>
    { h = MatMul(x, w)  a = Relu(h)  b = MatMul(a, v)  c, d = ai.onnx.contrib.NegPos(b)  s = Sub(c, d)
      y = MatMul(s, u) }
"""


def compress_with_extensions(path: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    """On the command line, where packages are found in `folders` too."""
    places = os.pathsep.join([*map(str, folders), *sys.path])
    options = ["--ratio", "0.5", "--recover", "none", "--custom-ops", "onnxruntime_extensions"]
    command = [sys.executable, "-m", "onnxprune", "compress", path, "-o", path.with_name("small.onnx"), *options]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places}, check=False
    )


def test_library_of_operators_by_the_name_of_its_package(build: Build, tmp_path: Path) -> None:
    package = tmp_path / "packages" / "onnxruntime_extensions"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("def get_library_path():\n    return '/nowhere/extensions.so'\n")
    run = compress_with_extensions(build(EXTENDED, opsets={"ai.onnx.contrib": 1}), package.parent)
    assert run.returncode == 1
    assert "ONNX Runtime cannot load the operators in /nowhere/extensions.so" in run.stderr


def test_operators_of_onnx_runtime_extensions(build: Build) -> None:
    pytest.importorskip("onnxruntime_extensions", reason="needs pip install onnxruntime-extensions")
    path = build(EXTENDED, opsets={"ai.onnx.contrib": 1})
    run = compress_with_extensions(path)
    assert run.returncode == 0, run.stderr
    assert cost.before(inspect(path.with_name("small.onnx"))).parameters < cost.before(inspect(path)).parameters
