"""One test per trap of real exports, each on a small model written for it.

`proved` prunes half of every group at random and asserts with the dead-unit oracle (tests/oracle.py) that the pruned
model computes what the original computes with those units switched off. What it returns shows what was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.analysis.groups import Analysis
from onnxprune.errors import NothingToPruneError
from onnxprune.model.check import check_model
from onnxprune.model.signature import synthetic_feed
from onnxprune.pipeline.run import compress, inspect
from tests.conftest import FUSED_ATTENTION, Build
from tests.oracle import Trio, every_other_unit


@dataclass(frozen=True)
class Proof:
    """What was found in a model, and the model without half of it."""

    analysis: Analysis
    pruned: onnx.ModelProto

    @property
    def groups(self) -> dict[str, int]:
        """Group id -> units."""
        return {group.id: group.units for group in self.analysis.groups}

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """What the groups are, and how large, in order of size."""
        return sorted(((group.kind, group.units) for group in self.analysis.groups), key=lambda kind: kind[::-1])

    @property
    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.pruned.graph.initializer}

    def node(self, output: str) -> onnx.NodeProto:
        """The node that makes `output`."""
        return next(node for node in self.pruned.graph.node if output in node.output)

    def attribute(self, output: str, name: str) -> Any:
        return onnx.helper.get_node_attr_value(self.node(output), name)


def proved(path: Path, *sizes: dict[str, int], tolerance: float = 1e-4) -> Proof:
    """Run the oracle at each of `sizes` of the dynamic axes (none given: at those of the analysis)."""
    analysis = inspect(path)
    plan = every_other_unit(analysis)
    assert plan.removed_units, f"nothing can be pruned: {frozen(analysis)}"
    trio = Trio(path, plan, path.parent)
    check_model(path.parent / "pruned.onnx")
    for bindings in sizes or (analysis.shapes.bindings,):
        verdict = trio.judge(synthetic_feed(trio.original.inputs, bindings))
        assert verdict.difference < tolerance, (bindings, verdict, plan)
        assert verdict.effect > 1e-3, f"the units make no difference at {bindings}, which proves nothing"
    return Proof(analysis, onnx.load(path.parent / "pruned.onnx"))


def frozen(analysis: Analysis) -> dict[tuple[str, int], str]:
    """Weight and axis -> why it keeps its size."""
    return {(each.tensor, each.axis): str(each.reason) for each in analysis.frozen}


# -- initializers that exporters deduplicated


def test_zero_bias_shared_by_unrelated_layers_does_not_tie_them(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8, 8] b, float[8, 3] c, float[8] zeros = {0, 0, 0, 0, 0, 0, 0, 0}>
        { h = Gemm(x, a, zeros)  h1 = Relu(h)  k = Gemm(h1, b, zeros)  k1 = Relu(k)  y = MatMul(k1, c) }
    """)
    assert proved(path).groups == {"a": 8, "b": 8}
    result = compress(path, ratio=0.5, recover="none")
    assert [removal.group for removal in result.plan.removals] == ["a", "b"]
    zeros = [value for value in result.model.graph.initializers.values() if value.shape == (4,)]
    assert len(zeros) == 1, "equal fillers are stored once again"


def test_unit_scale_shared_by_unrelated_norms_does_not_tie_them(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8, 8] b, float[8, 3] c, float[8] ones = {1, 1, 1, 1, 1, 1, 1, 1}>
        {
            h = MatMul(x, a)   hn = LayerNormalization(h, ones)
            k = MatMul(hn, b)  kn = LayerNormalization(k, ones)
            y = MatMul(kn, c)
        }
    """)
    assert proved(path).groups == {"a": 8, "b": 8}


def test_deliberate_tie_of_embedding_and_output_head_stays_tied(build: Build) -> None:
    path = build("""
        net (int64[batch, seq] ids) => (float[batch, seq, 20] logits)
        <float[20, 8] embedding, float[8, 8] w>
        {
            h = Gather(embedding, ids)  k = MatMul(h, w)  r = Relu(k)  s = Add(h, r)
            head = Transpose<perm = [1, 0]>(embedding)
            logits = MatMul(s, head)
        }
    """)
    proof = proved(path, {"batch": 2, "seq": 5})
    assert proof.groups == {"embedding": 8}
    assert proof.weights["embedding"].shape == (20, 4)
    assert len(proof.weights) == 2, "one tensor still serves both ends"


# -- shapes inside the graph

ATTENTION = """
    net (float[batch, seq, 24] x) => (float[batch, seq, 24] y)
    <float[24, 24] wq, float[24, 24] wk, float[24, 24] wv, float[24, 24] wo,
     float scale = {0.4082483}, int64[4] constant = {0, 0, 4, 6}, int64[3] merge = {0, 0, -1},
     int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 four = {4}, int64 minus_one = {-1},
     int64[1] axis = {0}, int64[1] heads = {4}, int64[1] size = {6}>
    {
        q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
        sizes = Shape(q)
        {TARGET}
        q4 = Reshape(q, target)  k4 = Reshape(k, target)  v4 = Reshape(v, target)
        qt = Transpose<perm = [0, 2, 1, 3]>(q4)
        kt = Transpose<perm = [0, 2, 3, 1]>(k4)
        vt = Transpose<perm = [0, 2, 1, 3]>(v4)
        {SCALE}
        qk = MatMul(qt, kt)  scaled = Mul(qk, factor)  weights = Softmax<axis = -1>(scaled)
        av = MatMul(weights, vt)  back = Transpose<perm = [0, 2, 1, 3]>(av)
        flat = Reshape(back, merge)
        y = MatMul(flat, wo)
    }
