"""Values that follow from the shapes of the inputs alone are computed once for every set of shapes.

Exporters compute the target of a Reshape, attention masks and positions from Shape nodes, hundreds of small operators
in every run. The first run with some shapes keeps their results; later ones have a shorter program without them, in
which sizes are plain numbers, so that torch.compile finds one graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from onnxprune.runtime.torch.program import Instruction, Program

# Larger results (entries) are computed anew in every run.
_MAX_KEPT = 1 << 20
_SIZES = {"Shape", "Size"}


def from_shapes(program: Program, known: Collection[str], given: Collection[str]) -> frozenset[str]:
    """The values of a program whose content follows from the shapes of the inputs.

    Args:
        program: the main one.
        known: constants, the same in every run.
        given: inputs and weights: of them only the shape is known.

    Bodies, functions, random operators and those whose output's shape depends on data end the reasoning.
    """
    content = set(known)
    shaped = {*known, *given}
    found: set[str] = set()
    for step in program.steps:
        read = [name for name in step.inputs if name]
        if step.entry.bodies or step.entry.random:
            continue
        if (read and content.issuperset(read)) or (step.op.op_type in _SIZES and shaped.issuperset(read)):
            content.update(step.outputs)
            shaped.update(step.outputs)
            found.update(name for name in step.outputs if name)
        elif not step.entry.data_sized and shaped.issuperset(read) and _numbers_known(step, content):
            shaped.update(step.outputs)
    return frozenset(found)


def _numbers_known(step: Instruction, content: Collection[str]) -> bool:
    positions = [i for i in step.entry.numbers if i < len(step.inputs) and step.inputs[i]]
    return all(i in step.numbers or step.inputs[i] in content for i in positions)


@dataclass(frozen=True)
class Sized:
    """A program for inputs of certain shapes, and the values that it starts with."""

    program: Program
    values: Mapping[str, Tensor]

    @staticmethod
    def after_run(program: Program, names: Collection[str], env: Mapping[str, Any]) -> Sized:
        """From what a run of the full program left in its environment."""
        results = {name: env[name] for name in names if name in env}
        kept = {name: value for name, value in results.items() if isinstance(value, Tensor) and _is_small(value)}
        steps = [_with_numbers(step, kept) for step in program.steps if not _is_known(step, kept)]
        with torch.inference_mode(False):  # so that a later run can differentiate what is multiplied by them
            return Sized(program.with_steps(steps), {name: value.detach().clone() for name, value in kept.items()})


def _is_small(value: Tensor) -> bool:
    return value.numel() <= _MAX_KEPT


def _is_known(step: Instruction, kept: Mapping[str, Tensor]) -> bool:
    return all(name in kept for name in step.outputs if name)


def _with_numbers(step: Instruction, kept: Mapping[str, Tensor]) -> Instruction:
    positions = [i for i in step.entry.numbers if i < len(step.inputs) and i not in step.numbers]
    read = {i: kept[step.inputs[i]].tolist() for i in positions if step.inputs[i] in kept}
    return replace(step, numbers={**step.numbers, **read}) if read else step
