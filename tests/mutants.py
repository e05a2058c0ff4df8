"""Faults put into the code one at a time, to see whether a test turns red: criteria, recovery, metrics.

    python -m tests.mutants                                            # every place of every file: hours
    python -m tests.mutants --sample 160 --minutes 40 -o benchmarks/results/mutants.md
    python -m tests.mutants steps/prune/criteria/weights.py --every 5

A mutant is one file with one operator, comparison, number, branch or call changed; the file on disk stays as it is.
How they are tried is in mutant_runs.py. What survives is printed with its line: a test is missing there, or nothing
changed in truth, which EQUIVALENT says with the reason. Names in capitals at the top of a module are choices (block
sizes, limits of memory, numbers of bins) and are left alone; so are messages and what only people read.
"""

from __future__ import annotations

import ast
import copy
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "onnxprune"
CRITERIA, RECOVER, METRICS = "steps/prune/criteria", "steps/recover", "evaluation/metrics"
# The tests of a file, those that fail soonest first.
TESTS = {
    f"{CRITERIA}/activation_similarity.py": "criteria/test_redundancy.py criteria/test_similarity.py",
    f"{CRITERIA}/activations.py": "criteria/test_activations.py",
    f"{CRITERIA}/base.py": "criteria/test_base.py criteria/test_weights.py criteria/test_redundancy.py "
    "criteria/test_similarity.py criteria/test_gradients.py",
    f"{CRITERIA}/expression.py": "criteria/test_combination.py criteria/test_base.py",
    f"{CRITERIA}/filter_similarity.py": "criteria/test_redundancy.py criteria/test_similarity.py",
    f"{CRITERIA}/gradients.py": "criteria/test_gradients.py",
    f"{CRITERIA}/learned.py": "train/test_step.py train/test_sparse_methods.py criteria/test_base.py",
    f"{CRITERIA}/lda.py": "criteria/test_discriminant.py",
    f"{CRITERIA}/obs.py": "criteria/test_surgeon.py criteria/test_gradients.py",
    f"{CRITERIA}/random.py": "criteria/test_chance.py",
    f"{CRITERIA}/weights.py": "criteria/test_weights.py",
    f"{RECOVER}/base.py": "recovery/test_contract.py recovery/test_walk.py recovery/test_evidence.py",
    f"{RECOVER}/batchnorm.py": "recovery/test_contract.py passes/test_reconstruct.py test_recover.py",
    f"{RECOVER}/bias.py": "recovery/test_contract.py passes/test_reconstruct.py test_recover.py",
    f"{RECOVER}/evidence.py": "recovery/test_evidence.py recovery/test_walk.py recovery/test_bodies.py",
    f"{RECOVER}/fold.py": "passes/test_fold_units.py recovery/test_contract.py cli/test_recover.py",
    f"{RECOVER}/infer_plan.py": "recovery/test_matching.py cli/test_recover.py",
    f"{RECOVER}/least_squares.py": "recovery/test_moments.py recovery/test_matching.py",
    f"{RECOVER}/layerwise.py": "recovery/test_walk.py recovery/test_evidence.py recovery/test_recurrence.py "
    "recovery/test_bodies.py",
    f"{RECOVER}/pairing.py": "recovery/test_pairing.py recovery/test_evidence.py recovery/test_walk.py",
    f"{RECOVER}/methods.py": "recovery/test_contract.py test_recover.py passes/test_reconstruct.py",
    f"{RECOVER}/reconstruct.py": "recovery/test_contract.py recovery/test_moments.py recovery/test_walk.py",
    f"{RECOVER}/recurrence.py": "recovery/test_recurrence.py",
    f"{RECOVER}/step.py": "test_recover.py steps/prune/test_candidates.py",
    **{
        f"{METRICS}/{path.name}": "test_metrics.py"
        for path in sorted((PACKAGE / METRICS).glob("*.py"))
        if path.name != "__init__.py"
    },
}
# Changes that no test can see, by file: a part of the line, the code before and after, and why.
_OF_ZERO = "what stands in for a denominator of zero divides zeros"
EQUIVALENT: dict[str, dict[tuple[str, str, str], str]] = {
    f"{CRITERIA}/weights.py": {
        ("squares.max() or 1.0", "1.0", "2.0"): _OF_ZERO,
        ("size.mean()) or 1.0", "1.0", "2.0"): _OF_ZERO,
        ("np.where(at_least > 0", "0", "1"): "the largest is 1, so no sum is between the two",
        ("(high - low) or 1.0", "1.0", "2.0"): _OF_ZERO,
        ("size /= size.max()", "size.max", "size.min"): "any scale will do: it is divided by its mean behind",
    },
    f"{METRICS}/cosine.py": {
        ("np.where(norms == 0", "1.0", "2.0"): _OF_ZERO,
        ("array.reshape(len(array), -1)", "1", "2"): "numpy takes any negative size for what is left",
    },
}

_COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_NAMED = {
    "max": "min",
    "min": "max",
    "maximum": "minimum",
    "minimum": "maximum",
    "argmax": "argmin",
    "argmin": "argmax",
    "zeros": "ones",
    "ones": "zeros",
    "any": "all",
    "all": "any",
    "square": "abs",
    "abs": "square",
}
# Parts of a syntax tree that nothing is computed by.
_NOT_COMPUTED = ("annotation", "returns", "decorator_list", "args", "bases", "keywords_of_class")
_SILENT = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Mutant:
    """A file, the line that is changed, and what stands there before and after; `place` is its number in the file."""

    file: str
    line: int
    text: str
    before: str
    after: str
    place: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before}  ->  {self.after}"

    @property
    def equivalent(self) -> bool:
        """Is it among those that nothing can see?"""
        known = EQUIVALENT.get(self.file, {})
        return any(part in self.text and change == [self.before, self.after] for part, *change in known)


def mutants_of(file: str) -> list[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    source = (PACKAGE / file).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    found = []
    for place, (parent, field, index, changed) in enumerate(_changes(tree)):
        held = getattr(parent, field)
        node = held if index is None else held[index]
        line = node.lineno
        found.append(Mutant(file, line, lines[line - 1], _shown(node), _shown(changed), place))
    return found


def changed_module(mutant: Mutant) -> ast.Module:
    """The syntax tree of the file with the change made."""
    tree = ast.parse((PACKAGE / mutant.file).read_text(encoding="utf-8"))
    parent, field, index, changed = next(change for place, change in enumerate(_changes(tree)) if place == mutant.place)
    if index is None:
        setattr(parent, field, changed)
    else:
        getattr(parent, field)[index] = changed
    return ast.fix_missing_locations(tree)


Change = tuple[Any, str, int | None, ast.AST]


def _changes(node: ast.AST) -> Iterator[Change]:
    """Where a node may be put in the place of another: its parent, the field, the index in it, and the new node."""
    for field, value in ast.iter_fields(node):
        if field in _NOT_COMPUTED and not isinstance(node, ast.Call):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, _SILENT) or _is_choice(child, node):
                continue
            for changed in _variants(child):
                yield node, field, index, ast.copy_location(changed, child)
            yield from _changes(child)


def _is_choice(node: ast.AST, parent: ast.AST) -> bool:
    """A name in capitals at the top, the names and docstrings of a module, what is there for type checkers."""
    if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(parent, ast.Module):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.If) and _shown(node.test) == "TYPE_CHECKING"


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of a node."""
    yield from _other_operators(node)
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(2 * value if isinstance(value, float) and value else value + 1)
        case ast.IfExp(body=body, orelse=other):
            yield _with(node, body=other, orelse=body)
        case ast.If():
            yield _with(node, test=ast.Constant(False))
        case ast.AugAssign():
            yield ast.Pass()
        case ast.Expr(value=ast.Call(func=called)) if "progress" not in _shown(called):
            yield ast.Pass()
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in _NAMED:
            yield _with(node, **{"attr" if isinstance(node, ast.Attribute) else "id": _NAMED[name]})


def _other_operators(node: ast.AST) -> Iterator[ast.AST]:
    """Comparisons and operators exchanged for others, or left out."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARED:
            yield _with(node, ops=[_COMPARED[type(op)]()])
        case ast.BinOp(op=op) if type(op) in _COMPUTED and not _is_text(node):
            yield _with(node, op=_COMPUTED[type(op)]())
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield operand
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _is_text(node: ast.BinOp) -> bool:
    texts = (ast.JoinedStr, ast.Constant)
    return any(
        isinstance(side, texts) and not isinstance(getattr(side, "value", 0), int | float)
        for side in (node.left, node.right)
    )


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if "\n" not in text else text.splitlines()[0] + " ..."


@click.command()
@click.argument("files", nargs=-1)
@click.option("--every", default=1, help="try each of so many only")
@click.option("--start", default=0, help="the first that is tried")
@click.option("--sample", type=int, help="of those, so many that are drawn")
@click.option("--seed", default=0, help="of what is drawn, and of the order")
@click.option("--minutes", type=float, help="begin none after so long")
@click.option("--record", type=click.Path(path_type=Path), help="a file of what became of them, so that a run goes on")
@click.option("--again", is_flag=True, help="those of the record: what survived is tried again")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="a page of what survives")
def main(
    files: tuple[str, ...],
    every: int,
    start: int,
    sample: int | None,
    seed: int,
    minutes: float | None,
    record: Path | None,
    again: bool,
    output: Path | None,
) -> None:
    """Try mutants and list those that survive; exit code 1 where fewer than 95% die."""
    from tests.mutant_runs import Record, page, try_mutants

    chosen = [each for file in files or TESTS for each in mutants_of(file)[start::every] if not each.equivalent]
    every_one, known = len(chosen), Record(record)
    if again:
        chosen = [each for each in chosen if known.state(each)]
    if sample is not None:
        chosen = random.Random(seed).sample(chosen, min(sample, every_one))
    trial = try_mutants(chosen, None if minutes is None else 60 * minutes, known)
    if output is not None:
        output.write_text(page(trial, every_one, sys.argv[1:]), encoding="utf-8")
    print(f"{len(trial.tried) - len(trial.survivors)} of {len(trial.tried)} die: {trial.share:.1%}")
    sys.exit(0 if trial.share >= 0.95 else 1)


if __name__ == "__main__":
    main()
