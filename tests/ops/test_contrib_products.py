"""ONNX Runtime's fused products against the rule oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.ops.op_conv import _conv_implementation

from tests.rule_oracle import Array, SampleDraw, oracle, sample

MICROSOFT = "com.microsoft"


@sample("FusedMatMul", prunable="a[0] a[1] a[2] b[0] b[1] y[2]", domain=MICROSOFT)
def with_weights(d: SampleDraw) -> dict[str, Any]:
    n, m, k, c = d.sizes(4)
    return {"a": d.normal(n, m, k), "b": d.normal(c, k), "transB": 1, "alpha": 0.5}


@sample("FusedMatMul", "TransposeMatMul", prunable="a[0] a[1] a[2] a[3] b[3] y[1] y[3]", fed="a b", domain=MICROSOFT)
def transposed(d: SampleDraw) -> dict[str, Any]:
    n, h, m, k, c = d.sizes(5)
    return {"a": d.normal(n, h, k, m), "b": d.normal(n, h, k, c), "transA": 1}


@sample("FusedMatMul", prunable="a[0] a[1] a[2] a[3] b[1] b[3] y[1] y[3]", fed="a b", domain=MICROSOFT)
def transposed_with_the_batch(d: SampleDraw) -> dict[str, Any]:
    n, h, m, k, c = d.sizes(5)
    a, b = d.normal(m, n, h, k), d.normal(c, n, h, k)
    return {"a": a, "b": b, "transBatchA": 1, "transBatchB": 1, "transB": 1}


@sample("FusedGemm", prunable="a[0] a[1] b[0] b[1] c[0] y[1]", domain=MICROSOFT)
def activated(d: SampleDraw) -> dict[str, Any]:
    m, k, n = d.sizes(3)
    return {
        "a": d.normal(k, m),
        "b": d.normal(n, k),
        "c": d.normal(n),
        "transA": 1,
        "transB": 1,
        "activation": "Relu",
        "alpha": 0.5,
    }


@sample("FusedConv", prunable="x[0] x[1] w[0] w[1] b[0] z[1] y[1]", fed="x z", domain=MICROSOFT)
def activated_sum(d: SampleDraw) -> dict[str, Any]:
    n, c, o = d.sizes(3)
    tensors = {"x": d.normal(n, c, 6, 5), "w": d.normal(o, c, 3, 3), "b": d.normal(o), "z": d.normal(n, o, 6, 5)}
    return dict(**tensors, pads=[1, 1, 1, 1], activation="Relu")


@sample("FusedConv", prunable="x[1] w[0] y[1]", domain=MICROSOFT)
def activated_depthwise(d: SampleDraw) -> dict[str, Any]:
    n, g = d.sizes(2)
    alpha = {"activation": "LeakyRelu", "activation_params": [0.1]}
    return dict(x=d.normal(n, g, 6, 5), w=d.normal(g, 1, 3, 3), group=g, strides=[2, 2], **alpha)


def _conv_last(x: Array, w: Array, b: Array, *, pads: list[int], group: int = 1) -> Array:
    y = _conv_implementation(
        np.moveaxis(x, -1, 1), np.moveaxis(w, -1, 1), b, "NOTSET", [1, 1], group, list(w.shape[1:3]), pads, [1, 1]
    )
    return np.moveaxis(y.astype(np.float32), 1, -1)


@sample("NhwcConv", prunable="x[3] w[0] w[3] b[0] y[3]", runtime="reference", reference=_conv_last, domain=MICROSOFT)
def channels_last(d: SampleDraw) -> dict[str, Any]:
    n, c, o = d.sizes(3)
    return {"x": d.normal(n, 6, 5, c), "w": d.normal(o, 3, 3, c), "b": d.normal(o), "pads": [1, 0, 1, 0]}


def _experts(d: SampleDraw, gates: int = 1) -> dict[str, Any]:
    n, h, i, e = d.sizes(4)
    up = {"w1": d.normal(e, gates * i, h), "b1": d.normal(e, gates * i)}
    down = {"w2": d.normal(e, h, i), "b2": d.normal(e, h)}
    return dict(x=d.normal(n, h), routes=d.normal(n, e), **up, **down, k=1)


@sample("MoE", prunable="x[1] w1[1] w1[2] b1[1] w2[1] w2[2] b2[1] y[1]", fed="x routes", domain=MICROSOFT)
def experts(d: SampleDraw) -> dict[str, Any]:
    return dict(**_experts(d), activation_type="relu")


@sample("MoE", prunable="x[1] w1[1] w1[2] b1[1] w2[1] w2[2] b2[1] y[1]", fed="x routes", domain=MICROSOFT)
def gated_experts(d: SampleDraw) -> dict[str, Any]:
    return dict(**_experts(d, gates=2), activation_type="swiglu", swiglu_fusion=1)


test_rule = oracle(__name__)
