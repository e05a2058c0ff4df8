"""Criteria on gradients against small networks written in torch by hand, with gates on their units.

Where labels are drawn, the hand-written network is given the same ones: the loss is asked for them in the same order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from onnxprune.data.base import Batch, Data
from onnxprune.errors import MissingExtraError, UsageError
from onnxprune.pipeline.run import inspect
from onnxprune.runtime.torch.losses import make_loss
from onnxprune.steps.prune.criteria.base import Scores, criteria
from onnxprune.steps.prune.score import score_model
from tests.conftest import Build
from tests.criteria.test_activations import SIZES, Array, inputs, only_scores

ON_GRADIENTS = [name for name in criteria.names() if "gradients" in criteria[name].needs]
LABELS = np.random.default_rng(3).integers(0, 3, sum(SIZES))

PERCEPTRON = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[8, 5] w, float[8] b, float[8, 3] v>
    { h = Gemm<transB = 1>(x, w, b)  r = Tanh(h)  y = MatMul(r, v) }
"""


def tensors(path: Path) -> dict[str, Tensor]:
    """The weights in double precision, to be differentiated."""
    stored = onnx.load(path).graph.initializer
    return {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).astype(np.float64)).requires_grad_() for t in stored}


Network = Callable[[Tensor, dict[str, Tensor], Tensor], Tensor]


