"""What the service measures of itself: each metric's own behaviour, and through a real service."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import toy
from bento_process import Service, bentoml_serve, write_release
from ports import free_ports
from prometheus_client.parser import text_string_to_metric_families
from test_service_join import Transport, row

from bento import drift
from bento.breaker import FAILURES, Breaker
from bento.drift import Drift
from bento.metrics import BREAKER, OVERLOAD, RATE, Metrics
from bento.prometheus import CollectorRegistry, generate_latest
from bento.stages import PREPROCESS, STAGES, STORE, TRITON
from client.join import Joiner
from recommender.catalogue import Catalogue
from recommender.errors import Unavailable


def value(text: bytes | str, name: str, **labels: str) -> float:
    """Of one sample, which must be there."""
    families = text_string_to_metric_families(text if isinstance(text, str) else text.decode())
    (found,) = (
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )
    return float(found)


def test_a_stage_counts_its_passages_and_its_errors_but_no_caller_that_left() -> None:
    metrics = Metrics()
    with metrics.stage(STORE):
        pass
    for error in (Unavailable("away", remedy=""), asyncio.CancelledError()):
        with pytest.raises(type(error)), metrics.stage(STORE):
            raise error
    text = metrics.text()
    assert value(text, "recserve_stage_seconds_count", stage=STORE) == 3
    assert value(text, "recserve_stage_errors_total", stage=STORE) == 1
    assert value(text, "recserve_stage_seconds_count", stage=TRITON) == 0


def test_passages_that_overlap_are_timed_apart() -> None:
    metrics = Metrics()
    slow, quick = metrics.stage(TRITON), metrics.stage(TRITON)
    slow.__enter__()
    with quick:
        pass
    before = value(metrics.text(), "recserve_stage_seconds_sum", stage=TRITON)
    slow.__exit__(None, None, None)
    after = value(metrics.text(), "recserve_stage_seconds_sum", stage=TRITON)
    assert after - before > before  # the outer one lasted longer than the inner


def test_every_series_that_an_alert_divides_by_is_there_from_the_start() -> None:
    text = Metrics().text()
    for stage in STAGES:
        assert value(text, "recserve_stage_errors_total", stage=stage) == 0
    for cause in ("deadline", "unavailable", "refused", BREAKER):
        assert value(text, "recserve_fallback_total", cause=cause) == 0
    for reason in (RATE, OVERLOAD):
        assert value(text, "recserve_refused_total", reason=reason) == 0
    for outcome in ("accepted", "duplicate", "forgotten", "refused"):
        assert value(text, "recserve_events_total", outcome=outcome) == 0
    for known in ("true", "false"):
        assert value(text, "recserve_asked_items_total", known=known) == 0


def test_events_count_by_what_became_of_them_and_their_lag_from_act_to_arrival() -> None:
    events = Metrics()
    with events.events.taking(4):
        events.events.taken((2, 1, 1), [0.5, 2, 40, 4000])
    with pytest.raises(Unavailable), events.events.taking(3):
        raise Unavailable("the disk is full", remedy="")
    text = events.text()
    outcomes = {
        outcome: value(text, "recserve_events_total", outcome=outcome)
        for outcome in ("accepted", "duplicate", "forgotten", "refused")
    }
    assert outcomes == {"accepted": 2, "duplicate": 1, "forgotten": 1, "refused": 3}
    assert value(text, "recserve_event_lag_seconds_bucket", le="1.0") == 1
    assert value(text, "recserve_event_lag_seconds_bucket", le="60.0") == 3
    assert value(text, "recserve_event_lag_seconds_sum") == 4042.5


def test_what_waits_for_triton_is_seen_while_it_waits() -> None:
    async def scenario() -> tuple[bytes, bytes, bytes]:
        metrics, transport = Metrics(), Transport()
        joiner = Joiner(transport, max_rows=8)
        metrics.joiners.add(joiner)
        asks = [asyncio.create_task(joiner.infer("m", 1, row(i), timeout_s=5)) for i in range(7)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = metrics.text()
        transport.gate.set()
        await asyncio.gather(*asks)
        answered = metrics.text()
        await joiner.close()
        metrics.joiners.add(other := Joiner(transport, max_rows=8))
        del other, joiner  # a release that has gone
        gc.collect()
        return waiting, answered, metrics.text()

    waiting, answered, gone = asyncio.run(scenario())
    names = ("recserve_waiting_rows", "recserve_triton_calls")
    assert [value(waiting, name) for name in names] == [5, 2]
    assert [value(answered, name) for name in names] == [0, 0]
    assert [value(gone, name) for name in names] == [0, 0]


def test_a_breaker_is_seen_open_until_its_probe_is_answered() -> None:
    async def scenario() -> list[float]:
        metrics, answer = Metrics(), asyncio.Event()

        async def probe() -> None:
            await answer.wait()

        breaker = Breaker(probe)
        metrics.breakers.add(breaker)
        seen = [value(metrics.text(), "recserve_breaker_open")]
        for _ in range(FAILURES):
            breaker.failed()
        seen.append(value(metrics.text(), "recserve_breaker_open"))
        answer.set()
        while breaker.open:
            await asyncio.sleep(0)
        return [*seen, value(metrics.text(), "recserve_breaker_open")]

    assert asyncio.run(scenario()) == [0, 1, 0]


# --- drift


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(drift, "monotonic", clock)
    return clock


def released(items: int) -> SimpleNamespace:
    """A release of which drift reads the catalogue: item i is the i-th most popular."""
    return SimpleNamespace(
        catalogue=Catalogue(
            item_ids=tuple(f"i{i}" for i in range(1, items + 1)),
            titles=(None,) * items,
            categories=((),) * items,
            popularity=np.arange(items, 0, -1).astype(np.float32),
        )
    )


def drifting(release: SimpleNamespace) -> tuple[Drift, CollectorRegistry]:
    registry = CollectorRegistry()
    of = Drift(registry)
    of.follow(release)
    return of, registry


def test_ids_of_requests_count_by_whether_the_release_knows_them() -> None:
    of, registry = drifting(released(5))
    of.asked(user=True, items=3, unknown=1)
    of.asked(user=None, items=0, unknown=0)
    of.asked(user=False, items=2, unknown=2)
    text = generate_latest(registry)
    assert value(text, "recserve_asked_users_total", known="true") == 1
    assert value(text, "recserve_asked_users_total", known="false") == 1
    assert value(text, "recserve_asked_items_total", known="true") == 2
    assert value(text, "recserve_asked_items_total", known="false") == 3


def test_popularity_of_what_is_shown_goes_from_the_least_to_the_most_popular_item() -> None:
    release = released(5)
    of, registry = drifting(release)
    of.shown(release, [1])
    assert value(generate_latest(registry), "recserve_shown_popularity_total") == 1.0
    of.shown(release, [5, 3])
    text = generate_latest(registry)
    assert value(text, "recserve_shown_popularity_total") == 1.5
    assert value(text, "recserve_shown_total") == 3


def test_coverage_holds_what_was_shown_in_one_to_two_windows(clock: Clock) -> None:
    release = released(10)
    of, registry = drifting(release)

    def covered() -> float:
        return value(generate_latest(registry), "recserve_shown_items")

    of.shown(release, [1, 2, 2])
    assert covered() == 2
    clock.now = drift.WINDOW_S + 1
    of.shown(release, [2, 3])
    assert covered() == 3
    clock.now = 2 * drift.WINDOW_S + 3
    assert covered() == 2  # 1 was seen two windows ago
    clock.now = 10 * drift.WINDOW_S
    assert covered() == 0  # not what was seen before a long silence
    assert value(generate_latest(registry), "recserve_catalogue_items") == 10


def test_answers_of_another_release_do_not_count() -> None:
    release, later = released(3), released(4)
    of, registry = drifting(release)
    of.shown(later, [4])
    assert value(generate_latest(registry), "recserve_shown_total") == 0
    of.shown(release, [1])
    of.follow(later)  # promoted: its coverage begins anew
    assert value(generate_latest(registry), "recserve_shown_items") == 0
    of.shown(later, [4])
    assert value(generate_latest(registry), "recserve_shown_items") == 1


# --- through a real service


MODEL = "recommender_onnx"


def serving(tmp: Path, **variables: str) -> AbstractContextManager[Service]:
    """Without a Triton."""
    (tmp / "repository" / MODEL / "1").mkdir(parents=True)
    write_release(tmp / "repository", toy.LIMITS, items=toy.ITEMS - 1, models=(MODEL,))
    (nobody,) = free_ports(1)
    named = {
        "RECSERVE_REPOSITORY": str(tmp / "repository"),
        "RECSERVE_TRITON": f"grpc://127.0.0.1:{nobody}",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp / "shared"),  # BentoML sets one, too
    }
    return bentoml_serve(tmp, named | variables)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    tmp = tmp_path_factory.mktemp("metrics")
    with serving(tmp, RECSERVE_STORE=f"sqlite:///{tmp}/store.db") as running:
        yield running


def seen(service: Service, name: str, **labels: str) -> float:
    return value(service.http.get("/metrics").text, name, **labels)


def test_a_request_without_triton_counts_in_the_stages_it_went_through(service: Service) -> None:
    assert service.recommend(user_id="reader", n=3)["fallback"] is True
    for stage in (PREPROCESS, STORE, TRITON):
        assert seen(service, "recserve_stage_seconds_count", stage=stage) > 0
    assert seen(service, "recserve_stage_errors_total", stage=TRITON) > 0
    assert seen(service, "recserve_stage_errors_total", stage=PREPROCESS) == 0
    assert seen(service, "recserve_waiting_rows") == 0


def test_a_triton_that_is_away_opens_the_breaker_and_requests_count_by_it(
    service: Service,
) -> None:
    for _ in range(2 * FAILURES):
        service.recommend(n=3)
    assert seen(service, "recserve_breaker_open") == 1
    assert seen(service, "recserve_fallback_total", cause=BREAKER) > 0


def test_what_is_asked_and_shown_is_held_against_the_release(service: Service) -> None:
    def asked(known: str) -> list[float]:
        return [
            seen(service, f"recserve_asked_{of}_total", known=known) for of in ("users", "items")
        ]

    known, unknown = asked("true"), asked("false")
    service.recommend(user_id="reader", history=["i1", "nothing", "i2"], n=3)
    service.recommend(user_id="a stranger", n=3)
    assert [a - b for a, b in zip(asked("true"), known, strict=True)] == [1, 2]
    assert [a - b for a, b in zip(asked("false"), unknown, strict=True)] == [1, 1]
    assert seen(service, "recserve_catalogue_items") == toy.ITEMS - 1
    assert 3 <= seen(service, "recserve_shown_items") < toy.ITEMS
    popularity = seen(service, "recserve_shown_popularity_total") / seen(
        service, "recserve_shown_total"
    )
    assert 0.8 < popularity <= 1  # popular items are all that can be shown


def test_events_are_counted_with_their_lag_when_they_are_kept(service: Service) -> None:
    now = int(time.time())
    event = {"event_id": "e1", "user_id": "u", "item_id": "i1", "event": "view"}
    for at in (now - 100, now - 100, now + 10_000):  # once more; and a clock that is far ahead
        service.post("/v1/events", {"events": [event | {"timestamp": at}]})
    outcomes = {o: seen(service, "recserve_events_total", outcome=o)
                for o in ("accepted", "duplicate", "forgotten", "refused")}  # fmt: skip
    assert outcomes == {"accepted": 1, "duplicate": 2, "forgotten": 0, "refused": 0}
    assert seen(service, "recserve_event_lag_seconds_count") == 3
    assert 200 <= seen(service, "recserve_event_lag_seconds_sum") < 5000  # none is negative


def test_events_that_cannot_be_kept_are_counted_as_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as without_store:
        events = [{"user_id": "u", "item_id": "i1", "event": "view"}] * 2
        assert without_store.http.post("/v1/events", json={"events": events}).status_code == 503
        assert seen(without_store, "recserve_events_total", outcome="refused") == 2


def test_a_caller_that_is_turned_away_counts_by_the_reason(tmp_path: Path) -> None:
    with serving(tmp_path, RECSERVE_RATE="0.001", RECSERVE_BURST="1") as running:
        codes = [running.http.post("/v1/popular", json={}).status_code for _ in range(3)]
        assert codes == [200, 429, 429]
        assert seen(running, "recserve_refused_total", reason=RATE) == 2
        assert seen(running, "recserve_refused_total", reason=OVERLOAD) == 0
        assert seen(running, "recserve_inflight_bound") == 256
