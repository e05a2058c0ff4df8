"""Recurrent layers against the rule oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rule_oracle import Case, SampleDraw, case, oracle, sample

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _weights(d: SampleDraw, gates: int, directions: int, i: int, h: int, bias: bool = True) -> dict[str, Any]:
    w, r = d.normal(directions, gates * h, i), d.normal(directions, gates * h, h)
    return {"w": w, "r": r, "b": d.normal(directions, 2 * gates * h) if bias else None}


def _plain(gates: int) -> Any:
    def plain(d: SampleDraw) -> Case:
        s, n, i, h = d.sizes(4)
        return case(x=d.normal(s, n, i), **_weights(d, gates, 1, i, h), hidden_size=h)

    return plain


def _both_directions(gates: int) -> Any:
    def both_directions(d: SampleDraw) -> Case:
        s, n, i, h = d.sizes(4)
        weights = _weights(d, gates, 2, i, h)
        return case(x=d.normal(s, n, i), **weights, hidden_size=h, direction="bidirectional")

    return both_directions


def _with_state(gates: int) -> Any:
    def with_state(d: SampleDraw) -> Case:
        s, n, i, h = d.sizes(4)
        lengths = np.full(n, s, np.int32)
        states = {"h0": d.normal(1, n, h), "c0": d.normal(1, n, h)} if gates == 4 else {"h0": d.normal(1, n, h)}
        weights = _weights(d, gates, 1, i, h, bias=False)
        return case(x=d.normal(s, n, i), **weights, lengths=lengths, **states, hidden_size=h, direction="reverse")

    return with_state


for _op, _count in _GATES.items():
    _axes = "x[2] w[1] w[2] r[1] r[2] y[3]"
    _last = "y h c" if _count == 4 else "y h"
    sample(_op, prunable=f"{_axes} b[1] h[2]", outputs=_last)(_plain(_count))
    sample(_op, prunable=f"{_axes} b[1]", outputs="y")(_both_directions(_count))
    _states = "x h0 c0" if _count == 4 else "x h0"
    sample(_op, prunable=f"{_axes} h0[2]", outputs=_last, fed=_states)(_with_state(_count))
    sample(_op, prunable="w[1] h[2]", outputs="- h")(_plain(_count))


@sample("LSTM", prunable="w[1] r[1] r[2] p[1] y[3]")
def peepholes(d: SampleDraw) -> Case:
    s, n, i, h = d.sizes(4)
    weights = _weights(d, 4, 1, i, h)
    states = {"lengths": None, "h0": None, "c0": None, "p": d.normal(1, 3 * h)}
    return case(x=d.normal(s, n, i), **weights, **states, hidden_size=h, input_forget=0, clip=5.0)


@sample("GRU", prunable="w[1] r[1] r[2] y[3]")
def reset_after_product(d: SampleDraw) -> Case:
    s, n, i, h = d.sizes(4)
    return case(x=d.normal(s, n, i), **_weights(d, 3, 1, i, h), hidden_size=h, linear_before_reset=1)


@sample("RNN", prunable="w[1] r[1] r[2] y[3]")
def other_activation(d: SampleDraw) -> Case:
    s, n, i, h = d.sizes(4)
    return case(x=d.normal(s, n, i), **_weights(d, 1, 1, i, h), hidden_size=h, activations=["Sigmoid"])


@sample("GRU", prunable="x[2] w[1] r[2] y[3]", since=14, runtime="onnx", outputs="y h")
def batch_first(d: SampleDraw) -> Case:
    s, n, i, h = d.sizes(4)
    return case(x=d.normal(n, s, i), **_weights(d, 3, 1, i, h), hidden_size=h, layout=1)


test_rule = oracle(__name__)
