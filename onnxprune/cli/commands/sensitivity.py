"""`onnxprune sensitivity`: what cutting each group alone does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, Presentation, examples, presentation_options
from onnxprune.cli.options import SectionCommand, fields, given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.steps.base import Context
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.recover.step import Recover


def _ratios(_: click.Context, __: click.Parameter, text: str) -> list[float]:
    try:
        ratios = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a list of numbers, like 0.25,0.5") from None
    if not all(0 < ratio < 1 for ratio in ratios):
        raise click.BadParameter("ratios lie between 0 and 1")
    return sorted(ratios)


@click.command(
    "sensitivity",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune sensitivity model.onnx --data samples.npz --samples 256",
        "onnxprune sensitivity model.onnx --data photos/ --metric accuracy --jobs 4 --plot curves.svg",
    ),
)
@MODEL
@fields(DataOptions, "data")
@fields(Context, "metric")
@click.option("--ratios", default="0.125,0.25,0.5,0.75", show_default=True, callback=_ratios, help="Shares to remove.")
@fields(Prune, "criterion")
@fields(Recover)
@click.option("--plot", type=click.Path(path_type=Path), help="Also write the curves as an SVG picture.")
@fields(Context, "seed")
@presentation_options()
@fields(Prune, "only", "skip")
@fields(DataOptions, but=("data",))
@fields(Context, "input_shape", "batch_axis", "carry", "memory", "providers", "custom_ops", "jobs", "cache")
def command(
    model: Path,
    plot: Path | None,
    ratios: list[float],
    criterion: str | None,
    recover: str | None,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    shown: Presentation,
    **options: Any,
) -> None:
    """Cut every group of MODEL alone, at several ratios, and measure what that does to the outputs.

    Needs --data, labels only for metrics that use them. With --recover, every cut is recovered first: slower, and
    nearer to what compress makes of it. What was measured is kept, so an interrupted run goes on where
    it stopped, and compress --scope sensitivity starts from it.
    """
    with shown.progress() as progress:
        from onnxprune.pipeline.scores import sensitivity
        from onnxprune.report.sensitivity import sensitivity_document, show_sensitivity
        from onnxprune.steps.prune.options import CRITERION
        from onnxprune.support.cache import default_cache
        from onnxprune.support.files import staged_text

        shown.check([model], plot)
        settings = {"cache": default_cache(), **given(options, Context)}
        tell_missing(settings)
        data = DataOptions.from_command(options)
        if data.data is None:
            raise UsageError("sensitivity needs data to measure on: give --data (an .npz, a folder, or synthetic)")
        groups, found = sensitivity(
            model,
            data,
            ratios=ratios,
            criterion=criterion or CRITERION,
            recover=recover,
            only=only,
            skip=skip,
            progress=progress,
            **settings,
        )
        if plot is not None:
            from onnxprune.report.curves import to_svg

            with staged_text(to_svg(found.metric, groups, found.curves), plot):
                pass
    shown.tell(sensitivity_document(model, groups, found), lambda: show_sensitivity(groups, found, ratios))
