"""A worker: asks the sampler for the next recipe, tries it, and puts what came of it into the study."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import ceil
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OnnxpruneError
from onnxprune.pipeline.search.objectives.base import Aim, Reading, Requirement
from onnxprune.pipeline.search.pareto import dominates, is_feasible
from onnxprune.pipeline.search.points import Points
from onnxprune.pipeline.search.request import Request
from onnxprune.pipeline.search.samplers.base import samplers
from onnxprune.pipeline.search.space import Parameter
from onnxprune.pipeline.search.storage import beating, queue_again, take_up_again
from onnxprune.pipeline.search.trial import fingerprint, make
from onnxprune.pipeline.search.workbench import Made, Workbench
from onnxprune.support.progress import Counted, Progress

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

# A search begins with the defaults at so many strengths.
STRENGTHS = 6
# A trial is hopeless once so many finished ones were better in everything at the same point.
_BETTER = 3


class _KnownError(Exception):
    """The candidate is one that was measured before."""

    def __init__(self, trial: FrozenTrial) -> None:
        self.trial = trial


class Worker:
    """Tries recipes until there are enough trials.

    Args:
        study: where the trials are.
        request: what is searched.
        bench: the model and its samples.
        points: where the files of the front go; None: nowhere.
        progress: is called with what is being done.
    """

    def __init__(
        self, study: Study, request: Request, bench: Workbench, points: Points | None, progress: Progress
    ) -> None:
        self.study, self.request, self.bench = study, request, bench
        self._points, self._progress = points, progress
        self._trial: int | None = None  # that was begun last

    def __call__(self, deadline: float | None = None) -> None:
        """Try recipes until there are as many trials as asked for, or no more may begin.

        Raises KeyboardInterrupt where it is interrupted; the trial is then queued again.
        """
        while self._finished() < self.request.options.trials and not (deadline and time.monotonic() >= deadline):
            take_up_again(self.study)
            count = len(self.study.get_trials(deepcopy=False))
            seed = (self.request.seed * 1_000_003 + count) % 2**32
            self.study.sampler = samplers[self.request.options.sampler].make(seed, self.request.options.trials)
            try:
                self.study.optimize(self._objective, n_trials=1, catch=(OnnxpruneError, MemoryError))
            except KeyboardInterrupt:
                self._interrupted()
                raise

    def _interrupted(self) -> None:
        """Queue the trial that this worker has broken off."""
        for each in self.study.get_trials(deepcopy=False):
            if each.number == self._trial and each.state.name == "FAIL" and not is_finished(each):
                queue_again(self.study, each)

    def _finished(self) -> int:
        return sum(is_finished(each) for each in self.study.get_trials(deepcopy=False))

    def _objective(self, trial: Trial) -> list[float]:
        self._trial = trial.number
        with beating(trial):
            values = {name: suggested(trial, each) for name, each in self.request.space.parameters.items()}
            start = time.process_time()
            try:
                found = self._tried(trial, values)
            except _KnownError as known:
                for key in ("measured", "excess", "fingerprint"):
                    trial.set_user_attr(key, known.trial.user_attrs[key])
                trial.set_user_attr("same_as", known.trial.number)
                found = _read(known.trial)
            except (OnnxpruneError, MemoryError) as error:
                trial.set_user_attr("error", str(error) or type(error).__name__)
                raise
            trial.set_user_attr("processor_seconds", round(time.process_time() - start, 3))
            for name, excess in self._excess(found).items():
                trial.set_constraint(name, excess)
            return [found[aim.text].value for aim in self.request.aims]

    def _tried(self, trial: Trial, values: Mapping[str, Any]) -> dict[str, Reading]:
        """Make the candidate and measure it; where no finished one beats it, its file is written."""
        recipe = self.request.recipe(values)
        trial.set_user_attr("recipe", recipe.document())
        made = make(self.bench, recipe, self._said(trial.number), lambda made, part: self._early(trial, made, part))
        found = {aim.text: aim(made) for aim in self._every_aim}
        excess = self._excess(found)
        if self._points is not None and all(each <= 0 for each in excess.values()) and not self._is_beaten(found):
            self._points.write(made, trial.number)
        trial.set_user_attr("measured", {name: asdict(each) for name, each in found.items()})
        trial.set_user_attr("excess", excess)
        return found

    @property
    def _every_aim(self) -> list[Aim]:
        """The objectives, and what else limits speak of."""
        named = {aim.text: aim for aim in (*(limit.aim for limit in self.request.limits), *self.request.aims)}
        return list(named.values())

    def _excess(self, found: Mapping[str, Reading], limits: list[Requirement] | None = None) -> dict[str, float]:
        """By how much each limit is missed."""
        return {each.text: each.excess(found[each.aim.text]) for each in limits or self.request.limits}

    def _early(self, trial: Trial, made: Made, part: str) -> None:
        """End a trial that has no hope, or that is one of before."""
        import optuna

        if part == "cut":
            limits = [limit for limit in self.request.limits if limit.aim.objective.early]
            missed = self._excess({limit.aim.text: limit.aim(made) for limit in limits}, limits) if limits else {}
            if any(excess > 0 for excess in missed.values()):
                trial.set_user_attr("excess", missed)
                raise optuna.TrialPruned(f"misses {', '.join(name for name, excess in missed.items() if excess > 0)}")
            self._compare(trial, fingerprint(made))
            return
        found = {aim.text: aim.cost(aim(made).value) for aim in self.request.aims if _is_quick(aim)}
        trial.set_user_attr("early", found)
        others = [each.user_attrs["early"] for each in self._complete() if "early" in each.user_attrs]
        better = sum(dominates([each[name] for name in found], list(found.values())) for each in others)
        if better >= _BETTER:
            raise optuna.TrialPruned(f"{better} trials were better before training")

    def _compare(self, trial: Trial, key: str) -> None:
        trial.set_user_attr("fingerprint", key)
        known = next((each for each in self._complete() if each.user_attrs.get("fingerprint") == key), None)
        if known is not None:
            raise _KnownError(known)

    def _complete(self) -> list[FrozenTrial]:
        import optuna

        return self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))

    def _is_beaten(self, found: Mapping[str, Reading]) -> bool:
        mine = [aim.cost(found[aim.text].value) for aim in self.request.aims]
        return any(dominates(costs_of(each, self.request), mine) for each in self._complete() if is_feasible(each))

    def _said(self, number: int) -> Callable[[str], None]:
        """Says how far the search is, with the front so far."""
        done, total = self._finished(), self.request.options.trials
        shown = front_words(self._complete(), self.request)

        def say(said: str) -> None:
            self._progress(Counted(f"trial {number + 1}, {done} of {total} done{shown}: {said}", done, total))

        return say


def _is_quick(aim: Aim) -> bool:
    """Can it be measured on the way without timing anything?"""
    return aim.objective.name in ("macs", "params", "drop", "metric")


def _read(trial: FrozenTrial) -> dict[str, Reading]:
    return {name: Reading(**each) for name, each in trial.user_attrs["measured"].items()}


def suggested(trial: Trial, parameter: Parameter) -> Any:
    """The value of a parameter in a trial."""
    name, low, high = parameter.name, parameter.low, parameter.high
    if parameter.choices:
        return trial.suggest_categorical(name, parameter.choices)
    if parameter.whole:
        return trial.suggest_int(name, int(low or 0), int(high or 0), step=int(parameter.step or 1), log=parameter.log)
    return trial.suggest_float(name, low or 0.0, high or 0.0, step=parameter.step, log=parameter.log)


def is_finished(trial: FrozenTrial) -> bool:
    """Does a trial count? Not while it waits or runs, and not where its worker died."""
    return trial.state.name in ("COMPLETE", "PRUNED") or (trial.state.name == "FAIL" and "error" in trial.user_attrs)


def costs_of(trial: FrozenTrial, request: Request) -> list[float]:
    """Values of the objectives, less is better."""
    return [aim.cost(value) for aim, value in zip(request.aims, trial.values, strict=True)]


def front_words(complete: list[FrozenTrial], request: Request) -> str:
    """`, 4 on the front, macs 0.31 to 0.88, drop 0.003 to 0.08`; nothing where there is none."""
    from onnxprune.pipeline.search.pareto import front

    allowed = [each for each in complete if is_feasible(each)]
    best = [allowed[at] for at in front([costs_of(each, request) for each in allowed])]
    if not best:
        return ""
    ends = [
        f"{aim.text} {min(each.values[at] for each in best):.3g} to {max(each.values[at] for each in best):.3g}"
        for at, aim in enumerate(request.aims)
    ]
    return f", {len(best)} on the front, {', '.join(ends)}"


def warm_starts(request: Request) -> list[dict[str, Any]]:
    """Where a search begins: the start of every parameter, and that of strengths of a cut at several places.

    The defaults of the options are starts where they are in range, so these are the cuts of the tool's own allocation.
    """
    parameters = request.space.parameters
    start = {name: each.start for name, each in parameters.items()}
    strengths = [name for name, each in parameters.items() if _is_strength(each)]
    if not strengths:
        return [start]
    shares = [(at + 1) / (STRENGTHS + 1) for at in range(STRENGTHS)]
    return [{**start, **{name: _at(parameters[name], share) for name in strengths}} for share in shares]


def _is_strength(parameter: Parameter) -> bool:
    name = parameter.name.rpartition(".")[2]
    return name in ("ratio", "target") and not parameter.choices


def _at(parameter: Parameter, share: float) -> float:
    """A value at a share of the range."""
    assert parameter.low is not None
    assert parameter.high is not None
    low, high, step = parameter.low, parameter.high, parameter.step
    value = low * (high / low) ** share if parameter.log else low + share * (high - low)
    return min(high, low + step * ceil((value - low) / step)) if step else value
