"""Accuracy won back without training, on trained networks: 500 unlabeled images, no gradient steps.

    python benchmarks/recovery.py                                    # all that is not measured yet, and the table
    python benchmarks/recovery.py --models resnet20 --seeds 0 --ratios 2.11 --methods none,default

Every finished measurement goes into a JSON lines file beside the table (`recovery.jsonl`); what is in there is not
measured again, so that the work can be done in pieces. Delete it to start afresh.

The calibration set of seed s are 500 of the 50,000 training images of CIFAR-10, drawn by `numpy.random.default_rng(s)`;
accuracy is on all 10,000 test images. The peers need `pip install pillow torch onnxsim` and
`pip install --no-deps torch-pruning`; `recovery_peers.py` says how they are called. Transformers: heads and neurons go
until half of the MACs are left, calibrated on 500 inputs and measured on others.
"""

from __future__ import annotations

import runpy
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
from recovery_common import CIFAR, IMAGES, ROOT, SHARED, Cache, Row, accuracy, calibration, data_of
from recovery_table import METHODS, OURS, RATIOS, SEEDS, TIMED, TRANSFORMERS, to_markdown


class Ours:
    """One model and calibration set; units are scored once for all ratios and methods."""

    def __init__(self, model: str, seed: int, folder: Path, options: dict[str, Any]) -> None:
        self.model, self.seed, self.folder, self.options = model, seed, folder, options
        self.path = CIFAR / f"{model}.onnx"
        self.plans: dict[float, Any] = {}

    @cached_property
    def data(self) -> Any:
        return data_of(calibration(self.seed, IMAGES))

    def plan(self, ratio: float) -> Any:
        """The cut of `pipeline.compress(path, data=data, target=...)`, fitted to all images.

        With the recovery that follows: without one, obs counts on no weights that make up for others. No layers are
        split, so that every way of recovery starts from the same units.
        """
        from onnxprune.pipeline import run as pipeline

        if ratio not in self.plans:
            target, data = (f"macs={1 / ratio}",), self.data
            made = pipeline.compress(
                self.path, target=target, data=data, calibration=data, low_rank=0.0, **self.options
            )
            self.plans[ratio] = made.plan
        return self.plans[ratio]

    def measure(self, method: str, ratio: float) -> Row:
        """Accuracy with one of the ways of recovery."""
        from onnxprune.analysis import cost
        from onnxprune.analysis.inspect import analyze_model
        from onnxprune.model.file import save
        from onnxprune.passes.remove_dead import RemoveDead
        from onnxprune.passes.remove_units import RemoveUnits
        from onnxprune.pipeline import run as pipeline
        from onnxprune.steps.recover import methods as recover
        from onnxprune.steps.recover.step import BEST

        plan = self.plan(ratio)
        original, cut = pipeline.inspect(self.path), pipeline.inspect(self.path)
        RemoveUnits(cut, plan.keep(cut))(cut.model)
        RemoveDead()(cut.model)
        pruned = analyze_model(cut.model)
        if method != "none":
            name = BEST if method == "default" else method
            recover.recover_layers(original, pruned, plan.keep(original), name, self.data)
        path = self.folder / "ours.onnx"
        save(pruned.model, path)
        reached = cost.before(original).macs / cost.before(pipeline.inspect(path)).macs
        return Row(self.model, method, ratio, self.seed, IMAGES, accuracy(path), reached)


def measure_ours(
    model: str,
    ratios: list[float],
    seeds: list[int],
    wanted: list[str],
    cache: Cache,
    at: Path,
    options: dict[str, Any],
) -> None:
    """All that is missing of onnxprune's rows."""
    if "dense" in wanted and not cache.has(model, "dense", 1.0, 0, 0):
        cache.add(Row(model, "dense", 1.0, 0, 0, accuracy(CIFAR / f"{model}.onnx"), 1.0))
    for seed in seeds:
        ours = Ours(model, seed, at, options)
        for ratio in ratios:
            for method in OURS:
                if method in wanted and not cache.has(model, method, ratio, seed, IMAGES):
                    cache.add(ours.measure(method, ratio))
    for name, ratio, images in TIMED:
        if name == model and "compress" in wanted and not cache.has(model, "compress", ratio, 0, images):
            cache.add(timed(model, ratio, images, at))


