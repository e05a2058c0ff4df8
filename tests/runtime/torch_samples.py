"""The samples of the rule oracle as an oracle for torch: each node, at its oldest and newest opset, against what runs
it there (ONNX Runtime, or onnx's reference implementation where that has no kernel).
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from onnxprune.ops.base import RULES
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.runtime.torch.ops.base import TABLE
from tests.rule_oracle import PRIMES, Array, Form, Node, SampleDraw, forms, in_tests
from tests.spread import one_in

WITHOUT_TORCH = "ai.onnx.ml"  # what comes before a network; torch has none of those operators


def all_forms() -> list[Form]:
    """Everything that the tests of the rules declare, and what stands beside rules for which torch has an operator."""
    for path in sorted((Path(__file__).parents[1] / "ops").glob("test_*.py")):
        importlib.import_module(f"tests.ops.{path.stem}")
    RULES.names()
    return forms(lambda sample: (in_tests(sample) and sample.key[0] != WITHOUT_TORCH) or sample.key in TABLE)


def some_forms(count: int) -> list[Form]:
    """About one in `count` of those in tests/, and all that stand beside a rule or an operator of torch."""
    return [form for form in all_forms() if not in_tests(form.sample) or one_in(count, str(form))]


def compare(form: Form, seed: int = 0) -> None:
    """Assert that torch computes what the sample's own runtime does."""
    rng = np.random.default_rng(seed)
    drawn = form.sample.build(SampleDraw([int(prime) for prime in rng.permutation(PRIMES)], seed))
    inputs = {name: value for name, value in drawn.items() if value is None or isinstance(value, np.ndarray)}
    node = Node(form, inputs, {name: value for name, value in drawn.items() if name not in inputs})
    proto = node.proto(inputs)
    expected = node.run(proto, inputs)
    with torch.no_grad():
        outputs = TorchModel(ir.from_proto(proto))({name: inputs[name] for name in node.fed})
    for name, wanted in zip((name for name in form.sample.outputs if name), expected, strict=True):
        close(outputs[name], wanted)


def close(found: torch.Tensor, wanted: Array) -> None:
    """Equal to 1e-4 of the largest entry; integers that were rounded, to one step."""
    assert tuple(found.shape) == wanted.shape
    if wanted.dtype.kind in "iu":
        np.testing.assert_allclose(found.numpy().astype(np.int64), wanted.astype(np.int64), atol=1)
    elif wanted.dtype.kind == "b":
        np.testing.assert_array_equal(found.numpy(), wanted)
    else:
        assert found.is_floating_point()
        exact = wanted.astype(np.float64)
        scale = np.abs(exact[np.isfinite(exact)]).max(initial=0)
        tolerance = 2e-3 if wanted.dtype.itemsize < 4 else 1e-4
        np.testing.assert_allclose(found.double().numpy(), exact, rtol=tolerance, atol=tolerance * scale)
