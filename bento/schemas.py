"""What each route may be asked, as structs: `bento/decoding.py` makes them of bytes.

The structs are the schema: every limit stands in them, unknown fields are
refused, and `bento/openapi.py` describes them as they are. The one limit that
belongs to the release, its K, is `window()`. The answers' types are
the client's.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bento.settings import MAX_DEADLINE_MS
from recommender.errors import BadInput

DEFAULT_N = 10
MAX_LIST = 2000  # ids in one list
MAX_PINS = 20
LAST_SECOND = 32_503_680_000  # year 3000: milliseconds sent as seconds lie beyond it

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Ids = Annotated[list[Id], Meta(max_length=MAX_LIST)]
Value = Annotated[str, Meta(max_length=256)] | int | float | bool | None
Amount = Annotated[float, Meta(ge=-1, le=1)]

# Fields that several routes have.
HowMany = Annotated[int, Meta(description="How many items.")] | UnsetType
Offset = Annotated[int, Meta(description="How many of the best to skip.")]
VariantName = Annotated[
    Id | None, Meta(description="A variant by name, or `default`, instead of the user's own.")
]
Deadline = Annotated[
    Annotated[int, Meta(ge=1, le=MAX_DEADLINE_MS)] | None,
    Meta(description="Popular items when no answer comes by then."),
]


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be in the answer."""

    categories: Annotated[
        list[Id], Meta(max_length=100, description="Items of any of these; empty = all.")
    ] = []
    exclude: Annotated[Ids, Meta(description="Item ids never to return.")] = []
    only: Annotated[
        Ids | None,
        Meta(description="Item ids of which alone may be returned; empty = none of any."),
    ] = None


class Context(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The moment of the request."""

    time: Annotated[
        Annotated[int, Meta(ge=0, le=LAST_SECOND)] | None,
        Meta(description="Unix seconds; default now."),
    ] = None


class Boost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What moves items up (or down, where negative) among the K best of the model.

    1 is the distance from the last of them to the first; what an item gets adds up.
    """

    categories: Annotated[dict[Id, Amount], Meta(max_length=100, description="By category.")] = {}
    items: Annotated[dict[Id, Amount], Meta(max_length=MAX_LIST, description="By item id.")] = {}


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a shop wants of a list beyond the model's order."""

    max_per_category: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_LIST)] | None,
        Meta(description="Items of a category at most, over all pages; the next best follow."),
    ] = None
    pin: Annotated[
        list[Id],
        Meta(
            max_length=MAX_PINS,
            description="Item ids that come first, in this order, seen or not; what the filter "
            "forbids is left out.",
        ),
    ] = []
    boost: Boost = Boost()


class Asking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks, when, and how long for an answer."""

    user_id: Annotated[
        Id | None, Meta(description="A user of the training data; an unknown one is a new user.")
    ] = None
    user: Annotated[
        dict[Id, Value],
        Meta(max_length=100, description="User columns, before those of the training data."),
    ] = {}
    history: Annotated[
        Ids | None, Meta(description="Item ids, oldest first, instead of the stored history.")
    ] = None
    context: Context = Context()
    variant: VariantName = None
    deadline_ms: Deadline = None


class RecommendRequest(Asking, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks, and for what."""

    n: HowMany = UNSET
    offset: Offset = 0
    filter: Filter = Filter()
    diversity: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="0: the model's order. Above: items of other categories than those before "
            "them come sooner; 1: nothing else counts.",
        ),
    ] = 0.0
    rules: Rules = Rules()
    explain: Annotated[
        bool, Meta(description="With a reason for each item, within the same deadline.")
    ] = False
    allow_seen: Annotated[
        bool | None,
        Meta(description="Also items of the history; left out: as the data's repurchase says."),
    ] = None
    model: Annotated[
        Id | None, Meta(description="A model of the release that serves, or of the variant's.")
    ] = None


class RankRequest(Asking, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks, and which items to put in order."""

    candidates: Annotated[
        list[Id], Meta(min_length=1, max_length=MAX_LIST, description="Item ids, in any order.")
    ]


class SimilarRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which item, and what may be shown beside it."""

    item_id: Annotated[Id, Meta(description="An item of the release's catalogue.")]
    n: HowMany = UNSET
    offset: Offset = 0
    filter: Filter = Filter()
    variant: VariantName = None
    deadline_ms: Deadline = None


class PopularRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of the most popular items."""

    n: HowMany = UNSET
    offset: Offset = 0
    filter: Filter = Filter()
    text: Annotated[
        Annotated[str, Meta(max_length=100)] | None,
        Meta(description="Words that an item's title or id must hold, all of them."),
    ] = None


class EventBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One act of one user."""

    event_id: Annotated[
        Id | None, Meta(description="Makes a repeat harmless: counted once for a user.")
    ] = None
    user_id: Id
    item_id: Annotated[Id, Meta(description="Also one that no release knows yet.")]
    event: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)],
        Meta(description="`view`, `purchase`, ...; the data's own names have its weights."),
    ]
    timestamp: Annotated[
        Annotated[int, Meta(ge=0, le=LAST_SECOND)] | None,
        Meta(description="Unix seconds; default now, as is a time that has not come."),
    ] = None
    request_id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128)] | None,
        Meta(description="Of the answer that showed the item, for click-through."),
    ] = None


class EventsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events, kept all or none."""

    events: Annotated[list[EventBody], Meta(min_length=1, max_length=1000)]


class UserRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One user."""

    user_id: Id


class BlockedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Items that nobody is to be shown (out of stock, withdrawn) or that may be shown again."""

    add: Ids = []
    remove: Ids = []


PAGED = (RecommendRequest, SimilarRequest, PopularRequest)  # have n and offset


def window(request: RecommendRequest | SimilarRequest | PopularRequest, answers: int) -> slice:
    """The part of a release's K = `answers` ranked items that is asked for; the last page ends
    with the K-th of them.

    Raises BadInput for n or offset beyond K.
    """
    offset, n = request.offset, request.n
    if not 0 <= offset < answers:
        raise BadInput(
            f"offset is {offset}",
            remedy=f"Send a whole number from 0 to {answers - 1}.",
            field="offset",
            value=offset,
        )
    if n is UNSET:
        n = min(DEFAULT_N, answers)
    if not 1 <= n <= answers:
        raise BadInput(
            f"n is {n}",
            remedy=f"Send a whole number from 1 to {answers}.",
            field="n",
            value=n,
        )
    return slice(offset, min(offset + n, answers))
