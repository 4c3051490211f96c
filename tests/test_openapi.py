"""/docs.json shows what is true: every answer and error has an example of its type, and an error
is what a running service says, word for word, of the mistake that it shows."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bento_process import Service, bentoml_serve, write_release
from jsonschema import Draft202012Validator

from bento import keys, openapi
from bento.door import MAX_HEAD
from bento.errors import defect, refusal
from bento.operations import EXAMPLE_ID, JSON, OPERATIONS, TEXT, Operation
from client.api import Refusal
from recommender.contract import Limits

LIMITS = Limits(user_features=2, category_words=1, exclude=4, answers=20, length_buckets=(4, 16),
                max_batch_size=8)  # fmt: skip
ITEMS = 1682  # as many as MovieLens-100K has, whose release the examples are of
DOCS = json.loads(openapi.document(LIMITS.answers))
ONE_PLACE = ("408", "429", "500")  # where they are provoked; the example is the same everywhere
PUT = "PUT"


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Mapping[str, str]]]:
    """A file of keys, and what the owner of each sends."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    made = {
        "shop": keys.add(file, "shop", [keys.RECOMMEND]),
        "till": keys.add(file, "till", [keys.EVENTS]),
        "boss": keys.add(file, "boss", [keys.ADMIN]),
        "hasty": keys.add(file, "hasty", [keys.RECOMMEND], rate=2),
    }
    return file, {name: {"Authorization": f"Bearer {key}"} for name, key in made.items()}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, sent: tuple[Path, Mapping[str, Mapping[str, str]]]
) -> Iterator[Service]:
    """It takes keys, keeps no events, and its Triton never comes."""
    tmp = tmp_path_factory.mktemp("openapi")
    models = ("recommender_onnx", "ranker", "similar_items")
    write_release(tmp / "repository", LIMITS, items=ITEMS, models=models)
    variables = {
        "RECSERVE_REPOSITORY": str(tmp / "repository"),
        "RECSERVE_TRITON": "grpc://127.0.0.1:18199",  # nobody
        "RECSERVE_KEYS": str(sent[0]),
        "RECSERVE_PRIVATE_METRICS": "1",
    }
    with bentoml_serve(tmp, variables) as running:
        yield running


def contents() -> Iterator[tuple[Operation, str, str, str, Any]]:
    """(operation, method, status, content type, content) of every answer of the document."""
    for one in OPERATIONS:
        for method in one.methods:
            for status, response in DOCS["paths"][one.path][method]["responses"].items():
                for kind, content in response["content"].items():
                    yield one, method, status, kind, content


ERRORS = [
    pytest.param(one, method, status, content.get("example"), id=f"{method} {one.path} {status}")
    for one, method, status, kind, content in contents()
    if status != "200" and kind == JSON
]
PROVOKED = [error for error in ERRORS if error.values[2] not in ONE_PLACE]


def test_every_answer_and_every_error_has_an_example_of_its_type() -> None:
    seen = set()
    for one, method, status, kind, content in contents():
        assert "example" in content, (one.path, method, status)
        schema = {**content["schema"], "components": DOCS["components"]}
        Draft202012Validator(schema).validate(content["example"])
        seen.add((one.path, method, status, kind))
    assert len(seen) > 80


@pytest.mark.parametrize(("one", "method", "status", "example"), ERRORS)
def test_the_client_reads_every_example_of_an_error(
    one: Operation, method: str, status: str, example: dict[str, Any]
) -> None:
    told = msgspec.convert(example, Refusal)
    assert told.request_id == EXAMPLE_ID
    assert told.error.message and told.error.remedy
    assert example["error"].keys() == {"field", "value", "message", "remedy"}


@pytest.mark.parametrize(("one", "method", "status", "example"), PROVOKED)
def test_the_mistake_that_an_example_shows_is_answered_by_it(
    service: Service,
    sent: tuple[Path, Mapping[str, Mapping[str, str]]],
    one: Operation,
    method: str,
    status: str,
    example: dict[str, Any],
) -> None:
    mistake = {"method": method.upper(), "url": one.path, **mistaken(one, status, sent[1])}
    headers = {**mistake.pop("headers", {}), "X-Request-ID": EXAMPLE_ID}
    reply = service.http.request(**mistake, headers=headers)
    assert (str(reply.status_code), reply.json()) == (status, example)


