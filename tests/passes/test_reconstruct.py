"""What every pass on a pruned model promises, on trained models: outputs come nearer, the same bytes twice."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from onnxprune.analysis.layers import residual
from onnxprune.model.check import check_model
from onnxprune.model.file import save
from onnxprune.steps.recover.batchnorm import RecalibrateBatchNorm
from onnxprune.steps.recover.bias import CompensateBias
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.recover.reconstruct import Reconstruct
from tests.recovery.pruned import Array, error, outputs, outputs_of, thinned

PASSES = (CompensateBias, RecalibrateBatchNorm, Reconstruct)
# With a third of all units gone: how much of the error of the outputs is left at most, and in how many points of all
# decisions the model agrees more often with the original.
LEFT = {
    ("resnet", CompensateBias): (0.95, 5),
    ("resnet", RecalibrateBatchNorm): (0.9, 30),
    ("resnet", Reconstruct): (0.05, 70),
    ("transformer", CompensateBias): (0.95, 5),
    ("transformer", RecalibrateBatchNorm): (0.9, 15),
    ("transformer", Reconstruct): (0.2, 30),
    ("lstm", CompensateBias): (0.95, 3),
    ("lstm", RecalibrateBatchNorm): (0.95, 7),
    ("lstm", Reconstruct): (0.4, 15),
}


@pytest.fixture(scope="module")
def images() -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    """Batches to learn from, and one of others."""
    folder = Path(__file__).resolve().parents[2] / "models"
    with np.load(folder / "digits_calibration.npz") as known, np.load(folder / "digits_test.npz") as unseen:
        return [{"input": part} for part in np.split(known["input"][:256], 4)], [{"input": unseen["input"]}]


def agreement(found: Array, due: Array) -> float:
    """The share of samples with the same decision."""
    return float(np.mean(found.argmax(1) == due.argmax(1)))


def recovered(path: Path, make: type[Reconstruct], data: list[dict[str, Array]]) -> tuple[Pairing, Reconstruct]:
    pairing = thinned(path, 3)
    made = make(pairing, data)
    assert made(pairing.pruned.model).modified
    return pairing, made


@pytest.mark.parametrize(("name", "make"), LEFT, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_outputs_come_nearer(name, make, digits: dict[str, Path], images, tmp_path: Path) -> None:
    data, unseen = images
    due = outputs(digits[name], unseen)
    before = outputs_of(thinned(digits[name], 3), tmp_path, unseen)
    pairing, made = recovered(digits[name], make, data)
    after = outputs_of(pairing, tmp_path, unseen)
    share, points = LEFT[name, make]
    assert error(after, due) < share * error(before, due)
    assert agreement(after, due) > agreement(before, due) + points / 100
    check_model(tmp_path / "pruned.onnx")
    layers = [each for each in made.errors if not each.layer.endswith(".recurrent")]
    assert len(layers) == len(pairing.pairs())
    assert len(made.errors) - len(layers) == (2 if name == "lstm" and make is not CompensateBias else 0)
    if make is not RecalibrateBatchNorm:  # it gives outputs their spread, which may take them further off
        means = np.mean([(each.before, each.after) for each in made.errors], axis=0)
        assert means[1] < means[0]


@pytest.mark.parametrize("make", PASSES, ids=lambda make: make.__name__)
def test_same_bytes_twice(make, digits: dict[str, Path], images, tmp_path: Path) -> None:
    written = []
    for name in ("one.onnx", "two.onnx"):
        pairing, _ = recovered(digits["transformer"], make, images[0][:2])
        save(pairing.pruned.model, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("make", PASSES, ids=lambda make: make.__name__)
def test_other_model_is_a_mistake(make, digits: dict[str, Path], images) -> None:
    pairing = thinned(digits["resnet"], 3)
    with pytest.raises(ValueError, match="pruned one"):
        make(pairing, images[0])(pairing.original.model)


def channels(path: Path, name: str, data: list[dict[str, Array]]) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel of a value."""
    model = onnx.load(path)
    model.graph.output.insert(0, onnx.ValueInfoProto(name=name))
    onnx.save(model, path.with_name("seen.onnx"))
    found = outputs(path.with_name("seen.onnx"), data)
    return found.mean((0, 2, 3)), found.std((0, 2, 3))


@pytest.mark.parametrize("make", [CompensateBias, RecalibrateBatchNorm], ids=lambda make: make.__name__)
def test_statistics_of_every_layer_are_those_of_the_original(make, digits, images, tmp_path: Path) -> None:
    data, _ = images
    pairing, _ = recovered(digits["resnet"], make, data)
    save(pairing.pruned.model, tmp_path / "after.onnx")
    save(pairing.original.model, tmp_path / "before.onnx")
    streams = 0
    for layer, original in pairing.pairs():
        behind = residual(layer, pairing.pruned)
        name = behind.sum if behind and make is CompensateBias else original.y  # biases make up for the stream
        if len(pairing.pruned.shapes.shapes[name]) != 4:
            continue
        streams += behind is not None
        due, found = channels(tmp_path / "before.onnx", name, data), channels(tmp_path / "after.onnx", name, data)
        kept = pairing.kept(name, 1)
        np.testing.assert_allclose(found[0], due[0][kept], atol=2e-3)
        if make is RecalibrateBatchNorm:
            np.testing.assert_allclose(found[1], due[1][kept], rtol=2e-3)
    assert streams > 1


@pytest.mark.parametrize(("name", "kept", "left"), [("albert.ts17", 15, 0), ("albert.dy", 15, 0), ("bloom.dy", 8, 1)])
def test_every_layer_of_models_that_share_weights(
    name: str, kept: int, left: int, zoo: ModuleType, tmp_path: Path
) -> None:
    """All six weights of ALBERT's layer are read twice; BLOOM's head is its table of embeddings, and stays."""
    path = tmp_path / "model.onnx"
    zoo.save(f"hf.{name}", path)
    model = zoo.load(f"hf.{name}")
    data = [zoo.inputs(model, seed, 8) for seed in range(8)]
    unseen, learnt = data[:1], data[1:]
    due = outputs(path, unseen)
    pairing = thinned(path, 3)
    before = error(outputs_of(pairing, tmp_path, unseen), due)
    matrices = count_of_matrices(tmp_path / "pruned.onnx")
    made = Reconstruct(pairing, learnt)
    result = made(pairing.pruned.model)
    assert len(made.errors) == kept
    assert [note.count(": its weight is read in other ways") for note in result.notes] == [left] * (left > 0)
    assert error(outputs_of(pairing, tmp_path, unseen), due) < 0.7 * before
    assert count_of_matrices(tmp_path / "pruned.onnx") == matrices  # no weight was doubled


def count_of_matrices(path: Path) -> int:
    return sum(len(weight.dims) == 2 for weight in onnx.load(path).graph.initializer)