"""

TARGETS = {
    "a 0 that copies the batch": """
        s = Gather(sizes, one)   s1 = Unsqueeze(s, axis)  copied = Unsqueeze(zero, axis)
        target = Concat<axis = 0>(copied, s1, heads, size)
    """,
    "a constant": "target = Identity(constant)",
    "Shape, Gather and Concat with constants": """
        b = Gather(sizes, zero)  b1 = Unsqueeze(b, axis)
        s = Gather(sizes, one)   s1 = Unsqueeze(s, axis)
        target = Concat<axis = 0>(b1, s1, heads, size)
    """,
    "arithmetic on Shape": """
        b = Gather(sizes, zero)  b1 = Unsqueeze(b, axis)
        s = Gather(sizes, one)   s1 = Unsqueeze(s, axis)
        c = Gather(sizes, two)   d = Div(c, four)  d1 = Unsqueeze(d, axis)
        target = Concat<axis = 0>(b1, s1, heads, d1)
    """,
    "a slice of Shape, and -1": """
        lead = Slice(sizes, axis, two1)  rest = Unsqueeze(minus_one, axis)
        target = Concat<axis = 0>(lead, heads, rest)
    """,
}


def attention(target: str = TARGETS["a constant"], scale: str = "factor = Identity(scale)") -> str:
    return (
        ATTENTION.replace("{TARGET}", target)
        .replace("{SCALE}", scale)
        .replace("int64[1] axis = {0}", "int64[1] axis = {0}, int64[1] two1 = {2}")
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_reshape_target_follows_the_removal(build: Build, target: str) -> None:
    proof = proved(build(attention(target)), {"batch": 1, "seq": 1}, {"batch": 2, "seq": 5}, {"batch": 3, "seq": 17})
    assert proof.kinds == [("heads", 4), ("head-dim", 6), ("head-dim", 6)]
    assert proof.weights["wq"].shape == (24, 2 * 3)


def test_scale_computed_from_the_head_size_keeps_its_value(build: Build) -> None:
    """TorchScript's attention divides by Sqrt(Cast(Shape(q)[-1])): with half the head it would be another number."""
    scale = """
        qsizes = Shape(qt)  last = Gather(qsizes, minus_one)  number = Cast<to = 1>(last)
        root = Sqrt(number)  factor = Reciprocal(root)
    """
    proof = proved(build(attention(scale=scale)), {"batch": 2, "seq": 5})
    assert ("head-dim", 6) in proof.kinds
    assert any(
        weight.size == 1 and math.isclose(weight.item(), 6**-0.5, rel_tol=1e-6) for weight in proof.weights.values()
    )


def test_size_mixed_with_a_dynamic_one_and_used_as_data_is_kept(build: Build) -> None:
    """Size(h) is batch * 8: it cannot be folded to what it was, so the 8 has to stay."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        { h = MatMul(x, w)  n = Size(h)  f = Cast<to = 1>(n)  m = Div(h, f)  y = MatMul(m, v) }
    """)
    analysis = inspect(path)
    assert not analysis.groups
    assert frozen(analysis)["w", 1] == "its size enters a computation as a number (Div 'Div_3')"
    with pytest.raises(NothingToPruneError, match="every dimension is frozen"):
        compress(path, ratio=0.5, recover="none")


def test_static_size_used_as_data_keeps_its_value(build: Build) -> None:
    path = build("""
        net (float[4, 5] x) => (float[4, 3] y)
        <float[5, 8] w, float[8, 3] v>
        { h = MatMul(x, w)  n = Size(h)  f = Cast<to = 1>(n)  m = Div(h, f)  y = MatMul(m, v) }
    """)
    assert proved(path).groups == {"w": 8}


def test_expand_target_behind_where(build: Build) -> None:
    """How torch writes expand(-1, 8): Where(Equal(target, -1), 1, target)."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8] bias, float[8, 3] v, int64 zero = {0}, int64[1] axis = {0}, int64[1] width = {8},
         int64[2] keep = {-1, -1}, int64[2] ones = {1, 1}>
        {
            h = MatMul(x, w)
            sizes = Shape(x)  b = Gather(sizes, zero)  b1 = Unsqueeze(b, axis)  wanted = Concat<axis = 0>(b1, width)
            copied = Equal(wanted, keep)  target = Where(copied, ones, wanted)
            rows = Expand(bias, target)  k = Add(h, rows)  y = MatMul(k, v)
        }
    """)
    assert proved(path, {"batch": 1}, {"batch": 6}).groups == {"w": 8}


def test_slice_bounds_computed_from_the_size(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[4, 3] v, int64 one = {1}, int64 two = {2}, int64[1] n0 = {0}, int64[1] n1 = {1}>
        {
            h = MatMul(x, w)
            sizes = Shape(h)  n = Gather(sizes, one)  half = Div(n, two)
            middle = Unsqueeze(half, n0)  end = Unsqueeze(n, n0)
            p = Slice(h, n0, middle, n1)  q = Slice(h, middle, end, n1)  g = Sigmoid(q)  m = Mul(p, g)
            y = MatMul(m, v)
        }
    """)
    assert list(proved(path).groups.values()) == [4]


def test_positions_counted_from_a_dynamic_size(build: Build) -> None:
    path = build("""
        net (int64[batch, seq] ids) => (float[batch, seq, 3] y)
        <float[20, 8] words, float[32, 8] places, float[8, 3] v, int64 zero = {0}, int64 one = {1}>
        {
            h = Gather(words, ids)
            sizes = Shape(ids)  n = Gather(sizes, one)  r = Range(zero, n, one)  p = Gather(places, r)
            k = Add(h, p)  y = MatMul(k, v)
        }
    """)
    assert proved(path, {"batch": 2, "seq": 5}, {"batch": 1, "seq": 1}).groups == {"words": 8}


def test_tile_repeats_its_units(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[24, 3] v, int64[2] repeats = {1, 3}>
        { h = MatMul(x, w)  t = Tile(h, repeats)  y = MatMul(t, v) }
    """)
    proof = proved(path)
    assert proof.groups == {"w": 8}
    assert proof.weights["v"].shape == (3 * 4, 3)


