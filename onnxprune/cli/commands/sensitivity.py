"""`onnxprune sensitivity`: what cutting each group alone does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, ONLY, SEED, SKIP, Telling, examples, shared, telling
from onnxprune.cli.data_options import data_options
from onnxprune.data.options import data_from


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
        from onnxprune.errors import UsageError
        from onnxprune.model.file import open_model
        from onnxprune.pipeline import run as pipeline
        from onnxprune.report.sensitivity import document, show
        from onnxprune.support.cache import default_cache
        from onnxprune.support.files import staged_text

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
    told.tell(document(model, groups, found), lambda: show(groups, found, options["ratios"]))
