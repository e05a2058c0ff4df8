"""Which units of which group go, and why: readable JSON that can be replayed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.analysis.groups import Analysis, Group
from onnxprune.dims import Atom, Mask
from onnxprune.errors import PlanError
from onnxprune.support.files import staged_text
from onnxprune.support.messages import one_line
from onnxprune.support.notebook import html_table

FORMAT = 1
# Groups that a print of a plan lists.
_SHOWN = 6
_ADVICE = "write one with: onnxprune compress MODEL --plan FILE"


@dataclass(frozen=True)
class Removal:
    """The units that one group loses.

    Attributes:
        group: its name, like `layer1.0.conv1`; in plans of older versions its first weight axis.
        kind: what the units are.
        units: how many there were.
        remove: the positions that go, ascending.
    """

    group: str
    kind: str
    units: int
    remove: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Plan:
    """Everything that is removed from a model.

    Attributes:
        removals: what goes, in the order of the model's groups.
        recipe: the recipe that it came from, as `pipeline.recipe.Recipe.document` writes it; replay does not read it.
        folds: constants that the removed units give go into the biases of what reads them, as in lossless removal.
        structure: name, kind and units of all groups of the model; so the plan is known to fit a model that was trained
            and exported again, although the names in it have changed.
        ranks: the units of each layer that was split into two thinner ones first, by its weight.
    """

    removals: tuple[Removal, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    structure: tuple[tuple[str, str, int], ...] = ()
    folds: bool = False
    ranks: dict[str, int] = field(default_factory=dict)

    @property
    def removed_units(self) -> int:
        """How many units go in all."""
        return sum(len(removal.remove) for removal in self.removals)

    def __repr__(self) -> str:
        shown = [f"  {each.group}: {len(each.remove)} of {each.units} {each.kind}" for each in self.removals[:_SHOWN]]
        more = [f"  ... and {len(self.removals) - _SHOWN} more groups"] if len(self.removals) > _SHOWN else []
        return "\n".join([f"Plan: {self.removed_units:,} units of {len(self.removals)} groups go", *shown, *more])

    def _repr_html_(self) -> str:
        rows = ((each.group, each.kind, each.units, each.units - len(each.remove)) for each in self.removals)
        return html_table(("group", "kind", "units", "kept"), rows)

    def to_json(self) -> str:
        """The plan as JSON, one group per line."""
        lines = ",\n".join("    " + json.dumps(asdict(removal)) for removal in self.removals)
        head = json.dumps({"format": FORMAT, "kind": "plan", "folds": self.folds, "recipe": self.recipe})[:-1]
        ranks = f',\n  "ranks": {json.dumps(self.ranks)}' if self.ranks else ""
        structure = f',\n  "structure": {json.dumps(self.structure)}' if self.structure else ""
        return f'{head},\n  "groups": [\n{lines}\n  ]{structure}{ranks}\n}}\n'

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read a plan. Raises PlanError with one line when it is not one."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"not JSON ({one_line(error)}); {_ADVICE}") from None
        if not isinstance(data, dict) or "format" not in data or "groups" not in data:
            raise PlanError(f"not a plan of onnxprune; {_ADVICE}")
        if data["format"] != FORMAT:
            raise PlanError(f"a plan of format {data['format']!r}, this version reads format {FORMAT}; {_ADVICE}")
        try:
            removals = tuple(
                Removal(str(g["group"]), str(g["kind"]), _whole(g["units"]), tuple(map(_whole, g["remove"])))
                for g in data["groups"]
            )
            structure = tuple((str(name), str(kind), _whole(units)) for name, kind, units in data.get("structure", ()))
            folds = data.get("folds", data.get("request", {}).get("lossless", False))  # plans of 0.1 said it there
            ranks = {str(name): _whole(rank) for name, rank in data.get("ranks", {}).items()}
            return Plan(removals, dict(data.get("recipe", {})), structure, bool(folds), ranks)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise PlanError(f"not a complete plan of onnxprune; {_ADVICE}") from None

    @staticmethod
    def read(path: str | Path) -> Plan:
        """Read a plan file. Raises PlanError when it is missing or is not one."""
        try:
            return Plan.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"cannot read the plan {path}: {error.strerror}; {_ADVICE}") from None
        except UnicodeDecodeError:
            raise PlanError(f"{path} is not text, so not a plan; {_ADVICE}") from None
        except PlanError as error:
            raise PlanError(f"{path} is {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the plan, atomically. Raises ModelError when that fails, UsageError when `path` is no place for it."""
        with self.staged(path):
            pass

    def staged(self, path: str | Path) -> AbstractContextManager[None]:
        """Write the plan beside `path` and move it into place when the block ends well."""
        return staged_text(self.to_json(), Path(path))

    def keep(self, analysis: Analysis) -> dict[Atom, Mask]:
        """The units that stay, per atom. Raises PlanError when the plan does not fit the model."""
        groups = self._groups(analysis)
        keep: dict[Atom, Mask] = {}
        for removal in self.removals:
            group = groups.get(removal.group)
            if group is None:
                raise PlanError(
                    f"the plan names group '{removal.group}', which this model does not have; is it for another one?"
                )
            if group.atom in keep:
                raise PlanError(f"the plan names group '{removal.group}' twice; {_ADVICE}")
            keep[group.atom] = _mask(group, removal)
        return keep

    def _groups(self, analysis: Analysis) -> dict[str, Group]:
        """The model's groups by the names that the plan uses: theirs, or those of the groups at the same places."""
        groups = {group.first_axis: group for group in analysis.groups}
        groups.update((group.id, group) for group in analysis.groups)
        if all(removal.group in groups for removal in self.removals):
            return groups
        here = [(group.kind, group.units) for group in analysis.groups]
        if [(kind, units) for _, kind, units in self.structure] != here:
            return groups
        return {name: group for (name, _, _), group in zip(self.structure, analysis.groups, strict=True)}


