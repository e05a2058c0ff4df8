"""The file of numbers: written only when all holds, compared exactly, refused when damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import UsageError
from tests.gate.test_run import SAMPLES, check, gate

FILE = Path("baseline.json")
SIZE = {"max_size": "101%", "baseline": FILE}


def update(*models: str, **options: Any) -> dict[str, Any]:
    """Write the file, and read it."""
    verdict = gate(*models, **{"baseline": FILE, "update_baseline": True, **options})
    assert verdict.exit_code == 0
    assert verdict.updated == FILE
    return dict(json.loads(FILE.read_text()))


def grow(path: str, by: int) -> None:
    """More bytes that change nothing: a field of the format that nobody reads, a doc string."""
    import onnx

    model = onnx.load(path)
    model.doc_string = "x" * by
    onnx.save(model, path)


def test_what_is_written(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    document = update("model.onnx", min_metric=0.9, **SAMPLES)
    assert document["format"] == 1
    assert document["models"] == {
        "model.onnx": {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "parameters": 174_874,
            "macs": 1_648_256,
            "metric": {"name": "accuracy", "value": 448 / 450, "on": {"data": "samples.npz", "labels": "digit"}},
        }
    }


def test_same_numbers_same_bytes(folder: Path) -> None:
    update("model.onnx", "original.onnx", min_metric=0.9, **SAMPLES)
    first = FILE.read_bytes()
    update("original.onnx", "model.onnx", min_metric=0.9, **SAMPLES)
    assert FILE.read_bytes() == first


def test_growth_is_caught(folder: Path) -> None:
    update("model.onnx", max_size="5MB")
    assert check("model.onnx", **SIZE).status == "ok"
    grow("model.onnx", 7_300)
    found = check("model.onnx", **SIZE)
    assert found.status == "broken"
    assert found.note == "101% of the baseline's 717,481"


def test_no_update_where_a_budget_is_broken(folder: Path) -> None:
    verdict = gate("model.onnx", max_size="1kB", baseline=FILE, update_baseline=True)
    assert (verdict.exit_code, verdict.updated, FILE.exists()) == (1, None, False)
    update("model.onnx")
    before = FILE.read_bytes()
    grow("model.onnx", 7_300)
    verdict = gate("model.onnx", "original.onnx", update_baseline=True, **SIZE)
    assert (verdict.exit_code, FILE.read_bytes()) == (1, before)


def test_no_update_where_something_could_not_be_checked(folder: Path) -> None:
    verdict = gate("model.onnx", "none.onnx", baseline=FILE, update_baseline=True)
    assert (verdict.exit_code, FILE.exists()) == (2, False)
    verdict = gate("model.onnx", min_metric=0.1, baseline=FILE, update_baseline=True)
    assert (verdict.exit_code, FILE.exists()) == (2, False)


def test_first_update_compares_with_nothing(folder: Path) -> None:
    verdict = gate("model.onnx", update_baseline=True, max_drop=0.1, **SIZE, **SAMPLES)
    assert [each.status for each in verdict.models[0].checks] == ["new", "new"]
    assert (verdict.exit_code, verdict.updated) == (0, FILE)
    again = gate("model.onnx", max_drop=0, **SIZE, **SAMPLES)
    assert [each.status for each in again.models[0].checks] == ["ok", "ok"]


def test_update_keeps_the_other_models(folder: Path) -> None:
    update("model.onnx")
    assert set(update("original.onnx")["models"]) == {"model.onnx", "original.onnx"}


def test_update_keeps_what_was_measured_of_the_same_file(folder: Path) -> None:
    first = update("model.onnx", min_metric=0.9, **SAMPLES)
    assert update("model.onnx") == first
    grow("model.onnx", 1)
    assert "metric" not in update("model.onnx")["models"]["model.onnx"]


def test_models_go_by_their_path_from_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "ci").mkdir()
    gate("model.onnx", baseline=Path("ci/baseline.json"), update_baseline=True)
    assert list(json.loads(Path("ci/baseline.json").read_text())["models"]) == ["../model.onnx"]
    monkeypatch.chdir("ci")
    assert check("../model.onnx", baseline=FILE, max_size="100%").status == "ok"


def test_latency_is_compared_under_the_same_settings_only(folder: Path) -> None:
    options = {"baseline": FILE, "latency_seconds": 0.01}
    entry = update("model.onnx", max_latency_ratio=1e9, latency_seconds=0.01)["models"]["model.onnx"]["latency"]
    assert entry["seconds"] > 0
    assert {key: entry[key] for key in ("provider", "threads", "batch", "sizes")} == {
        "provider": "CPUExecutionProvider",
        "threads": 1,
        "batch": 1,
        "sizes": {"batch": 1},
    }
    assert check("model.onnx", max_latency_ratio=1e9, **options).status == "ok"
    assert check("model.onnx", max_latency_ratio=1e-9, **options).status == "broken"
    other = check("model.onnx", max_latency_ratio=1e9, latency_batch=2, **options)
    assert (other.status, "other settings" in other.shown) == ("unchecked", True)


def test_metric_is_compared_on_the_same_data_only(folder: Path) -> None:
    update("model.onnx", min_metric=0.9, **SAMPLES)
    assert check("model.onnx", max_drop=0, baseline=FILE, **SAMPLES).status == "ok"
    for other in ({"samples": 100}, {"metric": "top5"}):
        found = check("model.onnx", max_drop=0, baseline=FILE, **SAMPLES, **other)
        assert (found.status, "other data or options" in found.shown) == ("unchecked", True)


@pytest.mark.parametrize("budget", [{"max_latency_ratio": 1.5}, {"max_drop": 0.5, **SAMPLES}, {"max_size": "101%"}])
def test_numbers_that_are_not_in_it(folder: Path, budget: dict[str, Any]) -> None:
    """Neither a model that it does not know nor a number that was not measured then counts as passed."""
    update("original.onnx" if "max_size" in budget else "model.onnx")
    assert check("model.onnx", baseline=FILE, latency_seconds=0.01, **budget).status == "unchecked"


def test_agreement_needs_the_model_itself(folder: Path) -> None:
    update("model.onnx")
    found = check("model.onnx", baseline=FILE, min_agreement=0.5, data="samples.npz")
    assert (found.status, "--baseline ORIGINAL.onnx" in found.shown) == ("unchecked", True)


GOOD = {"format": 1, "models": {"model.onnx": {"sha256": "0" * 64, "size": 10**6, "parameters": 1, "macs": 1}}}


def changed(**entry: Any) -> str:
    return json.dumps({"format": 1, "models": {"model.onnx": {**GOOD["models"]["model.onnx"], **entry}}})


def test_the_good_file_of_the_next_test_is_good(folder: Path) -> None:
    FILE.write_text(json.dumps(GOOD))
    assert check("model.onnx", **SIZE).status == "ok"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        (json.dumps(GOOD)[:-3], "is not JSON"),
        ("<<<<<<< HEAD\n" + json.dumps(GOOD), "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has format None"),
        ("{}", "has format None"),
        ('{"format": 2, "models": {}}', "has format 2, this version reads format 1"),
        ('{"format": true, "models": {}}', "has format True, this version reads format 1"),
        ('{"format": 1}', "is damaged: models"),
        ('{"format": 1, "models": {"a": {"sha256": "0"}, "a": {}}}', "a key is in it twice"),
        (changed(size=-1), "models / model.onnx / size"),
        (changed(size="1000000"), "models / model.onnx / size"),
        (changed(size=1e6), "models / model.onnx / size"),
        (changed(size=True), "models / model.onnx / size"),
        (changed(size=None), "models / model.onnx / size"),
        (changed(size=float("inf")), "Infinity is not a number"),
        (changed(metric={"name": "accuracy", "value": float("nan"), "on": {}}), "NaN is not a number"),
        (changed(latency={"seconds": 0, "provider": "x", "threads": 1, "batch": 1, "sizes": {}}), "latency / seconds"),
        (changed(sha256="abc"), "models / model.onnx / sha256"),
        (changed(sizes=1), "models / model.onnx / sizes"),
    ],
)
def test_a_broken_file_is_refused(folder: Path, content: str, message: str) -> None:
    FILE.write_text(content)
    for more in ({}, {"update_baseline": True}):
        with pytest.raises(UsageError, match=message) as found:
            gate("model.onnx", **SIZE, **more)
        assert found.value.exit_code == 2
        assert "\n" not in str(found.value)
        assert "--update-baseline" in str(found.value)
        assert FILE.read_text() == content


def test_bytes_that_are_no_text(folder: Path) -> None:
    FILE.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not JSON"):
        gate("model.onnx", **SIZE)


def test_a_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the baseline"):
        gate("model.onnx", **SIZE)
    with pytest.raises(UsageError, match="does not exist; create it first"):
        gate("model.onnx", baseline=Path("none/baseline.json"), update_baseline=True)
