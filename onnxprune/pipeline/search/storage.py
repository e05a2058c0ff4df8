"""Where a study is kept: a file of sqlite, a journal, or a database; and trials of workers that died."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import MissingExtraError, OnnxpruneError
from onnxprune.support.messages import one_line

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

# A worker says every so many seconds that it lives; one that has not for so long is dead.
BEAT, DEAD = 10, 40
# A trial whose worker died is tried so often again: it may be the trial that kills it.
_RETRIES = 2
_WORKER, _BEAT = "worker", "beat"
_SQLITE = (".db", ".sqlite", ".sqlite3")
_PASSWORD = re.compile(r"(://[^:/@]+):[^@/]+@")


def check_search() -> None:
    """Raises MissingExtraError where optuna is not installed; it is not imported."""
    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "search")


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """The storage of a URL or a file; None: study.db in the folder.

    Raises MissingExtraError where a package is missing, OnnxpruneError where nothing can be reached there.
    """
    check_search()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = str(folder / "study.db") if url is None else url
    try:
        if url.endswith(".journal"):
            from optuna.storages.journal import JournalFileBackend

            return optuna.storages.JournalStorage(JournalFileBackend(url))
        return _database(f"sqlite:///{url}" if url.endswith(_SQLITE) and "://" not in url else url)
    except OnnxpruneError:
        raise
    except Exception as error:  # of the driver, whichever it is
        said = one_line(getattr(error, "orig", None) or error)
        raise OnnxpruneError(f"the storage {shown(url)} cannot be opened: {said}") from error


def _database(url: str) -> BaseStorage:
    import optuna

    if re.match(r"postgres(ql)?://", url):
        if find_spec("psycopg") is None:
            raise MissingExtraError("psycopg", "search")
        url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    again = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)
    return optuna.storages.RDBStorage(
        url,
        engine_kwargs=options,
        heartbeat_interval=BEAT,
        grace_period=DEAD,
        heartbeat_stale_trial_callback=again,
    )


def shown(url: str) -> str:
    """A URL without its password."""
    return _PASSWORD.sub(r"\1:***@", url)


def this_worker() -> str:
    """The name of this process among the workers."""
    return f"{socket.gethostname()}:{os.getpid()}"


def take_up_again(study: Study) -> None:
    """Queue trials whose workers died: at once where they ran on this machine, else once they have not been heard of.

    Databases know the latter themselves, when the next trial begins; for a journal, workers note it, see `beating`.
    """
    import optuna

    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if _is_dead(trial):
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):  # another worker was faster
                study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
                queue_again(study, trial)


def queue_again(study: Study, trial: FrozenTrial) -> None:
    """Queue a trial that was broken off, with the same values."""
    import optuna

    if trial.params:
        optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)(study, trial)


def _is_dead(trial: FrozenTrial) -> bool:
    host, _, process = trial.user_attrs.get(_WORKER, "").rpartition(":")
    if host == socket.gethostname() and process.isdigit():
        return int(process) != os.getpid() and not _lives(int(process))
    beat: Any = trial.user_attrs.get(_BEAT)
    return beat is not None and time.time() - beat > DEAD


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    status = Path(f"/proc/{process}/stat")
    # A process that ended and that nobody has waited for.
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@contextlib.contextmanager
def beating(trial: Any) -> Iterator[None]:
    """Note in the storage that the worker of a trial lives, as long as the block lasts, where the storage does not."""
    from optuna.storages import JournalStorage

    trial.set_user_attr(_WORKER, this_worker())
    if not isinstance(trial.storage, JournalStorage):
        yield
        return
    stop = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(Exception):  # a beat that is missed is no reason to end the trial
                trial.storage.set_trial_user_attr(trial._trial_id, _BEAT, time.time())
            if stop.wait(BEAT):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
