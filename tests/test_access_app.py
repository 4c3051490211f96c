"""What is decided before a route is asked: keys, rates, room, other origins; and what is logged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bento import access, keys, log
from bento.access import MAX_CALLERS, Call, Rates, caller_of
from bento.app import App, Route
from bento.errors import HttpError
from bento.metrics import Metrics
from bento.settings import Settings
from recommender.errors import BadInput, Unavailable

EVIL = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


async def echo(body: bytes, call: Call) -> bytes:
    return json.dumps({"caller": call.caller, "release": 7, "fallback": False}).encode()


async def away(body: bytes, call: Call) -> bytes:
    raise Unavailable("the store is away", remedy="Try again.")


async def broken(body: bytes, call: Call) -> bytes:
    raise KeyError(body.decode()) from ValueError(body)


def app(settings: Settings, metrics: Metrics | None = None) -> App:
    one = App(metrics or Metrics(), settings=settings)
    one.routes = {
        "/read": Route(method="POST", handler=echo, scope="recommend"),
        "/write": Route(method="POST", handler=echo, scope="events"),
        "/forget": Route(method="POST", handler=echo, scope="admin"),
        "/both": Route(method="GET, POST", handler=echo),
        "/away": Route(method="POST", handler=away, scope="recommend"),
        "/broken": Route(method="POST", handler=broken, scope="recommend"),
        "/page": Route(method="GET", handler=echo, content_type=b"text/html; charset=utf-8"),
    }
    return one


def asked(one: App, *requests: tuple[str, str, Mapping[str, str]], body: bytes = b"{}"
          ) -> list[httpx.Response]:  # fmt: skip
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(one)
        async with httpx.AsyncClient(transport=transport, base_url="http://here:3000") as client:
            return [
                await client.request(method, path, headers=dict(headers), content=body)
                for method, path, headers in requests
            ]

    return asyncio.run(ask())


def statuses(one: App, *requests: tuple[str, str, Mapping[str, str]]) -> list[int]:
    return [reply.status_code for reply in asked(one, *requests)]


@pytest.fixture
def keyed(tmp_path: Path) -> tuple[Settings, dict[str, dict[str, str]]]:
    """Settings with keys, and what each key's owner sends."""
    file = tmp_path / "keys.json"
    made = {
        "shop": keys.add(file, "shop", ["recommend"]),
        "till": keys.add(file, "till", ["events"], rate=2),
        "boss": keys.add(file, "boss", ["admin"]),
    }
    sent = {name: {"Authorization": f"Bearer {key}"} for name, key in made.items()}
    return Settings(keys=file), sent


# Keys


def test_with_keys_every_scoped_route_takes_one_that_may(
    keyed: tuple[Settings, dict[str, dict[str, str]]],
) -> None:
    settings, sent = keyed
    shop = sent["shop"]
    asked_of: list[dict[str, str]] = [{}, shop, sent["till"], sent["boss"]]
    one = app(settings)
    found = {
        path: statuses(one, *[("POST", path, headers) for headers in asked_of])
        for path in ("/read", "/write", "/forget", "/both")
    }
    assert found == {
        "/read": [401, 200, 403, 200],
        "/write": [401, 403, 200, 200],
        "/forget": [401, 403, 403, 200],
        "/both": [200, 200, 200, 200],
    }
    (reply,) = asked(one, ("POST", "/read", {"X-Request-ID": "r-1"}))
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert reply.json()["request_id"] == "r-1"
    assert reply.json()["error"]["field"] == "Authorization"
    (reply,) = asked(one, ("POST", "/forget", shop))
    assert "'admin'" in reply.json()["error"]["message"]
    (reply,) = asked(one, ("POST", "/read", shop))
    assert reply.json()["caller"] == "shop"
    in_url = shop["Authorization"].removeprefix("Bearer ")
    assert statuses(one, ("POST", f"/read?key={in_url}&access_token={in_url}", {})) == [401]


