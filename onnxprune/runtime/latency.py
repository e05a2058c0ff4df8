"""How long models take in ONNX Runtime, measured so that they can be compared on a machine that others use too.

- **Interleaved**: in every round each model runs once, in an order drawn anew, so that what slows the machine down
  slows all of them down (Bulej et al., "Duet Benchmarking", ICPE 2020).
- **In several sessions**: where a session's memory happens to lie makes it faster or slower for its whole life. All
  sessions are made anew several times, so that this is part of the noise that is seen (Kalibera and Jones, "Rigorous
  Benchmarking in Reasonable Time", ISMM 2013).
- **On two clocks**: with one thread on the CPU the thread's processor time is kept too. Where other programs take the
  processor away for a while, the clock on the wall goes on and that one stops.
- **As deployed**: all graph optimizations, packed weights, memory arena. Only the threads of a session that is not
  running do not spin: they would take the processor from the one that is.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path
from time import perf_counter, thread_time
from types import MappingProxyType
from typing import Any

import numpy as np

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.file import name_of
from onnxprune.model.signature import Feed, Port, Values, synthetic_feed
from onnxprune.runtime.providers import CPU
from onnxprune.runtime.session import Runnable, load, reason, session_options, session_ports
from onnxprune.support.garbage import no_garbage_collection
from onnxprune.support.progress import Counted

# Sessions per model. Differences between sessions are what the interval has to cover, a dozen shows them.
SESSIONS = 12
# A timed piece of work is at least this long, some thousand ticks of the clock.
_SHORTEST_SECONDS = 200e-6
# Where a run is shorter than this, refilling the caches after another model's run would show: it is run once untimed.
_CACHES_MATTER_SECONDS = 10e-3
# ONNX Runtime starts as many as are asked for, and hangs over a mistyped number.
_MOST_THREADS = 1024
# Providers whose inputs and outputs can stay on the device, by the name of that device.
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}

_NO_SIZES: Mapping[str, int] = MappingProxyType({})
_NO_VALUES: Values = MappingProxyType({})


@dataclass(frozen=True)
class Setting:
    """How models are run.

    Attributes:
        provider: execution provider of ONNX Runtime, by its full name.
        batch: size of the inputs' batch axis where that is dynamic.
        threads: that one operator may use; 0 lets ONNX Runtime decide.
        warmup: runs of a new session before it is timed.
    """

    provider: str = CPU
    batch: int = 1
    threads: int = 1
    warmup: int = 5


@dataclass(frozen=True)
class Latency:
    """Measurements of one model.

    Attributes:
        model: path of the file, as given; one word for a model in memory.
        setting: how it was run, with the provider and the batch that it really ran with.
        seconds: of one run, one entry per round; a mean over several runs where one is too short for the clock.
        sessions: which session each of them was measured in, ascending.
        processor_seconds: the same by the thread's processor time; empty where that does not tell, see `measure`.
        load_seconds: to make a session from the file, one entry per session.
        sizes: of the symbolic axes of the inputs.
    """

    model: str
    setting: Setting
    seconds: tuple[float, ...]
    sessions: tuple[int, ...]
    processor_seconds: tuple[float, ...]
    load_seconds: tuple[float, ...]
    sizes: Mapping[str, int]

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return float(np.median(self.seconds))

    @property
    def p90(self) -> float:
        """Seconds that nine of ten runs stay below."""
        return float(np.quantile(self.seconds, 0.90))

    @property
    def p99(self) -> float:
        """Seconds that 99 of 100 runs stay below."""
        return float(np.quantile(self.seconds, 0.99))

    @property
    def throughput(self) -> float:
        """Samples (entries of the batch axis) per second at the median."""
        return self.setting.batch / self.median


def measure_latency(
    models: Sequence[Runnable],
    setting: Setting = Setting(),
    *,
    rounds: int | None = None,
    seconds: float = 2.0,
    feed: Feed | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] = _NO_SIZES,
    values: Values = _NO_VALUES,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Latency]:
    """Time models side by side; entry i of the `seconds` of two of them was measured within one round.

    Processor time is kept for one thread on the CPU: of several threads it is a sum that nobody waits for, and a device
    has a clock of its own. Windows counts it in steps that are too long.

    Args:
        models: files or models in memory, with the same inputs; the same one may be given twice.
        setting: provider, batch, threads, warm-up.
        rounds: how often each model is timed (None: as often as `seconds` allows, once per session at least).
        seconds: of measuring per model, warm-up and loading not counted.
        feed: inputs by name (None: made from the signature of the first model).
        seed: of the order within a round, and of made inputs.
        sizes: of symbolic axes by name or `input[axis]`; 1 where nothing is said.
        values: what inputs may hold that are made up, by their names.
        progress: is called with which session is being timed.

    Raises UsageError for inputs that do not fit or numbers that make no sense, ModelError when a model does not run.
    """
    _check(models, setting, rounds, seconds)
    rng = random.Random(seed)
    turns = [_Turn(model) for model in models]
    sessions = SESSIONS if rounds is None else min(SESSIONS, rounds)
    for session in range(sessions):
        progress(Counted(f"timing, session {session + 1} of {sessions}", session, sessions))
        for turn in rng.sample(turns, len(turns)):
            turn.load(setting)
        if feed is None:
            feed = made_inputs(turns[0].inputs, setting.batch, sizes, seed, values)
        for turn in turns:
            _check_inputs(turn, turns[0], feed)
        with no_garbage_collection():
            for turn in rng.sample(turns, len(turns)):
                turn.warm_up(feed, setting, seconds / sessions)
            share = None if rounds is None else rounds // sessions + (session < rounds % sessions)
            for _ in _rounds(share, seconds * len(turns) / sessions):
                for turn in rng.sample(turns, len(turns)):
                    turn.time(session)
        for turn in turns:
            turn.close()
    assert feed is not None
    return [turn.result(setting, feed) for turn in turns]


def _check(models: Sequence[Runnable], setting: Setting, rounds: int | None, seconds: float) -> None:
    if not models:
        raise UsageError("no model is given: give the path of at least one")
    for name, number, least in (
        ("batch", setting.batch, 1),
        ("threads", setting.threads, 0),
        ("warmup", setting.warmup, 0),
        ("rounds", rounds, 1),
    ):
        if number is not None and number < least:
            raise UsageError(f"{name} {number} makes no sense: give {least} or more")
    if setting.threads > _MOST_THREADS:
        raise UsageError(f"threads {setting.threads} makes no sense: give at most {_MOST_THREADS}, or 0 for all cores")
    if not 0 < seconds < inf:
        raise UsageError(f"seconds {seconds:g} makes no sense: give the time to measure each model for, like 2")


def _rounds(count: int | None, seconds: float) -> Iterator[None]:
    """So many rounds, or as many as begin within the time, but one."""
    if count is not None:
        yield from (None for _ in range(count))
        return
    end = perf_counter() + seconds
    yield
    while perf_counter() < end:
        yield


def made_inputs(
    ports: Sequence[Port],
    batch: int,
    sizes: Mapping[str, int] = _NO_SIZES,
    seed: int = 0,
    values: Values = _NO_VALUES,
) -> Feed:
    """Inputs from the signature, with a dynamic batch axis of that size unless `sizes` says something else.

    What they hold is in `values`, see `synthetic_feed`.

    Raises UsageError where the batch is asked for and no input has such an axis.
    """
    symbols = [port.batch_symbol for port in ports if port.batch_symbol is not None]
    feed = synthetic_feed(ports, {**dict.fromkeys(symbols, batch), **sizes}, seed, values)
    if batch > 1 and batch not in _batch_sizes(ports, feed):
        shapes = ", ".join(f"'{port.name}' {port}" for port in ports)
        raise UsageError(f"batch {batch} cannot be run: the model's inputs have fixed sizes ({shapes}); leave it out")
    return feed


def _batch_sizes(ports: Sequence[Port], feed: Feed) -> list[int]:
    """The sizes of the batch axes of the inputs that have one."""
    return [feed[port.name].shape[port.batch_axis] for port in ports if port.shape and port.batch_axis is not None]


def _check_inputs(turn: _Turn, first: _Turn, feed: Feed) -> None:
    expected = {port.name for port in turn.inputs}
    if expected != set(feed):
        raise UsageError(
            f"{turn.name} takes the inputs {', '.join(sorted(expected))}, but the data has {', '.join(sorted(feed))}"
            + ("" if turn is first else f" as {first.name}; models are compared on the same inputs")
        )


class _Turn:
    """One model's part in the measurement: its session of the moment, and the times so far."""

    def __init__(self, model: Runnable) -> None:
        self.name = name_of(model)
        self._model = model
        self.provider = ""
        self._run: Callable[[], object] = lambda: None
        self._session: Any = None
        self._repeat = 0
        self._settle = False
        self._times: list[tuple[float, float]] = []
        self._sessions: list[int] = []
        self._loads: list[float] = []

    def load(self, setting: Setting) -> None:
        start = perf_counter()
        self._session = deployed_session(self._model, setting.provider, setting.threads)
        self._loads.append(perf_counter() - start)
        self.provider = self._session.get_providers()[0]
        self.inputs = session_ports(self._session)[0]

    def close(self) -> None:
        self._session, self._run = None, lambda: None

    def warm_up(self, feed: Feed, setting: Setting, budget: float) -> None:
        """Run untimed, as often as asked but not for longer than the measurement itself; the first time, learn how long
        a run takes.
        """
        try:
            self._run = _runner(self._session, feed, _DEVICES.get(self.provider))
            start = perf_counter()
            self._run()
            for _ in range(setting.warmup - 1):
                if perf_counter() - start > budget:
                    break
                self._run()
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run {Path(self.name).name}: {reason(error)}") from error
        if not self._repeat:
            once = min(self._timed(1)[0] for _ in range(3))
            self._repeat = max(1, ceil(_SHORTEST_SECONDS / once))
            self._settle = once < _CACHES_MATTER_SECONDS

    def time(self, session: int) -> None:
        if self._settle:
            self._run()
        self._times.append(self._timed(self._repeat))
        self._sessions.append(session)

    def _timed(self, repeat: int) -> tuple[float, float]:
        """Seconds of one run, of `repeat` in a row: on the wall, and on the processor."""
        run, runs = self._run, range(repeat)
        start, start_on_processor = perf_counter(), thread_time()
        for _ in runs:
            run()
        on_processor = thread_time() - start_on_processor
        return (perf_counter() - start) / repeat, on_processor / repeat

    def result(self, setting: Setting, feed: Feed) -> Latency:
        batches = _batch_sizes(self.inputs, feed)
        used = replace(setting, provider=self.provider, batch=batches[0] if batches else 1)
        sizes = {
            port.symbol(axis): feed[port.name].shape[axis]
            for port in self.inputs
            for axis, size in enumerate(port.shape)
            if not isinstance(size, int)
        }
        seconds, on_processor = (tuple(times) for times in zip(*self._times, strict=True))
        counts = self.provider == CPU and setting.threads == 1 and sys.platform != "win32"
        return Latency(
            self.name, used, seconds, tuple(self._sessions), on_processor if counts else (), tuple(self._loads), sizes
        )


def deployed_session(model: Runnable, provider: str, threads: int = 1, *, profile: Path | None = None) -> Any:
    """An `onnxruntime.InferenceSession` with the settings that a server would use.

    Args:
        model: a file, or a model in memory.
        provider: full name of the execution provider; what it cannot run goes to the CPU.
        threads: of one operator; 0 lets ONNX Runtime decide.
        profile: start of the name of a file to write a profile to.

    Raises MissingExtraError without ONNX Runtime, ModelError with one line when it refuses the model.
    """
    options = session_options()
    options.graph_optimization_level = type(options.graph_optimization_level).ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return load(model, options, list(dict.fromkeys([provider, CPU])))


def _runner(session: Any, feed: Feed, device: str | None) -> Callable[[], object]:
    """One run as a function; on a device the inputs are there already and the outputs stay there."""
    if device is None:
        return lambda: session.run(None, feed)
    import onnxruntime

    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
    for port in session.get_outputs():
        binding.bind_output(port.name, device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run
