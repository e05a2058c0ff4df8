"""Criteria on gradients against small networks written in torch by hand, with gates on their units.

Where labels are drawn, the hand-written network is given the same ones: the loss is asked for them in the same order.
What is an expectation over labels is summed over all classes.
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
from onnxprune.steps.base import Context
from onnxprune.steps.prune.criteria.base import Scores, ScoringContext, WeightReader, criteria, weight_sizes
from onnxprune.steps.prune.score import score_model, score_units
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


BIASED = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[8, 5] w, float[8] b, float[8, 3] v, float[3] c>
    { h = Gemm<transB = 1>(x, w, b)  r = Tanh(h)  m = MatMul(r, v)  y = Add(m, c) }
"""
Network = Callable[[Tensor, dict[str, Tensor], Tensor], Tensor]


def perceptron(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
    return (torch.tanh(x @ w["w"].T + w["b"]) * gates) @ w["v"]


def losses(
    path: Path, data: Data, network: Network, units: int, *, reduction: str
) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Loss, gates [samples, units] and weights for each batch."""
    loss = make_loss("auto", ["y"], 0, reduction)
    w = tensors(path)
    for batch in data.batches():
        x = torch.from_numpy(batch.feed["x"]).double()
        gates = torch.ones(len(x), units, dtype=torch.float64, requires_grad=True)
        labels = None if batch.labels is None else torch.from_numpy(batch.labels)
        yield loss({"y": network(x, w, gates)}, labels), gates, w


def derivatives(path: Path, data: Data, network: Network, units: int) -> Array:
    """Of each sample's loss by each unit's gate: [samples, units]."""
    found = [
        torch.autograd.grad(loss, gates)[0].numpy()
        for loss, gates, _ in losses(path, data, network, units, reduction="sum")
    ]
    return np.concatenate(found)


def curvatures(path: Path, x: Array, network: Network, units: int) -> Array:
    """The mean second derivative by each gate, summed over all classes instead of drawn: sum of p * (d log p)^2."""
    w, total = tensors(path), np.zeros(units)
    for sample in torch.from_numpy(x).double():
        gates = torch.ones(1, units, dtype=torch.float64, requires_grad=True)
        for log in torch.log_softmax(network(sample[None], w, gates), -1)[0]:
            (slope,) = torch.autograd.grad(log, gates, retain_graph=True)
            total += np.exp(log.item()) * slope[0].numpy() ** 2
    return total / len(x)


# -- units


@pytest.mark.parametrize("labels", [None, LABELS], ids=["drawn", "given"])
def test_taylor1(build: Build, labels: Array | None) -> None:
    path, (data, _) = build(PERCEPTRON), inputs(5, labels=labels)
    each = derivatives(path, data, perceptron, 8)
    np.testing.assert_allclose(only_scores(path, "taylor1", data), np.abs(each).mean(0), rtol=1e-4)


def repeated(x: Array, times: int, labels: Array | None = None) -> Data:
    """The same samples many times, so that what is drawn averages out."""
    given = None if labels is None else np.tile(labels, times)
    return Data("repeated", labels is not None, lambda: iter([Batch({"x": np.tile(x, (times, 1))}, given)]))


def test_fisher_never_looks_at_labels(build: Build) -> None:
    path = build(PERCEPTRON)
    without, given = (only_scores(path, "fisher", inputs(5, labels=labels)[0]) for labels in (None, LABELS))
    np.testing.assert_array_equal(without, given)


def test_fisher_is_the_expectation_over_the_models_predictions(build: Build) -> None:
    path = build(PERCEPTRON, v=np.random.default_rng(0).normal(0, 0.5, (8, 3)))
    x = inputs(5)[1][:6]
    expected = curvatures(path, x, perceptron, 8) / 2
    np.testing.assert_allclose(only_scores(path, "fisher", repeated(x, 4000)), expected, rtol=0.03)


def test_fisher_ranks_alike_with_another_seed(build: Build) -> None:
    """With one drawn label for each sample the correlation of ranks is .64 on average here."""
    path, (data, _) = build(PERCEPTRON, v=np.random.default_rng(0).normal(0, 0.5, (8, 3))), inputs(5)
    analysis = inspect(path)
    found = [score_model(analysis, analysis.groups, "fisher", data, seed=seed)["w"] for seed in range(8)]
    ranks = np.argsort(np.argsort(found, axis=1), axis=1)
    assert np.corrcoef(ranks)[np.triu_indices(8, 1)].mean() > 0.8


def test_empirical_fisher_is_the_mean_square_at_the_labels_of_the_data(build: Build) -> None:
    path, (data, _) = build(PERCEPTRON), inputs(5, labels=LABELS)
    each = derivatives(path, data, perceptron, 8)
    np.testing.assert_allclose(only_scores(path, "empirical-fisher", data), (each**2).mean(0) / 2, rtol=1e-4)


def test_taylor2(build: Build) -> None:
    """Slopes at the labels, curvatures exact: as large as the slopes here, so that their sign matters."""
    path, x = build(PERCEPTRON, v=np.random.default_rng(0).normal(0, 1, (8, 3))), inputs(5)[1][:6]
    labels = np.array([0, 1, 2, 0, 1, 2])
    data = Data("six", True, lambda: iter([Batch({"x": x}, labels)]))
    slopes = derivatives(path, data, perceptron, 8)
    expected = np.abs(curvatures(path, x, perceptron, 8) / 2 - slopes).mean(0)
    turned = np.abs(curvatures(path, x, perceptron, 8) / 2 + slopes).mean(0)
    found = only_scores(path, "taylor2", repeated(x, 4000, labels))
    np.testing.assert_allclose(found, expected, rtol=0.03)
    assert np.abs(turned / expected - 1).max() > 0.09


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
    each = derivatives(path, data, network, 6)
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
    each = derivatives(path, data, network, 6)
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
    each = derivatives(path, data, network, 6)
    np.testing.assert_allclose(only_scores(path, "taylor1", data), np.abs(each).mean(0), rtol=1e-4)


def test_queries_and_keys(build: Build) -> None:
    """A unit is an entry of both and one term of the product: its gate is on one side."""
    path = build("""
        net (float[batch, 7, 5] x) => (float[batch, 3] y)
        <float[5, 4] q, float[5, 4] k, float[5, 3] v, int64[1] axis = {1}>
        {
            a = MatMul(x, q)  b = MatMul(x, k)  t = Transpose<perm = [0, 2, 1]>(b)  s = MatMul(a, t)
            p = Softmax<axis = -1>(s)  o = MatMul(x, v)  z = MatMul(p, o)  y = ReduceMean<axes = [1], keepdims = 0>(z)
        }
    """)

    def network(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
        q, k = x @ w["q"] * gates[:, None], x @ w["k"]
        return (torch.softmax(q @ k.transpose(1, 2), -1) @ (x @ w["v"])).mean(1)

    data, _ = inputs(7, 5, labels=LABELS)
    analysis = inspect(path)
    found = score_model(analysis, analysis.groups, "taylor1", data)["q:head-dim"]
    each = derivatives(path, data, network, 4)
    np.testing.assert_allclose(found, np.abs(each).mean(0), rtol=1e-4)


GROUPED = """
    net (float[batch, 3, 6, 6] x) => (float[batch, 3] y)
    <float[12, 3, 3, 3] w, SHAPE g, float[3, 8, 1, 1] v>
    {
        h = Conv<pads = [1, 1, 1, 1]>(x, w)  r = Relu(h)
        k = OPERATOR<group = 4, pads = [1, 1, 1, 1]>(r, g)  t = Tanh(k)
        c = Conv(t, v)  y = ReduceMean<axes = [2, 3], keepdims = 0>(c)
    }
"""


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_outer_groups_of_a_grouped_convolution_are_read_behind_it(build: Build, operator: str) -> None:
    """They go through it; what is summed at its input are the channels inside a group."""
    shape = {"Conv": "float[8, 3, 3, 3]", "ConvTranspose": "float[12, 2, 3, 3]"}[operator]
    path = build(GROUPED.replace("OPERATOR", operator).replace("SHAPE", shape))
    apply = {"Conv": torch.nn.functional.conv2d, "ConvTranspose": torch.nn.functional.conv_transpose2d}[operator]

    def network(x: Tensor, w: dict[str, Tensor], gates: Tensor) -> Tensor:
        r = torch.relu(torch.nn.functional.conv2d(x, w["w"], padding=1))
        t = torch.tanh(apply(r, w["g"], padding=1, groups=4)) * gates.repeat_interleave(2, 1)[:, :, None, None]
        return torch.nn.functional.conv2d(t, w["v"]).mean((2, 3))

    data, x = inputs(3, 6, 6, labels=LABELS)
    analysis = inspect(path)
    (outer,) = (group for group in analysis.groups if group.units == 4)
    each = derivatives(path, data, network, 4)
    found = score_model(analysis, [outer], "taylor1", data)[outer.id]
    np.testing.assert_allclose(found, np.abs(each).mean(0), rtol=1e-4)
    w = tensors(path)
    with torch.no_grad():
        r = torch.relu(torch.nn.functional.conv2d(torch.from_numpy(x).double(), w["w"], padding=1))
        t = torch.tanh(apply(r, w["g"], padding=1, groups=4)).numpy()
    due = np.abs(t).mean((0, 2, 3)).reshape(4, 2).mean(1)
    np.testing.assert_allclose(score_model(analysis, [outer], "activation-mean", data)[outer.id], due, rtol=1e-4)


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
    each = derivatives(path, data, network, 6)
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
    for loss, _, w in losses(path, data, perceptron, 8, reduction="mean"):
        slopes = torch.autograd.grad(loss, list(w.values()))
        parts.append({name: (w[name] * g).abs().detach().numpy() for name, g in zip(w, slopes, strict=True)})
    np.testing.assert_allclose(only_scores(path, "snip", data), mean_over_samples(parts), rtol=1e-4)


@pytest.mark.parametrize(("score", "name"), [(np.square, "taylor-weights"), (lambda each: each, "taylor-group")])
def test_taylor_of_weights(build: Build, score: Callable[[Array], Array], name: str) -> None:
    path, (data, _) = build(PERCEPTRON), inputs(5, labels=LABELS)
    parts = []
    for loss, _, w in losses(path, data, perceptron, 8, reduction="mean"):
        slopes = torch.autograd.grad(loss, list(w.values()))
        parts.append(own({key: score((w[key] * g).detach().numpy()) for key, g in zip(w, slopes, strict=True)}))
    mean = np.average(parts, axis=0, weights=SIZES)
    expected = mean if name == "taylor-weights" else np.mean(np.square(parts), axis=0)
    np.testing.assert_allclose(only_scores(path, name, data), expected, rtol=1e-4)


def test_grasp(build: Build) -> None:
    """Against the whole Hessian; the last bias has no prunable axis, yet is part of the gradient."""
    path, (data, _) = build(BIASED), inputs(5, labels=LABELS)
    shapes = {name: w.shape for name, w in tensors(path).items()}
    sizes = [shape.numel() for shape in shapes.values()]
    flat = torch.cat([w.detach().ravel() for w in tensors(path).values()])
    parts = []
    for batch in data.batches():
        x, labels = torch.from_numpy(batch.feed["x"]).double(), torch.from_numpy(batch.labels)

        def loss(every: Tensor, x: Tensor = x, labels: Tensor = labels) -> Tensor:
            w = {name: part.reshape(shapes[name]) for name, part in zip(shapes, every.split(sizes), strict=True)}
            return torch.nn.functional.cross_entropy(perceptron(x, w, torch.ones(8)) + w["c"], labels)

        slope = torch.autograd.functional.jacobian(loss, flat)
        scores = flat * (torch.autograd.functional.hessian(loss, flat) @ slope)
        split = zip(shapes, scores.split(sizes), strict=True)
        parts.append({name: part.reshape(shapes[name]).numpy() for name, part in split})
    expected = mean_over_samples(parts)
    np.testing.assert_allclose(only_scores(path, "grasp", data), expected, rtol=1e-3, atol=1e-5 * abs(expected).max())


def test_obd_on_batches_is_the_expectation_over_predictions(build: Build) -> None:
    """Random probes, over many seeds, against the sum over all classes of every sample."""
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


def test_obd_ranks_alike_with_another_seed_though_all_samples_come_in_one_batch(build: Build) -> None:
    """Were the gradients of the whole batch summed before they are squared, it would be .6 on average."""
    path = build(PERCEPTRON, v=np.random.default_rng(0).normal(0, 0.5, (8, 3)))
    x = np.random.default_rng(1).standard_normal((256, 5)).astype(np.float32)
    data = Data("one batch", False, lambda: iter([Batch({"x": x})]))
    analysis = inspect(path)
    found = [score_model(analysis, analysis.groups, "obd", data, seed=seed)["w"] for seed in range(8)]
    ranks = np.argsort(np.argsort(found, axis=1), axis=1)
    assert np.corrcoef(ranks)[np.triu_indices(8, 1)].mean() > 0.85


def test_obd_of_a_model_that_takes_one_batch_size(build: Build) -> None:
    """Nothing can be cut then: all samples of a batch are probed together."""
    path = build(PERCEPTRON.replace("batch", "20"))
    x = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)
    assert only_scores(path, "obd", Data("fixed", False, lambda: iter([Batch({"x": x})]))).min() > 0


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


def test_synflow_with_biases_and_normalization(build: Build) -> None:
    """Everything that is stored counts with its absolute value: biases, scales, shifts and running statistics."""
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8] b, float[8] scale, float[8] shift, float[8] mean,
         float[8] var = {1, 2, 3, 4, 5, 6, 7, 8}, float[8, 3] v>
        {
            m = MatMul(x, w)  h = Add(m, b)  n = BatchNormalization<epsilon = 0.001>(h, scale, shift, mean, var)
            r = Relu(n)  y = MatMul(r, v)
        }
    """)
    w = {name: tensor.detach().abs().requires_grad_() for name, tensor in tensors(path).items()}
    h = torch.ones(5, dtype=torch.float64) @ w["w"] + w["b"]
    n = (h - w["mean"]) / torch.sqrt(w["var"] + float(np.float32(0.001))) * w["scale"] + w["shift"]
    names = ["w", "b", "scale", "shift", "v"]
    slopes = torch.autograd.grad((torch.relu(n) @ w["v"]).sum(), [w[name] for name in names])
    flow = {name: (w[name] * slope).detach().numpy() for name, slope in zip(names, slopes, strict=True)}
    expected = flow["w"].sum(0) + flow["b"] + flow["scale"] + flow["shift"] + flow["v"].sum(1)
    analysis = inspect(path)
    (found,) = score_model(analysis, analysis.groups, "synflow").values()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


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
    data = Data("made up", True, lambda: iter([Batch({"x": x}, np.zeros((6, 5), np.int64))]))
    for values in score_model(analysis, analysis.groups, name, data).values():
        assert np.isfinite(values).all()
        assert np.ptp(values) > 0