def timed(model: str, ratio: float, images: int, folder: Path) -> Row:
    """The whole of `compress`, as a user calls it, and its seconds."""
    from onnxprune.pipeline import run as pipeline

    data, path = data_of(calibration(0, images)), folder / "timed.onnx"
    wall, cpu = time.perf_counter(), time.process_time()
    result = pipeline.compress(CIFAR / f"{model}.onnx", data=data, target=(f"macs={1 / ratio}",))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    result.save(path)
    reached = result.report.before.macs / result.report.after.macs
    return Row(model, "compress", ratio, 0, images, accuracy(path), reached, wall, cpu)


def transformer(name: str, seed: int, folder: Path) -> tuple[Path, Any, Any, str]:
    """The file, its calibration and test inputs, and the name of its input."""
    if name.startswith("digits"):
        arrays, test = (np.load(ROOT / "models" / f"digits_{part}.npz")["input"] for part in ("calibration", "test"))
        drawn = np.random.default_rng(seed).choice(len(arrays), IMAGES, replace=False)
        return ROOT / "models" / f"{name}.onnx", arrays[drawn], test, "input"
    zoo = runpy.run_path(str(SHARED / "zoo" / "zoo.py"))
    path = folder / "zoo.onnx"
    zoo["save"](name, str(path))
    model = zoo["load"](name)
    feeds = [zoo["inputs"](model, seed=2 * seed + number, batch=images) for number, images in enumerate((IMAGES, 100))]
    ((port, images),) = feeds[0].items()
    return path, images, feeds[1][port], port


def measure_transformer(name: str, method: str, seed: int, folder: Path) -> Row:
    """SNR of the outputs on inputs that were not calibrated on."""
    from onnxprune.evaluation import metrics
    from onnxprune.pipeline import run as pipeline

    path, images, test, port = transformer(name, seed, folder)
    kinds = {group.kind for group in pipeline.inspect(path).groups}
    wall, cpu = time.perf_counter(), time.process_time()
    result = pipeline.compress(
        path,
        data=data_of(images, port),
        recover="none" if method == "none" else None,
        target=("macs=0.5",),
        only=[kind for kind in ("heads", "neurons", "kv-heads") if kind in kinds],
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    target = folder / "transformer.onnx"
    result.save(target)
    held_out = data_of(test, port)
    reference = list(metrics.outputs_of(path, held_out))
    value = metrics.evaluate(target, held_out, metrics.metric("snr", False), reference)
    reached = result.report.before.macs / result.report.after.macs
    return Row(name, method, 2.0, seed, IMAGES, value, reached, wall, cpu)


def measure_transformers(name: str, seeds: list[int], wanted: list[str], cache: Cache, at: Path) -> None:
    """All that is missing of one of them."""
    for seed in seeds:
        for method in ("none", "default"):
            if method in wanted and not cache.has(name, method, 2.0, seed, IMAGES):
                cache.add(measure_transformer(name, method, seed, at))


@click.command()
@click.option("--models", default=",".join(["resnet20", "resnet56", *TRANSFORMERS]), help="names, with commas")
@click.option("--seeds", default=",".join(map(str, SEEDS)), help="of the calibration set, with commas")
@click.option("--ratios", default=",".join(map(str, RATIOS)), help="times fewer MACs, with commas")
@click.option("--methods", default=",".join(METHODS), help="rows of the table, with commas")
@click.option("--no-guard", is_flag=True, help="take the cut that is predicted to be best")
@click.option("--round-to", type=int, help="multiples of this are kept of every axis, in place of those kernels like")
@click.option("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results" / "recovery.md", show_default=True)
def main(
    models: str, seeds: str, ratios: str, methods: str, no_guard: bool, round_to: int | None, output: Path
) -> None:
    """Measure what is missing and write the table."""
    options = {"no_guard": no_guard, "round_to": round_to}
    wanted = methods.split(",")
    some_seeds, some_ratios = [int(seed) for seed in seeds.split(",")], [float(ratio) for ratio in ratios.split(",")]
    cache = Cache(output.with_suffix(".jsonl"))
    with tempfile.TemporaryDirectory() as place:
        for model in models.split(","):
            if model in TRANSFORMERS:
                measure_transformers(model, some_seeds, wanted, cache, Path(place))
                continue
            measure_ours(model, some_ratios, some_seeds, wanted, cache, Path(place), options)
            if any(method.startswith(("torch-pruning", "onnxsim")) for method in wanted):
                from recovery_peers import measure_peers

                measure_peers(model, some_ratios, some_seeds, wanted, cache, Path(place))
    output.write_text(to_markdown(list(Cache(cache.path).rows.values())), encoding="utf-8")


if __name__ == "__main__":
    main()
