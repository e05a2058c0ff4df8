"""Searches from end to end: the front and its files, the same for a seed, resumed, limited, refused, interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.errors import TargetError, UsageError
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.search.pareto import front
from onnxprune.pipeline.search.worker import STRENGTHS, Worker
from tests.search.conftest import searched, values

pytest.importorskip("optuna", reason="the extra `search` is not installed")
DATA = ("--data", "samples.npz")


def cli(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_the_front_has_a_file_and_a_recipe_for_each_point(here: Path) -> None:
    found = searched()
    assert len(found.candidates) == 9
    assert len(repr(found).splitlines()) < 10
    assert found._repr_html_().count("<tr>") == len(found.front) + 1
    all_values = values(found)
    assert [each.number for each in found.front] == [found.candidates[at].number for at in front(all_values)]
    names = {path.name for path in Path("model.search").iterdir()} - {"shared", "study.db"}
    points = [f"model.{each.number:03d}" for each in found.front]
    assert names == {f"{name}{end}" for name in points for end in (".onnx", ".recipe.toml")}
    for each in found.front:
        recipe = str(each.file).replace(".onnx", ".recipe.toml")
        assert cli("compress", "model.onnx", "again.onnx", "--recipe", recipe, *DATA, "-q").exit_code == 0
        assert Path("again.onnx").read_bytes() == each.file.read_bytes()


def test_it_begins_with_the_tools_own_allocation_at_several_strengths(here: Path) -> None:
    found = searched(trials=STRENGTHS)
    prunes = [each.recipe["step"][0] for each in found.candidates]
    assert [prune.get("ratio", 0.5) for prune in prunes] == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert all(prune["tilt"] == [0.0, 0.0] for prune in prunes)
    macs = [row[0] for row in values(found)]
    assert macs == sorted(macs, reverse=True)


def test_the_same_seed_gives_the_same_trials_also_when_resumed(here: Path) -> None:
    whole = values(searched(folder="whole", trials=9, seed=3))
    searched(folder="parts", trials=7, seed=3)
    assert values(searched(folder="parts", trials=9, seed=3)) == whole
    other = values(searched(folder="other", trials=9, seed=4))
    assert other[:STRENGTHS] == whole[:STRENGTHS]
    assert other != whole


def test_limits_hold_for_the_front_and_end_trials_early(here: Path) -> None:
    found = searched(require=["macs<=0.5", "agreement>=0.4"], trials=8)
    assert found.pruned > 0
    for each in found.front:
        assert each.measured["macs"].value <= 0.5
        assert each.measured["agreement"].value >= 0.4


def test_one_objective_and_a_metric_that_is_to_grow(here: Path) -> None:
    found = searched(minimize=[], maximize=["agreement"], trials=7)
    assert len(found.front) == 1
    assert found.front[0].measured["agreement"].value == max(row[0] for row in values(found))


def test_candidates_that_come_out_the_same_are_measured_once(here: Path) -> None:
    Path("space.toml").write_text("ratio = { low = 0.5, high = 0.501 }\n")
    found = searched(trials=5)
    assert len({tuple(row) for row in values(found)}) == 1
    assert len(found.front) == 1
    assert sum(each.seconds for each in found.candidates[1:]) < found.candidates[0].seconds * 2


def test_another_model_other_samples_or_options_are_refused(here: Path) -> None:
    searched(trials=2)
    with pytest.raises(UsageError, match="another objectives"):
        searched(minimize=["params", "drop"])
    with pytest.raises(UsageError, match="another settings"):
        searched(seed=5)
    Path("space.toml").write_text("ratio = { low = 0.2, high = 0.4 }\n")
    with pytest.raises(UsageError, match="another space"):
        searched()
    x = np.ones((96, 12), np.float32)
    np.savez("samples.npz", x=x, labels=np.zeros(96, np.int64))
    with pytest.raises(UsageError, match="samples that are fitted differ"):
        _rejoined()
    Path("model.onnx").write_bytes(Path("model.search", _first_file()).read_bytes())
    with pytest.raises(UsageError, match="the model differs"):
        _rejoined()


def _first_file() -> str:
    return next(path.name for path in Path("model.search").iterdir() if path.suffix == ".onnx")


def _rejoined() -> Any:
    from onnxprune.pipeline.search.run import search

    return search(Path("model.onnx"), data="samples.npz", trials=9)


def test_a_space_that_always_fails_ends_in_one_line(here: Path) -> None:
    Path("space.toml").write_text('ratio = { low = 0.1, high = 0.5 }\nonly = ["nothing*"]\n')
    with pytest.raises(TargetError, match=r"every trial failed; the first: .*nothing\*"):
        searched(trials=3)


def test_an_interruption_keeps_what_there_is_and_the_trial_is_taken_up_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[dict[str, Any]] = []
    plain = Worker._tried

    def interrupted(self: Worker, trial: Any, given: dict[str, Any]) -> Any:
        tried.append(dict(given))
        if len(tried) == 8:
            raise KeyboardInterrupt
        return plain(self, trial, given)

    monkeypatch.setattr(Worker, "_tried", interrupted)
    found = searched(trials=12)
    assert (found.interrupted, len(found.candidates)) == (True, 7)
    assert all(each.file.exists() for each in found.front)
    again = searched(trials=9)
    assert len(again.candidates) == 9
    assert tried[8] == tried[7]


def test_the_command_prints_the_front_and_picks_a_point(here: Path) -> None:
    result = cli(
        "search", "model.onnx", *DATA, "--space", "space.toml", "--trials", "7", "--json", "--report", "r.html"
    )
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["kind"] == "search"
    best = document["front"][-1]
    assert f"trial-{best['trial']}" in Path("r.html").read_text()
    assert "onnxprune compress model.onnx small.onnx --recipe" in best["command"]
    limit = max(point["values"]["drop"] for point in document["front"][1:])
    result = cli("search", "model.onnx", "--pick", f"drop<={limit + 1e-9}", "-o", "one.onnx", "--json")
    assert result.exit_code == 0, result.stderr
    picked = json.loads(result.stdout)["picked"]
    within = [point for point in document["front"] if point["values"]["drop"] <= limit + 1e-9]
    assert picked["trial"] == min(within, key=lambda point: point["values"]["macs"])["trial"]
    assert Path("one.onnx").read_bytes() == Path(within[0]["file"]).read_bytes()
    assert Recipe.read("one.recipe.toml")
    result = cli("search", "model.onnx", "--pick", "macs<=0.0001")
    assert (result.exit_code, "no point of the front" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["model.onnx"], "needs samples"),
        (["model.onnx", *DATA, "--minimize", "speed"], "unknown objective 'speed'"),
        (["model.onnx", *DATA, "--sampler", "tpee"], "did you mean 'tpe'"),
        (["model.onnx", *DATA, "--require", "macs"], "is not a limit"),
        (["model.onnx", *DATA, "--maximize", "accuracy", "--minimize", "macs"], "needs labels"),
        (["model.onnx", "--pick", "macs<=0.5"], "search first"),
        ([], "--storage URL --study NAME"),
        (["--storage", "x.db", "--study", "none"], "there is no study 'none'"),
        (["model.onnx", *DATA, "--storage", "nosuch://x"], "cannot be opened"),
    ],
)
def test_what_cannot_be_done_is_one_line(here: Path, args: list[str], said: str) -> None:
    result = cli("search", *args)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_without_optuna_the_extra_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pipeline.search.storage.find_spec", lambda name: None)
    result = cli("search", "model.onnx", *DATA)
    assert (result.exit_code, "onnxprune[search]" in result.stderr) == (1, True)
