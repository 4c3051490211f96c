"""What an explainer says of the items of an answer -> a reason for each, in words and numbers.

The words are `recommender/reasons.py`'s, the same that `recserve explain` uses.
"""

from __future__ import annotations

import numpy as np

from bento.asking import Parts
from client.api import Because, Reason, Signal
from recommender.contract import Array
from recommender.data.timing import REAL
from recommender.reasons import Wording
from recommender.release import Release

DIGITS = 6  # after the point: rounding beyond it is not the same on every backend


def wording(release: Release) -> Wording | None:
    """None where release.json names no signals: then it has no explainer."""
    names = release.details.get("signals")
    if not names:
        return None
    return Wording(
        names=names,
        catalogue=release.catalogue,
        user_columns=[column.name for column in release.user_features.columns],
        real_time=release.details.get("time_kind") == REAL,
    )


def reasons(parts: Parts, wording: Wording) -> list[Reason]:
    """One for each item that was asked for."""
    said = len(wording.names)  # the rest is room for other releases' signals
    signals, values, shares = map(_rounded, (parts.signal, parts.value, parts.history_share))
    return [
        _reason(wording, signal[:said], value[:said], share, parts.history)
        for signal, value, share in zip(signals, values, shares, strict=True)
    ]


def _reason(
    wording: Wording, signal_S: Array, value_S: Array, share_L: Array, history_L: Array
) -> Reason:
    found = wording.reason(signal_S, value_S, share_L, history_L)
    return Reason(
        text=found.text,
        items=[
            Because(item_id=item.item_id, title=item.title, contribution=item.contribution)
            for item in found.items
        ],
        signals=[
            Signal(name=signal.name, value=signal.value, contribution=signal.contribution)
            for signal in found.signals
        ],
    )


def _rounded(part: Array) -> Array:
    rounded: Array = np.round(part.astype(np.float64), DIGITS)
    return rounded