def test_without_keys_nobody_needs_one_and_a_sent_one_is_ignored() -> None:
    one = app(Settings())
    assert statuses(one, ("POST", "/forget", {}), ("POST", "/read", {"Authorization": "x"})) == [
        200, 200,
    ]  # fmt: skip


# Rates, and room


def test_a_key_has_its_own_rate_and_others_are_not_held_up(
    keyed: tuple[Settings, dict[str, dict[str, str]]],
) -> None:
    settings, sent = keyed
    metrics = Metrics()
    replies = asked(app(settings, metrics), *[("POST", "/write", sent["till"])] * 5)
    assert [reply.status_code for reply in replies] == [200, 200, 429, 429, 429]
    assert int(replies[-1].headers["retry-after"]) == 1
    assert "2 requests a second" in replies[-1].json()["error"]["message"]
    counted = metrics.text().decode()
    assert 'recserve_requests_total{route="/write",status="429"} 3.0' in counted
    assert statuses(app(settings), *[("POST", "/write", sent["boss"])] * 5) == [200] * 5


def test_a_bucket_fills_at_its_rate_and_never_beyond_its_burst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(access.time, "monotonic", lambda: now)
    rates = Rates(10.0, 3)  # the burst is ten: that of one second

    def taken() -> int:
        count = 0
        while True:
            try:
                rates.take("one")
            except HttpError as error:
                assert error.status == 429
                return count
            count += 1

    assert taken() == 10
    assert taken() == 0
    now += 0.25
    assert taken() == 2
    now += 3600
    assert taken() == 10
    rates.take("another")


def test_no_more_callers_are_remembered_than_fit() -> None:
    rates = Rates(1.0, None)
    for number in range(MAX_CALLERS + 100):
        rates.take(f"10.{number}")
    assert len(rates._full) == MAX_CALLERS


def test_a_caller_without_key_is_an_address_and_a_household_of_ipv6_one() -> None:
    assert caller_of(("10.0.0.1", 5)) != caller_of(("10.0.0.2", 5))
    assert caller_of(("2001:db8:1:2::1", 5)) == caller_of(("2001:db8:1:2:ffff::9", 6))
    assert caller_of(("2001:db8:1:2::1", 5)) != caller_of(("2001:db8:1:3::1", 5))
    assert caller_of(None) == "-" and caller_of(("fe80::1%eth0", 1)) and caller_of(("a:b", 1))
    one = app(Settings(rate=1.0, burst=2))
    assert statuses(one, *[("POST", "/read", {})] * 4) == [200, 200, 429, 429]
    assert statuses(one, ("GET", "/both", {})) == [200]  # what is only read is not counted


def test_beyond_the_bound_requests_are_refused_at_once_and_their_bodies_not_read() -> None:
    metrics, held = Metrics(), asyncio.Event()

    async def wait(body: bytes, call: Call) -> bytes:
        await held.wait()
        return b"{}"

    async def ask() -> None:
        one = app(Settings(max_inflight=3), metrics)
        one.routes = {**one.routes, "/wait": Route(method="POST", handler=wait)}
        transport = httpx.ASGITransport(one)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            waiting = [asyncio.create_task(client.post("/wait")) for _ in range(3)]
            await asyncio.sleep(0.05)
            reply = await client.post("/read", content=b"no json at all")
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
            assert (
                "as many requests are under way as can be answered in time"
                in reply.json()["error"]["message"]
            )
            assert (await client.get("/both")).status_code == 200
            held.set()
            assert [(await one).status_code for one in waiting] == [200] * 3
            assert (await client.post("/read")).status_code == 200

    asyncio.run(ask())
    assert 'recserve_requests_total{route="/read",status="429"} 1.0' in metrics.text().decode()


def test_what_is_away_for_now_says_when_to_come_again() -> None:
    (reply,) = asked(app(Settings()), ("POST", "/away", {}))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


# Pages of other origins


