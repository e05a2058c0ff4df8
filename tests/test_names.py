"""Groups are called after the layers that make them, as the author of the network knows those."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.inspect import inspect
from onnxprune.analysis.names import SCOPES, layer_name
from onnxprune.analysis.select import select_groups
from onnxprune.model.file import save
from onnxprune.passes.remove_units import RemoveUnits
from onnxprune.pipeline.run import apply, compress
from onnxprune.steps.plan import Plan
from tests.conftest import Build


def ids(path: Path) -> list[str]:
    return [group.id for group in inspect(path).groups]


# -- one layer


def node(op_type: str, name: str, *weights: str, bias: str = "", scopes: str = "") -> ir.Node:
    """An operator of the value `x`, with a bias in an Add behind it, and dynamo's metadata."""
    inputs = [ir.Value(name="x"), *(initializer(weight) for weight in weights)]
    made = ir.Node("", op_type, inputs, name=name)
    if scopes:
        made.metadata_props[SCOPES] = scopes
    if bias:
        ir.Node("", "Add", [made.outputs[0], initializer(bias)])
    return made


def initializer(name: str) -> ir.Value:
    tensor = ir.Tensor(np.zeros(2, np.float32), name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(ir.DataType.FLOAT))
    ir.Graph([], [], nodes=[], initializers=[value])
    return value


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        # torch, TorchScript: what was folded is called by the node, what was not by the parameter, too
        (node("Conv", "/layer1/layer1.0/conv1/Conv", "onnx::Conv_626", "onnx::Conv_627"), "layer1.0.conv1"),
        (node("Conv", "/features/features.0/features.0.1/Conv", "onnx::Conv_1"), "features.0.1"),
        (node("MatMul", "/model/encoder/layers.0/q_proj/MatMul", "onnx::MatMul_9"), "model.encoder.layers.0.q_proj"),
        (node("Gemm", "/fc/Gemm", "fc.weight", "fc.bias"), "fc"),
        (node("MatMul", "/attn/MatMul_1", "attn.in_proj_weight"), "attn.in_proj"),
        (node("MatMul", "/attn/MatMul", "onnx::MatMul_7", bias="attn.qkv.bias"), "attn.qkv"),
        (node("MatMul", "/fc/fc1/MatMul", "onnx::MatMul_7", bias="head.fc.fc1.bias"), "head.fc.fc1"),
        (node("MatMul", "/fc/MatMul", "onnx::MatMul_7", bias="other.bias"), "fc"),  # zeros that two layers share
        (node("LSTM", "/rnn/LSTM", "onnx::LSTM_115"), "rnn"),
        (node("MatMul", "/MatMul_3", "onnx::MatMul_7"), "MatMul_3"),
        # torch, dynamo
        (node("Conv", "node_Conv_373", "layer1.0.conv1.weight", "layer1.0.conv1.weight_bias"), "layer1.0.conv1"),
        (node("MatMul", "node_MatMul_12", "val_13", scopes="['', 'mlp', 'mlp.fc1', 'linear']"), "mlp.fc1"),
        (node("Conv", "node_Conv_1", "a.conv.weight", scopes="['', 'a', 'a.bn', '_native_batch_norm']"), "a.conv"),
        (node("MatMul", "node_MatMul_12", "val_13", bias="mlp.fc1.bias"), "mlp.fc1"),
        (node("LSTM", "node_lstm", "rnn.weight_ih_l0", "rnn.weight_hh_l0"), "rnn"),
        (node("Conv", "node_Conv_1", "c.parametrizations.weight.original1"), "c"),
        (node("MatMul", "node_MatMul_12", "val_13", scopes="['', 'linear']"), "node_MatMul_12"),
        (node("MatMul", "node_MatMul_12", "val_13", scopes="nonsense["), "node_MatMul_12"),
        (node("MatMul", "node_MatMul_12", "val_13", scopes="7"), "node_MatMul_12"),
        # others
        (node("Conv", "StatefulPartitionedCall/model/conv1/Conv2D", "const_fold_opt__93"), "conv1"),
        (node("MatMul", "model_2/dense_3/Tensordot/MatMul_add", "model_2/dense_3/Tensordot/Reshape_1:0"), "dense_3"),
        (node("Conv", "conv1d_2", "conv1d_2/kernel:0"), "conv1d_2"),
        (node("MatMul", "/q/MatMul_quant", "q.weight_quantized"), "q"),
        (node("MatMulNBits", "/l.0/q/MatMulNBits", "l.0.q.MatMulNBits.weight"), "l.0.q"),
        (node("Conv", "Convolution28", "Parameter5"), "Convolution28"),
        (node("Conv", "", "conv2d_0.w_0"), "conv2d_0"),
        (node("MatMul", "", "w", "zeros/1"), "w"),
        (node("Conv", "", "2", "3"), ""),
    ],
)  # fmt: skip
def test_a_layer_is_called_as_its_module(layer: ir.Node, name: str) -> None:
    assert layer_name(layer, {"x"}) == name


