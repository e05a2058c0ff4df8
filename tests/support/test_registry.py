"""The registry: names to entries, with a guard against duplicates and help for misspelt names."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from onnxprune.errors import UsageError
from onnxprune.steps.prune.allocation.base import allocations
from onnxprune.steps.prune.criteria.base import criteria
from onnxprune.support import registry as registries
from onnxprune.support.messages import did_you_mean
from onnxprune.support.registry import Registry


@pytest.fixture
def spices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[int]:
    """A family of its own: a package with one file that registers two entries."""
    package = tmp_path / "kitchen"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "jars.py").write_text("from kitchen import rack\nrack.register('pepper')(1)\nrack.register('salt')(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("kitchen", "kitchen.jars"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import kitchen

    kitchen.rack = Registry("spice", "kitchen", "kitchen")
    return kitchen.rack


def test_a_file_in_the_package_is_found_on_first_use(spices: Registry[int]) -> None:
    assert "kitchen.jars" not in sys.modules
    assert spices["salt"] == 2
    assert spices.names() == ["pepper", "salt"]


def test_name_that_is_taken_is_refused(spices: Registry[int]) -> None:
    spices.names()
    with pytest.raises(ValueError, match="spice 'salt' is registered twice"):
        spices.register("salt")(3)


def test_register_is_a_decorator_that_returns_its_function(spices: Registry[int]) -> None:
    assert spices.register("cumin")(7) == 7
    assert spices["cumin"] == 7


def test_unknown_name_suggests_the_nearest(spices: Registry[int]) -> None:
    with pytest.raises(UsageError, match=r"unknown spice 'peper'; did you mean 'pepper'\?"):
        spices["peper"]
    with pytest.raises(UsageError, match="unknown spice 'vanilla'; there are: pepper, salt"):
        spices["vanilla"]


def test_installed_plug_ins_are_loaded(spices: Registry[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "far_away.py").write_text("from kitchen import rack\nrack.register('saffron')(9)\n")
    plugin = EntryPoint(name="far", value="far_away", group="kitchen")
    monkeypatch.setattr(registries, "entry_points", lambda group: [plugin] if group == "kitchen" else [])
    assert spices["saffron"] == 9


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("l3", ["l1", "l2", "random"], "; did you mean 'l2'?"),
        ("rnadom", ["l1", "l2", "random"], "; did you mean 'random'?"),
        ("taylor", ["l1", "l2"], "; there are: l1, l2"),
    ],
)
def test_hint(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known) == hint


def test_built_in_families() -> None:
    assert {"l1", "l2", "random"} <= set(criteria.names())
    assert {"uniform", "global"} <= set(allocations.names())


@pytest.mark.parametrize("family", [criteria, allocations], ids=["criteria", "allocations"])
def test_every_entry_says_what_it_does(family: Registry[object]) -> None:
    assert all((family[name].__doc__ or "").strip() for name in family.names())
