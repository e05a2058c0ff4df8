"""State dicts, read without unpickling anything but tensors: a pickle may run any code of whoever wrote it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from onnxprune.errors import ModelError

# Where trainings keep the state dict beside other things.
_NESTED = ("state_dict", "model_state_dict", "model")
_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_weights(module: nn.Module, path: Path) -> None:
    """Put a state dict into a module: `.safetensors`, or what `torch.save(module.state_dict(), path)` writes.

    Raises ModelError for a file that holds more than tensors, or tensors that do not fit.
    """
    state = read_state(path)
    nested = next((state[key] for key in _NESTED if isinstance(state.get(key), dict)), state)
    try:
        module.load_state_dict(nested)
    except (RuntimeError, AttributeError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = " ".join(lines[1:3] or lines)[:300].rstrip(". ")
        raise ModelError(f"{path} does not fit {type(module).__name__}: {said}") from error


def read_state(path: Path) -> dict[str, Any]:
    """The tensors of a file by name. Raises ModelError where it is none, or holds Python objects."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the path")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path} is not a safetensors file, or is truncated: {error}") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, and Python objects are not loaded, for they may run any code; save "
            "module.state_dict() instead"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a file of torch, or is truncated; save it again") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds {type(state).__name__}, not a state dict; save module.state_dict()")
    return state


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """Whatever torch loads meanwhile, it unpickles tensors only; `torch.export.load` asks for more than that."""
    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = before
