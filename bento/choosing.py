"""A question -> the items that a model puts first, within what the question selects.

Exclusions and categories are the model's own business; what it cannot take is done here: an
allow-list, and exclusions beyond its E. Knows no ids and no fallback.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from bento import postprocess, preprocess
from bento.asking import Models
from bento.metrics import Metrics
from bento.postprocess import Ranked
from bento.preprocess import Question
from recommender.contract import RANKER
from recommender.features import Request

ONLY = "only"  # a note: the allow-list met the model's best alone, listed items may be missing


async def best(
    models: Models, model: str, question: Question, until: float, metrics: Metrics, notes: list[str]
) -> Ranked:
    """K items at most. An allow-list is what the ranker puts in order, where there is one."""
    only = question.selection.only
    if only is not None and models.has(RANKER):
        found = await models.ranked(question.request, only, until)
        return found.where(slice(models.release.limits.answers))
    return await _narrowed(models, lambda r: models.best(model, r, until), question, metrics, notes)


async def similar(
    models: Models, item: int, question: Question, until: float, metrics: Metrics, notes: list[str]
) -> Ranked:
    """K items at most, most like `item`."""
    return await _narrowed(
        models, lambda r: models.similar(item, r, until), question, metrics, notes
    )


async def _narrowed(
    models: Models,
    ask: Callable[[Request], Awaitable[Ranked]],
    question: Question,
    metrics: Metrics,
    notes: list[str],
) -> Ranked:
    """The answer of a model that takes exclusions: an allow-list is the exclusion of all
    others where they fit into the request, and chosen from the model's best where not."""
    only, request, release = question.selection.only, question.request, models.release
    if only is not None:
        alone = preprocess.nothing_but(only, request, release.limits, release.items)
        if alone is not None:
            return await ask(alone)
    found = await ask(request)
    if len(question.overflow):
        metrics.overflow.inc(len(question.overflow))
        found = postprocess.without(found, question.overflow)
    if only is not None:
        found = found.where(np.isin(found.item, only))
        notes.append(ONLY)
    return found
