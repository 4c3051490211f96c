"""Why an item has its score: the score taken apart, by the very code that gives it.

    user inputs, candidates ─> signal        [B, C, S]  what each signal adds to the score: their
                                                        sum is the score
                               value         [B, C, S]  the signal itself, above its mean over
                                                        the catalogue
                               history_share [B, C, L]  what each event of the history adds, within
                                                        the signals that read the history

The deep model's score is a weighted sum of signals plus a small network of one hidden layer.
Each of its hidden units is linear where it is active and 0 elsewhere, so that for one item the
whole score is linear in the signals. What a signal says of every item alike tells nothing of
this one: only what lies above its mean counts for it, the rest is the last signal, "context"
(and what a unit adds that is only just active).

`history_share` is exact, too: a reading of the history (a head) is a sum over its events, and
its part of the score is shared out as such. The encoder's is not: attention is no sum, and what
leaving out one event would change costs a pass for each. It counts as a single signal.

Candidates that are no item get zeros. Knows neither titles nor words: recommender/reasons.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.config import HEADS
from recommender.contract import Array
from recommender.errors import NotFound
from recommender.models.baselines import READERS, TIE, OneTable, Popularity
from recommender.models.deep import Deep, heads_of, other_names
from recommender.models.families import Blueprint
from recommender.models.graph import Graph
from recommender.models.mixer import Mixer, standardised
from recommender.models.scorer import Scorer, UserInputs
from recommender.models.signals import Reading, Tables

Explainable = Deep | OneTable | Popularity
CONTEXT = "context"
POPULARITY = "popularity"
# Over this stretch above 0 a hidden unit opens. At a step, rounding would decide what a unit that
# is just there adds to which signal, and no two backends would agree.
_FOLD = 0.1


class Parts(NamedTuple):
    """What the score of each candidate is made of, see above."""

    signal_BCS: Tensor
    value_BCS: Tensor
    history_BCL: Tensor


class Explainer(nn.Module):
    """`graph` is a fitted one. forward() takes the contract's first five inputs and `candidates`
    INT64 [B, C]; signals are in the order of `signal_names`, then 0 up to `room` of them.

    Raises NotFound for a scorer that is none of ours: what it adds up is not known.
    """

    def __init__(self, graph: Graph, room: int = 0) -> None:
        super().__init__()
        if not isinstance(graph.scorer, Explainable):
            raise NotFound(
                f"there is no explanation of a {type(graph.scorer).__name__}",
                remedy="Explain a run of deep, ease, item-knn, content or popularity.",
            )
        self.room = room
        self.model = graph  # under the name "graph" torch.export would not find it

    def forward(
        self,
        history: Tensor,
        history_time: Tensor,
        history_weight: Tensor,
        request_time: Tensor,
        user_features: Tensor,
        candidates: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`signal`, `value` and `history_share`."""
        user = self.model.user(history, history_time, history_weight, request_time, user_features)
        candidates_BC = self.model.known(candidates)
        parts = _parts(self.model.scorer, user, candidates_BC)
        item_BC1 = (candidates_BC > 0)[:, :, None]
        signal, value, share = (torch.where(item_BC1, part, 0.0) for part in parts)
        empty = (0, max(0, self.room - signal.shape[2]))
        return F.pad(signal, empty), F.pad(value, empty), share


def signal_names(blueprint: Blueprint) -> tuple[str, ...]:
    """[S]: heads (config.HEADS), `deep.other_names` and "context"; of a single table its name and
    "popularity"."""
    if blueprint.family == "deep":
        config = blueprint.signals
        return (*heads_of(config), *other_names(config, len(blueprint.user_sizes)), CONTEXT)
    if blueprint.family == POPULARITY:
        return (POPULARITY,)
    return HEADS[READERS[blueprint.family]].source, POPULARITY


def _parts(scorer: Scorer, user: UserInputs, candidates_BC: Tensor) -> Parts:
    if isinstance(scorer, Deep):
        return _of_deep(scorer, user, candidates_BC)
    if isinstance(scorer, OneTable):
        return _of_one_table(scorer, user, candidates_BC)
    assert isinstance(scorer, Popularity)
    value_BC1 = F.embedding(candidates_BC, scorer.popularity[:, None])
    return Parts(value_BC1, value_BC1, _nothing(user, candidates_BC))


def _of_one_table(scorer: OneTable, user: UserInputs, candidates_BC: Tensor) -> Parts:
    popularity_N = scorer.tables.popularity
    reading = Reading(scorer.source, user.history_BL, scorer.strength(user))
    said_BC = scorer.tables.say(*reading).gather(1, candidates_BC)
    popular_BC = F.embedding(candidates_BC, popularity_N[:, None])[:, :, 0]
    place_BN = _places(candidates_BC, len(popularity_N))
    share_BCL, _ = _each(scorer.tables, reading, place_BN, candidates_BC)
    return Parts(
        torch.stack([said_BC, popular_BC * TIE], dim=2),
        torch.stack([said_BC, popular_BC], dim=2),
        _at_places(share_BCL, place_BN, candidates_BC),
    )