# -- dynamic axes


def test_batch_times_heads_on_one_dynamic_axis(build: Build) -> None:
    """torch.bmm wants [batch * heads, seq, size]; heads can go although the axis they lie on is dynamic."""
    path = build("""
        net (float[batch, seq, 24] x) => (float[batch, seq, 24] y)
        <float[24, 24] wq, float[24, 24] wk, float[24, 24] wv, float[24, 24] wo,
         int64 zero = {0}, int64 one = {1}, int64 four = {4}, int64[1] axis = {0},
         int64[1] heads = {4}, int64[1] size = {6}, int64[4] split = {0, 0, 4, 6}, int64[3] merge = {0, 0, 24}>
        {
            q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
            q4 = Reshape(q, split)  k4 = Reshape(k, split)  v4 = Reshape(v, split)
            qt = Transpose<perm = [0, 2, 1, 3]>(q4)
            kt = Transpose<perm = [0, 2, 3, 1]>(k4)
            vt = Transpose<perm = [0, 2, 1, 3]>(v4)
            sizes = Shape(x)
            b = Gather(sizes, zero)  b1 = Unsqueeze(b, axis)
            s = Gather(sizes, one)   s1 = Unsqueeze(s, axis)
            bh = Mul(b, four)  bh1 = Unsqueeze(bh, axis)
            rows = Concat<axis = 0>(bh1, s1, size)
            columns = Concat<axis = 0>(bh1, size, s1)
            whole = Concat<axis = 0>(b1, heads, s1, size)
            q3 = Reshape(qt, rows)  k3 = Reshape(kt, columns)  v3 = Reshape(vt, rows)
            qk = MatMul(q3, k3)  weights = Softmax<axis = -1>(qk)  av = MatMul(weights, v3)
            apart = Reshape(av, whole)  back = Transpose<perm = [0, 2, 1, 3]>(apart)
            flat = Reshape(back, merge)
            y = MatMul(flat, wo)
        }
    """)
    proof = proved(path, {"batch": 1, "seq": 1}, {"batch": 2, "seq": 3}, {"batch": 5, "seq": 4})
    assert proof.kinds == [("heads", 4), ("head-dim", 6), ("head-dim", 6)]


def test_dynamic_axes_of_equal_size_do_not_meet(build: Build) -> None:
    """x and z may have the same batch in one run; nothing says that they always do, and neither is ever pruned."""
    path = build("""
        net (float[n, 6] x, float[m, 6] z) => (float[n, m] y)
        <float[6, 8] a, float[6, 8] b>
        { p = MatMul(x, a)  q = MatMul(z, b)  t = Transpose<perm = [1, 0]>(q)  y = MatMul(p, t) }
    """)
    assert proved(path, {"n": 2, "m": 2}, {"n": 4, "m": 1}).groups == {"a:head-dim": 8}


def test_tokens_beside_a_dynamic_sequence_are_kept(build: Build) -> None:
    """tokens + sequence cannot be corrected by a factor, as batch * heads can: it would hold for one length only."""
    path = build("""
        net (float[batch, seq, 4] x) => (float[batch, 3] y)
        <float[1, 6, 4] tokens, float[4, 8] w, float[8, 3] v, int64 zero = {0}, int64 one = {1}, int64[1] axis = {0},
         int64[1] n2 = {2}, int64[1] n4 = {4}, int64[1] n6 = {6}>
        {
            sizes = Shape(x)
            b = Gather(sizes, zero)  b1 = Unsqueeze(b, axis)  s = Gather(sizes, one)  s1 = Unsqueeze(s, axis)
            shape = Concat<axis = 0>(b1, n6, n4)  t = Expand(tokens, shape)  all = Concat<axis = 1>(t, x)
            length = Add(s1, n6)
            apart = Concat<axis = 0>(b1, length, n2, n2)  a = Reshape(all, apart)
            merge = Concat<axis = 0>(b1, length, n4)  m = Reshape(a, merge)
            h = MatMul(m, w)  mean = ReduceMean<axes = [1], keepdims = 0>(h)  y = MatMul(mean, v)
        }
    """)
    proof = proved(path, {"batch": 2, "seq": 5}, {"batch": 1, "seq": 9})
    assert proof.groups == {"w": 8}
    assert frozen(proof.analysis)["tokens", 1] == "its size differs from run to run (dynamic axis)"


# -- old opsets


OLD_FORMS = {
    "Slice": "p = Slice<axes = [1], starts = [0], ends = [4]>(h)  q = Slice<axes = [1], starts = [4], ends = [8]>(h)",
    "Slice to the end": "p = Slice<axes = [1], starts = [-4], ends = [9223372036854775807]>(h) "
    "q = Slice<axes = [1], starts = [0], ends = [-4]>(h)",
    "Split": "p, q = Split<axis = 1, split = [4, 4]>(h)",
    "Split without sizes": "p, q = Split<axis = 1>(h)",
}


@pytest.mark.parametrize("halves", OLD_FORMS.values(), ids=OLD_FORMS)
def test_old_opset_keeps_bounds_in_attributes(build: Build, halves: str) -> None:
    path = build(
        """
        net (float[batch, 2, 5, 5] x) => (float[batch, 3, 1, 1] y)
        <float[8, 2, 3, 3] w, float[3, 4, 1, 1] v>
        { h = Conv(x, w) HALVES g = Sigmoid(q)  m = Mul(p, g)  z = GlobalAveragePool(m)  y = Conv(z, v) }
        """.replace("HALVES", halves),
        opset=9,
    )
    proof = proved(path)
    assert list(proof.groups.values()) == [4]
    assert proof.weights["w"].shape == (2 + 2, 2, 3, 3), "both halves lose the same two channels"


