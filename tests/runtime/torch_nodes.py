"""The official ONNX backend node tests, run by the torch executor.

They come as models of one node (the `_expanded` ones of its definition) with inputs and expected outputs. Everything is
computed in the types of the model and compared with the tolerance that the test states; outputs of 16 bits, which are
rounded at every step, to four units in the last place.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch

from onnxprune.errors import ModelError
from onnxprune.runtime.torch.module import TorchModel
from tests.spread import one_in

# Closer than this to what is expected nothing has to be: some expected zeros are rounding errors themselves.
LEAST = 1e-6
# Relative, by element type: four units in the last place.
ROUNDED = {"bfloat16": 2**-6, "float16": 2**-9}


@dataclass(frozen=True)
class Outcome:
    """What became of a test: "passed", "failed" or "unsupported", and why."""

    name: str
    operators: tuple[str, ...]
    verdict: str
    why: str = ""


@functools.cache
def cases() -> list[Any]:
    """All of them, in a fixed order."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(collect_testcases(None), key=lambda case: case.name)


def spread(each: int) -> list[Any]:
    """The first test of every operator, and about one in `each` of the others."""
    seen: set[str] = set()
    chosen = []
    for case in cases():
        operator = case.model.graph.node[0].op_type if len(case.model.graph.node) == 1 else "expanded"
        if operator not in seen or one_in(each, case.name):
            chosen.append(case)
        seen.add(operator)
    return chosen


def attempt(case: Any) -> Outcome:
    """Run one test."""
    operators = tuple(sorted({node.op_type for node in case.model.graph.node}))
    torch.manual_seed(0)
    try:
        model = TorchModel(ir.from_proto(case.model), precision="stored")
    except ModelError as error:
        return Outcome(case.name, operators, "unsupported", str(error))
    try:
        for inputs, expected in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            feed = {name: _plain(given) for name, given in zip(names, inputs, strict=True)}
            with torch.no_grad():
                model(feed)
                torch.manual_seed(0)
                found = model(feed)  # by the program for these shapes
            for output, wanted in zip(case.model.graph.output, expected, strict=True):
                _compare(found[output.name], _plain(wanted), case.rtol, case.atol)
    except (AssertionError, ModelError) as error:
        return Outcome(case.name, operators, "failed", " ".join(str(error).split())[:200])
    return Outcome(case.name, operators, "passed")


def _plain(value: Any) -> Any:
    """Arrays, lists of them, and None."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def _compare(found: Any, wanted: Any, relative: float, absolute: float) -> None:
    if wanted is None or isinstance(wanted, list):
        assert isinstance(found, type(wanted)), f"{type(found)} where {type(wanted)} is due"
        for entry, due in zip(found or [], wanted or [], strict=True):
            _compare(entry, due, relative, absolute)
        return
    array, due = _numpy(found), np.asarray(wanted)
    relative = max(relative, ROUNDED.get(due.dtype.name, 0.0))
    if due.dtype.kind not in "biufc":  # the types of ml_dtypes
        due = due.astype(np.int8 if "int" in due.dtype.name else np.float32)
    assert array.shape == due.shape, f"shape {array.shape} where {due.shape} is due"
    assert _kind(array) == _kind(due), f"{array.dtype} where {due.dtype} is due"
    if array.dtype.kind == "i" and due.dtype.kind == "u":  # carried in a wider type
        array = array.astype(due.dtype)
    np.testing.assert_allclose(array, due, rtol=relative, atol=max(absolute, LEAST))


def _kind(array: npt.NDArray[Any]) -> str:
    return "integer" if array.dtype.kind in "iu" else array.dtype.kind


def _numpy(value: torch.Tensor) -> npt.NDArray[Any]:
    if value.is_floating_point() and value.dtype not in (torch.float16, torch.float32, torch.float64):
        value = value.float()
    return value.numpy()


def stored_models() -> list[Path]:
    """The models of opsets 6 to 9 that come with onnx, with inputs and outputs beside them; none of them has text."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    found = [path for kind in ("simple", "pytorch-converted", "pytorch-operator") for path in (data / kind).glob("*")]
    skipped = ("test_strnorm", "test_gradient")
    return sorted(path for path in found if (path / "model.onnx").exists() and not path.name.startswith(skipped))


def attempt_stored(folder: Path) -> None:
    """Assert that a stored model gives its stored outputs."""
    model = onnx.load(folder / "model.onnx")
    module = TorchModel(ir.from_proto(model), precision="stored")
    for data in sorted(folder.glob("test_data_set_*")):
        with torch.no_grad():
            found = module(dict(zip(module.inputs, _stored(data, "input"), strict=False)))
        for output, wanted in zip(model.graph.output, _stored(data, "output"), strict=True):
            _compare(found[output.name], wanted, 1e-3, 1e-5)


def _stored(folder: Path, kind: str) -> list[npt.NDArray[Any]]:
    files = [folder / f"{kind}_{index}.pb" for index in range(len(list(folder.glob(f"{kind}_*.pb"))))]
    return [onnx.numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files]