@pytest.mark.parametrize("name", ["taylor1", "obs"])
def test_groups_that_are_never_read_are_said_and_share_the_scale_of_the_others(build: Build, name: str) -> None:
    """Sizes of weights beside changes of a loss: a global ranking would never cut them."""
    path = build(FUSED, opsets={"com.microsoft": 1})
    analysis = inspect(path)
    x = np.random.default_rng(0).standard_normal((6, 5, 6)).astype(np.float32)
    context = Context(data=Data("made up", False, lambda: iter([Batch({"x": x})])))
    found = score_units(context, analysis, analysis.groups, name)
    assert 0 < len(found.unseen) < len(analysis.groups)
    seen = np.concatenate([values for name, values in found.scores.items() if name not in found.unseen])
    scoring = ScoringContext(analysis, WeightReader(analysis))
    for group in analysis.groups:
        if group.id in found.unseen:
            sizes = weight_sizes(group, scoring)
            np.testing.assert_allclose(found.scores[group.id], sizes / sizes.mean() * seen.mean(), rtol=1e-6)
    alone = score_units(context, analysis, [g for g in analysis.groups if g.id in found.unseen], name)
    for group_id, values in alone.scores.items():
        np.testing.assert_allclose(values, found.scores[group_id], rtol=1e-6)
    (remark,) = found.remarks(name)
    assert remark.startswith(f"criterion '{name}' cannot see {found.unseen[0]}")


