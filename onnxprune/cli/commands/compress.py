"""`onnxprune compress`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxprune.cli.base import KEEP_METADATA, MODEL, ONLY, OUTPUT, SEED, SKIP, Telling, examples, shared, telling
from onnxprune.cli.complete import allocation_names, criterion_names
from onnxprune.cli.data_options import DEVICE, LOSS, PROVIDERS, data_options, providers_from
from onnxprune.data.options import data_from
from onnxprune.errors import UsageError


@click.command(
    "compress",
    epilog=examples(
        "onnxprune compress model.onnx --ratio 0.5",
        "onnxprune compress model.onnx --only neurons --only 'layer3.*' --dry-run -v",
        "onnxprune compress model.onnx -o small.onnx --round-to 8 --plan plan.json",
        "onnxprune compress model.onnx --target macs=0.4 --target size=5MB",
        "onnxprune compress model.onnx --data samples.npz --samples 500",
        "onnxprune compress model.onnx --target latency=0.6 --threads 2",
        "onnxprune compress model.onnx --target macs=0.3 --steps 4 --data samples.npz",
        "onnxprune compress model.onnx --target drop=0.01 --data samples.npz --labels y",
        "onnxprune compress model.onnx --recipe recipe.toml",
        "onnxprune compress model.onnx --lossless",
    ),
)
@MODEL
@OUTPUT
@click.option(
    "--criterion",
    default=None,
    shell_complete=criterion_names,
    help="Score of a unit, see: onnxprune criteria; obs with --data, l1 without.",
)
@click.option("--ratio", default=0.5, show_default=True, help="Share of the units to remove, in [0, 1).")
@click.option(
    "--scope",
    default="auto",
    show_default=True,
    shell_complete=allocation_names,
    help="How the cut is spread: auto, uniform, global, isomorphic, greedy, knapsack, sensitivity or latency.",
)
@click.option(
    "--target",
    multiple=True,
    metavar="WHAT=LIMIT",
    help="Come down to this, in place of --ratio: params=0.5, macs=20M, size=5MB, latency=0.6, drop=0.01.",
)
@click.option(
    "--metric", help="What a target for drop is about: accuracy, top5, agreement, kl, cosine, module:function."
)
@click.option("--threads", default=1, show_default=True, help="Of one operator, for a target or scope of latency.")
@click.option("--latency-batch", default=1, show_default=True, help="Samples at a time, for the same.")
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processes that measure, for scope sensitivity.",
)
@click.option("--recipe", type=click.Path(path_type=Path), help="TOML file of options, with ratios for single groups.")
@click.option("--steps", default=1, show_default=True, help="Cut in so many steps: score, cut, recover, repeat.")
@click.option("--schedule", default="cubic", show_default=True, help="How steps are spread: linear, cubic, geometric.")
@click.option("--max-ratio", default=1.0, show_default=True, help="No group loses more than this share of its units.")
@click.option("--min-units", default=1, show_default=True, help="No group is left with fewer units than this.")
@click.option("--round-to", default=1, show_default=True, help="Make axis sizes multiples of this where they can be.")
@click.option(
    "--lossless", is_flag=True, help="Remove what changes nothing, units that are constant or not read, and no more."
)
@shared(ONLY, SKIP)
@click.option(
    "--clean",
    multiple=True,
    metavar="NAME",
    help="Also fold-batchnorm (into the weights) or equalize (channel ranges, for quantization): outputs stay.",
)
@click.option("--plan", type=click.Path(path_type=Path), help="Also write what was removed, for: onnxprune apply.")
@click.option("--dry-run", is_flag=True, help="Print the tables, write no model.")
@click.option(
    "--recover",
    metavar="METHOD",
    help="Win the accuracy back without training: reconstruct (with --data the default), batchnorm, bias, fold "
    "(needs no data) or none.",
)
@data_options
@shared(PROVIDERS, LOSS, DEVICE, SEED, KEEP_METADATA)
@telling()
def command(
    model: Path,
    output: Path | None,
    plan: Path | None,
    dry_run: bool,
    told: Telling,
    **request: Any,
) -> None:
    """Remove the weakest units of MODEL and write what is left.

    Whole channels, neurons, heads and hidden units go, everywhere at once, so the result is a smaller dense model with
    the same inputs and outputs. It is checked in ONNX Runtime before it takes its place; MODEL is never touched.
    """
    with told.progress() as progress:
        from onnxprune.pipeline import run as pipeline
        from onnxprune.pipeline.result import default_output

        target = None if dry_run else output or default_output(model)
        told.check([model], target, plan)
        request = _with_recipe(request)
        seed = request["seed"]
        if request.pop("lossless"):
            result = pipeline.compress_lossless(model, **_without_choices(request), progress=progress)
        else:
            result = pipeline.compress(model, **_with_data(request, model), progress=progress)
        if target is not None:
            result.save(target, plan=plan, seed=seed, progress=progress)
        elif plan is not None:
            result.plan.save(plan)
    told.tell_result(result, model, target)


def _with_recipe(request: dict[str, Any]) -> dict[str, Any]:
    """The request with what the recipe says where the command line says nothing.

    Raises UsageError for a ratio and a target on the command line: only one of them can decide.
    """
    source = click.get_current_context().get_parameter_source
    if request["target"] and source("ratio") is not ParameterSource.DEFAULT:
        raise UsageError("--ratio and --target both say how much to remove; drop one of them")
    path = request.pop("recipe")
    if path is None:
        return request
    from onnxprune.pipeline.recipe import read

    recipe = read(path)
    unsaid = {name: value for name, value in recipe.options.items() if source(name) is ParameterSource.DEFAULT}
    if source("ratio") is not ParameterSource.DEFAULT:
        unsaid.pop("target", None)  # of a ratio and a target, the one of the command line decides
    return {**request, **unsaid, "ratios": recipe.ratios}


def _with_data(request: dict[str, Any], model: Path) -> dict[str, Any]:
    """The request with its data opened and its execution providers found."""
    from onnxprune.model.file import open_model
    from onnxprune.runtime.latency import Setting
    from onnxprune.runtime.providers import CPU
    from onnxprune.support.cache import default_cache

    opened = open_model(model) if request["data"] is not None else None
    data = data_from(request, opened, request["seed"])
    names = request.pop("providers")
    timed = request["scope"] == "latency" or any(text.startswith("latency") for text in request["target"])
    providers = providers_from(names) if data is not None or request["recover"] or timed else []
    threads, batch = request.pop("threads"), request.pop("latency_batch")
    request["setting"] = Setting(providers[0] if providers else CPU, batch, threads)
    request["cache"] = default_cache()
    return {**request, "data": data, **({"providers": providers} if providers else {})}


_MEANT = ("only", "skip", "clean", "keep_metadata")


def _without_choices(request: dict[str, Any]) -> dict[str, Any]:
    """The options that mean something with --lossless. Raises UsageError when one that does not was given."""
    for name in request:
        given = click.get_current_context().get_parameter_source(name)
        if name not in (*_MEANT, "seed") and given is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} means nothing with --lossless, which leaves no choice; drop one of them")
    return {name: request[name] for name in _MEANT}