def test_old_opset_pad_squeeze_and_unsqueeze_as_attributes(build: Build) -> None:
    path = build(
        """
        net (float[batch, 2, 6, 6] x) => (float[batch, 3, 1] y)
        <float[6, 2, 1, 1] w, float[10, 2, 1, 1] v, float[10, 3] u>
        {
            narrow = Conv(x, w)  padded = Pad<pads = [0, 2, 0, 0, 0, 2, 0, 0]>(narrow)
            wide = Conv(x, v)  h = Add(padded, wide)  r = Relu(h)
            g = GlobalAveragePool(r)  flat = Squeeze<axes = [2, 3]>(g)
            z = MatMul(flat, u)  y = Unsqueeze<axes = [2]>(z)
        }
        """,
        opset=9,
    )
    proof = proved(path)
    assert sorted(proof.groups.values()) == [2, 2, 6], "what is added in front, behind, and the padded channels"
    assert proof.attribute("padded", "pads") == [0, 1, 0, 0, 0, 1, 0, 0]


# -- what carries graphs inside


@pytest.mark.parametrize("flag", [True, False])
def test_branches_are_walked_like_the_rest(build: Build, flag: bool) -> None:
    """Weights and equal names inside the branches, a captured value, a choice inside a choice."""
    numbers = ", ".join(f"{value:.3f}" for value in np.random.default_rng(1).standard_normal(72))
    path = build(f"""
        net (float[batch, 5] x, bool flag) => (float[batch, 3] y)
        <float[5, 8] a, float[9, 3] c>
        {{
            h = MatMul(x, a)
            k = If (flag) <
                then_branch = yes () => (float[batch, 9] t) {{
                    b = Constant <value = float[8, 9] {{ {numbers} }}> ()
                    m = MatMul(h, b)
                    t = If (flag) <
                        then_branch = inner () => (float[batch, 9] i) {{ i = Relu(m) }},
                        else_branch = other () => (float[batch, 9] j) {{ j = Abs(m) }}
                    >
                }},
                else_branch = no () => (float[batch, 9] e) {{
                    b = Constant <value = float[8, 9] {{ {numbers} }}> ()
                    m = MatMul(h, b)
                    e = Tanh(m)
                }}
            >
            y = MatMul(k, c)
        }}
    """)
    analysis = inspect(path)
    assert sorted(group.units for group in analysis.groups) == [8, 9]
    trio = Trio(path, every_other_unit(analysis), path.parent)
    check_model(path.parent / "pruned.onnx")
    verdict = trio.judge(
        {"x": np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32), "flag": np.array(flag)}
    )
    assert verdict.difference < 1e-5
    assert verdict.effect > 1e-3


def test_branches_of_different_shapes_keep_their_sizes(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x, bool flag) => (float[batch, 3] y)
        <float[5, 8] a, float[5, 6] b, float[8, 3] c>
        {
            k = If (flag) <
                then_branch = yes () => (float[batch, 8] t) { t = MatMul(x, a) },
                else_branch = no () => (float[batch, m] e) { e = MatMul(x, b) }
            >
            y = MatMul(k, c)
        }
    """)
    assert not inspect(path).groups


def test_local_functions_are_inlined(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8, 8] b, float[8, 3] c>
        { h = local.layer(x, a)  k = local.layer(h, b)  y = MatMul(k, c) }
        """,
        functions='<domain: "local", opset_import: ["" : 17]> layer (t, w) => (r) { m = MatMul(t, w)  r = Relu(m) }',
        opsets={"local": 1},
    )
    proof = proved(path)
    assert proof.groups == {"a": 8, "b": 8}
    assert not proof.pruned.functions


# -- types and inputs


def test_int32_inputs(build: Build) -> None:
    path = build("""
        net (int32[batch, seq] ids, int32[batch, seq] mask) => (float[batch, 3] y)
        <float[20, 8] embedding, float[8, 3] w, int64[1] axis = {2}, int64[1] time = {1}>
        {
            h = Gather(embedding, ids)
            f = Cast<to = 1>(mask)  column = Unsqueeze(f, axis)
            m = Mul(h, column)  s = ReduceSum<keepdims = 0>(m, time)
            y = MatMul(s, w)
        }
    """)
    assert proved(path, {"batch": 2, "seq": 9}).groups == {"embedding": 8}


