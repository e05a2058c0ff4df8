"""Plans told from weights, for models that were pruned at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import analyze_model
from onnxprune.errors import PlanError
from onnxprune.model.file import save
from onnxprune.passes.remove_dead import RemoveDead
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.pipeline.run import compress, inspect
from onnxprune.steps.plan import Plan, plan_from_masks
from onnxprune.steps.recover.infer_plan import check_fit, find_plan
from tests.conftest import Build


def pruned(path: Path, folder: Path, seed: int = 0, share: float = 0.4) -> tuple[Plan, Analysis]:
    """A plan of random units of every group, and the model written and read again."""
    rng = np.random.default_rng(seed)
    analysis = inspect(path)
    masks = []
    for group in analysis.groups:
        mask = rng.random(group.units) >= share
        mask[rng.integers(group.units)] = True
        masks.append((group, mask))
    plan = plan_from_masks(masks, {})
    RemoveUnits(analysis, plan.keep(analysis))(analysis.model)
    RemoveDead()(analysis.model)
    save(analysis.model, folder / "cut.onnx")
    return plan, inspect(folder / "cut.onnx")


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_plan_of_a_trained_model_is_found(name: str, digits: dict[str, Path], tmp_path: Path) -> None:
    plan, cut = pruned(digits[name], tmp_path)
    assert find_plan(inspect(digits[name]), cut).removals == plan.removals


@pytest.mark.parametrize("name", ["hm.grouped_conv.ts17", "hm.gru.dy", "hf.llama.ts17", "tv.shufflenet_v2_x0_5.ts17bn"])
def test_plan_of_a_zoo_model_is_found(name: str, zoo_file: Callable[[str], Path], tmp_path: Path) -> None:
    path = zoo_file(name)
    plan, cut = pruned(path, tmp_path)
    assert find_plan(inspect(path), cut).removals == plan.removals


def test_what_compress_wrote_is_found(digits: dict[str, Path], tmp_path: Path) -> None:
    result = compress(digits["transformer"], ratio=0.3, recover="none")
    result.save(tmp_path / "small.onnx")
    found = find_plan(inspect(digits["transformer"]), inspect(tmp_path / "small.onnx"))
    assert found.removals == result.plan.removals


NET = """
    net (float[batch, 4] x) => (float[batch, 3] y)
    <float[4, 6] a, float[6] p, float[6, 3] b>
    { h = Gemm(x, a, p)  r = Relu(h)  y = MatMul(r, b) }
"""


def test_equal_slices_are_told_apart_by_other_weights(build: Build, tmp_path: Path) -> None:
    """All units read the same; what reads them differs."""
    path = build(NET, a=np.ones((4, 6)), p=np.ones(6))
    plan, cut = pruned(path, tmp_path)
    assert plan.removals
    assert find_plan(inspect(path), cut).removals == plan.removals


def test_nothing_removed_is_an_empty_plan(build: Build) -> None:
    path = build(NET)
    assert find_plan(inspect(path), inspect(path)) == Plan()


def test_changed_weight_is_refused(build: Build, tmp_path: Path) -> None:
    path = build(NET)
    pruned(path, tmp_path)
    for name in ("a", "p", "b"):
        model = onnx.load(tmp_path / "cut.onnx")
        weight = next(each for each in model.graph.initializer if each.name == name)
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), name))
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(PlanError, match=r"changed since; .* --plan"):
            find_plan(inspect(path), inspect(tmp_path / "changed.onnx"))


def test_other_model_is_refused(build: Build, digits: dict[str, Path]) -> None:
    with pytest.raises(PlanError, match="no weight in common"):
        find_plan(inspect(digits["resnet"]), inspect(build(NET)))
    with pytest.raises(PlanError, match="no weight in common"):
        check_fit(inspect(digits["resnet"]), inspect(build(NET)), {})


def test_plan_that_leads_elsewhere_is_refused(build: Build, tmp_path: Path) -> None:
    path = build(NET)
    plan, cut = pruned(path, tmp_path)
    original = inspect(path)
    check_fit(original, cut, plan.keep(original))
    with pytest.raises(PlanError, match=r"shape \(4, 6\)"):
        check_fit(original, cut, {})


def test_analysis_is_of_what_was_written(digits: dict[str, Path]) -> None:
    """The models are compared as analyses see them, so a model in memory will do."""
    analysis = inspect(digits["resnet"])
    assert find_plan(inspect(digits["resnet"]), analyze_model(analysis.model)) == Plan()
