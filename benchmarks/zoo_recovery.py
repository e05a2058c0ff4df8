"""Run `compress` with data over the whole zoo: every model as it comes, and every option on a spread of models.

    python benchmarks/zoo_recovery.py                       # both; goes on where it stopped
    python benchmarks/zoo_recovery.py --match 'hf.*' --case default
    python benchmarks/zoo_recovery.py --table               # write the table from what was measured

The data is made up (2 batches of 8, or 16 samples in the batches that a model fixes) and the weights are random, so
this is about what works, not about accuracy: the SNR of the outputs beside the original, on other made-up inputs, says
only whether recovery leaves a model better than the cut did. Each model has a process of its own, so that memory and
time are its own too; what takes more than the limits is listed as such. `Result.save` verifies in ONNX Runtime.
"""

from __future__ import annotations

import fnmatch
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from coverage import CIFAR, REAL, SHARED, model_file
from zoo_recovery_table import to_markdown

from onnxprune.analysis import cost
from onnxprune.data.base import Batch, Data, load_data
from onnxprune.errors import DataError, OnnxpruneError, VerificationError
from onnxprune.evaluation.metrics import evaluate, metric, outputs_of
from onnxprune.model.file import open_model
from onnxprune.model.signature import ports_of
from onnxprune.pipeline import run as pipeline
from onnxprune.steps.prune.allocation.base import allocations
from onnxprune.steps.prune.criteria.base import criteria
from onnxprune.steps.recover.base import METHODS

sys.path.insert(0, str(SHARED / "zoo"))
FORK = multiprocessing.get_context("fork")  # what is imported here is there already
RESULTS = Path(__file__).parent / "results"
# Of address space: maps of weights count in it, many times over.
CPU_SECONDS, MEMORY_BYTES = 120, 64 << 30
BATCH, BATCHES, TEST_BATCHES = 8, 2, 4
# Structurally different and small; the prefix says what is done to a model of the zoo first.
SPREAD = (
    "hm.unet.ts17bn",
    "hf.bert.ts17fp16",
    "tv.mnasnet0_5.dy",
    "hf.llama.ts17ext",
    "hm.lstm.dy",
    "hf.segformer.ts17",
    "quantized:data/cifar10/resnet20.onnx",
    "hf.vit.dy23",
    "hm.gru.ts17",
    "tv.shufflenet_v2_x0_5.ts17bn",
    "hf.whisper_encoder.dy",
    "hf.gpt_neox.dy",
    "hm.if_subgraph.ts17",
    "hf.convnextv2.dy",
    "hm.grouped_conv.dy",
    "hf.falcon.ts17",
    "hm.squeeze_excite.ts17",
    "hf.clip.dy",
    "hm.conv3d_ae.ts17",
    "hf.bart.ts17",
    "timm.tinynet_e.ts17",
    "hf.wav2vec2.ts17",
    "hm.tcn.dy",
    "hf.mobilebert.ts17",
)
PER_CASE = 12

TARGETS = ("params=0.5", "macs=0.5", "size=0.6", "latency=0.9", "drop=0.05")

# By name what is asked for beside the data.
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    **{f"criterion {name}": {"criterion": name, "recover": "none"} for name in criteria.names()},
    **{f"scope {name}": {"scope": name, "criterion": "l2", "recover": "none"} for name in allocations.names()},
    **{f"target {text}": {"target": [text], "metric": "cosine", "criterion": "l2"} for text in TARGETS},
    **{f"recover {name}": {"recover": name, "criterion": "l2", "ratio": 0.3} for name in METHODS},
    "steps 3": {"steps": 3},
    "steps 3, target macs=0.5": {"steps": 3, "target": ["macs=0.5"], "criterion": "l2"},
    "clean fold-batchnorm": {"clean": ["fold-batchnorm"], "criterion": "l2"},
    "clean equalize": {"clean": ["fold-batchnorm", "equalize"], "criterion": "l2"},
    "round-to 8": {"round_to": 8, "criterion": "l2"},
    "lossless": {"lossless": True},
    "recover --like": {"later": True},
}


