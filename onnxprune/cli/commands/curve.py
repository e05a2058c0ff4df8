"""`onnxprune curve`: recipes at several strengths, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import MODEL, Presentation, examples, presentation_options
from onnxprune.cli.options import EVALUATION, SectionCommand, fields, given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.steps.base import Context


def _strengths(_: click.Context, __: click.Parameter, text: str) -> list[float]:
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a list of numbers, like 0.25,0.5") from None
    if not all(0 < each < 1 for each in found):
        raise click.BadParameter("strengths lie between 0 and 1")
    return found


@click.command(
    "curve",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune curve model.onnx --data samples.npz --recipe default --recipe data-free --strengths 0.3,0.6",
        "onnxprune curve model.onnx --data samples.npz --recipe recipe.toml --against latency --plot curve.svg",
    ),
)
@MODEL
@fields(DataOptions, "data", "labels", section="")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("default",),
    show_default=True,
    metavar="FILE",
    help="A recipe to draw, or the name of one that is shipped; several are drawn side by side.",
)
@click.option(
    "--strengths",
    default="0.2,0.35,0.5,0.65,0.8",
    show_default=True,
    callback=_strengths,
    help="Shares to remove, in the place of the ratio or sparsity of each recipe.",
)
@click.option(
    "--against",
    multiple=True,
    default=("sparsity", "macs", "size"),
    show_default=True,
    metavar="OBJECTIVE",
    help="What the metric is drawn against, see: onnxprune list objectives.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keeps every point, so that the same command goes on; by default MODEL's name with .curve.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Also draw the first of --against, as a picture: .svg or .png.",
)
@fields(Context, "metric", "seed")
@presentation_options()
@fields(DataOptions, but=("data", "labels"))
@EVALUATION
@fields(
    Context,
    "loss",
    "threads",
    "latency_batch",
    "input_shape",
    "batch_axis",
    "carry",
    "memory",
    "providers",
    "custom_ops",
    "device",
)
def command(
    model: Path,
    recipes: tuple[str, ...],
    strengths: list[float],
    against: tuple[str, ...],
    output: Path | None,
    plot: Path | None,
    evaluation: str | None,
    shown: Presentation,
    **options: Any,
) -> None:
    """Draw what recipes make of MODEL at several strengths: accuracy or agreement against what is left.

    Measured on samples that nothing was fitted to. Every point is kept as soon as it is measured: the same command goes
    on where it stopped, and a recipe more costs its own points alone.
    """
    with shown.progress() as progress:
        from onnxprune.pipeline.search.curves import curves
        from onnxprune.report.curve import check_picture, curve_document, curve_picture, show_curve
        from onnxprune.support.files import staged_bytes

        shown.check([model], plot)
        check_picture(plot)
        settings = given(options, Context)
        tell_missing(settings)
        data = DataOptions.from_command(options)
        if data.data is None:
            raise UsageError("curve needs data to measure on: give --data (an .npz, a folder, or synthetic)")
        found = curves(
            model,
            recipes,
            data=data,
            evaluation=data.beside(evaluation),
            strengths=strengths,
            against=against,
            folder=output,
            progress=progress,
            **settings,
        )
        document = curve_document(model, found)
        if plot is not None:
            with staged_bytes(curve_picture(document, plot), plot):
                pass
    shown.tell(document, lambda: show_curve(document))
    if found.interrupted:
        raise KeyboardInterrupt("interrupted; the points that were measured are kept")
