"""Trials, proposed by Optuna's TPE and kept in a journal: what ended, and nothing else.

Each proposal depends on the seed and the trials before it alone (of those that run beside it,
on what they try), so a search that was interrupted goes on to the trials it would have made.
`optuna-dashboard` reads the journal. Knows no training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from recommender.tuning.score import Score
from recommender.tuning.space import Setting

_STARTUP = 8  # trials drawn evenly before those that learn from others
_ATTEMPTS = 30  # draws of a recipe that was not tried before
_DIGITS = 3  # of a drawn number: a recipe should be readable

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Trial:
    number: int
    settings: Mapping[str, Any]  # section.key -> value, of the whole space
    score: Score | None  # None: training diverged
    seconds: float
    failed: str = ""

    def to_json(self) -> dict[str, Any]:
        found = self.score.to_json() if self.score else {"score": None}
        outcome = {"seconds": self.seconds, **({"failed": self.failed} if self.failed else {})}
        return {"trial": self.number, "settings": dict(self.settings), **found, **outcome}


class Journal:
    """The trials of one search in `file`, oldest first; number 0 is the base recipe."""

    def __init__(self, file: Path, space: Sequence[Setting], seed: int) -> None:
        self.seed = seed
        self.space = {setting.name: setting.distribution() for setting in space}
        self._log_above_0 = {setting.name for setting in space if setting.log}
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))),
            study_name="recserve",
            direction="maximize",
            load_if_exists=True,
        )

    @property
    def trials(self) -> tuple[Trial, ...]:
        return tuple(map(_trial, self._study.get_trials()))

    def add(self, trial: Trial) -> None:
        score = trial.score
        self._study.add_trial(
            self._frozen(
                trial.settings,
                # Pruned, not failed: TPE learns from it to stay away.
                state=TrialState.COMPLETE if score else TrialState.PRUNED,
                value=score.value if score else None,
                user_attrs={
                    "settings": dict(trial.settings),
                    "next_item": score.next_item if score else None,
                    "window": score.window if score else None,
                    "seconds": trial.seconds,
                    "failed": trial.failed,
                },
            )
        )

    def propose(
        self, beside: Sequence[Mapping[str, Any]] = (), *, known: int | None = None
    ) -> dict[str, Any] | None:
        """Settings of the trial after those that ended and those `beside` it, which run at the
        same time; not tried yet, None where the space seems to hold no others.

        How the trials from number `known` on ended is not looked at, as if they still ran: what
        is proposed must not depend on which of a round an interruption let end.
        """
        past = self._study.get_trials()
        ended = past[:known]
        rest = past[len(ended) :]
        running = [*(trial.user_attrs["settings"] for trial in rest), *beside]
        tried = [*(trial.user_attrs["settings"] for trial in ended), *running]
        for attempt in range(_ATTEMPTS):
            seed = np.random.SeedSequence((self.seed, len(tried), attempt)).generate_state(1)
            # A constant liar takes what still runs for bad, and so looks elsewhere.
            sampler = TPESampler(seed=int(seed[0]), n_startup_trials=_STARTUP, constant_liar=True)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.add_trials(ended)
            study.add_trials(
                [self._frozen(settings, state=TrialState.RUNNING) for settings in running]
            )
            drawn = study.ask(self.space).params
            settings = {name: self._rounded(name, value) for name, value in drawn.items()}
            if settings not in tried:
                return settings
        return None

    def _frozen(self, settings: Mapping[str, Any], **more: Any) -> FrozenTrial:
        drawn = {k: v for k, v in settings.items() if v > 0 or k not in self._log_above_0}
        return optuna.trial.create_trial(
            params=drawn, distributions={name: self.space[name] for name in drawn}, **more
        )

    def _rounded(self, name: str, value: float) -> float:
        if isinstance(value, int):
            return value
        space = self.space[name]
        assert isinstance(space, optuna.distributions.FloatDistribution)
        return min(space.high, max(space.low, float(f"{value:.{_DIGITS}g}")))


def _trial(frozen: FrozenTrial) -> Trial:
    seen = frozen.user_attrs
    return Trial(
        number=frozen.number,
        settings=seen["settings"],
        score=None if seen["failed"] else Score(next_item=seen["next_item"],
                                                window=seen["window"]),
        seconds=seen["seconds"],
        failed=seen["failed"],
    )  # fmt: skip
