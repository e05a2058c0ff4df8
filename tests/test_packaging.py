"""What is published: the licence, the description on a package index, the image, the action, the site."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS = PROJECT["urls"]["Repository"]


def loaded(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_licence() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / PROJECT["license-files"][0]).read_text()
    assert re.match(r"\s*Apache License\s+Version 2\.0", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_one_place_names_the_repository() -> None:
    """Pages that follow from it are written by docs/generate.py; nothing else repeats it."""
    owned = ADDRESS.removeprefix("https://github.com/")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("not a checkout of git")
    texts = [ROOT / name for name in listed if Path(name).suffix in (".md", ".py", ".toml", ".yml", ".yaml")]
    found = {path.relative_to(ROOT).as_posix() for path in texts if path.is_file() and owned in path.read_text()}
    assert found == {"pyproject.toml", "docs/gate.md"}


def test_links_and_pictures_of_the_description_are_absolute() -> None:
    """An index has no files beside the page."""
    text = loaded("setup.py").description()
    targets = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", text)
    assert any(picture for picture, _ in targets)
    for picture, target in targets:
        where, _, path = target.partition("/main/")
        assert where == f"{ADDRESS}/{'raw' if picture else 'blob'}", target
        assert (ROOT / path.partition("#")[0]).exists(), target


def test_the_image_is_made_of_what_there_is() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [part for line in lines if line.startswith("COPY ") for part in line.split()[1:-1]]
    assert {"onnxprune", "passes", "recipes", "pyproject.toml", "setup.py"} <= set(copied)
    for part in copied:
        assert (ROOT / part).exists()
        assert f"!{part}" in ignored
    (extras,) = re.findall(r"/src\[([\w,]+)\]", "\n".join(lines))
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert 'ENTRYPOINT ["onnxprune"]' in lines


def test_the_action_has_a_face() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the action")
    branding = yaml.safe_load((ROOT / "action.yml").read_text())["branding"]
    assert branding["color"] in ("white", "black", "yellow", "blue", "green", "orange", "red", "purple", "gray-dark")
    assert re.fullmatch(r"[a-z-]+", branding["icon"])


def test_the_site_has_every_page_once() -> None:
    found = loaded("docs/site_hooks.py").sections((ROOT / "docs" / "index.md").read_text())
    pages = [page for section in found for page in next(iter(section.values()))]
    there = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted([*pages, "index.md"]) == sorted(there)


def test_links_out_of_the_pages_lead_to_the_repository() -> None:
    class File:
        src_uri = "howto/budgets.md"

    class Page:
        file = File()

    led = loaded("docs/site_hooks.py").on_page_markdown
    text = "[a](../../benchmarks/results/speed.md) [b](../gate.md#pytest) [c](https://example.com/x) ![d](../e.svg)"
    assert led(text, Page()) == text.replace("../../benchmarks", f"{ADDRESS}/blob/main/benchmarks")


def test_the_source_archive_has_what_setup_reads() -> None:
    """README.md, pyproject.toml and setup.py are in every archive; nothing else is read by it."""
    read = set(re.findall(r'ROOT / "([^"]+)"', (ROOT / "setup.py").read_text()))
    always = ("README*", "pyproject.toml", "setup.py")
    assert read
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in always) for name in read)


@pytest.mark.slow
def test_a_checkout_without_links_imports_types_and_tests(tmp_path: Path) -> None:
    """On Windows links come out as text files, unless a developer has asked for them."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "-c", "core.symlinks=false", "clone", "-q", f"file://{ROOT}", clone], check=True)
    assert (clone / "onnxprune" / "passes").is_file()
    where = {"cwd": clone, "env": {**os.environ, "PYTHONPATH": str(clone)}, "check": True}
    for command in (
        ["-c", f"import onnxprune.passes.equalize as e; assert e.__file__.startswith({str(clone)!r}), e.__file__"],
        ["-m", "mypy"],
        ["-m", "ruff", "check", "."],
        ["docs/generate.py", "--check"],
        ["-m", "pytest", "-q", "tests/test_imports.py", "tests/cli/test_list.py", "tests/passes", "tests/pipeline"],
    ):
        subprocess.run([sys.executable, *command], **where)  # type: ignore[call-overload]
