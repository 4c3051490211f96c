"""Data with a known answer: items stand in cycles, and a user walks along one.

Items are dealt into groups of CYCLE; within a group the successor of an item is the
next one, of the last one the first. A user mostly stays in the group that the user's
`region` names, and the next event is the successor of the last with probability
FOLLOW, any item otherwise. So the best answer to a history is known: `successor` of
its last item.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recommender.contract import Array
from recommender.data.folder import new_folder
from recommender.errors import BadInput

CYCLE = 50  # items per group, at most: histories should be shorter, or answers repeat what was seen
FOLLOW = 0.9  # probability of the successor
LOYAL = 0.8  # probability that a user's home group is the one of the region
START = 1_735_689_600  # 2025-01-01 UTC
DAYS = 90


def groups(items: int) -> int:
    """Number of cycles that `items` items form, all of nearly the same length."""
    return max(1, -(-items // CYCLE))


def successor(item_id: str, items: int) -> str:
    """The id of the item that follows `item_id` among `items` items."""
    return _item_id(int(_successors(items)[int(item_id.removeprefix("item-"))]))


def write_synthetic(out: Path, *, users: int, items: int, events: int, seed: int) -> None:
    """Write the data folder `out`, the same for the same arguments.

    Histories share the events nearly evenly. Raises BadInput for sizes that make no data,
    DataError if `out` is taken.
    """
    for name, value, least in (("users", users, 1), ("items", items, 2), ("events", events, 1)):
        if value < least:
            raise BadInput(
                f"--{name} is {value}", remedy=f"Give at least {least}.", field=name, value=value
            )
    if seed < 0:
        raise BadInput(f"--seed is {seed}", remedy="Give 0 or more.", field="seed", value=seed)
    rng = np.random.default_rng(seed)
    region = rng.integers(0, groups(items), users)
    loyal = rng.random(users) < LOYAL
    home = np.where(loyal, region, rng.integers(0, groups(items), users))
    owner, walked = _walk(rng, home, items, events)
    times = START + np.sort(rng.integers(0, DAYS * 86_400, len(owner)))
    with new_folder(out) as folder:
        pl.DataFrame(
            {
                "user_id": [f"user-{u:06d}" for u in owner],
                "item_id": [_item_id(i) for i in walked],
                "timestamp": times,
            }
        ).write_csv(folder / "interactions.csv")
        _items(items).write_csv(folder / "items.csv")
        pl.DataFrame(
            {
                "user_id": [f"user-{u:06d}" for u in range(users)],
                "region": [f"region-{r:03d}" for r in region],
                "age": rng.integers(18, 80, users),
            }
        ).write_csv(folder / "users.csv")


def _walk(rng: np.random.Generator, home: Array, items: int, events: int) -> tuple[Array, Array]:
    """[events] user and item of each event, in order of time: all users step in turn."""
    users, following = len(home), _successors(items)
    steps = -(-events // users)
    # item i belongs to group i % groups: a user's first item is one of the home group
    first = home + groups(items) * rng.integers(0, CYCLE, users)
    path = np.empty((steps, users), np.int64)
    path[0] = np.where(first < items, first, home)
    for step in range(1, steps):
        follow = rng.random(users) < FOLLOW
        path[step] = np.where(follow, following[path[step - 1]], rng.integers(0, items, users))
    owner = np.tile(np.arange(users), (steps, 1))
    for step in range(steps):  # nobody is always first
        order = rng.permutation(users)
        owner[step], path[step] = owner[step][order], path[step][order]
    return owner.reshape(-1)[:events], path.reshape(-1)[:events]


def _successors(items: int) -> Array:
    """[items] int64: the position after each; groups are dealt out like cards."""
    position = np.arange(items)
    return np.where(
        position + groups(items) < items, position + groups(items), position % groups(items)
    )


def _items(items: int) -> pl.DataFrame:
    group = np.arange(items) % groups(items)
    return pl.DataFrame(
        {
            "item_id": [_item_id(i) for i in range(items)],
            "title": [f"Item {i} of group {g}" for i, g in enumerate(group)],
            "categories": [f"group-{g:03d}" for g in group],
        }
    )


def _item_id(position: int) -> str:
    return f"item-{position:06d}"
