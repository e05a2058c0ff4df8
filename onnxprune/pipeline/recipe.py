"""A recipe: the steps of a compression, in order.

    Recipe([Prune(target="macs=0.5"), Recover(), Clean()])("model.onnx", data="samples.npz").save("small.onnx")

In a TOML file the same is

    [[step]]
    step = "prune"
    target = "macs=0.5"
    ratios = { neurons = 0.6, "layer1*" = 0.25 }     # kinds or patterns; the last that names a group decides

    [[step]]
    step = "recover"

    [[step]]
    step = "clean"

A `repeat` has its own steps as [[step.steps]]. Keys outside of steps are settings, like seed = 1. A file without steps
holds the options of `compress`: ratio = 0.5, skip = ["heads"], and a table [groups] in place of ratios.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from onnxprune.errors import UsageError, WrongTypeError
from onnxprune.steps.base import Context, Step, steps
from onnxprune.steps.clean import Clean
from onnxprune.steps.evaluate import Evaluate
from onnxprune.steps.prune.step import WITH_LOSSLESS, Prune
from onnxprune.steps.quantize.step import Quantize
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.repeat import Repeat
from onnxprune.steps.rewind import Rewind
from onnxprune.steps.sparsify.step import Sparsify
from onnxprune.steps.train.step import Train
from onnxprune.support.messages import did_you_mean, one_line
from onnxprune.support.options import Option, changed, options_of, taken

if TYPE_CHECKING:
    from onnxprune.pipeline.result import Result

# What a cut may do where nobody says how much to remove, see `Candidates.damage`. At 0.05 a transformer that counts
# tokens kept 92.8% of 1,000 right that no run had seen, at 0.03 98.9%.
LITTLE_DAMAGE = "damage=0.03"
# Whose options `compress` takes, in the order in which the steps run.
KINDS: tuple[Any, ...] = (Prune, Rewind, Recover, Train, Repeat, Sparsify, Quantize, Clean, Evaluate, Context)


@dataclass(frozen=True)
class Recipe:
    """Steps in order, and settings of the context, like seed, that belong to them."""

    steps: tuple[Step, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [self.steps] if isinstance(self.steps, Step) else list(self.steps)
        for each in given:
            if not isinstance(each, Step):
                raise WrongTypeError(f"a recipe is a list of steps, like [Prune(), Recover()], not {each!r}")
        object.__setattr__(self, "steps", tuple(given))
        object.__setattr__(self, "settings", {name: _setting(name, each) for name, each in self.settings.items()})

    def __call__(self, model: Any, *, data: Any = None, **settings: Any) -> Result:
        """Run the steps on a model: see `pipeline.run.run`."""
        from onnxprune.pipeline.run import run

        return run(self, model, data=data, **settings)

    @staticmethod
    def of_options(options: Mapping[str, Any]) -> Recipe:
        """The recipe that options of `compress` represent: prune, recover, train, in rounds if asked for; then
        sparsify and quantize where that is asked for, and clean. Without rounds a training comes behind a quantization
        whose rounding it can go through.

        Raises UsageError for an unknown option, and for options that do not go together.
        """
        given: dict[Any, dict[str, Any]] = {kind: {} for kind in KINDS}
        for name, value in options.items():
            kind, each = find_step(name)
            given[kind][each.name] = value
        prune = Prune(**{**_how_much(given), **given[Prune]})
        sparsifying = (Sparsify(**given[Sparsify]),) if given[Sparsify] else ()
        quantizing = (Quantize(**given[Quantize]),) if given[Quantize] else ()
        evaluating = (Evaluate(**given[Evaluate]),) if given[Evaluate] else ()
        through = given[Repeat].get("times", 1) == 1 and any(each.before_training for each in quantizing)
        training = (Train(**given[Train]),) if given[Train] else ()
        later = training if through else ()
        last = (*sparsifying, *quantizing, *later, Clean(**given[Clean]), *evaluating)
        if prune.lossless:
            chosen = [
                options_of(kind)[name] for kind in (Prune, Rewind, Recover, Train, Repeat) for name in given[kind]
            ]
            for each in chosen:
                if each.name not in WITH_LOSSLESS:
                    flag = each.flag
                    raise UsageError(f"--{flag} has no effect with --lossless, which leaves no choice; drop one")
            return Recipe((prune, *last), given[Context])
        # Weights that are put back are no longer what the layers would be fitted from, unless that is asked for.
        rewinding = (Rewind(**given[Rewind]),) if given[Rewind] else ()
        recovery = (Recover(**given[Recover]),) if given[Recover] or not rewinding else ()
        body: tuple[Step, ...] = (prune, *rewinding, *recovery, *(training if not through else ()))
        rounds = Repeat(**given[Repeat], steps=body)
        if rounds.times == 1 and "schedule" in given[Repeat]:
            raise UsageError("--schedule says how several rounds share the cut; add --steps, like --steps 4")
        return Recipe((*((rounds,) if rounds.times > 1 else body), *last), given[Context])

    @staticmethod
    def read(source: str | Path) -> Recipe:
        """A recipe from a TOML file, from the JSON of a plan or a report, or by the name of one in `recipes/`.

        Raises UsageError, naming file, line and entry, where that is not possible.
        """
        path = _found(source)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the recipe {source}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageError(f"the recipe {source} is not text") from None
        reader = _RecipeReader(str(source), text)
        return reader.recipe()

    @staticmethod
    def of_table(data: Mapping[str, Any], source: str, text: str) -> Recipe:
        """A recipe from the data of a TOML file; errors name `source` and the line of its text.

        Raises UsageError as `read`.
        """
        return _RecipeReader(source, text).recipe(data)

    def document(self) -> dict[str, Any]:
        """The recipe as plain data, which `read` takes as TOML or JSON."""
        return {**_plain(self.settings), "step": [_table(each) for each in self.steps]}

    def changed(self, options: Mapping[str, Any]) -> Recipe:
        """The same with these options in every step that has them.

        Raises UsageError where there is no such step.
        """
        recipe = self
        for name, value in options.items():
            kind, each = find_step(name)
            if kind is Context:
                recipe = replace(recipe, settings={**recipe.settings, each.name: value})
                continue
            if kind is Evaluate:
                recipe = recipe.evaluated()
            if not any(isinstance(step, kind) for step in recipe.every()):
                raise UsageError(f"--{each.flag} is an option of the step {kind.name}, which the recipe does not have")
            values = {each.name: value, **({"target": ()} if each.name == "ratio" else {})}
            recipe = replace(recipe, steps=tuple(_with(step, kind, values) for step in recipe.steps))
        return recipe

    def evaluated(self) -> Recipe:
        """The same, with the step `evaluate` at its end where it has none: what a cut costs is always said."""
        if any(isinstance(each, Evaluate) for each in self.every()):
            return self
        return replace(self, steps=(*self.steps, Evaluate()))

    def every(self) -> Iterator[Step]:
        """All steps, those inside loops included."""
        for each in self.steps:
            yield each
            if isinstance(each, Repeat):
                yield from each.steps


def _how_much(given: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """Where nothing says how much to remove: as much as does little damage. Rounds and training keep their ratio."""
    said = {"ratio", "target", "ratios", "lossless"} & set(given[Prune]) or given[Prune].get("scope") == "latency"
    if said or given[Repeat] or given[Train] or given[Rewind]:
        return {}
    return {"target": (LITTLE_DAMAGE,)}


def find_step(name: str) -> tuple[Any, Option]:
    """The step, or the context, that has an option, by its name or flag. Raises UsageError where there is none."""
    wanted = name.replace("-", "_")
    for kind in KINDS:
        for each in options_of(kind).values():
            if wanted in (each.name, each.flag.replace("-", "_")):
                return kind, each
    known = [each.flag.replace("-", "_") for kind in KINDS for each in options_of(kind).values()]
    raise UsageError(f"unknown option '{name}'{did_you_mean(wanted, known)}")


def _setting(name: str, value: Any) -> Any:
    options = options_of(Context)
    if name not in options:
        raise UsageError(f"unknown setting '{name}'{did_you_mean(name, options)}")
    return taken(options[name], value)


def _with(step: Step, kind: Any, values: Mapping[str, Any]) -> Step:
    if isinstance(step, kind):
        step = replace(step, **values)
    if isinstance(step, Repeat):
        step = replace(step, steps=tuple(_with(each, kind, values) for each in step.steps))
    return step


def _table(each: Step) -> dict[str, Any]:
    inner = {"steps": [_table(step) for step in each.steps]} if isinstance(each, Repeat) else {}
    return {"step": each.name, **changed(each), **inner}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return changed(Context(**settings))


def _found(source: str | Path) -> Path:
    """The file of a recipe; one that is shipped is known by its name."""
    path = Path(source)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    shipped = Path(str(resources.files("onnxprune.recipes")))
    if not (shipped / f"{path}.toml").exists():
        known = [file.stem for file in shipped.glob("*.toml")]
        raise UsageError(f"there is no file and no recipe '{path}'{did_you_mean(str(path), known)}")
    return shipped / f"{path}.toml"


@dataclass(frozen=True)
class _RecipeReader:
    """Reads one file, and says which line an error is in."""

    source: str
    text: str

    def recipe(self, data: Mapping[str, Any] | None = None) -> Recipe:
        data = dict(self._parsed() if data is None else data)
        tables = data.pop("step", None)
        if tables is None:
            groups = data.pop("groups", {})
            if not isinstance(groups, dict):
                raise self._error("groups", "groups is a table of patterns and ratios, like neurons = 0.6")
            options = {**data, **({"ratios": groups} if groups else {})}
            for name in options:
                self._known(name, ["groups", "step"])
            return cast("Recipe", self._said(options, lambda: Recipe.of_options(options)))
        settings = {name.replace("-", "_"): value for name, value in data.items()}
        for name in settings:
            if name not in options_of(Context):
                raise self._error(name, f"unknown setting '{name}'{did_you_mean(name, [*options_of(Context), 'step'])}")
        return cast("Recipe", self._said(settings, lambda: Recipe(tuple(self._steps(tables)), settings)))

    def _parsed(self) -> dict[str, Any]:
        try:
            if self.text.lstrip().startswith("{"):
                found = json.loads(self.text)
                found = found.get("recipe", found)
                if not found:
                    raise UsageError(f"{self.source} does not say which recipe it was made with")
                return dict(found)
            return tomllib.loads(self.text)
        except (ValueError, TypeError, RecursionError) as error:
            raise UsageError(f"the recipe {self.source} is not TOML: {one_line(error)}") from None

    def _steps(self, tables: Any) -> Iterable[Step]:
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self._error("step", "steps are tables like [[step]]")
        return [self._step(dict(table)) for table in tables]

    def _step(self, table: dict[str, Any]) -> Step:
        if not isinstance(table.get("step"), str):
            raise self._error("step", 'a [[step]] says which it is, like step = "prune"')
        name = table.pop("step")
        kind: Any = self._said([name], lambda: steps[name])
        inner = table.pop("steps", None)
        given = {key.replace("-", "_"): value for key, value in table.items()}
        for key in given:
            if key not in options_of(kind):
                hint = did_you_mean(key, [*options_of(kind), *(["steps"] if kind is Repeat else [])])
                raise self._error(key, f"the step {name} has no option '{key}'{hint}")
        if inner is not None and kind is Repeat:
            given["steps"] = tuple(self._steps(inner))
        return cast("Step", self._said(table, lambda: kind(**given)))

    def _known(self, name: str, others: list[str]) -> None:
        try:
            find_step(name)
        except UsageError as error:
            known = [each.flag for kind in KINDS for each in options_of(kind).values()]
            hint = did_you_mean(name.replace("_", "-"), [*known, *others])
            raise self._error(name, f"unknown option '{name}'{hint}") from error

    def _said(self, names: Iterable[str], make: Any) -> Any:
        """The result of `make`; its complaint names the file, and the line of the option that it speaks of."""
        try:
            return make()
        except UsageError as error:
            said = str(error)
            if said.startswith("the recipe "):
                raise
            named = next((name for name in names if re.search(rf"\b{re.escape(name)}\b", said)), "")
            raise self._error(named, said) from None

    def _error(self, name: str, said: str) -> UsageError:
        lines = self.text.splitlines()
        either = {name, name.replace("_", "-"), name.replace("-", "_")}
        at = next((n for n, line in enumerate(lines, 1) if any(_names(line, each) for each in either if each)), None)
        where = f"the recipe {self.source}" + (f", line {at}" if at else "")
        return UsageError(f"{where}: {said}")


def _names(line: str, name: str) -> bool:
    """Does a line of TOML set `name`, as a key or as a value?"""
    return bool(re.search(rf'(^|[\s"\[{{,.])({re.escape(name)})(["\s\]=]|$)', line.partition("#")[0]))
