"""Which units of which group go, and why: readable JSON that can be replayed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.coupling import Analysis, Group
from onnxprune.dims import Atom, Mask
from onnxprune.errors import PlanError
from onnxprune.model import one_line, staged_text

FORMAT = 1
_ADVICE = "write one with: onnxprune compress MODEL --plan FILE"


@dataclass(frozen=True)
class Removal:
    """The units that one group loses.

    Attributes:
        group: its id, like `conv1.weight[0]`.
        kind: what the units are.
        units: how many there were.
        remove: the positions that go, ascending.
    """

    group: str
    kind: str
    units: int
    remove: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that is removed from a model, and the request it came from (for people; replay ignores it)."""

    removals: tuple[Removal, ...] = ()
    request: dict[str, Any] = field(default_factory=dict)

    @property
    def removed_units(self) -> int:
        """How many units go in all."""
        return sum(len(removal.remove) for removal in self.removals)

    def to_json(self) -> str:
        """The plan as JSON, one group per line."""
        lines = ",\n".join("    " + json.dumps(asdict(removal)) for removal in self.removals)
        head = json.dumps({"format": FORMAT, "request": self.request})[:-1]
        return f'{head},\n  "groups": [\n{lines}\n  ]\n}}\n'

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
            raise PlanError(f"a plan of format {data['format']}, this version reads format {FORMAT}; {_ADVICE}")
        try:
            removals = tuple(
                Removal(str(g["group"]), str(g["kind"]), int(g["units"]), tuple(int(unit) for unit in g["remove"]))
                for g in data["groups"]
            )
            return Plan(removals, dict(data.get("request", {})))
        except (KeyError, TypeError, ValueError, OverflowError):
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
        groups = {group.id: group for group in analysis.groups}
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


def plan_from_masks(keep: Iterable[tuple[Group, Mask]], request: dict[str, Any]) -> Plan:
    """A plan that removes what the masks do not keep; groups that lose nothing are left out."""
    removals = [
        Removal(group.id, group.kind, group.units, tuple(int(unit) for unit in np.flatnonzero(~mask)))
        for group, mask in keep
        if not mask.all()
    ]
    return Plan(tuple(removals), request)
