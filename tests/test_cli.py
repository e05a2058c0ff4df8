"""The command line: what it prints and writes, where, and that it does so twice the same."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Any

import click
import networkx as nx
import onnx
import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from tests.conftest import Build, modules_after
from tests.pipeline.test_api import HEAVY

COMMANDS = main.list_commands(click.Context(main))


def run(*args: object) -> Result:
    """A run that must end well."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result


def document(*args: object) -> dict[str, Any]:
    """The JSON that a run prints, and nothing else."""
    result = run(*args, "--json")
    assert all("warning: the model fell apart" in line for line in result.stderr.splitlines())
    return dict(json.loads(result.stdout))


@pytest.fixture
def model(digits: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the residual network in a folder of its own."""
    copy = tmp_path / "model.onnx"
    copy.write_bytes(digits["resnet"].read_bytes())
    return copy


# -- help


@pytest.mark.parametrize(
    "command", [[], *([name] for name in COMMANDS)], ids=lambda command: "-".join(command) or "main"
)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_an_example(command: list[str], option: str) -> None:
    name = command[0] if command else "compress"
    # Whoever lists the options first, in any context, decides for a process which help options a command has.
    options = main.get_command(click.Context(main), name).get_params(click.Context(click.Command(name)))
    text = run(*command, option).stdout
    example = text.partition("Example:\n")[2]
    takes_model = any(each.name == "model" for each in options)
    assert f"onnxprune {name}{' model.onnx' if takes_model else ''}" in example


def test_commands() -> None:
    assert {"apply", "compress", "inspect"} <= set(COMMANDS)


def test_version() -> None:
    lines = [line.split(" ") for line in run("--version").stdout.splitlines()]
    assert lines[0][0] == "onnxprune"
    found = dict(lines)
    assert {"onnx", "onnxruntime", "numpy", "python"} <= set(found)
    assert all(re.match(r"\d+\.\d+", version) for version in found.values())
    assert found["python"] == platform.python_version()


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["compress", "--help"],
        ["compres"],
        ["compress", "--x", "--recover", "none", "--ratio", "0.5"],
    ],
)
def test_help_is_instant(args: list[str]) -> None:
    code = f"from onnxprune.cli import main\ntry: main({args!r})\nexcept SystemExit: pass"
    assert not modules_after(code) & set(HEAVY)


# -- compress


def test_compress_writes_beside_the_model_and_says_so(model: Path) -> None:
    out = run("compress", model, "--recover", "none", "--ratio", "0.5").stdout
    written = model.with_name("model.pruned.onnx")
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.onnx", "model.pruned.onnx"]
    assert f"wrote {written}" in out
    assert f"{written.stat().st_size:,}" in out
    for row in ("parameters", "MACs", "file bytes", "nodes", "channels"):
        assert row in out
    assert "estimated" not in out


def test_compress_to_another_place(model: Path, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    run("compress", model, "--recover", "none", "--ratio", "0.5", "-o", tmp_path / "else" / "small.onnx")
    assert [path.name for path in (tmp_path / "else").iterdir()] == ["small.onnx"]
    assert not model.with_name("model.pruned.onnx").exists()


def test_verbose_lists_every_group_and_quiet_nothing(model: Path) -> None:
    groups = document("compress", model, "--recover", "none", "--ratio", "0.5")["groups"]
    verbose = run("compress", model, "--recover", "none", "--ratio", "0.5", "-v").stdout
    for group in groups:
        assert re.search(rf"{re.escape(group['id'])} +{group['kind']} +{group['units']} +{group['kept']} ", verbose)
    quiet = run("compress", model, "--recover", "none", "--ratio", "0.5", "-q")
    assert quiet.stdout == ""


def test_dry_run_writes_nothing_and_says_that_bytes_are_estimated(model: Path) -> None:
    out = run("compress", model, "--recover", "none", "--ratio", "0.5", "--dry-run").stdout
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]
    assert "estimated" in out
    assert "dry run" in out
    dry, wet = (
        document("compress", model, "--recover", "none", "--ratio", "0.5", "--dry-run"),
        document("compress", model, "--recover", "none", "--ratio", "0.5"),
    )
    assert (dry["output"], dry["file_bytes_estimated"], wet["file_bytes_estimated"]) == (None, True, False)
    assert dry["after"]["file_bytes"] == pytest.approx(wet["after"]["file_bytes"], rel=0.02)
    assert dry["after"]["parameters"] == wet["after"]["parameters"]


def test_options_reach_the_pipeline(model: Path) -> None:
    chosen = document(
        "compress",
        model,
        "--recover",
        "none",
        "--only",
        "stages.0*",
        "--skip",
        "stages.0.bn2*",
        "--ratio",
        "0.25",
        "--dry-run",
    )
    assert chosen["recipe"]["step"][0]["only"] == ["stages.0*"]
    assert {(g["units"], g["kept"]) for g in chosen["groups"]} == {(16, 12), (16, 16), (32, 32), (64, 64)}
    assert sum(g["kept"] < g["units"] for g in chosen["groups"]) == 1
    rounded = document("compress", model, "--recover", "none", "--ratio", "0.3", "--round-to", "8", "--dry-run")
    assert all(group["kept"] % 8 == 0 for group in rounded["groups"])
    uneven = document(
        "compress", model, "--recover", "none", "--ratio", "0.5", "--scope", "global", "--criterion", "l2", "--dry-run"
    )
    assert len({group["kept"] / group["units"] for group in uneven["groups"]}) > 1


def test_note_when_the_ratio_is_too_small_to_remove_anything(model: Path) -> None:
    assert "nothing was removed" in run("compress", model, "--recover", "none", "--ratio", "0.001").stdout


# Without a ratio the cuts that are tried decide how much goes, which takes as long as a few runs.
DEFAULT: list[str] = []
HALF = ["--ratio", "0.5"]
AT_RANDOM = [*HALF, "--criterion", "random", "--seed", "3", "--recover", "none"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("lstm", DEFAULT), ("resnet", HALF), ("transformer", HALF)),
        *((name, AT_RANDOM) for name in ("resnet", "transformer", "lstm")),
    ],
    ids=["default-lstm", "half-resnet", "half-transformer", "random-resnet", "random-transformer", "random-lstm"],
)
def test_twice_the_same(
    digits: dict[str, Path], tmp_path: Path, name: str, options: list[str], quick_inputs: None
) -> None:
    output = tmp_path / "out.onnx"
    runs = []
    for _ in range(2):
        text = run("compress", digits[name], "-o", output, "--json", *options).stdout
        runs.append((output.read_bytes(), text))
    assert runs[0] == runs[1]


def test_seed_changes_what_is_removed_at_random(model: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        run(
            "compress",
            model,
            "--recover",
            "none",
            "--ratio",
            "0.5",
            "--criterion",
            "random",
            "--seed",
            seed,
            "--plan",
            tmp_path / f"{seed}.json",
            "--dry-run",
        )
    assert (tmp_path / "1.json").read_text() != (tmp_path / "2.json").read_text()


def test_names_that_look_like_markup_are_printed_as_they_are(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w, float[8, 3] v> { h = MatMul(x, w)  y = MatMul(h, v) }
    """)
    proto = onnx.load(path)
    proto.graph.initializer[0].name = proto.graph.node[0].input[1] = "[bold]:smile:"
    onnx.save(proto, path)
    assert "[bold]:smile: " in run("compress", path, "--recover", "none", "--ratio", "0.5", "-v").stdout
    assert "[bold]:smile:[1]" in run("inspect", path).stdout


