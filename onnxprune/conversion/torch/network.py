"""A torch module with its example inputs: named as its `forward` names them, and run from arrays by name."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten_with_path, tree_map_with_path

from onnxprune.conversion.base import ExportOptions
from onnxprune.conversion.torch.axes import Axes
from onnxprune.errors import DataError, UsageError
from onnxprune.model.signature import Feed


@dataclass(frozen=True)
class TorchNetwork:
    """The arguments for exporters of torch.

    Attributes:
        module: a module, which is run in evaluation mode, or a program that torch has exported already.
        arguments: of its `forward`, by name; what is not a tensor is the same in every run.
        axes: per input, axes whose size stays open.
        options: how it is exported.
    """

    module: nn.Module | ExportedProgram
    arguments: inspect.BoundArguments
    axes: Axes
    options: ExportOptions

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The tensors among the arguments, in the order of the file's inputs; those inside of lists by their path."""
        return tensors_in(dict(self.arguments.arguments))

    def with_inputs(self, tensors: Mapping[str, Tensor]) -> inspect.BoundArguments:
        """The arguments with other tensors."""
        changed = tree_map_with_path(
            lambda path, leaf: tensors[path_text(path)] if isinstance(leaf, Tensor) else leaf,
            dict(self.arguments.arguments),
        )
        return inspect.BoundArguments(self.arguments.signature, changed)

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name, in the order of the file's."""
        arguments = self.with_inputs(tensors)
        module = self.module.module() if isinstance(self.module, ExportedProgram) else self.module
        with torch.no_grad(), evaluating(self.module):
            made = module(*arguments.args, **arguments.kwargs)
        found = {"output": made} if isinstance(made, Tensor) else tensors_in(made)
        return {f"{name}_out" if name in tensors else name: tensor for name, tensor in found.items()}

    def run(self, feed: Feed) -> list[Any]:
        """Arrays in, arrays out."""
        device = next((tensor.device for tensor in self.inputs.values()), None)
        outputs = self({name: torch.from_numpy(np.array(array)).to(device) for name, array in feed.items()})
        return [as_array(tensor) for tensor in outputs.values()]


def as_array(tensor: Tensor) -> Any:
    """A tensor as an array; bfloat16, which numpy does not know, as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def tensors_in(tree: Any) -> dict[str, Tensor]:
    """The tensors of nested tuples, lists and dicts by the path that leads to them: `mask`, `past.0`."""
    return {path_text(path): leaf for path, leaf in tree_flatten_with_path(tree)[0] if isinstance(leaf, Tensor)}


def path_text(path: Any) -> str:
    """`past.0` for the path to an entry of a tree; entries of a tuple alone are `output.0`."""
    keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    return ".".join(keys if keys and not keys[0].isdecimal() else ["output", *keys])


def bound(module: nn.Module, example_inputs: Any) -> inspect.BoundArguments:
    """Example inputs as arguments of `forward`: a tensor, a tuple of positional ones, a dict by name.

    Raises UsageError where there are none, DataError where `forward` does not take them.
    """
    if example_inputs is None:
        raise UsageError(
            "the network needs example inputs: --example images:2x3x224x224, or a function that returns them beside it"
        )
    place = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    args, kwargs = (), {}
    if isinstance(example_inputs, Mapping):
        kwargs = {name: _as_tensors(value, place) for name, value in example_inputs.items()}
    else:
        several = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
        args = tuple(_as_tensors(value, place) for value in several)
    try:
        return inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise DataError(f"the example inputs do not fit {type(module).__name__}.forward: {error}") from error


def _as_tensors(value: Any, place: torch.device) -> Any:
    return tree_map_with_path(
        lambda _, leaf: torch.as_tensor(leaf, device=place) if isinstance(leaf, np.ndarray | Tensor) else leaf, value
    )


_DTYPES = {"bool": torch.bool, "int64": torch.int64, "int32": torch.int32, "float16": torch.float16}
_DTYPES |= {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "uint8": torch.uint8}


def made_examples(texts: tuple[str, ...]) -> dict[str, Tensor]:
    """Inputs made up from texts like `images:2x3x224x224` or `ids:2x16:int64`: normal numbers, or zeros and ones.

    Raises UsageError for a text that is not of this form.
    """
    generator, found = torch.Generator().manual_seed(0), {}
    for text in texts:
        name, _, rest = text.partition(":")
        shape, _, called = rest.partition(":")
        sizes = shape.split("x")
        if not name or not all(size.isdecimal() for size in sizes) or (called or "float32") not in _DTYPES:
            raise UsageError(f"example '{text}' is not of the form images:2x3x224x224 or ids:2x16:int64")
        dtype, shaped = _DTYPES[called or "float32"], [int(size) for size in sizes]
        drawn = (
            torch.randn(shaped, generator=generator)
            if dtype.is_floating_point
            else torch.randint(0, 2, shaped, generator=generator)
        )
        found[name] = drawn.to(dtype)
    return found


@contextlib.contextmanager
def evaluating(module: nn.Module | ExportedProgram) -> Iterator[None]:
    """In evaluation mode as long as the block lasts, and then as it was; programs have no modes."""
    if isinstance(module, ExportedProgram):
        yield
        return
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, was in training.items():
            part.training = was


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of torch's exporters, which speak of torch's own insides."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
