"""onnxprune beside torch-pruning and onnxsim's structured pruning: L1 at ratio 0.5 on the same ten networks.

    python benchmarks/peers.py -o benchmarks/results/peers.md
    python benchmarks/peers.py --match 'resnet*' --rounds 1          # one of them, to the terminal

Needs torch and onnxscript, which export the networks of `architectures.py`; torch-pruning and onnxsim are optional, and
a column says so where one is missing: `pip install torch onnxscript onnxsim && pip install --no-deps torch-pruning`.

Every measurement is a process of its own, with a time limit; the tools take turns, round after round, and the best time
of all rounds counts. Imports are never counted. torch gets one thread: its small operations gain nothing from more, and
where other programs run, two threads that wait for each other make torch-pruning four times slower. `--threads 2` lets
it have more, on a machine of its own. Timed is, from what the tool starts with:

    onnxprune       opening the ONNX file .. pruned model in memory         .. file written and verified (`Result.save`)
    torch-pruning   torch module in memory .. dependency graph built, step  .. `torch.onnx.export` done
    onnxsim         opening the ONNX file .. simplified, heads, channels    .. `onnx.save` done

The options are those that cut deepest among the documented ones. torch-pruning: `ignored_layers` is the last layer;
`num_heads` names the attentions, of which it removes heads and head dimensions, but heads alone where rotary positions
forbid the other, as its LLM example has it; the numbers of heads in the modules are put right afterwards. onnxsim: the
functions of its Python module, `apply_attention_head_pruning` and `apply_structured_pruning`, behind `simplify`; its
command line does not offer them.

A result is valid when the file passes the onnx checker with full shape inference and gives finite outputs of the
original's shapes in ONNX Runtime. Parameters are counted in the files, the same way for all: before is the network's
own export.
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click

RATIO = 0.5
OPSET = 20
OURS = "onnxprune"
PEERS = {"torch-pruning": "torch_pruning", "onnxsim": "onnxsim"}
IMPORTS = {
    OURS: ("onnxprune.pipeline", "onnxruntime"),
    "torch-pruning": ("torch_pruning", "onnxscript"),
    "onnxsim": ("onnxsim", "onnx"),
}
PACKAGES = (OURS, *PEERS, "torch", "onnx", "onnxruntime")


# In the process of a tool


@dataclass
class Stopwatch:
    """Wall and processor seconds since it was made."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


@dataclass
class Case:
    """What a tool works on: the exported original, where its result goes, inputs and the shapes of the outputs."""

    name: str
    folder: Path

    @property
    def original(self) -> Path:
        return self.folder / f"{self.name}.onnx"

    def target(self, tool: str) -> Path:
        return self.folder / f"{self.name}.{tool}.onnx"

    @property
    def inputs(self) -> Path:
        return self.folder / f"{self.name}.npz"


Step = Callable[[], Any]


def ours(case: Case) -> tuple[Step, Callable[[Any], None]]:
    from onnxprune import pipeline

    return lambda: pipeline.compress(case.original, "l1", RATIO), lambda result: result.save(case.target(OURS))


def torch_pruning(case: Case) -> tuple[Step, Callable[[Any], None]]:
    import architectures
    import torch
    import torch_pruning as tp

    network, inputs = architectures.ARCHITECTURES[case.name].make()
    attentions = [module for module in network.modules() if isinstance(module, architectures.Attention)]
    rotary = any(isinstance(module, architectures.GroupedAttention) for module in attentions)

    def prune() -> torch.nn.Module:
        pruner = tp.pruner.MagnitudePruner(
            network,
            inputs,
            importance=tp.importance.MagnitudeImportance(p=1),
            pruning_ratio=RATIO,
            ignored_layers=[network.head],
            in_channel_groups={},
            out_channel_groups={},
            num_heads={layer: heads for module in attentions for layer, heads in module.projections().items()},
            prune_num_heads=True,
            head_pruning_ratio=RATIO,
            prune_head_dims=not rotary,
        )
        pruner.step()
        for module in attentions:
            heads = [pruner.num_heads[layer] for layer in module.projections()]
            module.resize(heads[0], heads[-1])
        return network

    return prune, lambda pruned: export(pruned, inputs, case.target("torch-pruning"))


def onnxsim(case: Case) -> tuple[Step, Callable[[Any], None]]:
    import onnx
    import onnxsim as sim

    def prune() -> onnx.ModelProto:
        model, _ = sim.simplify(onnx.load(case.original))
        model = sim.apply_attention_head_pruning(model, sparsity=RATIO, importance_norm="l1")
        return sim.apply_structured_pruning(model, sparsity=RATIO, importance_norm="l1")

    return prune, lambda model: onnx.save(model, case.target("onnxsim"))


