"""What strangers send to a real `bentoml serve`: refused quickly, in one shape, memory flat."""

from __future__ import annotations

import base64
import json
import pickle
import re
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from bento_process import Service, bentoml_serve, write_release

from recommender.contract import Limits

LIMITS = Limits(
    user_features=2, category_words=1, exclude=4, answers=20, length_buckets=(4, 16),
    max_batch_size=8,
)  # fmt: skip
NOBODY = "grpc://127.0.0.1:18199"
GROWTH = 50_000_000  # bytes of memory that a test may leave behind, of gigabytes sent


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    tmp = tmp_path_factory.mktemp("hostile")
    write_release(tmp / "repository", LIMITS, items=60, models=("recommender_onnx",))
    variables = {"RECSERVE_REPOSITORY": str(tmp / "repository"), "RECSERVE_TRITON": NOBODY}
    with bentoml_serve(tmp, variables) as running:
        yield running


def memory(service: Service) -> float:
    text = service.http.get("/metrics").text
    (seen,) = re.findall(r"^process_resident_memory_bytes (\S+)$", text, re.MULTILINE)
    return float(seen)


def refused(reply: httpx.Response, *status: int) -> dict[str, object]:
    assert reply.status_code in status, reply.text
    body = reply.json()
    assert body.keys() == {"error", "request_id"}
    assert body["error"].keys() == {"field", "value", "message", "remedy"}
    assert len(reply.content) < 2000  # an error does not send back what it got
    error: dict[str, object] = body["error"]
    return error


DEEP = 250_000
IDS = b",".join(b'"i1"' for _ in range(190_000))  # as many as fit a body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * DEEP, 400),
        (b'{"user":' * (DEEP // 3) + b"1" + b"}" * (DEEP // 3), 400),
        (b'{"user": {"a": ' + b"[" * DEEP + b"]" * DEEP + b"}}", 400),
        (b'{"filter": ' + b'{"filter": ' * 50_000, 400),
        (b'{"n": NaN}', 400),
        (b'{"n": Infinity}', 400),
        (b'{"n": 1e400}', 400),
        (b'{"n": 1' + b"0" * 400_000 + b"}", 400),
        (b'{"n": 5.5}', 400),
        (b'{"context": {"time": -1}}', 400),
        (b'{"context": {"time": 9007199254740993}}', 400),
        (b'{"history": [' + IDS + b"]}", 400),
        (b'{"filter": {"exclude": [' + IDS + b"]}}", 400),
        (b'{"user": {"a": NaN}}', 400),
        (b'{"user_id": "\xff\xfe"}', 400),
        (b'{"user_id": "\xed\xa0\x80"}', 400),
        (b'{"user_id": "\\ud800"}', 400),
        (b'\xef\xbb\xbf{"n": 1}', 400),
        ('{"n": 1}'.encode("utf-16"), 400),
        (b'{"user_id": "' + b"x" * 257 + b'"}', 400),
        (b'{"user_id": "' + b"x" * 900_000 + b'"}', 400),
        (b'{"' + b"x" * 900_000 + b'": 1}', 400),
        (b"\x00" * 1000, 400),
        (b"", 400),
        (b"null", 400),
        (pickle.dumps({"n": 1}), 400),
        (b" " * 2_000_000, 413),
    ],
)
def test_a_body_that_is_no_request_is_refused(service: Service, body: bytes, status: int) -> None:
    for path in ("/v1/recommend", "/v1/popular"):
        refused(service.http.post(path, content=body), status)


def test_a_million_ids_are_refused_and_leave_no_memory(service: Service) -> None:
    body = json.dumps({"history": [f"i{number}" for number in range(1_000_000)]}).encode()
    list_of = b'{"history": [' + IDS + b"]}"
    for _ in range(3):  # what the allocator keeps for the next
        service.http.post("/v1/recommend", content=list_of)
    before = memory(service)
    for _ in range(20):
        refused(service.http.post("/v1/recommend", content=body), 413)
        refused(service.http.post("/v1/recommend", content=list_of), 400)
    assert memory(service) < before + GROWTH


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.bentoml+pickle", "application/octet-stream", "application/x-pickle",
        "multipart/form-data; boundary=x", "image/png", "application/json, text/html",
        "application/x-www-form-urlencoded2",
    ],
)  # fmt: skip
def test_what_says_that_it_is_no_json_is_not_looked_at(service: Service, kind: str) -> None:
    attack = base64.b64encode(pickle.dumps(Path)).decode()
    for content in (pickle.dumps({"n": 1}), b'{"n": 1}', attack):
        reply = service.http.post("/v1/recommend", content=content, headers={"Content-Type": kind})
        error = refused(reply, 415)
        assert "application/json" in str(error["remedy"])


