"""`onnxprune compress --lossless` and its function: what goes through the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.errors import UsageError
from onnxprune.pipeline.run import compress
from onnxprune.runtime.session import Session
from tests.conftest import Build
from tests.lossless.harness import feeds, killing
from tests.oracle import distance


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def document(*args: object) -> dict[str, Any]:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


@pytest.fixture
def model(build: Build) -> Path:
    """Neuron 1 is a constant, neuron 3 is zero, and neuron 5 is not read."""
    return build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8] b = {0, 2, 0, -1, 0, 0, 0, 0}, float[8, 3] v>
        { h = Gemm(x, w, b)  r = Relu(h)  y = MatMul(r, v) }
        """,
        edit=killing({("w", 1): [1, 3], ("v", 0): [5]}),
    )


def test_what_changes_nothing_goes(model: Path) -> None:
    found = document("compress", model, "--lossless")
    assert [(group["id"], group["units"], group["kept"]) for group in found["groups"]] == [("w", 8, 5)]
    assert found["request"] == {"lossless": True, "only": [], "skip": []}
    assert found["notes"] == []
    pruned = model.with_name("model.pruned.onnx")
    for feed in feeds(model):
        assert distance(Session(pruned).run(feed), Session(model).run(feed)) <= 1e-5


def test_a_plan_folds_constants_when_it_is_replayed(model: Path, tmp_path: Path) -> None:
    first, plan, second = tmp_path / "first.onnx", tmp_path / "plan.json", tmp_path / "second.onnx"
    document("compress", model, "--lossless", "-o", first, "--plan", plan)
    document("apply", model, plan, "-o", second)
    assert first.read_bytes() == second.read_bytes()


def test_twice_the_same(model: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        document("compress", model, "--lossless", "-o", tmp_path / f"{name}.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_dry_run_writes_nothing(model: Path) -> None:
    assert document("compress", model, "--lossless", "--dry-run")["groups"][0]["kept"] == 5
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_nothing_to_remove_is_no_error(digits: dict[str, Path], tmp_path: Path) -> None:
    result = run("compress", digits["transformer"], "--lossless", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0
    assert "note: no unit can go without a trace: nothing was removed" in result.stdout
    assert (tmp_path / "out.onnx").is_file()


def test_nothing_but_frozen_dimensions_is_no_error(build: Build) -> None:
    path = build("net (float[2, 5] x) => (float[2, 3] y) <float[5, 3] w> { y = MatMul(x, w) }")
    assert document("compress", path, "--lossless")["groups"] == []
    assert path.with_name("model.pruned.onnx").is_file()


@pytest.mark.parametrize("option", ["--ratio", "--criterion", "--scope", "--round-to"])
def test_what_leaves_a_choice_is_refused(model: Path, option: str) -> None:
    defaults = {"--ratio": "0.5", "--criterion": "l1", "--scope": "uniform", "--round-to": "1"}
    result = run("compress", model, "--lossless", option, defaults[option])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"onnxprune: {option} means nothing with --lossless")
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_only_and_skip(model: Path) -> None:
    assert document("compress", model, "--lossless", "--skip", "neurons")["groups"][0]["kept"] == 8
    assert document("compress", model, "--lossless", "--only", "w*")["groups"][0]["kept"] == 5
    with pytest.raises(UsageError, match="nothing in this model matches"):
        compress(model, lossless=True, only=["channel*"])