def _whole(number: object) -> int:
    """A whole number of JSON. Raises ValueError for anything else: half a unit cannot go."""
    if type(number) is not int:
        raise ValueError(f"{number!r} is not a whole number")
    return number


def compose(first: Plan, then: Plan) -> Plan:
    """One plan that does what two do after each other: `then` speaks of the model that `first` leaves.

    Raises PlanError where it cannot be that model.
    """
    removals = {removal.group: removal for removal in first.removals}
    names = _names_before(first, then)
    for each in then.removals:
        removal = replace(each, group=names.get(each.group, each.group))
        before = removals.get(removal.group)
        if before is None:
            removals[removal.group] = removal
            continue
        gone = set(before.remove)
        left = [unit for unit in range(before.units) if unit not in gone]
        if len(left) != removal.units:
            raise PlanError(
                f"the second plan is for {removal.units} units of '{removal.group}', the first leaves {len(left)}; "
                "give plans in the order in which they were made"
            )
        together = tuple(sorted(gone | {left[unit] for unit in removal.remove}))
        removals[before.group] = Removal(before.group, before.kind, before.units, together)
    order = {name: place for place, (name, _, _) in enumerate(first.structure)}
    ordered = sorted(removals.values(), key=lambda removal: order.get(removal.group, len(order)))
    ranks = {**then.ranks, **first.ranks}
    return Plan(tuple(ordered), then.recipe or first.recipe, first.structure, first.folds or then.folds, ranks)


def _names_before(first: Plan, then: Plan) -> dict[str, str]:
    """The names in the first plan of groups that the second one calls otherwise.

    A group that shares its name with others (`a:heads#2`, `a[0].1`) is renamed once those are down to a unit: it is
    the one of its layer with as many units left. Of the groups that only one of the plans knows, those are the same
    that nothing but their kind and number of units could be mistaken for.
    """
    gone = {removal.group: len(removal.remove) for removal in first.removals}
    sizes = {name: units for name, _, units in first.structure} | {each.group: each.units for each in first.removals}
    left = {name: units - gone.get(name, 0) for name, units in sizes.items()}
    names: dict[str, str] = {}
    for each in then.removals:
        parts = [name for name in left if _layer(name) == _layer(each.group) and left[name] == each.units]
        if len(parts) == 1 and left.get(each.group) != each.units:
            names[each.group] = parts[0]
    own = {name for name, *_ in then.structure}
    only_first = [(name, (kind, left[name])) for name, kind, _ in first.structure if name not in own]
    only_then = [
        (name, (kind, units)) for name, kind, units in then.structure if name not in left and name not in names
    ]
    kinds_first, kinds_then = [what for _, what in only_first], [what for _, what in only_then]
    for name, what in only_then:
        if kinds_first.count(what) == kinds_then.count(what) == 1:
            names[name] = only_first[kinds_first.index(what)][0]
    return names


def _layer(name: str) -> str:
    """The name of a group without the part of its layer that it is."""
    return re.sub(r"(:[a-z-]+)?(#\d+)?$|(?<=\])\.\d+$", "", name, count=1)


def structure_of(analysis: Analysis) -> tuple[tuple[str, str, int], ...]:
    """Name, kind and units of all groups."""
    return tuple((group.id, group.kind, group.units) for group in analysis.groups)


def _mask(group: Group, removal: Removal) -> Mask:
    if group.units != removal.units:
        raise PlanError(
            f"group '{group.id}' has {group.units} units, the plan is for {removal.units}; is it for another model?"
        )
    if any(not 0 <= unit < group.units for unit in removal.remove):
        raise PlanError(f"the plan removes units that group '{group.id}' does not have; is it for another model?")
    mask = np.ones(group.units, dtype=np.bool_)
    mask[list(removal.remove)] = False
    if not mask.any():
        raise PlanError(f"the plan removes every unit of group '{group.id}'; at least one must stay")
    return mask


def plan_from_masks(keep: Iterable[tuple[Group, Mask]], recipe: dict[str, Any] | None = None) -> Plan:
    """A plan that removes what the masks do not keep; groups that lose nothing are left out."""
    removals = [
        Removal(group.id, group.kind, group.units, tuple(int(unit) for unit in np.flatnonzero(~mask)))
        for group, mask in keep
        if not mask.all()
    ]
    return Plan(tuple(removals), recipe or {})