@pytest.mark.parametrize(
    "kind",
    ["application/json", "APPLICATION/JSON; charset=utf-8", "application/problem+json",
     "application/x-www-form-urlencoded", "text/plain;charset=UTF-8", ""],
)  # fmt: skip
def test_what_may_be_json_is_read(service: Service, kind: str) -> None:
    headers = {"Content-Type": kind}
    assert service.http.post("/v1/recommend", content=b"{}", headers=headers).status_code == 200


def test_a_compressed_body_is_not_unpacked(service: Service) -> None:
    for encoding in ("gzip", "br", "zstd", "gzip, identity"):
        headers = {"Content-Encoding": encoding}
        refused(service.http.post("/v1/recommend", content=b"{}", headers=headers), 415)


GIGABYTE = 1_000_000_000


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/nothing", "/metrics"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_gigabyte_is_refused_after_a_part_of_it_and_leaves_no_memory(
    service: Service, path: str, chunked: bool
) -> None:
    before = memory(service)
    announced = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {GIGABYTE}"
    data = b"x" * 65_536
    piece = b"10000\r\n" + data + b"\r\n" if chunked else data
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{announced}\r\n\r\n".encode())
        sent, answer = 0, b""
        caller.settimeout(5)
        try:
            while sent < GIGABYTE:
                caller.sendall(piece)
                sent += len(data)
        except OSError:
            pass  # closed: it has heard enough
        answer = received(caller)
    status = {"/v1/recommend": b"413", "/v1/nothing": b"404", "/metrics": b"405"}[path]
    assert answer == b"" or answer.startswith(b"HTTP/1.1 " + status)  # a reset may take it away
    assert sent < 200_000_000
    assert memory(service) < before + GROWTH


def received(caller: socket.socket) -> bytes:
    try:
        return caller.recv(65_536)
    except OSError:
        return b""


def test_a_body_somewhat_too_large_is_told_so_even_to_those_who_send_all_of_it_first(
    service: Service,
) -> None:
    size, port = 8_000_000, int(service.url.rpartition(":")[2])
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
            head = f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
            caller.sendall(head.encode() + b" " * size)  # no connection is reset meanwhile
            assert received(caller).startswith(b"HTTP/1.1 413")


def test_a_body_that_trickles_is_given_up(service: Service) -> None:
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert received(caller).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # TLS to a plain port
        b"GET / HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-Filler: " + b"x" * 200_000,  # and no end to come
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 100_000,
        b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        struct.pack("!64Q", *range(64)),
    ],
)
def test_what_is_no_http_ends_its_own_connection_only(service: Service, head: bytes) -> None:
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(head)
        assert not received(caller).startswith(b"HTTP/1.1 2")
    assert service.recommend(n=1)["items"]


def test_many_at_once_are_all_answered_and_leave_no_memory(service: Service) -> None:
    bodies = [b"[" * DEEP, b'{"history": [' + IDS + b"]}", b"{}", b" " * 2_000_000]

    def send(number: int) -> int:
        with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as http:
            return http.post("/v1/recommend", content=bodies[number % 4]).status_code

    def rounds(count: int) -> set[int]:
        with ThreadPoolExecutor(16) as pool:
            return set(pool.map(send, range(count)))

    rounds(32)
    before = memory(service)
    assert rounds(200) == {400, 200, 413}
    assert memory(service) < before + GROWTH


def test_nothing_of_all_that_stands_in_the_log(service: Service) -> None:
    service.recommend(user_id="reader", history=["i17"], n=3)
    written = service.log.read_text()
    assert "answering with popular items" in written
    assert not [
        word for word in ("reader", "i17", "xxxx", "Traceback", "Invalid") if word in written
    ]
