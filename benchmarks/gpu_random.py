"""A deep graph of any size with random weights, and questions for it.

Its speed does not depend on the weights; every table has the width that a training on so many
items would give it (recommender/models/signals.py). Trains nothing and reads no file.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recommender.catalogue import Catalogue
from recommender.config import HEADS, Config
from recommender.contract import Array, Limits, inputs
from recommender.models.deep import Deep, heads_of, other_names
from recommender.models.encoder import Encoder
from recommender.models.graph import Graph
from recommender.models.mixer import Mixer
from recommender.models.signals import Tables, neighbours_of, rest_rank_of
from recommender.models.trends import bins_of

NOW = 1_700_000_000  # of every request
_YEAR = 365 * 86_400
_CATEGORIES = 18
USER_SIZES = (8, 3, 22)  # such as age, gender, occupation
EXCLUDE, EXCLUDED = 1024, 200  # room for, and given of


def limits_of(config: Config) -> Limits:
    return Limits(user_features=len(USER_SIZES), category_words=1, exclude=EXCLUDE,
                  length_buckets=(16, 64, config.training.length))  # fmt: skip


def random_graph(items: int, config: Config) -> Graph:
    """The default recipe's graph over `items` items."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    signals = config.signals
    signals = replace(signals, use=tuple(name for name in signals.use if name != "repeat"))
    category = rng.integers(0, _CATEGORIES, items)
    encoder = Encoder(
        config.encoder,
        item_categories=[[], *([int(one)] for one in category)],
        user_sizes=USER_SIZES,
        max_length=config.training.length,
    )
    mixer = Mixer(
        heads_of(signals), len(other_names(signals, len(USER_SIZES))), signals.use, config.mixer,
        longest=config.training.length,
    )  # fmt: skip
    for parameter in mixer.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    tables = Tables(_tables(items + 1, config, heads_of(signals)))
    deep = Deep(encoder, encoder.item_table().detach(), torch.randn(items + 1) / 9, tables, mixer)
    names = tuple(f"c{one:02}" for one in range(_CATEGORIES))
    catalogue = Catalogue(
        item_ids=tuple(map(str, range(items))),
        titles=(None,) * items,
        categories=tuple((names[one],) for one in category),
        popularity=np.zeros(items, np.float32),
    )
    graph = Graph(deep, catalogue=catalogue, limits=limits_of(config), clock=NOW + _YEAR)
    return graph.eval().requires_grad_(False)


def _tables(rows: int, config: Config, heads: tuple[str, ...]) -> dict[str, Tensor]:
    signals = config.signals
    rank = rest_rank_of(signals, rows)
    width = min(signals.rest_neighbours if rank else neighbours_of(signals, rows), rows - 1)
    half_lives = len(signals.half_life_days) + 1
    bins = 2 + bins_of(signals, rows)
    state = {
        "popularity": torch.randn(rows),
        "trend": torch.randn(half_lives, bins, rows).half(),
        "trend_start": torch.tensor(NOW - _YEAR),
        "trend_step": torch.tensor(_YEAR // bins),
        "first_seen": torch.randint(NOW - _YEAR, NOW, (rows,)),
    }
    for source in dict.fromkeys(HEADS[head].source for head in heads):
        state[f"{source}_item"] = torch.randint(1, rows, (rows, width))
        state[f"{source}_weight"] = torch.rand(rows, width).sort(dim=1, descending=True).values
        if rank:
            state[f"{source}_left"] = torch.randn(rows, rank) / rank
            state[f"{source}_right"] = torch.randn(rank, rows)
    for column, size in enumerate(USER_SIZES):
        state[f"affinity_{column}"] = torch.randn(size, rows)
    return state


def questions(
    items: int, limits: Limits, rows: int, length: int, seed: int = 0
) -> dict[str, Array]:
    """`rows` requests with histories of `length` events, a third of them filtered."""
    rng = np.random.default_rng((seed, rows, length))
    exclude = np.zeros((rows, limits.exclude), np.int64)
    exclude[:, :EXCLUDED] = rng.integers(1, items + 1, (rows, EXCLUDED))
    wanted = rng.integers(1, 2**_CATEGORIES, (rows, 1))
    asked = {
        "history": rng.integers(1, items + 1, (rows, length)),
        "history_time": np.sort(rng.integers(NOW - _YEAR, NOW, (rows, length)), axis=1),
        "history_weight": np.ones((rows, length), np.float32),
        "request_time": np.full((rows, 1), NOW),
        "user_features": rng.integers(0, 3, (rows, limits.user_features)),
        "exclude": exclude,
        "category_filter": np.where(rng.random((rows, 1)) < 1 / 3, wanted, 0),
    }
    return {tensor.name: asked[tensor.name] for tensor in inputs(limits)}


def needed(graph: Graph, rows: int, length: int) -> tuple[float, float]:
    """Bytes that a batch must read at least, and operations that it must do.

    Bytes: item vectors, category words and what each signal says of every item once a batch (a
    user column once for each of its values that occurs, at most), and of the neighbour tables
    the rows of the events that speak, and of their rests the right side. Operations: the product
    of queries and items, the rests, and the mixer.
    """
    deep = graph.scorer
    assert isinstance(deep, Deep)
    tables, mixer, items = deep.tables, deep.mixer, graph.items
    moved = sum(t.nbytes for t in (deep.table, deep.bias, tables.popularity, tables.first_seen))
    moved += graph.selection.category_words.nbytes + tables.trend[:, 0].nbytes
    moved += sum(min(rows, size) * items * 4 for size in USER_SIZES)
    rests = [rest for source in tables.sources if (rest := tables.rest(source)) is not None]
    moved += sum(right_RN.nbytes for _, right_RN in rests)
    ranks = 0
    for which, head in enumerate(mixer.heads):
        source = HEADS[head].source
        reach = length if HEADS[head].long else mixer.counting.get(which, mixer.reach)
        each = getattr(tables, f"{source}_item").shape[1] * 12
        if (rest := tables.rest(source)) is not None:
            each += rest[0].shape[1] * 4
            ranks += rest[0].shape[1]
        moved += min(rows * min(length, reach), items) * each
    signals, hidden = len(mixer.weight), mixer.second.in_features
    per_item = deep.table.shape[1] + signals + hidden * signals + hidden + ranks
    return float(moved), 2.0 * rows * items * per_item
