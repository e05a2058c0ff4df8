"""`onnxprune inspect`: what can be pruned, and what cannot and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.base import JSON, MODEL, VERBOSITY, examples, option_group, print_json
from onnxprune.cli.options import fields, given
from onnxprune.steps.base import Context


@click.command(
    "inspect",
    epilog=examples("onnxprune inspect model.onnx", "onnxprune inspect model.onnx --frozen --graph model.graphml"),
)
@MODEL
@click.option("--graph", type=click.Path(path_type=Path), help="Also write the graph: .graphml, or .json (node-link).")
@click.option("--frozen", is_flag=True, help="Print every frozen axis, not counts by reason.")
@fields(Context, "input_shape", "custom_ops", "resize_states", section="")
@option_group(JSON, VERBOSITY)
def command(model: Path, graph: Path | None, frozen: bool, as_json: bool, verbose: bool, **options: Any) -> None:
    """Show what can be pruned in MODEL, and what cannot and why."""
    from onnxprune.report.progress import progress as reporting

    with reporting() as progress:
        from onnxprune.pipeline import opening
        from onnxprune.report import data, graph_file, terminal

        if graph is not None:
            graph_file.check_graph_file(graph, model)
        context = Context(**given(options, Context), progress=progress)
        analysis = opening.open_and_inspect(model, context).analysis
        if graph is not None:
            graph_file.write_graph(analysis, graph)
    if as_json:
        print_json(data.of_analysis(analysis, model))
    else:
        terminal.show_analysis(analysis, model, every_frozen=frozen or verbose, verbose=verbose)