def test_ranks_of_a_group_that_is_never_read_stay_ranks(build: Build) -> None:
    """A combination is on one scale as it is: nothing is divided by a mean that may be zero."""
    analysis = inspect(build(FUSED, opsets={"com.microsoft": 1}))
    x = np.random.default_rng(0).standard_normal((6, 5, 6)).astype(np.float32)
    context = Context(data=Data("made up", False, lambda: iter([Batch({"x": x})])))
    found = score_units(context, analysis, analysis.groups, "taylor1*0.7 - l2*0.3")
    parts = [score_model(analysis, analysis.groups, name, context.data) for name in ("taylor1", "l2")]
    assert found.unseen
    for name, values in found.scores.items():
        first, second = (np.argsort(np.argsort(part[name])) / (len(values) - 1) for part in parts)
        np.testing.assert_allclose(values, 0.7 * first - 0.3 * second, atol=1e-9)


def test_the_model_is_left_as_it_was(build: Build) -> None:
    analysis = inspect(build(PERCEPTRON))
    before = [(node.op_type, [value.name for value in node.inputs]) for node in analysis.model.graph]
    score_model(analysis, analysis.groups, "fisher", inputs(5)[0])
    assert [(node.op_type, [value.name for value in node.inputs]) for node in analysis.model.graph] == before
