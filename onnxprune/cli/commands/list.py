"""`onnxprune list`: what there is to choose from, plug-ins included."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.base import JSON, VERBOSITY, examples, option_group, print_json

if TYPE_CHECKING:
    from onnxprune.support.registry import Registry

# Each family with its registry and where its names are used.
FAMILIES = {
    "budgets": ("onnxprune.evaluation.gate.budgets.base:BUDGETS", "limits that a model has to keep: onnxprune gate"),
    "clean-ups": ("onnxprune.passes.base:CLEAN_UPS", "passes that leave the outputs as they are: --clean"),
    "code-operators": ("onnxprune.conversion.to_torch.base:TORCH_CODE", "operators that to-torch can write"),
    "criteria": ("onnxprune.steps.prune.criteria.base:criteria", "scores of units: --criterion"),
    "data": ("onnxprune.data.base:SOURCES", "sources of samples: --data"),
    "losses": ("onnxprune.runtime.torch.losses.base:LOSSES", "functions that gradients are of: --loss"),
    "methods": (
        "onnxprune.steps.train.method:TRAINING_METHODS",
        "methods that take part in a training: --training-method",
    ),
    "metrics": ("onnxprune.evaluation.metrics.base:METRICS", "measures of how good a model is: --metric"),
    "objectives": (
        "onnxprune.pipeline.search.objectives.base:objectives",
        "what a search makes small or large, beside metrics: search --minimize",
    ),
    "operators": ("onnxprune.ops.base:RULES", "operators with a rule; all others keep their sizes"),
    "penalties": ("onnxprune.steps.train.method:PENALTIES", "what a training keeps small: --penalty"),
    "rate-schedules": (
        "onnxprune.steps.train.rate:RATE_SCHEDULES",
        "ways in which the learning rate changes: --rate-schedule",
    ),
    "ranges": ("onnxprune.steps.quantize.ranges.base:RANGES", "what of their range integers cover: quantize --ranges"),
    "recovery": ("onnxprune.steps.recover.base:METHODS", "methods that win accuracy back: --recover"),
    "samplers": ("onnxprune.pipeline.search.samplers.base:samplers", "ways to choose the next trial: search --sampler"),
    "schedules": ("onnxprune.steps.prune.schedule:SCHEDULES", "ways to spread a cut over rounds: --schedule"),
    "scopes": ("onnxprune.steps.prune.allocation.base:allocations", "ways to spread a cut over groups: --scope"),
    "sources": ("onnxprune.conversion.base:EXPORT_SOURCES", "networks of other frameworks: onnxprune export"),
    "sparsity-allocations": (
        "onnxprune.steps.sparsify.base:ALLOCATIONS",
        "ways to share sparsity out over layers: --sparsity-allocation",
    ),
    "steps": ("onnxprune.steps.base:steps", "parts of a recipe: [[step]] tables"),
    "types": ("onnxprune.steps.quantize.base:TYPES", "what a model can be quantized to: quantize --to"),
    "weight-criteria": (
        "onnxprune.steps.sparsify.base:WEIGHT_CRITERIA",
        "scores of single weights: --weight-criterion",
    ),
    "torch-operators": ("onnxprune.runtime.torch.ops.base:TABLE", "operators that torch can compute"),
}


@click.command("list", epilog=examples("onnxprune list", "onnxprune list criteria", "onnxprune list metrics --json"))
@click.argument("family", required=False, type=click.Choice(list(FAMILIES)), metavar="[FAMILY]")
@option_group(JSON, VERBOSITY)
def command(family: str | None, as_json: bool, verbose: bool) -> None:  # noqa: ARG001 (-v prints tracebacks)
    """List the members of FAMILY by name, those of installed plug-ins too; without FAMILY the families."""
    from onnxprune.report import listing

    if family is None:
        members: list[dict[str, Any]] = [{"name": name, "summary": said} for name, (_, said) in FAMILIES.items()]
    else:
        members = registry_of(family).listing()
    if as_json:
        print_json(listing.listing_document(family, members))
    else:
        listing.show_listing("family" if family is None else family, members)


def registry_of(family: str) -> Registry[Any, Any]:
    """The registry of a family. Raises MissingExtraError where it needs a package that is not installed."""
    module, _, name = FAMILIES[family][0].partition(":")
    registry: Registry[Any, Any] = getattr(importlib.import_module(module), name)
    return registry