def test_a_page_of_another_origin_may_not_call_unless_it_is_allowed() -> None:
    one = app(Settings())
    assert statuses(
        one,
        ("POST", "/read", EVIL),
        ("POST", "/read", {"Origin": "null"}),
        ("POST", "/read", {"Origin": "http://here:3000"}),  # our own page
        ("POST", "/read", {"Origin": "https://shop", "Sec-Fetch-Site": "same-origin"}),  # a proxy
        ("POST", "/read", {}),
        ("GET", "/both", EVIL),  # which the page cannot read
        ("OPTIONS", "/read", {**EVIL, "Access-Control-Request-Method": "POST"}),
    ) == [403, 403, 200, 200, 200, 200, 403]
    (reply,) = asked(one, ("POST", "/read", EVIL))
    assert "RECSERVE_CORS" in reply.json()["error"]["remedy"]
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("allowed", [("https://shop.example",), ("*",)])
def test_an_allowed_origin_is_told_so_and_never_with_credentials(allowed: tuple[str, ...]) -> None:
    one = app(Settings(cors=allowed))
    origin = {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}
    preflight, call, missing, evil = asked(
        one,
        ("OPTIONS", "/read", {**origin, "Access-Control-Request-Method": "POST"}),
        ("POST", "/read", origin),
        ("POST", "/nothing", origin),
        ("POST", "/read", EVIL),
    )
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert "content-length" not in preflight.headers
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    assert (call.status_code, missing.status_code) == (200, 404)
    told = "*" if allowed == ("*",) else "https://shop.example"
    for reply in (preflight, call, missing):
        assert reply.headers["access-control-allow-origin"] == told
        assert "access-control-allow-credentials" not in reply.headers
        assert reply.headers["vary"] == "Origin"
    assert evil.status_code == (200 if allowed == ("*",) else 403)


def test_answers_are_not_guessed_at_and_pages_load_nothing_from_elsewhere() -> None:
    page, error, answer = asked(
        app(Settings()), ("GET", "/page", {}), ("GET", "/none", {}), ("POST", "/read", {})
    )
    assert {r.headers["x-content-type-options"] for r in (page, error, answer)} == {"nosniff"}
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "content-security-policy" not in answer.headers


def test_a_method_beside_those_of_a_route_is_refused_naming_them() -> None:
    one = app(Settings())
    assert statuses(one, *[(method, "/both", {}) for method in ("GET", "HEAD", "POST")]) == [
        200, 200, 200,
    ]  # fmt: skip
    (reply,) = asked(one, ("DELETE", "/both", {}))
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET, POST")


# The log


@contextmanager
def written() -> Iterator[Callable[[str, str], list[str]]]:
    """Sets level and format, as the service does; what stands in the log since."""
    logger, lines = logging.getLogger("bentoml"), []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Lines()
    logger.addHandler(handler)

    def configure(level: str, form: str) -> list[str]:
        log.configure(level, form)
        return lines

    try:
        yield configure
    finally:
        logger.removeHandler(handler)
        for name in ("", ".recserve", ".recserve.requests", ".recserve.audit"):
            logging.getLogger(f"bentoml{name}").setLevel(logging.NOTSET)


@pytest.fixture
def configure() -> Iterator[Callable[[str, str], list[str]]]:
    with written() as one:
        yield one


def test_no_request_is_logged_unless_that_is_asked_for(
    configure: Callable[[str, str], list[str]],
) -> None:
    lines = configure("info", "text")
    asked(app(Settings()), ("POST", "/read", {}), ("GET", "/none", {}))
    assert lines == []


def test_a_request_is_one_line_of_json(
    configure: Callable[[str, str], list[str]], keyed: tuple[Settings, dict[str, dict[str, str]]]
) -> None:
    settings, sent = keyed
    lines = configure("info", "json")
    one = app(Settings(keys=settings.keys, log_requests=True))
    asked(
        one,
        ("POST", "/read", {**sent["shop"], "X-Request-ID": "r-1"}),
        ("POST", "/nothing/user-4711?key=rsk_secret", {"X-Request-ID": "rsk_secret"}),
        ("GET", "/page", {}),
        body=b'{"user_id": "user-4711"}',
    )
    first, second, third = map(json.loads, lines)
    assert 0 <= first.pop("ms") < 10_000 and first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info", "logger": "bentoml.recserve.requests", "message": "request",
        "method": "POST", "route": "/read", "status": 200, "request_id": "r-1", "key": "shop",
        "release": 7, "fallback": False,
    }  # fmt: skip
    assert (second["route"], second["status"]) == ("other", 404)
    assert third["route"] == "/page"
    text = "\n".join(lines)
    assert "4711" not in text and "rsk_" not in text


