"""Where the time goes, node by node, from the profiles that ONNX Runtime writes.

ONNX Runtime does not run the nodes of the file: it has merged some, and added others that rearrange memory. What merged
nodes cost is listed under the name of one of them, where the one with the weights can be found, so that a layer has
the same name in a model and in a pruned copy of it, whatever each was merged to.
"""

from __future__ import annotations

import bisect
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.model.file import as_model, name_of
from onnxprune.model.signature import Feed
from onnxprune.ops.traits import is_merged
from onnxprune.runtime.latency import Setting, deployed_session
from onnxprune.runtime.session import Runnable

_RUNS = 30
_KERNEL = "_kernel_time"
# Convolutions on blocks of channels are named after the value that they compute.
_BLOCKED = "_nchwc"


@dataclass(frozen=True)
class NodeTime:
    """Seconds that one node takes in a run (the median over runs), by the operator that it is run as."""

    name: str
    operator: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where one model's time goes.

    Attributes:
        model: path as given.
        nodes: in the order that they run.
        run_seconds: a whole run under the profiler, which is slower than without; the median over runs.
    """

    model: str
    nodes: tuple[NodeTime, ...]
    run_seconds: float

    @property
    def operators(self) -> dict[str, float]:
        """Seconds by operator, the longest first."""
        total: dict[str, float] = defaultdict(float)
        for node in self.nodes:
            total[node.operator] += node.seconds
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    @property
    def between_nodes(self) -> float:
        """Seconds of a run that no node accounts for."""
        return max(0.0, self.run_seconds - sum(node.seconds for node in self.nodes))


@dataclass(frozen=True)
class Mover:
    """A node of both models, by its name, or of one of them; None where it is not there."""

    name: str
    operator: str
    before: float | None
    after: float | None

    @property
    def change(self) -> float:
        """Seconds that it takes more than before."""
        return (self.after or 0.0) - (self.before or 0.0)


def profile(models: Sequence[Runnable], setting: Setting, feed: Feed, runs: int = _RUNS) -> list[Profile]:
    """Profile models run by run in turn, so that noise hits all alike.

    Raises ModelError when a model does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        sessions = [
            deployed_session(model, setting.provider, setting.threads, profile=Path(folder) / str(index))
            for index, model in enumerate(models)
        ]
        for _ in range(setting.warmup + runs):
            for model, session in zip(models, sessions, strict=True):
                try:
                    session.run(None, feed)
                except Exception as error:
                    raise ModelError(f"ONNX Runtime cannot run {name_of(model)} under its profiler: {error}") from error
        events = [json.loads(Path(session.end_profiling()).read_text()) for session in sessions]
    return [_read(model, each, setting.warmup) for model, each in zip(models, events, strict=True)]


def _read(model: Runnable, events: list[dict[str, Any]], warmup: int) -> Profile:
    """Assign the events of nodes to the runs that they fall into, and leave out the first runs."""
    runs = sorted((each["ts"], each["dur"]) for each in events if each.get("name") == "model_run")[warmup:]
    starts = [start for start, _ in runs]
    named = layer_names(as_model(model))
    operators: dict[str, str] = {}
    times: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_KERNEL):
            continue
        run = bisect.bisect_right(starts, event["ts"]) - 1
        if run >= 0:
            name = event["name"].removesuffix(_KERNEL).removesuffix(_BLOCKED)
            name = named.get(name, name)
            operators.setdefault(name, event["args"].get("op_name", ""))
            times.setdefault(name, [0.0] * len(runs))[run] += event["dur"] / 1e6
    nodes = tuple(NodeTime(name, operators[name], median(seconds)) for name, seconds in times.items())
    return Profile(name_of(model), nodes, median(duration / 1e6 for _, duration in runs))


def layer_names(model: ir.Model) -> dict[str, str]:
    """For every value of the main graph, the name of the node that it is computed by when ONNX Runtime has merged some.

    That is its producer, or for what is merged into others the latest node in the file that feeds it: a convolution for
    the value behind its normalization, residual Add and activation.
    """
    order = {node: index for index, node in enumerate(model.graph)}
    found: dict[ir.Node, ir.Node] = {}
    for node in order:
        producers = [producer for value in node.inputs if value is not None and (producer := value.producer()) in order]
        merged = is_merged(node) and producers
        found[node] = found[max(producers, key=order.__getitem__)] if merged else node
    return {
        value.name: found[node].name or ""
        for node in order
        for value in node.outputs
        if value.name and found[node].name
    }


def movers(before: Profile, after: Profile) -> list[Mover]:
    """Every node of either model, those first whose time changed most."""
    old, new = ({node.name: node for node in each.nodes} for each in (before, after))
    found = [
        Mover(
            name,
            (new.get(name) or old[name]).operator,
            old[name].seconds if name in old else None,
            new[name].seconds if name in new else None,
        )
        for name in {**old, **new}
    ]
    return sorted(found, key=lambda mover: -abs(mover.change))
