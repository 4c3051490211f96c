"""Ranked indexes and scores -> the items of an answer. Knows no HTTP and no Triton."""

from __future__ import annotations

import math
from collections.abc import Iterable

from client.service import Item
from recommender.catalogue import Catalogue
from recommender.contract import PADDING, Array
from recommender.errors import ReleaseError


def ranked(item: Array, score: Array, overflow: Array, n: int) -> list[tuple[int, float]]:
    """The best `n` of the model's [K] `item` and `score` that may be shown.

    Drops padding, and `overflow`: the exclusions that did not fit into the request.
    """
    dropped = set(overflow.tolist())
    enough = n + len(overflow)  # best first, padding last: what follows cannot be needed
    shown = [
        (index, value)
        for index, value in zip(item[:enough].tolist(), score[:enough].tolist(), strict=True)
        if index != PADDING and math.isfinite(value) and index not in dropped
    ]
    return shown[:n]


def popular(catalogue: Catalogue, indexes: Iterable[int]) -> list[tuple[int, float]]:
    """Popular indexes with their popularity as score."""
    return [(index, float(catalogue.popularity[index - 1])) for index in indexes]


def items(answers: list[tuple[int, float]], part: slice, catalogue: Catalogue) -> list[Item]:
    """The asked part of the ranked answers, in ids and titles; ranks count from the very best.

    Raises ReleaseError for an index the catalogue does not hold: then model and
    catalogue are not of one release.
    """
    chosen = answers[part]
    if any(not 0 < index <= len(catalogue) for index, _ in chosen):
        raise ReleaseError(
            f"the model answered with items beyond the catalogue's {len(catalogue)}",
            remedy="Serve model and catalogue of the same release.",
        )
    return [
        Item(
            item_id=catalogue.item_id(index),
            score=score,
            rank=rank,
            title=catalogue.title(index),
            categories=catalogue.categories_of(index),
        )
        for rank, (index, score) in enumerate(chosen, start=part.start + 1)
    ]