def test_scalars_touch_nothing(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x, float temperature) => (float[batch, 3] y, float mean)
        <float[5, 8] w, float[8, 3] v, float half = {0.5}>
        { h = MatMul(x, w)  s = Mul(h, half)  r = Relu(s)  z = MatMul(r, v)  y = Mul(z, temperature)
          mean = ReduceMean<keepdims = 0>(y) }
    """)
    assert proved(path).groups == {"w": 8}


def test_optional_inputs_left_empty(build: Build) -> None:
    path = build("""
        net (float[batch, 2, 6, 6] x) => (float[batch, 3, 12, 12] y)
        <float[8, 2, 1, 1] w, float[3, 8, 1, 1] v, float six = {0.6}, float[4] scales = {1, 1, 2, 2}>
        { h = Conv(x, w)  c = Clip(h, , six)  r = Resize<mode = "nearest">(c, , scales)  y = Conv(r, v) }
    """)
    assert proved(path).groups == {"w": 8}


def test_initializers_that_are_also_graph_inputs(build: Build) -> None:
    """Until IR version 4 every weight had to be listed as an input, too; both entries shrink."""

    def list_weights_as_inputs(model: onnx.ModelProto) -> None:
        model.ir_version = 3
        for weight in model.graph.initializer:
            model.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))

    path = build(
        """
        net (float[1, 5] x) => (float[1, 3] y)
        <float[5, 8] w, float[8] b, float[8, 3] v>
        { h = Gemm(x, w, b)  r = Relu(h)  y = MatMul(r, v) }
        """,
        opset=9,
        edit=list_weights_as_inputs,
    )
    proof = proved(path)
    assert proof.groups == {"w": 8}
    listed = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proof.pruned.graph.input
    }
    assert listed == {"x": [1, 5], "w": [5, 4], "b": [4], "v": [4, 3]}


def test_external_data(build: Build, tmp_path: Path) -> None:
    path = build("""
        net (float[batch, 30] x) => (float[batch, 3] y)
        <float[30, 64] w, float[64, 3] v>
        { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
    """)
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    assert proved(path).groups == {"w": 64}
    compress(path, ratio=0.5, recover="none").save(tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    locations = {
        entry.value for weight in written.graph.initializer for entry in weight.external_data if entry.key == "location"
    }
    assert locations == {"out.onnx.data"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "double"])
def test_weights_keep_their_type(build: Build, dtype: str) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <DTYPE[5, 8] w, DTYPE[8, 3] v>
        { wf = Cast<to = 1>(w)  h = MatMul(x, wf)  r = Relu(h)  vf = Cast<to = 1>(v)  y = MatMul(r, vf) }
        """.replace("DTYPE", dtype)
    )
    proof = proved(path, tolerance=1e-6)
    kept = {tensor.name: (list(tensor.dims), tensor.data_type) for tensor in proof.pruned.graph.initializer}
    data_type = onnx.TensorProto.DataType.Value(dtype.upper())
    assert kept == {"w": ([5, 4], data_type), "v": ([4, 3], data_type)}


def test_half_precision_computation(build: Build) -> None:
    path = build("""
        net (float16[batch, 5] x) => (float16[batch, 3] y)
        <float16[5, 8] w, float16[8] b, float16[8, 3] v>
        { h = Gemm(x, w, b)  r = Relu(h)  y = MatMul(r, v) }
    """)
    assert proved(path, tolerance=5e-3).groups == {"w": 8}


# -- parts of axes


def test_reversed_axis_is_followed(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8, 8] b, float[8, 3] c,
         int64[1] last = {-1}, int64[1] front = {-9}, int64[1] axis = {1}, int64[1] back = {-1}>
        { h = MatMul(x, a)  s = Slice(h, last, front, axis, back)  k = MatMul(s, b)  r = Relu(k)  y = MatMul(r, c) }
    """)
    proof = proved(path)
    assert proof.groups == {"a": 8, "b": 8}


ROTARY = """
    net (float[batch, 7, 5] x) => (float[batch, 7, 7] y)
    <float[5, 12] wq, float[5, 12] wk, {TABLES},
     int64[1] n0 = {0}, int64[1] n1 = {1}, int64[1] n2 = {2}, int64[1] n6 = {6}, int64[1] n8 = {8}, int64[1] n4 = {4},
     int64[1] far = {9223372036854775807}, int64[1] last = {-1}, int64[3] flat = {0, 0, 12}>
    {
        q = MatMul(x, wq)
        {TURN}
        k = MatMul(x, wk)  kt = Transpose<perm = [0, 2, 1]>(k)
        y = MatMul(turned, kt)
    }
"""

TURNS = {
    "halves": (
        "float[7, 12] cos, float[7, 12] sin",
        """
        p = Slice(q, n0, n6, n2)  s = Slice(q, n6, far, n2)  n = Neg(s)  other = Concat<axis = -1>(n, p)
        a = Mul(q, cos)  b = Mul(other, sin)  turned = Add(a, b)
        """,
        [6],
    ),
    "part of the head": (
        "float[7, 8] cos, float[7, 8] sin",
        """
        front = Slice(q, n0, n8, n2)  rest = Slice(q, n8, far, n2)
        p = Slice(front, n0, n4, n2)  s = Slice(front, n4, far, n2)  n = Neg(s)  other = Concat<axis = -1>(n, p)
        a = Mul(front, cos)  b = Mul(other, sin)  both = Add(a, b)  turned = Concat<axis = -1>(both, rest)
        """,
        [4, 4],
    ),
    "interleaved, as GPT-J": (
        "float[7, 6] cos, float[7, 6] sin",
        """
        p = Slice(q, n0, far, n2, n2)  s = Slice(q, n1, far, n2, n2)
        pc = Mul(p, cos)  ss = Mul(s, sin)  even = Sub(pc, ss)
        sc = Mul(s, cos)  ps = Mul(p, sin)  odd = Add(sc, ps)
        e1 = Unsqueeze(even, last)  o1 = Unsqueeze(odd, last)  pairs = Concat<axis = -1>(e1, o1)
        turned = Reshape(pairs, flat)
        """,
        [6],
    ),
}


@pytest.mark.parametrize(("tables", "turn", "units"), TURNS.values(), ids=TURNS)
def test_rotary_embedding_couples_what_turns_together(build: Build, tables: str, turn: str, units: list[int]) -> None:
    path = build(ROTARY.replace("{TABLES}", tables).replace("{TURN}", turn))
    assert sorted(proved(path).groups.values()) == units


SELECTIONS = {
    "scalars": (
        "float[5, 24] w, int64 i0 = {0}, int64 i1 = {1}, int64[3] apart = {0, 2, 12}",
        "t = Reshape(h, apart)  p = Gather<axis = 1>(t, i0)  q = Gather<axis = 1>(t, i1)",
        [12],
    ),
    "runs": (
        "float[5, 16] w, int64[12] first = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},"
        "int64[12] second = {12, 13, 14, 15, 4, 5, 6, 7, 0, 1, 2, 3}",
        "p = Gather<axis = 1>(h, first)  q = Gather<axis = 1>(h, second)",
        [4],
    ),
}


@pytest.mark.parametrize(("weights", "select", "units"), SELECTIONS.values(), ids=SELECTIONS)
def test_gather_with_constant_indices_selects_units(build: Build, weights: str, select: str, units: list[int]) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <WEIGHTS, float[12, 3] v>
        { h = MatMul(x, w)  SELECT  g = Sigmoid(q)  m = Mul(p, g)  y = MatMul(m, v) }
        """.replace("WEIGHTS", weights).replace("SELECT", select)
    )
    assert sorted(set(proved(path).groups.values())) == units


