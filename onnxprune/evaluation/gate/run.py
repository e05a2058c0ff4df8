"""Hold models against their budgets."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from onnxprune.errors import OnnxpruneError, UsageError
from onnxprune.evaluation.gate.baseline import BaselineEntry, baseline_key, read_baseline, write_baseline
from onnxprune.evaluation.gate.budgets.base import BUDGETS, Finding, NoBaselineError
from onnxprune.evaluation.gate.request import GateRequest, is_baseline_file
from onnxprune.evaluation.gate.subject import Progress, Subject
from onnxprune.support.files import check_target
from onnxprune.support.progress import parts

Status = Literal["ok", "broken", "unchecked", "new"]


@dataclass(frozen=True)
class BudgetCheck:
    """One budget of one model.

    Attributes:
        budget: its option without dashes, or `model` for a file that is not there.
        status: whether it holds; `unchecked`: could not be found, `new`: has nothing to be compared with yet, and the
            baseline is being written.
        found: what was measured; None where nothing was, or where it is not a finite number.
        shown: the same for people; why, where it could not be checked.
        limit: what was allowed, for people.
        note: what else is worth knowing.
    """

    budget: str
    status: Status
    found: float | list[str] | None
    shown: str
    limit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Checked:
    """A model, or a pattern that matched none, and its checks."""

    model: str
    checks: tuple[BudgetCheck, ...]


@dataclass(frozen=True)
class GateVerdict:
    """The findings of the gate.

    Attributes:
        models: in the order they were given.
        updated: the baseline file that was written.
    """

    models: tuple[Checked, ...]
    updated: Path | None = None

    def count(self, status: Status) -> int:
        """How many checks came out so."""
        return sum(check.status == status for model in self.models for check in model.checks)

    @property
    def exit_code(self) -> int:
        """1 where a budget is broken, else 2 where one could not be checked, else 0."""
        return 1 if self.count("broken") else 2 if self.count("unchecked") else 0

    @property
    def summary(self) -> str:
        """One line."""
        ok, broken, unchecked, new = (self.count(each) for each in ("ok", "broken", "unchecked", "new"))
        parts = [f"{ok} held", f"{broken} broken", f"{unchecked} could not be checked", f"{new} not compared yet"]
        shown = [part for part, count in zip(parts, (1, 1, unchecked, new), strict=True) if count]
        return f"{len(self.models)} model{'s' if len(self.models) > 1 else ''}: budgets " + ", ".join(shown)


def run_gate(request: GateRequest, progress: Progress = lambda _: None) -> GateVerdict:
    """Check every model, and write the baseline where that was asked for and all budgets hold.

    Raises UsageError for a baseline that cannot be used, ModelError where it cannot be written. What is wrong with a
    single model is in the verdict.
    """
    baselines = _baselines(request, progress)
    checked: list[Checked] = []
    measured: dict[str, BaselineEntry] = {}
    found = list(matched(request.models))
    for (name, path), part in zip(found, parts(progress, [1.0] * len(found)), strict=True):
        if path is None:
            checked.append(Checked(_printable(name), (_no_model(name),)))
            continue
        entries = baselines if isinstance(baselines, dict) else {}
        key = baseline_key(path, request.baseline) if request.update_baseline and request.baseline else ""
        baseline = _entry_of(path, request, baselines) if isinstance(baselines, dict) else baselines
        model = Subject(path, request, baseline, part)
        checks = [_check(name, limit, model) for name, limit in request.budgets.items()]
        if request.update_baseline:
            try:
                measured[key] = model.entry(entries.get(key))
            except OnnxpruneError as error:
                checks.append(BudgetCheck("update-baseline", "unchecked", None, _printable(str(error))))
        checked.append(Checked(_printable(str(path)), tuple(checks)))
    verdict = GateVerdict(tuple(checked))
    if request.update_baseline and request.baseline is not None and verdict.exit_code == 0:
        assert isinstance(baselines, dict)
        write_baseline(request.baseline, {**baselines, **measured})
        return GateVerdict(verdict.models, request.baseline)
    return verdict


def _baselines(request: GateRequest, progress: Progress) -> dict[str, BaselineEntry] | Subject | None:
    """The model to compare with, the numbers by model, or None."""
    path = request.baseline
    if path is None:
        return None
    if not is_baseline_file(path):
        if not path.is_file():
            raise UsageError(f"the baseline {path} does not exist; check the path")
        return Subject(path, request, None, progress)
    if not request.update_baseline:
        return read_baseline(path)
    check_target(path)
    return read_baseline(path) if path.exists() else {}


def _entry_of(path: Path, request: GateRequest, entries: dict[str, BaselineEntry]) -> BaselineEntry | None:
    assert request.baseline is not None
    return entries.get(baseline_key(path, request.baseline))


def matched(patterns: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """The files that paths and globs name, each once, with what named it; None where nothing matches."""
    seen: set[Path] = set()
    for pattern in patterns:
        paths = [Path(pattern)] if Path(pattern).is_file() else sorted(map(Path, glob.glob(pattern, recursive=True)))
        paths = [path for path in paths if path.is_file()]
        if not paths:
            yield pattern, None
        for path in paths:
            if path not in seen:
                seen.add(path)
                yield pattern, path


def _no_model(pattern: str) -> BudgetCheck:
    said = "matches no file" if glob.has_magic(pattern) else "does not exist"
    return BudgetCheck("model", "unchecked", None, said, "", "check the path")


def _check(name: str, limit: Any, model: Subject) -> BudgetCheck:
    try:
        finding = BUDGETS[name](limit, model)
    except NoBaselineError as error:
        status: Status = "new" if model.request.update_baseline else "unchecked"
        return BudgetCheck(
            name, status, None, _printable(str(error)) if status == "unchecked" else "becomes the baseline"
        )
    except OnnxpruneError as error:
        return BudgetCheck(name, "unchecked", None, _printable(str(error)))
    except Exception as error:  # a bug over one model must not pass, nor hide what the others are like
        said = f"unexpected {type(error).__name__}: {error}; this is a bug, please report it"
        return BudgetCheck(name, "unchecked", None, _printable(said))
    return _of_finding(name, finding)


def _of_finding(name: str, finding: Finding) -> BudgetCheck:
    found = finding.found
    finite = found if isinstance(found, list) or isfinite(found) else None
    status: Status = "ok" if finding.holds else "broken"
    shown, limit, note = map(_printable, (finding.shown, finding.limit, finding.note))
    return BudgetCheck(name, status, finite, shown, limit, note)


def _printable(text: str) -> str:
    """On one line, without control characters: names of operators come from the file, and CI reads what is printed."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


WORDS = {"ok": "holds", "broken": "broken", "unchecked": "could not be checked", "new": "new"}


def to_lines(verdict: GateVerdict) -> list[str]:
    """A line for each check that failed."""
    return [f"{model.model}: {sentence(check)}" for model, check in failed(verdict)]


def sentence(check: BudgetCheck) -> str:
    """`max-size broken: 5,100,000 bytes, at most 5,000,000 bytes`."""
    said = ", ".join(part for part in (check.shown, check.limit) if part)
    return f"{check.budget} {WORDS[check.status]}: {said}" + (f" ({check.note})" if check.note else "")


def checks(verdict: GateVerdict) -> Iterator[tuple[Checked, BudgetCheck]]:
    """Every check with the model that it is of."""
    for model in verdict.models:
        for check in model.checks:
            yield model, check


def failed(verdict: GateVerdict) -> Iterator[tuple[Checked, BudgetCheck]]:
    """The checks that make the gate fail."""
    return (pair for pair in checks(verdict) if pair[1].status in ("broken", "unchecked"))
