"""What each budget catches, and what never counts as passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.analysis import cost
from onnxprune.errors import UsageError
from onnxprune.evaluation.gate.budgets.base import BUDGETS
from onnxprune.evaluation.gate.request import load_request
from onnxprune.evaluation.gate.run import BudgetCheck, GateVerdict, run_gate
from onnxprune.model.file import open_model
from onnxprune.runtime.session import Session
from tests.conftest import Build

SAMPLES = {"data": "samples.npz", "labels": "digit"}


def gate(*models: str | Path, **options: Any) -> GateVerdict:
    """The gate as the command runs it."""
    request = load_request({"models": tuple(map(str, models)), **options})
    return run_gate(request)


def check(*models: str | Path, **options: Any) -> BudgetCheck:
    """The only check of the only model."""
    ((only,),) = (model.checks for model in gate(*models, **options).models)
    return only


def edited(path: Path, target: Path, edit: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(path)
    edit(model)
    onnx.save(model, target)
    return target


# -- size


def test_one_byte_too_many(folder: Path) -> None:
    size = (folder / "model.onnx").stat().st_size
    assert check("model.onnx", max_size=size).status == "ok"
    found = check("model.onnx", max_size=size - 1)
    assert (found.status, found.found, found.shown) == ("broken", size, f"{size:,} bytes")


def test_one_percent_too_large(folder: Path) -> None:
    size = (folder / "model.onnx").stat().st_size
    assert check("model.onnx", max_size=f"{size / 1.01:.0f}").status == "broken"

    def pad(model: onnx.ModelProto) -> None:
        model.doc_string = "x" * (size // 100)

    edited(folder / "model.onnx", folder / "padded.onnx", pad)
    assert (folder / "padded.onnx").stat().st_size > 1.01 * size
    assert check("padded.onnx", baseline=Path("original.onnx"), max_size="101%").status == "broken"
    assert check("padded.onnx", baseline=Path("original.onnx"), max_size="102%").status == "ok"
    assert check("model.onnx", baseline=Path("original.onnx"), max_size="100%").status == "ok"


def test_external_data_counts(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(model, folder / "split.onnx", save_as_external_data=True, location="split.data", size_threshold=0)
    whole = sum((folder / name).stat().st_size for name in ("split.onnx", "split.data"))
    assert check("split.onnx", max_size=whole).found == whole
    assert check("split.onnx", max_size=whole - 1).status == "broken"


# -- parameters, MACs


def test_one_parameter_too_many(folder: Path) -> None:
    parameters = cost.stored_cost(open_model(folder / "model.onnx")).parameters

    def add(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1]), "one more"))

    edited(folder / "model.onnx", folder / "more.onnx", add)
    for name, status in (("model.onnx", "ok"), ("more.onnx", "broken")):
        assert check(name, max_params=parameters).status == status
        assert check(name, max_params="100%", baseline=Path("original.onnx")).status == status


def test_one_mac_too_many(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v> { h = MatMul(x, w)  y = MatMul(h, v) }
    """)
    assert check(path, max_macs=5 * 8 + 8 * 3).status == "ok"
    assert check(path, max_macs=5 * 8 + 8 * 3 - 1).status == "broken"


# -- metrics


def with_one_other_answer(original: Path, images: np.ndarray, target: Path) -> Path:
    """The model with the bias of one class raised until the first sample, and no other, changes to it."""
    logits = Session(original).run({"input": images})["logits"].astype(np.float64)
    gaps = logits.max(axis=1, keepdims=True) - logits
    gaps[gaps == 0] = np.inf
    gaps.sort(axis=0)
    column = int((gaps[1] - gaps[0]).argmax())

    def nudge(model: onnx.ModelProto) -> None:
        (name,) = {node.input[2] for node in model.graph.node if node.op_type == "Gemm"}
        (bias,) = (weight for weight in model.graph.initializer if weight.name == name)
        array = onnx.numpy_helper.to_array(bias).copy()
        array[column] += gaps[:2, column].mean()
        bias.CopyFrom(onnx.numpy_helper.from_array(array, name))

    return edited(original, target, nudge)


def test_a_single_changed_arg_max(folder: Path) -> None:
    images = np.load("samples.npz")["input"]
    with_one_other_answer(folder / "original.onnx", images, folder / "model.onnx")
    options = {"baseline": Path("original.onnx"), "data": "samples.npz", "min_agreement": 1.0}
    found = check("model.onnx", **options)
    assert (found.status, found.found) == ("broken", 449 / 450)
    assert check("original.onnx", **options).status == "ok"
    assert check("model.onnx", **{**options, "min_agreement": 449 / 450}).status == "ok"
    assert check("model.onnx", **{**options, "min_agreement": None, "max_drop": 0.0}).status == "broken"


