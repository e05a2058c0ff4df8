"""Custom operators: frozen, counted and named without a rule; pruned through with one from examples/plugin."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.analysis import cost
from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.model.file import save
from onnxprune.ops import base
from onnxprune.ops.base import Op, rule
from onnxprune.pipeline.run import compress, inspect
from onnxprune.steps.prune.criteria.base import criteria
from tests.conftest import ROOT, Build, forgotten
from tests.oracle import every_other_unit, judge

EXAMPLE = ROOT / "examples" / "plugin"
MODULE = "onnxprune_example_plugin"

# The operator lies between b and c; a is out of its reach.
NET = """
    net (float[batch, 4, 9] x) => (float[batch, 5, 9] y)
    <float[8, 4, 1] a, float[6, 8, 1] b, float[6] scale, float[5, 6, 1] c>
    { h = Conv(x, a)  r = Relu(h)  k = Conv(r, b)  s = com.example.ScaledRelu(k, scale)  y = Conv(s, c) }
"""
DOMAINS = {"com.example": 1}


@pytest.fixture
def tables() -> Iterator[None]:
    """What a test registers is forgotten again."""
    with forgotten(base.RULES, base.EVALUATORS, base.COSTS, base.SHAPES, criteria):
        yield


@pytest.fixture
def installed(tables: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as an installer leaves it: the module, and the entry point that its pyproject.toml declares."""
    site = tmp_path / "site"
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in entries.items()) for group, entries in groups]
    (info / "entry_points.txt").write_text("\n".join(lines))
    modules = [path.stem for path in EXAMPLE.glob("*.py")]
    for module in modules:
        shutil.copy(EXAMPLE / f"{module}.py", site)
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(site)
    yield
    for module in modules:
        sys.modules.pop(module, None)


def declared(model: onnx.ModelProto) -> None:
    """Write the shapes beside the values, as an exporter does."""
    for name, channels in (("k", 6), ("s", 6)):
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, ["batch", channels, 9]))


# -- without a rule


def test_unknown_operator_freezes_what_it_touches_and_nothing_else(build: Build) -> None:
    analysis = inspect(build(NET, opsets=DOMAINS))
    assert analysis.unruled == {"com.example.ScaledRelu": 1}
    assert [group.id for group in analysis.groups] == ["a"]
    reasons = {(each.tensor, each.axis): each.reason for each in analysis.frozen}
    assert str(reasons["b", 0]).startswith("no rule for this operator (ScaledRelu '")
    assert str(reasons["scale", 0]) == str(reasons["b", 0])


def test_what_lies_behind_it_is_pruned_where_the_file_declares_shapes(build: Build) -> None:
    net = NET.replace("y = Conv(s, c) }", "t = Conv(s, c)  y = Conv(t, d) }").replace("> \n", ">")
    net = net.replace("float[5, 6, 1] c", "float[7, 6, 1] c, float[5, 7, 1] d")
    plain, annotated = inspect(build(net, opsets=DOMAINS)), inspect(build(net, opsets=DOMAINS, edit=declared))
    assert [group.id for group in plain.groups] == ["a"]
    assert [group.id for group in annotated.groups] == ["a", "c"]
    assert annotated.shapes.dynamic >= {("s", 0), ("t", 0)}


def test_report_counts_and_names_it(build: Build) -> None:
    result = compress(build(NET, opsets=DOMAINS), ratio=0.5, round_to=1, unverified=True, recover="none")
    assert result.report.unruled == {"com.example.ScaledRelu": 1}
    assert [removal.group for removal in result.plan.removals] == ["a"]


# -- with the example


def test_documentation_shows_the_example_as_it_is() -> None:
    blocks = re.findall(r"```python\n(.*?)\n *```", (ROOT / "docs" / "plugins.md").read_text(), re.DOTALL)
    shown = [textwrap.dedent(block).strip().split("\n\n\n")[-1] for block in blocks]
    source = "".join(path.read_text() for path in EXAMPLE.glob("*.py"))
    assert len(shown) == 5
    assert all(block in source for block in shown[:4])
    model = str(ROOT / "models" / "digits_lstm.onnx")
    job = f"import onnxprune as op; print(op.compress({model!r}, scope='gentle').plan)"
    done = subprocess.run([sys.executable, "-c", f"{blocks[4]}\n{job}"], capture_output=True, text=True, check=False)
    assert "of 64 recurrent" in done.stdout, done.stderr


def test_example_is_found_through_its_entry_point(installed: None, build: Build) -> None:
    assert [entry.name for entry in entry_points(group="onnxprune.ops") if entry.value == MODULE] == ["example"]
    analysis = inspect(build(NET, opsets=DOMAINS))
    assert not analysis.unruled
    assert {group.id: group.units for group in analysis.groups} == {"a": 8, "b": 6}
    places = [(place.tensor, place.axis) for place in analysis.groups[1].occurrences]
    assert places == [("b", 0), ("scale", 0), ("c", 1)]


