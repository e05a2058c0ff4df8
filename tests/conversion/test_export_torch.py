"""Networks of torch become ONNX files with their names, their sizes and their outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import onnxprune as op
from onnxprune.cli import main
from onnxprune.conversion.base import Opened
from onnxprune.conversion.compare import compared
from onnxprune.conversion.torch import opening
from onnxprune.model.file import as_model
from tests.conversion import networks
from tests.conversion.networks import Net

MODULE = "tests.conversion.networks"
SCRIPT = {"exporter": "torchscript"}  # a fraction of the time that dynamo takes


def run(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["export", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def outputs(path: Path, feed: dict[str, Any]) -> list[Any]:
    return list(onnxruntime.InferenceSession(str(path)).run(None, feed))


@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)])
@pytest.mark.parametrize("norms", [False, True])
def test_names_sizes_and_outputs_are_the_modules(exporter: str, norms: bool, tmp_path: Path) -> None:
    path, net = tmp_path / "net.onnx", Net().eval()
    axes = {"images": {0: "batch", 2: "h", 3: "w"}}
    exported = op.export(
        net.train(), torch.randn(1, 3, 8, 6), dynamic=axes, keep_batchnorm=norms, exporter=exporter, opset=18
    )
    assert net.training
    assert "exporter=" in repr(exported)
    assert [each.shapes["images"] for each in exported.checks] == [(2, 3, 8, 6), (3, 3, 9, 7)]
    exported.save(path)
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    assert [size.dim_param or size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        3,
        "h",
        "w",
    ]
    assert [value.name for value in model.graph.output] == ["logits", "features"]
    assert {weight.name for weight in model.graph.initializer} >= {
        "first.conv.weight",
        "second.conv.weight",
        "fc.weight",
    }
    assert ("BatchNormalization" in {node.op_type for node in model.graph.node}) == norms
    assert str(Path(__file__).parent).encode() not in path.read_bytes()
    x = torch.randn(5, 3, 11, 4)
    due = net.eval()(x)
    for given, wanted in zip(outputs(path, {"images": x.numpy()}), due.values(), strict=True):
        np.testing.assert_allclose(given, wanted.detach(), atol=1e-5)
    assert [group.id for group in op.inspect(path).groups] == ["first.conv"]


@pytest.mark.slow
def test_dynamo_comes_first_and_torchscript_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert op.export(Net(), torch.randn(2, 3, 8, 8)).exporter == "dynamo"

    def broken(*_: object) -> None:
        raise RuntimeError("outer") from ValueError("the cause\nand its details")

    monkeypatch.setitem(opening._EXPORTERS, "dynamo", broken)
    exported = op.export(Net(), torch.randn(2, 3, 8, 8))
    assert exported.exporter == "torchscript"
    assert exported.notes == ("dynamo failed: ValueError: the cause",)


def test_a_file_that_differs_is_not_written() -> None:
    """TorchScript keeps the branch of the example's batch; another batch takes the other one."""
    with pytest.raises(op.ModelError, match="torchscript failed: output 'output' differs from the network's by"):
        op.export(networks.Branching(), torch.randn(2, 3), **SCRIPT)


@pytest.mark.parametrize("change", ["value", "shape", "count", "nan"])
def test_the_comparison_sees(change: str) -> None:
    model = as_model(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 18]> net (float[2] x) => (float[2] y) { y = Relu(x) }'
        )
    )
    feed = {"x": np.array([1, 2], np.float32)}
    assert compared(model, Opened(lambda _: [feed["x"]], (feed,), {}))[0].difference == 0
    other = {
        "value": [feed["x"] + np.float32([0, 0.01])],
        "shape": [feed["x"][:1]],
        "count": [feed["x"], feed["x"]],
        "nan": [np.array([1, np.nan], np.float32)],
    }
    with pytest.raises(op.ModelError):
        compared(model, Opened(lambda _: other[change], (feed,), {}))


def test_a_batch_that_is_fixed_stays_so_and_a_note_says_it() -> None:
    exported = op.export(networks.Padded(), torch.randn(2, 3), **SCRIPT)
    assert exported.model.graph.inputs[0].shape == [2, 3]
    assert "the batch is fixed: the network runs at batch=2, but batch=3 is refused" in exported.notes[0]
    with pytest.raises(op.ModelError, match="runs at n=2, but n=3 is refused"):
        op.export(networks.Padded(), torch.randn(2, 3), dynamic="x:0=n", **SCRIPT)
    with pytest.raises(op.UsageError, match="'y'"):
        op.export(networks.Padded(), torch.randn(2, 3), dynamic={"y": {0: "n"}})
    fixed = op.export(Net(), torch.randn(1, 3, 8, 8), dynamic="none", **SCRIPT)
    assert fixed.model.graph.inputs[0].shape == [1, 3, 8, 8]


def test_random_networks_are_compared_by_shape() -> None:
    exported = op.export(networks.Drawing(), torch.randn(2, 3), **SCRIPT)
    assert exported.checks[0].difference is None
    assert "other numbers each time" in exported.notes[0]