def test_metric_with_labels(folder: Path) -> None:
    assert check("model.onnx", min_metric=448 / 450, **SAMPLES).status == "ok"
    found = check("model.onnx", min_metric=448 / 450 + 1e-9, **SAMPLES)
    assert (found.status, found.found, found.shown) == ("broken", 448 / 450, "accuracy 0.995556")
    assert check("model.onnx", min_metric=0.999, metric="top5", **SAMPLES).shown == "top5 1"


def test_drop_against_a_model(folder: Path, digits: dict[str, Path]) -> None:
    """448 of 450 against 444 of 450."""
    (folder / "lstm.onnx").write_bytes(digits["lstm"].read_bytes())
    options = {"baseline": Path("original.onnx"), **SAMPLES}
    assert check("lstm.onnx", max_drop=4 / 450, **options).status == "ok"
    found = check("lstm.onnx", max_drop=3 / 450, **options)
    assert found.status == "broken"
    assert found.note == "accuracy 0.986667, was 0.995556"
    assert check("original.onnx", max_drop=0, **{**options, "baseline": Path("lstm.onnx")}).found == pytest.approx(
        -4 / 450
    )


def test_drop_of_a_metric_of_which_less_is_better(folder: Path, digits: dict[str, Path]) -> None:
    (folder / "lstm.onnx").write_bytes(digits["lstm"].read_bytes())
    options = {"baseline": Path("original.onnx"), "data": "samples.npz", "metric": "kl"}
    assert check("model.onnx", max_drop=1e-9, **options).status == "ok"
    assert check("lstm.onnx", max_drop=1e-3, **options).status == "broken"
    assert "less is better" in check("model.onnx", min_metric=0.5, **options).shown
    assert "infinite" in check("model.onnx", max_drop=1, **{**options, "metric": "snr"}).shown


def test_a_metric_that_is_no_number_is_broken(folder: Path) -> None:
    def poison(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        array = onnx.numpy_helper.to_array(weight) * np.nan
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))

    edited(folder / "original.onnx", folder / "model.onnx", poison)
    options = {"baseline": Path("original.onnx"), "data": "samples.npz"}
    for metric in ("cosine", "snr"):
        found = check("model.onnx", min_metric=-1e9, metric=metric, **options)
        assert (found.status, found.found) == ("broken", None)
    assert check("model.onnx", min_agreement=0.001, **options).found == 0


# -- operators, opset


def test_operators(folder: Path) -> None:
    names = "Conv,Relu,Gemm,BatchNormalization,Add,Flatten,GlobalAveragePool,Identity"
    assert check("model.onnx", allowed_ops=names).status == "ok"
    found = check("model.onnx", allowed_ops=names.replace("Add,", ""))
    assert (found.status, found.found, found.shown) == ("broken", ["Add"], "also Add")


def test_operators_of_domains_functions_and_bodies(build: Build) -> None:
    path = build(
        """
        net (float[2] x, bool c) => (float[2] z)
        {
            y = mine.Twice(x)
            f = com.microsoft.QuickGelu(y)
            z = If(c) <then_branch = t () => (float[2] a) { a = Neg(f) },
                       else_branch = e () => (float[2] b) { b = mine.Twice(f) }>
        }
        """,
        opsets={"mine": 1, "com.microsoft": 1},
        functions='<domain: "mine", opset_import: ["" : 17]> Twice (x) => (y) { y = Add(x, x) }',
    )
    assert check(path, allowed_ops="None").found == ["Add", "If", "Neg", "com.microsoft:QuickGelu"]
    assert check(path, allowed_ops="Add,If,Neg,com.microsoft:*").status == "ok"


