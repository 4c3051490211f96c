"""The deep recommender: one encoder and many signals, mixed by a small learned mixer.

encoder             query x item, a transformer over the history     encoder.py
ease, basket, ...   what the events of the history say of each item  itemtoitem.py
trend, popularity   what is wanted at request_time                   trends.py
age                 how long the item has been there                 trends.py
affinity            taste of users with the same features            trends.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.config import HEADS, SignalConfig
from recommender.models.baselines import TIE
from recommender.models.encoder import Encoder
from recommender.models.mixer import Mixer
from recommender.models.scorer import UserInputs
from recommender.models.signals import Tables

_LOGIT = 3.0  # about the spread of the encoder's logits over a catalogue: brings it to others'
_FOR_STRANGERS = {"trend", "popularity"}  # signals that know what users without history want


class Deep(nn.Module):
    """A scorer (see scorer.py). `table` and `bias` are the encoder's items, computed once after
    training, untouched items in their place. `encoder` is None where it is left out."""

    def __init__(
        self, encoder: Encoder | None, table: Tensor, bias: Tensor, tables: Tables, mixer: Mixer
    ) -> None:
        super().__init__()
        self.encoder, self.tables, self.mixer = encoder, tables, mixer
        self.register_buffer("table", table)
        self.register_buffer("bias", bias)
        self.table: Tensor
        self.bias: Tensor

    def forward(self, user: UserInputs) -> Tensor:
        query_BD = self.query(user) if self.encoder is not None else None
        return self.mix(user, query_BD)

    def query(self, user: UserInputs) -> Tensor:
        """[B, d] query vectors: frozen while the mixer learns, so computed once for it."""
        assert self.encoder is not None
        query_BD: Tensor = self.encoder(user, self.table, last_only=True)
        return query_BD

    def mix(self, user: UserInputs, query_BD: Tensor | None) -> Tensor:
        """[B, N] scores."""
        mixed_BN: Tensor = self.mixer(user, self.tables, self.others(user, query_BD))
        return mixed_BN

    def alike(self, user: UserInputs) -> Tensor:
        """[B, N]: what the history alone says of every item, each signal that reads it weighed as
        for this user. What is wanted anyway (trends, popularity, taste) breaks ties only."""
        said = self.mixer.said(user, self.tables)
        if self.encoder is not None:
            said.append(self.encoded(user, self.query(user)))
        popular_BN = (self.tables.popularity * TIE).expand(user.history_BL.shape[0], -1)
        if not said:
            return popular_BN.clone()
        weight_BS, _ = self.mixer.asked(user)
        signals_BSN = torch.stack(said, dim=1)
        return (weight_BS[:, None, : len(said)] @ signals_BSN)[:, 0] + popular_BN

    def encoded(self, user: UserInputs, query_BD: Tensor) -> Tensor:
        """[B, N]: the encoder's signal."""
        logits_BN = F.linear(query_BD, self.table, self.bias)
        centred_BN = logits_BN - logits_BN.mean(dim=1, keepdim=True)
        if _FOR_STRANGERS & set(self.mixer.use):
            # With nothing to encode, its guess only misleads the mixer (docs/quality.md).
            centred_BN = centred_BN * (user.history_BL[:, -1:] > 0).to(torch.float32)
        return centred_BN / _LOGIT

    def others(self, user: UserInputs, query_BD: Tensor | None) -> list[Tensor]:
        """[B, ?, N] of one or several signals each; together they are those of `other_names`."""
        found, batch, use = list[Tensor](), user.history_BL.shape[0], self.mixer.use
        if query_BD is not None:
            found.append(self.encoded(user, query_BD)[:, None])
        if "trend" in use:
            found.append(self.tables.trends(user.request_time_B1))
        if "popularity" in use:
            found.append(self.tables.popularity.expand(batch, 1, -1))
        if "age" in use:
            found += [age_BN[:, None] for age_BN in self.tables.age(user.request_time_B1)]
        if "affinity" in use:
            found.append(self.tables.affinity(user.features_BU))
        return found


def heads_of(config: SignalConfig) -> tuple[str, ...]:
    return tuple(head for head in HEADS if head in config.use)


def other_names(config: SignalConfig, user_columns: int) -> tuple[str, ...]:
    """Signals beside the heads, in the order in which the mixer takes them."""
    names: list[str] = []
    if "encoder" in config.use:
        names.append("encoder")
    if "trend" in config.use:
        names += [f"trend of {days:g} days" for days in config.half_life_days] + ["trend of all"]
    if "popularity" in config.use:
        names.append("popularity")
    if "age" in config.use:
        names += ["age", "new"]
    if "affinity" in config.use:
        names += [f"affinity {column}" for column in range(user_columns)]
    return tuple(names)
