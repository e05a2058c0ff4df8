"""The trained models: valid, small, dynamic in the batch, and as accurate as models/README.md says."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"
FILES = ["digits_resnet.onnx", "digits_transformer.onnx", "digits_lstm.onnx"]
MEGABYTE = 1_000_000


def table() -> dict[str, dict[str, str]]:
    """The first table of models/README.md: file -> column -> cell."""
    lines = (MODELS / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| file |"))
    header, rows = None, {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        header = header or cells
        rows[cells[0]] = dict(zip(header, cells, strict=True))
    return {file: row for file, row in rows.items() if file.endswith(".onnx")}


def nodes_of(file: str, operator: str) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(MODELS / file).graph.node if node.op_type == operator]


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    """models/digits.py, which is a script beside its data and not part of a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(MODELS)
        return importlib.import_module("digits")


@pytest.fixture(scope="module")
def archive() -> dict[str, np.ndarray]:
    """Images and labels, by what they are for."""
    found = {}
    for name in ("calibration", "test"):
        with np.load(MODELS / f"digits_{name}.npz", allow_pickle=False) as arrays:
            assert set(arrays) == {"input", "labels"}
            found.update({name: arrays["input"], f"{name}_labels": arrays["labels"]})
    return found


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest) -> Path:
    return MODELS / str(request.param)


def test_table_lists_every_model() -> None:
    assert sorted(table()) == sorted(FILES) == sorted(file.name for file in MODELS.glob("*.onnx"))


def test_file_is_valid_small_and_self_contained(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert path.stat().st_size < MEGABYTE
    assert all(t.data_location != onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def test_file_names_no_path_of_the_machine_that_made_it(path: Path) -> None:
    content = path.read_bytes()
    assert not any(trace in content for trace in (b"/work/", b"/root/", b"/home/", b"site-packages", b".py"))


def test_interface(path: Path) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("input", "tensor(float)", ["batch", 1, 8, 8])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 10])


def test_logits_do_not_depend_on_the_batch(path: Path, archive: dict[str, np.ndarray]) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = archive["test"][:7]
    (together,) = session.run(["logits"], {"input": images})
    for start, stop in ((0, 1), (1, 4), (4, 7)):
        (alone,) = session.run(["logits"], {"input": images[start:stop]})
        np.testing.assert_allclose(alone, together[start:stop], rtol=1e-4, atol=1e-4)


def test_figures_equal_the_table(path: Path, digits: ModuleType) -> None:
    row = table()[path.name]
    hits, total = digits.correct(path)
    assert row["test accuracy"] == f"{hits / total:.2%} ({hits}/{total})"
    assert row["parameters"] == f"{digits.parameters(path):,}"
    assert row["bytes"] == f"{path.stat().st_size:,}"
    assert row["measured by"] == f"python models/digits.py models/{path.name}"


def test_opset_equals_the_table(path: Path) -> None:
    (opset,) = [entry.version for entry in onnx.load(path).opset_import if entry.domain == ""]
    assert table()[path.name]["exporter, opset"].endswith(f", {opset}")


def test_accuracy_is_worth_pruning(path: Path, digits: ModuleType) -> None:
    assert digits.accuracy(path) >= {"digits_resnet.onnx": 0.97}.get(path.name, 0.95)


def test_resnet_keeps_batchnorm_in_evaluation_mode() -> None:
    nodes = nodes_of("digits_resnet.onnx", "BatchNormalization")
    assert len(nodes) == 15
    for node in nodes:
        assert len(node.output) == 1
        assert all(a.i == 0 for a in node.attribute if a.name == "training_mode")


def test_resnet_projects_shortcuts_with_strided_convolutions() -> None:
    nodes = nodes_of("digits_resnet.onnx", "Conv")
    attributes = [{a.name: list(a.ints) for a in node.attribute} for node in nodes]
    assert sum(a["kernel_shape"] == [1, 1] and a["strides"] == [2, 2] for a in attributes) == 2


def test_transformer_and_lstm_keep_their_operators() -> None:
    for operator, count in (("LayerNormalization", 7), ("Softmax", 3), ("Gelu", 3)):
        assert len(nodes_of("digits_transformer.onnx", operator)) == count
    assert len(nodes_of("digits_lstm.onnx", "LSTM")) == 2


def test_archive_is_ready_to_use(archive: dict[str, np.ndarray]) -> None:
    assert set(archive) == {"calibration", "calibration_labels", "test", "test_labels"}
    for key, count in (("calibration", 512), ("test", 450)):
        images, labels = archive[key], archive[f"{key}_labels"]
        assert images.dtype == np.float32
        assert images.shape == (count, 1, 8, 8)
        assert labels.dtype == np.int64
        assert np.bincount(labels, minlength=10).min() >= 0.09 * count


def test_calibration_and_test_images_are_disjoint(archive: dict[str, np.ndarray]) -> None:
    calibration = {image.tobytes() for image in archive["calibration"]}
    assert not any(image.tobytes() in calibration for image in archive["test"])
