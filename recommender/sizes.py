"""What the size of a catalogue changes about a training, by default: said before it begins.

docs/models.md has the same as a table. Asks those who decide; tests/test_sizes.py holds what is
said against what is then fitted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recommender.config import HEADS
from recommender.data.timing import REAL
from recommender.fitting import cuts_of, queries_of
from recommender.models.baselines import READERS
from recommender.models.deep import heads_of
from recommender.models.families import Blueprint
from recommender.models.signals import neighbours_of, rest_rank_of
from recommender.models.trends import bins_of
from recommender.users import Users


def by_size(blueprint: Blueprint, users: Users) -> list[str]:
    """One phrase for each default that `users`, the rows to be trained on, and their catalogue are
    too large for."""
    found = _of_mixing(blueprint) if blueprint.family == "deep" else []
    return found + _of_tables(blueprint, users)


def _of_mixing(blueprint: Blueprint) -> list[str]:
    config, items, found = blueprint.config, blueprint.items, []
    cuts, queries = cuts_of(blueprint), queries_of(blueprint)
    if blueprint.time_kind == REAL and cuts < config.mixer.cuts:
        found.append(f"{cuts} cuts in time instead of {config.mixer.cuts}")
    if queries < config.mixer.queries:
        found.append(f"at most {queries:,} next-item questions instead of {config.mixer.queries:,}")
    if "encoder" in blueprint.signals.use and items > 2 * config.training.negatives:
        found.append(f"the encoder's loss over {config.training.negatives:,} drawn items")
    bins = bins_of(config.signals, items)
    if "trend" in blueprint.signals.use and bins < config.signals.trend_bins:
        found.append(f"trends at {bins:,} moments instead of {config.signals.trend_bins:,}")
    return found


def _of_tables(blueprint: Blueprint, users: Users) -> list[str]:
    config, family = blueprint.signals, blueprint.family
    config = config if family == "deep" else replace(config, rest_rank=0)  # see fit_scorer
    heads = heads_of(config) if family == "deep" else filter(None, [READERS.get(family)])
    sources, found = {HEADS[head].source for head in heads} - {"repeat"}, []
    touched = len(np.unique(users.items[users.targets]))
    if sources & {"ease", "ease_recent"} and touched > config.ease_items:
        found.append(f"EASE of the {config.ease_items:,} most popular items only")
    kept, rest = neighbours_of(config, blueprint.items), rest_rank_of(config, blueprint.items)
    if sources and config.rest_rank and not rest:
        found.append(f"{kept} neighbours an item in each table, and no rest")
    elif sources and kept < config.neighbours:
        found.append(f"{kept} neighbours an item in each table instead of {config.neighbours}")
    return found
