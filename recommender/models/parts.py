"""Parts of a trained deep model as scorers of their own: what its mixing has to beat."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.models.deep import Deep
from recommender.models.encoder import Encoder
from recommender.models.families import Blueprint
from recommender.models.graph import Graph
from recommender.models.mixer import standardised
from recommender.models.scorer import UserInputs
from recommender.models.signals import Tables, trend_buffers
from recommender.models.trends import equal_votes, fit_popularity, fit_trend
from recommender.users import Users

ENCODER, FUSION = "encoder alone", "equal-weight fusion"
_FUSED = ("ease", "similar")  # heads fused with the encoder and popularity


class EncoderAlone(nn.Module):
    """`table` [N, d] and `bias` [N] are the items."""

    def __init__(self, encoder: Encoder, table: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.encoder = [encoder]  # in a list: not to be frozen with the graph around it
        self.table, self.bias = table.detach(), bias.detach()

    def forward(self, user: UserInputs) -> Tensor:
        (encoder,) = self.encoder
        return F.linear(encoder(user, self.table, last_only=True), self.table, self.bias)


class Fusion(nn.Module):
    """Encoder, EASE, item-kNN and popularity [N], each in standard deviations, added up."""

    def __init__(self, deep: Deep, popularity: Tensor) -> None:
        super().__init__()
        self.deep, self.popularity = deep, popularity

    def forward(self, user: UserInputs) -> Tensor:
        deep, mixer = self.deep, self.deep.mixer
        readings = zip(mixer.heads, mixer.readings(user), strict=True)
        said = [deep.tables.say(*reading) for head, reading in readings if head in _FUSED]
        encoder_BN = F.linear(deep.query(user), deep.table, deep.bias)
        said += [encoder_BN, self.popularity.expand_as(encoder_BN)]
        return torch.stack([standardised(word)[0] for word in said]).sum(dim=0)


class Trend(nn.Module):
    """Recent popularity at the moment of the request, of one half-life: every event counts 1."""

    def __init__(self, tables: Tables, which: int) -> None:
        super().__init__()
        self.tables, self.which = tables, which

    def forward(self, user: UserInputs) -> Tensor:
        return self.tables.trends(user.request_time_B1)[:, self.which]


def parts(blueprint: Blueprint, users: Users, graph: Graph, *, trends: bool) -> dict[str, Graph]:
    """The graphs of a deep model's parts, with `trends` also recent popularity of `users`, the
    simplest rule of what is wanted now. None for other families."""
    deep, found, every = graph.scorer, dict[str, nn.Module](), equal_votes(users)
    if not isinstance(deep, Deep):
        return {}
    if deep.encoder is not None:
        counts = fit_popularity(users, blueprint.items, every)
        alone = EncoderAlone(deep.encoder, deep.table, deep.bias)
        found |= {ENCODER: alone, FUSION: Fusion(deep, torch.from_numpy(counts))}
    if trends:
        config = blueprint.config.signals
        trend = fit_trend(users, blueprint.items, config, every)
        tables = Tables(trend_buffers(trend))
        for which, days in enumerate(config.half_life_days):
            found[f"popularity of {days:g} days"] = Trend(tables, which)
    return {name: blueprint.graph(scorer) for name, scorer in found.items()}