def test_a_weight_that_two_layers_read_is_called_after_either() -> None:
    """A tied embedding: the exporter keeps one of the parameter's names, the node knows where it is read."""
    table = initializer("lm_head.weight")
    ir.Node("", "MatMul", [ir.Value(name="x"), table])
    ids = ir.Value(name="x")
    assert layer_name(ir.Node("", "Gather", [table, ids], name="/model/wte/Gather"), {"x"}) == "model.wte"
    assert layer_name(ir.Node("", "Gather", [table, ids], name="node_embedding"), {"x"}) == "lm_head"


# -- the layer that makes a group

STREAM = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] stem, float[8, 6] up, float[6, 8] down, float[8] scale, float[8] shift, float[8, 3] head>
    {
        s = MatMul(x, stem)  u = MatMul(s, up)  r = Relu(u)  d = MatMul(r, down)  t = Add(s, d)
        n = LayerNormalization(t, scale, shift)  y = MatMul(n, head)
    }
"""


def test_the_first_layer_that_makes_the_units_gives_the_name(build: Build) -> None:
    """The residual stream is made by stem and down, and read by up and head."""
    assert ids(build(STREAM)) == ["stem", "up"]


def test_a_layer_comes_before_what_only_shifts_its_units(build: Build) -> None:
    """The embedding makes the stream, although its positions are looked at first."""
    path = build("""
        net (int64[batch, 4] x) => (float[batch, 4, 3] y)
        <float[1, 4, 8] positions, float[10, 8] words, float[8, 3] head, int64[3] shape = {1, 1, 1}>
        { size = Shape<start = 0, end = 1>(x)  one = Constant<value = int64[2] {1, 1}>()
          repeated = Concat<axis = 0>(size, one)  p = Expand(positions, repeated)
          w = Gather(words, x)  s = Add(p, w)  y = MatMul(s, head) }
    """)
    assert ids(path) == ["words"]


def test_a_square_weight_on_a_stream_makes_what_it_reads(build: Build) -> None:
    """Behind a frozen input the first to make units of the stream is the matrix that also reads them."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8, 8] square, float[8, 3] head>
        { h = MatMul(x, a)  r = Relu(h)  s = MatMul(r, square)  t = Add(s, r)  y = MatMul(t, head) }
    """)
    assert ids(path) == ["a"]


def test_parts_of_one_layer(build: Build) -> None:
    """Heads say what they are; others are numbered."""
    path = build("""
        net (float[batch, 6, 8] x) => (float[batch, 6, 4] y)
        <float[8, 36] qkv, float[12, 4] out, int64[5] apart = {0, 0, 3, 3, 4}, int64[3] together = {0, 0, 12}>
        {
            a = MatMul(x, qkv)  b = Reshape(a, apart)  c = Transpose<perm = [2, 0, 3, 1, 4]>(b)
            q3, k3, v3 = Split<axis = 0, num_outputs = 3>(c)  zero = Constant<value = int64[1] {0}>()
            q = Squeeze(q3, zero)  k = Squeeze(k3, zero)  v = Squeeze(v3, zero)
            kt = Transpose<perm = [0, 1, 3, 2]>(k)  s = MatMul(q, kt)  p = Softmax(s)  o = MatMul(p, v)
            ot = Transpose<perm = [0, 2, 1, 3]>(o)  f = Reshape(ot, together)  y = MatMul(f, out)
        }
    """, opset=18)  # fmt: skip
    assert ids(path) == ["qkv:heads", "qkv:head-dim"]


def test_names_that_are_left_alike_are_numbered(build: Build) -> None:
    path = build("""
        net (float[batch, 6] x) => (float[batch, 2] y)
        <float[6, 12] w, float[12, 2] v, int64[3] apart = {-1, 4, 3}, int64[2] together = {-1, 12}>
        { h = MatMul(x, w)  t = Reshape(h, apart)  r = Relu(t)  f = Reshape(r, together)  y = MatMul(f, v) }
    """)
    assert ids(path) == ["w", "w#2"]


def test_where_the_file_says_nothing_the_weight_and_its_axis_are_the_name(build: Build) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].name = model.graph.node[0].input[1] = "onnx::MatMul_7"

    path = build(
        "net (float[n, 5] x) => (float[n, 3] y) <float[5, 8] w, float[8, 3] v> { h = MatMul(x, w)  y = MatMul(h, v) }",
        edit=rename,
    )
    assert ids(path) == ["onnx::MatMul_7[1]"]


# -- plans of older versions

OLD = """
{"format": 1, "request": {}, "groups": [
  {"group": "patches.weight[0]", "kind": "hidden", "units": 64, "remove": [1, 2, 3, 50]},
  {"group": "val_13[1].0", "kind": "heads", "units": 4, "remove": [2]},
  {"group": "val_13[1].1", "kind": "head-dim", "units": 16, "remove": [0, 15]},
  {"group": "val_45[1]", "kind": "neurons", "units": 256, "remove": [7, 8, 9]}
]}
"""
NEW = ["patches", "layers.0.attention.qkv:heads", "layers.0.attention.qkv:head-dim", "layers.0.mlp.0"]


def test_plans_of_older_versions_still_apply(digits: dict[str, Path], tmp_path: Path) -> None:
    """Those called a group after the first weight axis that holds it."""
    new = json.loads(OLD)
    for removal, name in zip(new["groups"], NEW, strict=True):
        removal["group"] = name
    for name, text in (("old", OLD), ("new", json.dumps(new))):
        apply(digits["transformer"], Plan.from_json(text)).save(tmp_path / f"{name}.onnx")
    assert (tmp_path / "old.onnx").read_bytes() == (tmp_path / "new.onnx").read_bytes()
    assert (tmp_path / "old.onnx").stat().st_size < digits["transformer"].stat().st_size


# -- files of both exporters

# Per model: a pattern, and the layers that it chooses, as people who know the network call them.
CHOSEN = {
    "tv.resnet18": ("layer2*", "layer2.0.conv1 layer2.0.conv2 layer2.1.conv1"),
    "tv.mobilenet_v2": ("features.4.*", "features.4.conv.0.0 features.4.conv.2"),
    "tv.shufflenet_v2_x0_5": ("stage2.[23]*", "stage2.2.branch2.0 stage2.3.branch2.0"),
    "tv.efficientnet_b0": ("features.2.1.*", "features.2.1.block.0.0 features.2.1.block.2.fc1"),
    "timm.seresnet18": ("layer1.0.*", "layer1.0.conv1 layer1.0.se.fc1"),
    "hm.unet": ("d1*", "d1.0.0 d1.1.0"),
    "timm.vit_tiny_patch16_224": ("blocks.7.*", "blocks.7.attn.qkv:heads blocks.7.attn.qkv:head-dim blocks.7.mlp.fc1"),
    "tv.swin_t": (
        "features.3.1.*",
        "features.3.1.attn.qkv:heads features.3.1.attn.qkv:head-dim features.3.1.mlp.0",
    ),
    "hf.bert": (
        "m.bert.encoder.layer.1.attention*",
        "m.bert.encoder.layer.1.attention.self.query:heads m.bert.encoder.layer.1.attention.self.query:head-dim "
        "m.bert.encoder.layer.1.attention.self.value:head-dim",
    ),
    "hf.vit": ("m.vit.layers.1.mlp*", "m.vit.layers.1.mlp.fc1"),
    "hf.whisper_encoder": ("m.layers.0.fc*", "m.layers.0.fc1"),
    "hm.lstm": ("rnn", "rnn"),
    "hm.grouped_conv": ("a*", "a.0 a.0#2"),
}


@pytest.mark.parametrize("exporter", ["ts17", "dy"])
@pytest.mark.parametrize("model", CHOSEN)
def test_patterns_choose_modules(zoo_file: Callable[[str], Path], model: str, exporter: str) -> None:
    """The names are those of the modules, whether the file calls its nodes so or its parameters."""
    analysis = inspect(zoo_file(f"{model}.{exporter}"))
    check_names(analysis)
    assert not any("::" in group.id or "[" in group.id for group in analysis.groups)
    pattern, chosen = CHOSEN[model]
    assert {group.id for group in select_groups(analysis, [pattern], [])} == set(chosen.split())
    rest = select_groups(analysis, [], [pattern])
    assert len(rest) == len(analysis.groups) - len(chosen.split())


@pytest.mark.parametrize("name", ["hf.bert.dy", "timm.repvgg_a0.dy"])
def test_scopes_outlive_the_notes_of_the_exporter(zoo_file: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    """Both have the metadata of the exporter, which goes when a model is written."""
    path = zoo_file(name)
    compress(path, ratio=0.5, scope="uniform", recover="none").save(tmp_path / "small.onnx")
    assert {entry.key for node in onnx.load(tmp_path / "small.onnx").graph.node for entry in node.metadata_props} == {
        SCOPES
    }
    assert ids(tmp_path / "small.onnx") == ids(path)


def check_names(analysis: Analysis) -> None:
    names = [group.id for group in analysis.groups]
    assert len(set(names)) == len(names)
    assert all(names)


def halved(analysis: Analysis) -> dict[str, int]:
    """Remove half of every group from the model, but leave two units; how many of each are left."""
    keep = {group.atom: np.arange(group.units) < max(2, group.units // 2) for group in analysis.groups}
    RemoveUnits(analysis, keep)(analysis.model)
    return {group.id: int(keep[group.atom].sum()) for group in analysis.groups}


@pytest.mark.parametrize("name", ["tv.resnet18.ts17", "hm.grouped_conv.dy", "hf.bert.ts17", "hm.lstm.dy"])
def test_removal_does_not_rename(zoo_file: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    analysis = inspect(zoo_file(name))
    left = halved(analysis)
    save(analysis.model, tmp_path / "half.onnx")
    assert {group.id: group.units for group in inspect(tmp_path / "half.onnx").groups} == left


@pytest.mark.slow
def test_names_over_the_zoo(zoo: ModuleType, tmp_path: Path) -> None:
    """Unique, the same for the same file, and kept by removal where a layer is still a group of its own."""
    for name in zoo.names():
        path = Path(zoo.save(name, str(tmp_path / "model.onnx")))
        analysis = inspect(path)
        check_names(analysis)
        assert [group.id for group in inspect(path).groups] == [group.id for group in analysis.groups], name
        assert not any("::" in group.id for group in analysis.groups), name
        left = halved(analysis)
        save(analysis.model, tmp_path / "half.onnx")
        after = {group.id: group.units for group in inspect(tmp_path / "half.onnx").groups}
        assert after.items() <= left.items(), name
