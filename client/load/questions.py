"""Users, a mix and a release -> questions to ask of a server, each encoded once.

Users and histories are real, so that a question costs the server what a real one costs. A
question also says what its answer must hold to. Knows no server and no clock but the one it is
given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from client.load.mix import FILTERED, FILTERS, Mix
from client.load.population import BLOCK, arriving
from client.load.recording import Part
from recommender.contract import Array
from recommender.errors import BadInput
from recommender.features import Request
from recommender.release import Release
from recommender.users import History, Users

KEPT = 20_000  # questions that are not made anew when they are asked again
PICKS = 64  # different items, filters and candidates that go with a user
CANDIDATES = 50  # of a question to /v1/rank
EXCLUDED = 5  # items that a filter excludes
ALLOWED = 50  # items of an allow-list
ROOM = 3  # times as many items as are asked for are in a category that is a filter
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Question:
    """One request. Of the fields from `user_id` on, its answer must keep what is not empty."""

    part: Part
    path: str
    body: bytes  # JSON, for the service
    wanted: int  # items, at most
    request: Request = field(default_factory=Request)  # for Triton
    user_id: str | None = None  # what the release knows as seen may not come back
    forbidden: frozenset[str] = frozenset()  # item ids that may not come back, whatever is known
    categories: tuple[str, ...] = ()  # of any of them
    only: frozenset[str] | None = None  # of these
    exactly: bool = False  # all of `only`, seen or not
    events: int = 0  # this many events to accept, and no items


def newest_seen(release: Release, history: History) -> Array:
    """[n] int64: what a model is to leave out for who has that history, the newest first, once
    each, as many as it takes; nothing where people buy again."""
    if release.details.get("repurchase"):
        return np.zeros(0, np.int64)
    seen = list(dict.fromkeys(history.items[::-1].tolist()))[: release.limits.exclude]
    return np.asarray(seen, np.int64)


class Questions:
    """An endless supply of questions, drawn by `seed` and `stream`."""

    def __init__(
        self,
        release: Release,
        users: Users,
        *,
        mix: Mix,
        n: int,
        now: int,
        zipf: float | None = None,
        inline: bool = False,
        seed: int = 0,
        stream: int = 0,
    ) -> None:
        """`now` is the request time in unix seconds; `inline` sends histories, not user ids."""
        self._release, self._users, self._n, self._now = release, users, n, now
        self._inline, self._seed = inline, seed
        self._endpoints = tuple(mix.endpoints)
        self._weights = np.array([*mix.endpoints.values()], float)
        self._filters = np.array([mix.filters.get(kind, 0.0) for kind in FILTERS])
        self._rows = arriving(len(users), zipf, seed, stream)
        self._random = np.random.default_rng([seed, stream, 1])
        self._made = lru_cache(KEPT)(self._question)
        self._categories = [  # large enough for full answers: sizes descend
            name for name, size in release.catalogue.category_sizes if size >= ROOM * n
        ]
        if mix.filters.get("categories") and not self._categories:
            raise BadInput(
                f"no category of release {release.version} has {ROOM * n} items",
                remedy="Leave out filters of categories, or ask for fewer items with -n.",
                field="filtered",
            )

    def __iter__(self) -> Iterator[Question]:
        endpoints, weights = self._endpoints, self._weights / self._weights.sum()
        shares = np.array([*self._filters, max(1 - self._filters.sum(), 0.0)])
        simple = len(endpoints) == 1 and not self._filters.any() and endpoints[0] == "recommend"
        while True:
            which = self._random.choice(len(endpoints), BLOCK, p=weights).tolist()
            filtered = self._random.choice(len(shares), BLOCK, p=shares).tolist()
            picks = self._random.integers(0, PICKS, BLOCK).tolist()
            for end, kind, pick in zip(which, filtered, picks, strict=True):
                # The pick tells questions of one user apart only where it matters.
                yield self._made(endpoints[end], next(self._rows), kind, 0 if simple else pick)

    def _question(self, endpoint: str, row: int, kind: int, pick: int) -> Question:
        filtered = FILTERS[kind] if kind < len(FILTERS) and endpoint in FILTERED else None
        made: Question = getattr(self, f"_{endpoint}")(row, filtered, pick)
        return made

    # --- one for each endpoint

    def _recommend(self, row: int, filtered: str | None, pick: int) -> Question:
        who, request, promises = self._who(row)
        body, kept = self._filter(filtered, row, pick)
        mask = None
        if kept.get("categories"):
            mask = self._release.catalogue.category_mask(kept["categories"])
        return Question(
            part=Part("recommend", self._length(row)),
            path="/v1/recommend",
            body=encode({**who, "n": self._n, **body}),
            wanted=self._n,
            request=replace(request, category_mask=mask),
            **{**promises, **kept, "forbidden": promises["forbidden"] | kept["forbidden"]},
        )

    def _similar(self, row: int, filtered: str | None, pick: int) -> Question:
        item = self._item(row, pick)
        body, kept = self._filter(filtered, row, pick)
        return Question(
            part=Part("similar"),
            path="/v1/similar",
            body=encode({"item_id": item, "n": self._n, **body}),
            wanted=self._n,
            **{**kept, "forbidden": kept["forbidden"] | {item}},
        )

    def _rank(self, row: int, _: str | None, pick: int) -> Question:
        who, request, _promises = self._who(row)
        candidates = self._some(row, pick, CANDIDATES)
        return Question(
            part=Part("rank", self._length(row)),
            path="/v1/rank",
            body=encode({**who, "candidates": candidates}),
            wanted=len(candidates),
            request=request,
            only=frozenset(candidates),
            exactly=True,
        )

    def _popular(self, row: int, filtered: str | None, pick: int) -> Question:
        body, kept = self._filter(filtered, row, pick)
        return Question(
            part=Part("popular"),
            path="/v1/popular",
            body=encode({"n": self._n, **body}),
            wanted=self._n,
            **kept,
        )

    def _events(self, row: int, _: str | None, pick: int) -> Question:
        """A view of an item of the user's own past: what may be recommended stays the same."""
        event = {"user_id": self._users.user_ids[row], "item_id": self._item(row, pick)}
        body = encode({"events": [{**event, "event": "view"}]})
        return Question(part=Part("events"), path="/v1/events", body=body, wanted=0, events=1)

    # --- parts of them

    def _who(self, row: int) -> tuple[dict[str, Any], Request, dict[str, Any]]:
        """What says who asks, to the service and to Triton, and what that promises."""
        users, catalogue = self._users, self._release.catalogue
        history = users.history(row)
        request = Request(
            history=history, request_time=self._now, user_features=users.features[row]
        )
        if not self._inline:
            user_id = users.user_ids[row]
            return {"user_id": user_id}, request, {"user_id": user_id, "forbidden": frozenset()}
        newest = history.items[-self._release.limits.history :].tolist()
        ids = [catalogue.item_id(item) for item in newest]
        seen = frozenset() if self._release.details.get("repurchase") else frozenset(ids)
        return {"history": ids}, request, {"forbidden": seen}

    def _length(self, row: int) -> int:
        return self._release.limits.bucket(int(self._users.lengths[row]))

    def _filter(
        self, kind: str | None, row: int, pick: int
    ) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """What goes into the body, and what the answer must keep."""
        none: frozenset[str] = frozenset()
        if kind == "categories":
            name = self._categories[pick % len(self._categories)]
            return {"filter": {"categories": [name]}}, {"categories": (name,), "forbidden": none}
        if kind == "exclude":
            ids = self._some(row, pick, EXCLUDED)
            return {"filter": {"exclude": ids}}, {"forbidden": frozenset(ids)}
        if kind == "only":
            ids = self._some(row, pick, ALLOWED)
            return {"filter": {"only": ids}}, {"only": frozenset(ids), "forbidden": none}
        return {}, {"forbidden": none}

    def _item(self, row: int, pick: int) -> str:
        """One of the user's own, or any where there is none."""
        items = self._users.history(row).items
        if not len(items):
            return self._some(row, pick, 1)[0]
        return self._release.catalogue.item_id(int(items[pick % len(items)]))

    def _some(self, row: int, pick: int, count: int) -> list[str]:
        """Random items, distinct."""
        random = np.random.default_rng([self._seed, row, pick])
        size = len(self._release.catalogue)
        drawn: Array = random.choice(size, min(count, size), replace=False) + 1
        return [self._release.catalogue.item_id(int(index)) for index in drawn]
