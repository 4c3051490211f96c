"""Parts of a trained deep model as scorers of their own: what its mixing has to beat."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.models.deep import Deep
from recommender.models.families import Blueprint
from recommender.models.graph import Graph
from recommender.models.mixer import standardised
from recommender.models.scorer import UserInputs

ENCODER, FUSION = "encoder alone", "equal-weight fusion"
_FUSED = ("ease", "similar")  # heads fused with the encoder and popularity


class EncoderAlone(nn.Module):
    def __init__(self, deep: Deep) -> None:
        super().__init__()
        self.deep = deep

    def forward(self, user: UserInputs) -> Tensor:
        return F.linear(self.deep.query(user), self.deep.table, self.deep.bias)


class Fusion(nn.Module):
    """Encoder, EASE, item-kNN and popularity, each in standard deviations, added up."""

    def __init__(self, deep: Deep) -> None:
        super().__init__()
        self.deep = deep

    def forward(self, user: UserInputs) -> Tensor:
        deep, mixer = self.deep, self.deep.mixer
        heads = [which for which, head in enumerate(mixer.heads) if head in _FUSED]
        said = [deep.tables.say(*mixer.reading(which, user)) for which in heads]
        encoder_BN = F.linear(deep.query(user), deep.table, deep.bias)
        said += [encoder_BN, deep.tables.popularity.expand_as(encoder_BN)]
        return torch.stack([standardised(word)[0] for word in said]).sum(dim=0)


def parts(blueprint: Blueprint, graph: Graph) -> dict[str, Graph]:
    """The graphs of a deep model's parts; none for other families or without an encoder."""
    deep = graph.scorer
    if not isinstance(deep, Deep) or deep.encoder is None:
        return {}
    return {
        ENCODER: blueprint.graph(EncoderAlone(deep)),
        FUSION: blueprint.graph(Fusion(deep)),
    }
