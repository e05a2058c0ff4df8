"""Export networks of torch, verify them, and compress each at 0.5.

    python benchmarks/export.py -o benchmarks/results/export.md
    python benchmarks/export.py --match 'lstm*' --exporter torchscript

A network counts as done when its file gives its outputs at two sizes, and what is left at ratio 0.5 is a smaller file
that the checker and ONNX Runtime take. The weights are random: this is about structure, not accuracy.
"""

from __future__ import annotations

import fnmatch
import sys
import tempfile
import time
import warnings
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from export_networks import NETWORKS

import onnxprune as op


def tried(name: str, exporter: str | None) -> tuple[str, bool]:
    """A row of the table, and whether the network came all the way."""
    torch.manual_seed(0)
    net, inputs = NETWORKS[name]()
    start = time.perf_counter()
    try:
        found = op.export(net, inputs, exporter=exporter)
        result = op.compress(found.model, ratio=0.5, recover="none")
        with tempfile.TemporaryDirectory() as folder:
            result.save(Path(folder) / "small.onnx")
    except op.OnnxpruneError as error:
        return f"| {name} | {type(error).__name__}: {error} | | | |", False
    before, after = result.report.before.parameters, result.report.after.parameters
    worst = max(check.difference or 0.0 for check in found.checks)
    left = f"{before:,.0f} | {after / before:.0%} | {time.perf_counter() - start:.0f}"
    return f"| {name} | {found.exporter} | {worst:.0e} | {left} |", after < before


@click.command()
@click.option("--match", default="*", help="Names of networks, as a pattern.")
@click.option("--exporter", help="The only one to try.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The table as Markdown.")
def main(match: str, exporter: str | None, output: Path | None) -> None:
    """Export, verify, compress."""
    warnings.simplefilter("ignore")
    rows, done = [], 0
    for name in fnmatch.filter(NETWORKS, match):
        row, well = tried(name, exporter)
        done += well
        rows.append(row)
        print(row, flush=True)
    said = f"{done} of {len(rows)} networks were exported, verified at two sizes and compressed at 0.5."
    print(said)
    if output is not None:
        head = ["# Networks of torch, exported and compressed", ""]
        only = "" if exporter is None else f" --exporter {exporter}"
        head += [f"`python benchmarks/export.py{only}`, torch {torch.__version__}. {said}", ""]
        head += ["| network | exporter | difference | parameters | left | seconds |", "|---|---|---|---|---|---|"]
        output.write_text("\n".join((*head, *rows)) + "\n")


if __name__ == "__main__":
    main()
