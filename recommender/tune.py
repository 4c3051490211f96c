"""Tune a recipe: choose its settings on validation, and say whether the choice is worth it.

allowed rows ─> trial 0: the recipe given ─┐
                trials 1.. by TPE ─────────┴─> the best few, again with fresh seeds
                                               ─> proposed if its gain exceeds its spread

With several jobs, trials run by rounds of as many; those of a round do not know how each other
end. A round begins at a multiple of the jobs, so that it is the same however often the search
was interrupted.

TUNE_DIR/started.json             what is tuned: data, rows, recipe, space
TUNE_DIR/journal.log              every trial that ended (an Optuna journal)
TUNE_DIR/finals/TRIAL-SEED.json   the best few again
TUNE_DIR/encoders/                only while it runs: what an interruption does not lose
TUNE_DIR/best.toml  tune.json  tune.html
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recommender.config import Config, to_json
from recommender.data.config import DataConfig
from recommender.data.dataset import Dataset
from recommender.data.timing import REAL
from recommender.errors import RunError, TrainingError
from recommender.models.learn import Progress, silent
from recommender.tuning.page import page
from recommender.tuning.score import BOTH, LEAVE_ONE_OUT, Score, allowed_rows, tidy
from recommender.tuning.space import Setting, changed, described, space_of, to_toml, value_of
from recommender.tuning.trials import Journal, Trial
from recommender.tuning.verdict import Finalist, Tuned
from recommender.tuning.workers import Outcome, Task, Workers

STARTED, JOURNAL, FINALS, ENCODERS = "started.json", "journal.log", "finals", "encoders"
BEST, FIGURES, PAGE = "best.toml", "tune.json", "tune.html"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to search, and how well to look at what was found."""

    trials: int = 40  # of the whole search, the base included
    minutes: float | None = None  # of this call: no trial starts after them
    finalists: int = 3  # that are run again beside the base, at most
    seeds: int = 3  # fresh ones, which the search did not see
    jobs: int = 1  # trials at a time; above 1, each in a process of its own


def tune(
    dataset: Dataset,
    out: Path,
    *,
    config: Config,
    data: DataConfig,
    protocol: str | None = None,
    space: str = "mixer",
    only: Sequence[str] = (),
    effort: Effort = Effort(),
    resume: bool = False,
    progress: Progress = silent,
) -> Tuned:
    """Search around `config` on the rows of `dataset` that `protocol` (leave-one-out, temporal or
    both; default: both, leave-one-out where time is made up) does not test; write `out`.

    `data` is how the folder was read, for best.toml. Raises RunError where `out` is taken, or was
    begun on other data, another recipe or space; TrainingError where the base recipe diverges;
    MachineError where a job's process dies.
    """
    protocol = protocol or (BOTH if dataset.time_kind == REAL else LEAVE_ONE_OUT)
    settings = space_of(config, space, only)
    users = allowed_rows(dataset, protocol)
    _begin(out, dataset, config, settings, protocol, resume)
    journal = Journal(out / JOURNAL, settings, config.training.seed)
    with Workers(effort.jobs, dataset, users, out / ENCODERS) as workers:
        ended = _search(workers, journal, config, effort, out, progress)
        finals = _run_again(workers, journal.trials, config, effort, out, progress)
    tuned = Tuned(
        trials=journal.trials,
        finals=finals,
        ended=ended,
        base=config,
        space=settings,
        protocol=protocol,
        data=dataset.digest,
        rows=len(users.items),
        all_rows=len(dataset.users.items),
        seeds=tuple(_fresh(config, effort.seeds)),
    )
    (out / BEST).write_text(to_toml(tuned.best, data, tuned.verdict))
    (out / FIGURES).write_text(json.dumps(tuned.to_json(), indent=2) + "\n")
    (out / PAGE).write_text(page(tuned))
    shutil.rmtree(out / ENCODERS, ignore_errors=True)
    return tuned


