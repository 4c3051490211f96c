"""What an explainer says of the items of an answer -> a reason for each, in words and numbers.

The words are `recommender/reasons.py`'s, the same that `recserve explain` uses.
"""

from __future__ import annotations

import logging

import numpy as np
from msgspec.structs import replace

from bento.asking import Models, Parts
from client.api import Because, Item, Reason, Signal
from recommender.contract import Array
from recommender.data.timing import REAL
from recommender.errors import RecserveError
from recommender.features import Request
from recommender.reasons import Wording
from recommender.release import Release

log = logging.getLogger("bentoml.recserve")

EXPLANATIONS = "explanations"  # a note: not every item has the reason that was asked for
DIGITS = 6  # after the point: rounding beyond it is not the same on every backend


class Explaining:
    """Of one release."""

    def __init__(self, release: Release) -> None:
        self._release, self._wording = release, _wording(release)

    async def explained(
        self,
        items: list[Item],
        request: Request,
        models: Models | None,
        until: float,
        notes: list[str],
    ) -> list[Item]:
        """With reasons, where the explainer answers in time; popular items (then `models` is None)
        and pinned ones have none: they are not shown for their score."""
        wanted = [item for item in items if not item.pinned]
        some = [] if models is None else wanted[: self._release.limits.explained]
        given: dict[str, Reason] = {}
        if some and models is not None and self._wording is not None:
            indexes = self._release.catalogue.indexes(item.item_id for item in some)
            try:
                parts = await models.explained(request, indexes, until)
            except RecserveError as error:
                log.debug("no reasons: %s", error)
            else:
                found = reasons(parts, self._wording)
                given = {item.item_id: why for item, why in zip(some, found, strict=True)}
        if len(given) < len(wanted):
            notes.append(EXPLANATIONS)
        return [replace(item, reason=given.get(item.item_id)) for item in items]


def _wording(release: Release) -> Wording | None:
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
