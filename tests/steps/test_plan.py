"""Plans: readable JSON that fits one model and is replayed byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.analysis.groups import Analysis
from onnxprune.data.base import load_data
from onnxprune.errors import PlanError
from onnxprune.model.file import open_model
from onnxprune.model.signature import ports_of
from onnxprune.pipeline.run import apply, compress, inspect
from onnxprune.steps.plan import Plan, Removal, compose, plan_from_masks
from tests.conftest import Build

PLAN = Plan(
    (Removal("w1", "neurons", 8, (0, 3)), Removal("w2", "neurons", 6, (5,))),
    {"step": [{"step": "prune", "ratio": 0.25}]},
)


@pytest.fixture
def path(build: Build) -> Path:
    return build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w1, float[8, 6] w2, float[6, 3] w3>
        { h = MatMul(x, w1)  r = Relu(h)  k = MatMul(r, w2)  s = Relu(k)  y = MatMul(s, w3) }
    """)


@pytest.fixture
def analysis(path: Path) -> Analysis:
    return inspect(path)


def test_json_round_trip() -> None:
    assert Plan.from_json(PLAN.to_json()) == PLAN
    assert Plan.from_json(Plan().to_json()) == Plan()


def test_json_has_one_line_per_group() -> None:
    assert PLAN.to_json() == (
        '{"format": 1, "kind": "plan", "folds": false, "recipe": {"step": [{"step": "prune", "ratio": 0.25}]},\n'
        '  "groups": [\n'
        '    {"group": "w1", "kind": "neurons", "units": 8, "remove": [0, 3]},\n'
        '    {"group": "w2", "kind": "neurons", "units": 6, "remove": [5]}\n'
        "  ]\n"
        "}\n"
    )


