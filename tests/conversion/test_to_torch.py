"""From ONNX back to torch: code that stands alone, with the outputs of ONNX Runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import parser

import onnxprune as op
from onnxprune.analysis.inspect import inspect
from onnxprune.cli import main
from onnxprune.conversion.to_torch.file import torch_code
from onnxprune.conversion.to_torch.format import wrapped
from tests.conftest import SHARED, Build

pytest.importorskip("torch")

# One graph per way to write something that the digits' models do not have.
GRAPHS = {
    "sizes": """
        net (float[batch, 4, n] x) => (float[batch, n, 2, 2] y)
        <int64[1] two = {2}, int64 axis = {2}, int64[1] zero = {0}>
        { s = Shape(x)  n = Gather(s, axis)  m = Unsqueeze(n, zero)  shape = Concat<axis = 0>(zero, m, two, two)
          t = Transpose<perm = [0, 2, 1]>(x)  y = Reshape(t, shape) }
    """,
    "linear": """
        net (float[batch, 5] x) => (float[batch, 3] y) <float[5, 4] w, float[4] b, float[4, 3] v>
        { h = MatMul(x, w)  a = Add(b, h)  r = LeakyRelu<alpha = 0.2>(a)  y = MatMul(r, v) }
    """,
    "uneven pads": """
        net (float[batch, 2, 8, 8] x) => (float[batch, 2, 4, 4] y) <float[2, 1, 3, 3] w>
        { h = Conv<group = 2, pads = [0, 0, 1, 1], strides = [2, 2]>(x, w)
          p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(h)  y = Pad(p) }
    """,
    "slices": """
        net (float[batch, 6] x) => (float[batch, 3] y, float[batch, 6] z)
        <int64[1] one = {1}, int64[1] last = {9223372036854775807}, int64[1] two = {2}, int64[1] back = {-1},
         int64[1] least = {-9223372036854775807}>
        { y = Slice(x, one, last, one, two)  z = Slice(x, last, least, one, back) }
    """,
    "look up": """
        net (int64[batch, 3] ids) => (float[batch, 3, 4] y, float[batch, 3, 4] z)
        <float[7, 4] table, int64 one = {1}> { y = Gather(table, ids)  less = Sub(ids, one)  z = Gather(table, less) }
    """,
    "flat": """
        net (float[batch, 2, 3] x) => (float[size, 1] y, float[1, size] z)
        { y = Flatten<axis = 3>(x)  z = Flatten<axis = 0>(x) }
    """,
    "gru": """
        net (float[5, batch, 3] x) => (float[5, 2, batch, 4] y, float[2, batch, 4] h)
        <float[2, 12, 3] w, float[2, 12, 4] r, float[2, 24] b>
        { y, h = GRU<hidden_size = 4, direction = "bidirectional", linear_before_reset = 1>(x, w, r, b) }
    """,
    "backward lstm": """
        net (float[5, batch, 3] x) => (float[5, 1, batch, 4] y, float[1, batch, 4] h, float[1, batch, 4] c)
        <float[1, 16, 3] w, float[1, 16, 4] r, float[1, 32] b>
        { y, h, c = LSTM<hidden_size = 4, direction = "reverse">(x, w, r, b) }
    """,
    "directions side by side": """
        net (float[5, batch, 3] x) => (float[5, batch, 8] y, float[5, batch, 8] z)
        <float[2, 16, 3] w, float[2, 16, 4] r, float[2, 16, 8] v, float[2, 16, 4] s, int64[3] last = {0, 0, -1}>
        { a = LSTM<hidden_size = 4, direction = "bidirectional">(x, w, r)  t = Transpose<perm = [0, 2, 1, 3]>(a)
          h = Reshape(t, last)  b = LSTM<hidden_size = 4, direction = "bidirectional">(h, v, s)
          u = Transpose<perm = [0, 2, 1, 3]>(b)  y = Reshape(u, last)
          c = LSTM<hidden_size = 4, direction = "bidirectional">(x, w, r)  d = Transpose<perm = [0, 2, 3, 1]>(c)
          z = Reshape(d, last) }
    """,
    "one direction": """
        net (float[5, batch, 3] x) => (float[5, batch, 4] y) <float[1, 16, 3] w, float[1, 16, 4] r, int64[1] one = {1}>
        { a = LSTM<hidden_size = 4>(x, w, r)  y = Squeeze(a, one) }
    """,
    "powers of sums": """
        net (float[batch, 4] x) => (float[batch, 4] y) <float two = {2}>
        { a = Add(x, x)  b = Sub(a, two)  c = Pow(b, two)  y = Mul(c, two) }
    """,
    "norms": """
        net (float[batch, 4, 6] x) => (float[batch, 4, 6] y)
        <float[4] s, float[4] t, float[4] m, float[4] v = {0.5, 1, 2, 3}, float[6] scale, float[6] shift>
        { a = BatchNormalization(x, s, t, m, v)  b = InstanceNormalization<epsilon = 0.01>(a, s, t)
          y = LayerNormalization<epsilon = 0.001>(b, scale, shift) }
    """,
    "words that Python has taken": """
        net (float[batch, 2] self) => (float[batch, 2] y) { torch = Relu(self)  y = Sqrt(torch) }
    """,
}


def built(build: Build, name: str) -> Path:
    source = GRAPHS[name].replace("y = Pad(p)", "y = Identity(p)")
    return build(source)


@pytest.mark.parametrize("name", GRAPHS)
def test_outputs_are_those_of_onnx_runtime(name: str, build: Build, tmp_path: Path) -> None:
    code = op.to_torch(built(build, name), tmp_path / "net")
    assert max(code.differences) < 1e-4
    assert len(code.differences) > 1
    assert_formatted(tmp_path / "net")


def assert_formatted(folder: Path) -> None:
    """As ruff formats it, with nothing that ruff finds: F is the name that everybody gives to functional."""
    ruff = shutil.which("ruff")
    if ruff:
        subprocess.run([ruff, "format", "--check", "--isolated", "--line-length", "120", folder], check=True)
        rules = ["--select", "E,F,W,I,N,UP,B,SIM,RUF,RET", "--ignore", "N812", "--line-length", "120"]
        subprocess.run([ruff, "check", "--isolated", *rules, folder], check=True)


@pytest.mark.slow
def test_types_of_what_is_written(digits: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    for name, path in digits.items():
        op.to_torch(path, tmp_path / name)
        assert_formatted(tmp_path / name)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", tmp_path / name / "model.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_models_of_digits_stand_alone(digits: dict[str, Path], tmp_path: Path) -> None:
    """In a folder without us, in a process that cannot import us, with the format that ruff gives."""
    op.to_torch(digits["transformer"], tmp_path / "net")
    text = (tmp_path / "net" / "model.py").read_text()
    assert "nn.Linear" in text
    assert "nn.LayerNorm" in text
    assert_formatted(tmp_path / "net")
    run = "import sys; sys.modules['onnxprune'] = None; sys.modules['onnx'] = None; import model; print(model.load())"
    done = subprocess.run([sys.executable, "-c", run], cwd=tmp_path / "net", capture_output=True, text=True, check=True)
    assert "Linear" in done.stdout


def test_shared_weights_are_one_module(build: Build) -> None:
    graph = "net (float[b, 4] x) => (float[b, 4] y) <float[4, 4] w> { h = MatMul(x, w)  y = MatMul(h, w) }"
    code = torch_code(inspect(build(graph)), "n")
    assert code.text.count("nn.Linear") == 1
    assert list(code.weights) == ["w.weight"]


def test_sizes_are_read_from_the_input_and_modules_are_called_after_layers(build: Build, tmp_path: Path) -> None:
    text = op.to_torch(built(build, "sizes"), tmp_path / "net").text
    assert "x.transpose(1, 2)" in text
    assert ".reshape(transpose.shape[0], x.shape[2], 2, 2)" in text


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ("net (float[4] x) => (float[4] y) { y = Celu(x)  z = Hardmax(y) }", ""),
        (
            "net (float[4] x) => (float[4] y) { y = Hardmax(x) }",
            "Hardmax '.*' cannot be written in torch: there",
        ),
        (
            "net (float[5, 2, 3] x) => (float[5, 1, 2, 4] y) <float[1, 12, 3] w, float[1, 12, 4] r> "
            "{ y = GRU<hidden_size = 4>(x, w, r) }",
            "GRU '.*' cannot be written in torch: it resets the state before",
        ),
    ],
)
def test_refusals_name_node_and_operator(graph: str, said: str, build: Build, tmp_path: Path) -> None:
    if not said:  # what nothing reads is not written
        op.to_torch(build(graph), tmp_path / "net")
        return
    with pytest.raises(op.ModelError, match=said):
        op.to_torch(build(graph), tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_module_that_differs_is_not_written(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.conversion.to_torch.base import TORCH_CODE

    model = build("net (float[b, 4] x) => (float[b, 4] y) { y = Relu(x) }")
    for wrong, said in {"-{}": "differs by", "{}[:, :2]": "not float32", "{}.nothing()": "does not run"}.items():
        TORCH_CODE.names()
        monkeypatch.setitem(TORCH_CODE._members, ("", "Relu"), lambda call, wrong=wrong: wrong.format(call.tensor(0)))
        with pytest.raises(op.VerificationError, match=said):
            op.to_torch(model, tmp_path / "net")
        assert not list(tmp_path.glob("*net*"))


def test_names_in_a_file_cannot_become_code(tmp_path: Path) -> None:
    bad = 'x"""\nimport os; os.mkdir("pwned")\n"""'
    header = '<ir_version: 8, opset_import: ["": 18]>'
    model = parser.parse_model(f"{header} net (float[2, 3] x) => (float[2, 3] y) <float[2, 3] w> {{ y = Add(x, w) }}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), bad))
    model.graph.node[0].input[:] = [bad, bad]
    model.graph.input[0].name, model.graph.node[0].input[0], model.graph.node[0].name = bad * 2, bad * 2, bad
    code = op.to_torch(model, tmp_path / "net")
    assert "\nimport os" not in code.text
    assert not Path("pwned").exists()


def test_the_command(build: Build, tmp_path: Path) -> None:
    model, out = built(build, "linear"), tmp_path / "net"
    result = CliRunner().invoke(main, ["to-torch", str(model), "-o", str(out)])
    assert result.exit_code == 0, result.stderr
    assert "same outputs as ONNX Runtime in" in result.stdout
    assert sorted(each.name for each in out.iterdir()) == ["model.py", "model.safetensors"]
    (out / "__pycache__").mkdir()  # somebody imported it
    again = CliRunner().invoke(main, ["to-torch", str(model), "-o", str(out), "--json"])
    assert json.loads(again.stdout)["weights"] == {"w.weight": [4, 5], "w.bias": [4], "v.weight": [3, 4]}
    (out / "mine.txt").write_text("do not touch")
    refused = CliRunner().invoke(main, ["to-torch", str(model), "-o", str(out)])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert (out / "mine.txt").exists()


def test_long_lines_are_broken() -> None:
    line = "y = torch.cat([" + ", ".join(f"part_{i:03}" for i in range(12)) + "], 1)"
    assert (
        list(wrapped(line, 8))
        == [
            "        y = torch.cat(",
            "            [" + ", ".join(f"part_{i:03}" for i in range(12)) + "], 1",
            "        )",
        ]
        or max(map(len, wrapped(line, 8))) <= 120
    )


# Models of the zoo that are refused, with the operator that has no code.
REFUSED = {
    "hf.longformer.ts17": "SplitToSequence",
    "hm.if_subgraph.dy": "If",
    "hm.if_subgraph.ts17": "If",
    "tv.ssdlite320_mobilenet_v3_large.ts17": "NonMaxSuppression",
}
ZOO = sorted(json.loads((SHARED / "zoo" / "index.json").read_text())) if SHARED.is_dir() else []


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_can_be_written(name: str, zoo_file: Callable[[str], Path], tmp_path: Path) -> None:
    """In parts: `-k 'zoo and swin'`. The runs beside ONNX Runtime are those that `to_torch` makes of every model."""
    path = zoo_file(name)
    if name in REFUSED:
        with pytest.raises(op.ModelError, match=REFUSED[name]):
            op.to_torch(path, tmp_path / "net")
        return
    assert len(op.to_torch(path, tmp_path / "net").differences) > 0
    assert_formatted(tmp_path / "net")


def test_at_least_nine_of_ten_models_of_the_zoo_can_be_written() -> None:
    assert len(REFUSED) <= 0.1 * len(ZOO) or not ZOO
