"""An encoder and a decoder in two files: the width between them shrinks in both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnxprune as op
from onnxprune.cli import main
from onnxprune.errors import UsageError
from onnxprune.model.joining import join
from onnxprune.runtime.session import Session
from tests.conftest import Build

# Names of values, weights and axes are used twice, as exporters do.
ENCODER = """
    enc (int64[b, t] ids) => (float[b, t, 12] hidden, float[b, 3] pooled)
    <float[20, 8] table, float[8, 12] w, float[12] p, float[12, 3] v, int64[1] axes = {1}>
    {
        e = Gather(table, ids)  h = MatMul(e, w)  i = Add(h, p)  hidden = Tanh(i)
        m = ReduceMean<axes = [1], keepdims = 0>(hidden)  pooled = MatMul(m, v)
    }
"""
DECODER = """
    dec (int64[b, t] ids, float[b, s, 12] memory) => (float[b, t, 5] y)
    <float[20, 10] table, float[10, 12] w, float[12, 16] v, float[16, 5] u>
    {
        e = Gather(table, ids)  q = MatMul(e, w)
        k = Transpose<perm = [0, 2, 1]>(memory)  c = MatMul(q, k)  a = Softmax<axis = 2>(c)  o = MatMul(a, memory)
        h = MatMul(o, v)  r = Relu(h)  y = MatMul(r, u)
    }
"""
# The same in one file.
WHOLE = """
    net (int64[b, t] ids, int64[b, s] asked) => (float[b, 3] pooled, float[b, s, 5] y)
    <float[20, 8] table, float[8, 12] w, float[12] p, float[12, 3] v, float[20, 10] table2, float[10, 12] w2,
     float[12, 16] v2, float[16, 5] u>
    {
        e = Gather(table, ids)  h = MatMul(e, w)  i = Add(h, p)  hidden = Tanh(i)
        m = ReduceMean<axes = [1], keepdims = 0>(hidden)  pooled = MatMul(m, v)
        f = Gather(table2, asked)  q = MatMul(f, w2)
        k = Transpose<perm = [0, 2, 1]>(hidden)  c = MatMul(q, k)  a = Softmax<axis = 2>(c)  o = MatMul(a, hidden)
        g = MatMul(o, v2)  r = Relu(g)  y = MatMul(r, u)
    }
