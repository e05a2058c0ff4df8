"""Is this installation in order? What is missing or broken is named with what repairs it."""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, requires
from pathlib import Path

import numpy as np

from onnxprune.support.versions import installed

OK, OPTIONAL, BROKEN = "ok", "optional", "broken"
# Extras that are not for users of the package; those of the runtime are looked at on their own.
_OTHER_EXTRAS = {"test", "dev", "cpu", "gpu"}
_REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+)(?P<rules>[^;]*)(?:;.*extra == ['\"](?P<extra>[\w-]+)['\"])?")
_AT_LEAST = re.compile(r">=\s*([\d.]+)")
_DEVICES = {"CUDAExecutionProvider", "TensorrtExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider"}


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: "ok", "optional" (it is not there, and is not needed for everything) or "broken".
        found: what is the case.
        fix: what to do about it; empty where nothing has to be done.
    """

    name: str
    state: str
    found: str
    fix: str = ""


def examine() -> list[Diagnosis]:
    """Every check, in the order in which a person would make them."""
    return [
        Diagnosis("python", OK, f"{sys.version.split()[0]} at {sys.executable}"),
        *_packages(),
        _runtime(),
        *_providers(),
        *_extras(),
        *_plugins(),
        _self_test(),
    ]


def _requirements() -> Iterator[tuple[str, str, str]]:
    """(package, least version, extra) for everything that this package names; "" where there is none."""
    try:
        found = requires("onnxprune") or []
    except PackageNotFoundError:
        found = []
    for line in found:
        match = _REQUIREMENT.match(line)
        if match:
            least = _AT_LEAST.search(match["rules"])
            yield match["name"], least[1] if least else "", match["extra"] or ""


def _packages() -> Iterator[Diagnosis]:
    """Check that everything that is always needed is there and new enough."""
    for package, least, extra in _requirements():
        if not extra:
            number = installed(package)
            fix = f"pip install --upgrade '{package}>={least}'" if least else f"pip install {package}"
            if number is None:
                yield Diagnosis(package, BROKEN, "not installed", fix)
            elif _numbers(number) < _numbers(least):
                yield Diagnosis(package, BROKEN, f"{number}, but {least} or newer is needed", fix)
            else:
                yield Diagnosis(package, OK, number)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3]]


def _runtime() -> Diagnosis:
    """ONNX Runtime: exactly one of its packages, and importable."""
    packages = sorted(set(packages_distributions().get("onnxruntime", [])))
    if len(packages) > 1:
        gpu = any(package != "onnxruntime" for package in packages)
        return Diagnosis(
            "onnxruntime",
            BROKEN,
            f"{' and '.join(packages)} are both installed, and each overwrites files of the other",
            f"pip uninstall -y {' '.join(packages)} && pip install 'onnxprune[{'gpu' if gpu else 'cpu'}]'",
        )
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        if packages:
            fix = f"pip install --force-reinstall {packages[0]}"
            return Diagnosis("onnxruntime", BROKEN, f"{packages[0]} cannot be imported: {error}", fix)
        fix = "pip install 'onnxprune[cpu]', or 'onnxprune[gpu]' for CUDA"
        return Diagnosis("onnxruntime", BROKEN, "not installed, so no result can be checked or measured", fix)
    return Diagnosis("onnxruntime", OK, f"{runtime.__version__} ({', '.join(packages)})")


def _providers() -> Iterator[Diagnosis]:
    """Execution providers that are built in, and whether those with a device start."""
    from onnxprune.errors import OnnxpruneError
    from onnxprune.runtime.latency import deployed_session
    from onnxprune.runtime.providers import available, short

    try:
        here = available()
    except (OnnxpruneError, ImportError):
        return
    yield Diagnosis("providers", OK, ", ".join(map(short, here)))
    with tempfile.TemporaryDirectory() as folder:
        path = _small_model(Path(folder))
        for provider in (each for each in here if each in _DEVICES):
            try:
                used = deployed_session(path, provider).get_providers()[0]
                reason = "" if used == provider else f"a session on it runs on {short(used)}"
            except OnnxpruneError as error:
                reason = str(error)
            fix = f"install its driver and libraries as ONNX Runtime's page on {provider} says" if reason else ""
            yield Diagnosis(short(provider), OPTIONAL if reason else OK, reason or "starts", fix)


def _extras() -> Iterator[Diagnosis]:
    """Heavy packages that only some things need."""
    extras: dict[str, list[str]] = {}
    for package, _, extra in _requirements():
        if extra and extra not in _OTHER_EXTRAS:
            extras.setdefault(extra, []).append(package)
    for extra, packages in sorted(extras.items()):
        numbers = {package: installed(package) for package in packages}
        missing = [package for package, number in numbers.items() if number is None]
        if missing:
            fix = f"pip install 'onnxprune[{extra}]'"
            yield Diagnosis(f"extra {extra}", OPTIONAL, f"{', '.join(missing)} not installed", fix)
        else:
            yield Diagnosis(
                f"extra {extra}", OK, ", ".join(f"{package} {number}" for package, number in numbers.items())
            )


def _plugins() -> Iterator[Diagnosis]:
    """List the members of families that other packages have added."""
    for package in distributions():
        for entry in (each for each in package.entry_points if each.group.startswith("onnxprune.")):
            name = f"plug-in {entry.name}"
            try:
                entry.load()
            except Exception as error:  # whatever a stranger's module raises
                found = f"{entry.value} of {package.name} fails: {type(error).__name__}: {error}"
                fix = f"pip install --upgrade {package.name}, or pip uninstall {package.name}"
                yield Diagnosis(name, BROKEN, found, fix)
            else:
                yield Diagnosis(name, OK, entry.value)


def _small_model(folder: Path) -> Path:
    """A convolution and a classifier, 8 channels between them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"conv": (8, 3, 3, 3), "bias": (8,), "head": (8, 4)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "conv", "bias"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "head"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph(nodes, "self_test", inputs, outputs, weights)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _self_test() -> Diagnosis:
    """From file to file: build a model, halve it, run the result."""
    name = "self-test"
    try:
        from onnxprune.pipeline import run as pipeline
        from onnxprune.runtime.session import Session

        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / "small.onnx"
            report = pipeline.compress(_small_model(Path(folder)), ratio=0.5, recover="none").save(small)
            output = Session(small).run({"x": np.ones((2, 3, 8, 8), np.float32)})["y"]
        before, after = report.before.parameters, report.after.parameters
        if output.shape != (2, 4) or not np.isfinite(output).all() or not after < before:
            return Diagnosis(name, BROKEN, f"{before} parameters became {after}, output {output.shape}", _REPORT)
    except Exception as error:  # that is what it is to find
        return Diagnosis(name, BROKEN, f"{type(error).__name__}: {error}", "repair what is broken above, or " + _REPORT)
    return Diagnosis(name, OK, f"built a model, pruned it from {before} to {after} parameters and ran it")


_REPORT = "report it with this table"


def show_findings(checks: list[Diagnosis]) -> None:
    """One line per check, what to do below those that need it."""
    from onnxprune.report.terminal import console

    out, styles = console(), {OK: "green", OPTIONAL: "yellow", BROKEN: "bold red"}
    width = max(len(check.name) for check in checks)
    for check in checks:
        out.print(f"{check.name:{width}}  ", end="", soft_wrap=True)
        out.print(f"{check.state:8}", style=styles[check.state], end="")
        out.print(f"  {check.found}", soft_wrap=True)
        if check.fix:
            out.print(f"{'':{width}}  {'':8}  fix: {check.fix}", soft_wrap=True)
    broken = [check.name for check in checks if check.state == BROKEN]
    out.print(f"broken: {', '.join(broken)}" if broken else "everything that is needed works", style="bold")
