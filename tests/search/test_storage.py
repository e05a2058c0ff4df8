"""Where a study is kept: sqlite, a journal, a real PostgreSQL; trials of workers that die, and workers that join."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import MissingExtraError, UsageError
from tests.conftest import ROOT
from tests.search.conftest import searched, values

optuna = pytest.importorskip("optuna", reason="the extra `search` is not installed")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server in a temporary folder; it runs as nobody where the tests run as root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    initdb, server = (_program(name) for name in ("initdb", "postgres"))
    if initdb is None or server is None:
        pytest.skip("PostgreSQL (initdb, postgres) is not installed")
    user = "nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None  # a server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="postgresql"))  # nobody else may enter the folders of pytest
    if user is not None:
        shutil.chown(folder, user)
    cluster, log = folder / "data", folder / "log"
    options: dict[str, Any] = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL}
    subprocess.run([initdb, "-D", cluster, "-U", "tester", "-A", "trust", "--no-sync"], check=True, **options)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as errors:
        words = [server, "-D", cluster, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
        process = subprocess.Popen(words, stderr=errors, **options)
    try:
        yield _ready(f"postgresql://tester@127.0.0.1:{port}/postgres", process, log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def _ready(url: str, process: subprocess.Popen[bytes], log: Path) -> str:
    import psycopg

    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return url
    raise AssertionError(log.read_text())


# A journal differs from sqlite in few lines of ours: slow tests run on it too.
@pytest.fixture(params=["sqlite", pytest.param("journal", marks=pytest.mark.slow), "postgresql"])
def storage(request: pytest.FixtureRequest, here: Path) -> str:
    """The URL of an empty study."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    return str(here / ("study.db" if request.param == "sqlite" else "study.journal"))


def begun(storage: str, name: str, **options: Any) -> Any:
    """A study that was begun here, with its folder."""
    from onnxprune.pipeline.search.options import SearchOptions
    from onnxprune.pipeline.search.request import Request
    from onnxprune.pipeline.search.run import OpenStudy, Sources

    chosen = {"space": Path("space.toml"), "storage": storage, "study": name, **options}
    request = Request(Path("model.onnx"), Sources("samples.npz"), SearchOptions(**chosen))
    return OpenStudy(request, chosen, name)


def test_a_study_goes_on_with_the_trial_of_a_worker_that_died(storage: str, here: Path) -> None:
    first = begun(storage, "dead", trials=7)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    trial = first.study.ask()
    trial.set_user_attr("worker", f"{socket.gethostname()}:{dead.pid}")
    tried = {
        name: trial.suggest_float(name, each.low, each.high) for name, each in first.request.space.parameters.items()
    }
    found = searched(storage=storage, study="dead", folder="dead", trials=7)
    assert len(found.candidates) == 7
    states = [each.state.name for each in first.study.get_trials()]
    assert states.count("FAIL") == 1
    assert [each.params for each in first.study.get_trials(deepcopy=False)].count(tried) == 2


def test_one_more_worker_needs_the_storage_and_the_name_alone(storage: str, here: Path) -> None:
    from onnxprune.data.options import DataOptions
    from onnxprune.pipeline.search.run import search

    data = DataOptions(data="samples.npz")
    alone = {"space": Path("space.toml"), "minimize": ["macs", "drop"]}
    search(Path("model.onnx"), data=data, storage=storage, study="two", folder="two", trials=3, **alone)
    joined = search(storage=storage, study="two", folder="three", trials=7)
    assert len(joined.candidates) == 7
    assert {path.name for path in Path("three").glob("*.onnx")} == {each.file.name for each in joined.front}
    whole = search(Path("model.onnx"), data=data, folder="one", trials=7, **alone)
    assert values(joined) == values(whole)
    with pytest.raises(UsageError, match=r"there is no study 'other' in the storage; there are: .*two"):
        search(storage=storage, study="other", folder="three")


def test_another_version_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(trials=1)
    monkeypatch.setattr("onnxprune.pipeline.search.request.versions", lambda: {"onnxprune": "9.9"})
    with pytest.raises(UsageError, match="another version of onnxprune"):
        searched(trials=2)


def test_passwords_are_not_shown_and_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from onnxprune.pipeline.search import storage

    assert storage.shown("postgresql://me:secret@host/name") == "postgresql://me:***@host/name"
    monkeypatch.setattr(storage, "find_spec", lambda name: None if name == "psycopg" else True)
    with pytest.raises(MissingExtraError, match=r"onnxprune\[search\]"):
        storage.open_storage("postgresql://me:secret@host/name", tmp_path)


@pytest.mark.slow
def test_a_killed_process_loses_no_trial(storage: str, here: Path) -> None:
    """kill -9 in the middle of a trial: another worker finishes the study with the same number of trials."""
    study = begun(storage, "killed", trials=40).study
    words = ["search", "model.onnx", "--data", "samples.npz", "--space", "space.toml", "--trials", "40", "-q"]
    words += ["--storage", storage, "--study", "killed", "-o", "killed"]
    command = [sys.executable, "-m", "onnxprune", *words]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while process.poll() is None and sum(each.state.name == "COMPLETE" for each in study.get_trials()) < 2:
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = study.get_trials()
    broken = [each.params for each in before if each.state.name == "RUNNING"]
    assert len(broken) <= 1
    done = sum(each.state.name == "COMPLETE" for each in before)
    assert 2 <= done < 40
    found = searched(storage=storage, study="killed", folder="killed", trials=40)
    assert len(found.candidates) + found.pruned == 40
    after = [each.params for each in study.get_trials() if each.state.name == "COMPLETE"]
    assert all(params in after for params in broken if params)


@pytest.mark.slow
def test_two_workers_share_a_study(storage: str, here: Path) -> None:
    """Every trial is done once, whoever does it."""
    from onnxprune.data.options import DataOptions
    from onnxprune.pipeline.search.run import search

    chosen = {"space": Path("space.toml"), "storage": storage, "study": "shared", "folder": "shared"}
    data = DataOptions(data="samples.npz")
    found = search(Path("model.onnx"), data=data, trials=24, jobs=2, minimize=["macs", "drop"], **chosen)
    assert 24 <= len(found.candidates) <= 25
    study = optuna.load_study(study_name="shared", storage=begun(storage, "shared").study._storage)
    assert len({each.user_attrs["worker"] for each in study.get_trials()}) == 2
