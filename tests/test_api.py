"""The Python API: the public names, and a run from file to file."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

import onnxprune as op
from tests.conftest import Build, modules_after

HEAVY = ("torch", "onnx", "onnx_ir", "numpy", "networkx", "rich", "onnxruntime")

ERRORS = ["MissingExtraError", "ModelError", "NothingToPruneError", "OnnxpruneError", "PlanError", "UsageError"]
PUBLIC = [*ERRORS, "VerificationError", "Analysis", "Group", "Plan", "Report", "Result"]
PUBLIC += ["__version__", "apply", "compress", "inspect"]


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
    code = f"import onnxprune as op; op.compress({str(digits['transformer'])!r}).save({str(out)!r})"
    loaded = modules_after(code)
    assert "torch" not in loaded
    assert "onnxruntime" in loaded
    assert out.exists()


def test_from_file_to_file(digits: dict[str, Path], tmp_path: Path) -> None:
    result = op.compress(digits["resnet"], criterion="l1", ratio=0.5, scope="uniform")
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
        result = op.compress(path)
        result.save(tmp_path / f"{name}.onnx")
        again = op.compress(tmp_path / f"{name}.onnx", ratio=0)
        assert again.report.before == result.report.after
        assert again.report.notes == ("ratio 0 leaves every group whole: nothing was removed",)


def test_macs_are_those_of_one_sample(digits: dict[str, Path]) -> None:
    for path in digits.values():
        assert op.compress(path).report.sizes == {"batch": 1}


def test_macs_of_a_matrix_product_by_hand(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
    """)
    report = op.compress(path).report
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
    result = op.compress(digits["transformer"], "random", 0.3, scope="global", seed=7)
    result.save(tmp_path / "first.onnx")
    result.plan.save(tmp_path / "plan.json")
    plan = op.Plan.read(tmp_path / "plan.json")
    assert plan.removals == result.plan.removals
    op.apply(digits["transformer"], plan).save(tmp_path / "second.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_progress_is_told_each_step(digits: dict[str, Path], tmp_path: Path) -> None:
    steps: list[str] = []
    op.compress(digits["resnet"], progress=steps.append).save(tmp_path / "out.onnx", progress=steps.append)
    assert steps == ["analysing", "scoring", "removing", "running the original", "writing and checking"]


def test_errors_are_one_family() -> None:
    for name in PUBLIC:
        if name.endswith("Error"):
            assert issubclass(getattr(op, name), op.OnnxpruneError)
    assert op.UsageError.exit_code == 2
    with pytest.raises(op.UsageError, match="outside"):
        op.compress("no matter", ratio=2)
