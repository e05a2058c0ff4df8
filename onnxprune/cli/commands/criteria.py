"""`onnxprune criteria`: what a unit can be scored by."""

from __future__ import annotations

import click

from onnxprune.cli.base import JSON, VERBOSITY, examples, print_json, shared


@click.command("criteria", epilog=examples("onnxprune criteria", "onnxprune criteria --json"))
@shared(JSON, VERBOSITY)
def command(as_json: bool, verbose: bool) -> None:  # noqa: ARG001 (-v prints tracebacks)
    """List the criteria: what each needs, what it costs, and where it comes from."""
    from onnxprune.report import scores
    from onnxprune.steps.prune.criteria.base import criteria

    found = [criteria[name] for name in criteria.names()]
    if as_json:
        print_json(scores.of_criteria(found))
    else:
        scores.show_criteria(found)
