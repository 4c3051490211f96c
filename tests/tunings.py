"""Searches of seconds, for the tests of tuning."""

from __future__ import annotations

from pathlib import Path

from trainings import small

from recommender.data.config import DataConfig
from recommender.data.dataset import Dataset
from recommender.tune import Effort, tune
from recommender.tuning.verdict import Tuned

QUICK = ("training.epochs=2", "mixer.cut_epochs=2", "mixer.queries=100", "mixer.batch=32")
BASE = small(*QUICK)
EFFORT = Effort(trials=3, finalists=1, seeds=2)


def search(data: Dataset, out: Path, *, effort: Effort = EFFORT, **more: object) -> Tuned:
    return tune(data, out, **{"config": BASE, "data": DataConfig(), "effort": effort, **more})


class Steps:
    """A Progress that remembers, and interrupts at its first step of `stop`."""

    def __init__(self, stop: str = "") -> None:
        self.stop, self.seen = stop, set()

    def __call__(self, what: str, done: int, total: int) -> None:
        self.seen.add(what)
        if what == self.stop:
            raise KeyboardInterrupt


def outcome(tuned: Tuned) -> list[object]:
    return [(trial.number, trial.settings, trial.score) for trial in tuned.trials]
