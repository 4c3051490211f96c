"""The routes as a caller reads of them: what for, the body, the answer, examples of both.

A route is one Operation here and one line in `bento/routes.py`. Examples of bodies are decoded
by the tests, examples of answers are made of the answers' types, and those of errors are provoked
in a running service: none can drift. The errors of all routes are `bento/openapi.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from bento.keys import ADMIN, EVENTS, METRICS, RECOMMEND
from bento.schemas import (
    BlockedRequest,
    EventsRequest,
    PopularRequest,
    RankRequest,
    RecommendRequest,
    SimilarRequest,
    UserRequest,
)
from client.api import (
    ANSWERS,
    SERVING,
    Answer,
    Because,
    BlockedItems,
    Categories,
    Category,
    EventsAccepted,
    Forgotten,
    HistoryAnswer,
    HistoryEvent,
    Item,
    Reason,
    Served,
    ServedVariant,
    Signal,
)
from recommender.contract import (
    EXPLAINER,
    RANKER,
    RECOMMENDER_ONNX,
    RECOMMENDER_TORCHSCRIPT,
    SIMILAR_ITEMS,
)
from recommender.errors import NotFound, RecserveError, Unavailable
from recommender.variants import DEFAULT

JSON, TEXT = "application/json", "text/plain"
EXAMPLE_ID = "8f14e45fceea167a"  # the request id of all examples
ABOUT = {  # how the document begins
    "openapi": "3.1.0",
    "info": {
        "title": "recserve",
        "version": "1",
        "description": "Recommendations from a model that Triton serves.",
    },
}


class Told(NamedTuple):
    """An error of a route."""

    when: str
    error: RecserveError | str  # a true one; a str: the text that BentoML answers


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route."""

    path: str
    summary: str
    methods: tuple[str, ...] = ("post",)
    body: type[msgspec.Struct] | None = None
    asked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # examples, by name
    answer: type[msgspec.Struct] | None = None  # None: see `content`
    answered: object = None  # an example
    content: str = JSON
    scope: str | None = None  # of the key, where keys are configured
    errors: Mapping[str, Told] = field(default_factory=dict)  # beside those that every route has
    tells: bool = True  # errors in the one shape; False: BentoML's own route


def _answer(model: str, *items: Item, **more: Any) -> Answer:
    made: dict[str, Any] = {
        "release": 1, "model": model, "variant": DEFAULT, "fallback": False, "ignored": [],
        "request_id": EXAMPLE_ID, **more,
    }  # fmt: skip
    return Answer(items=list(items), **made)


TITANIC = Item(
    item_id="313", score=2.42, rank=1, title="Titanic", categories=["Action", "Drama", "Romance"]
)
CONTACT = Item(item_id="258", score=2.1, rank=2, title="Contact", categories=["Drama", "Sci-Fi"])
WHY = Reason(
    text="Because of Good Will Hunting: chosen by the same people; popular this month.",
    items=[Because(item_id="272", title="Good Will Hunting", contribution=0.61)],
    signals=[Signal(name="ease", value=0.8, contribution=1.2),
             Signal(name="trend of 30 days", value=0.5, contribution=0.4)],
)  # fmt: skip
EXPLAINED = msgspec.structs.replace(CONTACT, reason=WHY)
PINNED = Item(item_id="50", rank=1, title="Star Wars", categories=["Sci-Fi"], pinned=True)

MODELS = [RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT, SIMILAR_ITEMS, RANKER, EXPLAINER]
TRIAL = ServedVariant(
    name="trial", release=2, model=None, role="ab", share=10.0, state=SERVING, reason=None
)

NO_VARIANT = NotFound(
    "there is no variant 'b' to ask", remedy="There is default.", field="variant", value="b"
)
NO_ITEM = NotFound("release 1 has no item 'unheard-of'", remedy="Name one of its 1682 items.",
                   field="item_id", value="unheard-of")  # fmt: skip
