"""Keras, TensorFlow, scikit-learn, transformers and timm, where they are installed; and one clear line where not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnxprune as op
from onnxprune.cli import main
from onnxprune.conversion.rewriting import in_known_operators
from onnxprune.conversion.sources import keras as of_keras
from onnxprune.conversion.sources import pretrained, scikit_learn, tensorflow
from onnxprune.model.file import as_model
from onnxprune.runtime.session import Session
from tests.conversion.keras_networks import KERAS


def exported(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["export", *map(str, args)])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("module", "source", "package", "extra"),
    [
        (of_keras, "net.keras", "keras", "keras"),
        (of_keras, "net.h5", "keras", "keras"),
        (tensorflow, "net.tflite", "tensorflow", "tensorflow"),
        (tensorflow, "saved", "tensorflow", "tensorflow"),
        (pretrained, "bert", "transformers", "transformers"),
        (pretrained, "resnet", "timm", "timm"),
    ],
)
def test_what_is_not_installed_is_named(
    module: object, source: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source in ("bert", "resnet"):
        pytest.importorskip("torch", reason="these are networks of torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for folder, name, content in (
        ("saved", "saved_model.pb", ""),
        ("bert", "config.json", '{"model_type": "bert"}'),
        ("resnet", "config.json", '{"architecture": "resnet18"}'),
    ):
        Path(folder).mkdir()
        (Path(folder) / name).write_text(content)
    code, error = exported(source, "-o", "net.onnx")
    assert code == 1
    assert error == f"onnxprune: {package} is not installed; install it with: pip install 'onnxprune[{extra}]'\n"


def test_nothing_is_downloaded_unless_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="these are networks of torch")
    for name in ("timm:resnet18", "transformers:bert-base-uncased"):
        code, error = exported(name, "-o", tmp_path / "net.onnx")
        assert code == 2
        assert "say --hub to allow that" in error


def test_estimators_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    neural = pytest.importorskip("sklearn.neural_network", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    with pytest.raises(op.OnnxpruneError, match=r"is not fitted|is not installed"):
        op.export(neural.MLPClassifier())
    classifier = neural.MLPClassifier((16, 8), max_iter=20).fit(x, y)
    with monkeypatch.context() as patch:
        patch.setattr(scikit_learn, "find_spec", lambda _: None)
        with pytest.raises(op.MissingExtraError, match="skl2onnx is not installed"):
            op.export(classifier)
    pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    for estimator in (classifier, neural.MLPRegressor(hidden_layer_sizes=(16,), max_iter=20).fit(x, y)):
        found = op.export(estimator, x[:4])
        assert [check.shapes["X"] for check in found.checks] == [(4, 5), (5, 5)]
        assert max(check.difference or 0 for check in found.checks) < 1e-4
        assert op.compress(found.model, ratio=0.5, recover="none").report.after.parameters


def test_operators_that_converters_invent_are_written_in_known_ones() -> None:
    helper = onnx.helper
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy")
    nodes = [helper.make_node("Erfc", ["x"], ["e"]), helper.make_node("Neg", ["e"], ["y"])]
    graph = helper.make_graph(nodes, "net", [x], [y])
    made = in_known_operators(as_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])))
    given = np.linspace(-3, 3, 7).astype(np.float32)
    (found,) = Session(made).run({"x": given}).values()
    np.testing.assert_allclose(found, [-math.erfc(each) for each in given], atol=1e-6)


def test_keras(tmp_path: Path) -> None:
    """Pinned to what works: keras 3.15, tensorflow 2.21, tf2onnx 1.17."""
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="images"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    net.save(tmp_path / "net.keras")
    code, error = exported(tmp_path / "net.keras", "-o", tmp_path / "net.onnx")
    assert code == 0, error
    result = op.compress(tmp_path / "net.onnx", ratio=0.5, recover="none")
    assert result.report.after.parameters < result.report.before.parameters
    assert op.compress(net, ratio=0.5, recover="none").report.after == result.report.after
    (tmp_path / "bad.keras").write_text("no model")
    code, error = exported(tmp_path / "bad.keras", "-o", tmp_path / "x.onnx")
    assert (code, error.count("\n")) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", ".keras", ".h5"])
@pytest.mark.parametrize("name", KERAS)
def test_networks_of_keras(name: str, kind: str, tmp_path: Path) -> None:
    """Compared at two batches by the export; half of the units go."""
    pytest.importorskip("keras", reason="Keras is not installed")
    net: Any = KERAS[name]()
    names = {str(value.name) for value in net.inputs}
    if kind != "model":
        net.save(tmp_path / f"net{kind}")
        net = tmp_path / f"net{kind}"
    found = op.export(net)
    assert {value.name for value in found.model.graph.inputs} == names
    assert [next(iter(check.shapes.values()))[0] for check in found.checks] == [2, 3]
    assert max(check.difference or 0.0 for check in found.checks) < 1e-4
    result = op.compress(found.model, ratio=0.5, recover="none")
    assert result.report.after.parameters < result.report.before.parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", KERAS)
def test_saved_models_of_keras(name: str, tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="Keras is not installed")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    KERAS[name]().export(str(tmp_path / "saved"), verbose=False)
    found = op.export(tmp_path / "saved")
    assert found.exporter == "tf2onnx"
    result = op.compress(found.model, ratio=0.5, recover="none")
    assert result.report.after.parameters < result.report.before.parameters


def test_saved_models_and_tflite(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")

    class Net(tf.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v = tf.Variable(tf.random.normal((5, 16))), tf.Variable(tf.random.normal((16, 3)))

        @tf.function(input_signature=[tf.TensorSpec((None, 5), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: object) -> dict[str, object]:
            return {"y": tf.nn.relu(x @ self.w) @ self.v}

    net = Net()
    tf.saved_model.save(net, str(tmp_path / "saved"), signatures=net.__call__)
    found = op.export(tmp_path / "saved")
    assert [check.shapes["x"] for check in found.checks] == [(2, 5), (3, 5)]
    assert op.compress(found.model, ratio=0.5, recover="none").report.groups
    lite = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert()
    (tmp_path / "net.tflite").write_bytes(lite)
    assert op.export(tmp_path / "net.tflite").exporter == "tf2onnx"


@pytest.mark.slow
def test_folders_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    found = op.export(tmp_path / "bert", exporter="torchscript")
    assert {value.name for value in found.model.graph.inputs} == {"input_ids", "attention_mask"}
    assert json.loads((tmp_path / "bert" / "config.json").read_text())["architectures"] == ["BertModel"]
