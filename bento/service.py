"""The BentoML service: `bentoml serve` in the repository root finds it through pyproject.toml.

BentoML brings the process, /livez and /readyz; everything else is answered by an ASGI
application of ours, before BentoML's own routing. What its middleware adds to each request is
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
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException

from bento import door, log, tracing
from bento.access import Keyring
from bento.answering import Answering
from bento.app import OUTSIDE, App
from bento.follow import Follower
from bento.memory import Memory
from bento.metrics import Metrics
from bento.pace import Pace
from bento.routes import routes
from bento.settings import Settings
from bento.store import connect as connect_store
from bento.tracing import Traced
from bento.variants import Router
from client.tensors import connect
from recommender.errors import RecserveError
from recommender.release import read_release
from recommender.variants import DEFAULT, SHADOW, Variant

READS = ("GET", "HEAD")
METRICS = Metrics()
APP = App(METRICS)
door.use(APP.refused)  # BentoML's worker imports this module before it starts its server


def start(settings: Settings, memory: Memory, version: int | None = None) -> Answering:
    """Of release `version` (default: the one that serves); raises RecserveError."""
    return _answering(settings, memory, version, METRICS, DEFAULT, APP.pace)


def start_variant(settings: Settings, memory: Memory, variant: Variant) -> Answering:
    """Of a variant's release; raises RecserveError."""
    settings = replace(settings, model=variant.model)
    # A shadow's overflows, failures and lateness are none of the service's.
    metrics, pace = (Metrics(), None) if variant.role == SHADOW else (METRICS, APP.pace)
    return _answering(settings, memory, variant.release, metrics, variant.name, pace)


def _answering(
    settings: Settings,
    memory: Memory,
    version: int | None,
    metrics: Metrics,
    variant: str,
    pace: Pace | None,
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
        pace=pace,
        variant=variant,
    )


class Ahead:
    """ASGI middleware: everything but BentoML's own two routes is answered here.

    BentoML puts it behind its other middleware, which costs each request a task, a timer that
    outlives it and a matched URL; so, as the application starts, it moves in front of them.
    """

    def __init__(self, app: Any) -> None:
        self._theirs = app
        self._ours = Traced(APP, METRICS)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            whole = scope["app"]  # Starlette's application, whose stack this is a part of
            whole.middleware_stack = Ahead(whole.middleware_stack)
        elif scope["type"] != "http" or not (scope["path"] in OUTSIDE and scope["method"] in READS):
            await self._ours(scope, receive, send)
            return
        await self._theirs(scope, receive, send)


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
        METRICS.bound.set_function(lambda: APP.pace.limit)
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
        return self.follower.current.ready and self.memory.watch.ready


Recserve.add_asgi_middleware(Ahead)  # type: ignore[attr-defined]
