"""`onnxprune search`: the best recipes for several objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import Presentation, examples, presentation_options
from onnxprune.cli.options import CALIBRATION, EVALUATION, RUNNING, SectionCommand, fields, given, tell_missing
from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.pipeline.search.options import SearchOptions
from onnxprune.steps.base import Context


@click.command(
    "search",
    cls=SectionCommand,
    epilog=examples(
        "onnxprune search model.onnx --data samples.npz --trials 8",
        "onnxprune search model.onnx --pick 'macs<=0.9' -o small.onnx",
        "onnxprune search model.onnx --data samples.npz --space recipe.toml --minimize latency --minimize drop",
        "onnxprune search model.onnx --data samples.npz --require 'drop<=0.01' --minutes 30 --study small",
        "onnxprune search --storage postgresql://user@host/studies --study model",
    ),
)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the front; by default MODEL's name with .search. With --pick, the file to write.",
)
@fields(DataOptions, "data", "labels", section="")
@fields(SearchOptions)
@click.option(
    "--pick",
    multiple=True,
    metavar="LIMIT",
    help="Search no more: of the points that keep to this, like latency<=0.5, write the one that is best in the rest.",
)
@fields(Context, "seed")
@presentation_options()
@fields(DataOptions, but=("data", "labels"))
@EVALUATION
@CALIBRATION
@fields(Context, "metric", "loss", "threads", "latency_batch")
@fields(Context, *RUNNING)
def command(
    model: Path | None,
    output: Path | None,
    pick: tuple[str, ...],
    calibration: str | None,
    evaluation: str | None,
    shown: Presentation,
    **options: Any,
) -> None:
    """Search recipes for MODEL that are best for several objectives, and write a file for each point of their front.

    A space is a recipe whose options may be ranges. Every trial compresses MODEL by one recipe of it and measures what
    came out on samples that nothing was fitted to. Whatever happens, what was found is kept: the same command goes on.
    Without MODEL it is one more worker of the study that --storage and --study name.
    """
    with shown.progress() as progress:
        from onnxprune.pipeline.samples import Sources
        from onnxprune.pipeline.search.objectives.base import Requirement
        from onnxprune.pipeline.search.request import Request
        from onnxprune.pipeline.search.run import OpenStudy

        shown.check([] if model is None else [model])
        chosen, settings = given(options, SearchOptions), given(options, Context)
        tell_missing(settings)
        data = DataOptions.from_command(options)
        data.check_alone()
        sources = Sources(data if data.data else None, data.beside(calibration), data.beside(evaluation))
        limits = [Requirement.parse(text) for text in pick]
        folder = None if pick else output
        session = OpenStudy(Request(model, sources, SearchOptions(**chosen), settings), chosen, folder, begin=not pick)
        picked = None
        if pick:
            found, picked = session.picked(limits, _file(session.request.model, output), progress)
        else:
            found = session.searched(progress)
    from onnxprune.report.search import search_document, show_search

    document = search_document(found, picked)
    shown.tell(document, lambda: show_search(document))
    if found.interrupted:
        raise KeyboardInterrupt(f"interrupted; the study and its front are kept in {session.folder}")


def _file(model: Any, output: Path | None) -> Path:
    """Where the point that is picked goes."""
    from onnxprune.pipeline.result import output_path
    from onnxprune.support.files import check_targets

    if not isinstance(model, str | Path):
        raise UsageError("the study holds no file of the model; give it")
    target = output_path(Path(model), output, "picked")
    check_targets([model], target)
    return target
