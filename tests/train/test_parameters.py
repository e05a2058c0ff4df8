"""Which constants of a file are weights: by role, and the ones that only look like weights."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.model.file import open_model
from onnxprune.steps.train.parameters import trainable
from tests.conftest import Build
from tests.train.networks import NETWORKS, exported, made


def roles(path: Path) -> dict[str, str]:
    return {name: slot.role for name, slot in trainable(open_model(path)).items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_parameters_of_torch_and_nothing_else(name: str, tmp_path: Path) -> None:
    network = made(name)
    found = roles(exported(network, tmp_path / "model.onnx"))
    assert set(found) == {key for key, _ in network.named_parameters()}
    for key, role in found.items():
        bias = key.rpartition(".")[2].startswith("bias")
        assert (role == "bias") == (bias or key in ("positions",)), key
        assert (role == "recurrent") == ("weight_hh" in key)


def test_numbers_beside_activations_are_no_weights(build: Build) -> None:
    mask = np.triu(np.full((4, 4), -1e9), 1)
    path = build(
        """
        net (float[n, 3, 4] x, int64[n, 4] at) => (float[n, 4, 4] y)
        <float[1, 3, 1] mean, float[1, 3, 1] std, float[4, 6] w, float[6] b, float scale, float[1, 4] mask,
         float[9, 6] cosines, float[1] small, float[6] gamma, float[1, 3, 6] positions>
        {
            centred = Sub(x, mean)  ready = Mul(centred, std)  h = MatMul(ready, w)  biased = Add(h, b)
            g = Mul(biased, gamma)  p = Add(g, positions)  half = Mul(p, scale)
            rows = Gather(cosines, at)  turned = Transpose<perm = [0, 2, 1]>(rows)  first = MatMul(half, turned)
            q = Mul(rows, rows)
            s = Add(first, mask)  y = Add(s, small)
        }
        """.replace("float[1, 4] mask", "float[1, 1, 4] mask").replace("float[n, 4, 4] y", "float[n, 3, 4] y"),
        mask=mask[1][None, None],
        std=np.array([0.5, 2.0, 3.0])[None, :, None],
    )
    found = roles(path)
    assert found == {"w": "weight", "b": "bias", "gamma": "scale", "positions": "bias", "cosines": "table"}


def test_rotary_tables_are_no_weights(build: Build) -> None:
    path = build("""
        net (float[n, 4, 6] x, int64[n, 4] at) => (float[n, 4, 6] y)
        <float[6, 6] w, float[9, 6] cosines, float[9, 6] words, float[4, 6] sines>
        {
            q = MatMul(x, w)  rows = Gather(cosines, at)  one = Mul(q, rows)  other = Mul(q, sines)
            sum = Add(one, other)  known = Gather(words, at)  y = Add(sum, known)
        }
    """)
    assert roles(path) == {"w": "weight", "words": "table"}


def test_frequencies_of_positions_are_no_weights(build: Build) -> None:
    path = build("""
        net (int64[n, 1] step, float[n, 8] x) => (float[n, 8] y) <float[1, 4] frequencies, float[8, 8] w, float[4] more>
        {
            t = Cast<to = 1>(step)  a = MatMul(t, frequencies)  m = Mul(t, more)  s = Sin(a)  c = Cos(m)
            e = Concat<axis = 1>(s, c)  p = MatMul(e, w)  y = Add(x, p)
        }
    """)
    assert roles(path) == {"w": "weight"}


def test_weights_behind_other_operators(build: Build) -> None:
    """Weight standardization, and parts of a recurrent weight that the graph puts together."""
    path = build("""
        net (float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y)
        <float[4, 3, 3, 3] v, float[4, 1, 1, 1] g, float one = {1.0}, float[4] b>
        { n1 = ReduceL2<axes = [1, 2, 3]>(v)  d = Div(v, n1)  s = Mul(d, g)  w = Mul(s, one)  y = Conv(x, w, b) }
    """)
    found = trainable(open_model(path))
    assert {name: (slot.role, slot.direct) for name, slot in found.items()} == {
        "v": ("weight", False),
        "g": ("weight", False),
        "b": ("bias", True),
    }


def test_the_bias_of_a_single_output_is_a_weight(build: Build) -> None:
    path = build("""
        net (float[n, 4] x) => (float[n, 1] y) <float[4, 1] w, float[1] b, float[1] half = {0.5}>
        { h = MatMul(x, w)  s = Add(h, b)  t = Tanh(s)  y = Add(t, half) }
    """)
    assert set(roles(path)) == {"w", "b"}


def test_running_statistics_are_not_trained(digits: dict[str, Path]) -> None:
    model = open_model(digits["resnet"])
    found = trainable(model)
    left = [name for name in model.graph.initializers if name not in found]
    assert left
    assert all("running" in name for name in left if model.graph.initializers[name].dtype == ir.DataType.FLOAT)
    assert not any("running" in name for name in found)


@pytest.mark.parametrize("name", ["hf.llama.dy23", "hf.gpt2.ts17", "hf.falcon.dy", "tv.swin_t.dy", "hm.lstm.dy"])
def test_a_spread_of_the_zoo(name: str, zoo: ModuleType) -> None:
    """Every tensor with a name that training gave it is a weight; what exporters made up on the way is not."""
    if name not in zoo.names():
        pytest.skip("not in the zoo")
    model = ir.from_proto(zoo.load(name))
    found = set(trainable(model))
    floats = {
        key
        for key, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype.is_floating_point() and value.const_value.size > 1
    }
    tables = {key for key in floats if key.startswith("unsqueeze_")}
    assert found >= {key for key in floats if key.endswith((".weight", ".bias"))}
    assert not name.startswith("hf.") or not found & tables  # rotary ones


def test_masks_of_windows_are_no_weights(build: Build) -> None:
    windows = np.where(np.eye(4, dtype=bool), 0.0, -100.0)
    path = build(
        "net (float[n, 4] x) => (float[n, 4] y) <float[4, 4] w, float[1, 4] mask, float[1, 4] zeros, float[4, 4] v>"
        "{ h = MatMul(x, w)  s = Add(h, mask)  t = Add(s, zeros)  y = MatMul(t, v) }",
        mask=windows[:1],
        zeros=np.zeros((1, 4)),
    )
    assert roles(path) == {"w": "weight", "zeros": "bias", "v": "weight"}