def test_example_is_pruned_through(installed: None, build: Build, tmp_path: Path) -> None:
    result = compress(build(NET, opsets=DOMAINS), ratio=0.5, round_to=1, unverified=True, recover="none")
    save(result.model, tmp_path / "pruned.onnx")
    pruned = onnx.load(tmp_path / "pruned.onnx").graph
    shapes = {tensor.name: list(tensor.dims) for tensor in pruned.initializer}
    assert shapes == {"a": [4, 4, 1], "b": [3, 4, 1], "scale": [3], "c": [5, 3, 1]}
    assert [node.op_type for node in pruned.node] == ["Conv", "Relu", "Conv", "ScaledRelu", "Conv"]


def test_example_counts_its_cost(installed: None, build: Build) -> None:
    analysis = inspect(build(NET, opsets=DOMAINS))
    (node,) = [node for node in analysis.model.graph if node.op_type == "ScaledRelu"]
    batch = analysis.shapes.bindings["batch"]
    assert cost.node_macs(node, cost.shapes_after(analysis, {})) == batch * 6 * 9


def test_file_that_nothing_can_run_is_written_only_unverified(installed: None, build: Build, tmp_path: Path) -> None:
    """The promise is that a written file was run beside the original: that takes a runtime that knows the operator."""
    with pytest.raises(ModelError, match=r"com\.example:ScaledRelu.*--unverified"):
        compress(build(NET, opsets=DOMAINS), ratio=0.5, recover="none")
    compress(build(NET, opsets=DOMAINS), ratio=0.5, unverified=True, recover="none").save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").exists()


def test_operator_with_a_body_of_its_own_needs_no_rule(build: Build, tmp_path: Path) -> None:
    """A function of that name in the file says everything: it is inlined, pruned, run and compared."""
    path = build(
        NET.replace("ScaledRelu(k, scale)", "ScaledRelu(k, column)").replace("float[6] scale", "float[6, 1] column"),
        opsets=DOMAINS,
        functions="""
            <domain: "com.example", opset_import: ["" : 17]>
            ScaledRelu (x, scale) => (y) { r = Relu(x)  y = Mul(r, scale) }
        """,
    )
    analysis = inspect(path)
    assert {group.id: group.units for group in analysis.groups} == {"a": 8, "b": 6}
    feed = {"x": np.random.default_rng(0).standard_normal((3, 4, 9), np.float32)}
    verdict = judge(path, every_other_unit(analysis), feed, tmp_path)
    assert verdict.difference < 1e-4 < verdict.effect
    compress(path, ratio=0.5, recover="none").save(tmp_path / "out.onnx")


# -- a rule for an operator that ONNX Runtime can run


CDIST = """
    net (float[batch, 4] x, float[n, 4] z) => (float[batch, n] y)
    <float[4, 8] w>
    { a = MatMul(x, w)  b = MatMul(z, w)  y = com.microsoft.CDist<metric = "euclidean">(a, b) }
"""


def distances(op: Op) -> None:
    """a [M, K], b [N, K] -> y [M, N]: a unit that is zero in both adds nothing."""
    op.same(op.y[0][0], op.x[0][0])
    op.same(op.y[0][1], op.x[1][0])
    op.contract(0, 1, op.x[1][1])
    op.contract(1, 1)


def test_new_rule_is_exact_in_onnx_runtime(tables: None, build: Build, tmp_path: Path) -> None:
    path = build(CDIST, opsets={"com.microsoft": 1})
    assert inspect(path).unruled == {"com.microsoft.CDist": 1}
    rule("CDist", domain="com.microsoft")(distances)
    analysis = inspect(path)
    assert {group.id: group.units for group in analysis.groups} == {"w": 8}
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((3, 4), np.float32), "z": rng.standard_normal((2, 4), np.float32)}
    verdict = judge(path, every_other_unit(analysis), feed, tmp_path)
    assert verdict.difference < 1e-4 < verdict.effect
    compress(path, ratio=0.5, recover="none").save(tmp_path / "out.onnx")


# -- plug-ins that do not work


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import nowhere", "No module named 'nowhere'"),
        ("from onnxprune.ops.base import rule\nrule('Relu')(print)", "axis rule 'Relu' is registered twice"),
        ("raise KeyError", "KeyError"),
    ],
    ids=["import", "taken", "bare"],
)
def test_plug_in_that_fails_is_named(installed: None, tmp_path: Path, build: Build, content: str, says: str) -> None:
    (tmp_path / "site" / f"{MODULE}.py").write_text(content)
    with pytest.raises(OnnxpruneError) as caught:
        inspect(build(NET, opsets=DOMAINS))
    assert str(caught.value) == (
        f"plug-in 'example' ({MODULE}) of onnxprune.ops cannot be loaded: {says}; update or uninstall it"
    )


# -- installed for real


def test_installed_with_pip_it_is_seen_by_the_command_line(build: Build, tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True)
    model = build(NET, opsets=DOMAINS)
    said = [_run({**os.environ, "PYTHONPATH": path}, "inspect", model, "--json") for path in ("", str(site))]
    assert "com.example.ScaledRelu" in said[0]
    assert "com.example.ScaledRelu" not in said[1]
    assert "b" in said[1]
    _run(
        {**os.environ, "PYTHONPATH": str(site)},
        "compress",
        model,
        "--criterion",
        "peak",
        "--ratio",
        "0.5",
        "--recover",
        "none",
        "--dry-run",
        "--unverified",
    )


def _run(environment: dict[str, str], *args: object) -> str:
    command = [sys.executable, "-m", "onnxprune", *map(str, args)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT).stdout
