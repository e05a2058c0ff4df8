"""`onnxprune plan`: look at plans, put several together, map them to torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.base import JSON, MODEL, QUIET, VERBOSITY, examples, option_group, print_json
from onnxprune.cli.options import fields, given
from onnxprune.steps.base import Context

if TYPE_CHECKING:
    from onnxprune.steps.plan import Plan


@click.command(
    "plan",
    epilog=examples(
        "onnxprune plan model.onnx plan.json --torch > keep.json",
        "onnxprune plan model.onnx first.json second.json -o both.json",
    ),
)
@MODEL
@click.argument("plans", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--torch", "for_torch", is_flag=True, help="Print parameter names of torch and the positions that stay.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the plan that does what all of them do.")
@fields(Context, "input_shape", "custom_ops", section="")
@option_group(JSON, QUIET, VERBOSITY)
def command(
    model: Path,
    plans: tuple[Path, ...],
    for_torch: bool,
    output: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Show what PLANS remove from MODEL, and check that they fit.

    Several plans are put together, each speaking of the model that those before it leave. With --torch the result is
    one JSON document with an entry per parameter, for index_select in torch; names that could not be traced are listed.
    """
    from functools import reduce

    from onnxprune.pipeline import opening
    from onnxprune.steps.plan import Plan, compose
    from onnxprune.support.files import check_targets

    if output is not None:
        check_targets([model, *plans], output)
    analysis = opening.open_and_inspect(model, Context(**given(options, Context))).analysis
    plan = reduce(compose, [Plan.read(path) for path in plans])
    plan.keep(analysis)
    if output is not None:
        plan.save(output)
    if for_torch:
        from onnxprune.steps.prune.plan_to_torch import to_document

        print_json(to_document(analysis, plan))
    elif as_json:
        click.echo(plan.to_json(), nl=False)
    elif not quiet:
        _print(plan, verbose=verbose)


def _print(plan: Plan, *, verbose: bool) -> None:
    from onnxprune.report.tables import TextTable
    from onnxprune.report.terminal import console

    table = TextTable("group", "kind", ">units", ">kept", *(["removed"] if verbose else []))
    for removal in plan.removals:
        removed = [" ".join(map(str, removal.remove))] if verbose else []
        kept = removal.units - len(removal.remove)
        table.add_row(removal.group, removal.kind, f"{removal.units:,}", f"{kept:,}", *removed)
    console().print(table)