NO_STORE = Unavailable(
    "this service keeps no events: it has no store",
    remedy="Set RECSERVE_STORE to sqlite:///path or redis://host:port/db.",
)
STORE = {"503": Told("The event store is away, or there is none: nothing was kept.", NO_STORE)}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        path="/v1/recommend",
        summary="Items for a user, best first.",
        body=RecommendRequest,
        asked={
            "user": {"user_id": "196", "n": 5},
            "history": {"history": ["50", "172"], "n": 5, "offset": 5},
            "filter": {"user_id": "196", "filter": {"categories": ["Comedy"], "exclude": ["313"]}},
            "allow-list": {"user_id": "196", "filter": {"only": ["50", "258", "313"]}},
            "rules": {
                "user_id": "196",
                "diversity": 0.3,
                "rules": {
                    "max_per_category": 3,
                    "pin": ["50"],
                    "boost": {"categories": {"Drama": 0.2}, "items": {"258": -0.5}},
                },
            },
            "reasons": {"user_id": "196", "n": 3, "explain": True},
        },
        answer=Answer,
        answered=_answer("recommender_onnx", PINNED, EXPLAINED),
        scope=RECOMMEND,
        errors={"404": Told("There is no such variant, or its release has no such model.",
                            NO_VARIANT)},
    ),
    Operation(
        path="/v1/similar",
        summary="Items like one item, best first.",
        body=SimilarRequest,
        asked={
            "item": {"item_id": "50", "n": 5},
            "filter": {"item_id": "50", "filter": {"categories": ["Comedy"]}},
        },
        answer=Answer,
        answered=_answer("similar_items", CONTACT),
        scope=RECOMMEND,
        errors={"404": Told("The release has no such item or no such model; there is no such "
                            "variant.", NO_ITEM)},
    ),
    Operation(
        path="/v1/rank",
        summary="All of the candidates that the release knows, best first.",
        body=RankRequest,
        asked={
            "user": {"user_id": "196", "candidates": ["50", "258", "313"]},
            "history": {"history": ["50"], "candidates": ["258", "313", "unheard-of"]},
        },
        answer=Answer,
        answered=_answer("ranker", TITANIC, CONTACT, ignored=["unheard-of"]),
        scope=RECOMMEND,
        errors={"404": Told("There is no such variant, or its release has no ranker.", NO_VARIANT)},
    ),
    Operation(
        path="/v1/popular",
        summary="The most popular items.",
        body=PopularRequest,
        asked={"page": {"n": 5, "offset": 5}, "category": {"filter": {"categories": ["Comedy"]}},
               "search": {"text": "good will"}},
        answer=Answer,
        answered=_answer("popularity", TITANIC, CONTACT),
        scope=RECOMMEND,
    ),
    Operation(
        path="/v1/events",
        summary="What users did: in their histories, and in what is popular, from now on.",
        body=EventsRequest,
        asked={
            "one": {"events": [{"user_id": "196", "item_id": "313", "event": "view"}]},
            "to be repeated safely": {
                "events": [
                    {
                        "event_id": "0190d1f2-6a4c",
                        "user_id": "196",
                        "item_id": "258",
                        "event": "purchase",
                        "timestamp": 1790000000,
                        "request_id": EXAMPLE_ID,
                    }
                ]
            },
        },
        answer=EventsAccepted,
        answered=EventsAccepted(accepted=1, duplicates=0),
        scope=EVENTS,
        errors=STORE,
    ),
    Operation(
        path="/v1/history",
        summary="What is known of a user, oldest first: what a recommendation reads.",
        body=UserRequest,
        asked={"user": {"user_id": "196"}},
        answer=HistoryAnswer,
        answered=HistoryAnswer(
            user_id="196",
            events=[HistoryEvent(item_id="313", event="view", timestamp=1790000000,
                                 title="Titanic")],
        ),
        scope=EVENTS,
        errors=STORE,
    ),
    Operation(
        path="/v1/forget",
        summary="Erase a user, here and in what is trained from here on.",
        body=UserRequest,
        asked={"user": {"user_id": "196"}},
        answer=Forgotten,
        answered=Forgotten(events=12, left=0),
        scope=ADMIN,
        errors=STORE,
    ),
    Operation(
        path="/v1/blocked",
        summary="Items that nobody is shown: add, remove, or list them.",
        body=BlockedRequest,
        asked={"list": {}, "out of stock": {"add": ["313"]}, "back": {"remove": ["313"]}},
        answer=BlockedItems,
        answered=BlockedItems(items=["313"]),
        scope=ADMIN,
        errors=STORE,
    ),
    Operation(
        path="/v1/release",
        summary="The release that answers now, its variants, and whether Triton answers.",
        methods=("get", "post"),
        answer=Served,
        answered=Served(
            release=1,
            family="deep",
            models=MODELS,
            created="2026-11-20T09:30:00+00:00",
            variant=DEFAULT,
            since=1790000000.0,
            changed=1790000100.0,
            triton=ANSWERS,
            variants=[TRIAL],
            recommenders=MODELS[:2],
            example_users=["196", "22"],
        ),
    ),
    Operation(
        path="/v1/categories",
        summary="Every category that a filter may name, the largest first.",
        methods=("get",),
        answer=Categories,
        answered=Categories(release=1, categories=[Category(category="Drama", items=725)]),
        scope=RECOMMEND,
    ),
    Operation(path="/livez", summary="Is the process alive?", methods=("get",), content=TEXT,
              answered="\n", tells=False),
    Operation(
        path="/readyz",
        summary="Is the catalogue loaded, has Triton answered for its release once, and has the "
        "store, if there is one, said what is blocked?",
        methods=("get",),
        content=TEXT,
        answered="\n",
        errors={"503": Told("Not yet.",
                            "Service is not ready because .__is_ready__() returns False.")},
        tells=False,
    ),
    Operation(
        path="/metrics",
        summary="Metrics in Prometheus' text format, for anybody unless they are made private.",
        methods=("get",),
        content=TEXT,
        answered="# HELP recserve_release Number of the release that serves.\n"
        "# TYPE recserve_release gauge\n"
        "recserve_release 1.0\n",
        scope=METRICS,
    ),
    Operation(path="/docs.json", summary="This description.", methods=("get",), answered=ABOUT),
)  # fmt: skip