@dataclass
class Row:
    """The outcome for one model in one case.

    Attributes:
        outcome: "ok", "refused", "invalid", "crash", "missed" (a target that was said to be met) or "limit".
        reason: of anything but ok.
        cut, recovered: SNR in dB beside the original, on other inputs.
        parameters: share that is left.
        seconds: of CPU, for compress and save.
        megabytes: of memory at most.
    """

    model: str
    case: str
    outcome: str = "ok"
    reason: str = ""
    cut: float | None = None
    recovered: float | None = None
    parameters: float | None = None
    seconds: float = 0.0
    megabytes: float = 0.0
    remarks: list[str] = field(default_factory=list)


# One model and case, in a process of its own


def measure(name: str, case: str) -> Row:
    row = Row(name, case)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _measure(row, Path(folder), start)
        except VerificationError as error:
            row.outcome, row.reason = "invalid", str(error)
        except OnnxpruneError as error:
            row.outcome, row.reason = "refused", f"{type(error).__name__}: {error}"
        except Exception as error:  # what this looks for
            row.outcome, row.reason = "crash", f"{type(error).__name__}: {error}"
        row.reason = row.reason.replace(str(folder), "")
        row.remarks += sorted({f"{each.category.__name__}: {each.message}" for each in caught})
    row.seconds = row.seconds or time.process_time() - start
    row.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return row


def _measure(row: Row, folder: Path, start: float) -> None:
    path = file_of(row.model, folder)
    made = data_of(row.model, path, labels=row.case == "criterion lda")
    options = {"ratio": 0.5, **CASES[row.case]}
    result, cut = _compressed(path, folder, made(1, BATCHES), options)
    report = result.save(folder / "done.onnx")
    row.seconds = time.process_time() - start
    row.parameters = report.after.parameters / max(1, report.before.parameters)
    row.remarks += [note for note in report.notes if "target" not in note]
    row.recovered = _snr(folder / "done.onnx", path, made(1000, TEST_BATCHES), row)
    if options.get("later") or (options.get("recover") != "none" and not options.get("lossless")):
        if cut is None:
            pipeline.apply(path, result.plan).save(folder / "cut.onnx")
        row.cut = _snr(folder / "cut.onnx", path, made(1000, TEST_BATCHES), row)
    for text in options.get("target", ()):
        _check_target(row, text, path, folder / "done.onnx", made(1, BATCHES))


def _compressed(path: Path, folder: Path, data: Any, options: dict[str, Any]) -> tuple[Any, Path | None]:
    """The result, and the file as it was cut where there is one already."""
    from onnxprune.pipeline import run as pipeline
    from onnxprune.pipeline.beside import recover

    if options.pop("lossless", False):
        return pipeline.compress(path, lossless=True), None
    if options.pop("later", False):
        pipeline.compress(path, criterion="l2", ratio=0.3).save(folder / "cut.onnx")
        return recover(folder / "cut.onnx", path, data=data), folder / "cut.onnx"
    return pipeline.compress(path, data=data, **options), None


def file_of(name: str, folder: Path) -> Path:
    kind, _, rest = name.rpartition(":")
    path = model_file(rest, folder)
    if kind == "quantized":
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        feeds = [batch.feed for batch in data_of(rest, path)(1, 1).batches()]

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> Any:
                return feeds.pop() if feeds else None

        quantize_static(path, folder / "quantized.onnx", Reader(), quant_format=QuantFormat.QDQ)
        return folder / "quantized.onnx"
    return path


