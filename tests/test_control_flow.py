"""Bodies that are run again and again: what they capture and carry is walked like the rest of the graph."""

from __future__ import annotations

import onnx
import pytest

from onnxprune.pipeline.run import inspect
from tests.conftest import Build
from tests.test_traps import frozen, proved

CELL = """
    g = MatMul(x_t, w)  r = MatMul(h_in, u)  s = Add(g, r)  sb = Add(s, b)
    z, c = Split<axis = 1>(sb, sizes)  zs = Sigmoid(z)  ct = Tanh(c)
    kept = Mul(zs, h_in)  one_less = Sub(one, zs)  new = Mul(one_less, ct)  h_out = Add(kept, new)
"""
WEIGHTS = "float[5, 16] w, float[8, 16] u, float[16] b, float[8, 3] v, int64[2] sizes = {8, 8}, float one = {1}"


@pytest.mark.parametrize("backwards", [0, 1])
def test_recurrent_cell_in_a_scan(build: Build, backwards: int) -> None:
    """Captured weights, a carried state that starts as a weight, outputs that are stacked up."""
    path = build(f"""
        net (float[time, batch, 5] x, float[batch, 1] ones) => (float[time, batch, 3] y, float[batch, 3] last)
        <{WEIGHTS}, float[1, 8] start>
        {{
            h0 = MatMul(ones, start)
            h_end, all = Scan <num_scan_inputs = 1, scan_input_directions = [{backwards}],
                body = cell (float[batch, 8] h_in, float[batch, 5] x_t) => (float[batch, 8] h_out, float[batch, 8] seen)
                {{ {CELL} seen = Identity(h_out) }}
            > (h0, x)
            y = MatMul(all, v)  last = MatMul(h_end, v)
        }}
    """)
    proof = proved(path, {"time": 4, "batch": 2}, {"time": 1, "batch": 3})
    assert list(proof.groups.values()) == [8]
    scan = next(node for node in proof.pruned.graph.node if node.op_type == "Scan")
    body = onnx.helper.get_node_attr_value(scan, "body")
    assert [value.type.tensor_type.shape.dim[1].dim_value for value in (*body.input, *body.output)] == [4, 5, 4, 4]


def test_scan_along_other_axes(build: Build) -> None:
    path = build(f"""
        net (float[batch, 6, 5] x, float[batch, 1] ones) => (float[batch, 6, 3] y)
        <{WEIGHTS}, float[1, 8] start>
        {{
            h0 = MatMul(ones, start)
            h_end, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                body = cell (float[batch, 8] h_in, float[batch, 5] x_t) => (float[batch, 8] h_out, float[batch, 8] seen)
                {{ {CELL} seen = Identity(h_out) }}
            > (h0, x)
            y = MatMul(all, v)
        }}
    """)
    assert list(proved(path, {"batch": 2}).groups.values()) == [8]


def test_decoder_in_a_loop(build: Build) -> None:
    """Steps until a count is reached: a state, inner neurons, attention over what is captured, stacked outputs."""
    path = build(
        """
        net (float[batch, 7, 5] x, float[batch, 1] ones) => (float[n, batch, 3] y)
        <float[1, 8] start, float[5, 8] key, float[8, 8] query, float[8, 12] up, float[12, 8] down, float[8, 3] v,
         int64[1] last = {2}, int64[1] one_axis = {1}, int64 trips = {3}, bool always = {1}>
        {
            k = MatMul(x, key)  h0 = MatMul(ones, start)
            h_end, all = Loop (trips, always, h0) <
                body = step (int64 i, bool go_on, float[batch, 8] h)
                    => (bool go, float[batch, 8] h_out, float[batch, 8] seen)
                {
                    go = Identity(go_on)  q = MatMul(h, query)  q3 = Unsqueeze(q, last)  s = MatMul(k, q3)
                    a = Softmax<axis = 1>(s)  weighed = Mul(a, k)  context = ReduceSum<keepdims = 0>(weighed, one_axis)
                    n = MatMul(context, up)  r = Relu(n)  d = MatMul(r, down)  t = Add(d, h)  h_out = Tanh(t)
                    seen = Identity(h_out)
                }
            >
            y = MatMul(all, v)
        }
    """.replace("int64 trips", "int64[1] one_axis = {1}, int64 trips")
    )
    proof = proved(path, {"batch": 2})
    assert sorted(proof.groups.values()) == [8, 8, 12]


def test_state_that_grows_keeps_everything(build: Build) -> None:
    """A list of tokens, say: shapes inside differ from step to step."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, m] y)
        <float[5, 8] a, float[8, 8] c, int64 trips = {3}, bool always = {1}>
        {
            k = MatMul(x, a)
            y = Loop (trips, always, k) <
                body = step (int64 i, bool go_on, float[batch, m] s) => (bool go, float[batch, n] t)
                { go = Identity(go_on)  u = MatMul(k, c)  t = Concat<axis = 1>(s, u) }
            >
        }
    """)
    analysis = inspect(path)
    assert not analysis.groups
    assert "is not known before the run (Loop 'node" in frozen(analysis)["a", 1]
