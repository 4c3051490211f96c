"""The words of the HTTP API: what each route is asked and answers, as types.

The service encodes the answers' types and `client/service.py` decodes them, so neither can drift
from the other; the bodies mirror `bento/schemas.py`, field by field. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Required, TypedDict

import msgspec

# --- answers


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """One of the things that a score is made of."""

    name: str
    value: float  # above its mean over the catalogue
    contribution: float  # to the score; those of all signals sum up to it


class Because(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An item of the history that spoke for an item."""

    item_id: str
    title: str | None = None
    contribution: float


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why an item has its score."""

    text: str  # one sentence
    items: list[Because]  # those that the sentence names, the strongest first
    signals: list[Signal]  # all of them, the strongest first


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One recommended item."""

    item_id: str
    score: float | None = None  # the model's; None: pinned, and not among the answers it scored
    rank: int  # from 1, counted from the best answer whatever the offset
    title: str | None = None
    categories: Sequence[str]
    pinned: bool = False
    reason: Reason | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to recommend(), popular(), similar() and rank()."""

    items: list[Item]
    release: int
    model: str  # the model that ranked; "popularity" for popular items
    variant: str  # "default", or the variant of releases.json whose request it was
    fallback: bool  # True: popular items, because Triton was away or too slow
    ignored: list[str]  # ids, categories and user columns the release does not know
    request_id: str
    notes: list[str] = []  # what is less than was asked for, in words for machines


class ServedVariant(msgspec.Struct, frozen=True, kw_only=True):
    """A release that lives beside the one that serves."""

    name: str
    release: int
    model: str | None  # None: the release's first
    role: str  # "ab", "canary", "shadow"
    share: float  # percent of users; of a shadow, percent of requests copied
    state: str  # STARTING, SERVING, or STOPPED: a canary that was worse
    reason: str | None  # why it is not serving


STARTING, SERVING, STOPPED = "starting", "serving", "stopped"
ANSWERS: Final = "answers"
AWAY: Final = "away"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What answers at an address."""

    release: int
    family: str
    models: list[str]  # the first one answers where a request names none
    created: str | None  # ISO 8601
    variant: str
    since: float  # unix seconds: answers with this release from then on
    triton: Literal["answers", "away"]  # for this release, as far as requests have shown
    changed: float = 0.0  # unix seconds: neither this nor which variants there are changed since
    variants: list[ServedVariant] = []
    recommenders: list[str] = []  # of `models`, those that /v1/recommend takes
    example_users: list[str] = []  # ids that the operator lets the page offer


class Category(msgspec.Struct, frozen=True, kw_only=True):
    category: str
    items: int  # that are of it


class Categories(msgspec.Struct, frozen=True, kw_only=True):
    """The categories of the release that answers now, the largest first."""

    release: int
    categories: list[Category]


class EventsAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events that were sent: durable before the answer left."""

    accepted: int
    duplicates: int  # of an event_id that was there already: not counted again
    forgotten: int = 0  # of users who were erased, from before that: not counted
    ahead: int = 0  # with a time of more than 5 s ahead of the server's clock: taken as now
    unknown: list[str] = []  # item ids outside the release's catalogue; their events are kept


class HistoryEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One act of a user."""

    item_id: str
    event: str | None = None  # None: of the training data, which keeps no names
    timestamp: int  # unix seconds
    title: str | None = None


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a user, oldest first."""

    user_id: str
    events: list[HistoryEvent]


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """A user was erased, and the store was asked again."""

    events: int  # that were erased
    left: int  # that the store still had afterwards: 0, or what came in meanwhile


class BlockedItems(msgspec.Struct, frozen=True, kw_only=True):
    """The items that nobody is shown, as of now."""

    items: list[str]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What was wrong with a request."""

    field: str | None
    value: Any
    message: str
    remedy: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The one shape of every error."""

    error: Fault
    request_id: str


# --- bodies; what is not Required may be left out


class FilterBody(TypedDict, total=False):
    categories: Sequence[str]  # any of them
    exclude: Sequence[str]  # item ids never to return
    only: Sequence[str]  # item ids of which alone may be returned


class ContextBody(TypedDict, total=False):
    time: int  # unix seconds, default now


class BoostBody(TypedDict, total=False):
    categories: Mapping[str, float]
    items: Mapping[str, float]  # by item id


class RulesBody(TypedDict, total=False):
    max_per_category: int
    pin: Sequence[str]  # item ids that come first, in this order
    boost: BoostBody


class UserBody(TypedDict, total=False):
    """Who asks."""

    user_id: str
    user: Mapping[str, str | int | float | bool | None]  # columns, before those of training
    history: Sequence[str]  # item ids, oldest first, instead of the stored history
    context: ContextBody
    variant: str
    deadline_ms: int


class RecommendBody(UserBody, total=False):
    """The body of POST /v1/recommend."""

    n: int
    offset: int
    filter: FilterBody
    diversity: float  # 0 to 1
    rules: RulesBody
    explain: bool
    allow_seen: bool
    model: str


class RankBody(UserBody, total=False):
    """The body of POST /v1/rank."""

    candidates: Required[Sequence[str]]


class SimilarBody(TypedDict, total=False):
    """The body of POST /v1/similar."""

    item_id: Required[str]
    n: int
    offset: int
    filter: FilterBody
    variant: str
    deadline_ms: int


class PopularBody(TypedDict, total=False):
    """The body of POST /v1/popular."""

    n: int
    offset: int
    filter: FilterBody
    text: str  # words that title or id must hold


class EventBody(TypedDict, total=False):
    """One event of POST /v1/events."""

    event_id: str  # makes repeats harmless; the client gives one where it is missing
    user_id: Required[str]
    item_id: Required[str]
    event: Required[str]  # "view", "purchase", ...
    timestamp: int  # unix seconds, default now
    request_id: str  # of the answer that showed the item
