"""What a search found, and whether it is worth a change of recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recommender.config import Config, to_json
from recommender.tuning.score import Score
from recommender.tuning.space import Setting, changed, described
from recommender.tuning.trials import Trial


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A trial again with fresh seeds. `gains` are over the base with the same seed; spreads are
    standard deviations over seeds, 0 of one seed. No `gains` where any seed diverged."""

    trial: int
    scores: tuple[Score | None, ...]
    mean: float | None
    spread: float
    gains: tuple[float, ...]

    @classmethod
    def of(
        cls, trial: int, scores: Sequence[Score | None], base: Sequence[Score | None]
    ) -> Finalist:
        whole = all(scores)
        values = np.array([s.value for s in scores if s])
        return cls(
            trial=trial,
            scores=tuple(scores),
            mean=float(values.mean()) if whole else None,
            spread=_spread(values),
            gains=tuple(s.value - b.value for s, b in zip(scores, base, strict=True) if s and b)
            if whole
            else (),
        )

    @property
    def gain(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.gains)) if self.gains else float("-inf")

    @property
    def gain_spread(self) -> float:
        return _spread(np.array(self.gains))

    @property
    def earned(self) -> bool:
        return self.gain > self.gain_spread

    def to_json(self) -> dict[str, Any]:
        return {
            "trial": self.trial,
            "seeds": [score.to_json() if score else None for score in self.scores],
            "mean": self.mean,
            "spread": self.spread,
            "gain": self.gain if self.gains else None,
            "gain_spread": self.gain_spread,
            "earned": self.earned,
        }


def _spread(values: Any) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """`finals` begins with the base; `rows` of `all_rows` were allowed."""

    trials: tuple[Trial, ...]
    finals: tuple[Finalist, ...]
    ended: str  # why the search ended
    base: Config
    space: tuple[Setting, ...]
    protocol: str
    data: str  # digest
    rows: int
    all_rows: int
    seeds: tuple[int, ...]

    @property
    def leader(self) -> Finalist | None:
        """The best with fresh seeds among what beat the base in the search."""
        return max(self.finals[1:], key=lambda f: f.gain, default=None)

    @property
    def proposed(self) -> Trial | None:
        """None: the base recipe stays."""
        leader = self.leader
        return self.trials[leader.trial] if leader and leader.earned else None

    @property
    def best(self) -> Config:
        """The recipe proposed, with the base's own seed."""
        return changed(self.base, self.proposed.settings) if self.proposed else self.base

    @property
    def verdict(self) -> str:
        leader, seeds = self.leader, len(self.seeds)
        if leader is None:
            return f"Nothing better than the recipe given in {len(self.trials)} trials: it stays."
        if not leader.gains:
            return "What beat the recipe given diverges with other seeds: the recipe stays."
        seen = (
            f"trial {leader.trial} gains {leader.gain:+.4f} over the recipe given, "
            f"with a spread of {leader.gain_spread:.4f} over {seeds} fresh seeds"
        )
        if leader.earned:
            return f"Proposed: {seen}."
        return f"The recipe given stays: {seen}, which is no gain to rely on."

    def to_json(self) -> dict[str, Any]:
        proposed = self.proposed
        return {
            "verdict": self.verdict,
            "proposed": proposed.number if proposed else None,
            "settings": dict(proposed.settings) if proposed else {},
            "score": "NDCG@10, mean of next_item and window; see docs/tuning.md",
            "protocol": self.protocol,
            "rows": {"allowed": self.rows, "all": self.all_rows},
            "data": self.data,
            "ended": self.ended,
            "seed": self.base.training.seed,
            "fresh_seeds": list(self.seeds),
            "trials": [trial.to_json() for trial in self.trials],
            "finals": [finalist.to_json() for finalist in self.finals],
            "space": described(self.space),
            "base": to_json(self.base),
        }
