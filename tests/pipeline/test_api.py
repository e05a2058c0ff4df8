"""The Python API: the public names, and a run from file to file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxprune as op
from tests.conftest import Build, modules_after

HEAVY = ("torch", "onnx", "onnx_ir", "numpy", "networkx", "rich", "onnxruntime")

ERRORS = ["DamageError", "DamageWarning", "DataError", "MissingExtraError", "ModelError", "NothingToPruneError"]
ERRORS += ["OnnxpruneError", "PlanError", "TargetError", "UsageError", "VerificationError", "WrongTypeError"]
STEPS = [
    "Clean",
    "Evaluate",
    "Prune",
    "Recover",
    "Quantize",
    "Sparsify",
    "Repeat",
    "Train",
    "Checkpoint",
    "Rewind",
    "Reinitialize",
    "Recipe",
    "Step",
    "State",
    "Context",
]
FUNCTIONS = ["apply", "benchmark", "compress", "evaluate", "inspect", "load_data", "recover", "score", "sensitivity"]
RESULTS = ["Analysis", "Data", "Exported", "Group", "Plan", "Quality", "Report", "Result", "TorchCode"]
PUBLIC = [
    *ERRORS,
    *STEPS,
    *FUNCTIONS,
    *RESULTS,
    "compress_pair",
    "curves",
    "export",
    "quantize",
    "search",
    "sparsify",
    "to_torch",
    "train",
    "__version__",
]


def test_public_names() -> None:
    assert sorted(op.__all__) == sorted(PUBLIC)
    assert dir(op) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(op, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'prune'"):
        op.prune  # type: ignore[attr-defined]  # noqa: B018


def test_import_is_light() -> None:
    assert not modules_after("import onnxprune; onnxprune.__version__; dir(onnxprune)") & set(HEAVY)


def test_compress_needs_no_torch(digits: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    absent = "import sys; sys.modules['torch'] = None"
    code = f"{absent}; import onnxprune as op; op.compress({str(digits['transformer'])!r}).save({str(out)!r})"
    assert "onnxruntime" in modules_after(code)
    assert out.exists()


def test_from_file_to_file(digits: dict[str, Path], tmp_path: Path) -> None:
    result = op.compress(digits["resnet"], criterion="l1", ratio=0.5, scope="uniform", recover="none")
    assert isinstance(result, op.Result)
    assert isinstance(result.model, ir.Model)
    assert result.report.estimated
    estimate = result.report.file_bytes[1]

    report = result.save(tmp_path / "small.onnx")
    assert report is result.report
    assert not report.estimated
    size = (tmp_path / "small.onnx").stat().st_size
    assert report.file_bytes == (digits["resnet"].stat().st_size, size)
    assert estimate == pytest.approx(size, rel=0.02)
    assert report.after.parameters < report.before.parameters / 3
    assert report.after.macs < report.before.macs / 3
    assert all(group.kept == group.units // 2 for group in report.groups)


def test_report_counts_what_is_in_the_files(digits: dict[str, Path], tmp_path: Path) -> None:
    for name, path in digits.items():
        result = op.compress(path, ratio=0.5, recover="none")
        result.save(tmp_path / f"{name}.onnx")
        again = op.compress(tmp_path / f"{name}.onnx", ratio=0, recover="none")
        assert again.report.before == result.report.after
        assert again.report.notes == ("ratio 0 leaves every group whole: nothing was removed",)


def test_macs_are_those_of_one_sample(digits: dict[str, Path]) -> None:
    for path in digits.values():
        assert op.compress(path, ratio=0.5, recover="none").report.sizes == {"batch": 1}


def test_macs_of_a_matrix_product_by_hand(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
    """)
    report = op.compress(path, ratio=0.5, recover="none").report
    assert (report.before.macs, report.after.macs) == (5 * 8 + 8 * 3, 5 * 4 + 4 * 3)
    assert (report.before.parameters, report.after.parameters) == (5 * 8 + 8 * 3, 5 * 4 + 4 * 3)


def test_inspect_reads_only(digits: dict[str, Path]) -> None:
    before = digits["lstm"].read_bytes()
    analysis = op.inspect(digits["lstm"])
    assert isinstance(analysis, op.Analysis)
    assert (analysis.groups[0].kind, analysis.groups[0].units) == ("recurrent", 64)
    assert all(isinstance(group, op.Group) for group in analysis.groups)
    assert digits["lstm"].read_bytes() == before