"""
RNG = np.random.default_rng(2)
FIRST = {
    name: RNG.standard_normal(shape) for name, shape in {"table": (20, 8), "w": (8, 12), "p": 12, "v": (12, 3)}.items()
}
SECOND = {
    name: RNG.standard_normal(shape)
    for name, shape in {"table": (20, 10), "w": (10, 12), "v": (12, 16), "u": (16, 5)}.items()
}


@pytest.fixture
def files(build: Build, tmp_path: Path) -> tuple[Path, Path]:
    found = []
    for name, graph, weights in (("encoder", ENCODER, FIRST), ("decoder", DECODER, SECOND)):
        found.append(build(graph, **weights).rename(tmp_path / f"{name}.onnx"))
    return found[0], found[1]


def samples(count: int = 96) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"ids": rng.integers(0, 20, (count, 7)), "decoder.ids": rng.integers(0, 20, (count, 4))}


def chained(first: Path, second: Path, data: dict[str, np.ndarray]) -> dict[str, Any]:
    made = Session(first).run({"ids": data["ids"]})
    return {**made, **Session(second).run({"ids": data["decoder.ids"], "memory": made["hidden"]})}


def widths(path: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(path).graph
    return {
        value.name: [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def test_both_files_have_the_smaller_width(files: tuple[Path, Path], tmp_path: Path) -> None:
    small = tmp_path / "small1.onnx", tmp_path / "small2.onnx"
    pair = op.compress_pair(*files, "hidden=memory", data=samples(), ratio=0.4, round_to=1, allow_damage=True)
    pair.save(*small)
    kept = widths(small[0])["hidden"][2]
    assert kept in {group.kept for group in pair.report.groups if group.units == 12}
    assert kept < 12
    assert widths(small[0]) == {"ids": ["b", "t"], "hidden": ["b", "t", kept], "pooled": ["b", 3]}
    assert widths(small[1]) == {"ids": ["b", "t"], "memory": ["b", "s", kept], "y": ["b", "t", 5]}
    assert {path.name for path in tmp_path.iterdir()} == {"encoder.onnx", "decoder.onnx", *(p.name for p in small)}


def test_two_files_come_out_as_one_file_would(files: tuple[Path, Path], build: Build, tmp_path: Path) -> None:
    """The same units go, and each layer is fitted to the same."""
    options: dict[str, Any] = {"ratio": 0.4, "allow_damage": True}
    data, small = samples(), (tmp_path / "small1.onnx", tmp_path / "small2.onnx")
    op.compress_pair(*files, {"hidden": "memory"}, data=data, **options).save(*small)
    weights = {**FIRST, "table2": SECOND["table"], "w2": SECOND["w"], "v2": SECOND["v"], "u": SECOND["u"]}
    alone = tmp_path / "alone.onnx"
    fed = {"ids": data["ids"], "asked": data["decoder.ids"]}
    op.compress(build(WHOLE, **weights), data=fed, **options).save(alone)
    found = chained(*small, data)
    for name, due in Session(alone).run(fed).items():
        np.testing.assert_allclose(found[name], due, rtol=1e-3, atol=1e-4)


def test_on_the_command_line(files: tuple[Path, Path], tmp_path: Path) -> None:
    encoder, decoder = map(str, files)
    folder = tmp_path / "small"
    arguments = ["compress", encoder, decoder, "--tie", "hidden=memory", "-o", str(folder), "--ratio", "0.3"]
    found = CliRunner().invoke(main, [*arguments, "--recover", "none", "--allow-damage"])
    assert found.exit_code == 0, found.output
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.pruned.onnx", "encoder.pruned.onnx"]
    alone = CliRunner().invoke(main, ["compress", encoder, "--tie", "hidden=memory"])
    assert alone.exit_code == 2
    assert "--tie takes two models" in alone.output


@pytest.mark.parametrize(
    ("tie", "said"),
    [
        ("hidden", "is not an output of the first model"),
        (["hidden=memory", "hidden=ids"], "each output goes into one input"),
        ("hiden=memory", "first model has no output 'hiden'; did you mean 'hidden'"),
        ("hidden=memmory", "second has no input 'memmory'"),
        ("pooled=memory", r"'pooled', float\[b, 3\], does not go into 'memory', float\[b, s, 12\]"),
    ],
)
def test_ties_that_cannot_be(tie: str | list[str], said: str, files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match=said):
        op.compress_pair(*files, tie, ratio=0.5)


def test_names_of_axes_are_one_where_axes_are_tied(files: tuple[Path, Path], build: Build) -> None:
    """The batch is that of the encoder, however the decoder calls it; a length of the same name is another one."""
    decoder = build(DECODER.replace("[b,", "[n,"), **SECOND)
    joined = join(files[0], decoder, {"hidden": "memory"})
    found = {value.name: [str(size) for size in value.shape or ()] for value in joined.model.graph.inputs}
    assert found["ids"] == ["b", "t"]
    assert found["model.ids"] == ["b", "model.t"]


def test_models_of_different_opsets(files: tuple[Path, Path]) -> None:
    model = onnx.load(files[1])
    model.opset_import[0].version += 1
    with pytest.raises(UsageError, match="opset"):
        op.compress_pair(files[0], model, "hidden=memory", ratio=0.5)


def test_nothing_is_written_where_the_two_files_do_not_give_the_same(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = op.compress_pair(*files, "hidden=memory", ratio=0.4, recover="none", allow_damage=True)
    one, two = pair.models
    weight = one.graph.initializers["w"]
    weight.const_value = op_tensor(weight.const_value.numpy() * np.float32(1.5))
    monkeypatch.setattr(type(pair), "models", property(lambda _: (one, two)))
    with pytest.raises(op.VerificationError, match="differs from that of both together"):
        pair.save(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert not list(tmp_path.glob("[ab].onnx"))


def op_tensor(array: np.ndarray) -> Any:
    import onnx_ir as ir

    return ir.tensor(array)
