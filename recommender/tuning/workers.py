"""Recipes -> scores: one after another in this process, or several at a time in processes of
their own.

    tasks ─> workers, each with a Bench that it keeps from task to task ─> outcomes, as they end

Every worker has a pipe of its own rather than a share of a ProcessPoolExecutor, which fails as a
whole when a process dies and cannot say at which task. A worker ends with its pipe, so nothing
outlives the command, whatever ended that. Knows no journal.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from recommender.config import Config
from recommender.data.dataset import Dataset
from recommender.errors import MachineError, RecserveError, TrainingError
from recommender.models.learn import Progress, silent
from recommender.tuning.score import Bench, Score
from recommender.users import Users

_EVERY_S = 0.2  # a worker tells of its steps: more often nobody can read
_GRACE_S = 5.0  # to end in, before a worker is killed
# What the libraries below torch (EASE inverts by scipy's OpenBLAS) read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_REMEDY = (
    "Often memory ran out: every job holds the data and tables of its own. Give fewer --jobs; "
    "--resume goes on with the search."
)


@dataclass(frozen=True, kw_only=True)
class Task:
    name: str  # for progress and errors
    config: Config


@dataclass(frozen=True, kw_only=True)
class Outcome:
    score: Score | None  # None: training diverged
    failed: str = ""  # why
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Step:
    what: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Raised:
    error: Exception


@dataclass(frozen=True, kw_only=True, eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection


class Workers:
    """Scores tasks, `jobs` at a time; one job is this process itself. As a context it leaves no
    process behind."""

    def __init__(self, jobs: int, dataset: Dataset, users: Users, folder: Path) -> None:
        self.jobs, self._bench_of = jobs, (dataset, users, folder)
        self._here: Bench | None = None
        self._all: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Nothing is lost with them: their files appear whole or not at all.
        for worker in self._all:
            worker.process.terminate()
        for worker in self._all:
            worker.process.join(_GRACE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._all = []

    def run(
        self, tasks: Sequence[Task], progress: Progress = silent
    ) -> Iterator[tuple[int, Outcome]]:
        """Places in `tasks` with their outcomes, as they end.

        Raises MachineError where a worker dies, and what a task raises but TrainingError.
        """
        if self.jobs > 1:
            yield from self._at_once(tasks, progress)
            return
        if self._here is None:
            self._here = Bench(*self._bench_of)
        for place, task in enumerate(tasks):
            name = task.name

            def named(what: str, done: int, total: int, name: str = name) -> None:
                progress(f"{name}, {what}", done, total)

            yield place, _outcome(self._here, task, named)

    def _at_once(self, tasks: Sequence[Task], progress: Progress) -> Iterator[tuple[int, Outcome]]:
        self._start(min(self.jobs, len(tasks)) - len(self._all))
        idle, waiting = deque(self._all), deque(range(len(tasks)))
        busy: dict[Connection, tuple[_Worker, int]] = {}
        ended = 0
        while waiting or busy:
            while waiting and idle:
                worker, place = idle.popleft(), waiting.popleft()
                busy[worker.pipe] = worker, place
                _tell(worker, tasks[place])
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker, place = busy[pipe]
                message = _heard(worker, tasks[place])
                if isinstance(message, Outcome):
                    ended += 1
                    del busy[pipe]
                    idle.append(worker)
                    yield place, message
                elif place == min(place for _, place in busy.values()):
                    # Of many at work one is shown, the first: a line that jumps is not read.
                    line = f"{tasks[place].name}, {message.what} ({ended} of {len(tasks)} ended)"
                    progress(line, message.done, message.total)

    def _start(self, missing: int) -> None:
        if missing < 1:
            return
        context = multiprocessing.get_context("spawn")  # torch's threads would not survive a fork
        threads = max(1, torch.get_num_threads() // self.jobs)
        new = []
        with _calm(), _environment({name: str(threads) for name in _THREADS}):
            for _ in range(missing):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, threads), daemon=True)
                process.start()
                theirs.close()  # or its end would not be seen
                new.append(_Worker(process=process, pipe=ours))
                self._all.append(new[-1])
        # Only now: a worker takes no data before its imports are done, and all import at once.
        for worker in new:
            _tell(worker, self._bench_of)


def _tell(worker: _Worker, what: Any) -> None:
    """Quiet where it has died, which is seen when its answer is awaited."""
    try:
        worker.pipe.send(what)
    except ConnectionError:
        return


def _heard(worker: _Worker, task: Task) -> Outcome | _Step:
    try:
        message = worker.pipe.recv()
    except (EOFError, ConnectionError):
        worker.process.join(_GRACE_S)
        raise MachineError(
            f"the process of {task.name} {_end(worker.process.exitcode)}", remedy=_REMEDY
        ) from None
    if isinstance(message, Raised):
        raise message.error
    assert isinstance(message, Outcome | _Step)
    return message


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed ({signal.Signals(-code).name})"
    return f"ended by itself (exit code {code})"


@contextmanager
def _calm() -> Iterator[None]:
    """Processes started in it never hear the terminal's Ctrl-C: the command does, and ends them.
    Ours waits until all are started."""
    resource_tracker.ensure_running()  # its own start lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, value in values.items():
            before = os.environ.get(name)
            if before is None:
                stack.callback(os.environ.pop, name, None)
            else:
                stack.callback(os.environ.__setitem__, name, before)
            os.environ[name] = value
        yield


def _outcome(bench: Bench, task: Task, progress: Progress) -> Outcome:
    began, score, failed = time.monotonic(), None, ""
    try:
        score = bench.score(task.config, progress)
    except TrainingError as error:
        failed = str(error)
    return Outcome(score=score, failed=failed, seconds=round(time.monotonic() - began, 2))


def _work(pipe: Connection, threads: int) -> None:
    """A worker's life: a Bench, then tasks until the pipe ends."""
    torch.set_num_threads(threads)
    try:
        bench = Bench(*pipe.recv())
        while True:
            task: Task = pipe.recv()
            pipe.send(tried(bench, task, _told(pipe)))
    except (EOFError, ConnectionError):
        return  # the command has gone


def tried(bench: Bench, task: Task, progress: Progress) -> Outcome | Raised:
    """The outcome, or what is to be raised where it is awaited. Raises ConnectionError alone."""
    try:
        return _outcome(bench, task, progress)
    except RecserveError as error:
        return Raised(error=error)
    except ConnectionError:
        raise  # out of progress: the command has gone
    except Exception as error:
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):  # as torch says
            return Raised(error=MachineError(f"{task.name} ran out of memory", remedy=_REMEDY))
        # Not every exception can be pickled; this one says where it was.
        raised = RuntimeError(f"{task.name}: {type(error).__name__}: {error}")
        raised.add_note(traceback.format_exc())
        return Raised(error=raised)


def _told(pipe: Connection) -> Progress:
    seen, at = "", 0.0

    def tell(what: str, done: int, total: int) -> None:
        nonlocal seen, at
        now = time.monotonic()
        if what != seen or now - at >= _EVERY_S:
            seen, at = what, now
            pipe.send(_Step(what=what, done=done, total=total))

    return tell
