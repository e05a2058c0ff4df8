"""Search the recipes of a space: begin a study or join it, work on it, and write the files of its front."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OnnxpruneError, TargetError, UsageError
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.samples import Sources
from onnxprune.pipeline.search.objectives.base import Aim, Reading, Requirement
from onnxprune.pipeline.search.options import SearchOptions
from onnxprune.pipeline.search.pareto import front, is_feasible
from onnxprune.pipeline.search.points import Points, recipe_path, write_point
from onnxprune.pipeline.search.request import Request, check_digests, is_recorded, record
from onnxprune.pipeline.search.storage import open_storage, shown
from onnxprune.pipeline.search.trial import make
from onnxprune.pipeline.search.workbench import Workbench
from onnxprune.pipeline.search.worker import Worker, costs_of, is_finished, warm_starts
from onnxprune.support.notebook import html_table
from onnxprune.support.options import find_option, options_of
from onnxprune.support.pieces import Failure, work_apart
from onnxprune.support.progress import Counted, Progress, silent

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_SHOWN = 6  # points that are printed


@dataclass(frozen=True)
class Candidate:
    """A finished trial.

    Attributes:
        number: of the trial.
        measured: per objective and limit its value, and the amounts of the original and of the candidate.
        recipe: as plain data.
        on_front: no other that keeps to the limits beats it.
        feasible: it keeps to the limits.
        seconds: of the processor.
        file: the model, where it was written.
    """

    number: int
    measured: Mapping[str, Reading]
    recipe: Mapping[str, Any]
    on_front: bool
    feasible: bool
    seconds: float
    file: Path | None = None


@dataclass(frozen=True, repr=False)
class Found:
    """The state of a search.

    Attributes:
        request: what was searched.
        study: its name.
        storage: where it is, without a password.
        candidates: every trial that was measured, in their order.
        pruned: how many trials were ended early.
        failed: why trials failed, by number.
        interrupted: it was ended before its time.
    """

    request: Request
    study: str
    storage: str
    candidates: tuple[Candidate, ...]
    pruned: int
    failed: Mapping[int, str]
    interrupted: bool = False

    @property
    def front(self) -> tuple[Candidate, ...]:
        """By ascending first objective."""
        first = self.request.aims[0]
        points = [each for each in self.candidates if each.on_front]
        return tuple(sorted(points, key=lambda each: first.cost(each.measured[first.text].value)))

    def _rows(self) -> list[tuple[str, ...]]:
        """A row for each point of the front: the trial and the values of its objectives."""
        names = [aim.text for aim in self.request.aims]
        return [
            (f"trial {each.number}", *(f"{each.measured[name].value:.4g}" for name in names)) for each in self.front
        ]

    def __repr__(self) -> str:
        said = f"Found: {len(self.front)} points on the front of {len(self.candidates)} candidates"
        names = ("", *(aim.text for aim in self.request.aims))
        rows = [names, *self._rows()[:_SHOWN]] if self.candidates else []
        more = [f"  and {len(self.front) - _SHOWN} more"] if len(self.front) > _SHOWN else []
        return "\n".join([said, *("  " + "".join(f"{cell:>12}" for cell in row) for row in rows), *more])

    def _repr_html_(self) -> str:
        return html_table(("", *(aim.text for aim in self.request.aims)), self._rows())


def search(
    model: Any = None,
    *,
    data: Any = None,
    calibration: Any = None,
    evaluation: Any = None,
    folder: str | Path | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Found:
    """Search the recipes of a space for those that are best for several objectives.

        search("model.onnx", data="samples.npz", space="space.toml", minimize=["latency", "drop"], trials=200)

    Args:
        model: as for `compress`; None: that of the study, for one more worker.
        data: samples, likewise.
        calibration: as for `run`.
        evaluation: samples that candidates are measured on, in place of some of `data`.
        folder: for the files of the front, the study and what trials share; None: NAME.search beside the model.
        progress: is called with what is being done, and with the front so far.
        options: those of `SearchOptions` and of `Context`.

    What was found is kept in the study whatever happens; the same call goes on from there. Raises UsageError for
    options that make no sense, MissingExtraError without optuna, and TargetError where every trial fails.
    """
    given: dict[Any, dict[str, Any]] = {SearchOptions: {}, _context(): {}}
    for name, value in options.items():
        kind = SearchOptions if name.replace("-", "_") in options_of(SearchOptions) else _context()
        given[kind][find_option(kind, name, options_of(SearchOptions)).name] = value
    request = Request(
        model, Sources(data, calibration, evaluation), SearchOptions(**given[SearchOptions]), given[_context()]
    )
    return OpenStudy(request, given[SearchOptions], folder).searched(progress)


def _context() -> Any:
    from onnxprune.steps.base import Context

    return Context


class OpenStudy:
    """A study that is open on this machine, with its folder.

    Args:
        request: what was asked for; what a study of that name holds already is taken from there.
        given: options of the search that the user named.
        folder: see `search`.
        begin: create the study where there is none.

    Raises UsageError for a study that holds something else, MissingExtraError without optuna.
    """

    def __init__(
        self, request: Request, given: Mapping[str, Any], folder: str | Path | None = None, begin: bool = True
    ) -> None:
        import_optuna()
        import optuna

        options = request.options
        if request.model is None and (options.storage is None or options.study is None):
            raise UsageError("say which model, or which study to join: --storage URL --study NAME")
        if request.model is not None:
            request.space, request.aims, request.limits  # noqa: B018 (refused before anything is created)
        name = request.name
        beside = Path(request.model).parent if isinstance(request.model, str | Path) else Path()
        self.folder = Path(folder) if folder is not None else beside / f"{name}.search"
        made = not self.folder.exists()
        if made and not begin and options.storage is None:
            raise UsageError(f"there is no study in {self.folder}; search first")
        self._create_folder()
        try:
            storage = open_storage(options.storage, self.folder)
            directions = [_direction(aim) for aim in request.aims]
            if request.model is None or not begin:
                self.study = _loaded(name, storage)
            else:
                self.study = optuna.create_study(
                    storage=storage, study_name=name, directions=directions, load_if_exists=True
                )
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
            raise
        self.storage = shown(options.storage or str(self.folder / "study.db"))
        if is_recorded(self.study):
            self.request = request.joined(self.study, given)
        else:
            self.request = request
            record(self.study, request)
            for values in warm_starts(request):
                self.study.enqueue_trial(values, skip_if_exists=True)
        self.points = Points(self.folder, Path(self.request.model).stem if self._has_file else name)

    @property
    def _has_file(self) -> bool:
        return isinstance(self.request.model, str | Path)

    def _create_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the folder {self.folder} cannot be made: {error.strerror}") from None

    def opened(self, progress: Progress = silent) -> Workbench:
        """The model and its samples. Raises UsageError where they are others than those of the study."""
        request = self.request
        bench = Workbench.open(
            request.model,
            request.sources,
            request.space.widest,
            self.folder / "shared",
            progress,
            **request.settings,
        )
        for aim in (*request.aims, *(limit.aim for limit in request.limits)):
            if aim.is_metric or aim.text == "drop":
                bench.metric(aim.text if aim.is_metric else None)  # labels that are not there are missed now
        check_digests(self.study, bench)
        return bench

    def searched(self, progress: Progress = silent) -> Found:
        """Work until there are enough trials, in as many processes as the settings say; then write the front."""
        minutes = self.request.options.minutes
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        jobs = int(self.request.settings.get("jobs", 1))
        bench = self.opened(progress)
        interrupted = False
        try:
            if jobs > 1:
                self._in_processes(jobs, progress)
            else:
                Worker(self.study, self.request, bench, self.points, progress)(deadline)
        except KeyboardInterrupt:
            interrupted = True
        found = self.found(interrupted=interrupted)
        if not found.candidates and found.failed:
            raise TargetError(f"every trial failed; the first: {next(iter(found.failed.values()))}")
        return self.written(found, bench, progress) if found.candidates else found

    def _in_processes(self, jobs: int, progress: Progress) -> None:
        if not self._has_file:
            raise UsageError("several jobs need the model and the samples as files")
        one = replace(self.request, settings={**self.request.settings, "jobs": 1})
        options = replace(one.options, storage=one.options.storage or str(self.folder / "study.db"))
        piece = (replace(one, options=replace(options, study=self.study.study_name)), self.folder)
        failures = []

        def tell(_: int, said: str) -> None:
            done = sum(map(is_finished, self.study.get_trials(deepcopy=False)))
            progress(Counted(said, done, self.request.options.trials))

        for _, outcome in work_apart(work_on, [piece] * jobs, jobs, tell):
            if isinstance(outcome, Failure):
                failures.append(outcome)
        if len(failures) == jobs:
            raise OnnxpruneError(failures[0])

    def found(self, *, interrupted: bool = False) -> Found:
        """The trials in the study now."""
        trials = self.study.get_trials(deepcopy=False)
        complete = [each for each in trials if each.state.name == "COMPLETE"]
        allowed = [each for each in complete if is_feasible(each)]
        best = {allowed[at].number for at in front([costs_of(each, self.request) for each in allowed])}
        return Found(
            self.request,
            self.study.study_name,
            self.storage,
            tuple(_candidate(each, each.number in best) for each in complete),
            sum(each.state.name == "PRUNED" for each in trials),
            {each.number: each.user_attrs["error"] for each in trials if "error" in each.user_attrs},
            interrupted,
        )

    def written(self, found: Found, bench: Workbench, progress: Progress = silent) -> Found:
        """The same with a file for every point of the front; those of other trials are removed."""
        self.points.keep({each.number for each in found.front})
        files = {}
        for at, each in enumerate(found.front):
            path = self.points.path(each.number)
            if not path.exists() or not recipe_path(path).exists():
                progress(f"making point {at + 1} of {len(found.front)} of the front again")
                write_point(make(bench, self._recipe(each), silent), path)
            files[each.number] = path
        return replace(found, candidates=tuple(replace(each, file=files.get(each.number)) for each in found.candidates))

    def picked(self, limits: Sequence[Requirement], path: Path, progress: Progress = silent) -> tuple[Found, Candidate]:
        """Write the point of the front that keeps to the limits and is best in the other objectives.

        Raises TargetError where no point keeps to them.
        """
        found = self.found()
        chosen = pick(found, limits)
        write_point(make(self.opened(progress), self._recipe(chosen), progress), path)
        return found, replace(chosen, file=path)

    def _recipe(self, candidate: Candidate) -> Recipe:
        return Recipe.of_table(candidate.recipe, f"trial {candidate.number}", "")


def pick(found: Found, limits: Sequence[Requirement]) -> Candidate:
    """Of the points of a front that keep to limits the one that is best in the first objective without a limit.

    Raises TargetError where none keeps to them, UsageError for a limit on something that was not measured.
    """
    if not found.front:
        raise TargetError("the study has no point to pick from yet")
    for limit in limits:
        if limit.aim.text not in found.front[0].measured:
            known = ", ".join(found.front[0].measured)
            raise UsageError(f"{limit.aim.text} was not measured in this search; there are: {known}")
    kept = [each for each in found.front if all(limit.excess(each.measured[limit.aim.text]) <= 0 for limit in limits)]
    if not kept:
        said = " and ".join(limit.text for limit in limits)
        raise TargetError(f"no point of the front keeps to {said}; search longer, or ask for less")
    limited = {limit.aim.text for limit in limits}
    aims = [aim for aim in found.request.aims if aim.text not in limited] or list(found.request.aims)
    return min(kept, key=lambda each: [aim.cost(each.measured[aim.text].value) for aim in aims])


def work_on(piece: tuple[Request, Path], progress: Progress) -> None:
    """A worker in a process of its own."""
    request, folder = piece
    session = OpenStudy(request, {}, folder)
    minutes = request.options.minutes
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    Worker(session.study, session.request, session.opened(progress), session.points, progress)(deadline)


def import_optuna() -> None:
    """Raises MissingExtraError where optuna is not installed."""
    from onnxprune.pipeline.search.storage import check_search

    check_search()


def _direction(aim: Aim) -> Any:
    return "maximize" if aim.maximize else "minimize"


def _loaded(name: str, storage: Any) -> Study:
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise UsageError(f"there is no study '{name}' in the storage; there are: {known}") from None


def _candidate(trial: FrozenTrial, on_front: bool) -> Candidate:
    attrs = trial.user_attrs
    return Candidate(
        trial.number,
        {name: Reading(**each) for name, each in attrs["measured"].items()},
        attrs["recipe"],
        on_front,
        is_feasible(trial),
        attrs.get("processor_seconds", 0.0),
    )
