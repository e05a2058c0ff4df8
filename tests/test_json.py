"""Documents of --json: what docs/json.md says is in them, and JSON that every reader takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from onnxprune.cli import main
from tests.conftest import ROOT, Build

NET = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 12] w, float[12, 3] v> { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
"""
ON_DATA = ("--data", "samples.npz")
EXAMPLE = ("--example", "input:2x6:int64", "--exporter", "torchscript")
COMMANDS = {
    "compress, apply, recover, train, quantize, sparsify": ("compress", "model.onnx", "--dry-run", *ON_DATA),
    "compress, several models": ("compress", "*.onnx", "--dry-run", *ON_DATA),
    "evaluate": ("evaluate", "model.onnx", "model.onnx"),
    "inspect": ("inspect", "model.onnx"),
    "score": ("score", "model.onnx"),
    "sensitivity": ("sensitivity", "model.onnx", "--ratios", "0.5", "--metric", "snr", "--cache", "cache", *ON_DATA),
    "search": ("search", "model.onnx", "--trials", "2", *ON_DATA),
    "curve": ("curve", "model.onnx", "--strengths", "0.5", *ON_DATA),
    "plan": ("plan", "model.onnx", "plan.json"),
    "plan --torch": ("plan", "model.onnx", "plan.json", "--torch"),
    "benchmark": ("benchmark", "model.onnx", "model.onnx", "--rounds", "1", "--profile", *ON_DATA),
    "benchmark --alignment": ("benchmark", "model.onnx", "--alignment", "--rounds", "1"),
    "gate": ("gate", "model.onnx", "--max-size", "1MB"),
    "export": ("export", "tests.conversion.networks:tokens", *EXAMPLE, "-o", "net.onnx"),
    "to-torch": ("to-torch", "model.onnx", "-o", "net"),
    "list": ("list", "criteria"),
    "doctor": ("doctor",),
}


def sections() -> dict[str, set[str]]:
    """The keys that docs/json.md names in the first column of the table under each heading."""
    parts = re.split(r"^## (.+)\n", (ROOT / "docs" / "json.md").read_text(), flags=re.MULTILINE)[1:]
    cells = {
        title: re.findall(r"^\|(.+?)\|", text, re.MULTILINE)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: {key for cell in found for key in re.findall(r"`(\w+)`", cell)} for title, found in cells.items()}


def test_the_page_has_every_command() -> None:
    assert list(sections()) == list(COMMANDS)
    spoken_of = {word for title in COMMANDS for word in re.findall(r"[\w-]+", title)} - {
        "--torch",
        "--alignment",
        "several",
        "models",
    }
    assert spoken_of == set(main.list_commands(None)) - {"completion"}  # type: ignore[arg-type]


@pytest.mark.parametrize("title", COMMANDS)
def test_documents_have_the_keys_of_the_page(
    title: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if title in ("export", "to-torch"):
        pytest.importorskip("torch", reason="it takes torch")
    if title == "search":
        pytest.importorskip("optuna", reason="the extra `search` is not installed")
    monkeypatch.chdir(tmp_path)
    build(NET)
    np.savez("samples.npz", x=np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32))
    run = CliRunner().invoke
    assert (
        run(
            main, ["compress", "model.onnx", "--recover", "none", "--ratio", "0.5", "--dry-run", "--plan", "plan.json"]
        ).exit_code
        == 0
    )
    result = run(main, [*COMMANDS[title], "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    assert document.pop("format") == 1
    assert re.fullmatch(r"[a-z-]+", document.pop("kind"))
    assert set(document) == sections()[title]
