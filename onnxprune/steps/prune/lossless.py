"""The cut that changes nothing: units that are constant, or that nothing reads."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.analysis.constants import Constants
from onnxprune.analysis.groups import Group
from onnxprune.analysis.liveness import Liveness
from onnxprune.dims import Mask


def find_unneeded(constants: Constants, groups: Sequence[Group]) -> tuple[dict[str, Mask], list[str]]:
    """Which units have to stay, and what a person should know of constant ones among them.

    Returns a mask per id of each group that has units to spare: bool, shape [units]. Constants among the others are to
    be folded forward, see passes.fold_constants. One unit of each group stays.
    """
    liveness = Liveness(constants, groups)
    liveness.run()
    needed = {group.id: liveness.needed[group.atom] for group in liveness.removable.values()}
    return needed, [*liveness.refusals(), *liveness.under_a_norm(groups)]