def export(network: Any, inputs: tuple[Any, ...], path: Path) -> None:
    import torch

    torch.onnx.export(network, inputs, str(path), dynamo=False, opset_version=OPSET, verbose=False)


TOOLS = {OURS: ours, "torch-pruning": torch_pruning, "onnxsim": onnxsim}


def original(case: Case, repeats: int) -> dict[str, Any]:
    """Export the network itself, which the two tools for ONNX files start from."""
    import architectures
    import numpy as np

    network, inputs = architectures.ARCHITECTURES[case.name].make()
    seconds = []
    for _ in range(repeats):
        watch = Stopwatch()
        export(network, inputs, case.original)
        seconds.append(watch.read())
    np.savez(case.inputs, *(value.numpy() for value in inputs))
    return {"file": seconds, "parameters": parameters(case.original), "bytes": case.original.stat().st_size}


def measure(tool: str, case: Case, repeats: int) -> dict[str, Any]:
    """Prune and write `repeats` times; memory is that of the first time."""
    for module in IMPORTS[tool]:
        importlib.import_module(module)
    found: dict[str, Any] = {"prune": [], "file": [], "base": peak()}
    for _ in range(repeats):
        prune, write = TOOLS[tool](case)
        watch = Stopwatch()
        result = prune()
        found["prune"].append(watch.read())
        write(result)
        found["file"].append(watch.read())
        found.setdefault("peak", peak())
        del prune, write, result
    path = case.target(tool)
    found["parameters"] = parameters(path)
    found["invalid"], found["note"] = validate(path, case)
    return found


def peak() -> int:
    """The most memory this process has had, in bytes.

    Linux counts into `ru_maxrss` what the parent had before the new program was loaded, so its own record comes first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parameters(path: Path) -> int:
    """Elements of all floating-point weights of a file, however they are stored."""
    import onnx

    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    graph = onnx.load(path).graph
    constants = [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    sizes = [math.prod(tensor.dims) for tensor in (*graph.initializer, *constants) if tensor.data_type in floating]
    return sum(size for size in sizes if size > 1)


def validate(path: Path, case: Case) -> tuple[str, str]:
    """Why the file is not valid, or nothing; and what had to be done to make it so."""
    import onnx

    error = why_invalid(path, case)
    if not error:
        return "", ""
    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save(model, path)
    if why_invalid(path, case):
        return error, ""
    return "", "fails the checker as written, with stale intermediate shapes; counted as valid without them"


def why_invalid(path: Path, case: Case) -> str:
    import numpy as np
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
        with np.load(case.inputs) as stored:
            feed = list(stored.values())
        expected, got = outputs(case.original, feed), outputs(path, feed)
    except Exception as error:
        return one_line(error)
    if [value.shape for value in got] != [value.shape for value in expected]:
        return f"output shapes {[value.shape for value in got]} are not {[value.shape for value in expected]}"
    return "" if all(np.isfinite(value).all() for value in got) else "outputs are not finite"


def outputs(path: Path, feed: list[Any]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {value.name: data for value, data in zip(session.get_inputs(), feed, strict=True)})


def one_line(error: BaseException) -> str:
    """An error in one line; one without words is shown by the code that raised it, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).strip().replace("\n", " ")
    if len(text) < 50:
        text = f"{text + ': ' if text else ''}`{frame.line}` ({Path(frame.filename).name}:{frame.lineno})"
    return f"{type(error).__name__}: {text}"[:240]


def worker(tool: str, case: Case, repeats: int) -> None:
    """Measure, and put the figures on standard output as one line of JSON."""
    warnings.filterwarnings("ignore")
    try:
        found = original(case, repeats) if tool == "original" else measure(tool, case, repeats)
    except Exception as error:
        traceback.print_exc()
        found = {"error": one_line(error)}
    print(json.dumps(found), flush=True)


# In the process that compares


@dataclass
class Outcome:
    """The best figures of one tool on one network over all rounds; seconds are pairs of wall and processor."""

    error: str = ""
    note: str = ""
    prune: tuple[float, float] = (math.inf, math.inf)
    file: tuple[float, float] = (math.inf, math.inf)
    base: float = math.inf
    peak: float = math.inf
    parameters: int = 0
    bytes: int = 0

    def add(self, found: dict[str, Any]) -> None:
        """Take in one round."""
        self.error = found.get("error") or found.get("invalid") or ""
        self.note = found.get("note", "")
        for name in ("prune", "file"):
            pairs = [getattr(self, name), *found.get(name, ())]
            setattr(self, name, tuple(min(pair[clock] for pair in pairs) for clock in (0, 1)))
        for name in ("base", "peak"):
            setattr(self, name, min(getattr(self, name), found.get(name, math.inf)))
        self.parameters = found.get("parameters", self.parameters)
        self.bytes = found.get("bytes", self.bytes)


