"""Does a scorer of foreign make keep the contract? Asked on real histories before it is a run.

What a scorer may get wrong unseen: another number of items, NaN, scores that the graph cannot
tell apart, an answer that depends on padding or on batch neighbours, an export that froze what
should vary. Each is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.contract import Limits
from recommender.errors import RunError
from recommender.features import Request, tensors
from recommender.models.exported import Exported
from recommender.models.families import Blueprint
from recommender.models.scorer import UserInputs
from recommender.models.selection import SCORE_LIMIT, SCORE_STEPS
from recommender.users import Users

TOLERANCE = 1e-4  # of scores, as in the parity check of an export
_BY_EVENT = ("history_BL", "time_BL", "weight_BL")
_LISTED = 100  # best items whose order must survive rounding

_FROZEN = "Something was frozen at export: take no size and no value as a Python number."
_SHARED = "Let no row read the others: no batch statistics, no shared maximum."
_PADDING = "Mask what is 0 in history_BL, and count positions from the end."


def probes(users: Users, limits: Limits) -> list[UserInputs]:
    """Batches of real histories: one of 3, then each length bucket full, a stranger in each."""
    rows = np.random.default_rng(0).permutation(np.flatnonzero(users.lengths))
    asked = [
        Request(
            history=users.history(int(row)),
            request_time=int(users.history(int(row)).times[-1]),
            user_features=users.features[row],
        )
        for row in rows[: limits.max_batch_size - 1]
    ]
    batches = [([*asked[:2], Request()], limits.bucket(24))]
    batches += [([*asked, Request()], bucket) for bucket in limits.length_buckets]
    return [_inputs(batch, limits, length) for batch, length in batches]


def _inputs(asked: Sequence[Request], limits: Limits, length: int) -> UserInputs:
    return UserInputs.of(tensors(asked, limits, length=length))


@torch.inference_mode()
def check_scorer(
    module: nn.Module, exported: Exported, asked: Sequence[UserInputs], blueprint: Blueprint
) -> None:
    """Raise RunError naming the first rule that `module`, or its export, breaks."""
    for user in asked:
        batch, length = user.history_BL.shape
        where = f"batch {batch}, length {length}"
        scores_BN = module(user)
        _check_scores(scores_BN, (batch, blueprint.items))
        seen_BN = exported(user)
        _check_equal(scores_BN, seen_BN, f"its export scores otherwise ({where})", _FROZEN)
        alone = torch.cat([exported(_row(user, row)) for row in (0, batch - 1)])
        _check_equal(seen_BN[[0, -1]], alone, f"a row alone scores otherwise ({where})", _SHARED)
    user = asked[1]  # in the shortest bucket
    scores_BN = exported(user)
    for bucket in blueprint.limits.length_buckets[1:]:
        wider = bucket - user.history_BL.shape[1]
        padded = user._replace(**{f: F.pad(getattr(user, f), (wider, 0)) for f in _BY_EVENT})
        what = f"padding to length {bucket} changes the scores"
        _check_equal(scores_BN, exported(padded), what, _PADDING)


def _row(user: UserInputs, row: int) -> UserInputs:
    return UserInputs(*(t[row : row + 1] for t in user))


def _check_scores(scores_BN: Tensor, wanted: tuple[int, int]) -> None:
    if not isinstance(scores_BN, Tensor) or tuple(scores_BN.shape) != wanted:
        seen = list(scores_BN.shape) if isinstance(scores_BN, Tensor) else type(scores_BN).__name__
        raise RunError(
            f"the module gives {seen}, expected scores of shape {list(wanted)}",
            remedy="Score every index from 0 (padding) to the number of items.",
        )
    real_BN = scores_BN[:, 1:].float()
    if torch.isnan(real_BN).any() or torch.isneginf(real_BN).all(dim=1).any():
        raise RunError(
            "the module gives NaN, or no score at all for a row",
            remedy="A history may be empty: mask with finite numbers, divide by no zero.",
        )
    largest = real_BN[torch.isfinite(real_BN)].abs().max().item()
    if largest > SCORE_LIMIT or torch.isposinf(real_BN).any():
        raise RunError(
            f"the module gives scores up to {largest:g}, the graph tells apart up to "
            f"{SCORE_LIMIT:g}",
            remedy="Divide the scores by a constant.",
        )
    best_BK = real_BN.topk(min(_LISTED, real_BN.shape[1]), dim=1).values
    told = sum(len((row * SCORE_STEPS).round().unique()) for row in best_BK)
    if told < 0.5 * sum(len(row.unique()) for row in best_BK):
        raise RunError(
            f"most scores differ by less than 1/{SCORE_STEPS:.0f}, which the graph cannot tell "
            "apart",
            remedy="Give logits instead of probabilities, or multiply by a constant.",
        )


def _check_equal(wanted_BN: Tensor, seen_BN: Tensor, what: str, remedy: str) -> None:
    if not torch.allclose(wanted_BN.float(), seen_BN.float(), rtol=0, atol=TOLERANCE):
        gap = (wanted_BN.float() - seen_BN.float()).abs().nan_to_num(0).max().item()
        raise RunError(f"the module breaks the contract: {what}, by {gap:.2g}", remedy=remedy)
