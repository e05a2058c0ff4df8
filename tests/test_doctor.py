"""The doctor finds what is broken, and says what repairs it."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Iterator
from typing import Any

import onnxruntime
import pytest
from click.testing import CliRunner

from onnxprune.cli import doctor, main
from onnxprune.cli.doctor import BROKEN, OK, OPTIONAL, Diagnosis, examine
from onnxprune.pipeline import run as pipeline
from onnxprune.runtime import latency


def by_name(checks: list[Diagnosis]) -> dict[str, Diagnosis]:
    return {check.name: check for check in checks}


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["doctor", *args])
    return result.exit_code, result.stdout


def test_this_installation_is_in_order() -> None:
    code, out = run()
    assert code == 0, out
    assert "everything that is needed works" in out
    code, out = run("--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (0, True)
    checks = {check["name"]: check for check in found["checks"]}
    assert {"python", "numpy", "onnx", "onnxruntime", "providers", "self-test"} <= set(checks)
    assert {check["state"] for check in checks.values()} <= {OK, OPTIONAL}
    assert found["versions"]["onnxruntime"] == onnxruntime.__version__
    assert "pruned it from 256 to 128 parameters" in checks["self-test"]["found"]


def test_both_packages_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": ["onnxruntime", "onnxruntime-gpu"]}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: both)
    check = by_name(examine())["onnxruntime"]
    assert check.state == BROKEN
    assert check.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxprune[gpu]'"
    code, out = run()
    assert code == 1
    assert check.fix in out
    assert "broken: onnxruntime" in out


@pytest.mark.parametrize("packages", [[], ["onnxruntime"]], ids=["absent", "damaged"])
def test_onnx_runtime_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, packages: list[str]) -> None:
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"onnxruntime": packages})
    monkeypatch.setitem(importlib.import_module("sys").modules, "onnxruntime", None)
    checks = by_name(examine())
    assert checks["onnxruntime"].state == checks["self-test"].state == BROKEN
    expected = "pip install --force-reinstall onnxruntime" if packages else "pip install 'onnxprune[cpu]'"
    assert expected in checks["onnxruntime"].fix
    assert "providers" not in checks


def test_old_and_missing_packages_and_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = [
        "numpy>=999.1",
        "no-such-package>=2",
        "rich",
        "torchless>=1; extra == 'torch'",
        "pytest>=8; extra == 'test'",
    ]
    monkeypatch.setattr(doctor, "requires", lambda _: needed)
    checks = by_name(examine())
    assert checks["numpy"].state == BROKEN
    assert "999.1 or newer is needed" in checks["numpy"].found
    assert checks["numpy"].fix == "pip install --upgrade 'numpy>=999.1'"
    assert (checks["no-such-package"].state, checks["no-such-package"].found) == (BROKEN, "not installed")
    assert checks["rich"].state == OK
    extra = checks["extra torch"]
    assert (extra.state, extra.found, extra.fix) == (
        OPTIONAL, "torchless not installed", "pip install 'onnxprune[torch]'",
    )  # fmt: skip
    assert "extra test" not in checks


def test_an_installation_without_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(doctor, "requires", absent)
    assert list(doctor._requirements()) == []


@pytest.mark.parametrize(("version", "numbers"), [("2.13.0+cpu", [2, 13, 0]), ("1.2rc1", [1, 2, 1]), ("", [])])
def test_versions_compare_as_numbers(version: str, numbers: list[int]) -> None:
    assert doctor._numbers(version) == numbers


def test_a_device_that_does_not_start_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCpu:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(latency, "deployed_session", lambda *_: OnCpu())
    check = by_name(examine())["cuda"]
    assert (check.state, check.found) == (OPTIONAL, "a session on it runs on cpu")
    assert "CUDAExecutionProvider" in check.fix


def test_a_plug_in_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        name = "strange"
        entry_points = (
            importlib.metadata.EntryPoint("odd", "no_such_module_of_strange:x", "onnxprune.criteria"),
            importlib.metadata.EntryPoint("fine", "json:dumps", "onnxprune.criteria"),
            importlib.metadata.EntryPoint("other", "no_such_module_of_strange:x", "somebody.else"),
        )

    def packages() -> Iterator[Any]:
        yield Package()

    monkeypatch.setattr(doctor, "distributions", packages)
    checks = by_name(list(doctor._plugins()))
    assert checks["plug-in odd"].state == BROKEN
    assert "ModuleNotFoundError" in checks["plug-in odd"].found
    assert "pip uninstall strange" in checks["plug-in odd"].fix
    assert checks["plug-in fine"] == Diagnosis("plug-in fine", OK, "json:dumps")
    assert "plug-in other" not in checks


def test_a_self_test_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(pipeline, "compress", fail)
    check = doctor._self_test()
    assert (check.state, check.found) == (BROKEN, "RuntimeError: no luck")


def test_a_self_test_that_prunes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compress = pipeline.compress
    monkeypatch.setattr(pipeline, "compress", lambda path, **_: compress(path, ratio=0.0, recover="none"))
    check = doctor._self_test()
    assert (check.state, check.found) == (BROKEN, "256 parameters became 256, output (2, 4)")
