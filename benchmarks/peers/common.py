"""What every peer needs of a saved release: who asks -> the contract's tensors, rows -> an answer.

The rules are those of /v1/recommend for `{user_id, n}` and `{history, n}`: a sent history
replaces the stored one and happened just now; whatever was seen is not shown again. It reads the
release by `recommender`, as anybody with a saved model would, and knows no server.
"""

from __future__ import annotations

import gc
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypedDict

import msgspec
import numpy as np
import pydantic
from pydantic import ConfigDict, Field

from recommender import features
from recommender.contract import PADDING, RECOMMENDER_TORCHSCRIPT, Array
from recommender.features import Request
from recommender.release import Release, read_release
from recommender.users import EMPTY, History

MOST = 100  # items in an answer: K of every release that `recserve export` writes
Id = Annotated[str, Field(min_length=1, max_length=256)]


class Body(pydantic.BaseModel):
    """What is asked: the fields of /v1/recommend that all of them answer."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id | None = None
    history: Annotated[list[Id], Field(max_length=2000)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST)] = 10


class Item(TypedDict):
    item_id: str
    score: float
    rank: int
    title: str | None
    categories: tuple[str, ...]


class Answer(TypedDict):
    items: list[Item]
    release: int
    model: str
    fallback: bool
    ignored: list[str]
    request_id: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A body in indexes."""

    request: Request
    n: int
    overflow: Array  # [m] int64, seen items beyond what the model excludes
    ignored: list[str]


Run = Callable[[dict[str, Array]], tuple[Array, Array]]  # item, score [B, K] of a batch
encode = msgspec.json.Encoder().encode


class Saved:
    """The release that serves in a repository, read once."""

    def __init__(self, repository: Path, model: str) -> None:
        self.release: Release = read_release(repository)
        self.model = model
        self._users, self._catalogue = self.release.users, self.release.catalogue
        self._repurchase = bool(self.release.details.get("repurchase"))
        _ = self._users.row(""), self._catalogue.index("")  # builds what is looked up in

    @cached_property
    def path(self) -> Path:
        file = "model.pt" if self.model == RECOMMENDER_TORCHSCRIPT else "model.onnx"
        return self.release.repository / self.model / str(self.release.version) / file

    def asked(self, body: Body) -> Asked:
        release, limits = self.release, self.release.limits
        now = min(int(time.time()), release.clock)
        row = None if body.user_id is None else self._users.row(body.user_id)
        history = EMPTY if row is None else self._users.history(row)
        columns = None if row is None else self._users.features[row]
        seen, ignored = history.items[::-1], list[str]()
        if body.history is not None:
            items = self._catalogue.indexes(body.history)
            if not items.all():
                pairs = zip(body.history, items.tolist(), strict=True)
                ignored = list(dict.fromkeys(name for name, index in pairs if not index))
                items = items[items > 0]
            history = History(
                items=items,
                times=np.full(len(items), now, np.int64),
                weights=np.ones(len(items), np.float32),
            )
            seen = np.concatenate([items[::-1], seen])
        if self._repurchase:
            seen = EMPTY.items
        elif len(seen) > limits.exclude:
            seen = seen[np.sort(np.unique(seen, return_index=True)[1])]
        request = Request(
            history=history, request_time=now, user_features=columns, exclude=seen[: limits.exclude]
        )
        return Asked(request=request, n=body.n, overflow=seen[limits.exclude :], ignored=ignored)

    def tensors(self, asked: list[Asked]) -> dict[str, Array]:
        """One batch [B, ...], as long as its longest history needs."""
        return features.tensors([one.request for one in asked], self.release.limits)

    def answer(self, asked: Asked, item_K: Array, score_K: Array) -> Answer:
        kept = item_K != PADDING
        if len(asked.overflow):
            kept &= ~np.isin(item_K, asked.overflow)
        best, scores = item_K[kept][: asked.n].tolist(), score_K[kept][: asked.n].tolist()
        catalogue = self._catalogue
        return {
            "items": [
                {
                    "item_id": catalogue.item_id(index),
                    "score": score,
                    "rank": rank,
                    "title": catalogue.title(index),
                    "categories": catalogue.categories_of(index),
                }
                for rank, (index, score) in enumerate(zip(best, scores, strict=True), start=1)
            ],
            "release": self.release.version,
            "model": self.model,
            "fallback": False,
            "ignored": asked.ignored,
            "request_id": secrets.token_hex(8),
        }

    def answers(self, asked: list[Asked], run: Run) -> list[Answer]:
        """Of a batch, in its order: a call of the graph for each length there is, since padding
        the short ones to the longest costs more than a second call."""
        rows: dict[int, list[int]] = {}
        for row, one in enumerate(asked):
            length = self.release.limits.bucket(len(one.request.history))
            rows.setdefault(length, []).append(row)
        found: dict[int, Answer] = {}
        for of_length in rows.values():
            item_BK, score_BK = run(self.tensors([asked[row] for row in of_length]))
            for row, item_K, score_K in zip(of_length, item_BK, score_BK, strict=True):
                found[row] = self.answer(asked[row], item_K, score_K)
        return [found[row] for row in range(len(asked))]


def setting(name: str, default: str) -> str:
    """What the benchmark starts a peer with; the defaults are what served best."""
    return os.environ.get(f"PEER_{name}", default)


def saved(model: str) -> Saved:
    return Saved(Path(setting("REPOSITORY", "model_repository")), model)


def settle() -> None:
    """Once all is loaded, as in our service: the collector need not walk through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