@dataclass(frozen=True)
class Effort:
    """How often things are measured, with how many threads, and when that ends."""

    rounds: int
    repeats: int
    threads: int
    limit: int

    def environment(self) -> dict[str, str]:
        """What tells OpenMP and the libraries for linear algebra."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return {**os.environ, **dict.fromkeys(names, str(self.threads))}


def in_process(tool: str, case: Case, effort: Effort) -> dict[str, Any]:
    """Run `worker` in a process of its own."""
    repeats = 2 if tool == "original" else effort.repeats
    command = [sys.executable, __file__, "--worker", tool, "--match", case.name, "--repeats", str(repeats)]
    command += ["--folder", str(case.folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=effort.limit, env=effort.environment(), check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {effort.limit} s"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return {"error": f"exit code {done.returncode}: {last[:200]}"}


def compare(case: Case, tools: list[str], effort: Effort) -> dict[str, Outcome]:
    """All tools on one network, in turn."""
    rows = {tool: Outcome() for tool in ("original", *tools)}
    rows["original"].add(in_process("original", case, effort))
    if rows["original"].error:
        raise SystemExit(f"{case.name} cannot be exported: {rows['original'].error}")
    for _ in range(effort.rounds):
        for tool in tools:
            if not rows[tool].error:
                rows[tool].add(in_process(tool, case, effort))
    return rows


def missing(tool: str) -> bool:
    """Is the package of this tool absent?"""
    return importlib.util.find_spec(PEERS.get(tool, OURS)) is None


# Tables

Results = dict[str, dict[str, Outcome]]


def coverage_table(titles: dict[str, str], results: Results, tools: list[str]) -> Iterator[str]:
    yield from header("network", "parameters, millions", *tools)
    for name, rows in results.items():
        before = rows["original"].parameters
        cells = []
        for tool in (OURS, *PEERS):
            row = rows.get(tool)
            cells.append("not installed" if row is None else "fails" if row.error else f"{row.parameters / before:.3f}")
        yield line(titles[name], f"{before / 1e6:.2f}", *cells)


def seconds_table(titles: dict[str, str], results: Results, part: str) -> Iterator[str]:
    ratios = [text for tool in PEERS for text in (f"{tool} / {OURS}", "by CPU time")]
    yield from header("network", OURS, *PEERS, *ratios)
    for name, rows in results.items():
        mine = getattr(rows[OURS], part)
        cells, beside = [number(mine[0])], []
        for tool in PEERS:
            pair = getattr(rows.get(tool, Outcome()), part)
            cells.append(number(pair[0]))
            beside += [ratio(pair[0], mine[0]), ratio(pair[1], mine[1])]
        yield line(titles[name], *cells, *beside)


def memory_table(titles: dict[str, str], results: Results) -> Iterator[str]:
    yield from header("network", "file, MB", OURS, *PEERS, *(f"{tool} / {OURS}" for tool in PEERS))
    for name, rows in results.items():
        peaks = [rows.get(tool, Outcome()) for tool in (OURS, *PEERS)]
        cells = [megabytes(row) for row in peaks]
        beside = [ratio(row.peak, peaks[0].peak) for row in peaks[1:]]
        yield line(titles[name], f"{rows['original'].bytes / 1e6:.0f}", *cells, *beside)


def header(*cells: str) -> tuple[str, str]:
    return line(*cells), "|---" * len(cells) + "|"


def line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def number(value: float) -> str:
    return f"{value:.2f}" if value < math.inf else ""


def megabytes(row: Outcome) -> str:
    return f"{row.peak / 1e6:.0f} ({(row.peak - row.base) / 1e6:.0f})" if row.peak < math.inf else ""


def ratio(theirs: float, mine: float) -> str:
    return f"{theirs / mine:.1f}" if theirs < math.inf and mine < math.inf else ""


def summary(results: Results, tools: list[str]) -> Iterator[str]:
    """What came of the aims of the comparison, in one line for each peer."""
    mine = {name: rows[OURS] for name, rows in results.items()}
    yield f"- {OURS}: valid on {sum(not row.error for row in mine.values())} of {len(mine)}."
    for tool in PEERS:
        if tool not in tools:
            yield f"- {tool}: not installed."
            continue
        both = [(mine[n], rows[tool]) for n, rows in results.items() if not rows[tool].error and not mine[n].error]
        valid = sum(not rows[tool].error for rows in results.values())
        text = f"- {tool}: valid on {valid} of {len(results)}"
        if both:
            deeper = sum(peer.parameters < own.parameters * 0.99 for own, peer in both)
            text += f", more than 1% fewer parameters than {OURS} on {deeper}"
            for part, what, aim in (("prune", "analysis, scores and removal", 5), ("file", "weights to file", 10)):
                times = [getattr(peer, part)[0] / getattr(own, part)[0] for own, peer in both]
                text += (
                    f"; {what}: its time over ours {min(times):.1f} to {max(times):.1f}, median {median(times):.1f}, "
                    f"at least {aim} on {sum(value >= aim for value in times)} of {len(times)}"
                )
        yield text + "."


def to_markdown(titles: dict[str, str], results: Results, tools: list[str], context: str) -> str:
    exported = ", ".join(f"{name} {rows['original'].file[0]:.1f}" for name, rows in results.items())
    parts = [
        ["# onnxprune beside its peers", "", f"L1 at ratio {RATIO}. {context}", ""],
        summary(results, tools),
        ["", "## Parameters left in the pruned file", ""],
        coverage_table(titles, results, [OURS, *PEERS]),
        ["", *messages(titles, results), "## Seconds for analysis, scores and removal", ""],
        ["onnxprune and onnxsim: from opening the file. torch-pruning: from the module in memory.", ""],
        seconds_table(titles, results, "prune"),
        ["", "## Seconds from weights to a pruned ONNX file", ""],
        ["onnxprune: with its verification, which the others do not have. torch-pruning: with `torch.onnx.export`."],
        [""],
        seconds_table(titles, results, "file"),
        ["", "Who starts from torch has to export the original first, for onnxprune and onnxsim alike. Seconds:", ""],
        [exported + ".", "", "## Peak memory to the pruned file, MB", ""],
        ["Of a process of its own; in brackets without what the imports of the tool take.", ""],
        memory_table(titles, results),
    ]
    return "\n".join(text for part in parts for text in part) + "\n"


def messages(titles: dict[str, str], results: Results) -> Iterator[str]:
    for name, rows in results.items():
        for tool, row in rows.items():
            if row.error or row.note:
                yield f"- {tool}, {titles[name]}: {row.error or row.note}"
    yield ""


def context(effort: Effort, load: float) -> str:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    busy = f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after"
    return (
        f"Best of {effort.rounds} processes with {effort.repeats} runs each, the tools in turn, torch with "
        f"{effort.threads} thread{'s' if effort.threads > 1 else ''}; run again with `python "
        f"benchmarks/peers.py -o benchmarks/results/peers.md`. {os.cpu_count()} cores, {busy}: the benchmark alone "
        f"makes 1 to {os.cpu_count()}, and with more the seconds are too long, and ratios by CPU time (of all threads) "
        f"better than those by the clock. Python {sys.version.split()[0]}, {', '.join(versions)}."
    )


@contextmanager
def workplace(given: Path | None) -> Iterator[Path]:
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@click.command()
@click.option("--match", default="*", help="shell pattern on the names of networks")
@click.option("--rounds", default=2, help="processes for each tool and network")
@click.option("--repeats", default=2, help="runs in each of them")
@click.option("--threads", default=1, help="threads of torch")
@click.option("--limit", default=300, help="seconds a process may take")
@click.option("-o", "--output", type=Path, help="where to write the tables (they go to the terminal too)")
@click.option("--folder", type=Path, hidden=True)
@click.option("--worker", "tool", hidden=True)
def main(match: str, output: Path | None, folder: Path | None, tool: str | None, **options: int) -> None:
    """Measure all tools on all networks and write the tables."""
    if tool and folder:
        worker(tool, Case(match, folder), options["repeats"])
        return
    effort = Effort(**options)
    try:
        from architectures import ARCHITECTURES
    except ImportError as error:
        raise SystemExit(f"{error}: the networks are torch modules; pip install torch onnxscript") from error
    titles = {name: network.description for name, network in ARCHITECTURES.items() if fnmatch.fnmatch(name, match)}
    tools = [tool for tool in TOOLS if not missing(tool)]
    load = os.getloadavg()[0]
    if not titles:
        raise SystemExit(f"no network is called {match}; there are {', '.join(ARCHITECTURES)}")
    results: Results = {}
    with workplace(folder) as place:
        for name in titles:
            results[name] = compare(Case(name, place), tools, effort)
            for tool, row in results[name].items():
                figures = f"prune {row.prune[0]:.2f} s, file {row.file[0]:.2f} s, peak {row.peak / 1e6:.0f} MB"
                print(f"{name:16} {tool:14} {row.error or figures}", file=sys.stderr, flush=True)
            text = to_markdown(titles, results, tools, context(effort, load))
            if output:
                output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
