"""Curves of recipes: each point is what `compress` makes of the recipe at that strength, and is measured once."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.errors import MissingExtraError
from onnxprune.pipeline.recipe import Recipe
from onnxprune.pipeline.search import curves as module
from onnxprune.report import raster
from onnxprune.report.curve import _COLOURS, _series, check_picture, curve_picture
from onnxprune.report.scatter import HEIGHT, WIDTH, Circle, drawing
from onnxprune.steps.prune.step import Prune
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.repeat import Repeat
from onnxprune.steps.sparsify.step import Sparsify
from onnxprune.steps.train.step import Train

ARGS = ("curve", "model.onnx", "--data", "samples.npz", "--strengths", "0.25,0.6", "--recipe", "a.toml")
RECIPE = '[[step]]\nstep = "prune"\ntarget = "macs=0.9"\nscope = "uniform"\ncriterion = "l1"\n'


def cli(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_a_point_is_what_compress_makes(here: Path) -> None:
    Path("a.toml").write_text(RECIPE)
    result = cli(*ARGS, "--recipe", "lossless", "--json", "--plot", "curve.svg", "--report", "curve.html")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    first, lossless = document["recipes"]
    assert [point["strength"] for point in first["points"]] == [0.25, 0.6]
    assert [point["strength"] for point in lossless["points"]] == [None]
    assert lossless["points"][0]["values"]["agreement"] == 1.0
    Path("b.toml").write_text(RECIPE.replace('target = "macs=0.9"', "ratio = 0.6"))
    made = cli("compress", "model.onnx", "b.onnx", "--recipe", "b.toml", "--data", "samples.npz", "--json")
    after = json.loads(made.stdout)
    values = first["points"][1]["values"]
    assert values["macs"] == pytest.approx(after["after"]["macs"] / after["before"]["macs"])
    assert values["sparsity"] == pytest.approx(1 - after["after"]["parameters"] / after["before"]["parameters"])
    scores = {score["metric"]: score["after"] for score in after["quality"]["scores"]}
    assert values["agreement"] == pytest.approx(scores["agreement"])
    assert Path("curve.svg").read_text().count("<circle") == 3
    assert ">lossless</text>" in Path("curve.svg").read_text()
    assert "agreement against macs" in Path("curve.html").read_text()


def test_points_are_measured_once_also_after_an_interruption(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.toml").write_text(RECIPE)
    made: list[Any] = []
    plain = module.make

    def counted(*args: Any) -> Any:
        made.append(args)
        if len(made) == 2:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(module, "make", counted)
    result = cli(*ARGS)
    assert (result.exit_code, "are kept" in result.stderr) == (130, True)
    assert cli(*ARGS).exit_code == 0
    assert len(made) == 3
    assert cli(*ARGS, "--recipe", "lossless").exit_code == 0
    assert len(made) == 4
    assert cli(*ARGS, "--seed", "1").exit_code == 0
    assert len(made) == 6


def test_the_strength_reaches_every_step_that_has_one() -> None:
    recipe = Recipe((Repeat(2, steps=(Prune(target=("macs=0.5",)), Recover())), Prune(lossless=True)))  # type: ignore[arg-type]
    strong = list(module.at_strength(recipe, 0.4).every())
    assert strong[1] == Prune(ratio=0.4)
    assert strong[3] == Prune(lossless=True)


def test_the_strength_is_the_sparsity_of_weights_too(here: Path) -> None:
    """In the step that makes zeros, and in training methods that state a share of them; others stay as they are."""
    (sparse,) = module.at_strength(Recipe((Sparsify(sparsity=0.8, pattern="1x4"),)), 0.4).steps
    assert sparse == Sparsify(sparsity=0.4, pattern="1x4")
    pytest.importorskip("torch", reason="training methods need it")
    methods = ("rigl:0.8,first=random", "soft-filters:0.2", "variational-dropout:strength=0.1")
    (trained,) = module.at_strength(Recipe((Train(training_method=methods),)), 0.4).steps
    from onnxprune.steps.train.method import chosen_methods

    rigl, filters, _ = chosen_methods(trained.training_method, [])  # type: ignore[attr-defined]
    assert (rigl.sparsity, rigl.first, filters.ratio) == (0.4, "random", 0.4)  # type: ignore[attr-defined]
    assert trained.training_method[2] == methods[2]  # type: ignore[attr-defined]
    Path("s.toml").write_text('[[step]]\nstep = "sparsify"\nweight_criterion = "magnitude"\nupdate = "none"\n')
    arguments = [each if each != "a.toml" else "s.toml" for each in ARGS]
    result = cli(*arguments, "--against", "sparsity", "--json")
    assert result.exit_code == 0, result.stderr
    points = json.loads(result.stdout)["recipes"][0]["points"]
    assert [point["strength"] for point in points] == [0.25, 0.6]
    zeros = [point["values"]["sparsity"] for point in points]
    assert zeros == pytest.approx([0.25, 0.6], abs=0.05)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("curve", "model.onnx"), "needs data"),
        ((*ARGS, "--against", "speed"), "unknown objective 'speed'"),
        ((*ARGS, "--strengths", "0.5,2"), "between 0 and 1"),
        ((*ARGS, "--plot", "curve.pdf"), "is drawn as .svg or .png"),
        ((*ARGS, "--recipe", "a.toml"), "two recipes are called a"),
        ((*ARGS, "--recipe", "nowhere.toml"), "cannot read the recipe"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(here: Path, args: tuple[str, ...], said: str) -> None:
    Path("a.toml").write_text(RECIPE)
    result = cli(*args)
    assert result.exit_code in (1, 2)
    assert said in result.stderr


def test_png_shows_every_point_in_the_colour_of_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    image_of = pytest.importorskip("PIL.Image", reason="Pillow draws it").open
    points = [
        [{"strength": at, "values": {"macs": 1 - at, "top-1": 1 - at * falls}, "error": None} for at in (0.2, 0.5, 0.8)]
        for falls in (0.1, 0.9)
    ]
    recipes = [{"name": name, "points": each} for name, each in zip(("gentle", "harsh"), points, strict=True)]
    document = {"recipes": recipes, "metric": "top-1", "against": ["macs"]}
    image = image_of(io.BytesIO(curve_picture(document, Path("curve.png")))).convert("RGB")
    assert image.size == (2 * WIDTH, 2 * HEIGHT)
    circles = [shape for shape in drawing(_series(document, "macs"), ("macs", "top-1")) if isinstance(shape, Circle)]
    assert len(circles) == 6
    for shape in circles:
        colour = int(_COLOURS[int(shape.kind[-1])][1:], 16).to_bytes(3)
        assert image.getpixel((round(2 * shape.x), round(2 * shape.y))) == tuple(colour)
    monkeypatch.setattr(raster, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"onnxprune\[data\]"):
        check_picture(Path("curve.png"))