def test_arguments_by_name_and_by_place() -> None:
    x = torch.randn(2, 3, 8, 8)
    for given in (x, (x, 3.0), {"images": x, "scale": 3.0}, x.numpy()):
        assert [value.name for value in op.export(Net(), given, **SCRIPT).model.graph.inputs] == ["images"]
    with pytest.raises(op.DataError, match=r"do not fit Net\.forward"):
        op.export(Net(), {"picture": x})
    with pytest.raises(op.UsageError, match="needs example inputs"):
        op.export(Net())
    with pytest.raises(op.ModelError, match="does not run on its example inputs"):
        op.export(Net(), torch.randn(2, 4, 8, 8))


def test_compress_takes_a_module() -> None:
    result = op.compress(Net(), example_inputs=torch.randn(2, 3, 8, 8), ratio=0.5, recover="none")
    assert [group.kept for group in result.report.groups] == [4]


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    code, said, error = run(f"{MODULE}:make", "-o", out, "--exporter", "torchscript")
    assert code == 0, error
    assert "opset" in said
    assert "same outputs as the network at images 3x3x8x8" in said
    example = ("--example", "input:2x6:int64", "--exporter", "torchscript", "--json")
    code, said, error = run(f"{MODULE}:tokens", "-o", out, *example)
    assert code == 0, error
    assert json.loads(said)["inputs"] == [{"name": "input", "type": "tensor(int64)", "shape": ["batch", 6]}]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ((f"{MODULE}:fails",), "fails: RuntimeError: no such luck", 2),
        ((f"{MODULE}:mak",), "did you mean 'make'?", 2),
        (("nowhere.pt2",), "nowhere.pt2 does not exist", 1),
        (("nowhere",), "nowhere does not exist; give a file", 2),
        ((f"{MODULE}:tokens", "--example", "x:2y3"), "is not of the form images:2x3x224x224", 2),
        ((f"{MODULE}:make", "--dynamic", "images:9=n"), "has 4 axes, so there is no axis 9", 2),
        ((f"{MODULE}:make", "--dynamic", "images:0=n", "--dynamic", "images:1=n"), "has the sizes 1 and 3", 2),
        ((f"{MODULE}:make", "--exporter", "dynmo"), "did you mean 'dynamo'?", 2),
        ((f"{MODULE}:make", "--weights", "no.pth"), "no.pth does not exist", 1),
    ],
)
def test_refusals_are_one_line(arguments: tuple[str, ...], said: str, code: int, tmp_path: Path) -> None:
    found, _, error = run(*arguments, "-o", tmp_path / "net.onnx")
    assert (found, error.count("\n")) == (code, 1)
    assert said in error
    assert not list(tmp_path.iterdir())


def test_exporters_that_fail_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(op.ModelError, match=r"torchscript failed: .*nsupported"):
        op.export(nn.Linear(3, 2), torch.randn(2, 3), opset=99, **SCRIPT)
    assert capfd.readouterr() == ("", "")


class Payload:
    """What a pickle can do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("pwned"),))


def test_weights_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net, again = Net(), Net()
    torch.save(net.state_dict(), "state.pth")
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, "training.pt")
    torch.save(net, "whole.pth")
    torch.save({"state_dict": Payload()}, "evil.pth")
    torch.save({"fc.weight": torch.zeros(3)}, "other.pth")
    Path("text.pth").write_text("no weights")
    x = torch.randn(2, 3, 8, 8)
    for name in ("state.pth", "training.pt"):
        model = op.export(again, x, weights=name, **SCRIPT).model
        np.testing.assert_array_equal(
            model.graph.initializers["fc.weight"].const_value.numpy(), net.fc.weight.detach().numpy()
        )
    for name, said in {
        "whole.pth": "more than tensors",
        "evil.pth": "more than tensors",
        "other.pth": "does not fit Net",
        "text.pth": "no file of torch|more than tensors",
    }.items():
        with pytest.raises(op.ModelError, match=said):
            op.export(again, x, weights=name)
    assert not Path("pwned").exists()
    with pytest.raises(op.ModelError, match=r"package\.net:make --weights state\.pth"):
        op.export("state.pth")


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    net = nn.Linear(3, 2)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = op.export(nn.Linear(3, 2), torch.randn(2, 3), weights=tmp_path / "w.safetensors", **SCRIPT).model
    np.testing.assert_array_equal(model.graph.initializers["bias"].const_value.numpy(), net.bias.detach().numpy())


@pytest.mark.slow
def test_saved_programs(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 8, 8)
    shapes = {"images": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(Net().eval(), (x,), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    code, said, error = run(tmp_path / "net.pt2", "-o", tmp_path / "net.onnx")
    assert code == 0, error
    assert "float[batch, 3, 8, 8]" in said
    assert "same outputs as the network at images 3x3x8x8" in said


def test_programs_with_python_objects_are_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", b"x")
    (tmp_path / "text.pt2").write_text("no program")
    for name, said in {"net.pt2": "Python objects", "text.pt2": r"not a \.pt2 file"}.items():
        with pytest.raises(op.ModelError, match=said):
            op.export(tmp_path / name)
