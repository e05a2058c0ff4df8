"""`onnxprune score` and `onnxprune list criteria`: what they print and write, and what they refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.pipeline.scores import score
from onnxprune.runtime.providers import available
from onnxprune.steps.prune.criteria.base import criteria


@pytest.fixture
def model(digits: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the residual network in a folder of its own."""
    copy = tmp_path / "model.onnx"
    copy.write_bytes(digits["resnet"].read_bytes())
    return copy


@pytest.fixture
def samples(digits: dict[str, Path], tmp_path: Path) -> Path:
    """Some of the digits with their labels, under the name of the model's input."""
    stored = np.load(digits["resnet"].parent / "digits_calibration.npz")
    path = tmp_path / "samples.npz"
    np.savez(path, input=stored["input"][:40], digit=stored["labels"][:40])
    return path


def run(*args: object) -> Result:
    """A run that must end well."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result


def refused(*args: object) -> str:
    """What is said about a run that must be refused as wrong usage."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


def test_table_has_a_line_per_group(model: Path) -> None:
    text = run("score", model, "--criterion", "l2").stdout
    for group, values in score(model, "l2").items():
        (line,) = [line for line in text.splitlines() if line.startswith(group)]
        assert line.split()[2:6] == [str(len(values)), *(f"{f(values):.4g}" for f in (np.min, np.median, np.max))]
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_json_holds_every_score(model: Path) -> None:
    found = json.loads(run("score", model, "--criterion", "lamp*2+random", "--seed", 5, "--json").stdout)
    expected = score(model, "lamp*2+random", seed=5)
    assert {group["id"]: group["scores"] for group in found["groups"]} == {k: v.tolist() for k, v in expected.items()}
    assert (found["criterion"], found["seed"], found["data"]) == ("lamp*2+random", 5, None)


@pytest.mark.parametrize("name", ["scores.json", "scores.csv"])
def test_file_holds_what_standard_output_does(model: Path, name: str) -> None:
    output = model.with_name(name)
    printed = run("score", model, "-o", output, f"--{output.suffix[1:]}").stdout
    assert output.read_text() == printed
    assert f"wrote {output}" in run("score", model, "-o", output).stdout


def test_csv(model: Path) -> None:
    rows = list(csv.DictReader(run("score", model, "--csv").stdout.splitlines()))
    for group, values in score(model, "group-l2").items():
        assert [float(row["score"]) for row in rows if row["group"] == group] == values.tolist()


def test_plot_and_scores_twice_the_same(model: Path) -> None:
    written = []
    for turn in "ab":
        paths = [model.with_name(f"{turn}.{suffix}") for suffix in ("svg", "csv")]
        assert run("score", model, "--plot", paths[0], "-o", paths[1], "-q").output == ""
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"<svg ")


def test_only_and_skip(model: Path) -> None:
    found = json.loads(run("score", model, "--only", "stages.0*", "--skip", "*bn2*", "--json").stdout)
    chosen = [group["id"] for group in found["groups"]]
    assert chosen
    assert chosen == list(score(model, only=["stages.0*"], skip=["*bn2*"]))
    assert run("score", model, "--skip", "*").stdout.startswith("no group can be scored")


def test_data_reaches_the_criterion(model: Path, samples: Path) -> None:
    name = next(name for name in criteria.names() if criteria[name].needs == ("activations",))
    options = ("--criterion", name, "--data", samples, "--json")
    few, all_, again = (json.loads(run("score", model, *options, *more).stdout) for more in (("--samples", 8), (), ()))
    assert all_ == again
    assert all_["data"] == str(samples)
    assert [group["scores"] for group in few["groups"]] != [group["scores"] for group in all_["groups"]]


def test_synthetic_data_will_do(model: Path) -> None:
    name = next(name for name in criteria.names() if criteria[name].needs == ("activations",))
    found = json.loads(
        run("score", model, "--criterion", name, "--data", "synthetic", "--samples", 16, "--json").stdout
    )
    assert all(np.isfinite(group["scores"]).all() for group in found["groups"])


