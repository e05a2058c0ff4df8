"""Gradients against finite differences, in double precision, for every operator that has a sample.

For outputs y, a random v and a random direction d of all that varies, v · (y(x + εd) - y(x - εd)) / 2ε is what the
gradient of v · y says along d. Operators that round on purpose are the exception: their gradient passes straight
through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from onnxprune.model.file import open_model
from onnxprune.runtime.torch.module import TorchModel
from tests.conftest import Build
from tests.rule_oracle import PRIMES, Form, Node, SampleDraw
from tests.runtime.torch_samples import all_forms, some_forms

STEP = 1e-6

# Samples whose gradient is not the slope on purpose, or that have none.
NO_SLOPE = {
    "rounded: the gradient passes straight through": [
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
        "QLinearAdd", "QLinearMul", "QLinearWhere", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearConcat",
        "QLinearSoftmax", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearConv", "QLinearMatMul", "QGemm",
    ],
    "an exponent for all is a number, not a weight": ["Pow"],
    "drawn at random": ["Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike", "Dropout"],
    "the samples lie on steps or kinks: equal entries, boxes on pixels": ["Unique", "MaxRoiPool", "RoiAlign"],
}  # fmt: skip
EXCLUDED = {name for names in NO_SLOPE.values() for name in names}


def _model(form: Form, seed: int = 0) -> tuple[TorchModel, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    drawn = form.sample.build(SampleDraw([int(prime) for prime in rng.permutation(PRIMES)], seed))
    inputs = {name: value for name, value in drawn.items() if value is None or isinstance(value, np.ndarray)}
    node = Node(form, inputs, {name: value for name, value in drawn.items() if name not in inputs})
    module = TorchModel(ir.from_proto(node.proto(inputs)), precision="float64")
    return module, {name: torch.from_numpy(np.array(inputs[name])) for name in node.fed if inputs[name] is not None}


class Line:
    """A model's float inputs and weights along a random direction, and a random sum of its outputs.

    `sums` is empty where no output has a gradient.
    """

    def __init__(self, module: TorchModel, feed: Mapping[str, Tensor], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        varied = {name: value.double().requires_grad_() for name, value in feed.items() if value.is_floating_point()}
        self.run = lambda: module({**feed, **varied})
        self.leaves = [*varied.values(), *module.weights.values()]
        self.direction = [_random(leaf, generator) for leaf in self.leaves]
        outputs = self.run()
        floats = {k: value for k, value in outputs.items() if isinstance(value, Tensor) and value.requires_grad}
        self.sums = {name: _random(value, generator) for name, value in floats.items()}

    def total(self) -> Tensor:
        """The sum of the outputs where they are finite."""
        found = self.run()
        parts = [torch.nan_to_num(found[name], neginf=0, posinf=0) * weight for name, weight in self.sums.items()]
        return torch.stack([part.sum() for part in parts]).sum()

    def slope(self, value: Tensor, again: bool = False) -> Tensor:
        """What the gradient of a value says along the direction; `again`: it can be differentiated once more."""
        gradients = torch.autograd.grad(value, self.leaves, allow_unused=True, create_graph=again)
        parts = [(g * d).sum() for g, d in zip(gradients, self.direction, strict=True) if g is not None]
        return torch.stack(parts).sum() if parts else torch.zeros((), dtype=torch.float64)

    def measured(self, function: Callable[[], Tensor]) -> float:
        """The slope of a function along the direction, by central differences."""
        values = []
        for sign in (1, -2):
            with torch.no_grad():
                for leaf, direction in zip(self.leaves, self.direction, strict=True):
                    leaf += sign * STEP * direction
            values.append(float(function().detach()))
        return (values[0] - values[1]) / (2 * STEP)


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


def _lines(forms: list[Form]) -> Iterator[tuple[str, Line]]:
    for form in forms:
        if form.sample.key[1] not in EXCLUDED:
            line = Line(*_model(form))
            if line.sums:
                yield str(form), line


def _verify_first(forms: list[Form]) -> int:
    slopes = {name: (float(line.slope(line.total())), line.measured(line.total)) for name, line in _lines(forms)}
    wrong = {name: pair for name, pair in slopes.items() if not _equal(*pair, 1e-5)}
    assert not wrong
    return len(slopes)


def _verify_second(forms: list[Form]) -> int:
    """Products of the Hessian with the direction, as second-order criteria take them."""
    slopes = {}
    for name, line in _lines(forms):
        first = line.slope(line.total(), again=True)
        if first.requires_grad:  # not linear in everything
            told = float(line.slope(first))
            slopes[name] = (told, line.measured(lambda line=line: line.slope(line.total())))  # type: ignore[misc]
    wrong = {name: pair for name, pair in slopes.items() if not _equal(*pair, 1e-4)}
    assert not wrong
    return len(slopes)


def _equal(told: float, measured: float, tolerance: float) -> bool:
    return abs(measured - told) <= tolerance * max(1.0, abs(measured))


def test_a_spread_of_gradients() -> None:
    assert _verify_first(some_forms(4)) > 100


def test_a_spread_of_second_derivatives() -> None:
    assert _verify_second(some_forms(16)) > 15


@pytest.mark.slow
def test_all_gradients() -> None:
    assert _verify_first(all_forms()) > 500


@pytest.mark.slow
def test_all_second_derivatives() -> None:
    assert _verify_second(all_forms()) > 300


GRAPHS = {
    "convolution": ("float[2, 2, 5, 5] x", "y = Conv<pads = [1, 0, 1, 2]>(x, w)", "float[3, 2, 3, 3] w"),
    "attention": ("float[1, 2, 3, 4] x", "y = Attention<is_causal = 1>(x, x, x)", ""),
    "norm": ("float[2, 3, 4] x", "y = LayerNormalization(x, w)", "float[4] w"),
    "statistics": (  # computed in the graph, as scaled weight standardization does
        "float[4, 3, 2] x",
        """m = ReduceMean<keepdims = 0>(x, a)  v = ReduceSumSquare<keepdims = 0>(x, a)
           y = BatchNormalization(x, w, b, m, v)""",
        "int64[2] a = {0, 2}, float[3] w, float[3] b",
    ),
    "recurrence": ("float[3, 1, 2] x", "a, y = GRU<hidden_size = 2>(x, w, r)", "float[1, 6, 2] w, float[1, 6, 2] r"),
    "gather": ("float[4, 3] x", "y = Gather(x, i)", "int64[3] i = {2, 0, -1}"),
    "pooling": ("float[1, 2, 6, 6] x", "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 0, 1]>(x)", ""),
    "resize": ("float[1, 1, 3, 4] x", 'y = Resize<mode = "cubic">(x, , s)', "float[4] s = {1.0, 1.0, 2.0, 1.5}"),
    "reduction": ("float[3, 4] x", "y = ReduceLogSumExp<keepdims = 0>(x)", ""),
}


@pytest.mark.parametrize("family", GRAPHS)
def test_the_whole_jacobian(family: str, build: Build) -> None:
    declared, node, weights = GRAPHS[family]
    header = f"net ({declared}) => (float y)"
    path = build(f"{header} <{weights}> {{ {node} }}" if weights else f"{header} {{ {node} }}", opset=23)
    module = TorchModel(open_model(path), precision="float64")
    shape = [int(size) for size in declared[declared.index("[") + 1 : declared.index("]")].split(",")]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: module({"x": given})["y"], (x,))


def test_gradients_pass_straight_through_quantization(build: Build) -> None:
    path = build("""
        net (float[2, 3] x) => (float[2, 3] y) <float s = {0.5}, uint8 z = {128}, float[3] w>
        { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Mul(d, w) }
    """)
    module = TorchModel(open_model(path))
    x = torch.tensor([[0.3, -1.1, 500.0], [2.0, 0.1, -500.0]], requires_grad=True)
    y = module({"x": x})["y"]
    torch.testing.assert_close(y.detach(), module({"x": x.detach()})["y"].detach())
    y.sum().backward()
    assert x.grad is not None
    w = module.weights["w"].detach()
    expected = torch.stack([w, w]) * torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])  # nothing beyond the range
    torch.testing.assert_close(x.grad, expected)


def test_a_quantized_output_is_an_integer_again(build: Build) -> None:
    path = build(
        "net (float[2, 3] x) => (uint8[2, 3] q) <float s = {0.5}, uint8 z = {3}> { q = QuantizeLinear(x, s, z) }"
    )
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    found = TorchModel(open_model(path))({"x": x})["q"]
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), np.clip(np.rint(x.numpy() / 0.5) + 3, 0, 255))


def _weights_with_gradient(model: Any, feed: dict[str, Any]) -> tuple[int, int]:
    """How many float weights have a gradient, which has to be finite, and how many there are."""
    module = TorchModel(ir.from_proto(model))
    outputs = module(feed)
    floats = [value.square().mean() for value in outputs.values() if isinstance(value, Tensor) and value.requires_grad]
    torch.stack(floats).sum().backward()
    gradients = [weight.grad for weight in module.weights.values() if weight.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    return len(gradients), len(module.weights)


@pytest.mark.parametrize("name", ["hf.llama.dy23", "hm.lstm.dy", "timm.ghostnet_050.ts17"])
def test_gradients_reach_the_weights_of_the_zoo(name: str, zoo: ModuleType) -> None:
    model = zoo.load(name)
    reached, count = _weights_with_gradient(model, zoo.inputs(model, seed=0))
    assert reached > 0.9 * count


@pytest.mark.slow
def test_gradients_reach_the_weights_of_the_whole_zoo(zoo: ModuleType) -> None:
    missing = {}
    for name in zoo.names():
        model = zoo.load(name)
        reached, count = _weights_with_gradient(model, zoo.inputs(model, seed=0))
        if reached < 0.5 * count:
            missing[name] = (reached, count)
    assert not missing
