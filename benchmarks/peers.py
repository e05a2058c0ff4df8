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
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from peer_tables import Outcome, Results, to_markdown
from peer_tools import OURS, PEERS, TOOLS, Case, worker

PACKAGES = (OURS, *PEERS, "torch", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Effort:
    """How often things are measured, with how many threads, and when that ends."""

    rounds: int
    repeats: int
    threads: int
    limit: int

    def environment(self) -> dict[str, str]:
        """Environment variables for OpenMP and the libraries for linear algebra."""
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