def test_names_from_the_file_cannot_speak_to_ci(build: Build) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Relu\n::error::boo\x1b[31m"

    path = build("net (float[2] x) => (float[2] y) { y = Relu(x) }", edit=rename)
    assert check(path, allowed_ops="Relu").shown == "also Relu ::error::boo[31m"


def test_opset(folder: Path) -> None:
    assert check("model.onnx", opset="13-17").status == "ok"
    assert check("model.onnx", opset=">=18").status == "broken"


# -- latency: never how long it takes, only that it is measured and compared


@pytest.fixture
def small(build: Build) -> Path:
    return build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v> { h = MatMul(x, w)  y = MatMul(h, v) }
    """)


def test_latency(small: Path) -> None:
    assert check(small, max_latency="1000s", latency_seconds=0.01).status == "ok"
    found = check(small, max_latency="0.000001us", latency_seconds=0.01)
    assert found.status == "broken"
    assert isinstance(found.found, float)
    assert found.found > 0


def test_latency_against_a_model(small: Path) -> None:
    for limit, status in ((1e9, "ok"), (1e-9, "broken")):
        found = check(small, max_latency_ratio=limit, baseline=small, latency_seconds=0.01)
        assert found.status == status


def test_latency_on_a_provider_that_is_not_there(small: Path) -> None:
    """The CPU's would pass for it."""
    for providers in (("qnn",), ("qnn", "cpu")):
        found = check(small, max_latency="1000s", providers=providers, latency_seconds=0.01)
        assert found.status == "unchecked"
        assert "not part of this ONNX Runtime" in found.shown


def test_metric_on_a_provider_that_is_not_there(folder: Path) -> None:
    assert check("model.onnx", min_metric=0.5, providers=("qnn",), **SAMPLES).status == "unchecked"
    assert check("model.onnx", min_metric=0.5, providers=("qnn", "cpu"), **SAMPLES).status == "ok"


# -- what cannot be checked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_metric": 0.5}, "needs samples: give --data"),
        ({"min_metric": 0.5, "data": "nothing.npz"}, "nothing.npz"),
        ({"min_metric": 0.5, "data": "samples.npz", "labels": "digits"}, "did you mean 'digit'"),
        ({"min_metric": 0.5, "data": "samples.npz", "metric": "top5"}, "needs labels"),
        ({"min_metric": 0.5, "metric": "no:thing", **SAMPLES}, "cannot be imported"),
        ({"min_metric": 0.5, "output_name": "logit", **SAMPLES}, "did you mean 'logits'"),
        ({"min_agreement": 0.5, "data": "samples.npz"}, "give it with --baseline ORIGINAL.onnx"),
        ({"max_drop": 0.5, **SAMPLES}, "nothing to compare with"),
        ({"max_latency_ratio": 1.5}, "nothing to compare with"),
        ({"max_size": "101%"}, "nothing to compare with"),
        ({"max_latency": "1s", "providers": ("cpux",)}, "unknown execution provider 'cpux'"),
        ({"max_latency": "1s", "input_shape": ("images:1x1x8x8",)}, "no input 'images'"),
    ],
)
def test_a_budget_without_its_means(folder: Path, options: dict[str, Any], message: str) -> None:
    verdict = gate("model.onnx", **options)
    ((found,),) = (model.checks for model in verdict.models)
    assert (found.status, verdict.exit_code) == ("unchecked", 2)
    assert message in found.shown


def test_files_that_are_no_models(folder: Path) -> None:
    (folder / "text.onnx").write_text("not a model")
    (folder / "cut.onnx").write_bytes((folder / "model.onnx").read_bytes()[:1000])
    verdict = gate("text.onnx", "cut.onnx", "none.onnx", "none*.onnx", max_size="5MB", opset=17)
    assert verdict.exit_code == 2
    assert {check.status for model in verdict.models for check in model.checks} == {"unchecked"}
    assert [model.model for model in verdict.models] == ["text.onnx", "cut.onnx", "none.onnx", "none*.onnx"]
    assert [len(model.checks) for model in verdict.models] == [2, 2, 1, 1]


def test_a_bug_is_no_pass_and_hides_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(limit: Any, model: Any) -> Any:
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(BUDGETS._members, "max-params", replace(BUDGETS["max-params"], check=fails))
    verdict = gate("model.onnx", "original.onnx", max_params=1, opset=17)
    assert [[each.status for each in model.checks] for model in verdict.models] == [["unchecked", "ok"]] * 2
    assert "unexpected ZeroDivisionError: oh" in verdict.models[0].checks[0].shown


def test_broken_wins_over_unchecked(folder: Path) -> None:
    assert gate("model.onnx", "none.onnx", max_size="1B").exit_code == 1
    assert gate("model.onnx", "none.onnx", max_size="5MB").exit_code == 2
    assert gate("model.onnx", max_size="5MB").exit_code == 0


def test_globs_name_every_file_once(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "er.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (folder / "odd[1].onnx").write_bytes((folder / "model.onnx").read_bytes())
    verdict = gate("odd[1].onnx", "*.onnx", "**/*.onnx", "model.onnx", max_size="5MB")
    names = [Path(model.model).as_posix() for model in verdict.models]
    assert names == ["odd[1].onnx", "model.onnx", "original.onnx", "deep/er.onnx"]
    assert verdict.summary == "4 models: budgets 4 held, 0 broken"


def test_baseline_model_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"baseline none.onnx does not exist"):
        gate("model.onnx", max_size="101%", baseline=Path("none.onnx"))


def test_nothing_is_changed(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    gate("*.onnx", max_size="5MB", max_macs="5M", min_metric=0.5, opset=17, **SAMPLES)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
