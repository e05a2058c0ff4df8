"""`onnxprune sensitivity`: what cutting each group alone does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.base import MODEL, ONLY, SEED, SKIP, Telling, examples, shared, telling
from onnxprune.cli.data_options import data_from, data_options

if TYPE_CHECKING:
    from onnxprune.analysis.coupling import Group
    from onnxprune.steps.prune.sensitivity import Sensitivity


def _ratios(_: click.Context, __: click.Parameter, text: str) -> list[float]:
    try:
        ratios = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{text}' is no list of numbers, like 0.25,0.5") from None
    if not all(0 < ratio < 1 for ratio in ratios):
        raise click.BadParameter("ratios lie between 0 and 1")
    return sorted(ratios)


@click.command(
    "sensitivity",
    epilog=examples(
        "onnxprune sensitivity model.onnx --data samples.npz --samples 256",
        "onnxprune sensitivity model.onnx --data photos/ --metric accuracy --jobs 4 --plot curves.svg",
    ),
)
@MODEL
@click.option("--metric", help="accuracy, top5, agreement, kl, cosine, snr or module:function; kl or snr by default.")
@click.option("--ratios", default="0.125,0.25,0.5,0.75", show_default=True, callback=_ratios, help="Shares to remove.")
@click.option("--criterion", default="l1", show_default=True, help="Which units of a group go first.")
@click.option(
    "--recover",
    default="none",
    show_default=True,
    metavar="METHOD",
    help="Measure every cut after recovery, on samples that it has not seen: reconstruct, batchnorm, bias or fold.",
)
@shared(ONLY, SKIP)
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for what was measured; ~/.cache/onnxprune.")
@click.option("--plot", type=click.Path(path_type=Path), help="Also write the curves as an SVG picture.")
@data_options
@shared(SEED)
@telling()
def command(
    model: Path,
    plot: Path | None,
    told: Telling,
    **options: Any,
) -> None:
    """Cut every group of MODEL alone, at several ratios, and measure what that does to the outputs.

    Needs --data, labels only for metrics that use them. With --recover, every cut is recovered first: slower, and
    nearer to what compress makes of it. What was measured is kept, so an interrupted run goes on where
    it stopped, and compress --scope sensitivity starts from it.
    """
    with told.progress() as progress:
        from onnxprune.pipeline import run as pipeline
        from onnxprune.errors import UsageError
        from onnxprune.model.file import open_model, staged_text
        from onnxprune.steps.prune.sensitivity import default_cache

        told.check([model], plot)
        data = data_from(options, open_model(model), options["seed"])
        if data is None:
            raise UsageError("sensitivity needs data to measure on: give --data (an .npz, a folder, or synthetic)")
        options["cache"] = options["cache"] or default_cache()
        groups, found = pipeline.sensitivity(model, data, **options, progress=progress)
        if plot is not None:
            from onnxprune.report.curves import to_svg

            with staged_text(to_svg(found.metric, groups, found.curves), plot):
                pass
    told.tell(_document(model, groups, found), lambda: _print(groups, found, options["ratios"]))


def _document(model: Path, groups: list[Group], found: Sensitivity) -> dict[str, Any]:
    from onnxprune.report.data import FORMAT

    return {
        "format": FORMAT,
        "model": str(model),
        "metric": found.metric,
        "recover": found.recovery,
        "samples": found.samples,
        "whole": found.whole,
        "higher_is_better": found.higher_is_better,
        "groups": [
            {
                "id": group.id,
                "kind": group.kind,
                "units": group.units,
                "lost": list(found.curves[group.id].lost),
                "values": list(found.curves[group.id].values),
            }
            for group in groups
        ],
    }


def _print(groups: list[Group], found: Sensitivity, ratios: list[float]) -> None:
    from rich.console import Console
    from rich.table import Table

    from onnxprune.steps.prune.allocation.base import share

    how = "" if found.recovery == "none" else f", after {found.recovery}"
    title = f"{found.metric}{how}, {found.whole:.4g} when whole, on {found.samples} samples"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("group", overflow="fold")
    for name in ("units", *(f"-{ratio:.4g}" for ratio in ratios)):
        table.add_column(name, justify="right", overflow="fold")
    for group in groups:
        values = dict(zip(found.curves[group.id].lost, found.curves[group.id].values, strict=True))
        cells = [f"{values[share(ratio, group.units)]:.3g}" for ratio in ratios]
        table.add_row(group.id, f"{group.units:,}", *cells)
    Console(markup=False, emoji=False, highlight=False).print(table)
