"""How much an act of a user counts: one set of rules for training data and for live events.

Beside the weights a release carries these, so that an event of a minute ago stands in a
history as it would have stood in the training data. Knows no torch and no store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

EVENT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "view": 1.0,
        "click": 1.0,
        "play": 1.0,
        "like": 2.0,
        "cart": 2.0,
        "rating": 1.0,
        "purchase": 4.0,
        "dislike": -1.0,
        "return": -2.0,
    }
)


@dataclass(frozen=True, kw_only=True)
class ActRules:
    """The choices of a data folder's `[data]` table that live events follow too."""

    # by event name in lower case; a name that is not there counts 1
    weights: Mapping[str, float] = field(default_factory=lambda: dict(EVENT_WEIGHTS))
    burst_seconds: int = 60  # the same act again so soon counts once; 0 = each counts
    half_life_days: float = 30.0  # an act this much older counts half in what is popular

    def weight(self, event: str) -> float:
        return self.weights.get(event.strip().lower(), 1.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "weights": dict(self.weights),
            "burst_seconds": self.burst_seconds,
            "half_life_days": self.half_life_days,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ActRules:
        return cls(**raw)