def test_an_act_of_an_admin_is_always_written_down_with_who_and_what(
    configure: Callable[[str, str], list[str]], keyed: tuple[Settings, dict[str, dict[str, str]]]
) -> None:
    settings, sent = keyed
    lines = configure("error", "text")
    one = app(settings)
    asked(one, ("POST", "/forget", sent["boss"]), body=b'{"user_id": "user-4711"}')
    asked(one, ("POST", "/forget", sent["boss"]), body=b'{"add": ["a", "b"], "remove": ["c"]}')
    asked(one, ("POST", "/forget", sent["shop"]), body=b'{"user_id": "user-4711"}')
    asked(one, ("POST", "/forget", {}), ("POST", "/forget", {"Authorization": "Bearer rsk_x"}))
    erased, blocked, refused = lines  # and no line for whoever has no key
    assert "recserve.audit: audit key=boss act=/forget status=200 request_id=" in erased
    assert erased.endswith("user=85e8cbcc4fab8df4")  # printf user-4711 | sha256sum
    assert blocked.endswith("added=2 removed=1")
    assert "key=shop act=/forget status=403" in refused and "user" not in refused
    assert "4711" not in "".join(lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_defect_is_logged_by_type_and_place_and_without_the_data_it_failed_on(
    configure: Callable[[str, str], list[str]], form: str
) -> None:
    lines = configure("info", form)
    asked(app(Settings()), ("POST", "/broken", {"X-Request-ID": "r-1"}), body=b"user-4711")
    (said,) = lines
    assert "request r-1 to /broken failed" in said
    assert "KeyError" in said and "ValueError" in said and "in broken" in said
    assert "4711" not in said
    if form == "json":
        assert json.loads(said)["level"] == "error"
        configure("debug", form)
        asked(app(Settings()), ("POST", "/broken", {}), body=b"user-4711")
        assert "user-4711" in lines[-1]  # whoever looks for a defect may ask for more


# Settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECSERVE_RATE", "-1"), ("RECSERVE_RATE", "nan"), ("RECSERVE_RATE", "1e99"),
        ("RECSERVE_BURST", "0"), ("RECSERVE_MAX_INFLIGHT", "many"),
        ("RECSERVE_CORS", "shop.example"), ("RECSERVE_CORS", "https://a/b"),
        ("RECSERVE_LOG_LEVEL", "loud"), ("RECSERVE_LOG_FORMAT", "xml"),
        ("RECSERVE_LOG_REQUESTS", "yes"), ("RECSERVE_PRIVATE_METRICS", "on"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused_naming_the_variable(variable: str, value: str) -> None:
    with pytest.raises(BadInput) as refused:
        Settings.from_environment({variable: value})
    assert refused.value.field == variable and value in refused.value.what


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {
            "RECSERVE_KEYS": "/keys.json", "RECSERVE_PRIVATE_METRICS": "1",
            "RECSERVE_RATE": "2.5", "RECSERVE_BURST": "9", "RECSERVE_MAX_INFLIGHT": "64",
            "RECSERVE_CORS": "https://a.example/, http://localhost:8080",
            "RECSERVE_LOG_LEVEL": "DEBUG", "RECSERVE_LOG_FORMAT": "json",
            "RECSERVE_LOG_REQUESTS": "1",
        }
    )  # fmt: skip
    assert settings == Settings(
        repository=Path("model_repository").absolute(), keys=Path("/keys.json"),
        private_metrics=True, rate=2.5, burst=9, max_inflight=64,
        cors=("https://a.example", "http://localhost:8080"), log_level="debug",
        log_format="json", log_requests=True,
    )  # fmt: skip