def check_free(out: Path, *, resume: bool) -> None:
    """Raise RunError where a search may not write."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file", remedy="Name a folder that does not exist yet.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / STARTED).is_file():
        raise RunError(f"{out} is not empty and holds no search", remedy="Name another --out.")
    if not resume:
        raise RunError(
            f"{out} holds a search already",
            remedy="Pass --resume to go on with it, or name another --out.",
        )


def _begin(
    out: Path,
    dataset: Dataset,
    config: Config,
    space: Sequence[Setting],
    protocol: str,
    resume: bool,
) -> None:
    check_free(out, resume=resume)
    identity = json.loads(
        json.dumps(
            {
                "data": dataset.digest,
                "protocol": protocol,
                "recipe": to_json(config),
                "space": described(space),
            }
        )
    )
    if (out / STARTED).exists():
        seen = json.loads((out / STARTED).read_text())
        if other := [name for name in identity if seen.get(name) != identity[name]]:
            raise RunError(
                f"{out} was begun with another {' and another '.join(other)}",
                remedy="Give the same as then, or name another --out.",
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    _write(out / STARTED, identity)


def _search(
    workers: Workers,
    journal: Journal,
    config: Config,
    effort: Effort,
    out: Path,
    progress: Progress,
) -> str:
    """Run trials until `effort` is spent; says why it ended. What diverges is a trial, too."""
    started = time.monotonic()
    while (first := len(journal.trials)) < effort.trials:
        spent = (time.monotonic() - started) / 60
        late = effort.minutes is not None and spent >= effort.minutes
        if first and late:
            return f"after {effort.minutes:g} minutes"
        begin = first // effort.jobs * effort.jobs
        last = 1 if late else min(begin + effort.jobs, effort.trials)
        settings = _round(journal, config, begin, last)
        if not settings:
            return "for want of recipes that were not tried"
        tasks = [
            Task(name=f"trial {number + 1} of {effort.trials}", config=changed(config, chosen))
            for number, chosen in enumerate(settings, first)
        ]
        tidy(out / ENCODERS, [task.config for task in tasks])
        for place, outcome in _in_order(workers.run(tasks, progress)):
            number = first + place
            if outcome.failed and number == 0:
                raise TrainingError(
                    f"the recipe given: {outcome.failed}", remedy="Begin from another recipe."
                )
            journal.add(
                Trial(
                    number=number,
                    settings=settings[place],
                    score=outcome.score,
                    seconds=outcome.seconds,
                    failed=outcome.failed,
                )
            )
    return f"after {len(journal.trials)} trials"


def _round(journal: Journal, config: Config, begin: int, last: int) -> list[dict[str, Any]]:
    """Settings of the trials that did not end yet of the round from `begin` to before `last`."""
    found: list[dict[str, Any]] = []
    for number in range(len(journal.trials), last):
        if number == 0:
            found.append({name: value_of(config, name) for name in journal.space})
        elif settings := journal.propose(found, known=begin):
            found.append(settings)
        else:
            break
    return found


def _in_order(outcomes: Iterable[tuple[int, Outcome]]) -> Iterator[tuple[int, Outcome]]:
    """Each as soon as it and all in places before it have ended."""
    early: dict[int, Outcome] = {}
    place = 0
    for ended, outcome in outcomes:
        early[ended] = outcome
        while place in early:
            yield place, early.pop(place)
            place += 1


def _fresh(config: Config, seeds: int) -> range:
    first = config.training.seed + 1
    return range(first, first + seeds)


def _run_again(
    workers: Workers,
    trials: Sequence[Trial],
    config: Config,
    effort: Effort,
    out: Path,
    progress: Progress,
) -> tuple[Finalist, ...]:
    """The base and the best of what beat it, with seeds that chose none of them. Within a seed
    all are asked the same questions, so that their differences are paired."""
    folder = out / FINALS
    folder.mkdir(exist_ok=True)
    base = trials[0].score
    assert base is not None
    better = [t for t in trials[1:] if t.score is not None and t.score.value > base.value]
    better.sort(key=lambda t: t.score.value if t.score else 0.0, reverse=True)
    chosen, seeds = [trials[0], *better[: effort.finalists]], _fresh(config, effort.seeds)
    runs = [(trial, seed) for seed in seeds for trial in chosen]
    if effort.jobs > 1:  # those that share no encoders first: the others would wait for them
        runs = [(trial, seed) for trial in chosen for seed in seeds]
    runs = [(t, seed) for t, seed in runs if not _final(folder, t, seed).exists()]
    tasks = [
        Task(
            name=f"trial {trial.number}, seed {seed}",
            config=changed(config, {**trial.settings, "training.seed": seed}),
        )
        for trial, seed in runs
    ]
    left = {place: task.config for place, task in enumerate(tasks)}
    for place, outcome in workers.run(tasks, progress):
        trial, seed = runs[place]
        if outcome.failed and trial is trials[0]:
            raise TrainingError(
                f"the recipe given, seed {seed}: {outcome.failed}",
                remedy="Begin from another recipe.",
            )
        score = asdict(outcome.score) if outcome.score else None
        _write(_final(folder, trial, seed), {"score": score, "failed": outcome.failed})
        del left[place]
        tidy(out / ENCODERS, list(left.values()))
    scores = {t.number: [_read(_final(folder, t, seed)) for seed in seeds] for t in chosen}
    return tuple(Finalist.of(n, found, scores[0]) for n, found in scores.items())


def _final(folder: Path, trial: Trial, seed: int) -> Path:
    return folder / f"{trial.number}-{seed}.json"


def _read(final: Path) -> Score | None:
    found = json.loads(final.read_text())["score"]
    return Score(**found) if found else None


def _write(file: Path, content: Any) -> None:
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(file)