def test_file_round_trip(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == PLAN
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_names_outside_ascii_survive(tmp_path: Path) -> None:
    plan = Plan((Removal("größe/重み", "neurons", 8, (1,)),))
    plan.save(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a plan of onnxprune"),
        ("3", "not a plan of onnxprune"),
        ("{}", "not a plan of onnxprune"),
        ('{"format": 1}', "not a plan of onnxprune"),
        ('{"format": 2, "groups": []}', "a plan of format 2, this version reads format 1"),
        ('{"format": 1, "groups": 3}', "not a complete plan"),
        ('{"format": 1, "groups": [{"group": "w1"}]}', "not a complete plan"),
        ('{"format": 1, "groups": [{"group": "a", "kind": "b", "units": "x", "remove": []}]}', "not a complete plan"),
        ('{"format": 1, "groups": [{"group": "a", "kind": "b", "units": 3, "remove": [null]}]}', "not a complete plan"),
        ('{"format": 1, "groups": [{"group": "a", "kind": "b", "units": 1e999, "remove": []}]}', "not a complete plan"),
        ('{"format": 1, "groups": [], "request": 7}', "not a complete plan"),
        ('{"format": "1", "groups": []}', "a plan of format '1', this version reads format 1"),
        ('{"format": 1, "groups": [{"group": "a", "kind": "b", "units": 3, "remove": [1.5]}]}', "not a complete plan"),
        ('{"format": 1, "groups": [{"group": "a", "kind": "b", "units": 3, "remove": [true]}]}', "not a complete plan"),
        ('{"format": 1, "groups": [{"group": "a", "kind": "b", "units": 3, "remove": "12"}]}', "not a complete plan"),
    ],
)
def test_text_that_is_no_plan_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(PlanError, match=message) as refusal:
        Plan.read(file)
    assert str(refusal.value).startswith(f"{file} is ")
    assert "\n" not in str(refusal.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read the plan .*missing\.json: No such file"):
        Plan.read(tmp_path / "missing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="is not text"):
        Plan.read(tmp_path / "bytes.json")


def test_masks_of_what_stays(analysis: Analysis) -> None:
    first, second = analysis.groups
    keep = PLAN.keep(analysis)
    np.testing.assert_array_equal(keep[first.atom], [False, True, True, False, True, True, True, True])
    np.testing.assert_array_equal(keep[second.atom], [True, True, True, True, True, False])


def test_plan_from_masks_leaves_out_groups_that_lose_nothing(analysis: Analysis) -> None:
    first, second = analysis.groups
    plan = plan_from_masks([(first, np.ones(8, bool)), (second, np.arange(6) > 1)], {"ratio": 0.3})
    assert plan == Plan((Removal("w2", "neurons", 6, (0, 1)),), {"ratio": 0.3})
    assert plan.removed_units == 2


@pytest.mark.parametrize(
    ("removals", "message"),
    [
        ([Removal("other", "neurons", 8, (0,))], "names group 'other', which this model does not have"),
        ([Removal("w1", "neurons", 9, (0,))], "has 8 units, the plan is for 9"),
        ([Removal("w1", "neurons", 8, (8,))], "removes units that group .* does not have"),
        ([Removal("w1", "neurons", 8, (-1,))], "removes units that group .* does not have"),
        ([Removal("w1", "neurons", 8, tuple(range(8)))], "removes every unit .* at least one must stay"),
        ([Removal("w1", "neurons", 8, (0,)), Removal("w1", "neurons", 8, (1,))], "twice"),
    ],
)
def test_plan_that_does_not_fit_is_refused(path: Path, removals: list[Removal], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        apply(path, Plan(tuple(removals)))


# -- replay


@pytest.mark.parametrize(
    "options", [{"ratio": 0.5}, {"scope": "global", "ratio": 0.3}, {"criterion": "random", "seed": 3, "ratio": 0.5}]
)
def test_replay_gives_the_same_bytes(digits: dict[str, Path], tmp_path: Path, options: dict[str, Any]) -> None:
    result = compress(digits["transformer"], recover="none", **options)
    result.save(tmp_path / "compressed.onnx", plan=tmp_path / "plan.json")
    apply(digits["transformer"], Plan.read(tmp_path / "plan.json")).save(tmp_path / "replayed.onnx")
    assert (tmp_path / "replayed.onnx").read_bytes() == (tmp_path / "compressed.onnx").read_bytes()


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_the_same_request_gives_the_same_bytes(digits: dict[str, Path], tmp_path: Path, name: str) -> None:
    for file in ("one", "two"):
        compress(digits[name], criterion="random", seed=5, ratio=0.5, recover="none").save(
            tmp_path / f"{file}.onnx", plan=tmp_path / f"{file}.json"
        )
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_the_recipe_is_written_down_and_not_read_on_replay(path: Path) -> None:
    result = compress(path, criterion="l2", ratio=0.25, skip=["w3"], seed=3, recover="none")
    written = json.loads(result.plan.to_json())["recipe"]
    prune = {"step": "prune", "criterion": "l2", "ratio": 0.25, "skip": ["w3"]}
    assert written == {"seed": 3, "step": [prune, {"step": "recover", "method": "none"}, {"step": "clean"}]}
    assert apply(path, Plan(result.plan.removals)).report.after == result.report.after


def test_plans_of_the_first_version_still_say_that_constants_fold() -> None:
    text = '{"format": 1, "request": {"lossless": true}, "groups": []}'
    assert Plan.from_json(text).folds
    assert not Plan.from_json(text.replace("true", "false")).folds


# -- schema, composition, models that were trained again


def test_plans_fit_the_published_schema(digits: dict[str, Path]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "docs" / "plan.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for plan in (PLAN, Plan(), compress(digits["transformer"], ratio=0.5, recover="none").plan):
        jsonschema.validate(json.loads(plan.to_json()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"format": 1, "groups": [{"group": "a"}]}, schema)


def test_the_schema_names_what_plans_have(digits: dict[str, Path]) -> None:
    """Checked by hand where jsonschema is not installed."""
    schema = json.loads((Path(__file__).parents[2] / "docs" / "plan.schema.json").read_text())
    written = json.loads(compress(digits["transformer"], ratio=0.5, recover="none").plan.to_json())
    assert set(written) == set(schema["properties"]) - {"request", "ranks"}
    assert set(written["groups"][0]) == set(schema["properties"]["groups"]["items"]["properties"])
    assert schema["properties"]["format"]["const"] == written["format"]


@given(st.data())
def test_two_plans_after_each_other_are_one(data: st.DataObject) -> None:
    """By indices: what is left of 0..n-1 after both is what the composed plan leaves."""
    units = data.draw(st.integers(3, 12))
    first = data.draw(st.sets(st.integers(0, units - 1), max_size=units - 2))
    left = [unit for unit in range(units) if unit not in first]
    then = data.draw(st.sets(st.integers(0, len(left) - 1), max_size=len(left) - 1))
    plans = [
        Plan((Removal("g", "neurons", size, tuple(sorted(gone))),) if gone else ())
        for size, gone in ((units, first), (len(left), then))
    ]
    removed = [set(removal.remove) for removal in compose(*plans).removals]
    expected = {*first, *(left[unit] for unit in then)}
    assert (removed or [set()])[0] == expected


def test_plans_are_put_together_where_recovery_has_renamed_groups() -> None:
    """The second model's `a` is called after a new bias, and `gone` is down to a unit, so it is not a group there."""
    structure = (("a", "neurons", 6), ("gone", "heads", 2), ("b", "neurons", 5))
    first = Plan((Removal("a", "neurons", 6, (1, 2)), Removal("gone", "heads", 2, (0,))), {}, structure)
    then = Plan(
        (Removal("a.new", "neurons", 4, (0, 3)), Removal("b", "neurons", 5, (4,))),
        {},
        (("a.new", "neurons", 4), ("b", "neurons", 5)),
    )
    assert [(each.group, each.units, each.remove) for each in compose(first, then).removals] == [
        ("a", 6, (0, 1, 2, 5)),
        ("gone", 2, (0,)),
        ("b", 5, (4,)),
    ]


def test_plans_are_put_together_where_a_part_of_a_layer_has_no_number_any_more() -> None:
    """The groups of `a` are down to one, so what was `a#2` is `a` in the second model."""
    structure = (("a", "channels", 2), ("a#2", "channels", 6), ("b:heads", "heads", 3))
    first = Plan((Removal("a", "channels", 2, (0,)), Removal("a#2", "channels", 6, (0,))), {}, structure)
    then = Plan(
        (Removal("a", "channels", 5, (0,)), Removal("b:heads", "heads", 3, (1,))),
        {},
        (("a", "channels", 5), ("b:heads", "heads", 3)),
    )
    assert [(each.group, each.units, each.remove) for each in compose(first, then).removals] == [
        ("a", 2, (0,)),
        ("a#2", 6, (0, 1)),
        ("b:heads", 3, (1,)),
    ]


def test_a_plan_of_a_recovered_model_goes_with_the_one_before(digits: dict[str, Path], tmp_path: Path) -> None:
    path = digits["resnet"]
    data = load_data(str(path.with_name("digits_calibration.npz")), ports_of(open_model(path)), samples=32)
    first = compress(path, criterion="l1", ratio=0.3, data=data)
    first.save(tmp_path / "first.onnx")
    then = compress(tmp_path / "first.onnx", criterion="l1", ratio=0.3, recover="none")
    assert {removal.group for removal in then.plan.removals} <= {group.id for group in inspect(path).groups}
    together = compose(first.plan, then.plan)
    assert apply(path, together).report.after.macs == then.report.after.macs


def test_composed_plans_give_the_model_of_both(digits: dict[str, Path], tmp_path: Path) -> None:
    first = compress(digits["resnet"], ratio=0.3, recover="none")
    first.save(tmp_path / "first.onnx")
    then = compress(tmp_path / "first.onnx", ratio=0.3, recover="none")
    then.save(tmp_path / "both.onnx")
    together = apply(digits["resnet"], compose(first.plan, then.plan))
    assert together.report.after == then.report.after
    assert [g.kept for g in together.report.groups] == [g.kept for g in then.report.groups]


def test_plans_in_the_wrong_order_are_refused(digits: dict[str, Path], tmp_path: Path) -> None:
    first = compress(digits["resnet"], ratio=0.3, recover="none")
    first.save(tmp_path / "first.onnx")
    then = compress(tmp_path / "first.onnx", ratio=0.5, recover="none")
    with pytest.raises(PlanError, match="the first leaves"):
        compose(then.plan, first.plan)


def test_a_plan_fits_a_model_that_was_trained_again(build: Build) -> None:
    """The same graph with other weights under other names; not one of another structure."""
    graph = """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] {0}1, float[8, {1}] {0}2, float[{1}, 3] {0}3>
        {{ h = MatMul(x, {0}1)  r = Relu(h)  k = MatMul(r, {0}2)  s = Relu(k)  y = MatMul(s, {0}3) }}
    """
    old, new, other = (build(graph.format(*names), name=names[0]) for names in (("w", 6), ("v", 6), ("u", 7)))
    plan = Plan.from_json(compress(old, ratio=0.5, scope="uniform", recover="none").plan.to_json())
    result = apply(new, plan)
    assert [(group.id, group.kept) for group in result.report.groups] == [("v1", 4), ("v2", 3)]
    with pytest.raises(PlanError, match="which this model does not have"):
        apply(other, plan)