def test_one_hot_of_constants(build: Build) -> None:
    """Each index is a row, so an index can go; the classes are positions and stay."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 4] w, float[6, 3] v, int64[4] places = {3, 0, 5, 2}, int64 depth = {6}, float[2] off_on = {0, 1}>
        { h = MatMul(x, w)  m = OneHot(places, depth, off_on)  k = MatMul(h, m)  y = MatMul(k, v) }
    """)
    proof = proved(path)
    assert proof.groups == {"w": 4}
    assert set(proof.weights["places"]) < {3, 0, 5, 2}


def test_one_hot_that_is_folded_is_a_weight_like_any_other(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 4] w, float[6, 3] v, int64[4] places = {3, 0, 5, 2}, int64 depth = {6}, int64[2] off_on = {0, 1}>
        { h = MatMul(x, w)  i = OneHot(places, depth, off_on)  m = Cast<to = 1>(i)  k = MatMul(h, m)  y = MatMul(k, v) }
    """)
    assert sorted(proved(path).groups.values()) == [4, 6]


def test_empty_slices(build: Build) -> None:
    """Exporters write slices that select nothing, and concatenate them with something."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v, int64[1] n0 = {0}, int64[1] n1 = {1}, int64[1] n8 = {8}>
        {
            h = MatMul(x, w)  none = Slice(h, n8, n8, n1)  all = Slice(h, n0, n8, n1)
            both = Concat<axis = 1>(none, all)  y = MatMul(both, v)
        }
    """)
    assert proved(path).groups == {"w": 8}


# -- statistics


def test_layer_norm_is_marked_and_takes_its_statistics_on_what_stays(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8] scale, float[8] bias, float[8, 3] v>
        { h = MatMul(x, w)  n = LayerNormalization(h, scale, bias)  y = MatMul(n, v) }
    """)
    (group,) = proved(path).analysis.groups
    assert group.statistics


def test_layer_norm_written_out_in_primitives(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8] scale, float[8] bias, float[8, 3] v, float two = {2}, float epsilon = {0.00001}>
        {
            h = MatMul(x, w)
            mean = ReduceMean<axes = [-1]>(h)  d = Sub(h, mean)  sq = Pow(d, two)  var = ReduceMean<axes = [-1]>(sq)
            safe = Add(var, epsilon)  std = Sqrt(safe)  n = Div(d, std)  s = Mul(n, scale)  b = Add(s, bias)
            y = MatMul(b, v)
        }
        """
    )
    (group,) = proved(path).analysis.groups
    assert group.statistics


def test_group_norm_marks_the_channels_inside_a_group(build: Build) -> None:
    """Whole groups go without a trace; channels inside one change its statistics. `num_groups` follows."""
    path = build(
        """
        net (float[batch, 2, 4, 4] x) => (float[batch, 3, 4, 4] y)
        <float[12, 2, 1, 1] w, float[12] scale, float[12] bias, float[3, 12, 1, 1] v>
        { h = Conv(x, w)  n = GroupNormalization<num_groups = 4>(h, scale, bias)  y = Conv(n, v) }
        """,
        opset=21,
    )
    proof = proved(path)
    assert [(group.units, group.statistics) for group in proof.analysis.groups] == [(4, False), (3, True)]
    assert proof.attribute("n", "num_groups") == 2


def test_group_norm_written_as_instance_norm(build: Build) -> None:
    """How exporters wrote it before opset 18: groups become channels, and unit scales that are shared by all."""
    path = build("""
        net (float[batch, 2, 4, 4] x) => (float[batch, 3, 4, 4] y)
        <float[12, 2, 1, 1] w, int64[3] apart = {0, 4, -1}, float[4] ones = {1, 1, 1, 1}, float[4] zeros = {0, 0, 0, 0},
         int64[4] together = {-1, 12, 4, 4}, float[12, 1, 1] scale, float[12, 1, 1] bias, float[3, 12, 1, 1] v>
        {
            h = Conv(x, w)  g = Reshape(h, apart)  i = InstanceNormalization(g, ones, zeros)  n = Reshape(i, together)
            s = Mul(n, scale)  b = Add(s, bias)  y = Conv(b, v)
        }
    """)
    assert {(group.units, group.statistics) for group in proved(path).analysis.groups} == {(4, False), (3, True)}


def test_softmax_axis_is_frozen(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] a, float[8, 8] b, float[8, 3] c>
        { h = MatMul(x, a)  r = Relu(h)  k = MatMul(r, b)  s = Softmax<axis = -1>(k)  y = MatMul(s, c) }
    """)
    proof = proved(path)
    assert proof.groups == {"a": 8}
    assert frozen(proof.analysis)["b", 1] == "softmax runs over it (Softmax 'Softmax_3')"