def data_of(name: str, path: Path, *, labels: bool = False) -> Callable[[int, int], Any]:
    """From a seed and a number of batches of 8 to data."""
    import zoo

    rest = name.rpartition(":")[2]
    if rest.endswith(".onnx"):
        ports = ports_of(open_model(path))
        return lambda seed, count: load_data("synthetic", ports, samples=count * BATCH, batch=BATCH, seed=seed)
    dynamic = zoo.info(rest)["io"]["dynamic"]
    spec = zoo.info(rest)["io"]["spec"]

    def made(seed: int, count: int) -> Any:
        fixed = zoo.info(rest)["io"]["batch"]
        several = count if dynamic else -(-count * BATCH // fixed)
        feeds = [zoo.make(spec, seed + number, BATCH if dynamic else fixed) for number in range(several)]
        rng = np.random.default_rng(seed)
        classes = [rng.integers(0, 2, BATCH if dynamic else fixed) if labels else None for _ in feeds]
        parts = [Batch(*pair) for pair in zip(feeds, classes, strict=True)]
        return Data("made up", labels, lambda: iter(parts))

    return made


def _snr(file: Path, original: Path, data: Any, row: Row) -> float | None:
    try:
        value = evaluate(file, data, metric("snr", False), outputs_of(original, data))
    except DataError as error:  # as many boxes as were found
        row.remarks.append(f"no SNR: {error}")
        return None
    return max(-999.0, min(999.0, value))


def _check_target(row: Row, text: str, path: Path, file: Path, data: Any) -> None:
    """Is a target met that was not refused? Found from the files; for a latency the tool's own figure is taken."""
    kind, limit = text.split("=")
    before, after = (pipeline.inspect(each) for each in (path, file))
    shares = {
        "params": lambda: cost.stored_cost(after.model).parameters / cost.before(before).parameters,
        "macs": lambda: cost.before(after).macs / max(1, cost.before(before).macs),
        "size": lambda: file.stat().st_size / path.stat().st_size,
        "drop": lambda: 1 - evaluate(file, data, metric("cosine", False), outputs_of(path, data)),
    }
    if kind in shares:
        reached = shares[kind]()
        row.remarks.append(f"{text}: reached {reached:.4f}")
        if reached > float(limit) + 2e-3:
            row.outcome, row.reason = "missed", f"{text} was said to be met, but it is {reached:.4f}"


# All of them


def in_own_process(name: str, case: str) -> Row:
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_send, args=(there, name, case))
    process.start()
    there.close()
    try:
        return here.recv()  # type: ignore[no-any-return]
    except EOFError:
        process.join()
        if process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
            return Row(name, case, "limit", f"more than {CPU_SECONDS} s of CPU", seconds=CPU_SECONDS)
        return Row(name, case, "crash", f"exit code {process.exitcode}")
    finally:
        process.join()


def _send(there: Any, name: str, case: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.nice(10)
    there.send(measure(name, case))


def jobs() -> list[tuple[str, str]]:
    """Model and case, the smallest models first; the cases behind take turns over the spread."""
    import zoo

    index = zoo.index()
    whole = [*CIFAR, *REAL, *sorted(index, key=lambda name: (index[name]["weight_mb"], name))]
    found = [(name, "default") for name in whole]
    cases = [name for name in CASES if name != "default"]
    for place in range(PER_CASE):
        found += [(SPREAD[(number * 5 + place) % len(SPREAD)], case) for number, case in enumerate(cases)]
    return found


@click.command()
@click.option("--match", default="*", help="shell pattern on model names")
@click.option("--case", "case_pattern", default="*", help="shell pattern on cases")
@click.option("--again", is_flag=True, help="measure what is there already too")
@click.option("--table", "only_table", is_flag=True, help="measure nothing")
def main(match: str, case_pattern: str, again: bool, only_table: bool) -> None:
    """Measure what was not yet measured, and write the table."""
    store = RESULTS / "zoo_recovery.jsonl"
    lines = store.read_text().splitlines() if store.exists() else []
    rows = {(row["model"], row["case"]): Row(**row) for row in map(json.loads, lines)}
    for name, case in [] if only_table else jobs():
        wanted = fnmatch.fnmatch(name, match) and fnmatch.fnmatch(case, case_pattern)
        if not wanted or ((name, case) in rows and not again):
            continue
        row = rows[name, case] = in_own_process(name, case)
        with store.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        shown = (
            f"{row.outcome} {row.reason} {row.cut} -> {row.recovered} dB, {row.seconds:.1f} s, {row.megabytes:.0f} MB"
        )
        print(f"{name:44} {case:28} {shown}", file=sys.stderr, flush=True)
    zoo = [name for name, case in jobs() if case == "default"]
    (RESULTS / "zoo_recovery.md").write_text(to_markdown(list(rows.values()), zoo))


if __name__ == "__main__":
    main()
