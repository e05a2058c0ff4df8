"""Checkpoints of a training: one safetensors file with the facts as JSON in its header, replaced atomically.

The names of tensors say what they are: `weights/NAME` as they are now, `best/NAME` of the best evaluation so far,
`average/NAME` of the moving average, `optimizer/INDEX/KEY` of the optimizer. Nothing in it is code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from onnxprune.data.base import Batch
from onnxprune.errors import ModelError, UsageError
from onnxprune.model.weights import reading
from onnxprune.support.files import check_target
from onnxprune.support.messages import one_line

FORMAT = 1
_KEY = "onnxprune"
# What a checkpoint is compared by, in the words of the refusal.
_COMPARED = {
    "model": "of another model",
    "teacher": "of a training with another teacher",
    "data": "of a training on other samples",
    "seed": "of a training with another seed",
    "processes": "of a training in another number of processes",
    "loss": "of a training with another loss",
    "metric": "of a training with another metric",
}


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replace the file as a whole: after a crash there is either the old checkpoint or the new one.

    Raises ModelError where it cannot be written.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {_KEY: json.dumps({"format": FORMAT, **facts})}
    new = path.with_name(f".{path.name}.new")
    try:
        with open(new, "wb") as file:
            file.write(save(_apart(kept), metadata=header))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ModelError(f"cannot write the checkpoint {path}: {error.strerror or error}") from None


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share memory copied: safetensors stores each by itself."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return found


def check_checkpoint_target(path: Path) -> None:
    """Raises UsageError where no file can be created there."""
    check_target(path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts. Raises ModelError where there is no checkpoint, or a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_KEY)
            if header is None:
                raise ModelError(f"{path} is not a checkpoint of a training with onnxprune")
            facts = json.loads(header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except FileNotFoundError:
        raise ModelError(f"there is no checkpoint {path}; leave out resume to start anew") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} is not a checkpoint, or a damaged one: {one_line(error)}") from None
    if facts.get("format") != FORMAT:
        raise ModelError(f"{path} is a checkpoint of format {facts.get('format')!r}, this version reads {FORMAT}")
    return tensors, facts


def check_same(path: Path, found: Mapping[str, Any], due: Mapping[str, Any]) -> None:
    """Raises UsageError, naming the first difference, for a checkpoint of another model, data, or other options."""
    for key, said in _COMPARED.items():
        if found.get(key) != due[key]:
            raise UsageError(
                f"{path} is a checkpoint {said}; start anew, or name the one that belongs to this training"
            )
    theirs, ours = found.get("options", {}), due["options"]
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            raise UsageError(
                f"{path} is a checkpoint of a training with {name.replace('_', '-')} {theirs.get(name)}, "
                f"not {ours.get(name)}; resume with the same options"
            )


def part(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The tensors of one kind, by the rest of their names."""
    start = f"{kind}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, *, writes: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer as tensors, and its numbers as plain data; only where it `writes` if it is sharded."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    gather = getattr(optimizer, "consolidate_state_dict", None)
    if gather is not None:
        gather(to=0)
    if not writes:
        return tensors, numbers
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                numbers[f"{index}/{key}"] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Put it back into an optimizer that was made anew with the same options."""
    states: dict[int, dict[str, Any]] = {}
    for name, value in {**part(tensors, "optimizer"), **numbers}.items():
        index, _, key = name.partition("/")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    for weight, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[key] = torch.empty_like(weight).copy_(value)  # in the memory layout of the weight


def digest_of_model(model: ir.Model | None) -> str:
    """The identity of a model: its nodes, their attributes, and its weights."""
    total = hashlib.sha256()
    if model is None:
        return ""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        names = [value.name if value is not None else None for value in (*node.inputs, *node.outputs)]
        plain = {
            name: str(attribute.value)
            for name, attribute in node.attributes.items()
            if attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS, ir.AttributeType.TENSOR)
        }
        total.update(repr((node.domain, node.op_type, names, sorted(plain.items()))).encode())
    for name, value in sorted(model.graph.initializers.items()):
        if value.const_value is not None:
            total.update(repr((name, value.const_value.dtype.name, value.const_value.shape.numpy())).encode())
            with reading(value.const_value) as array:
                total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def digest_of_samples(source: str, count: int, first: Batch) -> str:
    """What samples are, as far as their source, their number and the first of them say."""
    total = hashlib.sha256(repr((source, count)).encode())
    labels = {} if first.labels is None else {"labels": first.labels}
    for name, array in sorted({**first.feed, **labels}.items()):
        total.update(repr((name, str(array.dtype), array.shape)).encode())
        total.update(
            np.ascontiguousarray(array).tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode()
        )
    return total.hexdigest()
