"""A run, a user and items -> why each item has its score.

    id ─> the request that `batch` would send ─> explainer (eager PyTorch) ─> words (reasons.py)

The user is asked for as in `recserve batch`: by history and features, a stranger as a new user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recommender.batch import Question, best, check_count, request_of
from recommender.data.timing import REAL
from recommender.errors import NotFound, shown
from recommender.features import tensors
from recommender.models.explain import Explainer, signal_names, take_apart
from recommender.reasons import Reason, Wording
from recommender.runs import Run


@dataclass(frozen=True, kw_only=True)
class Explained:
    item_id: str
    title: str | None
    score: float  # the sum of the reason's signals
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Explanation:
    user_id: str
    known: bool  # False: answered as a new user
    request_time: int  # unix seconds
    real_time: bool  # or made up, and no date
    items: tuple[Explained, ...]


def explain(
    run: Run, user_id: str, item_ids: Sequence[str] = (), *, n: int = 3, at: int | None = None
) -> Explanation:
    """Why `item_ids`, or the user's `n` best items, have their scores; `at` is unix seconds, None
    = the user's last event. An item of the history is explained like any other.

    Raises NotFound for an item that the run does not know or a model that cannot be explained,
    BadInput where `n` is none of its answers.
    """
    catalogue, question = run.blueprint.catalogue, Question(n=n, at=at)
    check_count(run, n)
    explainer = Explainer(run.graph).eval()
    if unknown := next((one for one in item_ids if not catalogue.index(one)), None):
        raise NotFound(
            f"item {shown(unknown)} is not in the run's catalogue of {len(catalogue)} items",
            remedy="Name an item_id of the training data.",
        )
    found = item_ids or best(run, [user_id], question)["item_id"].to_list()
    request = request_of(run, user_id, question, int(run.users.times.max()))
    asked = tensors([request], run.blueprint.limits)
    signal, value, share = take_apart(explainer, asked, catalogue.indexes(found)[None])
    wording = Wording(
        names=signal_names(run.blueprint),
        catalogue=catalogue,
        user_columns=[column.name for column in run.user_features.columns],
        real_time=run.blueprint.time_kind == REAL,
    )
    return Explanation(
        user_id=user_id,
        known=run.users.row(user_id) is not None,
        request_time=request.request_time,
        real_time=wording.real_time,
        items=tuple(
            Explained(
                item_id=item_id,
                title=catalogue.title(catalogue.index(item_id)),
                score=float(np.sum(signal[0, row], dtype=np.float64)),
                reason=wording.reason(
                    signal[0, row], value[0, row], share[0, row], asked["history"][0]
                ),
            )
            for row, item_id in enumerate(found)
        ),
    )
