"""Small networks of kinds that are in no zoo, as the tests have them: what of each can go, and what is left at a half.

    python benchmarks/kinds.py > benchmarks/results/kinds.md

No weights are trained, so this says what can be cut, not what a cut costs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx

import onnxprune as op
from onnxprune.analysis.held import nothing_to_prune

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.conftest import _add_weights
from tests.test_kinds import KINDS, Kind
from tests.test_kinds_exported import EXPORTED
from tests.test_kinds_further import FURTHER

HEAD = """# Kinds of networks from outside

Written by `python benchmarks/kinds.py`: small networks of kinds that are neither in the zoo nor among the reported
cases, rebuilt in the files `tests/test_kinds*.py`. The tests hold the groups to those that are right, and compare every
cut with the network whose units are switched off. Left are the parameters at `--ratio 0.5 --recover none`.

| kind | groups (units) | parameters | left | verdict |
|---|---|---|---|---|"""


def row(name: str, kind: Kind, path: Path) -> str:
    """One line of the table."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {kind.opset}]>\n{kind.graph}')
    _add_weights(model.graph, {})
    onnx.save(model, path)
    analysis = op.inspect(path)
    units = ", ".join(str(group.units) for group in analysis.groups)
    if not units:
        return (
            f"| {name} | none | - | - | {nothing_to_prune(analysis, name).partition(': ')[2].partition('; see')[0]} |"
        )
    report = op.compress(path, ratio=0.5, recover="none", allow_damage=True).report
    before, after = report.before.parameters, report.after.parameters
    verdict = "all that is right" if tuple(sorted(group.units for group in analysis.groups)) == kind.units else "WRONG"
    return f"| {name} | {units} | {before:,} | {after / before:.0%} | {verdict} |"


def main() -> None:
    """Print the page."""
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (KINDS | FURTHER | EXPORTED).items():
            print(row(name, kind, Path(folder) / "model.onnx"), flush=True)


if __name__ == "__main__":
    main()