def test_weight_standardization_by_training_mode_batch_norm(build: Build) -> None:
    """timm's nf_resnet normalizes each filter: BatchNormalization in training mode on w as [1, O, I * kh * kw]."""
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 4, 4, 4] y)
        <float[6, 3, 1, 1] u, float[8, 6, 3, 3] w, float[8] gain, float[8] zero = {0, 0, 0, 0, 0, 0, 0, 0},
         float[8] one = {1, 1, 1, 1, 1, 1, 1, 1}, float[8] bias, float[4, 8, 1, 1] v,
         int64[3] rows = {1, 8, -1}, int64[4] back = {8, 6, 3, 3}>
        {
            h = Conv(x, u)  wr = Reshape(w, rows)
            wn, m1, v1 = BatchNormalization<training_mode = 1, momentum = 0.0>(wr, gain, zero, zero, one)
            ws = Reshape(wn, back)
            k = Conv(h, ws, bias)  r = Relu(k)  y = Conv(r, v)
        }
    """)
    proof = proved(path)
    found = {group.units: group.statistics for group in proof.analysis.groups}
    assert found == {6: True, 8: False}, "the entries of a filter are averaged over, the filters are not"


# -- what has no rule


def test_operator_without_a_rule_freezes_what_it_touches_and_nothing_else(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 8] y)
        <float[5, 8] a, float[8, 8] b, float[8, 8] c>
        { h = MatMul(x, a)  r = Relu(h)  k = MatMul(r, b)  u = acme.Mystery(k)  y = MatMul(u, c) }
        """,
        opsets={"acme": 1},
    )
    analysis = inspect(path)
    assert analysis.unruled == {"acme.Mystery": 1}
    assert [group.id for group in analysis.groups] == ["a"]
    reasons = frozen(analysis)
    assert reasons["b", 1] == "no rule for this operator (Mystery 'Mystery_3')"
    assert ("c", 0) in reasons, "what comes out of it is not guessed to be what went in"


# -- convolutional networks


def test_zero_padded_shortcut_of_resnet_option_a(build: Build) -> None:
    """Channels after the shortcut are Concat(pad, old channels, pad): the pads shrink with what is added to them."""
    path = build("""
        net (float[batch, 3, 8, 8] x) => (float[batch, 5] y)
        <float[4, 3, 3, 3] stem, float[8, 4, 3, 3] w, float[8, 5] head,
         int64[8] pads = {0, 2, 0, 0, 0, 2, 0, 0}, int64[2] n0 = {0, 0}, int64[2] far = {100, 100},
         int64[2] space = {2, 3}, int64[2] stride = {2, 2}>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, stem)  r = Relu(h)
            thin = Slice(r, n0, far, space, stride)  shortcut = Pad(thin, pads)
            k = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(r, w)  s = Add(k, shortcut)  t = Relu(s)
            g = GlobalAveragePool(t)  flat = Flatten(g)  y = MatMul(flat, head)
        }
    """)
    proof = proved(path)
    assert sorted(proof.groups.values()) == [2, 2, 4]
    assert proof.weights["w"].shape == (4, 2, 3, 3)
    pads = proof.weights[proof.node("shortcut").input[1]]
    assert pads.tolist() == [0, 1, 0, 0, 0, 1, 0, 0]


def test_squeeze_excite_gate(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 4, 6, 6] y)
        <float[8, 3, 3, 3] w, float[2, 8, 1, 1] down, float[8, 2, 1, 1] up, float[4, 8, 1, 1] v>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w)
            g = GlobalAveragePool(h)  d = Conv(g, down)  r = Relu(d)  u = Conv(r, up)  s = Sigmoid(u)
            m = Mul(h, s)  y = Conv(m, v)
        }
    """)
    assert proved(path).groups == {"w": 8, "down": 2}


def test_channel_shuffle(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 4, 4] x) => (float[batch, 5, 4, 4] y)
        <float[12, 3, 1, 1] w, float[5, 12, 1, 1] v,
         int64[5] apart = {0, 2, 6, 4, 4}, int64[4] together = {0, 12, 4, 4}>
        {
            h = Conv(x, w)  a = Reshape(h, apart)  t = Transpose<perm = [0, 2, 1, 3, 4]>(a)  s = Reshape(t, together)
            y = Conv(s, v)
        }
    """)
    proof = proved(path)
    assert sorted(proof.groups.values()) == [2, 6]
    assert proof.weights["w"].shape == (1 * 3, 3, 1, 1)


def test_grouped_convolution_loses_groups_and_channels_within(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 5, 4, 4] y)
        <float[12, 3, 1, 1] u, float[20, 3, 3, 3] w, float[20] b, float[5, 20, 1, 1] v>
        { h = Conv(x, u)  r = Relu(h)  g = Conv<group = 4>(r, w, b)  s = Relu(g)  y = Conv(s, v) }
    """)
    proof = proved(path)
    assert sorted(proof.groups.values()) == [3, 4, 5], "inputs of a group, groups, outputs of a group"
    assert proof.weights["w"].shape == (2 * 3, 2, 3, 3)
    assert proof.attribute("g", "group") == 2


def test_depthwise_convolution_follows_its_channels(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 5, 4, 4] y)
        <float[8, 3, 1, 1] u, float[8, 1, 3, 3] w, float[8] b, float[5, 8, 1, 1] v>
        { h = Conv(x, u)  g = Conv<group = 8>(h, w, b)  r = Relu(g)  y = Conv(r, v) }
    """)
    proof = proved(path)
    assert proof.groups == {"u": 8}
    assert proof.weights["w"].shape == (4, 1, 3, 3)


