"""Random small networks with planted dead units: exactly those go, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lossless.harness import check_facts, check_lossless, feeds, removed

Array = npt.NDArray[Any]
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Tanh": np.tanh,
    "Identity": lambda x: x,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
}


@dataclass(frozen=True)
class Layer:
    """`units` outputs behind a window of `kernel`; `zeroed` units have filters of zeros, `unread` ones no reader."""

    units: int
    kernel: int
    padded: bool
    norm: bool
    function: str
    residual: bool
    zeroed: frozenset[int]
    unread: frozenset[int]
    seed: int


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    units = draw(st.sampled_from([4, 5, 7]))
    some = st.frozensets(st.integers(0, units - 1), max_size=(units - 1) // 2)
    return Layer(
        units,
        draw(st.sampled_from([1, 3])),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(sorted(FUNCTIONS))),
        draw(st.booleans()),
        draw(some),
        draw(some),
        draw(st.integers(0, 2**16)),
    )


class Network:
    """A chain of convolutions (rank 4) or linear layers (rank 2) as an ONNX model, and the units that should go."""

    def __init__(self, chain: list[Layer], spatial: bool, opset: int) -> None:
        self.spatial = spatial
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.due: dict[str, tuple[int, ...]] = {}
        value, unread, width = "x", frozenset[int](), 3
        for index, layer in enumerate(chain):
            value, constants = self._layer(f"l{index}", value, width, unread, layer)
            after = chain[index + 1] if index + 1 < len(chain) else None
            sees_all = not (spatial and after is not None and after.padded and after.kernel > 1)
            dead = {unit for unit in layer.zeroed if sees_all or constants[unit] == 0} | layer.unread
            if dead:
                self.due[f"l{index}.w"] = tuple(sorted(dead))
            unread, width = layer.unread, layer.units
        last = Layer(2, 1, False, False, "Identity", False, frozenset(), frozenset(), 0)
        value, _ = self._layer("end", value, width, unread, last)
        shape = ["batch", 3, 15, 15] if spatial else ["batch", 3]
        graph = onnx.helper.make_graph(
            self.nodes,
            "net",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None)],
            self.weights,
        )
        self.model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)

    def _layer(self, name: str, x: str, width: int, unread: frozenset[int], layer: Layer) -> tuple[str, Array]:
        """Add a layer; its output, and what its zeroed units give."""
        rng = np.random.default_rng(layer.seed)
        window = (layer.kernel, layer.kernel) if self.spatial else ()
        w = rng.standard_normal((layer.units, width, *window))
        w[sorted(layer.zeroed)] = 0
        w[:, sorted(unread)] = 0
        b = rng.standard_normal(layer.units)
        self._weight(f"{name}.b", b)
        if self.spatial:
            self._weight(f"{name}.w", w)
            pads = [layer.kernel // 2 if layer.padded else 0] * 4
            y = self._node("Conv", [x, f"{name}.w", f"{name}.b"], pads=pads)
        else:
            self._weight(f"{name}.w", w.T)
            y = self._node("Gemm", [x, f"{name}.w", f"{name}.b"])
        if layer.norm:
            scale, shift, mean = rng.standard_normal((3, layer.units))
            var = rng.uniform(0.5, 2, layer.units)
            names = [self._weight(f"{name}.{i}", array) for i, array in enumerate((scale, shift, mean, var))]
            y = self._node("BatchNormalization", [y, *names])
            b = (b - mean) / np.sqrt(var + 1e-5) * scale + shift
        if layer.residual:  # of a layer with itself: constants add up
            y = self._node("Add", [y, self._node("Neg", [self._node("Mul", [y, y])])])
            b = b - b * b
        return self._node(layer.function, [y]), FUNCTIONS[layer.function](b)

    def _weight(self, name: str, array: Array) -> str:
        self.weights.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def _node(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [output], **attributes))
        return output


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(layers(), min_size=1, max_size=4), st.booleans(), st.sampled_from([14, 17, 20]))
def test_planted_units_go_and_nothing_changes(chain: list[Layer], spatial: bool, opset: int) -> None:
    network = Network(chain, spatial, opset)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        onnx.save(network.model, path)
        inputs = feeds(path)
        check_facts(path, inputs)
        assert removed(check_lossless(path, inputs)) == network.due
