"""Pieces of work, each in a process of its own: a crash of one leaves the others alone."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from onnxprune.errors import DamageWarning, OnnxpruneError
from onnxprune.support.progress import Progress


class Failure(str):
    """Why a piece of work failed, in one line."""

    __slots__ = ()


def work_apart(
    work: Callable[[Any, Progress], Any],
    pieces: Sequence[Any],
    at_once: int = 1,
    progress: Callable[[int, str], None] = lambda _, __: None,
) -> Iterator[tuple[int, Any]]:
    """Do every piece of work in a process of its own.

    Args:
        work: a function of a module, called with a piece and what is called with progress.
        pieces: what it is called with; they are sent to the processes.
        at_once: how many processes there are at a time.
        progress: is called with the number of a piece and what is being done for it.

    Yields the number of each piece and what came of it, in the order in which they end: a `Failure` where it failed.
    Processes that still run when the caller stops are ended.
    """
    context = get_context("spawn")
    waiting = deque(enumerate(pieces))
    running: dict[Any, tuple[int, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, piece = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_done, args=(work, piece, theirs), daemon=True)
                process.start()
                theirs.close()  # so that the end of the process is the end of the pipe
                running[ours] = number, process
            for pipe in wait(list(running)):
                number, process = running[pipe]
                kind, found = _received(pipe, process)
                if kind == "progress":
                    progress(number, found)
                    continue
                del running[pipe]
                process.join()
                yield number, Failure(found) if kind == "failure" else found
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _received(pipe: Any, process: SpawnProcess) -> tuple[str, Any]:
    try:
        kind, found = pipe.recv()
        return kind, found
    except EOFError:
        process.join()
        return "failure", f"its process ended with exit code {process.exitcode}; out of memory, perhaps"


def _done(work: Callable[[Any, Progress], Any], piece: Any, pipe: Connection) -> None:
    """Run in the process: sends what came of the piece, and before that what is being done."""
    warnings.simplefilter("ignore", DamageWarning)  # whoever started the process says it
    try:
        found = "result", work(piece, lambda said: pipe.send(("progress", str(said))))
    except OnnxpruneError as error:
        found = "failure", str(error)
    except MemoryError:
        found = "failure", "out of memory"
    except KeyboardInterrupt:
        return
    except Exception as error:  # one failure must not stop the others
        found = "failure", f"unexpected {type(error).__name__}: {error}"
    pipe.send(found)
