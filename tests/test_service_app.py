"""Below the routes: defects, slow bodies, HEAD; and the settings the service starts from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bento.app import App, Route
from bento.metrics import Metrics
from bento.settings import Settings
from recommender.errors import BadInput


async def echo(body: bytes, request_id: str) -> bytes:
    return body or b"hello"


async def broken(body: bytes, request_id: str) -> bytes:
    raise ZeroDivisionError("secret detail")


def requested(method: str, path: str, **more: object) -> httpx.Response:
    """The answer of an App with three routes, over ASGI in this process."""

    async def ask() -> httpx.Response:
        app = App(Metrics(), body_s=0.05)
        app.routes = {
            "/echo": Route(method="POST", handler=echo),
            "/hello": Route(method="GET", handler=echo, content_type=b"text/plain"),
            "/broken": Route(method="POST", handler=broken),
        }
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


def test_a_defect_is_answered_in_the_one_error_shape_without_its_details() -> None:
    reply = requested("POST", "/broken", headers={"X-Request-ID": "r-1"})
    assert reply.status_code == 500
    assert reply.json()["request_id"] == "r-1"
    assert "r-1" in reply.json()["error"]["remedy"]
    assert "secret" not in reply.text


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(2)
        yield b"}"

    reply = requested("POST", "/echo", content=slowly())
    assert reply.status_code == 408
    assert reply.headers["connection"] == "close"


def test_head_is_get_without_the_body() -> None:
    get, head = requested("GET", "/hello"), requested("HEAD", "/hello")
    assert (get.text, head.text) == ("hello", "")
    assert head.headers["content-length"] == get.headers["content-length"] == "5"
    assert head.headers["content-type"] == "text/plain"


def test_settings_that_are_unset_or_empty_are_the_defaults() -> None:
    settings = Settings.from_environment({"RECSERVE_TRITON": "", "RECSERVE_MODEL": " "})
    assert settings == Settings(repository=Path("model_repository").absolute())


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {
            "RECSERVE_REPOSITORY": "/models",
            "RECSERVE_TRITON": "triton+http://[::1]:8000",
            "RECSERVE_DEADLINE_MS": "50",
            "RECSERVE_MODEL": "recommender_torchscript",
        }
    )
    assert settings == Settings(
        repository=Path("/models"),
        triton="triton+http://[::1]:8000",
        deadline_ms=50,
        model="recommender_torchscript",
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECSERVE_TRITON", "127.0.0.1:8001"),
        ("RECSERVE_TRITON", "http://127.0.0.1:8000"),
        ("RECSERVE_TRITON", "grpc://127.0.0.1"),
        ("RECSERVE_DEADLINE_MS", "0"),
        ("RECSERVE_DEADLINE_MS", "1e3"),
        ("RECSERVE_DEADLINE_MS", "60000"),
        ("RECSERVE_TRITON_CALLS", "0"),
        ("RECSERVE_TRITON_CALLS", "65"),
    ],
)
def test_a_bad_setting_is_refused_naming_the_variable(variable: str, value: str) -> None:
    with pytest.raises(BadInput) as refused:
        Settings.from_environment({variable: value})
    assert refused.value.field == variable and value in refused.value.what