def test_flatten_into_a_classifier_takes_whole_channels(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 4, 5] x) => (float[batch, 7] y)
        <float[6, 3, 1, 1] w, float[120, 7] v>
        { h = Conv(x, w)  flat = Flatten(h)  y = MatMul(flat, v) }
    """)
    proof = proved(path)
    assert proof.groups == {"w": 6}
    assert proof.weights["v"].shape == (3 * 4 * 5, 7)


def test_dense_net_concatenation(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y)
        <float[4, 3, 1, 1] a, float[6, 4, 3, 3] b, float[2, 10, 3, 3] c, float[5, 12, 1, 1] d>
        {
            h1 = Conv(x, a)
            h2 = Conv<pads = [1, 1, 1, 1]>(h1, b)  c2 = Concat<axis = 1>(h1, h2)
            h3 = Conv<pads = [1, 1, 1, 1]>(c2, c)  c3 = Concat<axis = 1>(h1, h2, h3)
            y = Conv(c3, d)
        }
    """)
    proof = proved(path)
    assert proof.groups == {"a": 4, "b": 6, "c": 2}
    assert proof.weights["d"].shape == (5, 2 + 3 + 1, 1, 1)


def test_u_net_concatenation(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 8, 8] x) => (float[batch, 2, 8, 8] y)
        <float[4, 3, 3, 3] down, float[6, 4, 3, 3] bottom, float[6, 8, 2, 2] up, float[2, 12, 1, 1] head>
        {
            d = Conv<pads = [1, 1, 1, 1]>(x, down)  p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
            b = Conv<pads = [1, 1, 1, 1]>(p, bottom)  r = Relu(b)
            u = ConvTranspose<strides = [2, 2]>(r, up)
            c = Concat<axis = 1>(d, u)  y = Conv(c, head)
        }
    """)
    assert proved(path).groups == {"down": 4, "bottom": 6, "up": 8}


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_pixel_shuffle(build: Build, mode: str) -> None:
    path = build(
        """
        net (float[batch, 3, 4, 4] x) => (float[batch, 2, 8, 8] y)
        <float[24, 3, 3, 3] w, float[2, 6, 1, 1] v>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w)  s = DepthToSpace<blocksize = 2, mode = "MODE">(h)
            y = Conv(s, v)
        }
        """.replace("MODE", mode)
    )
    proof = proved(path)
    assert list(proof.groups.values()) == [6]
    assert proof.weights["w"].shape == (3 * 4, 3, 3, 3)


# -- transformers and recurrent networks


def test_fused_qkv(build: Build) -> None:
    """One projection makes all three: its columns are Product(3, heads, head size)."""
    path = build(FUSED_ATTENTION)
    proof = proved(path, {"batch": 2})
    assert proof.kinds == [("heads", 4), ("head-dim", 6)]
    assert proof.weights["qkv"].shape == (24, 3 * 2 * 3)


def test_grouped_query_attention(build: Build) -> None:
    """Two key-value heads serve four query heads: the sharing follows from Expand and Reshape."""
    path = build("""
        net (float[batch, 7, 24] x) => (float[batch, 7, 24] y)
        <float[24, 24] wq, float[24, 12] wk, float[24, 12] wv, float[24, 24] wo,
         int64[4] q_heads = {0, 7, 4, 6}, int64[4] kv_heads = {0, 7, 2, 6}, int64[1] axis = {2},
         int64[5] repeat = {1, 2, 2, 7, 6}, int64[4] all_heads = {0, 4, 7, 6}, int64[3] merge = {0, 7, 24}>
        {
            q = MatMul(x, wq)  q4 = Reshape(q, q_heads)   qt = Transpose<perm = [0, 2, 1, 3]>(q4)
            k = MatMul(x, wk)  k4 = Reshape(k, kv_heads)  kt = Transpose<perm = [0, 2, 1, 3]>(k4)
            v = MatMul(x, wv)  v4 = Reshape(v, kv_heads)  vt = Transpose<perm = [0, 2, 1, 3]>(v4)
            k5 = Unsqueeze(kt, axis)  ke = Expand(k5, repeat)  kr = Reshape(ke, all_heads)
            v5 = Unsqueeze(vt, axis)  ve = Expand(v5, repeat)  vr = Reshape(ve, all_heads)
            keys = Transpose<perm = [0, 1, 3, 2]>(kr)
            qk = MatMul(qt, keys)  w = Softmax<axis = -1>(qk)  av = MatMul(w, vr)
            back = Transpose<perm = [0, 2, 1, 3]>(av)  flat = Reshape(back, merge)
            y = MatMul(flat, wo)
        }
    """)
    proof = proved(path, {"batch": 3})
    assert proof.kinds == [("heads", 2), ("kv-heads", 2), ("head-dim", 6), ("head-dim", 6)]
    assert proof.weights["wq"].shape == (24, 1 * 1 * 3)
    assert proof.weights["wk"].shape == (24, 1 * 3)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstm(build: Build, direction: str) -> None:
    """A hidden unit owns a row in each of four gates, a column of the recurrence, and its peers' state."""
    d = 1 if direction == "forward" else 2
    path = build(f"""
        net (float[5, batch, 3] x) => (float[5, batch, 2] y)
        <float[{d}, 32, 3] w, float[{d}, 32, 8] r, float[{d}, 64] b, float[{8 * d}, 2] v,
         int64[3] merge = {{5, -1, {8 * d}}}>
        {{
            h, hn, cn = LSTM<hidden_size = 8, direction = "{direction}">(x, w, r, b)
            t = Transpose<perm = [0, 2, 1, 3]>(h)  flat = Reshape(t, merge)
            y = MatMul(flat, v)
        }}
    """)
    proof = proved(path, {"batch": 1}, {"batch": 4})
    assert proof.kinds == [("recurrent", 8)]
    assert proof.attribute("h", "hidden_size") == 4
    assert proof.weights["b"].shape == (d, 2 * 4 * 4)
