"""The cut that changes nothing: units that are constant, or that nothing reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxprune.analysis.constants import Constants
from onnxprune.analysis.groups import Group
from onnxprune.analysis.liveness import Liveness
from onnxprune.steps.plan import Plan, plan_from_masks


def plan_lossless(constants: Constants, groups: Sequence[Group], request: dict[str, Any]) -> tuple[Plan, list[str]]:
    """The units of `groups` that change nothing, and what a person should know of those that have to stay.

    The constants among them are to be folded forward, see passes.fold_constants. One unit of each group stays.
    """
    liveness = Liveness(constants, groups)
    liveness.run()
    plan = plan_from_masks([(group, liveness.needed[group.atom]) for group in liveness.removable.values()], request)
    return plan, [*liveness.refusals(), *liveness.under_a_norm(groups)]