# -- apply


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
@pytest.mark.parametrize(
    "options",
    [
        ["--ratio", "0.5", "--recover", "none"],
        ["--ratio", "0.5", "--recover", "none", "--scope", "global", "--round-to", "4"],
        ["--keep-metadata", "--ratio", "0", "--recover", "none"],
    ],
)
def test_apply_repeats_compress_byte_for_byte(
    digits: dict[str, Path], tmp_path: Path, name: str, options: list[str]
) -> None:
    first, second, plan = tmp_path / "first.onnx", tmp_path / "second.onnx", tmp_path / "plan.json"
    done = document("compress", digits[name], "-o", first, "--plan", plan, *options)
    keep = [option for option in options if option == "--keep-metadata"]
    again = document("apply", digits[name], plan, "-o", second, *keep)
    assert first.read_bytes() == second.read_bytes()
    # A plan does not hold scores, nor why sizes were chosen.
    assert {**done, "output": None, "scores": [], "notes": again["notes"]} == {**again, "output": None}


def test_apply_prints_the_same_tables(model: Path, tmp_path: Path) -> None:
    options = ("--recover", "none", "--ratio", "0.5", "--round-to", "1", "--plan", tmp_path / "plan.json")
    first = run("compress", model, *options).stdout
    assert run("apply", model, tmp_path / "plan.json").stdout == first


