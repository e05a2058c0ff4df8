"""`onnxprune benchmark`: models side by side in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.base import Presentation, examples, presentation_options
from onnxprune.cli.options import fields
from onnxprune.data.options import DataOptions, data_from
from onnxprune.errors import UsageError
from onnxprune.evaluation.benchmark.request import BenchmarkRequest
from onnxprune.evaluation.options import MeasureOptions

if TYPE_CHECKING:
    from onnxprune.data.base import Data


# Several of these are measured side by side.
_SETTINGS = {"providers": "providers", "latency_batch": "batch", "threads": "threads"}


@click.command(
    "benchmark",
    epilog=examples(
        "onnxprune benchmark model.onnx model.pruned.onnx",
        "onnxprune benchmark model.onnx model.pruned.onnx --batch 1 --batch 64 --profile",
        "onnxprune benchmark model.onnx model.pruned.onnx --data test.npz --labels labels",
        "onnxprune benchmark model.onnx --alignment --batch 64",
        "onnxprune benchmark model.onnx --providers cpu,cuda --input-shape images:1x3x224x224",
    ),
)
@click.argument("models", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="MODEL [OTHER]...")
@fields(MeasureOptions, section="", several=_SETTINGS)
@fields(BenchmarkRequest)
@click.option("--alignment", is_flag=True, help="Instead, prune MODEL to several roundings of its axes and time these.")
@fields(MeasureOptions, "metric", section="")
@fields(MeasureOptions, "input_shape", "batch_axis", "custom_ops", section="Data")
@fields(DataOptions, but=("batch",), section="Data")
@fields(MeasureOptions, "seed")
@presentation_options()
def command(
    models: tuple[Path, ...],
    seed: int,
    shown: Presentation,
    metric: str | None,
    alignment: bool,
    **options: Any,
) -> None:
    """Time MODEL and others beside it in ONNX Runtime, and say whether they differ.

    All are run in turn, so that whatever else the machine does hits them alike, and are compared with the first one:
    "1.31x faster (1.27 to 1.35)" gives the interval in which the true factor lies in 99 of 100 cases; "no real
    difference" means that 1 lies in it, or within one percent of it. Also: memory, load time, size, and how far
    apart the outputs are. --batch, --threads and --providers can be given more than once.
    """
    with shown.progress() as progress:
        from onnxprune.evaluation.benchmark import suite
        from onnxprune.model.file import open_model
        from onnxprune.model.signature import given_sizes, name_axes, ports_of
        from onnxprune.runtime.custom_ops import use_libraries

        shown.check(models)
        named = ("batch", "input_shape", "batch_axis", "custom_ops")
        batches, shapes, axes, libraries = (options.pop(name) for name in named)
        use_libraries(libraries)
        opened = open_model(models[0])
        name_axes(opened, axes)
        data = data_from(options, opened, seed, given_sizes(shapes, ports_of(opened)))
        request = suite.BenchmarkRequest(batches=batches, input_shapes=shapes, batch_axes=axes, seed=seed, **options)
        if alignment:
            _check_alone(models, data is not None or metric is not None or request.profile)
            document, show = _alignment(models[0], request, progress)
        else:
            document, show = _benchmark(models, request, data, metric, progress)
    shown.tell(document, show)


Found = tuple[dict[str, Any], Callable[[], None]]


def _benchmark(
    models: tuple[Path, ...],
    request: BenchmarkRequest,
    data: Data | None,
    metric: str | None,
    progress: Callable[[str], None],
) -> Found:
    """The document, and what prints the tables."""
    from onnxprune.evaluation.benchmark import suite
    from onnxprune.report import benchmark_document as document
    from onnxprune.report import benchmark_tables as tables

    result = suite.benchmark(models, request, data=data, metric=metric, progress=progress)
    return document.of_benchmark(result, request), lambda: tables.show_benchmark(result)


def _alignment(model: Path, request: BenchmarkRequest, progress: Callable[[str], None]) -> Found:
    """The same for --alignment."""
    from onnxprune.report import benchmark_document as document
    from onnxprune.report import benchmark_tables as tables
    from onnxprune.steps.prune import alignment

    found = alignment.alignment(model, request, progress)
    return document.of_alignment(found), lambda: tables.show_alignment(found)


def _check_alone(models: tuple[Path, ...], more: bool) -> None:
    """Raises UsageError for what does not go with --alignment."""
    if len(models) > 1 or more:
        raise UsageError(
            "--alignment times prunings of one model on made-up inputs; drop other models, --data, --metric, --profile"
        )
