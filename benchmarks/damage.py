"""Predicted against measured damage: each group alone is cut by a quarter, recovered, and judged on unseen samples.

python benchmarks/damage.py -o benchmarks/results/damage.md
python benchmarks/damage.py dtln_2 attacut-c --groups -o benchmarks/results/damage.md      # the other rows stay

Predicted is what the default allocation takes that cut to do, from calibration samples; measured is the share of the
worst output's variance that comes out wrong on evaluation samples. The table has their rank correlation (Spearman).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from defaults import cases as trained_cases
from defaults import read
from real import cases as real_cases
from real import kept_rows, revision
from recovery_common import CIFAR, loader

from onnxprune.analysis.inspect import inspect
from onnxprune.data.base import Data
from onnxprune.data.given import as_data
from onnxprune.evaluation.quality import compare_quality
from onnxprune.model.signature import ports_of
from onnxprune.runtime.session import Session
from onnxprune.steps.base import Context
from onnxprune.steps.prune.allocation.base import share, weakest
from onnxprune.steps.prune.options import PruneOptions
from onnxprune.steps.prune.planner import planner
from onnxprune.steps.prune.score import score_with
from onnxprune.steps.prune.trials import measure_trials
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.state import State

RATIO = 0.25
# Samples that measured damage is of, at most.
MOST = 256


def ranks(values: list[float]) -> np.ndarray:
    """Ranks; equal values share the mean of theirs."""
    array = np.array(values)
    below, equal = array[:, None] > array, array[:, None] == array
    return below.sum(1) + (equal.sum(1) - 1) / 2


def correlation(one: list[float], other: list[float]) -> float:
    """Spearman's."""
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1]) if len(one) > 1 else float("nan")


def harm(original: Session, state: State, data: Data) -> float:
    found = compare_quality(original, original, Session(state.model), data, most=MOST)
    return 1 - found.explained


def groups_of(model: Path, calibration: Path, evaluation: dict[str, np.ndarray]) -> dict[str, tuple[float, ...]]:
    """Per group that loses units: damage predicted, predicted from scores alone, and measured."""
    state = State.of(inspect(model), model)
    ports = ports_of(state.original.model)
    held = as_data({port.name: evaluation[port.name] for port in ports}, ports)
    context = Context(data=as_data(calibration, ports), following=(Recover(),))
    options = PruneOptions(target=("macs=0.75",))
    groups = state.original.groups
    criterion = options.scored_by(data=True)
    scores = score_with(context, state.analysis, groups, criterion)
    alone = planner(state.original, groups, scores, options, comparable=criterion.comparable).problem
    predicted = replace(alone, trials=measure_trials(state, alone, context)).damage
    original = Session(model)
    found = {}
    for group in groups:
        count = share(RATIO, group.units)
        if not count:
            continue
        cut = state.cut({group.atom: weakest(scores[group.id], count)})
        measured = harm(original, Recover()(cut, context), held)
        found[group.id] = float(predicted[group.id][count]), float(alone.damage[group.id][count]), measured
    return found


def files_in(folder: Path) -> dict[str, tuple[Any, Any, Any]]:
    """Every file by its name: the model, its calibration samples, and a function that reads those to evaluate on."""
    files = {
        name: (case.model, case.calibration, lambda case=case: read(case.evaluation))
        for name, case in real_cases(folder)
    }
    if CIFAR.exists():
        case = trained_cases(folder)["resnet20"]
        files["resnet20"] = case.model, case.calibration, lambda: {"input": loader()["tensors"]("test", MOST)[0]}
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="files; all by default")
    parser.add_argument("--groups", action="store_true", help="print every group, too")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    lines = [
        "# Predicted and measured damage",
        "",
        "Written by `python benchmarks/damage.py -o benchmarks/results/damage.md`: a quarter of each group alone, "
        "recovered; rank correlation, over the groups of a file, of the damage that the default allocation predicts "
        "with that of the worst output on samples that nothing was fitted to. Beside it, the correlation of what is "
        "predicted from scores alone, without a trial of each group.",
        "",
        "| file | groups | rank correlation | of scores alone | seconds | revision |",
        "|---|---|---|---|---|---|",
    ]
    rows = kept_rows(asked.output)
    with tempfile.TemporaryDirectory() as made:
        for name, (model, calibration, evaluation) in files_in(Path(made)).items():
            if asked.names and name not in asked.names:
                continue
            start = time.process_time()
            found = groups_of(model, calibration, evaluation())
            if asked.groups:
                for group, each in sorted(found.items(), key=lambda each: each[1][2]):
                    print(f"  {group:40} {each[0]:.5f} {each[1]:.5f} {each[2]:.5f}", file=sys.stderr)
            predicted, alone, measured = (list(each) for each in zip(*found.values(), strict=True))
            cells = [f"{correlation(each, measured):.2f}" for each in (predicted, alone)]
            seconds = time.process_time() - start
            rows[name] = f"| {name} | {len(found)} | {' | '.join(cells)} | {seconds:.0f} | {revision()} |"
            print(rows[name], file=sys.stderr, flush=True)
    text = "\n".join([*lines, *rows.values()]) + "\n"
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
