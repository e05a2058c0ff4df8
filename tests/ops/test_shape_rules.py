"""Shape rules against what the operators give: each operator that onnx does not know has one that tells the truth."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.analysis import shapes
from onnxprune.ops.base import RULES, SHAPES
from tests.rule_oracle import PRIMES, SAMPLES, Form, Node, SampleDraw, opsets

for file in sorted(Path(__file__).parent.glob("test_*.py")):
    if file != Path(__file__):
        importlib.import_module(f"{__package__}.{file.stem}")

RULES.names()  # samples beside rules are declared now
FORMS = [Form(sample, opsets(sample)[-1]) for key in SHAPES for sample in SAMPLES.get(key, [])]


def test_every_operator_of_onnxruntime_has_one() -> None:
    assert not {".".join(key) for key in set(RULES) - set(SHAPES) if key[0]}


def test_every_one_is_tried() -> None:
    assert not {".".join(key) for key in set(SHAPES) - set(SAMPLES)}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_shapes_and_types(form: Form) -> None:
    drawn = form.sample.build(SampleDraw(PRIMES, 0))
    inputs = {name: value for name, value in drawn.items() if value is None or isinstance(value, np.ndarray)}
    node = Node(form, inputs, {name: value for name, value in drawn.items() if name not in inputs})
    proto = node.proto(inputs)
    results = node.run(proto, inputs)
    found = shapes.infer(ir.from_proto(proto))
    assert not found.failures
    for name, result in zip(filter(None, form.sample.outputs), results, strict=True):
        assert found.shapes[name] == result.shape
        if form.sample.runtime == "ort":
            assert found.dtypes[name] == ir.DataType.from_numpy(result.dtype)
