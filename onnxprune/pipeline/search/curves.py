"""Curves: recipes at several strengths, side by side; each point is kept as soon as it is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from onnxprune.errors import OnnxpruneError, TargetError, UsageError
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.samples import Sources
from onnxprune.pipeline.search.objectives.base import Aim
from onnxprune.pipeline.search.trial import make
from onnxprune.pipeline.search.workbench import Workbench
from onnxprune.steps.repeat import Repeat
from onnxprune.steps.train.step import Train
from onnxprune.support.files import staged_text
from onnxprune.support.notebook import html_table
from onnxprune.support.options import options_of
from onnxprune.support.progress import Counted, Progress, silent
from onnxprune.support.versions import versions

STRENGTHS = (0.2, 0.35, 0.5, 0.65, 0.8)
# Options that say how much goes, of whichever step has one; what else would say it is taken back.
_STRENGTH, _INSTEAD = ("ratio", "sparsity"), ("target",)


@dataclass(frozen=True)
class CurvePoint:
    """A recipe at one strength.

    Attributes:
        strength: share of the units, or of the weights, that the recipe was asked to remove; None: as the recipe says.
        values: per objective; shares of the original for costs.
        error: why there are none.
    """

    strength: float | None
    values: Mapping[str, float]
    error: str = ""


@dataclass(frozen=True, repr=False)
class Curves:
    """Several recipes.

    Attributes:
        quality: what is drawn upwards: the metric.
        costs: what it is drawn against.
        whole: the metric of the original.
        recipes: per name its points, by ascending strength.
        interrupted: some points were not reached.
    """

    quality: str
    costs: tuple[str, ...]
    whole: float
    recipes: Mapping[str, tuple[CurvePoint, ...]]
    interrupted: bool = False

    def _rows(self) -> list[tuple[str, ...]]:
        names = (self.quality, *self.costs)
        return [
            (
                f"{name} {'' if point.strength is None else f'{point.strength:g}'}".strip(),
                *(f"{point.values[each]:.4g}" if each in point.values else "-" for each in names),
            )
            for name, points in self.recipes.items()
            for point in points
        ]

    def __repr__(self) -> str:
        names = ", ".join(self.recipes)
        return f"Curves of {self.quality} against {', '.join(self.costs)}: {len(self._rows())} points of {names}"

    def _repr_html_(self) -> str:
        return html_table(("", self.quality, *self.costs), self._rows())


def curves(
    model: Any,
    recipes: Sequence[str | Path | Recipe] = ("default",),
    *,
    data: Any = None,
    evaluation: Any = None,
    strengths: Sequence[float] = STRENGTHS,
    against: Sequence[str] = ("sparsity", "macs", "size"),
    folder: str | Path | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> Curves:
    """Measure recipes at several strengths.

        curves("model.onnx", ["default", "iterative"], data="samples.npz", strengths=[0.3, 0.6])

    Args:
        model: as for `compress`.
        recipes: files, names of those that are shipped, or recipes.
        data: samples, as for `compress`; some are kept apart to measure on.
        evaluation: samples to measure on, in their place.
        strengths: in the place of the ratio or sparsity of each recipe; one that has none is measured as it is.
        against: objectives that the metric is drawn against.
        folder: keeps every point that was measured, so that the same call goes on; None: beside the model, NAME.curve.
        progress: is called with what is being done.
        settings: of the context, like metric and seed.

    Raises UsageError for options that make no sense, TargetError where no point could be measured.
    """
    named = _named(recipes)
    aims = [Aim(text) for text in dict.fromkeys(against)]
    place = _folder(model, folder)
    every = Recipe(tuple(step for recipe in named.values() for step in recipe.steps), settings)
    bench = Workbench.open(model, Sources(data, evaluation=evaluation), every, place / "shared", progress)
    quality = Aim(bench.metric(None).name)
    kept = _Kept(place / "points.json", f"{versions()['onnxprune']} {dict(bench.digests)} {every.settings}")
    wanted = [(name, at) for name, recipe in named.items() for at in (strengths if _is_strong(recipe) else (None,))]
    found: dict[str, list[CurvePoint]] = {name: [] for name in named}
    interrupted = False
    try:
        for number, (name, at) in enumerate(wanted):
            recipe = named[name] if at is None else at_strength(named[name], at)
            said = f"{name}{'' if at is None else f' at {at:g}'}, {number} of {len(wanted)} done"
            progress(Counted(said, number, len(wanted)))
            found[name].append(_point(bench, recipe, at, [quality, *aims], kept))
    except KeyboardInterrupt:
        interrupted = True
    errors = [point.error for points in found.values() for point in points if point.error]
    if errors and not any(point.values for points in found.values() for point in points):
        raise TargetError(f"no point could be measured; the first: {errors[0]}")
    points = {name: tuple(sorted(each, key=lambda point: point.strength or 0.0)) for name, each in found.items()}
    whole = bench.metric_of_original(bench.metric(None))
    return Curves(quality.text, tuple(aim.text for aim in aims), whole, points, interrupted)


def _named(recipes: Sequence[str | Path | Recipe]) -> dict[str, Recipe]:
    """Recipes by the name that a curve has. Raises UsageError for two of one name."""
    found: dict[str, Recipe] = {}
    for number, each in enumerate(recipes, 1):
        name = f"recipe {number}" if isinstance(each, Recipe) else Path(each).name.removesuffix(".toml")
        if name in found:
            raise UsageError(f"two recipes are called {name}; rename one")
        found[name] = each if isinstance(each, Recipe) else Recipe.read(each)
    if not found:
        raise UsageError("name a recipe to draw, like --recipe default")
    return found


def _folder(model: Any, folder: str | Path | None) -> Path:
    if folder is not None:
        return Path(folder)
    if isinstance(model, str | Path):
        return Path(model).with_name(f"{Path(model).stem}.curve")
    raise UsageError("name a folder for what is measured, or give the model as a file")


def at_strength(recipe: Recipe, strength: float) -> Recipe:
    """The recipe with this strength in every step that has one."""
    return replace(recipe, steps=tuple(_stronger(step, strength) for step in recipe.steps))


def _stronger(step: Any, strength: float) -> Any:
    if isinstance(step, Repeat):
        return replace(step, steps=tuple(_stronger(each, strength) for each in step.steps))
    if isinstance(step, Train):
        return replace(step, training_method=tuple(_stronger_method(each, strength) for each in step.training_method))
    options = options_of(type(step))
    values: dict[str, Any] = {name: strength for name in _STRENGTH if name in options}
    if not values or getattr(step, "lossless", False):
        return step
    return replace(step, **values, **{name: () for name in _INSTEAD if name in options})


def _stronger_method(text: str, strength: float) -> str:
    """A training method that states how much becomes zero, at this strength; others as they are."""
    from onnxprune.steps.train.method import chosen_methods

    method: Any = chosen_methods([text], [])[0]  # a dataclass, as all of them are
    values = {name: strength for name in _STRENGTH if name in options_of(type(method))}
    return str(replace(method, **values)) if values else text


def _is_strong(recipe: Recipe) -> bool:
    return at_strength(recipe, 0.123).steps != recipe.steps


def _point(bench: Workbench, recipe: Recipe, strength: float | None, aims: Sequence[Aim], kept: _Kept) -> CurvePoint:
    """The values of a recipe; an error of one point ends no other."""
    key = repr((recipe.document()["step"], [aim.text for aim in aims]))
    known = kept.values.get(kept.key(key))
    if known is None:
        try:
            made = make(bench, recipe, silent)
            known = {"values": {aim.text: aim(made).value for aim in aims}, "error": ""}
        except (OnnxpruneError, MemoryError) as error:
            known = {"values": {}, "error": str(error) or "out of memory"}
        kept.add(kept.key(key), known)
    return CurvePoint(strength, known["values"], known["error"])


class _Kept:
    """Points in a JSON file, written anew with each; those of another model, samples or settings are left alone."""

    def __init__(self, file: Path, base: str) -> None:
        self._file, self._base = file, base
        self.values: dict[str, Any] = {}
        if file.exists():
            try:
                self.values = json.loads(file.read_text())
            except ValueError:
                raise UsageError(f"{file} is damaged; remove it, or name another folder with -o") from None

    def key(self, what: str) -> str:
        """Of a point."""
        return sha256(f"{self._base} {what}".encode()).hexdigest()[:32]

    def add(self, key: str, value: Any) -> None:
        """Keep a point, in the file too."""
        self.values[key] = value
        with staged_text(json.dumps(self.values), self._file):
            pass
