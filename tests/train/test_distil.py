"""The teacher: its inner values are cut to the student's units, computed once, and chosen where they say most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from onnxprune.analysis.inspect import inspect
from onnxprune.model.file import open_model
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.steps.train.computing import Computing
from onnxprune.steps.train.distil import Targets, Teacher, feature_values, teacher_of
from onnxprune.steps.train.samples import Portion
from tests.conftest import Build
from tests.train.harness import CONVOLUTIONS, data_of, normal

CPU = Computing(torch.device("cpu"))
ROOM = 1 << 30


def portion(*numbers: int, whole: bool = False) -> Portion:
    x = normal(100, 3, 8, 8)[list(numbers)]
    return Portion(next(data_of({"x": x}, size=100).batches()), np.array(numbers), whole)


def feed(found: Portion) -> dict[str, torch.Tensor]:
    return {"x": torch.from_numpy(found.batch.feed["x"])}


def test_a_student_is_compared_with_the_units_that_it_kept(build: Build) -> None:
    path = build(CONVOLUTIONS)
    original, cut = inspect(path), inspect(path)
    keep = {group.atom: np.arange(group.units) % 3 != 1 for group in cut.groups}
    RemoveUnits(cut, keep)(cut.model)
    theirs = {group.atom: keep[other.atom] for group, other in zip(original.groups, cut.groups, strict=True)}
    values = [name for name in ("y1", "s", "r3") if name in original.dims]
    found = Targets(teacher_of(original, theirs), values, CPU, ROOM)(portion(0, 1), feed(portion(0, 1)), varied=True)
    plain = TorchModel(original.model)(feed(portion(0, 1)), values)
    student = TorchModel(cut.model)(feed(portion(0, 1)), values)
    assert len(values) == 3
    for name in values:
        assert found[name].shape == student[name].shape != plain[name].shape
        kept = torch.arange(plain[name].shape[1]) % 3 != 1
        assert torch.equal(found[name], plain[name][:, kept])
    assert torch.equal(found["logits"], plain["logits"])


def test_what_was_computed_for_a_sample_is_kept(build: Build) -> None:
    targets = Targets(Teacher(open_model(build(CONVOLUTIONS))), ["s"], CPU, ROOM)
    first = targets(portion(0, 1, 2, 3), feed(portion(0, 1, 2, 3)), varied=False)
    runs = []
    forward = targets.module.forward
    targets.module.forward = lambda *given: runs.append(1) or forward(*given)  # type: ignore[method-assign,func-returns-value]
    again = targets(portion(3, 1), {}, varied=False)
    assert not runs
    for name, value in again.items():
        assert torch.equal(value, first[name][[3, 1]])
    targets(portion(3, 1), feed(portion(3, 1)), varied=True)
    targets(portion(3, 9), feed(portion(3, 9)), varied=False)
    assert len(runs) == 2


def test_whole_portions_and_samples_are_kept_apart(build: Build) -> None:
    targets = Targets(Teacher(open_model(build(CONVOLUTIONS))), [], CPU, ROOM)
    targets(portion(0, 1, whole=True), feed(portion(0, 1)), varied=False)
    found = targets(portion(0), feed(portion(0)), varied=False)
    assert len(found["logits"]) == 1
    assert len(targets(portion(0, 1, whole=True), {}, varied=False)["logits"]) == 2


def test_no_more_is_kept_than_there_is_room_for(build: Build) -> None:
    targets = Targets(Teacher(open_model(build(CONVOLUTIONS))), [], CPU, 40)
    for numbers in ((0, 1), (2, 3), (4, 5)):
        targets(portion(*numbers), feed(portion(*numbers)), varied=False)
    assert len(targets._known) == 2  # 16 bytes each


def test_sums_on_a_residual_stream_are_chosen(build: Build, digits: dict[str, Path]) -> None:
    assert feature_values(open_model(build(CONVOLUTIONS))) == ["s"]
    model = open_model(digits["resnet"])
    sums = {node.outputs[0].name for node in model.graph if node.op_type == "Add"}
    assert len(sums) == 6
    assert set(feature_values(model)) == sums
    assert set(feature_values(model, 3)) < sums
    assert feature_values(model, 3)[-1] == feature_values(model)[-1]
    transformer = feature_values(open_model(digits["transformer"]))
    assert len(transformer) == 6  # two to a layer, not the positions in front


def test_without_a_residual_stream_it_is_what_layers_read(build: Build, digits: dict[str, Path]) -> None:
    path = build("""
        net (float[n, 4] x) => (float[n, 3] y) <float[4, 8] w, float[8, 8] u, float[8, 3] v>
        { a = MatMul(x, w)  b = Relu(a)  c = MatMul(b, u)  d = Tanh(c)  y = MatMul(d, v) }
    """)
    assert feature_values(open_model(path)) == ["b", "d"]
    assert len(feature_values(open_model(digits["lstm"]))) >= 1
