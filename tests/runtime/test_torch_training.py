"""Kernels and bundles of nodes that the executor uses in training: values and gradients are those without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxprune.model.file import open_model
from onnxprune.runtime.torch.module import TorchModel
from tests.conftest import Build

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def both(path: Path, feed: dict[str, Tensor], learned: set[str]) -> tuple[TorchModel, list[dict[str, Tensor]]]:
    """Outputs and gradients without and with what training adds; numbers beside activations are not learned."""
    results = []
    module = TorchModel(open_model(path))
    for name, weight in module.weights.items():
        weight.requires_grad_(name in learned)
    for training in (False, True):
        module.train(training)
        module(feed)  # the second run has the short program
        module.zero_grad()
        found = module(feed)
        sum((value.square().sum() for value in found.values()), torch.zeros(())).backward()
        gradients = {f"gradient of {name}": weight.grad for name, weight in module.weights.items() if name in learned}
        results.append({**{name: value.detach() for name, value in found.items()}, **gradients})
    return module, results


def agrees(results: list[dict[str, Tensor]]) -> None:
    one, other = results
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-5)


def operators(module: TorchModel) -> list[str]:
    """Of the program that ran last in training."""
    program, _ = next(iter(module._fused.values()))
    return [step.op.op_type for step in program.steps]


GELUS = {
    "as torch writes it": "d = Div(x, root)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, half)",
    "halved first": "d = Div(x, root)  e = Erf(d)  a = Add(one, e)  h = Mul(x, half)  y = Mul(h, a)",
    "by the inverse": "d = Mul(x, inverse)  e = Erf(d)  a = Add(e, one)  m = Mul(a, half)  y = Mul(m, x)",
}


@pytest.mark.parametrize("form", GELUS)
def test_a_gelu_is_put_together(build: Build, form: str) -> None:
    path = build(
        f"net (float[n, 4] v) => (float[n, 4] y) <float[4, 4] w, float root, float one, float half, float inverse>"
        f"{{ x = MatMul(v, w)  {GELUS[form]} }}",
        root=2**0.5, one=1.0, half=0.5, inverse=0.5**0.5,
    )  # fmt: skip
    module, results = both(path, {"v": X}, {"w"})
    agrees(results)
    assert operators(module) == ["MatMul", "Mul"]
    torch.testing.assert_close(results[1]["y"], torch.nn.functional.gelu(X @ module.weights["w"].detach()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"half": 0.6}, GELUS["as torch writes it"]),
        ({"root": 1.5}, GELUS["as torch writes it"]),
        ({"one": 2.0}, GELUS["as torch writes it"]),
        ({}, GELUS["as torch writes it"].replace("m = Mul(x, a)", "m = Mul(v, a)")),
        ({}, GELUS["as torch writes it"] + "  z = Identity(e)"),
    ],
)
def test_nothing_like_a_gelu_is_taken_for_one(build: Build, change: dict[str, float], text: str) -> None:
    numbers = {"root": 2**0.5, "one": 1.0, "half": 0.5, **change}
    outputs = "float[n, 4] y, float[n, 4] z" if "z =" in text else "float[n, 4] y"
    path = build(
        f"net (float[n, 4] v) => ({outputs}) <float[4, 4] w, float root, float one, float half>"
        f"{{ x = MatMul(v, w)  {text} }}",
        **numbers,
    )
    module, results = both(path, {"v": X}, {"w"})
    agrees(results)
    assert "Erf" in operators(module)


def test_numbers_that_are_learned_are_not_put_away(build: Build) -> None:
    path = build(
        f"net (float[n, 4] v) => (float[n, 4] y) <float[4, 4] w, float root, float one, float half>"
        f"{{ x = MatMul(v, w)  {GELUS['as torch writes it']} }}",
        root=2**0.5, one=1.0, half=0.5,
    )  # fmt: skip
    module, results = both(path, {"v": X}, {"w", "half"})
    agrees(results)
    assert "Erf" in operators(module)


def test_a_linear_layer_and_a_silu_are_put_together(build: Build) -> None:
    path = build("""
        net (float[n, 3, 4] v) => (float[n, 3, 2] y) <float[4, 6] w, float[6] b, float[6, 2] u, float[2] c>
        { x = MatMul(v, w)  h = Add(x, b)  s = Sigmoid(h)  m = Mul(s, h)  o = MatMul(m, u)  y = Add(c, o) }
    """)
    module, results = both(path, {"v": torch.from_numpy(normal(5, 3, 4))}, {"w", "b", "u", "c"})
    agrees(results)
    assert operators(module) == ["Add", "Mul", "Add"]
    found = module({"v": torch.from_numpy(normal(5, 3, 4))}, ["x", "s"])  # still there for who asks
    torch.testing.assert_close(found["x"], torch.from_numpy(normal(5, 3, 4)) @ module.weights["w"])
    assert "s" in found


@pytest.mark.parametrize("bias", ["float[1, 6] b", "float b", "float[3, 6] b"])
def test_other_sums_stay_sums(build: Build, bias: str) -> None:
    path = build(f"""
        net (float[n, 3, 4] v) => (float[n, 3, 6] y) <float[4, 6] w, {bias}> {{ x = MatMul(v, w)  y = Add(x, b) }}
    """)
    module, results = both(path, {"v": torch.from_numpy(normal(5, 3, 4))}, {"w", "b"})
    agrees(results)
    assert operators(module) == ["MatMul", "Add"]


def test_values_that_others_read_are_still_made(build: Build) -> None:
    """One reader more: a body, an output, another node."""
    path = build("""
        net (float[n, 4] v) => (float[n, 6] y, float[n, 6] x) <float[4, 6] w, float[6] b, bool yes = {1}>
        {
            x = MatMul(v, w)  h = Add(x, b)  k = MatMul(v, w)  g = Add(k, b)
            i = If (yes) <
                then_branch = one () => (float[n, 6] p) { p = Add(k, k) },
                else_branch = two () => (float[n, 6] q) { q = Identity(k) }
            >
            s = Add(h, g)  y = Add(s, i)
        }
    """)
    module, results = both(path, {"v": X}, {"w", "b"})
    agrees(results)
    assert operators(module).count("MatMul") == 2


CELLS = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("layout", [0, 1])
def test_a_recurrent_layer_by_torchs_kernel(build: Build, kind: str, direction: str, layout: int) -> None:
    gates, d = CELLS[kind], 2 if direction == "bidirectional" else 1
    states = ["h", "c"] if kind == "LSTM" else ["h"]
    sides = f"2, {d}, 3" if layout else f"{d}, 2, 3"
    reset = "linear_before_reset = 1, " if kind == "GRU" else ""
    path = build(f"""
        net (float[p, q, 5] x) => (float[i, j, k, l] y, {", ".join(f"float[i, j, k] {name}" for name in states)})
        <float[{d}, {3 * gates}, 5] w, float[{d}, {3 * gates}, 3] r, float[{d}, {6 * gates}] b,
         {", ".join(f"float[{sides}] {name}0" for name in states)}>
        {{
            y, {", ".join(states)} =
                {kind}<hidden_size = 3, layout = {layout}, {reset}direction = "{direction}">
                (x, w, r, b, , {", ".join(f"{name}0" for name in states)})
        }}
    """)
    x = torch.from_numpy(normal(2, 6, 5) if layout else normal(6, 2, 5))
    module, results = both(path, {"x": x}, {"w", "r", "b", "h0"})
    agrees(results)
    assert module.training


def test_other_cells_go_step_by_step(build: Build) -> None:
    """A reset before the product, other activations, peepholes: torch has no kernel for them."""
    for attributes in ("", 'activations = ["HardSigmoid", "Tanh"], linear_before_reset = 1, '):
        path = build(f"""
            net (float[6, 2, 5] x) => (float[6, 1, 2, 3] y) <float[1, 9, 5] w, float[1, 9, 3] r, float[1, 18] b>
            {{ y = GRU<{attributes}hidden_size = 3>(x, w, r, b) }}
        """)
        agrees(both(path, {"x": torch.from_numpy(normal(6, 2, 5))}, {"w", "r", "b"})[1])
    peep = build("""
        net (float[6, 2, 5] x) => (float[6, 1, 2, 3] y)
        <float[1, 12, 5] w, float[1, 12, 3] r, float[1, 24] b, float[1, 2, 3] h, float[1, 2, 3] c, float[1, 9] p>
        { y = LSTM<hidden_size = 3>(x, w, r, b, , h, c, p) }
    """)
    agrees(both(peep, {"x": torch.from_numpy(normal(6, 2, 5))}, {"w", "r", "b", "p"})[1])


def test_second_derivatives_need_no_kernel(build: Build) -> None:
    path = build("""
        net (float[3, 2, 5] x) => (float[3, 1, 2, 3] y) <float[1, 12, 5] w, float[1, 12, 3] r>
        { y = LSTM<hidden_size = 3>(x, w, r) }
    """)
    module = TorchModel(open_model(path))
    (slope,) = torch.autograd.grad(
        module({"x": normal(3, 2, 5)})["y"].square().sum(), module.weights["w"], create_graph=True
    )
    slope.square().sum().backward()
    assert module.weights["r"].grad is not None


def test_a_clip_between_stored_limits(build: Build) -> None:
    path = build(
        "net (float[n, 4] x) => (float[n, 4] y) <float low, float high, float[4] w>"
        "{ h = Mul(x, w)  y = Clip(h, low, high) }",
        low=-0.5, high=0.25, w=np.ones(4),
    )  # fmt: skip
    module = TorchModel(open_model(path))
    module({"x": X})["y"].sum().backward()
    inside = (X > -0.5) & (X < 0.25)
    torch.testing.assert_close(module.weights["w"].grad, (X * inside).sum(0))


def test_limits_that_are_computed_have_gradients(build: Build) -> None:
    path = build("""
        net (float[n, 4] x) => (float[n, 4] y) <float[4] w>
        { high = ReduceMax<keepdims = 0>(w)  low = Neg(high)  y = Clip(x, low, high) }
    """, w=np.array([0.1, 0.5, 0.2, 0.3]))  # fmt: skip
    module = TorchModel(open_model(path))
    module({"x": X})["y"].sum().backward()
    assert float(module.weights["w"].grad[1]) == float((X > 0.5).sum() - (X < -0.5).sum())


def test_statistics_over_several_processes(build: Build) -> None:
    """Two processes with the same samples have the statistics, the outputs and the gradients of one."""
    path = build("""
        net (float[8, 3, 4] x) => (float[8, 3, 4] y) <float[3] s, float[3] b, float[3] mean, float[3] var>
        { y = BatchNormalization<momentum = 0.75>(x, s, b, mean, var) }
    """, var=[1.0, 2.0, 3.0])  # fmt: skip
    x = torch.from_numpy(normal(8, 3, 4)) * 3 + 1
    alone, among = (TorchModel(open_model(path)).train() for _ in range(2))
    among.across = lambda tensor: 2 * tensor
    assert among.across is not None
    found = [module({"x": x})["y"] for module in (alone, among)]
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)
    for module, value in zip((alone, among), found, strict=True):
        value.square().sum().backward()
        assert module.weights["s"].grad is not None
    torch.testing.assert_close(among.weights["s"].grad, alone.weights["s"].grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(among.statistics["mean"], alone.statistics["mean"])
    before = torch.tensor([1.0, 2.0, 3.0])
    due = 0.75 * before + 0.25 * torch.cat([x, x]).var((0, 2))
    torch.testing.assert_close(among.statistics["var"], due)
