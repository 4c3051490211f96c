"""Several trials at a time: a search as deterministic and as resumable as one after another, and
no process is left, whatever ends it."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from trainings import small
from tunings import BASE, EFFORT, QUICK, outcome, search

from recommender import errors
from recommender.data.config import DataConfig
from recommender.data.dataset import Dataset, load
from recommender.data.synthetic import write_synthetic
from recommender.errors import MachineError, TrainingError
from recommender.tune import ENCODERS, FINALS, JOURNAL
from recommender.tuning.score import Bench, Score, allowed_rows
from recommender.tuning.space import changed, space_of, to_toml
from recommender.tuning.trials import Journal, Trial
from recommender.tuning.verdict import Tuned
from recommender.tuning.workers import Raised, Task, tried

TWO = replace(EFFORT, trials=4, jobs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs") / "data"
    write_synthetic(folder, users=60, items=40, events=900, seed=5)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load(folder)[0]


@pytest.fixture(scope="module")
def tuned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two") / "tuned"


@pytest.fixture(scope="module")
def two(data: Dataset, tuned_folder: Path) -> Tuned:
    """A search by two jobs that nothing interrupts."""
    return search(data, tuned_folder, effort=TWO)


def journal_of(folder: Path) -> Journal:
    return Journal(folder / JOURNAL, space_of(BASE, "mixer"), BASE.training.seed)


def copy_with(tuned_folder: Path, trials: int, to: Path) -> Path:
    """The folder as an interruption after so many `trials` would have left it."""
    shutil.copytree(tuned_folder, to)
    shutil.rmtree(to / FINALS)
    lines = (to / JOURNAL).read_text().splitlines(keepends=True)
    while len(journal_of(to).trials) > trials:
        lines.pop()
        (to / JOURNAL).write_text("".join(lines))
    return to


def test_two_jobs_keep_every_trial_in_order(two: Tuned, tuned_folder: Path) -> None:
    trials = journal_of(tuned_folder).trials
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert trials == two.trials
    assert len({str(sorted(trial.settings.items())) for trial in trials}) == 4
    assert changed(BASE, trials[0].settings) == BASE
    assert not (tuned_folder / ENCODERS).exists()
    assert not multiprocessing.active_children()


def test_a_trial_scores_the_same_beside_others_as_alone(
    two: Tuned, data: Dataset, tmp_path: Path
) -> None:
    """With as many threads: who makes an encoder and who reads it changes nothing."""
    bench = Bench(data, allowed_rows(data, two.protocol), tmp_path / "encoders")
    for trial in two.trials:
        assert bench.score(changed(BASE, trial.settings)) == trial.score
    (base, *_), seed = two.finals, two.seeds[1]
    assert bench.score(changed(BASE, {"training.seed": seed})) == base.scores[1]


@pytest.mark.parametrize("ended", [2, 3])  # a round; half of one
def test_interrupted_between_rounds_or_within_one_it_comes_to_the_same(
    two: Tuned, data: Dataset, tuned_folder: Path, tmp_path: Path, ended: int
) -> None:
    folder = copy_with(tuned_folder, ended, tmp_path / "tuned")
    resumed = search(data, folder, effort=TWO, resume=True)
    assert outcome(resumed) == outcome(two)
    assert resumed.finals == two.finals


def test_one_job_goes_on_with_what_two_began(
    two: Tuned, data: Dataset, tuned_folder: Path, tmp_path: Path
) -> None:
    folder = copy_with(tuned_folder, 3, tmp_path / "tuned")
    resumed = search(data, folder, effort=replace(TWO, jobs=1), resume=True)
    assert outcome(resumed)[:3] == outcome(two)[:3]
    assert [trial.number for trial in resumed.trials] == [0, 1, 2, 3]


class Killing:
    """A Progress that kills one of the workers at the first step of any."""

    def __init__(self, which: int) -> None:
        self.which, self.done = which, False

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self.done:
            started = sorted(
                multiprocessing.active_children(), key=lambda p: int(p.name.rpartition("-")[2])
            )
            os.kill(started[self.which].pid or 0, signal.SIGKILL)
        self.done = True


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_worker_ends_the_search_and_names_its_trial(
    two: Tuned, data: Dataset, tmp_path: Path, which: int
) -> None:
    out = tmp_path / "tuned"
    with pytest.raises(MachineError) as raised:
        search(data, out, effort=TWO, progress=Killing(which))
    assert f"trial {which + 1} of 4 was killed (SIGKILL)" in str(raised.value)
    assert "--jobs" in raised.value.remedy
    assert not multiprocessing.active_children()
    assert outcome(search(data, out, effort=TWO, resume=True)) == outcome(two)


def test_a_base_that_diverges_in_a_worker_is_refused(data: Dataset, tmp_path: Path) -> None:
    recipe = small(*QUICK, "mixer.learning_rate=1e8", "mixer.epochs=3")
    with pytest.raises(TrainingError, match="the recipe given"):
        search(data, tmp_path / "tuned", config=recipe, effort=TWO)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(
    folder: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    recipe, log = tmp_path / "base.toml", tmp_path / "stderr"
    recipe.write_text(to_toml(BASE, DataConfig(), ""))
    command = [
        sys.executable, "-m", "serving.cli", "tune", str(folder), "--out", str(tmp_path / "tuned"),
        "--config", str(recipe), "--trials", "200", "--jobs", "2",
    ]  # fmt: skip
    with log.open("w") as errors:
        process = subprocess.Popen(command, stderr=errors, start_new_session=True)
    try:
        begun = psutil.Process(process.pid)
        until = time.monotonic() + 120
        while not list((tmp_path / "tuned").glob(f"{ENCODERS}/*/checkpoint*")):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        children = begun.children(recursive=True)
        assert len(children) >= 2
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)  # as a terminal does: the workers get it, too
        else:
            os.kill(process.pid, signum)
        code = process.wait(60)
        assert code == (130 if signum == signal.SIGINT else -signum)
        _, left = psutil.wait_procs(children, timeout=60)
        assert not left
        assert "Traceback" not in log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("take", [bytearray, torch.empty])
def test_memory_that_cannot_be_had_is_said_with_the_trial(
    data: Dataset, tmp_path: Path, take: Callable[[int], object]
) -> None:
    def progress(what: str, done: int, total: int) -> None:
        take(1 << 60)

    bench = Bench(data, allowed_rows(data, "both"), tmp_path)
    found = tried(bench, Task(name="trial 7 of 9", config=BASE), progress)
    assert isinstance(found, Raised)
    assert isinstance(found.error, MachineError)
    assert "trial 7 of 9 ran out of memory" in str(found.error)


def test_a_fault_in_a_worker_names_the_trial_and_keeps_its_traceback(
    data: Dataset, tmp_path: Path
) -> None:
    def progress(what: str, done: int, total: int) -> None:
        raise ValueError("no such luck")

    bench = Bench(data, allowed_rows(data, "both"), tmp_path)
    found = tried(bench, Task(name="trial 7 of 9", config=BASE), progress)
    assert isinstance(found, Raised)
    ours, theirs = multiprocessing.Pipe()
    theirs.send(found)
    error = ours.recv().error
    assert str(error) == "trial 7 of 9: ValueError: no such luck"
    assert "in progress" in error.__notes__[0]


def test_an_encoder_that_another_process_makes_is_waited_for(data: Dataset, tmp_path: Path) -> None:
    bench = Bench(data, allowed_rows(data, "both"), tmp_path)
    bench.score(BASE)
    (encoders,) = tmp_path.iterdir()
    steps: list[str] = []
    reached = threading.Event()

    def seen(what: str, done: int, total: int) -> None:
        steps.append(what)
        reached.set()

    other = Bench(data, allowed_rows(data, "both"), tmp_path)
    with (encoders / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=other.score, args=(BASE, seen))
        thread.start()
        assert reached.wait(60)
        thread.join(0.5)
        assert steps == ["encoders"]
    thread.join()
    assert "signals" in steps
    assert not [step for step in steps if "epoch" in step and "mixer" not in step]  # it was read


def test_what_a_round_proposes_depends_on_the_rounds_before_it_alone(tmp_path: Path) -> None:
    """How far an interrupted round had come, and how its trials ended, changes no proposal."""
    space = space_of(BASE, "mixer")

    def trial(number: int, settings: dict[str, object], value: float) -> Trial:
        score = Score(next_item=value, window=None)
        return Trial(number=number, settings=settings, score=score, seconds=0.0)

    journal, proposed = Journal(tmp_path / "whole.log", space, 0), []
    for number in range(12):
        settings = journal.propose()
        assert settings is not None
        journal.add(trial(number, settings, value=settings["mixer.epochs"] / 10))
    for _ in range(4):
        proposed.append(journal.propose(proposed, known=12))
    assert len({str(settings) for settings in proposed}) == 4
    for number, settings in enumerate(proposed[:2], 12):
        journal.add(trial(number, settings, value=5.0))
    assert journal.propose(known=12) == proposed[2]
    assert journal.propose([proposed[2]], known=12) == proposed[3]
    assert journal.propose() != proposed[2]


@pytest.mark.parametrize("kind", [errors.BadInput, errors.DataError, errors.MachineError])
def test_an_error_of_ours_comes_whole_out_of_another_process(
    kind: type[errors.RecserveError],
) -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.send(kind("the column is empty", remedy="Fill it.", field="items", value=3))
    seen = ours.recv()
    assert type(seen) is kind
    assert str(seen) == "the column is empty. Fill it."
    assert (seen.what, seen.remedy, seen.field, seen.value) == (
        "the column is empty", "Fill it.", "items", 3,
    )  # fmt: skip