def test_provider_that_is_missing_falls_back_with_a_word(model: Path, samples: Path) -> None:
    if "CUDAExecutionProvider" in available():
        pytest.skip("CUDA is not missing here")
    options = ("--criterion", "activation-mean", "--data", samples, "--json")
    plain, asked = run("score", model, *options), run("score", model, *options, "--providers", "cuda,cpu")
    assert plain.stdout == asked.stdout
    assert plain.stderr == ""
    assert asked.stderr.startswith("note: CUDAExecutionProvider is not part of this ONNX Runtime")


def test_loss_reaches_the_criterion(model: Path, samples: Path) -> None:
    pytest.importorskip("torch")
    options = ("--criterion", "taylor1", "--data", samples, "--labels", "digit", "--json")
    found = [
        run("score", model, *options, *more).stdout for more in ((), ("--loss", "cross-entropy"), ("--loss", "sampled"))
    ]
    assert found[0] == found[1] != found[2]
    assert "unknown loss 'hinge'" in refused("score", model, *options, "--loss", "hinge")


def test_unknown_provider(model: Path, samples: Path) -> None:
    options = ("--criterion", "activation-mean", "--data", samples, "--providers", "cpux")
    assert "unknown execution provider 'cpux'; did you mean 'cpu'" in refused("score", model, *options)


NEEDY = [name for name in criteria.names() if criteria[name].needs_data]


@pytest.mark.parametrize("name", [*NEEDY, f"l1+{NEEDY[0]}*2"])
def test_criterion_that_needs_data_says_so_at_once(name: str) -> None:
    said = refused("score", "does-not-exist.onnx", "--criterion", name)
    assert f"criterion '{name}' needs " in said
    assert "give --data (an .npz, a folder, or synthetic)" in said


@pytest.mark.parametrize("name", [name for name in criteria.names() if "labels" in criteria[name].needs])
def test_criterion_that_needs_labels_says_so(model: Path, samples: Path, name: str) -> None:
    assert "needs labels" in refused("score", model, "--criterion", name, "--data", samples)
    run("score", model, "--criterion", name, "--data", samples, "--labels", "digit")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--criterion", "l9"), "unknown criterion 'l9'"),
        (("--criterion", "l1*x"), "expected a number at position 4"),
        (("-o", "scores.txt"), "scores are written as .csv or .json, not '.txt'"),
        (("--plot", "scores.png"), "the plot is written as .svg, not '.png'"),
        (("--csv", "--json"), "--csv and --json both want standard output"),
        (("--only", "nothing*"), "nothing in this model matches 'nothing*'"),
        (("--labels", "y"), "--labels says how to read --data"),
        (("--plot", "/no/such/folder/a.svg"), "the folder /no/such/folder does not exist"),
    ],
)
def test_wrong_usage(model: Path, options: tuple[str, ...], says: str) -> None:
    before = sorted(model.parent.iterdir())
    assert says in refused("score", model, *options)
    assert sorted(model.parent.iterdir()) == before


def test_model_itself_is_no_target(model: Path) -> None:
    target = model.rename(model.with_name("model.csv"))
    before = target.read_bytes()
    assert "never modified" in refused("score", target, "-o", target)
    assert target.read_bytes() == before


def listed() -> list[dict[str, Any]]:
    return list(json.loads(run("list", "criteria", "--json").stdout)["members"])


def test_criteria_lists_all_with_what_they_need_cost_and_come_from() -> None:
    assert [each["name"] for each in listed()] == criteria.names()
    text = " ".join(run("list", "criteria").stdout.split())
    for each in listed():
        assert each["cost"]
        assert each["source"]
        assert f"cost: {' '.join(each['cost'].split())}" in text
        assert each["name"] in text
