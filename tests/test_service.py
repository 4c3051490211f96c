"""The Bento service as its callers see it, on a release whose Triton never comes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bento_process import (
    BENTOML,
    GENRES,
    ROOT,
    Service,
    bentoml_serve,
    environment,
    write_release,
)
from ports import free_ports
from prometheus_client.parser import text_string_to_metric_families

from recommender.contract import Limits

ITEMS = 60
LIMITS = Limits(
    user_features=2,
    category_words=1,
    exclude=4,
    answers=20,
    length_buckets=(4, 16),
    max_batch_size=8,
)
MODELS = ("recommender_onnx", "recommender_torchscript", "ranker", "similar_items")
NOBODY = "grpc://127.0.0.1:18199"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    tmp = tmp_path_factory.mktemp("service")
    write_release(tmp / "repository", LIMITS, items=ITEMS, models=MODELS)
    variables = {"RECSERVE_REPOSITORY": str(tmp / "repository"), "RECSERVE_TRITON": NOBODY}
    with bentoml_serve(tmp, variables) as running:
        yield running


def ids(answer: dict[str, object]) -> list[str]:
    assert isinstance(answer["items"], list)
    return [item["item_id"] for item in answer["items"]]


def counted(service: Service, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(service.http.get("/metrics").text)
    samples = [s for f in families for s in f.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


# What a caller gets


def test_without_triton_a_user_gets_popular_items_marked_as_fallback(service: Service) -> None:
    before = counted(service, "recserve_fallback_total", cause="unavailable")
    answer = service.recommend(user_id="new", n=3)
    assert ids(answer) == ["i1", "i2", "i3"]
    assert (answer["fallback"], answer["release"], answer["model"]) == (True, 1, "popularity")
    assert counted(service, "recserve_fallback_total", cause="unavailable") == before + 1


def test_an_item_carries_rank_score_categories_and_its_title_where_it_has_one(
    service: Service,
) -> None:
    answer = service.recommend(n=2)
    first = {"item_id": "i1", "rank": 1, "score": 60.0, "categories": ["Drama"]}
    second = first | {"item_id": "i2", "rank": 2, "score": 59.0, "title": "Title 2"}
    assert answer["items"] == [first, second | {"categories": ["Noir"]}]


def test_seen_items_are_left_out_beyond_what_the_model_takes_and_come_back_with_allow_seen(
    service: Service,
) -> None:
    assert ids(service.recommend(user_id="reader", n=2)) == ["i11", "i12"]  # 10 seen, E is 4
    assert ids(service.recommend(user_id="reader", n=2, allow_seen=True)) == ["i1", "i2"]


def test_a_given_history_counts_as_seen_beside_the_stored_one(service: Service) -> None:
    assert ids(service.recommend(history=["i1", "i3"], n=2)) == ["i2", "i4"]
    assert ids(service.recommend(user_id="reader", history=["i11"], n=1)) == ["i12"]


def test_n_defaults_to_ten_and_offset_skips_the_best(service: Service) -> None:
    assert len(ids(service.recommend())) == 10
    answer = service.recommend(n=2, offset=5)
    assert ids(answer) == ["i6", "i7"]
    assert isinstance(answer["items"], list)
    assert [item["rank"] for item in answer["items"]] == [6, 7]


def test_the_largest_n_is_the_releases_k(service: Service) -> None:
    assert len(ids(service.recommend(n=LIMITS.answers))) == LIMITS.answers


def test_a_filter_gives_items_of_any_wanted_category(service: Service) -> None:
    answer = service.recommend(n=4, filter={"categories": [GENRES[0], GENRES[2]]})
    assert ids(answer) == ["i2", "i3", "i5", "i6"]


def test_exclusions_never_come_back(service: Service) -> None:
    exclude = [f"i{i}" for i in range(1, 9)]
    assert ids(service.recommend(n=2, filter={"exclude": exclude})) == ["i9", "i10"]
    assert ids(service.post("/v1/popular", {"n": 2, "filter": {"exclude": exclude}})) == [
        "i9",
        "i10",
    ]


def test_unknown_ids_and_user_columns_are_skipped_and_listed(service: Service) -> None:
    answer = service.recommend(
        n=1, history=["i1", "gone"], filter={"exclude": ["lost"]}, user={"job": "nurse", "zip": 1}
    )
    assert ids(answer) == ["i2"]
    assert answer["ignored"] == ["lost", "gone", "zip"]


def test_an_unknown_category_gives_an_empty_list_without_fallback(service: Service) -> None:
    for path in ("/v1/recommend", "/v1/popular"):
        answer = service.post(path, {"filter": {"categories": ["Opera"]}})
        assert (answer["items"], answer["ignored"]) == ([], ["Opera"])
        assert answer["fallback"] is False


def test_beside_a_known_category_an_unknown_one_is_only_listed(service: Service) -> None:
    answer = service.recommend(n=1, filter={"categories": ["Opera", "Noir"]})
    assert (ids(answer), answer["ignored"]) == (["i2"], ["Opera"])


def test_popular_items_come_in_the_order_of_popularity(service: Service) -> None:
    answer = service.post("/v1/popular", {"n": 3, "filter": {"categories": ["Comedy"]}})
    assert (ids(answer), answer["fallback"]) == (["i3", "i6", "i9"], False)


def test_json_is_read_whatever_the_content_type_says(service: Service) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=x"):
        reply = service.http.post(
            "/v1/popular", content=b'{"n": 1}', headers={"Content-Type": kind}
        )
        assert reply.status_code == 200, kind


def test_the_callers_request_id_comes_back_and_a_strange_one_is_replaced(service: Service) -> None:
    for given, kept in (("order-7", True), ("a b", False), ("x" * 200, False)):
        reply = service.http.post("/v1/popular", json={}, headers={"X-Request-ID": given})
        assert (reply.json()["request_id"] == given) is kept
        assert reply.headers["X-Request-ID"] == reply.json()["request_id"]


def test_default_is_a_variant_and_any_other_is_unknown_where_there_is_none(
    service: Service,
) -> None:
    assert service.recommend(n=1, variant="default")["variant"] == "default"
    reply = service.http.post("/v1/recommend", json={"variant": "b"})
    assert reply.status_code == 404
    error = reply.json()["error"]
    assert (error["field"], error["value"]) == ("variant", "b")
    assert error["remedy"] == "There is default."


# What a caller must not send

DEEP = '{"user": {"a": ' + "[" * 20_000
REFUSED = [
    ('{"n": 0}', "n", 0),
    ('{"n": 10000}', "n", 10000),
    ('{"n": "ten"}', "n", "ten"),
    ('{"n": 2.5}', "n", 2.5),
    ('{"n": true}', "n", True),
    ('{"offset": -1}', "offset", -1),
    ('{"offset": 20}', "offset", 20),
    ('{"user_id": 7}', "user_id", 7),
    ('{"user_id": ""}', "user_id", ""),
    ('{"user_id": "%s"}' % ("x" * 257), "user_id", "x" * 60),
    ('{"user": {"age": [1]}}', "user", "{'age': [1]}"),
    ('{"history": "i1"}', "history", "i1"),
    ('{"history": ["i1", 2]}', "history[1]", 2),
    (json.dumps({"history": ["i1"] * 2001}), "history", None),
    ('{"filter": {"categories": [3]}}', "filter.categories[0]", 3),
    ('{"context": {"time": -1}}', "context.time", -1),
    ('{"context": {"time": 1700000000000}}', "context.time", 1700000000000),
    ('{"context": {"time": NaN}}', "body", None),
    ('{"allow_seen": "yes"}', "allow_seen", "yes"),
    ('{"variant": 2}', "variant", 2),
    ('{"variant": ""}', "variant", ""),
    ('{"deadline_ms": 0}', "deadline_ms", 0),
    ('{"deadline_ms": 60000}', "deadline_ms", 60000),
    ('{"n": 1, "surprise": {"a": 1}}', "surprise", "{'a': 1}"),
    ("[]", "body", None),
    ("", "body", None),
    ("n=5", "body", None),
    ('{"n": 5', "body", None),
    (DEEP, "user", None),
    ('{"x": ' + "[" * 20_000, "x", None),
    (b'{"user_id": "\xff"}', "body", None),
    ('{"user_id": "\\ud800"}', "body", None),
    ('{"n": 1%s}' % ("0" * 5000), "n", None),
]


@pytest.mark.parametrize(("body", "field", "value"), REFUSED, ids=[str(r[0])[:40] for r in REFUSED])
def test_a_body_outside_the_schema_is_refused_naming_field_value_and_remedy(
    service: Service, body: str | bytes, field: str, value: object
) -> None:
    reply = service.http.post("/v1/recommend", content=body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["field"] == field
    assert value is None or (error["value"] == value and type(error["value"]) is type(value))
    assert error["remedy"] and len(reply.text) < 600
    assert reply.json()["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status"),
    [
        ("POST", "/v1/recommend", b'{"model": "nope"}', {}, 404),
        ("POST", "/v1/recommend", b'{"model": "ranker"}', {}, 404),
        ("POST", "/v1/nothing", b"{}", {}, 404),
        ("GET", "/v1/recommend", None, {}, 405),
        ("DELETE", "/metrics", None, {}, 405),
        ("POST", "/v1/recommend", b" " * 1_000_001, {}, 413),
        ("POST", "/v1/recommend", b"{}", {"Content-Encoding": "gzip"}, 415),
    ],
)
def test_every_error_has_one_shape(
    service: Service,
    method: str,
    path: str,
    content: bytes | None,
    headers: dict[str, str],
    status: int,
) -> None:
    reply = service.http.request(method, path, content=content, headers=headers)
    assert reply.status_code == status
    assert reply.json().keys() == {"error", "request_id"}
    assert {"field", "value", "remedy"} <= reply.json()["error"].keys()
    assert ("Allow" in reply.headers) is (status == 405)


def test_a_body_that_grows_beyond_the_limit_is_refused_while_it_comes(service: Service) -> None:
    reply = service.http.post("/v1/recommend", content=(b" " * 65_536 for _ in range(32)))
    assert reply.status_code == 413


# What an operator sees


def test_it_is_alive_but_not_ready_before_triton_has_answered(service: Service) -> None:
    assert service.http.get("/livez").status_code == 200
    assert service.http.get("/readyz").status_code == 503
    assert service.http.get("/v1/release").json()["triton"] == "away"


def test_metrics_count_requests_by_route_and_status(service: Service) -> None:
    before = counted(service, "recserve_requests_total", route="/v1/popular", status="400")
    service.http.post("/v1/popular", json={"n": 0})
    assert (
        counted(service, "recserve_requests_total", route="/v1/popular", status="400") == before + 1
    )
    names = {f.name for f in text_string_to_metric_families(service.http.get("/metrics").text)}
    assert names >= {
        "recserve_requests",
        "recserve_request_seconds",
        "recserve_fallback",
        "recserve_exclude_overflow",
        "recserve_release",
        "recserve_inflight_requests",
    }
    assert counted(service, "recserve_release") == 1
    assert counted(service, "recserve_inflight_requests") == 1  # the one that asks


def test_paths_nobody_serves_share_one_label(service: Service) -> None:
    for path in ("/a", "/b"):
        service.http.get(path)
    assert counted(service, "recserve_requests_total", route="/a") == 0
    assert counted(service, "recserve_requests_total", route="other", status="404") >= 2


def test_docs_describe_every_route_with_its_limits_and_errors(service: Service) -> None:
    docs = service.http.get("/docs.json").json()
    assert docs["openapi"].startswith("3.")
    assert docs["paths"].keys() == {
        "/v1/recommend",
        "/v1/similar",
        "/v1/rank",
        "/v1/popular",
        "/v1/events",
        "/v1/history",
        "/v1/forget",
        "/v1/blocked",
        "/v1/release",
        "/v1/categories",
        "/livez",
        "/readyz",
        "/metrics",
        "/docs.json",
    }
    recommend = docs["paths"]["/v1/recommend"]["post"]
    errors = {"400", "401", "403", "404", "405", "408", "413", "415", "429", "500"}
    assert recommend["responses"].keys() == {"200", *errors}
    schemas = docs["components"]["schemas"]
    n = schemas["RecommendRequest"]["properties"]["n"]
    assert (n["minimum"], n["maximum"], n["default"]) == (1, LIMITS.answers, 10)
    assert schemas["RecommendRequest"]["additionalProperties"] is False
    references = json.dumps(docs).split("#/components/schemas/")[1:]
    assert {r.partition('"')[0] for r in references} <= schemas.keys()


def test_answers_and_errors_are_what_the_docs_describe(service: Service) -> None:
    from jsonschema import Draft202012Validator

    docs = service.http.get("/docs.json").json()

    def validator(name: str) -> Draft202012Validator:
        root = {"$ref": f"#/components/schemas/{name}", "components": docs["components"]}
        Draft202012Validator.check_schema(root)
        return Draft202012Validator(root)

    validator("Answer").validate(service.recommend(n=3))
    validator("Refusal").validate(service.http.post("/v1/recommend", json={"n": 0}).json())
    validator("Served").validate(service.http.get("/v1/release").json())
    asked = validator("RecommendRequest")
    asked.validate({"user_id": "reader", "n": 5, "filter": {"categories": ["Noir"]}})
    assert not asked.is_valid({"n": LIMITS.answers + 1})


# What cannot be served


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RECSERVE_REPOSITORY": "nowhere"}, "recserve export"),
        ({"RECSERVE_DEADLINE_MS": "soon"}, "whole milliseconds"),
        ({"RECSERVE_MODEL": "nope"}, "recommender_onnx"),
        ({"CORRUPT": "catalogue"}, "corrupted"),
    ],
)
def test_what_cannot_be_served_ends_bentoml_serve_with_one_line_and_its_remedy(
    tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    repository = tmp_path / "repository"
    write_release(repository, LIMITS, items=ITEMS, models=MODELS)
    if variables.pop("CORRUPT", None):
        with next(repository.rglob("catalogue.parquet")).open("ab") as file:
            file.write(b"x")
    done = subprocess.run(
        [BENTOML, "serve", "--port", str(free_ports(1)[0])],
        cwd=ROOT,
        env=environment(tmp_path / "home", RECSERVE_REPOSITORY=str(repository)) | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1 and words in lines[0], lines