# -- metadata


@pytest.fixture
def annotated(model: Path) -> Path:
    proto = onnx.load(model)
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value='File "/home/ann/net.py", line 7')
    onnx.save(proto, model)
    return model


def test_inspect_mentions_metadata_and_compress_drops_it(annotated: Path) -> None:
    out = run("inspect", annotated).stdout
    assert "1 node or value carries metadata of the exporter, with paths of files on its author's machine" in out
    assert "--keep-metadata" in out
    assert document("inspect", annotated)["metadata"] == {"items": 1, "local_paths": True}
    output = annotated.with_name("model.pruned.onnx")
    run("compress", annotated, "--recover", "none", "--ratio", "0.5")
    assert b"/home/ann" not in output.read_bytes()
    assert "metadata of the exporter" not in run("inspect", output).stdout
    run("compress", annotated, "--recover", "none", "--ratio", "0.5", "--keep-metadata")
    assert b"/home/ann" in output.read_bytes()


# -- inspect


def test_inspect_shows_groups_and_reasons(digits: dict[str, Path]) -> None:
    out = run("inspect", digits["transformer"]).stdout
    found = document("inspect", digits["transformer"])
    assert {group["kind"] for group in found["groups"]} == {"hidden", "heads", "head-dim", "neurons"}
    for group in found["groups"]:
        assert re.search(rf"{re.escape(group['id'])} +{group['kind']}( \*)? +{group['units']} ", out)
        assert group["parameters"] > 0
        assert group["macs"] > 0
        assert len(group["occurrences"]) > 1
    assert [group["kind"] for group in found["groups"] if group["statistics"]] == ["hidden"]
    assert "* a normalization takes statistics" in out
    assert found["dynamic_axes"] == ["batch"]
    assert found["inputs"] == [{"name": "input", "type": "float", "shape": ["batch", 1, 8, 8]}]
    assert found["outputs"] == [{"name": "logits", "type": "float", "shape": ["batch", 10]}]
    assert "output 'logits' of the model keeps its shape" in out


@pytest.mark.parametrize("option", ["--frozen", "-v"])
def test_inspect_lists_every_frozen_axis_on_request(digits: dict[str, Path], option: str) -> None:
    out = run("inspect", digits["transformer"], option).stdout
    for axis in document("inspect", digits["transformer"])["frozen"]:
        assert f"{axis['tensor']}[{axis['axis']}]" in out


def test_inspect_counts_operators_without_a_rule(build: Build) -> None:
    path = build(
        """
        net (float[batch, 5] x) => (float[batch, 8] y)
        <float[5, 8] w> { h = MatMul(x, w)  k = acme.Secret(h)  y = acme.Secret(k) }
        """,
        opsets={"acme": 1},
    )
    assert document("inspect", path)["unruled"] == {"acme.Secret": 2}
    out = run("inspect", path).stdout
    assert "operators without a rule, whose dimensions keep their size: acme.Secret (2)" in out
    assert "no group can be pruned" in out


@pytest.mark.parametrize("suffix", [".graphml", ".json"])
def test_graph_file_has_dimensions_on_every_edge(digits: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"graph{suffix}"
    run("inspect", digits["transformer"], "--graph", file)
    if suffix == ".json":
        graph = nx.node_link_graph(json.loads(file.read_text()), edges="edges")
    else:
        graph = nx.read_graphml(file)
    kinds = [kind for _, kind in graph.nodes(data="kind")]
    assert kinds.count("input") == kinds.count("output") == 1
    assert kinds.count("operator") == document("inspect", digits["transformer"])["cost"]["nodes"]
    assert all(re.fullmatch(r"\[.*\]", dims) for _, _, dims in graph.edges(data="dims"))
    assert any("patches:64" in dims for _, _, dims in graph.edges(data="dims"))
    first = file.read_bytes()
    run("inspect", digits["transformer"], "--graph", file)
    assert file.read_bytes() == first
