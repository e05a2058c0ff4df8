"""The main job with data: scored on it, every layer mended, and what that is worth on images nobody trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.data.base import Data, load_data
from onnxprune.errors import UsageError
from onnxprune.evaluation.metrics import evaluate, metric
from onnxprune.model.file import open_model
from onnxprune.model.signature import ports_of
from onnxprune.pipeline import run as pipeline
from onnxprune.runtime.session import Session
from onnxprune.steps.recover.base import METHODS
from onnxprune.steps.recover.methods import added_biases
from tests.conftest import Build
from tests.recovery.pruned import feeds, pair

MODELS = Path(__file__).resolve().parents[1] / "models"
CALIBRATION, TEST = MODELS / "digits_calibration.npz", MODELS / "digits_test.npz"


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def data_for(model: Path, file: Path = CALIBRATION, **options: object) -> Data:
    return load_data(str(file), ports_of(open_model(model)), **options)  # type: ignore[arg-type]


def accuracy(model: Path) -> float:
    return evaluate(model, data_for(model, TEST, labels="labels"), metric("accuracy", True))


@pytest.mark.parametrize(("name", "at_least"), [("resnet", 0.97), ("lstm", 0.9)])
def test_a_ratio_of_a_half_with_data_keeps_the_accuracy(
    digits: dict[str, Path], name: str, at_least: float, tmp_path: Path
) -> None:
    """Measured: 98.9% and 94.4%; without data, what L1 leaves of the ResNet gets 10%."""
    target = tmp_path / "small.onnx"
    result = pipeline.compress(digits[name], data=data_for(digits[name], samples=192), ratio=0.5)
    result.save(target)
    assert result.report.after.parameters < 0.3 * result.report.before.parameters
    assert accuracy(target) >= at_least


def test_recovery_is_in_the_report_and_can_be_turned_off(digits: dict[str, Path], tmp_path: Path) -> None:
    model = digits["transformer"]
    asked = ("compress", model, "--data", CALIBRATION, "--samples", 32, "--dry-run", "--json")
    document = json.loads(run(*asked).stdout)["recovery"]
    assert document["method"] == "reconstruct"
    assert len(document["layers"]) == 14
    assert (
        sum(layer["after"] for layer in document["layers"]) < sum(layer["before"] for layer in document["layers"]) / 2
    )
    assert json.loads(run(*asked, "--recover", "none").stdout)["recovery"] == {"method": "none", "layers": []}


def test_without_data_nothing_is_made_up_unless_asked_for(digits: dict[str, Path]) -> None:
    plain = pipeline.compress(digits["lstm"], ratio=0.5, recover="none")
    assert plain.report.recovery == "none"
    asked = pipeline.compress(digits["lstm"], recover="reconstruct", ratio=0.5)
    assert asked.report.errors
    assert any("made-up inputs" in note for note in asked.report.notes)


def test_the_same_twice_gives_the_same_bytes(digits: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        result = run(
            "compress",
            digits["lstm"],
            "--ratio",
            "0.5",
            "--data",
            CALIBRATION,
            "--samples",
            64,
            "-o",
            tmp_path / name,
            "-q",
        )
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_unknown_methods_are_refused_before_any_work(digits: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="unknown recovery 'reconstrct'; did you mean 'reconstruct'"):
        pipeline.compress(digits["resnet"].with_name("no such file"), recover="reconstrct", ratio=0.5)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].on_data])
def test_every_method_lowers_the_error_of_layers(digits: dict[str, Path], method: str) -> None:
    data = data_for(digits["resnet"], samples=32)
    result = pipeline.compress(
        digits["resnet"], criterion="l2", ratio=0.3, data=data, recover=method
    )  # obs takes most of the time
    errors = result.report.errors
    assert sum(error.after for error in errors) < sum(error.before for error in errors)


def test_a_criterion_that_needs_data_says_so(digits: dict[str, Path]) -> None:
    result = run("compress", digits["resnet"], "--recover", "none", "--ratio", "0.5", "--criterion", "obs", "--dry-run")
    assert result.exit_code == 2
    assert "give --data" in result.stderr


def test_clean_ups_leave_the_outputs(build: Build, tmp_path: Path) -> None:
    """A BatchNormalization goes into its convolution; ranges of channels are brought together by powers of two."""
    model = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 2, 6, 6] y)
        <float[8, 3, 1, 1] w, float[8] s, float[8] b, float[8] m, float[8] v, float[2, 8, 1, 1] u>
        { h = Conv(x, w)  n = BatchNormalization(h, s, b, m, v)  r = Relu(n)  y = Conv(r, u) }
    """, v=np.linspace(0.5, 4, 8, dtype=np.float32))  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
    for number, names in enumerate([(), ("fold-batchnorm",), ("equalize", "fold-batchnorm")]):
        options = ["--ratio", "0.5", "--recover", "none"] + [option for name in names for option in ("--clean", name)]
        assert run("compress", model, *options, "-o", tmp_path / f"{number}.onnx", "-q").exit_code == 0
    plain, folded, both = (Session(tmp_path / f"{number}.onnx").run({"x": x})["y"] for number in range(3))
    np.testing.assert_allclose(folded, plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both, plain, rtol=1e-4, atol=1e-5)
    assert len(onnx.load(tmp_path / "1.onnx").graph.node) == len(onnx.load(tmp_path / "0.onnx").graph.node) - 1
    assert (
        "unknown clean-up 'equalise'; did you mean 'equalize'?"
        in run("compress", model, "--recover", "none", "--ratio", "0.5", "--clean", "equalise").stderr
    )


WITHOUT_BIAS = {
    "products": "<float[4, 6] a, float[6, 3] b> { h = MatMul(x, a)  i = Sin(h)  y = MatMul(i, b) }",
    "side by side": "<float[5, 4, 6] a, int64[4] s = {-1, 5, 1, 4}> { r = Reshape(x, s)  y = MatMul(r, a) }",
    "attention": """<float[4, 18] a, float[6, 3] b>
        { h = com.microsoft.Attention<num_heads = 2>(x, a)  y = MatMul(h, b) }""",
    "fused": """<float[4, 6] a, float[6, 7] b, int64[2] s = {-1, 4}>
        { f = Reshape(x, s)  h = MatMul(f, a)  y = com.microsoft.FusedGemm<activation = "Relu">(h, b) }""",
    "recurrent": """<float[2, 12, 4] a, float[2, 12, 3] b>
        { y = LSTM<hidden_size = 3, direction = "bidirectional">(x, a, b) }""",
    "one bias for two": """<float[6, 6] a, float[6] b, float[4, 6] c>
        { h = MatMul(x, c)  i = MatMul(h, a)  s = Add(i, b)  t = Tanh(s)  j = MatMul(t, a)  y = Add(j, b) }""",
}


@pytest.mark.parametrize("name", WITHOUT_BIAS)
def test_biases_to_come_are_known_beforehand(name: str, build: Build) -> None:
    """What is announced is what the initializers grow by."""
    pairing = pair(build(f"net (float[batch, 5, 4] x) => (float y) {WITHOUT_BIAS[name]}"), {})
    model = pairing.pruned.model
    announced = sum(dim.size * each for dim, each in added_biases(pairing.original, "bias"))
    before = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    METHODS["bias"].make(pairing, feeds(shape=(5, 4)))(model)
    grown = sum(value.const_value.nbytes for value in model.graph.initializers.values()) - before
    assert grown == announced > 0