def test_plan_is_replayed_byte_for_byte(digits: dict[str, Path], tmp_path: Path) -> None:
    result = op.compress(digits["transformer"], criterion="random", ratio=0.3, scope="global", seed=7, recover="none")
    result.save(tmp_path / "first.onnx")
    result.plan.save(tmp_path / "plan.json")
    plan = op.Plan.read(tmp_path / "plan.json")
    assert plan.removals == result.plan.removals
    op.apply(digits["transformer"], plan).save(tmp_path / "second.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_progress_is_told_each_step(digits: dict[str, Path], tmp_path: Path) -> None:
    steps: list[str] = []
    op.compress(digits["resnet"], progress=steps.append, ratio=0.5, recover="none").save(
        tmp_path / "out.onnx", progress=steps.append
    )
    looked = ["analysing", "running the original", "scoring", "removing", "comparing with the original"]
    assert steps == [*looked, "writing and checking"]


def test_errors_are_one_family() -> None:
    for name in PUBLIC:
        if name.endswith("Error"):
            assert issubclass(getattr(op, name), op.OnnxpruneError)
    assert op.UsageError.exit_code == 2
    with pytest.raises(op.UsageError, match="outside"):
        op.compress("no matter", ratio=2, recover="none")


def test_no_module_hides_behind_a_public_name() -> None:
    """Whatever was imported before, a public name is what it says, and never a module of the same name."""
    code = """
import importlib, pkgutil, types
import onnxprune as op
for info in pkgutil.walk_packages(op.__path__, "onnxprune."):
    if "torch" not in info.name and "__main__" not in info.name and "pytest" not in info.name:
        importlib.import_module(info.name)
for name in op.__all__:
    assert not isinstance(getattr(op, name), types.ModuleType), name
assert callable(op.recover) and callable(op.compress)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prints_are_short(digits: dict[str, Path]) -> None:
    result = op.compress(digits["resnet"], ratio=0.5, recover="none")
    analysis = op.inspect(digits["resnet"])
    for shown in (
        result,
        result.report,
        result.plan,
        analysis,
        analysis.groups[0],
        op.Recipe([op.Prune()]),
        op.Prune(),
    ):
        assert len(repr(shown).splitlines()) < 10
        assert len(repr(shown)) < 1000
    for shown in (result, analysis, result.plan):
        assert "<table>" in shown._repr_html_()


def test_the_result_as_a_message(digits: dict[str, Path], tmp_path: Path) -> None:
    result = op.compress(digits["resnet"], ratio=0.5, recover="none")
    proto = result.proto()
    onnx.checker.check_model(proto, full_check=True)
    result.save(tmp_path / "small.onnx")
    assert {i.name for i in proto.graph.initializer} == {
        i.name for i in onnx.load(tmp_path / "small.onnx").graph.initializer
    }


def test_models_as_people_have_them(digits: dict[str, Path], tmp_path: Path) -> None:
    proto = onnx.load(digits["lstm"])
    model = ir.load(digits["lstm"])
    before = proto.SerializeToString()
    op.compress(digits["lstm"], ratio=0.5, recover="none").save(tmp_path / "path.onnx")
    for name, given in (("proto", proto), ("ir", model), ("text", str(digits["lstm"]))):
        op.compress(given, ratio=0.5, recover="none").save(tmp_path / f"{name}.onnx")
        assert (tmp_path / f"{name}.onnx").read_bytes() == (tmp_path / "path.onnx").read_bytes()
    assert proto.SerializeToString() == before


def of_odd(group: op.Group, context: object) -> np.ndarray:
    """Odd units matter."""
    return np.arange(group.units) % 2.0


def test_options_as_people_write_them(digits: dict[str, Path]) -> None:
    result = op.compress(digits["resnet"], target="macs=0.5", only="channels", recover="none")
    assert result.report.after.macs <= 0.5 * result.report.before.macs
    result = op.compress(digits["transformer"], ratios={"heads": 0.25}, scope="uniform", recover="none")
    assert {group.units - group.kept for group in result.report.groups if group.kind == "heads"} == {1}
    result = op.compress(digits["resnet"], criterion=of_odd, scope="uniform", ratio=0.5, recover="none")
    assert all(unit % 2 == 0 for removal in result.plan.removals for unit in removal.remove)
    assert result.plan.recipe["step"][0]["criterion"].endswith(":of_odd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": "half"}, "ratio is a number, not 'half'"),
        ({"target": 0.5}, "target is a list of texts"),
        ({"only": {"a": 1}}, "only is a list of texts"),
        ({"ratios": 0.5}, "ratios is a table of names and numbers"),
        ({"criterion": 3}, "criterion is a text, or a function, not 3"),
        ({"min_units": 2.5}, "min-units is a whole number, not 2.5"),
    ],
)
def test_wrong_types_name_what_is_accepted(digits: dict[str, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(op.WrongTypeError, match=message) as refused:
        op.compress(digits["resnet"], **options)
    assert isinstance(refused.value, TypeError)
    assert isinstance(refused.value, op.UsageError)


def test_steps_in_a_row(digits: dict[str, Path]) -> None:
    recipe = op.Recipe([op.Prune(target="macs=0.5"), op.Recover("fold")])
    result = recipe(digits["resnet"])
    assert result.report.recovery == "fold"
    assert result.report.after.macs <= 0.5 * result.report.before.macs


def test_scores_and_sensitivity(digits: dict[str, Path]) -> None:
    data = str(digits["lstm"].with_name("digits_calibration.npz"))
    scores = op.score(digits["lstm"])
    assert {name: len(found) for name, found in scores.items()} == {
        g.id: g.units for g in op.inspect(digits["lstm"]).groups
    }
    groups, found = op.sensitivity(digits["lstm"], data, ratios=[0.5])
    assert set(found.curves) == {group.id for group in groups}


def test_a_pruned_file_is_recovered(digits: dict[str, Path], tmp_path: Path) -> None:
    op.compress(digits["lstm"], criterion="l1", ratio=0.5, recover="none").save(tmp_path / "small.onnx")
    data = str(digits["lstm"].with_name("digits_calibration.npz"))
    result = op.recover(tmp_path / "small.onnx", digits["lstm"], data=data)
    assert result.report.recovery == "reconstruct"
    assert sum(error.after for error in result.report.errors) < sum(error.before for error in result.report.errors)


def test_models_side_by_side(digits: dict[str, Path], tmp_path: Path) -> None:
    result = op.compress(digits["lstm"], ratio=0.5, recover="none")
    found = op.benchmark([digits["lstm"], result.model])
    assert len(found.measured[0]) == 2