def _of_deep(scorer: Deep, user: UserInputs, candidates_BC: Tensor) -> Parts:
    mixer = scorer.mixer
    readings = mixer.readings(user)
    said = [standardised(scorer.tables.say(*reading)) for reading in readings]
    query_BD = scorer.query(user) if scorer.encoder is not None else None
    others = scorer.others(user, query_BD)
    signals_BSN = torch.cat([*(said_BN[:, None] for said_BN, _ in said), *others], dim=1)
    item_BSC = candidates_BC[:, None].expand(-1, signals_BSN.shape[1], -1)
    raw_BSC, mean_BS1 = signals_BSN.gather(2, item_BSC), signals_BSN.mean(dim=2, keepdim=True)

    coefficient_BSC, context_BC = _linear(mixer, user, raw_BSC)
    context_BC = context_BC + (coefficient_BSC * mean_BS1).sum(dim=1)
    value_BSC = raw_BSC - mean_BS1
    signal_BSC = torch.cat([coefficient_BSC * value_BSC, context_BC[:, None]], dim=1)
    value_BSC = torch.cat([value_BSC, torch.zeros_like(context_BC)[:, None]], dim=1)

    place_BN = _places(candidates_BC, signals_BSN.shape[2])
    share_BCL = _nothing(user, candidates_BC)
    for which, (reading, (_, spread_B1)) in enumerate(zip(readings, said, strict=True)):
        each_BCR, mean_BR = _each(scorer.tables, reading, place_BN, candidates_BC)
        part_BCR = (each_BCR - mean_BR[:, None, :]) / spread_B1[:, :, None]
        # R, the events that the head reads, may be less than L or more.
        part_BCR = torch.cat([_nothing(user, candidates_BC), part_BCR], dim=2)
        part_BCL = part_BCR[:, :, -user.history_BL.shape[1] :]
        share_BCL = share_BCL + coefficient_BSC[:, which, :, None] * part_BCL
    return Parts(
        signal_BSC.transpose(1, 2),
        value_BSC.transpose(1, 2),
        _at_places(share_BCL, place_BN, candidates_BC),
    )


def _linear(mixer: Mixer, user: UserInputs, signals_BSC: Tensor) -> tuple[Tensor, Tensor]:
    """The mixer as the linear function that it is around these very signals: what each counts
    [B, S, C], and the constant [B, C]."""
    weight_BS, asked_BH = mixer.asked(user)
    hidden_BHC = mixer.first_of_signals @ signals_BSC + asked_BH[:, :, None]
    second_H1 = mixer.second.weight[0][:, None]
    open_BHC = (hidden_BHC / _FOLD).clamp(0.0, 1.0)
    slope_BHC = open_BHC * second_H1
    coefficient_BSC = weight_BS[:, :, None] + mixer.first_of_signals.T @ slope_BHC
    rest_BHC = second_H1 * (hidden_BHC.relu() - open_BHC * hidden_BHC)
    constant_BHC = slope_BHC * asked_BH[:, :, None] + rest_BHC
    return coefficient_BSC, constant_BHC.sum(dim=1)


def _each(
    tables: Tables, reading: Reading, place_BN: Tensor, candidates_BC: Tensor
) -> tuple[Tensor, Tensor]:
    """What each event says of each candidate, by place [B, C, L], and of an item on average [B, L].

    An event speaks of M items, few of which are candidates: what it says of others lands in place
    0 and is dropped. So the cost is that of `Tables.say`, however many candidates.
    """
    item_BLM, said_BLM = tables.say_each(*reading)
    place_BLM = place_BN.gather(1, item_BLM.flatten(1)).view(item_BLM.shape)
    none_BLP = torch.zeros_like(said_BLM[:, :, :1]).repeat(1, 1, 1 + candidates_BC.shape[1])
    each_BLP = none_BLP.scatter_add(2, place_BLM, said_BLM)
    each_BCL, mean_BL = each_BLP[:, :, 1:].transpose(1, 2), said_BLM.sum(dim=2) / place_BN.shape[1]
    if (rest := tables.rest(reading.source)) is not None:
        left_NR, right_RN = rest
        heard_BLR = F.embedding(reading.history_BL, left_NR) * reading.strength_BL1
        # By candidate, which is as good as by place: at an item's place it is the candidate.
        each_BCL = each_BCL + F.embedding(candidates_BC, right_RN.T) @ heard_BLR.transpose(1, 2)
        mean_BL = mean_BL + heard_BLR @ right_RN.mean(dim=1)
    return each_BCL, mean_BL


def _places(candidates_BC: Tensor, items: int) -> Tensor:
    """[B, N]: 1 to C, where the item stands among the candidates (any, if more than once),
    0 = nowhere."""
    batch, count = candidates_BC.shape
    place_BC = torch.arange(1, count + 1, device=candidates_BC.device).expand(batch, -1)
    nowhere_BN = torch.zeros(batch, items, dtype=torch.int64, device=candidates_BC.device)
    return nowhere_BN.scatter(1, candidates_BC, place_BC)


def _at_places(share_BCL: Tensor, place_BN: Tensor, candidates_BC: Tensor) -> Tensor:
    """[B, C, L], by place -> by candidate: one named twice has one place."""
    place_BC1 = place_BN.gather(1, candidates_BC)[:, :, None]
    return share_BCL.gather(1, (place_BC1 - 1).expand_as(share_BCL))


def _nothing(user: UserInputs, candidates_BC: Tensor) -> Tensor:
    """[B, C, L] zeros."""
    return torch.zeros_like(user.weight_BL)[:, None, :].expand(-1, candidates_BC.shape[1], -1)


@torch.inference_mode()
def take_apart(
    explainer: Explainer, arrays: Mapping[str, Array], candidates: Array
) -> tuple[Array, Array, Array]:
    """`signal`, `value` and `history_share` of `candidates` [B, C] int64, in eager PyTorch; of
    `arrays`, the contract's inputs, those of the user are read."""
    signal, value, share = explainer(*UserInputs.of(arrays), torch.from_numpy(candidates))
    return signal.numpy(), value.numpy(), share.numpy()
