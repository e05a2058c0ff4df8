"""The registry: names to entries, with a guard against duplicates and help for misspelt names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from onnxprune.errors import OnnxpruneError, UsageError
from onnxprune.steps.prune.allocation.base import allocations
from onnxprune.steps.prune.criteria.base import criteria
from onnxprune.support import registry as registries
from onnxprune.support.messages import did_you_mean
from onnxprune.support.registry import Registry, summary
from tests.conftest import forgotten


@pytest.fixture
def spices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[str, int]]:
    """A family of its own: a package with one file that registers two entries."""
    package = tmp_path / "kitchen"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "jars.py").write_text("from kitchen import rack\nrack.register('pepper')(1)\nrack.register('salt')(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("kitchen", "kitchen.jars"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import kitchen

    kitchen.rack = Registry("spice", "kitchen", "kitchen.spices")
    with forgotten():
        yield kitchen.rack


def test_a_file_in_the_package_is_found_on_first_use(spices: Registry[str, int]) -> None:
    assert "kitchen.jars" not in sys.modules
    assert spices["salt"] == 2
    assert spices.names() == ["pepper", "salt"]


def test_name_that_is_taken_is_refused(spices: Registry[str, int]) -> None:
    spices.names()
    with pytest.raises(ValueError, match="spice 'salt' is registered twice"):
        spices.register("salt")(3)


def test_register_is_a_decorator_that_returns_its_function(spices: Registry[str, int]) -> None:
    assert spices.register("cumin")(7) == 7
    assert spices["cumin"] == 7


def test_unknown_name_suggests_the_nearest(spices: Registry[str, int]) -> None:
    with pytest.raises(UsageError, match=r"unknown spice 'peper'; did you mean 'pepper'\?"):
        spices["peper"]
    with pytest.raises(UsageError, match="unknown spice 'vanilla'; there are: pepper, salt"):
        spices["vanilla"]


def test_installed_plug_ins_are_loaded(
    spices: Registry[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "far_away.py").write_text("from kitchen import rack\nrack.register('saffron')(9)\n")
    plugin = EntryPoint(name="far", value="far_away", group="kitchen.spices")
    monkeypatch.setattr(registries, "entry_points", lambda group: [plugin] if group == "kitchen.spices" else [])
    assert spices["saffron"] == 9


def test_plug_in_that_fails_is_named_every_time(spices: Registry[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A family without one of its members must not be taken for the whole."""
    plugin = EntryPoint(name="far", value="nowhere", group="kitchen.spices")
    monkeypatch.setattr(registries, "entry_points", lambda group: [plugin])
    for _ in range(2):
        with pytest.raises(OnnxpruneError, match=r"'far' \(nowhere\) of kitchen.spices cannot be loaded: No module"):
            spices.names()


def test_file_may_look_into_the_registry_that_it_adds_to(spices: Registry[str, int], tmp_path: Path) -> None:
    (tmp_path / "kitchen" / "blends.py").write_text(
        "from kitchen import rack\nrack.register('both')(sum(map(rack.get, ('salt', 'pepper'))))\n"
    )
    assert spices["both"] == 3


def test_lookup_without_an_error(spices: Registry[str, int]) -> None:
    assert spices.get("salt") == 2
    assert spices.get("sand") is None
    assert "salt" in spices
    assert "sand" not in spices
    assert list(spices) == ["pepper", "salt"]


def test_several_names_for_one_member(spices: Registry[str, int]) -> None:
    spices.register("chili", "cayenne")(5)
    assert spices["chili"] == spices["cayenne"] == 5
    with pytest.raises(ValueError, match="spice 'chili' is registered twice"):
        spices.register("ginger", "chili")(6)


def test_operators_are_shown_with_their_domain() -> None:
    table: Registry[tuple[str, str], int] = Registry("rule", "onnxprune.support", "nothing.at.all")
    table.register(("", "Relu"), ("com.example", "Relu"))(1)
    with pytest.raises(ValueError, match=r"rule 'com\.example\.Relu' is registered twice"):
        table.register(("com.example", "Relu"))(2)
    with pytest.raises(UsageError, match=r"unknown rule 'Rulu'; did you mean 'Relu'\?"):
        table["", "Rulu"]


@dataclass
class _Tool:
    """A tool.

    More of it.
    """

    name: str
    summary: str
    weight: float
    uses: tuple[str, ...]
    works: object


def test_listing_has_the_plain_fields() -> None:
    tools: Registry[str, _Tool] = Registry("tool", "onnxprune.support", "nothing.at.all")
    tools.register("saw")(_Tool("saw", "Cuts.\nSlowly.", 1.5, ("wood",), print))
    assert tools.listing() == [{"name": "saw", "summary": "Cuts.", "weight": 1.5, "uses": ("wood",)}]
    assert summary(_Tool) == "A tool."


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("l3", ["l1", "l2", "random"], "; did you mean 'l2'?"),
        ("rnadom", ["l1", "l2", "random"], "; did you mean 'random'?"),
        ("taylor", ["l1", "l2"], "; there are: l1, l2"),
        ("bytes", ["labels"], "; there are: labels"),
    ],
)
def test_hint(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known) == hint


def test_built_in_families() -> None:
    assert {"l1", "l2", "random"} <= set(criteria.names())
    assert {"uniform", "global"} <= set(allocations.names())
