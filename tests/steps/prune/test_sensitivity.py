"""Curves of single groups: what they measure, the cache, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from onnxprune.cli import main
from onnxprune.data.base import Batch, Data
from onnxprune.errors import UsageError
from onnxprune.evaluation.metrics import evaluate, metric, outputs_of
from onnxprune.model.file import save
from onnxprune.pipeline import run as pipeline
from onnxprune.pipeline.opening import open_and_inspect
from onnxprune.pipeline.scores import score
from onnxprune.pipeline.scores import sensitivity as sensitivity_of
from onnxprune.report.curves import to_svg
from onnxprune.steps.base import Context
from onnxprune.steps.plan import Plan, Removal
from onnxprune.steps.prune import sensitivity
from onnxprune.steps.prune.allocation.base import Curve
from onnxprune.steps.prune.sensitivity import Sensitivity
from onnxprune.steps.recover.step import Recover
from onnxprune.steps.state import Current, State
from onnxprune.support.cache import default_cache
from tests.conftest import Build


@pytest.fixture
def path(build: Build) -> Path:
    """Units of the first layer that matter, and a second layer whose last four units are next to nothing."""
    last = np.random.default_rng(1).standard_normal((8, 8))
    last[:, 4:] *= 1e-6
    return build(
        """
        net (float[batch, 5] x) => (float[batch, 3] y)
        <float[5, 8] w1, float[8, 8] w2, float[8, 3] w3>
        { h = MatMul(x, w1)  r = Relu(h)  k = MatMul(r, w2)  s = Relu(k)  y = MatMul(s, w3) }
        """,
        w2=last,
    )


@pytest.fixture
def data() -> Data:
    arrays = np.random.default_rng(0).standard_normal((3, 20, 5)).astype(np.float32)
    return Data("made", False, lambda: (Batch({"x": array}) for array in arrays))


def measured(path: Path, data: Data, **options: object) -> Sensitivity:
    return sensitivity_of(path, data, ratios=(0.25, 0.5), **options)[1]  # type: ignore[arg-type]


def test_curves_are_what_cut_models_give(path: Path, data: Data, tmp_path: Path) -> None:
    found = measured(path, data, metric="snr")
    assert found.curves["w1"].lost == found.curves["w2"].lost == (0, 2, 4)
    plan = Plan((Removal("w2", "neurons", 8, (4, 5, 6, 7)),))
    save(pipeline.apply(path, plan).model, tmp_path / "cut.onnx")
    due = evaluate(tmp_path / "cut.onnx", data, metric("snr", False), outputs_of(path, data))
    assert found.curves["w2"].values[2] == pytest.approx(due)
    assert found.whole == float("inf")


def test_classes_are_compared_by_kl_and_damage_grows(path: Path, data: Data) -> None:
    found = measured(path, data)
    assert (found.metric, found.whole) == ("kl", 0.0)
    damages = found.damages()
    for curve in damages.values():
        assert curve.values[0] == 0
        assert list(curve.values) == sorted(curve.values)
    assert damages["w2"].values[2] < 1e-6 < damages["w1"].values[1]


@pytest.mark.parametrize(
    ("name", "whole", "higher", "values", "damages"),
    [
        ("accuracy", 0.9, True, (0.9, 0.92, 0.6, 0.7), (0, 0, 0.3, 0.3)),
        ("kl", 0.0, False, (0.0, 0.1, 0.4, 2.0), (0, 0.1, 0.4, 2.0)),
        ("snr", float("inf"), True, (float("inf"), 20.0, 10.0, 0.0), (0, 0.01, 0.1, 1)),
        ("kl", 0.0, False, (0.0, 0.1, float("nan"), 2.0), (0, 0.1, 1e9, 1e9)),
    ],
)
def test_damage(name: str, whole: float, higher: bool, values: tuple[float, ...], damages: tuple[float, ...]) -> None:
    found = Sensitivity(name, whole, higher, {"g": Curve((0, 1, 2, 3), values)}).damages()["g"]
    assert found.values == pytest.approx(damages)


def test_what_is_in_the_cache_is_not_measured_again(
    path: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after three cuts, it goes on with the fourth."""
    cache, cuts = tmp_path / "cache", []
    original = sensitivity.Task.measure

    def counting(self: sensitivity.Task, state: State, point: sensitivity.Point) -> float:
        if len(cuts) == 3:
            cuts.append("interrupted")
            raise KeyboardInterrupt
        cuts.append(point.group)
        return original(self, state, point)

    monkeypatch.setattr(sensitivity.Task, "measure", counting)
    with pytest.raises(KeyboardInterrupt):
        measured(path, data, cache=cache)
    assert len(cuts) == 4
    whole = measured(path, data, cache=cache)
    assert len(cuts) == 5
    assert measured(path, data, cache=cache) == whole
    assert len(cuts) == 5
    monkeypatch.undo()
    assert whole == measured(path, data)


