"""Are the units that `obs` removes a good choice? Exchange removed and kept ones for as long as that lowers the error.

    python benchmarks/swaps.py            # ResNet-20 and ResNet-56 at 2.11x and 2.57x fewer MACs, and the table

For every group, and the number of units that the default allocation takes from it: the error of the layers that read
them, with the weights left made up for the removal (`criteria.surgeon`), for the units that `obs` takes; after the best
exchange of one removed and one kept unit, again and again until none lowers it (the local search of Meng et al. 2024,
"OSSCAR"); and the same from units drawn at random, which shows that the search finds what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
from recovery_common import CIFAR, IMAGES, ROOT, calibration, data_of

from onnxprune.analysis.select import select_groups
from onnxprune.pipeline import run as pipeline
from onnxprune.statistics.activations import Activations
from onnxprune.steps.prune.criteria._observed import Observations
from onnxprune.steps.prune.criteria.base import Context, WeightReader
from onnxprune.steps.prune.criteria.obs import SurgeonProblem, problems_of

# An exchange counts from here on.
_LESS = 1 - 1e-6


@dataclass(frozen=True)
class Found:
    """The outcome of the search for one group.

    Attributes:
        units, lost: of the group.
        greedy, swapped: error of what `obs` takes, and after exchanges.
        exchanges: how many.
        random, random_swapped: the same from units drawn at random.
    """

    group: str
    units: int
    lost: int
    greedy: float
    swapped: float
    exchanges: int
    random: float
    random_swapped: float


def error(problems: Sequence[SurgeonProblem], removed: Sequence[int]) -> float:
    """Error of the layers when these units go and the weights left make up for them."""
    total = 0.0
    for problem in problems:
        features = problem.members[list(removed)].ravel()
        weights = problem.matrix[features]
        block = problem.inverse[np.ix_(features, features)]
        total += float(np.sum(weights * np.linalg.solve(block, weights))) * problem.scale
    return total


def exchange(problems: Sequence[SurgeonProblem], units: int, removed: list[int]) -> tuple[float, int]:
    """The least error that single exchanges lead to, and how many it took."""
    least, count, improved = error(problems, removed), 0, True
    while improved:
        improved = False
        for out, back in product(sorted(set(range(units)) - set(removed)), sorted(removed)):
            if out in removed or back not in removed:
                continue  # exchanged meanwhile
            other = [unit for unit in removed if unit != back] + [out]
            value = error(problems, other)
            if value < least * _LESS:
                removed, least, count, improved = other, value, count + 1, True
    return least, count


def search(model: str, ratio: float, seed: int) -> list[Found]:
    """All groups that lose units."""
    path, data = CIFAR / f"{model}.onnx", data_of(calibration(seed, IMAGES))
    analysis = pipeline.inspect(path)
    groups = select_groups(analysis, (), ())
    context = Context(analysis, WeightReader(analysis), 0, Activations(analysis, data), "auto", "cpu")
    target = (f"macs={1 / ratio}",)
    plan = pipeline.compress(path, criterion="obs", target=target, data=data, recover="none").plan
    observations, keep, rng, found = Observations(context), plan.keep(analysis), np.random.default_rng(seed), []
    for group in groups:
        problems = [each for layer in observations.of(group) for each in problems_of(layer, group, context)]
        removed = [int(unit) for unit in np.flatnonzero(~keep[group.atom])] if group.atom in keep else []
        if problems and removed:
            drawn = [int(unit) for unit in rng.choice(group.units, len(removed), replace=False)]
            starts: Any = [error(problems, units) for units in (removed, drawn)]
            (swapped, count), (other, _) = (exchange(problems, group.units, units) for units in (removed, drawn))
            found.append(
                Found(group.id, group.units, len(removed), starts[0], swapped, count, starts[1], other),
            )
    return found


def to_markdown(rows: dict[tuple[str, float], list[Found]]) -> str:
    """A row per model and ratio."""
    lines = [
        "# Exchanges after `obs`",
        "",
        f"`python benchmarks/swaps.py`; {IMAGES} images. Errors relative to the outputs' variance, summed over groups.",
        "",
        "| | fewer MACs | groups | error, `obs` | after exchanges | how many | at random | after exchanges |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (model, ratio), found in rows.items():
        sums = [
            sum(getattr(each, name) for each in found) for name in ("greedy", "swapped", "random", "random_swapped")
        ]
        greedy, swapped, drawn, other = (f"{value:.4f}" for value in sums)
        count = sum(each.exchanges for each in found)
        lines.append(f"| {model} | {ratio} | {len(found)} | {greedy} | {swapped} | {count} | {drawn} | {other} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--models", default="resnet20,resnet56", show_default=True, help="names, with commas")
@click.option("--ratios", default="2.11,2.57", show_default=True, help="times fewer MACs, with commas")
@click.option("--seed", default=0, show_default=True, help="of the calibration set")
@click.option("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "swaps.md", show_default=True)
def main(models: str, ratios: str, seed: int, output: Path) -> None:
    """Search, and write the table."""
    rows = {
        (model, ratio): search(model, ratio, seed)
        for model in models.split(",")
        for ratio in map(float, ratios.split(","))
    }
    output.write_text(to_markdown(rows), encoding="utf-8")
    print(output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
