"""The torch executor against its oracles: the official backend node tests, the samples of the rules, and the zoo.

    python benchmarks/executor.py -o benchmarks/results/executor.md
    python benchmarks/executor.py --match 'hf.*'            # some of the zoo, to the terminal

A node test passes when torch's outputs have the shapes, kinds of type and values that the test states (tests/runtime/
torch_nodes.py says how close). A model of the zoo agrees when no output differs from ONNX Runtime's (unoptimized, one
thread) by more than 1e-4 of that output's largest entry; both run on the processor, on inputs from a seed, after torch
has seen other inputs of the same shapes.
"""

from __future__ import annotations

import fnmatch
import os
import sys
import warnings
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, TextIO

import click

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("ONNXPRUNE_SHARED", ROOT.parent / "shared"))


def node_tests() -> list[str]:
    from tests.runtime.torch_nodes import attempt, cases

    outcomes = [attempt(case) for case in cases()]
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    lines = [
        "## Official ONNX backend node tests",
        "",
        f"{verdicts['passed']} of {len(outcomes)} pass ({verdicts['passed'] / len(outcomes):.1%}), "
        f"{verdicts['failed']} fail, {verdicts['unsupported']} use operators without an implementation.",
        "",
        "| operators | failed | without an implementation | first reason |",
        "|---|---|---|---|",
    ]
    rows: dict[str, Counter[str]] = {}
    reasons: dict[str, str] = {}
    for outcome in (outcome for outcome in outcomes if outcome.verdict != "passed"):
        operators = ", ".join(outcome.operators) if len(outcome.operators) < 4 else outcome.name
        rows.setdefault(operators, Counter())[outcome.verdict] += 1
        reasons.setdefault(operators, outcome.why.replace("|", "/")[:120])
    for operators, counts in sorted(rows.items()):
        lines.append(f"| {operators} | {counts['failed']} | {counts['unsupported']} | {reasons[operators]} |")
    return lines


def operators() -> list[str]:
    """Which operators of the standard can be run, by the table or by their definition."""
    import onnx.defs

    from onnxprune.runtime.torch.ops import find_operator, known

    schemas = [schema for schema in onnx.defs.get_all_schemas() if schema.domain == "" and not schema.deprecated]
    table = {schema.name for schema in schemas if find_operator(("", schema.name))}
    defined = {s.name for s in schemas if s.has_function or s.has_context_dependent_function} - table
    missing = sorted({schema.name for schema in schemas} - table - defined)
    fused = sum(domain == "com.microsoft" for domain, _ in known())
    return [
        "## Operators",
        "",
        f"Of {len(schemas)} operators of the standard {len(table)} are in the table and {len(defined)} are run by "
        f"their definition. Without either: {', '.join(missing)}.",
        "",
        f"Of ONNX Runtime's own (com.microsoft) {fused} are in the table.",
    ]


def samples() -> list[str]:
    from tests.runtime.torch_samples import all_forms, compare

    forms, wrong = all_forms(), []
    for form in forms:
        try:
            compare(form)
        except AssertionError:
            wrong.append(str(form))
    return [
        "## Samples of the rules, old opsets and fused operators included",
        "",
        f"{len(forms) - len(wrong)} of {len(forms)} agree. Different: {', '.join(wrong)} "
        "(tests/runtime/test_torch_samples.py says why).",
    ]


def zoo_agreement(match: str) -> list[str]:
    from tests.runtime.test_torch_zoo import TOLERANCE, difference

    sys.path.insert(0, str(SHARED / "zoo"))
    import zoo

    found: dict[str, Any] = {}
    for name in fnmatch.filter(zoo.names(), match):
        model = zoo.load(name)
        try:
            found[name] = difference(model, zoo.inputs(model, seed=1), zoo.inputs(model, seed=0))
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
        print(f"{name:48} {found[name]}", file=sys.stderr)
    numbers = {name: value for name, value in found.items() if isinstance(value, float)}
    agreeing = [name for name, value in numbers.items() if value < TOLERANCE]
    lines = [
        "## The zoo beside ONNX Runtime",
        "",
        f"{len(agreeing)} of {len(found)} models agree to {TOLERANCE:g}; the median of the largest differences is "
        f"{median(numbers.values()):.1e}, the worst of those that agree {max(numbers[name] for name in agreeing):.1e}. "
        "Models in half precision are computed in float32 by torch and rounded at every step by ONNX Runtime.",
        "",
        "| model that does not agree | largest difference |",
        "|---|---|",
    ]
    rest = {name: value for name, value in found.items() if name not in agreeing}
    lines += [f"| {name} | {value if isinstance(value, str) else f'{value:.1e}'} |" for name, value in rest.items()]
    return lines


@click.command()
@click.option("--match", default="*", help="shell pattern on names of the zoo")
@click.option("-o", "--output", type=click.File("w"), default="-", help="where to write the tables; -: here")
def main(match: str, output: TextIO) -> None:
    """Run the oracles and write what came out."""
    import onnx
    import onnxruntime
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    head = [
        "# The torch executor",
        "",
        f"Written by `benchmarks/executor.py` with onnx {onnx.__version__}, ONNX Runtime {onnxruntime.__version__}, "
        f"torch {torch.__version__}.",
    ]
    parts = [head, node_tests(), operators(), samples(), zoo_agreement(match)]
    text = "\n\n".join("\n".join(part) for part in parts) + "\n"
    output.write(text)


if __name__ == "__main__":
    main()
