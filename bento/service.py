"""The BentoML service: `bentoml serve` in the repository root finds it through pyproject.toml.

BentoML brings the process, /livez and /readyz; everything else goes to the
ASGI application mounted in it. What its middleware adds to each request is
switched off where it can be: access log, metrics and tracing (ours stand in their place).
Settings come from the environment, see `bento/settings.py`.
"""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from dataclasses import replace
from functools import partial

import bentoml
from bentoml._internal.server.http import traffic
from bentoml.exceptions import BentoMLException
from starlette.types import ASGIApp, Receive, Scope, Send

from bento import log, tracing
from bento.access import Keyring
from bento.answering import Answering
from bento.app import App
from bento.follow import Follower
from bento.memory import Memory
from bento.metrics import Metrics
from bento.routes import routes
from bento.settings import Settings
from bento.store import connect as connect_store
from bento.tracing import Traced
from bento.variants import Router
from client.tensors import connect
from recommender.errors import RecserveError
from recommender.release import read_release
from recommender.variants import DEFAULT, SHADOW, Variant

METRICS = Metrics()
APP = App(METRICS)


class Untimed:
    """In the place of BentoML's timeout, which keeps a timer of each request for the whole time,
    answered or not: 20 MB at 1,400 requests a second. Here each part of a request is bounded by
    itself: the body (body.py), the store (memory.py, store/), the models (the deadline)."""

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


traffic.TimeoutMiddleware = Untimed


def start(settings: Settings, memory: Memory, version: int | None = None) -> Answering:
    """Of release `version` (default: the one that serves); raises RecserveError."""
    return _answering(settings, memory, version, METRICS, DEFAULT)


def start_variant(settings: Settings, memory: Memory, variant: Variant) -> Answering:
    """Of a variant's release; raises RecserveError."""
    settings = replace(settings, model=variant.model)
    # A shadow's overflows and failures are none of the service's.
    metrics = Metrics() if variant.role == SHADOW else METRICS
    return _answering(settings, memory, variant.release, metrics, variant.name)


def _answering(
    settings: Settings, memory: Memory, version: int | None, metrics: Metrics, variant: str
) -> Answering:
    release = read_release(settings.repository, version)
    catalogue = release.catalogue
    _ = catalogue.category_words_table, catalogue.by_popularity, catalogue.category_sizes
    _ = release.users
    return Answering(
        settings=settings,
        release=release,
        triton=connect(settings.triton),
        metrics=metrics,
        memory=memory,
        variant=variant,
    )


def serve(router: Router) -> None:
    """From now on. One assignment: no request sees half of two releases."""
    release = router.default.release
    METRICS.release.set(release.version)
    METRICS.drift.follow(release)
    router.default.memory.watch.half_life_days = release.acts.half_life_days
    APP.routes = routes(router, METRICS)


@bentoml.service(
    workers=1,  # requests join into batches inside one process; more processes join less
    http={"host": "127.0.0.1"},  # a container says --host 0.0.0.0
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"sample_rate": 0.0, "excluded_urls": [".*"]},
    runner_probe={"enabled": False},
)
@bentoml.asgi_app(Traced(APP, METRICS), path="/", name="api")
class Recserve:
    """Recommendations over HTTP from a model that Triton serves."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Before any process starts: what cannot be served ends `bentoml serve`, in one line."""
        try:
            settings = Settings.from_environment()
            start(settings, Memory(None, Metrics()))
            tracing.wanted()
            if settings.keys is not None:
                Keyring(settings.keys)
            if settings.store is not None:
                asyncio.run(connect_store(settings.store).close())
        except RecserveError as error:
            raise BentoMLException(str(error)) from error
        # The worker of a built bento starts in another folder.
        os.environ["RECSERVE_REPOSITORY"] = str(settings.repository)
        if settings.keys is not None:
            os.environ["RECSERVE_KEYS"] = str(settings.keys)

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def begin(self) -> None:
        settings = Settings.from_environment()
        log.configure(settings.log_level, settings.log_format)
        APP.obey(settings)
        METRICS.bound.set(settings.max_inflight)
        METRICS.trace(tracing.start())  # before any Answering is made
        self.memory = Memory.open(settings.store, METRICS)
        self.follower = Follower(
            start(settings, self.memory),
            partial(start, settings, self.memory),
            partial(start_variant, settings, self.memory),
            serve,
            METRICS.variants,
        )
        self.following = asyncio.create_task(self.follower.run())
        # What is loaded stays: the collector need not walk through it again, and
        # its full passes were most of the slowest answers.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def end(self) -> None:
        self.following.cancel()
        with suppress(asyncio.CancelledError):
            await self.following
        await self.follower.close()
        await self.memory.close()
        if METRICS.tracing is not None:
            await METRICS.tracing.close()

    async def __is_ready__(self) -> bool:
        return self.follower.current.ready