def test_a_damaged_cache_is_measured_anew(path: Path, data: Data, tmp_path: Path) -> None:
    whole = measured(path, data, cache=tmp_path)
    (file,) = tmp_path.glob("*.json")
    assert set(json.loads(file.read_text())) > {"whole"}
    file.write_text(file.read_text()[:-9])
    assert measured(path, data, cache=tmp_path) == whole


def test_other_data_and_other_metrics_have_other_caches(path: Path, data: Data, tmp_path: Path) -> None:
    measured(path, data, cache=tmp_path)
    measured(path, data, cache=tmp_path, metric="cosine")
    other = Data("other", False, lambda: (Batch({"x": 2 * batch.feed["x"]}) for batch in data.batches()))
    measured(path, other, cache=tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_several_processes_measure_the_same(path: Path, data: Data) -> None:
    assert measured(path, data, jobs=2) == measured(path, data)


def test_ctrl_c_ends_all_processes_at_once_and_quietly() -> None:
    """As in a terminal: the signal reaches every process of the group."""
    program = (
        "import signal, time; from onnxprune.steps.prune.sensitivity import _run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); print('up', flush=True)\n"
        "for _ in _run(time.sleep, [60.0, 61.0], 2): pass"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        for _ in range(80):  # it is deaf as long as it starts the others
            time.sleep(0.5)
            if run.poll() is not None:
                break
            os.killpg(run.pid, signal.SIGINT)
        _, stderr = run.communicate(timeout=10)  # nobody else holds the pipe
    assert stderr.count("Traceback") == 1, stderr


def test_with_recovery_every_cut_is_mended_first_and_measured_on_other_samples(
    path: Path, data: Data, tmp_path: Path
) -> None:
    """60 samples: recovery sees 40 of them. By hand: cut, recover with these, and measure on the other 20."""
    found = measured(path, data, metric="snr", recover="reconstruct")
    assert (found.recovery, found.samples) == ("reconstruct", 20)
    whole = np.concatenate([batch.feed["x"] for batch in data.batches()])
    apart = np.arange(60) % 3 == 2
    seen = Data("seen", False, lambda: (Batch({"x": part[~mask]}) for part, mask in batches()))
    others = Data("others", False, lambda: iter([Batch({"x": whole[apart]})]))

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return zip(whole.reshape(3, 20, 5), apart.reshape(3, 20), strict=True)

    scores = score(path)["w1"]
    plan = Plan((Removal("w1", "neurons", 8, tuple(sorted(int(unit) for unit in np.argsort(scores)[:4]))),))
    save(pipeline.apply(path, plan).model, tmp_path / "cut.onnx")
    context = Context(data=seen)
    original, cut = open_and_inspect(path, context), open_and_inspect(tmp_path / "cut.onnx", context)
    current = Current(cut.analysis.model, parts={}, analysis=cut.analysis)
    state = State(original.source, original.analysis, current, plan.keep(original.analysis))
    save(Recover("reconstruct")(state, context).model, tmp_path / "mended.onnx")
    due = evaluate(tmp_path / "mended.onnx", others, metric("snr", False), outputs_of(path, others))
    assert found.curves["w1"].values[2] == pytest.approx(due, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "recover"), [("resnet", "batchnorm"), ("resnet", "reconstruct"), ("lstm", "reconstruct")]
)
def test_curves_with_recovery_lie_above_those_without(digits: dict[str, Path], name: str, recover: str) -> None:
    with np.load(digits[name].parent / "digits_calibration.npz") as arrays:
        x = arrays["input"][:60]
    data = Data("digits", False, lambda: (Batch({"input": x[i : i + 30]}) for i in range(0, 60, 30)))
    plain, mended = (
        sensitivity_of(digits[name], data, metric="kl", ratios=(0.5,), recover=how)[1] for how in ("none", recover)
    )
    better = [mended.curves[group].values[1] < plain.curves[group].values[1] for group in plain.curves]
    assert sum(better) >= 0.8 * len(better)
    assert sum(c.values[1] for c in mended.curves.values()) < 0.7 * sum(c.values[1] for c in plain.curves.values())


def test_recovery_is_part_of_the_key_of_the_cache(path: Path, data: Data, tmp_path: Path) -> None:
    found = [measured(path, data, cache=tmp_path, recover=how) for how in ("none", "bias", "reconstruct", "fold")]
    assert len(list(tmp_path.glob("*.json"))) == 4
    assert len({each.curves["w1"].values for each in found}) == 4
    again = [measured(path, data, cache=tmp_path, recover=how) for how in ("none", "bias", "reconstruct", "fold")]
    assert again == found


def test_several_processes_go_on_where_one_was_interrupted(path: Path, data: Data, tmp_path: Path) -> None:
    """All but the value of the whole model has to be measured: the processes still find the original's outputs."""
    whole = measured(path, data, cache=tmp_path)
    (file,) = tmp_path.glob("*.json")
    file.write_text(json.dumps({"whole": 0.0}))
    assert measured(path, data, cache=tmp_path, jobs=2) == whole


def test_where_nothing_can_be_kept(path: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was named is refused; without the usual one, as in a container, nothing is kept."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"nothing can be kept in .*file: File exists; name another folder"):
        sensitivity_of(path, data, ratios=[0.5], cache=tmp_path / "file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "deeper"))
    assert default_cache() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "deeper"))
    assert default_cache() == tmp_path / "new" / "deeper" / "onnxprune"


def test_the_table_cuts_no_number_short(path: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32))
    ratios = ",".join(f"0.{digit}" for digit in range(1, 10))
    args = ["sensitivity", path, "--data", tmp_path / "x.npz", "--ratios", ratios, "--cache", tmp_path]
    shown = CliRunner().invoke(main, [str(each) for each in args], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert "on 20 samples" in shown.output
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown.output


def test_picture() -> None:
    groups = [SimpleNamespace(id=f"a<{index}>", units=8) for index in range(5)]
    curves = {group.id: Curve((0, 2, 4), (0.0, 0.5, float("nan"))) for group in groups}
    picture = to_svg("kl", groups, curves)  # type: ignore[arg-type]
    assert picture.count("<polyline") == 5
    assert picture.count("<circle") == 10
    assert "a&lt;0&gt; (8)" in picture
    assert "nan" not in picture


def remarks(path: Path, data: object, ratio: float = 0.25) -> list[str]:
    result = pipeline.compress(path, data=data, scope="sensitivity", ratio=ratio, recover="none")
    return [note for note in result.report.notes if "scope sensitivity" in note]


def test_where_nothing_is_to_be_shared_out_it_is_said(build: Build) -> None:
    path = build("""
        net (float[batch, 5] x) => (float[batch, 3] y) <float[5, 8] w1, float[8, 3] w3>
        { h = MatMul(x, w1)  r = Relu(h)  y = MatMul(r, w3) }
    """)
    samples = {"x": np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)}
    assert "there is one group" in remarks(path, samples)[0]


def test_where_the_curves_decide_nothing_it_is_said(path: Path, build: Build) -> None:
    """Inputs of zeros: whatever goes, nothing changes. Units that are next to nothing decide, as long as they last."""
    samples = {"x": np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)}
    assert "changed anything" in remarks(path, {"x": np.zeros((40, 5), np.float32)})[0]
    assert remarks(path, samples, 0.25) == []
    assert "no other cut as small does less damage" in remarks(path, samples, 0.5)[0]