def perceptron(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
    return (torch.tanh(x @ w["w"].T + w["b"]) * gates) @ w["v"]


def losses(
    path: Path, data: Data, network: Network, units: int, *, drawn: bool, reduction: str, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Loss, gates [samples, units] and weights for each batch."""
    loss = make_loss("auto", ["y"], seed, reduction)
    w = tensors(path)
    for batch in data.batches():
        x = torch.from_numpy(batch.feed["x"]).double()
        gates = torch.ones(len(x), units, dtype=torch.float64, requires_grad=True)
        labels = None if drawn or batch.labels is None else torch.from_numpy(batch.labels)
        yield loss({"y": network(x, w, gates)}, labels), gates, w


def derivatives(path: Path, data: Data, network: Network, units: int, *, drawn: bool, seed: int = 0) -> Array:
    """Of each sample's loss by each unit's gate: [samples, units]."""
    found = [
        torch.autograd.grad(loss, gates)[0].numpy()
        for loss, gates, _ in losses(path, data, network, units, drawn=drawn, reduction="sum", seed=seed)
    ]
    return np.concatenate(found)


# -- units


@pytest.mark.parametrize("labels", [None, LABELS], ids=["drawn", "given"])
def test_taylor1(build: Build, labels: Array | None) -> None:
    path, (data, _) = build(PERCEPTRON), inputs(5, labels=labels)
    each = derivatives(path, data, perceptron, 8, drawn=False)
    np.testing.assert_allclose(only_scores(path, "taylor1", data), np.abs(each).mean(0), rtol=1e-4)


@pytest.mark.parametrize("labels", [None, LABELS], ids=["none", "given"])
def test_fisher_never_looks_at_labels(build: Build, labels: Array | None) -> None:
    path, (data, _) = build(PERCEPTRON), inputs(5, labels=labels)
    each = derivatives(path, data, perceptron, 8, drawn=True)
    np.testing.assert_allclose(only_scores(path, "fisher", data), (each**2).mean(0) / 2, rtol=1e-4)


def test_fisher_is_the_expectation_over_the_models_predictions(build: Build) -> None:
    """Closed form, sum over classes of p * (d log p / d gate)^2 / 2, for one sample that is drawn for many times."""
    path = build(PERCEPTRON, v=np.random.default_rng(0).normal(0, 0.5, (8, 3)))
    x = np.random.default_rng(0).standard_normal((1, 5)).astype(np.float32)
    w, gates = tensors(path), torch.ones(1, 8, dtype=torch.float64, requires_grad=True)
    logs = torch.log_softmax(perceptron(torch.from_numpy(x).double(), w, gates), -1)[0]
    squares = [np.exp(p.item()) * torch.autograd.grad(p, gates, retain_graph=True)[0][0].numpy() ** 2 for p in logs]
    data = Data("one", False, lambda: iter([Batch({"x": np.repeat(x, 20_000, axis=0)})]))
    np.testing.assert_allclose(only_scores(path, "fisher", data), np.sum(squares, axis=0) / 2, rtol=0.03)


@pytest.mark.parametrize("labels", [None, LABELS], ids=["drawn", "given"])
def test_taylor2(build: Build, labels: Array | None) -> None:
    """The curvature is taken at labels drawn anew, so that it does not follow the slope."""
    path, (data, _) = build(PERCEPTRON), inputs(5, labels=labels)
    slopes = derivatives(path, data, perceptron, 8, drawn=False)
    curvatures = derivatives(path, data, perceptron, 8, drawn=True, seed=1) ** 2
    np.testing.assert_allclose(only_scores(path, "taylor2", data), np.abs(curvatures / 2 - slopes).mean(0), rtol=1e-4)


def test_taylor_foretells_the_change_of_the_loss(build: Build) -> None:
    """Units that give little: the losses without one of them, in truth, against both expansions."""
    rng = np.random.default_rng(0)
    path = build(PERCEPTRON, v=rng.normal(0, 0.05, (8, 3)))
    x = rng.standard_normal((4000, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 4000)
    data = Data("made up", True, lambda: iter([Batch({"x": x}, labels)]))
    w, samples = tensors(path), torch.from_numpy(x).double()

    def loss(gates: Tensor) -> Array:
        y = perceptron(samples, w, gates)
        return torch.nn.functional.cross_entropy(y, torch.from_numpy(labels), reduction="none").detach().numpy()

    whole = loss(torch.ones(8))
    change = [np.abs(loss(1 - torch.eye(8)[unit]) - whole).mean() for unit in range(8)]
    for name in ("taylor1", "taylor2"):
        np.testing.assert_allclose(only_scores(path, name, data), change, rtol=0.03)


def test_all_that_reads_a_unit_counts_together(build: Build) -> None:
    """A residual stream: two layers read it, one of them behind a ReLU, and it goes on behind them."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 6] w, float[6, 6] a, float[6, 3] v>
        { h = MatMul(x, w)  r = Relu(h)  i = MatMul(r, a)  s = Add(h, i)  t = Tanh(s)  y = MatMul(t, v) }
    """)

    def network(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
        h = x @ w["w"]
        return (torch.tanh(h + (torch.relu(h) * gates) @ w["a"]) * gates) @ w["v"]

    data, _ = inputs(5, labels=LABELS)
    each = derivatives(path, data, network, 6, drawn=False)
    np.testing.assert_allclose(only_scores(path, "taylor1", data), np.abs(each).mean(0), rtol=1e-4)


def test_two_readers_of_one_value(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 6] w, float[6, 3] a, float[6, 3] v>
        { h = MatMul(x, w)  r = Relu(h)  i = MatMul(r, a)  j = MatMul(r, v)  y = Mul(i, j) }
    """)

    def network(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
        r = torch.relu(x @ w["w"]) * gates
        return (r @ w["a"]) * (r @ w["v"])

    data, _ = inputs(5, labels=LABELS)
    each = derivatives(path, data, network, 6, drawn=False)
    np.testing.assert_allclose(only_scores(path, "taylor1", data), np.abs(each).mean(0), rtol=1e-4)


def test_what_does_not_sum_over_the_units_does_not_count(build: Build) -> None:
    """The shortcut of a residual block passes them on; what reads the sum counts."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 6] w, float[6, 6] a, float[6, 3] v>
        { h = MatMul(x, w)  i = MatMul(h, a)  s = Add(h, i)  y = MatMul(s, v) }
    """)

    def network(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
        h = x @ w["w"]
        return ((h + (h * gates) @ w["a"]) * gates) @ w["v"]

    data, _ = inputs(5, labels=LABELS)
    each = derivatives(path, data, network, 6, drawn=False)
    np.testing.assert_allclose(only_scores(path, "taylor1", data), np.abs(each).mean(0), rtol=1e-4)


def test_queries_and_keys(build: Build) -> None:
    """A unit is an entry of both: its gate is on both sides of the product."""
    path = build("""
        net (float[batch, 7, 5] x) => (float[batch, 3] y)
        <float[5, 4] q, float[5, 4] k, float[5, 3] v, int64[1] axis = {1}>
        {
            a = MatMul(x, q)  b = MatMul(x, k)  t = Transpose<perm = [0, 2, 1]>(b)  s = MatMul(a, t)
            p = Softmax<axis = -1>(s)  o = MatMul(x, v)  z = MatMul(p, o)  y = ReduceMean<axes = [1], keepdims = 0>(z)
        }
    """)

    def network(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
        q, k = x @ w["q"] * gates[:, None], x @ w["k"] * gates[:, None]
        return (torch.softmax(q @ k.transpose(1, 2), -1) @ (x @ w["v"])).mean(1)

    data, _ = inputs(7, 5, labels=LABELS)
    analysis = inspect(path)
    found = score_model(analysis, analysis.groups, "taylor1", data)["q:head-dim"]
    each = derivatives(path, data, network, 4, drawn=False)
    np.testing.assert_allclose(found, np.abs(each).mean(0), rtol=1e-4)


def test_channels_of_a_convolution(build: Build) -> None:
    path = build("""
        net (float[batch, 3, 6, 6] x) => (float[batch, 3] y)
        <float[6, 3, 3, 3] w, float[3, 6, 3, 3] v>
        {
            h = Conv<pads = [1, 1, 1, 1]>(x, w)  r = Relu(h)  c = Conv<strides = [2, 2]>(r, v)
            y = ReduceMean<axes = [2, 3], keepdims = 0>(c)
        }
    """)

    def network(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
        r = torch.relu(torch.nn.functional.conv2d(x, w["w"], padding=1)) * gates[:, :, None, None]
        return torch.nn.functional.conv2d(r, w["v"], stride=2).mean((2, 3))

    data, _ = inputs(3, 6, 6, labels=LABELS)
    each = derivatives(path, data, network, 6, drawn=False)
    np.testing.assert_allclose(only_scores(path, "taylor1", data), np.abs(each).mean(0), rtol=1e-4)


# -- weights


def own(parts: dict[str, Array]) -> Scores:
    """The sum over what belongs to a neuron of PERCEPTRON."""
    total: Scores = parts["w"].sum(1) + parts["b"] + parts["v"].sum(1)
    return total


def mean_over_samples(parts: list[dict[str, Array]]) -> Scores:
    total: Scores = np.sum([size * own(part) for size, part in zip(SIZES, parts, strict=True)], axis=0) / sum(SIZES)
    return total


@pytest.mark.parametrize("labels", [None, LABELS], ids=["drawn", "given"])
def test_snip(build: Build, labels: Array | None) -> None:
    path, (data, _) = build(PERCEPTRON), inputs(5, labels=labels)
    parts = []
    for loss, _, w in losses(path, data, perceptron, 8, drawn=False, reduction="mean"):
        slopes = torch.autograd.grad(loss, list(w.values()))
        parts.append({name: (w[name] * g).abs().detach().numpy() for name, g in zip(w, slopes, strict=True)})
    np.testing.assert_allclose(only_scores(path, "snip", data), mean_over_samples(parts), rtol=1e-4)


def test_grasp(build: Build) -> None:
    """Against the whole Hessian."""
    path, (data, _) = build(PERCEPTRON), inputs(5, labels=LABELS)
    shapes = {name: w.shape for name, w in tensors(path).items()}
    sizes = [shape.numel() for shape in shapes.values()]
    flat = torch.cat([w.detach().ravel() for w in tensors(path).values()])
    parts = []
    for batch in data.batches():
        x, labels = torch.from_numpy(batch.feed["x"]).double(), torch.from_numpy(batch.labels)

        def loss(every: Tensor, x: Tensor = x, labels: Tensor = labels) -> Tensor:
            w = {name: part.reshape(shapes[name]) for name, part in zip(shapes, every.split(sizes), strict=True)}
            return torch.nn.functional.cross_entropy(perceptron(x, w, torch.ones(8)), labels)

        slope = torch.autograd.functional.jacobian(loss, flat)
        scores = flat * (torch.autograd.functional.hessian(loss, flat) @ slope)
        split = zip(shapes, scores.split(sizes), strict=True)
        parts.append({name: part.reshape(shapes[name]).numpy() for name, part in split})
    expected = mean_over_samples(parts)
    np.testing.assert_allclose(only_scores(path, "grasp", data), expected, rtol=1e-3, atol=1e-5 * abs(expected).max())


def one_by_one(data: Data) -> Data:
    """The same in batches of one sample."""
    singles = [Batch({"x": x[None]}) for batch in data.batches() for x in batch.feed["x"]]
    return Data("one by one", False, lambda: iter(singles))


def squared_gradients(path: Path, data: Data) -> Scores:
    """weight^2 / 2 times the mean squared gradient of samples, one by one, at drawn labels."""
    parts = []
    for loss, _, w in losses(path, data, perceptron, 8, drawn=True, reduction="sum"):
        slopes = torch.autograd.grad(loss, list(w.values()))
        parts.append(own({name: (w[name] * g).square().detach().numpy() for name, g in zip(w, slopes, strict=True)}))
    return np.asarray(np.mean(parts, axis=0) / 2)


def test_obd_on_single_samples(build: Build) -> None:
    path, data = build(PERCEPTRON), one_by_one(inputs(5)[0])
    np.testing.assert_allclose(only_scores(path, "obd", data), squared_gradients(path, data), rtol=1e-4)


def test_obd_on_batches_is_the_expectation_over_predictions(build: Build) -> None:
    """Random signs and drawn labels, over many seeds, against the sum over all classes of every sample."""
    path, (data, x) = build(PERCEPTRON, v=np.random.default_rng(0).normal(0, 0.5, (8, 3))), inputs(5)
    w = tensors(path)
    expected = np.zeros(8)
    for sample in torch.from_numpy(x).double():
        logs = torch.log_softmax(perceptron(sample[None], w, torch.ones(8)), -1)[0]
        for log in logs:
            slopes = torch.autograd.grad(log, list(w.values()), retain_graph=True)
            squares = {name: (w[name] * g).square().detach().numpy() for name, g in zip(w, slopes, strict=True)}
            expected += np.exp(log.item()) * own(squares) / 2 / len(x)
    analysis = inspect(path)
    found = [score_model(analysis, analysis.groups, "obd", data, seed=seed)["w"] for seed in range(60)]
    np.testing.assert_allclose(np.mean(found, axis=0), expected, rtol=0.15)


def test_obd_is_the_diagonal_of_the_hessian(build: Build) -> None:
    """For half the squared error of a network that is linear in each weight: the squared slopes of its output."""
    path = build("""
        net (float[batch, 3] x) => (float[batch, 1] y)
        <float[3, 2] w, float[2, 1] v>
        { h = MatMul(x, w)  y = MatMul(h, v) }
    """)
    x = np.random.default_rng(0).standard_normal((1, 3)).astype(np.float32)
    data = Data("one", False, lambda: iter([Batch({"x": x})] * 600))
    w = {name: tensor.detach().numpy() for name, tensor in tensors(path).items()}
    slopes = {"w": x.T @ w["v"].T, "v": (x @ w["w"]).T}
    saliency = {name: (w[name] * slopes[name]) ** 2 / 2 for name in w}
    expected = saliency["w"].sum(0) + saliency["v"].sum(1)
    np.testing.assert_allclose(only_scores(path, "obd", data), expected, rtol=0.15)


@pytest.mark.parametrize("end", ["Identity", "Softmax"])
def test_synflow_is_what_passes_on_all_paths(build: Build, end: str) -> None:
    """1' |V| |W| 1 through each unit, once for the weights before it and once for those behind; no data."""
    path = build(f"""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v>
        {{ h = MatMul(x, w)  r = Relu(h)  s = MatMul(r, v)  y = {end}(s) }}
    """)
    w = {name: np.abs(tensor.detach().numpy()) for name, tensor in tensors(path).items()}
    analysis = inspect(path)
    (found,) = score_model(analysis, analysis.groups, "synflow").values()
    np.testing.assert_allclose(found, 2 * w["w"].sum(0) * w["v"].sum(1))


def test_synflow_is_conserved(digits: dict[str, Path], build: Build) -> None:
    """What goes through one layer goes through the next (Tanaka et al., theorem 1): no biases, no normalization."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 6] v, float[6, 3] u>
        { h = MatMul(x, w)  r = Relu(h)  i = MatMul(r, v)  s = Relu(i)  y = MatMul(s, u) }
    """)
    analysis = inspect(path)
    one, other = score_model(analysis, analysis.groups, "synflow").values()
    np.testing.assert_allclose(one.sum(), other.sum())


# -- what can go wrong


@pytest.mark.parametrize("name", ON_GRADIENTS)
def test_without_data_it_says_so(build: Build, name: str) -> None:
    analysis = inspect(build(PERCEPTRON))
    with pytest.raises(UsageError, match="give --data"):
        score_model(analysis, analysis.groups, name)


@pytest.mark.parametrize("name", ["taylor1", "snip"])
def test_labels_that_do_not_fit_are_refused(build: Build, name: str) -> None:
    analysis = inspect(build(PERCEPTRON))
    with pytest.raises(UsageError, match="labels"):
        score_model(analysis, analysis.groups, name, inputs(5, labels=LABELS + 7)[0])


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_device_that_is_not_there(build: Build, device: str) -> None:
    analysis = inspect(build(PERCEPTRON))
    with pytest.raises(UsageError, match=f"torch cannot compute on '{device}' here"):
        score_model(analysis, analysis.groups, "fisher", inputs(5)[0], device=device)


def test_without_torch_it_says_what_to_install(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "onnxprune.statistics.gradients", raising=False)
    analysis = inspect(build(PERCEPTRON))
    with pytest.raises(MissingExtraError, match=r"onnxprune\[torch\]"):
        score_model(analysis, analysis.groups, "synflow")


BESIDE_THE_DATA = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[2, 5] p, float[5, 6] w, float[6, 3] v, int64[1] one = {1}, float[5, 3] u, int64[1] zero = {0}>
    {
        s = Shape(x)  b = Slice(s, zero, one)  c = Cast<to = 1>(b)  q = Mul(p, c)  h = MatMul(q, w)  r = Tanh(h)
        m = ReduceMean<axes = [0], keepdims = 1>(r)  e = MatMul(m, v)  d = MatMul(x, u)  y = Add(d, e)
    }
"""


@pytest.mark.parametrize("name", ["taylor1", "fisher", "lda", "activation-entropy"])
def test_values_that_do_not_enumerate_the_samples(build: Build, name: str) -> None:
    """They follow from the size of the batch alone."""
    path = build(BESIDE_THE_DATA)
    analysis = inspect(path)
    found = score_model(analysis, analysis.groups, name, inputs(5, labels=LABELS)[0])
    assert all(np.isfinite(values).all() for values in found.values())
    assert "w" in found


FUSED = """
    net (float[batch, 5, 6] x) => (float[batch, 5, 4] y)
    <float[6, 24] w, float[24] b, float[8, 4] v>
    { h = com.microsoft.Attention<num_heads = 2>(x, w, b)  y = MatMul(h, v) }
"""


@pytest.mark.parametrize("name", ON_GRADIENTS)
def test_units_that_are_never_read_score_finite(build: Build, name: str) -> None:
    analysis = inspect(build(FUSED, opsets={"com.microsoft": 1}))
    x = np.random.default_rng(0).standard_normal((6, 5, 6)).astype(np.float32)
    data = Data("made up", False, lambda: iter([Batch({"x": x})]))
    for values in score_model(analysis, analysis.groups, name, data).values():
        assert np.isfinite(values).all()
        assert np.ptp(values) > 0


def test_the_model_is_left_as_it_was(build: Build) -> None:
    analysis = inspect(build(PERCEPTRON))
    before = [(node.op_type, [value.name for value in node.inputs]) for node in analysis.model.graph]
    score_model(analysis, analysis.groups, "fisher", inputs(5)[0])
    assert [(node.op_type, [value.name for value in node.inputs]) for node in analysis.model.graph] == before
