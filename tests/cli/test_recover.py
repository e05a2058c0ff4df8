"""`onnxprune recover`: what it mends, prints and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result

from onnxprune.analysis.names import torch_module
from onnxprune.cli import main
from onnxprune.pipeline.run import compress
from onnxprune.runtime.session import Session


@pytest.fixture(scope="module")
def made(digits: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """whole.onnx, half.onnx cut from it by plan.json, and samples.npz."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copy(digits["resnet"], folder / "whole.onnx")
    compress(folder / "whole.onnx", ratio=0.3, recover="none").save(folder / "half.onnx", plan=folder / "plan.json")
    with np.load(digits["resnet"].parent / "digits_calibration.npz") as stored:
        np.savez(folder / "samples.npz", input=stored["input"][:128])
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of these for each test."""
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def run(folder: Path, *args: object, code: int = 0) -> Result:
    given = [str(folder / arg) if isinstance(arg, str) and "." in arg else str(arg) for arg in args]
    result = CliRunner().invoke(main, ["recover", str(folder / "half.onnx"), *given])
    assert result.exit_code == code, result.output
    return result


def decisions(path: Path, folder: Path) -> np.ndarray:
    with np.load(folder / "samples.npz") as stored:
        return next(iter(Session(path).run({"input": stored["input"]}).values())).argmax(1)


@pytest.mark.parametrize("method", ["reconstruct", "batchnorm", "bias"])
def test_mends(method: str, folder: Path) -> None:
    found = run(folder, "--like", "whole.onnx", "--data", "samples.npz", "--method", method, "--json")
    document = json.loads(found.stdout)
    assert document["recovery"]["method"] == method
    layers = document["recovery"]["layers"]
    assert len(layers) == 16
    assert sum(layer["after"] for layer in layers) < sum(layer["before"] for layer in layers)
    assert document["output"] == str(folder / "half.recovered.onnx")
    due, before, after = (
        decisions(folder / name, folder) for name in ("whole.onnx", "half.onnx", "half.recovered.onnx")
    )
    assert np.mean(after == due) > np.mean(before == due)


def test_table_has_a_line_per_layer_and_files_stay(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    text = run(folder, "--like", "whole.onnx", "--data", "samples.npz", "-o", "out.onnx").stdout
    for node in onnx.load(folder / "out.onnx").graph.node:
        if node.op_type in ("Conv", "Gemm"):
            name = torch_module(ir.from_proto(node))  # groups are called so, too
            (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ") and "%" not in line]
            assert float(line.split()[2]) <= float(line.split()[1])
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "out.onnx"} == before


def test_plan_gives_the_same_bytes_as_finding_it(folder: Path) -> None:
    args = ("--like", "whole.onnx", "--data", "samples.npz", "--method", "bias")
    run(folder, *args, "-o", "found.onnx")
    run(folder, *args, "--plan", "plan.json", "-o", "given.onnx")
    assert (folder / "found.onnx").read_bytes() == (folder / "given.onnx").read_bytes()


def test_without_data_inputs_are_made_up_and_it_says_so(folder: Path, quick_inputs: None) -> None:
    assert "made-up inputs" in run(folder, "--like", "whole.onnx", "--method", "bias").stdout


def test_folding_needs_no_data(folder: Path) -> None:
    found = json.loads(run(folder, "--like", "whole.onnx", "--method", "fold", "--json").stdout)
    assert found["recovery"] == {"method": "fold", "layers": []}
    assert not any("made-up" in note for note in found["notes"])
    assert (folder / "half.recovered.onnx").read_bytes() != (folder / "half.onnx").read_bytes()


def test_recovered_file_can_be_recovered_again_with_the_plan(folder: Path) -> None:
    args = ("--like", "whole.onnx", "--data", "samples.npz", "--method", "bias")
    run(folder, *args, "-o", "once.onnx")
    again = CliRunner().invoke(main, ["recover", str(folder / "once.onnx"), *_paths(folder, args)])
    assert again.exit_code == 1
    assert "changed since" in again.stderr
    assert "--plan" in again.stderr
    again = CliRunner().invoke(
        main, ["recover", str(folder / "once.onnx"), *_paths(folder, args), "--plan", str(folder / "plan.json")]
    )
    assert again.exit_code == 0, again.output


def _paths(folder: Path, args: tuple[str, ...]) -> list[str]:
    return [str(folder / arg) if "." in arg else arg for arg in args]


def test_other_original_is_refused(folder: Path, digits: dict[str, Path]) -> None:
    (folder / "other.onnx").write_bytes(digits["lstm"].read_bytes())
    assert "another model" in run(folder, "--like", "other.onnx", "--data", "samples.npz", code=1).stderr


def test_method_that_does_not_exist_is_refused(folder: Path) -> None:
    assert "reconstruct" in run(folder, "--like", "whole.onnx", "--method", "reconstuct", code=2).stderr
