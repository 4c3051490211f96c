"""Inputs for export and parity: an example to trace with, random batches, hostile batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from recommender.contract import PADDING, RECOMMENDER, Array, Kind, Limits, inputs
from recommender.data.split import Query, requests
from recommender.features import Request, tensors
from recommender.users import EMPTY, History, Users

_INT64 = np.iinfo(np.int64)


def example(limits: Limits, kind: Kind = RECOMMENDER) -> dict[str, Array]:
    """Batch 3, length 24: sizes that nothing in a graph is likely to have by chance. (With a
    batch of 1 the exporter silently writes a graph for batches of 1.)"""
    rng = np.random.default_rng(0)
    length = min(24, limits.history)
    asked = [_random_request(rng, limits, 2, 10) for _ in range(3)]
    return _of_kind(kind, tensors(asked, limits, length=length), limits, 2)


def batches(
    limits: Limits, items: int, clock: int, users: Users, kind: Kind = RECOMMENDER
) -> Iterator[tuple[str, dict[str, Array]]]:
    """(name, one batch of inputs): random, real and hostile. `items` counts padding."""
    for name, arrays in _requests(limits, items, clock, users):
        yield name, _of_kind(kind, arrays, limits, items)


def _of_kind(kind: Kind, arrays: dict[str, Array], limits: Limits, items: int) -> dict[str, Array]:
    """A recommender's batch as one of another kind. The items asked about are known ones (some
    twice), and in every seventh place none; the last row of several asks about nothing."""
    rows, wanted = len(arrays["request_time"]), inputs(limits, kind)
    rng = np.random.default_rng(rows)
    asked = {}
    for tensor in wanted:
        if tensor.name in arrays:
            asked[tensor.name] = arrays[tensor.name]
            continue
        index = rng.integers(1, items, (rows, *tensor.dims))
        none = rng.choice([_INT64.min, -1, PADDING, items, _INT64.max], index.shape)
        asked[tensor.name] = np.where(rng.integers(7, size=index.shape), index, none)
        asked[tensor.name][1:][-1:] = PADDING
    return asked


def _requests(
    limits: Limits, items: int, clock: int, users: Users
) -> Iterator[tuple[str, dict[str, Array]]]:
    rng = np.random.default_rng(1)
    for length in limits.length_buckets:
        for size in (1, 7, limits.max_batch_size):
            some = [_random_request(rng, limits, items, clock) for _ in range(size)]
            yield f"random, batch {size}, length {length}", tensors(some, limits, length=length)

    rows = np.flatnonzero(users.lengths)
    for row_part in np.array_split(rng.permutation(rows)[: 4 * limits.max_batch_size], 4):
        if len(row_part):
            asked = [_last_asked(users, int(row)) for row in row_part]
            yield "real users", tensors(requests(asked, users), limits)

    yield from _hostile(rng, limits, items, clock)


def _hostile(
    rng: np.random.Generator, limits: Limits, items: int, clock: int
) -> Iterator[tuple[str, dict[str, Array]]]:
    def batch(size: int = 8) -> dict[str, Array]:
        return tensors(
            [_random_request(rng, limits, items, clock) for _ in range(size)],
            limits,
            length=limits.length_buckets[0],
        )

    yield "empty history", tensors([Request(request_time=clock)] * 3, limits)
    yield "everything zero", tensors([Request(history=EMPTY)], limits)

    excluded = batch()
    # All that E holds; in a small catalogue that is every item.
    excluded["exclude"][:] = np.arange(1, limits.exclude + 1)
    yield "as many excluded as fit", excluded

    impossible = batch()
    impossible["category_filter"][:] = _INT64.min  # the sign bit, which no category has
    yield "impossible filter", impossible

    every = batch()
    every["category_filter"][:] = _INT64.max
    yield "every category", every

    strangers = batch()
    for name in ("history", "exclude", "user_features"):
        extremes = [_INT64.min, -1, items, items + 1, _INT64.max]
        strangers[name][:] = rng.choice(extremes, strangers[name].shape)
    yield "ids out of range", strangers

    for name, time in (("earliest", _INT64.min), ("latest", _INT64.max)):
        times = batch()
        times["history_time"][:] = time
        times["request_time"][:] = time
        yield f"{name} possible times", times

    weights = batch()
    weights["history_weight"][:] = rng.choice([-1e30, 0, 1e30], weights["history_weight"].shape)
    yield "absurd weights", weights


def _random_request(rng: np.random.Generator, limits: Limits, items: int, clock: int) -> Request:
    length = int(rng.integers(0, limits.history + 1))
    history = History(
        items=rng.integers(1, items, length),
        times=np.sort(rng.integers(0, clock + 1, length)),
        weights=rng.normal(size=length).astype(np.float32),
    )
    filtered = rng.random() < 0.3
    return Request(
        history=history,
        request_time=int(rng.integers(0, clock + 1)),
        user_features=rng.integers(0, 4, limits.user_features),
        exclude=rng.integers(1, items, int(rng.integers(0, min(items, limits.exclude) // 2))),
        category_mask=rng.integers(0, 2**18, limits.category_words) if filtered else None,
    )


def _last_asked(users: Users, row: int) -> Query:
    """What user `row` would ask at the time of the last event; there is no target to find."""
    history = users.history(row)
    return Query(
        user=row, history=history, request_time=int(history.times[-1]), targets=EMPTY.items
    )


def single_rows(arrays: dict[str, Array], rows: Sequence[int]) -> Iterator[dict[str, Array]]:
    for row in rows:
        yield {name: array[row : row + 1] for name, array in arrays.items()}
