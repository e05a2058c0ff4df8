"""A search as it was asked for, in a form that a worker on another machine finds in the storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.data.options import DataOptions
from onnxprune.errors import UsageError
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.samples import Sources
from onnxprune.pipeline.search.objectives.base import Aim, Requirement, aims_of
from onnxprune.pipeline.search.options import SearchOptions
from onnxprune.pipeline.search.space import Space
from onnxprune.steps.base import Context
from onnxprune.support.options import changed, options_of
from onnxprune.support.versions import versions

if TYPE_CHECKING:
    from optuna import Study

    from onnxprune.pipeline.search.workbench import Workbench

_RECORD, _DIGESTS = "onnxprune", "digests"
# What two workers of one study have to agree on, and what people call it.
_AGREED = {
    "version": "version of onnxprune",
    "space": "space",
    "minimize": "objectives",
    "maximize": "objectives",
    "require": "limits",
    "sampler": "sampler",
    "settings": "settings",
}


@dataclass(frozen=True)
class Request:
    """A search as it was asked for.

    Attributes:
        model: a path, or a model in memory, which other processes cannot take.
        sources: samples, likewise.
        options: of the search.
        settings: of the context.
        text: the space.
    """

    model: Any
    sources: Sources
    options: SearchOptions
    settings: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None

    @cached_property
    def space(self) -> Space:
        """The space. Raises UsageError where it cannot be read."""
        return Space.read(self.options.space) if self.text is None else Space(self.text)

    @cached_property
    def aims(self) -> tuple[Aim, ...]:
        """The objectives of the search. Raises UsageError for objectives that are not there."""
        return aims_of(self.options.minimize, self.options.maximize)

    @cached_property
    def limits(self) -> tuple[Requirement, ...]:
        """The limits that candidates have to keep. Raises UsageError for what is not a limit."""
        return tuple(Requirement.parse(text) for text in self.options.require)

    def recipe(self, values: Mapping[str, Any] = {}) -> Recipe:
        """The recipe at values of the parameters, with those settings of the search that may change what comes out."""
        found = self.space.recipe(values)
        return replace(found, settings={**found.settings, **changed(Context(**self.settings))})

    @property
    def seed(self) -> int:
        """Of everything random."""
        return int({**self.space.widest.settings, **self.settings}.get("seed", 0))

    @property
    def name(self) -> str:
        """Of the study. Raises UsageError where there is neither a name nor a file that gives one."""
        if self.options.study is not None:
            return self.options.study
        if isinstance(self.model, str | Path):
            return Path(self.model).stem
        raise UsageError("name the study: --study NAME, or study='NAME'")

    def document(self) -> dict[str, Any]:
        """As plain data, for the storage; paths are written out in full."""
        model = str(Path(self.model).absolute()) if isinstance(self.model, str | Path) else None
        return {
            "version": versions()["onnxprune"],
            "model": model,
            "sources": {name: _plain(getattr(self.sources, name)) for name in ("data", "calibration", "evaluation")},
            "space": self.space.text,
            "minimize": [aim.text for aim in self.aims if not aim.maximize],
            "maximize": [aim.text for aim in self.aims if aim.maximize],
            "require": list(self.options.require),
            "sampler": self.options.sampler,
            "settings": changed(Context(**self.settings)),
        }

    def joined(self, study: Study, given: Mapping[str, Any]) -> Request:
        """The search that a study holds, for one more worker; its own model and samples are taken where they are given.

        Args:
            study: it holds a request already.
            given: options that the user named, which must not differ from those of the study.

        Raises UsageError for another version of onnxprune, and for options that differ.
        """
        theirs, ours = study.user_attrs[_RECORD], self.document()
        for key, called in _AGREED.items():
            said = key == "version" or key in given or (key == "settings" and ours[key])
            if said and theirs[key] != ours[key]:
                shown = f": {theirs[key]}, not {ours[key]}" if key != "space" else ""
                raise UsageError(
                    f"the study '{study.study_name}' has another {called}{shown}; join it with the same, or name "
                    "another study with --study"
                )
        recorded = {name: _read(table) for name, table in theirs["sources"].items()}
        sources = self.sources if self.sources.data is not None else Sources(**recorded)
        names = ("minimize", "maximize", "require", "sampler")
        options = replace(self.options, space=None, **{name: theirs[name] for name in names})
        model = theirs["model"] if self.model is None else self.model
        if model is None or sources.data is None:
            raise UsageError(f"the study '{study.study_name}' holds no files; give the model and --data")
        return Request(model, sources, options, {**theirs["settings"], **self._of_this_machine()}, theirs["space"])

    def _of_this_machine(self) -> dict[str, Any]:
        """Settings that belong to no record."""
        return {name: value for name, value in self.settings.items() if not options_of(Context)[name].declared.recorded}


def record(study: Study, request: Request) -> None:
    """Write a request into a new study."""
    study.set_user_attr(_RECORD, request.document())


def is_recorded(study: Study) -> bool:
    """Does a study hold a request?"""
    return _RECORD in study.user_attrs


def check_digests(study: Study, bench: Workbench) -> None:
    """Note what a new study works on. Raises UsageError where a worker has another model or other samples."""
    theirs = study.user_attrs.get(_DIGESTS)
    if theirs is None:
        study.set_user_attr(_DIGESTS, dict(bench.digests))
        return
    for name, mine in bench.digests.items():
        if theirs.get(name) != mine:
            what = "the model" if name == "model" else f"the samples that are {name}"
            raise UsageError(
                f"{what} differ{'s' if name == 'model' else ''} from what the study '{study.study_name}' was begun "
                f"with (SHA-256 {mine[:12]}, not {str(theirs.get(name))[:12]}); give the same, or name another study "
                "with --study"
            )


def _plain(given: Any) -> dict[str, Any] | None:
    """Options of samples as plain data; None for samples in memory."""
    if not isinstance(given, DataOptions):
        return None
    table = changed(given)
    path = Path(str(table.get("data", "")))
    return {**table, "data": str(path.absolute())} if path.exists() else table


def _read(table: Mapping[str, Any] | None) -> DataOptions | None:
    return None if table is None else DataOptions(**table)
