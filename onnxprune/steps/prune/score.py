"""Scores of all units of the chosen groups by one criterion, from the weights or from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.data.base import Data
from onnxprune.errors import UsageError
from onnxprune.runtime.providers import CPU_ONLY
from onnxprune.statistics.activations import Activations
from onnxprune.steps.base import Context
from onnxprune.steps.prune.criteria.base import Criterion, Scores, ScoringContext, WeightReader
from onnxprune.steps.prune.criteria.expression import resolve


def score_model(
    analysis: Analysis,
    groups: Sequence[Group],
    criterion: str,
    data: Data | None = None,
    *,
    seed: int = 0,
    providers: Sequence[str] = CPU_ONLY,
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
    context = ScoringContext(analysis, WeightReader(analysis), seed, observed, loss, device)
    return {group.id: found(group, context) for group in groups}


def check_data(criterion: Criterion, data: Data | None) -> None:
    """Raises UsageError when the criterion needs data, or labels, that are not there."""
    needs = " and ".join(need for need in criterion.needs if need != "weights")
    if needs and data is None:
        raise UsageError(f"criterion '{criterion.name}' needs {needs}: give --data (an .npz, a folder, or synthetic)")
    if "labels" in criterion.needs and data is not None and not data.labelled:
        raise UsageError(f"criterion '{criterion.name}' needs labels, and {data.source} has none: give --labels")


def scores(context: Context, analysis: Analysis, groups: Sequence[Group], criterion: str) -> dict[str, Scores]:
    """`score_model` with what the context has."""
    return score_model(
        analysis,
        groups,
        criterion,
        context.data,
        seed=context.seed,
        providers=context.providers,
        loss=context.loss,
        device=context.device,
        progress=context.progress,
    )
