"""What every test of `--lossless` asks: are the facts facts, and does nothing change?

`check_facts`      every number that is said to be constant is that number in ONNX Runtime, on random inputs
`check_lossless`   the model without its dead units answers like the original, to 1e-5 relative
`kill`             zero slices of weights that are named
`plant`            zero some units of every group
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.analysis.constants import Constants
from onnxprune.analysis.groups import Analysis
from onnxprune.dims import keep_mask
from onnxprune.model.file import save
from onnxprune.model.signature import Feed, synthetic_feed
from onnxprune.ops.constants.base import KnownEntries
from onnxprune.pipeline.run import Result, compress, inspect
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.state import State
from tests.oracle import distance

TOLERANCE = 1e-5


def feeds(path: Path, sizes: dict[str, int] | None = None, count: int = 3) -> list[Feed]:
    """Random inputs, at the sizes given (else 2) for symbolic axes; the last set ten times as large."""
    ports = Session(path).inputs
    symbols = {size for port in ports for size in port.shape if isinstance(size, str)}
    found = [synthetic_feed(ports, {**dict.fromkeys(symbols, 2), **(sizes or {})}, seed) for seed in range(count)]
    found[-1] = {name: array * 10 if array.dtype.kind == "f" else array for name, array in found[-1].items()}
    return found


def noise(session: Session, given: Sequence[Feed]) -> float:
    """How far the model itself is from its answer when the inputs change in the sixth digit, times ten; infinite where
    its outputs are not finite. Deep networks with random weights blow rounding errors up.
    """
    worst = 0.0
    for feed in given:
        near = {name: x * np.float32(1 + 1e-6) if x.dtype == np.float32 else x for name, x in feed.items()}
        before, after = session.run(feed), session.run(near)
        if not all(np.isfinite(array).all() for array in before.values() if array.dtype.kind == "f"):
            return float("inf")
        worst = max(worst, 10 * distance(after, before))
    return worst


def check_facts(
    path: Path, given: Sequence[Feed] | None = None, tolerance: float = TOLERANCE
) -> dict[str, KnownEntries]:
    """Run the canonical model with all its values as outputs; what is known of them, by name."""
    analysis = inspect(path)
    constants = Constants(analysis)
    values = {v.name: v for node in analysis.model.graph for v in node.outputs if v.name in analysis.activations}
    known = {name: fact for name, value in values.items() if (fact := constants.of(value)) is not None}
    if not known:
        return {}
    analysis.model.graph.outputs[:] = [values[name] for name in known]
    watched = path.with_name(f"{path.stem}.watched.onnx")
    save(analysis.model, watched)
    session = Session(watched)
    for feed in given or feeds(path, analysis.shapes.bindings):
        for name, array in session.run({port.name: feed[port.name] for port in session.inputs}).items():
            fact = known[name]
            mask, due = (np.broadcast_to(part, array.shape) for part in (fact.known, fact.values))
            scale = max(1.0, float(np.abs(due[mask]).max(initial=0)))
            np.testing.assert_allclose(array[mask], due[mask], rtol=tolerance, atol=tolerance * scale, err_msg=name)
    return known


def check_lossless(
    path: Path,
    given: Sequence[Feed] | None = None,
    tolerance: float = TOLERANCE,
    *,
    again: bool = True,
    **options: Any,
) -> Result:
    """Remove what changes nothing, and compare all outputs on several inputs; `again` finds nothing to remove then."""
    result = compress(path, lossless=True, **options)
    pruned = path.with_name(f"{path.stem}.lossless.onnx")
    result.save(pruned)
    before, after = Session(path), Session(pruned)
    for feed in given or feeds(path):
        assert distance(after.run(feed), before.run(feed)) <= tolerance
    if again:
        assert not Prune(lossless=True)(State.of(inspect(pruned)), Context()).plan().removals
    return result


def removed(result: Result) -> dict[str, tuple[int, ...]]:
    """The units that went, by group."""
    return {removal.group: removal.remove for removal in result.plan.removals}


def kill(model: onnx.ModelProto, entries: dict[tuple[str, int], Sequence[int]], value: float = 0.0) -> None:
    """Set slices of weights: (tensor, axis) -> positions."""
    for weight in model.graph.initializer:
        for (name, axis), positions in entries.items():
            if weight.name == name:
                array = onnx.numpy_helper.to_array(weight).copy()
                array[(slice(None),) * axis + (list(positions),)] = value
                weight.CopyFrom(onnx.numpy_helper.from_array(array, name))


def plant(analysis: Analysis, path: Path, *, whole: bool) -> dict[str, set[int]]:
    """Zero an eighth of the units of every group and save: all that belongs to them, or (not `whole`) just the first
    weight, which most often makes them. The units that have to go, by group.
    """
    rng = np.random.default_rng(0)
    weights, planted = analysis.model.graph.initializers, {}
    for group in analysis.groups:
        units = rng.permutation(group.units)[: max(1, group.units // 8)]
        keep = np.ones(group.units, np.bool_)
        keep[units] = False
        places = [place for place in group.occurrences if place.tensor not in analysis.shapes.known]
        for place in places if whole else places[:1]:
            value = weights[place.tensor]
            if value.dtype is not None and value.dtype.is_floating_point() and value.const_value is not None:
                array = value.const_value.numpy().copy()
                array[(slice(None),) * place.axis + (~keep_mask(place.dim, {group.atom: keep}),)] = 0
                value.const_value = ir.Tensor(array, name=place.tensor, dtype=value.dtype)
        if whole and not group.statistics and len(units) < group.units:
            planted[group.id] = {int(unit) for unit in units}
    save(analysis.model, path)
    return planted


def killing(entries: dict[tuple[str, int], Sequence[int]]) -> Any:
    """For `build(edit=...)`."""
    return lambda model: kill(model, entries)
