"""Model families by name: fit their tables, build their graph, load it again from a state.

    deep         encoder + signals + mixer (deep.py)
    ease         item regression, item-knn neighbours, content likeness (baselines.py)
    popularity   total counts (baselines.py)

Every family becomes a `Graph`, so evaluation, export and serving know one thing only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from recommender.catalogue import Catalogue
from recommender.config import HEADS, Config, SignalConfig
from recommender.contract import Limits
from recommender.errors import RunError, shown
from recommender.models.baselines import READERS, OneTable, Popularity
from recommender.models.cold import likeness, place_in_vectors
from recommender.models.deep import Deep, heads_of, other_names
from recommender.models.device import device_of
from recommender.models.encoder import Encoder
from recommender.models.graph import Graph
from recommender.models.mixer import Mixer
from recommender.models.signals import Tables, fit_tables
from recommender.models.trends import equal_votes, fit_popularity
from recommender.users import Users

FAMILIES = ("deep", "ease", "item-knn", "content", "popularity")


@dataclass(frozen=True, kw_only=True, eq=False)
class Blueprint:
    """All that a model's shape depends on."""

    family: str
    config: Config
    catalogue: Catalogue
    content: sp.csr_array  # [N, F] float32 by index, unit rows
    user_sizes: tuple[int, ...]  # indexes per user column, 0 (unknown) included
    limits: Limits
    clock: int  # unix seconds, see graph.py
    session_gap: int  # seconds; what lies closer shares a basket
    repurchase: bool  # what a user already had may be recommended again
    time_kind: str  # REAL, or what is left of made-up timestamps: see data/timing.py

    @property
    def signals(self) -> SignalConfig:
        """Those in use: what was bought again speaks only where it may be recommended again."""
        signals = self.config.signals
        kept = tuple(name for name in signals.use if name != "repeat" or self.repurchase)
        return replace(signals, use=kept)

    @property
    def device(self) -> torch.device:
        """Where it is trained and judged. Raises MachineError where there is no such device."""
        return device_of(self.config.training.device)

    @property
    def items(self) -> int:
        """N: items and padding."""
        return len(self.catalogue) + 1

    def graph(self, scorer: nn.Module) -> Graph:
        graph = Graph(scorer, catalogue=self.catalogue, limits=self.limits, clock=self.clock)
        return graph.eval().requires_grad_(False)

    def placed(self, scorer: nn.Module) -> Graph:
        """The graph on the device of the training, to be asked there; moves `scorer`."""
        return self.graph(scorer).to(self.device)

    def encoder(self) -> Encoder:
        return Encoder(
            self.config.encoder,
            item_categories=_category_indexes(self.catalogue),
            user_sizes=self.user_sizes,
            max_length=self.limits.history,
        )

    def mixer(self) -> Mixer:
        signals = self.signals
        return Mixer(
            heads_of(signals),
            len(other_names(signals, len(self.user_sizes))),
            signals.use,
            self.config.mixer,
            longest=self.limits.history,
        )

    def like(self, users: Users) -> sp.csr_array:
        """[N, N]: which touched items each untouched one takes after."""
        return likeness(self.content, np.bincount(users.items, minlength=self.items) > 0)

    def tables(self, users: Users, like: sp.csr_array, signals: SignalConfig) -> Tables:
        return Tables(
            fit_tables(
                users,
                self.content,
                like,
                signals,
                session_gap=self.session_gap,
                user_sizes=self.user_sizes,
            )
        )

    def deep(self, users: Users, encoder: Encoder | None, mixer: Mixer) -> Deep:
        """The deep scorer of what `users` did; `encoder` is trained on them."""
        like = self.like(users)
        table, bias = self._vectors(like, encoder)
        return Deep(encoder, table, bias, self.tables(users, like, self.signals), mixer)

    def _vectors(self, like: sp.csr_array, encoder: Encoder | None) -> tuple[Tensor, Tensor]:
        """[N, d] and [N]: the encoder's items, untouched ones in the place of their like."""
        if encoder is None:
            return torch.zeros(self.items, 1), torch.zeros(self.items)
        placed = (
            place_in_vectors(found.detach().cpu().numpy(), like)
            for found in (encoder.item_table(), encoder.bias)
        )
        table, bias = (torch.from_numpy(array) for array in placed)
        return table, bias


def fit_scorer(blueprint: Blueprint, users: Users) -> nn.Module:
    """The scorer of a family that is counted, not trained: any but deep."""
    if blueprint.family == "popularity":
        counts = fit_popularity(users, blueprint.items, equal_votes(users))
        return Popularity(torch.from_numpy(counts))
    # No rest: with all other items item-knn is worse, ease no better (docs/quality.md).
    signals = replace(blueprint.config.signals, use=(READERS[blueprint.family],), rest_rank=0)
    return _one_table(blueprint, blueprint.tables(users, blueprint.like(users), signals))


def _one_table(blueprint: Blueprint, tables: Tables) -> OneTable:
    head, decay = HEADS[READERS[blueprint.family]], blueprint.config.signals.decay
    return OneTable(tables, head.source, decay if blueprint.family == "item-knn" else head.decay)


def load_graph(blueprint: Blueprint, state: Mapping[str, Tensor]) -> Graph:
    """The graph that `state` (a state_dict) was saved from.

    Raises RunError where the state does not fit the blueprint.
    """
    try:
        graph = blueprint.graph(_empty_scorer(blueprint, state))
        graph.load_state_dict(state)
        graph.eval()  # again: how far back a mixer reads follows from its weights
    except (KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise RunError(
            f"weights do not fit a {blueprint.family} model of {len(blueprint.catalogue)} items: "
            f"{shown(reason, 160)}",
            remedy="Train the run again.",
        ) from error
    return graph


def _empty_scorer(blueprint: Blueprint, state: Mapping[str, Tensor]) -> nn.Module:
    """The scorer in the shapes of `state`; load_state_dict fills in the values."""
    if blueprint.family == "popularity":
        return Popularity(torch.zeros(blueprint.items))
    prefix = "scorer.tables."
    tables = Tables(
        {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
    )
    if blueprint.family in READERS:
        return _one_table(blueprint, tables)
    encoder = blueprint.encoder() if "encoder" in blueprint.signals.use else None
    table, bias = (torch.zeros_like(state[f"scorer.{name}"]) for name in ("table", "bias"))
    return Deep(encoder, table, bias, tables, blueprint.mixer())


def _category_indexes(catalogue: Catalogue) -> list[list[int]]:
    """The categories of every item, padding first."""
    index = {name: i for i, name in enumerate(catalogue.category_names)}
    return [[], *([index[name] for name in names] for names in catalogue.categories)]
