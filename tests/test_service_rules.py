"""Filters, rules and pages as callers see them, where every order is known: Triton never comes,
so the answers are items by popularity, i1 first, arranged like any model's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest
from bento_process import GENRES, Service, bentoml_serve, write_release
from test_service import ITEMS, LIMITS, MODELS, NOBODY, ids

from bento.operations import OPERATIONS

COMEDY, DRAMA, NOIR = GENRES  # of i3 all; i1 is Drama, i2 Noir, i6 Comedy, i4 Drama, ...
MANY = [f"i{i}" for i in range(1, 61)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    tmp = tmp_path_factory.mktemp("rules")
    write_release(tmp / "repository", LIMITS, items=ITEMS, models=MODELS)
    variables = {
        "RECSERVE_REPOSITORY": str(tmp / "repository"),
        "RECSERVE_TRITON": NOBODY,
        "RECSERVE_STORE": f"sqlite:///{tmp / 'events.db'}",
    }
    with bentoml_serve(tmp, variables) as running:
        yield running


# Allow-lists


def test_only_listed_items_come_back_and_unknown_ones_are_listed(service: Service) -> None:
    for path in ("/v1/recommend", "/v1/popular"):
        body = {"filter": {"only": ["i40", "gone", "i7", "i40"]}}
        answer = service.post(path, body)
        assert (ids(answer), answer["ignored"]) == (["i7", "i40"], ["gone"])
        answer = service.post(path, {"filter": {"only": ["i40", "i7"], "exclude": ["i7"]}})
        assert ids(answer) == ["i40"]
        answer = service.post(path, {"filter": {"only": ["i4", "i5", "i6"], "categories": [NOIR]}})
        assert ids(answer) == ["i5"]


def test_an_allow_list_that_leaves_nothing_gives_an_empty_answer_without_fallback(
    service: Service,
) -> None:
    for only in ([], ["gone"], ["i1"]):  # i1 is seen
        answer = service.recommend(user_id="reader", filter={"only": only})
        assert (answer["items"], answer["fallback"]) == ([], False)
    assert ids(service.recommend(user_id="reader", filter={"only": ["i1"]}, allow_seen=True))


# Rules


def test_no_category_has_more_items_than_its_cap_over_all_pages(service: Service) -> None:
    rules = {"max_per_category": 2}
    answer = service.recommend(n=20, rules=rules)
    assert ids(answer) == ["i1", "i2", "i3", "i6"]  # i3 is in all three
    answer = service.recommend(n=20, rules=rules, filter={"exclude": ["i3"]})
    assert ids(answer) == ["i1", "i2", "i4", "i5", "i6", "i9"]
    assert ids(service.recommend(n=3, offset=4, rules=rules, filter={"exclude": ["i3"]})) == [
        "i6",
        "i9",
    ]


def test_pinned_items_come_first_seen_or_not_and_have_no_score_of_their_own(
    service: Service,
) -> None:
    answer = service.recommend(user_id="reader", n=4, rules={"pin": ["i50", "i2", "i50", "i12"]})
    assert ids(answer) == ["i50", "i2", "i12", "i11"]
    assert isinstance(answer["items"], list)
    # i50 is beyond the K best, i2 was not asked for, i12 was
    assert [item.get("score") for item in answer["items"]] == [None, None, 49.0, 50.0]
    assert [item.get("pinned") for item in answer["items"]] == [True, True, True, None]
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4]


def test_what_the_filter_forbids_is_not_pinned_either(service: Service) -> None:
    def pinned(**wanted: object) -> list[str]:
        answer = service.recommend(n=1, filter=wanted, rules={"pin": ["i4", "gone"]})
        assert answer["ignored"] == ["gone"]
        return ids(answer)

    assert pinned() == ["i4"]
    assert pinned(exclude=["i4"]) == ["i1"]
    assert pinned(categories=[COMEDY]) == ["i3"]
    assert pinned(only=["i9"]) == ["i9"]


def test_a_boost_moves_items_by_parts_of_the_way_from_the_last_to_the_first(
    service: Service,
) -> None:
    by_item = {"boost": {"items": {"i11": 0.6, "i1": -1.0, "gone": 1}}}
    answer = service.recommend(n=20, rules=by_item)  # i1 to i20: i11 stands 10/19 below i1
    assert ids(answer) == ["i11", *MANY[1:10], *MANY[11:19], "i1", "i20"]
    assert answer["ignored"] == ["gone"]
    assert isinstance(answer["items"], list)
    assert answer["items"][0]["score"] == 50.0  # still that of the model
    boosted = ids(service.recommend(n=8, rules={"boost": {"categories": {COMEDY: 1, "Opera": 1}}}))
    assert boosted == ["i3", "i6", "i9", "i12", "i15", "i18", "i1", "i2"]


def test_diversity_brings_other_categories_forward(service: Service) -> None:
    def categories(diversity: float) -> list[list[str]]:
        answer = service.recommend(n=9, diversity=diversity, filter={"exclude": ["i2", "i3", "i5"]})
        assert isinstance(answer["items"], list)
        return [item["categories"] for item in answer["items"]]

    plain, diverse = categories(0), categories(0.9)
    assert sum(a == b for a, b in pairwise(plain)) >= sum(a == b for a, b in pairwise(diverse))
    assert len({*map(tuple, diverse[:3])}) == 3 > len({*map(tuple, plain[:2])})


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"diversity": 0.5},
        {"rules": {"max_per_category": 4, "pin": ["i33", "i2"]}},
        {"diversity": 0.7, "rules": {"max_per_category": 5, "pin": ["i12"],
         "boost": {"categories": {NOIR: 0.4}}}, "filter": {"exclude": ["i3"]}},
    ],
    ids=["as ranked", "diversity", "caps and pins", "all"],
)  # fmt: skip
def test_pages_of_one_request_never_overlap_or_skip(
    service: Service, more: dict[str, object]
) -> None:
    whole = ids(service.recommend(n=LIMITS.answers, **more))
    for size in (1, 3, 7):
        pages = [
            ids(service.recommend(n=size, offset=at, **more))
            for at in range(0, LIMITS.answers, size)
        ]
        assert [item for page in pages for item in page] == whole


# Similar items and given candidates


def test_without_triton_similar_items_are_popular_ones_but_never_the_item_itself(
    service: Service,
) -> None:
    answer = service.post("/v1/similar", {"item_id": "i2", "n": 3, "filter": {"exclude": ["i3"]}})
    assert (ids(answer), answer["fallback"]) == (["i1", "i4", "i5"], True)
    assert (answer["model"], answer["variant"]) == ("popularity", "default")
    answer = service.post("/v1/similar", {"item_id": "i2", "filter": {"only": ["i2", "i9"]}})
    assert ids(answer) == ["i9"]


def test_without_triton_candidates_come_by_popularity(service: Service) -> None:
    candidates = ["i40", "gone", "i7", "i40", *MANY[:50]]
    answer = service.post("/v1/rank", {"user_id": "reader", "candidates": candidates})
    assert (ids(answer), answer["ignored"]) == (MANY[:50], ["gone"])
    assert (answer["fallback"], answer["model"]) == (True, "popularity")
    answer = service.post("/v1/rank", {"candidates": ["gone"]})
    assert (answer["items"], answer["fallback"], answer["ignored"]) == ([], False, ["gone"])


def test_reasons_that_nobody_gives_are_noted(service: Service) -> None:
    answer = service.recommend(n=2, explain=True)
    assert answer["notes"] == ["explanations"]
    assert isinstance(answer["items"], list)
    assert not any("reason" in item for item in answer["items"])
    assert "notes" not in service.recommend(n=2)


# What a caller must not send

TOO_MANY = [f"i{i}" for i in range(2001)]
REFUSED = [
    ("/v1/recommend", {"filter": {"only": "i1"}}, "filter.only", "i1"),
    ("/v1/recommend", {"filter": {"only": [1]}}, "filter.only[0]", 1),
    ("/v1/recommend", {"filter": {"only": TOO_MANY}}, "filter.only", None),
    ("/v1/recommend", {"diversity": 1.5}, "diversity", 1.5),
    ("/v1/recommend", {"diversity": -0.1}, "diversity", -0.1),
    ("/v1/recommend", {"diversity": "much"}, "diversity", "much"),
    ("/v1/recommend", {"explain": "yes"}, "explain", "yes"),
    ("/v1/recommend", {"rules": {"max_per_category": 0}}, "rules.max_per_category", 0),
    ("/v1/recommend", {"rules": {"max_per_category": 1.5}}, "rules.max_per_category", 1.5),
    ("/v1/recommend", {"rules": {"pin": "i1"}}, "rules.pin", "i1"),
    ("/v1/recommend", {"rules": {"pin": MANY[:21]}}, "rules.pin", None),
    ("/v1/recommend", {"rules": {"pins": ["i1"]}}, "rules.pins", "['i1']"),
    ("/v1/recommend", {"rules": {"boost": {"items": {"i1": 2}}}}, "rules.boost.items", None),
    ("/v1/recommend", {"rules": {"boost": {"categories": {"": 1}}}}, "rules.boost.categories",
     None),
    ("/v1/similar", {}, "body", None),
    ("/v1/similar", {"item_id": ""}, "item_id", ""),
    ("/v1/similar", {"item_id": 4}, "item_id", 4),
    ("/v1/similar", {"item_id": "i1", "n": 21}, "n", 21),
    ("/v1/similar", {"item_id": "i1", "offset": 20}, "offset", 20),
    ("/v1/similar", {"item_id": "i1", "user_id": "u"}, "user_id", "u"),
    ("/v1/rank", {}, "body", None),
    ("/v1/rank", {"candidates": []}, "candidates", "[]"),
    ("/v1/rank", {"candidates": TOO_MANY}, "candidates", None),
    ("/v1/rank", {"candidates": ["i1", ""]}, "candidates[1]", ""),
    ("/v1/rank", {"candidates": ["i1"], "n": 3}, "n", 3),
    ("/v1/rank", {"candidates": ["i1"], "deadline_ms": 0}, "deadline_ms", 0),
    ("/v1/popular", {"diversity": 0.5}, "diversity", 0.5),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "field", "value"), REFUSED, ids=[json.dumps(r[1])[:50] for r in REFUSED]
)
def test_what_is_outside_the_schema_is_refused_naming_field_value_and_remedy(
    service: Service, path: str, body: dict[str, object], field: str, value: object
) -> None:
    reply = service.http.post(path, json=body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["field"] == field
    assert value is None or (error["value"] == value and type(error["value"]) is type(value))
    assert error["remedy"] and len(reply.text) < 600


@pytest.mark.parametrize(
    ("path", "body", "field", "value"),
    [
        ("/v1/similar", {"item_id": "gone"}, "item_id", "gone"),
        ("/v1/similar", {"item_id": "i1", "variant": "b"}, "variant", "b"),
        ("/v1/rank", {"candidates": ["i1"], "variant": "b"}, "variant", "b"),
    ],
)
def test_what_is_not_there_is_a_404(
    service: Service, path: str, body: dict[str, object], field: str, value: str
) -> None:
    reply = service.http.post(path, json=body)
    assert reply.status_code == 404
    error = reply.json()["error"]
    assert (error["field"], error["value"]) == (field, value)
    assert error["remedy"]


# What the docs show


@pytest.mark.parametrize("one", [o for o in OPERATIONS if o.body], ids=lambda one: one.path)
def test_every_example_of_the_docs_is_a_request_that_is_answered(
    service: Service, one: object
) -> None:
    from jsonschema import Draft202012Validator

    docs = service.http.get("/docs.json").json()
    operation = docs["paths"][one.path]["post"]

    def validate(content: dict[str, object], value: object) -> None:
        schema = {**content["schema"], "components": docs["components"]}
        Draft202012Validator(schema).validate(value)

    asked, answered = operation["requestBody"]["content"], operation["responses"]["200"]["content"]
    assert one.asked.keys() == asked["application/json"]["examples"].keys()
    for body in one.asked.values():
        validate(asked["application/json"], body)
        msgspec.convert(body, one.body)
        reply = service.http.post(one.path, json=body)
        unknown = "item_id" in body  # of MovieLens, not of this catalogue
        assert reply.status_code == (404 if unknown else 200), reply.text
        if not unknown:
            validate(answered["application/json"], reply.json())
    validate(answered["application/json"], answered["application/json"]["example"])


def test_release_answers_get_and_post(service: Service) -> None:
    assert service.http.post("/v1/release").json() == service.http.get("/v1/release").json()
