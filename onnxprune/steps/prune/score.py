"""Scores of all units of the chosen groups by one criterion, from the weights or from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxprune.data.base import Data
from onnxprune.analysis.coupling import Analysis, Group
from onnxprune.steps.prune.criteria.base import Context, Criterion, Scores, WeightReader
from onnxprune.steps.prune.criteria.expression import resolve
from onnxprune.errors import UsageError
from onnxprune.statistics.activations import Activations


def score_model(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: str,
    data: Data | None = None,
    *,
    seed: int = 0,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    loss: str = "auto",
    device: str = "cpu",
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Scores]:
    """Score the units of groups: per group id float64, shape [units]; the higher, the more a unit matters.

    Args:
        analysis: the model.
        groups: those to score.
        criterion: a name, or a combination as in `criteria.combination`.
        data: what criteria on activations or gradients run the model on.
        seed: of everything random.
        providers: execution providers of ONNX Runtime.
        loss: what gradients are taken of, see `runtime.torch_loss.make_loss`.
        device: where torch computes gradients.
        progress: told what is being done.

    Raises UsageError for an unknown criterion, and for one that needs data or labels that were not given.
    """
    found = resolve(criterion)
    check_data(found, data)
    observed = (
        Activations(analysis, data, providers=providers, progress=progress) if data and found.needs_data else None
    )
    context = Context(analysis, WeightReader(analysis), seed, observed, loss, device)
    return {group.id: found(group, context) for group in groups}


def check_data(criterion: Criterion, data: Data | None) -> None:
    """Raises UsageError when the criterion needs data, or labels, that are not there."""
    needs = " and ".join(need for need in criterion.needs if need != "weights")
    if needs and data is None:
        raise UsageError(f"criterion '{criterion.name}' needs {needs}: give --data (an .npz, a folder, or synthetic)")
    if "labels" in criterion.needs and data is not None and not data.labelled:
        raise UsageError(f"criterion '{criterion.name}' needs labels, and {data.source} has none: give --labels")