NOT_THERE = {
    "/v1/recommend": {"variant": "b"},
    "/v1/rank": {"variant": "b", "candidates": ["i1"]},
    "/v1/similar": {"item_id": "unheard-of"},
}


def mistaken(one: Operation, status: str, sent: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What is asked so that this status is the answer."""
    boss = sent["boss"]
    match status:
        case "400":
            return {"json": {"userid": "196"}, "headers": boss}
        case "401":
            return {}
        case "403" if one.scope is None:
            return {"headers": {"Origin": "https://elsewhere.example"}}
        case "403":
            return {"headers": sent["till" if one.scope == keys.RECOMMEND else "shop"]}
        case "404":
            return {"json": NOT_THERE[one.path], "headers": boss}
        case "405":
            return {"method": PUT}
        case "413":
            return {"content": b" " * 1_000_001, "headers": boss}
        case "415":
            return {"content": b"{}", "headers": {**boss, "Content-Encoding": "gzip"}}
        case "503":
            return {"json": next(iter(one.asked.values())), "headers": boss}
    pytest.fail(f"nobody knows how to provoke {status}")


def only(status: str) -> dict[str, Any]:
    """The example of that status, which every route shows that has it."""
    examples = [error.values[3] for error in ERRORS if error.values[2] == status]
    assert len(examples) > 1 and all(one == examples[0] for one in examples)
    return examples[0]


def test_a_caller_above_its_rate_hears_what_the_docs_show(
    service: Service, sent: tuple[Path, Mapping[str, Mapping[str, str]]]
) -> None:
    headers = {**sent[1]["hasty"], "X-Request-ID": EXAMPLE_ID}
    until = time.monotonic() + 60
    while (reply := service.http.post("/v1/popular", json={}, headers=headers)).status_code == 200:
        assert time.monotonic() < until
    assert (reply.status_code, reply.json()) == (429, only("429"))
    assert "Retry-After" in reply.headers


def test_a_body_that_does_not_come_gets_what_the_docs_show(
    service: Service, sent: tuple[Path, Mapping[str, Mapping[str, str]]]
) -> None:
    lines = {"Host": "x", "Content-Length": "2", "X-Request-ID": EXAMPLE_ID, **sent[1]["boss"]}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    answer, port = b"", int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(f"POST /v1/recommend HTTP/1.1\r\n{head}\r\n".encode())
        while part := caller.recv(65_536):  # until it is closed
            answer += part
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == only("408")


def test_a_defect_is_answered_as_the_docs_show() -> None:
    assert json.loads(refusal(defect(EXAMPLE_ID), EXAMPLE_ID)) == only("500")


def test_the_routes_that_answer_no_struct_say_what_the_docs_show(
    service: Service, sent: tuple[Path, Mapping[str, Mapping[str, str]]]
) -> None:
    said = {
        (path, str(reply.status_code)): reply.text
        for path in ("/livez", "/readyz", "/metrics", "/docs.json")
        if (reply := service.http.get(path, headers=sent[1]["boss"]))
    }
    shown = {
        (one.path, status): content["example"]
        for one, _, status, _, content in contents()
        if (one.path, status) in said
    }
    assert shown.keys() == said.keys()
    for path, status in (("/livez", "200"), ("/readyz", "503")):
        assert said[path, status] == shown[path, status]
    assert shown["/metrics", "200"] in said["/metrics", "200"]
    document = json.loads(said["/docs.json", "200"])
    assert document == DOCS
    assert document.items() >= shown["/docs.json", "200"].items()


def test_two_refusals_are_plain_text(service: Service) -> None:
    """Those that docs/api.md names: neither reaches a route of ours."""
    head = service.http.get("/v1/release", headers={"X-Filler": "x" * (MAX_HEAD + 100)})
    unready = service.http.get("/readyz")
    assert (head.status_code, unready.status_code) == (400, 503)
    for reply in (head, unready):
        assert reply.headers["content-type"].startswith(TEXT)
