"""The commands beside the event store: the next data folder, backup and restore, click-through."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest
from data_folders import events as rows
from data_folders import history, items
from data_folders import write as write_folder
from store_writer import batch, writer
from stores import NOW, WEIGHTS, RedisServer, event, opened, past, redis_server
from test_cli import recserve

from bento.store import Impression, backup, connect, reading, restore
from recommender.data.dataset import load
from recommender.errors import BadInput, DataError, MachineError, RecserveError
from serving.from_store import from_store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    server.empty()
    return server.url


def fill(url: str, events: list, *, forget: dict[str, int] | None = None) -> None:
    async def act() -> None:
        async with opened(url) as store:
            await store.add(events, weights=WEIGHTS)
            for user, now in (forget or {}).items():
                await store.forget(user, now=now)

    asyncio.run(act())


def state(url: str) -> tuple[object, ...]:
    with reading(url) as reader:
        everything = sorted(reader.events(), key=lambda e: (e.user_id, e.timestamp, e.event_id))
        return everything, reader.erasure("gone"), reader.click_through(since=0)


# data from-store


def test_the_events_become_a_folder_that_a_training_reads(url: str, tmp_path: Path) -> None:
    sent = [event(i, f"u{i % 9}", f'i"{i % 31}', at=NOW + i * 1000 + i * i * 7) for i in range(60)]
    fill(url, sent)
    done = recserve("data", "from-store", url, "--out", "next", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "60 events" in done.stdout
    dataset, report = load(tmp_path / "next")
    assert report.interactions == 60
    mine = [(e.item_id, e.timestamp) for e in sent if e.user_id == "u3"]
    assert [h[:2] for h in history(dataset, "u3")] == mine
    done = recserve("train", "next", "--model", "popularity", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_base_comes_first_and_the_forgotten_are_left_out_of_it(
    url: str, tmp_path: Path
) -> None:
    day = 86_400
    base = write_folder(
        tmp_path / "base",
        interactions=pl.DataFrame(
            {
                "user_id": ["ann", "bob", "bob", "gone", "gone", "gone"],
                "item_id": ["i1", "i2", "i3", "i1", "i2", "i3"],
                "timestamp": [str(NOW), "2023-11-01T00:00:00Z", str(NOW - 5), str(NOW - day),
                              "2023-11-01 00:00:00", str(NOW + 7)],
                "rating": ["4", "", "3", "5", "2", "1"],
            }
        ),
        items=pl.DataFrame({"item_id": ["i1", "i2", "i3"], "title": ["One", "Two", "Three"]}),
        users=pl.DataFrame({"user_id": ["gone", "ann", "bob"], "job": ["x", "y", "y"]}),
    )  # fmt: skip
    (base / "recserve.toml").write_text("[data]\nburst_seconds = 0\n")
    fill(url, [event(1, "gone", "i2", at=NOW - 9), event(2, "ann", "i3", "purchase", at=NOW + 1)],
         forget={"gone": NOW})  # fmt: skip
    fill(url, [event(3, "gone", "i1", at=NOW + 9)])  # after the erasure: a new user's, as it were
    done = from_store(url, tmp_path / "next", base)
    assert (done.base, done.events, done.forgotten, done.users) == (4, 2, 2, 1)
    written = pl.read_csv(tmp_path / "next" / "interactions.csv", infer_schema=False)
    assert written.columns == ["user_id", "item_id", "timestamp", "event", "rating"]
    assert written["user_id"][:4].to_list() == ["ann", "bob", "bob", "gone"]
    assert sorted(written["user_id"][4:]) == ["ann", "gone"]
    assert str(NOW + 7) in written.filter(user_id="gone")["timestamp"].to_list()
    assert written.filter(event="purchase").row(0)[:3] == ("ann", "i3", str(NOW + 1))
    users = pl.read_csv(tmp_path / "next" / "users.csv", infer_schema=False)
    assert users["user_id"].to_list() == ["ann", "bob"]
    for name in ("items.csv", "recserve.toml"):
        assert (tmp_path / "next" / name).read_bytes() == (base / name).read_bytes()
    assert load(tmp_path / "next")[1].interactions == 6


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_folder_made_from_the_store_is_a_base_itself(format: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    base = write_folder(
        tmp_path / "base", format, interactions=rows(("ann", "i1", NOW), ("eve", "i2", NOW)),
        items=items("i1", "i2"),
    )  # fmt: skip
    fill(url, [event(1, at=NOW + 100), event(2, "bob", at=NOW + 200)])
    from_store(url, tmp_path / "one", base)
    from_store(url, tmp_path / "two", tmp_path / "one")
    first, second = load(tmp_path / "one")[0], load(tmp_path / "two")[0]
    assert first.digest == second.digest  # repeated rows count once


def test_a_store_without_events_or_with_a_bad_base_leaves_no_folder(
    url: str, tmp_path: Path
) -> None:
    fill(url, [event(1)], forget={"ann": NOW})
    with pytest.raises(DataError, match="not one event"):
        from_store(url, tmp_path / "next", None)
    with pytest.raises(DataError, match="does not exist"):
        from_store(url, tmp_path / "next", tmp_path / "nowhere")
    assert not (tmp_path / "next").exists()


# backup, restore


def test_a_backup_restores_all_there_was(url: str, tmp_path: Path) -> None:
    now = int(time.time())

    async def prepare() -> None:
        async with opened(url) as store:
            await store.add([event(i, f"u{i % 3}", at=now - i) for i in range(30)], weights=WEIGHTS)
            await store.add([event(99, "gone")], weights=WEIGHTS)
            await store.forget("gone", now=NOW)
            await store.block(add=["x"], remove=[])
            shown = Impression(request_id="r", variant="a", release=1, user_id="u0",
                               items=("i1",), time=now - 60)  # fmt: skip
            away = msgspec.structs.replace(shown, request_id="away", fallback=True)
            await store.impressions([shown, away])
            await store.trends(now=now, half_life_days=3)
            done = recserve("backup", "all.backup", "--store", url, cwd=tmp_path)  # a live store
            assert (done.returncode, done.stderr) == (0, "")
            assert "30 events" in done.stdout

    async def trends() -> tuple[object, ...]:
        async with opened(url) as store:
            return (
                await store.trends(now=now, half_life_days=3),
                await store.blocked(),
                await store.add([event(0, "u0", at=now)], weights=WEIGHTS),
                (await store.person("gone", limit=1)).forgotten,
            )

    asyncio.run(prepare())
    assert (tmp_path / "all.backup").stat().st_mode & 0o777 == 0o600
    before, voted = state(url), asyncio.run(trends())
    fill(url, [event(1000, "late")], forget={"u1": NOW * 2})
    assert state(url) != before
    done = recserve("restore", "all.backup", "--store", url, cwd=tmp_path)
    assert done.returncode == 1
    assert "--force" in done.stderr
    done = recserve("restore", "all.backup", "--store", url, "--force", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "30 events" in done.stdout
    assert (state(url), asyncio.run(trends())) == (before, voted)
    left = {path.name for path in tmp_path.iterdir()} - {"all.backup"}
    assert left <= {"events.db", "events.db.lock"}


def test_a_damaged_backup_is_refused_and_the_store_untouched(url: str, tmp_path: Path) -> None:
    fill(url, [event(i, f"u{i % 3}") for i in range(20)], forget={"gone": NOW})
    made = tmp_path / "all.backup"
    assert backup(url, made) == 20
    whole, before, rng = made.read_bytes(), state(url), random.Random(0)
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(20)] + [whole + b"\n", b""]
    for place in [*range(30), *range(len(whole) - 70, len(whole)),
                  *rng.choices(range(len(whole)), k=50)]:  # fmt: skip
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        made.write_bytes(content)
        with pytest.raises(DataError, match=r"checksum|no backup"):
            restore(url, made, force=True)
    assert state(url) == before
    made.write_bytes(whole)
    assert restore(url, made, force=True) == 20


def test_a_restore_into_an_empty_or_missing_store_needs_no_force(url: str, tmp_path: Path) -> None:
    fill(url, [event(1)])
    made = tmp_path / "all.backup"
    backup(url, made)
    before = state(url)
    if url.startswith("redis"):
        import redis

        with redis.Redis.from_url(url) as client:
            client.flushall()
            client.set("theirs", "stays")
    else:
        url = f"sqlite:///{tmp_path}/new/events.db"
    assert restore(url, made) == 1
    assert state(url) == before
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            assert client.get("theirs") == b"stays"
            assert not list(client.scan_iter("recserve-restore:*"))


def test_a_store_that_a_service_has_open_is_not_replaced(tmp_path: Path) -> None:
    url, made = f"sqlite:///{tmp_path}/events.db", tmp_path / "all.backup"
    fill(url, [event(1)])
    backup(url, made)
    store = connect(url)
    with pytest.raises(MachineError, match="open in another service"):
        restore(url, made, force=True)
    assert asyncio.run(store.person("ann", limit=9)).past == past(event(1))
    asyncio.run(store.close())
    with pytest.raises(BadInput, match="the store itself"):
        backup(url, tmp_path / "events.db")


def test_backups_under_a_writer_hold_whole_batches_and_more_each_time(
    url: str, tmp_path: Path
) -> None:
    process = writer(url, 0)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    counts = []
    try:
        for number in range(4):
            time.sleep(0.1)
            counts.append(backup(url, tmp_path / f"{number}.backup"))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert counts == sorted(set(counts))
    for number, count in enumerate(counts):
        assert restore(url, tmp_path / f"{number}.backup", force=True) == count
        with reading(url) as reader:
            ids = [e.event_id for e in reader.events()]
        assert len(ids) == len(set(ids)) == count
        for whole in {int(id[1:]) // 10 for id in ids}:
            assert {e.event_id for e in batch(whole)} <= set(ids)


def test_a_damaged_store_can_be_replaced_by_force(tmp_path: Path) -> None:
    url, path = f"sqlite:///{tmp_path}/events.db", tmp_path / "events.db"
    fill(url, [event(1)])
    made = tmp_path / "all.backup"
    backup(url, made)
    path.write_bytes(b"\0garbage" * 999)
    with pytest.raises(DataError, match="--force"):
        restore(url, made)
    assert restore(url, made, force=True) == 1
    assert asyncio.run(_count(url)) == 1


async def _count(url: str) -> int:
    async with opened(url) as store:
        return len((await store.person("ann", limit=9)).past.items)


def test_a_backup_of_the_other_kind_is_refused(server: RedisServer, tmp_path: Path) -> None:
    url, made = f"sqlite:///{tmp_path}/events.db", tmp_path / "all.backup"
    fill(url, [event(1)])
    backup(url, made)
    server.empty()
    with pytest.raises(DataError, match="a store in sqlite, not in redis"):
        restore(server.url, made)


def test_a_backup_of_a_newer_recserve_changes_nothing(
    url: str, tmp_path: Path, server: RedisServer
) -> None:
    import sqlite3

    import redis

    version = 99
    fill(url, [event(1)])
    made = tmp_path / "all.backup"
    if url == server.url:
        with redis.Redis.from_url(url) as client:
            identity = client.get("recserve:schema")
            client.set("recserve:schema", f"{version} 00")
            content = {key: client.dump(key) for key in client.scan_iter("recserve:*")}
            client.set("recserve:schema", identity)
        from bento.store import copies, redis_copy

        def fill_in(out: copies.Out) -> None:
            for key, dumped in content.items():
                out.write(redis_copy.packed((key[len(b"recserve:") :], 0, dumped)))

        copies.write(made, "redis", fill_in)
    else:
        newer = tmp_path / "newer.db"
        fill(f"sqlite:///{newer}", [event(5)])
        backup(f"sqlite:///{newer}", made)
        from bento.store import copies

        with copies.opened(made, "sqlite") as copy:
            newer.write_bytes(copy.read(1 << 30))
        with sqlite3.connect(newer) as db:
            db.execute(f"PRAGMA user_version = {version}")
        db.close()
        copies.write(made, "sqlite", lambda out: out.write(newer.read_bytes()))
    before = state(url)
    with pytest.raises(RecserveError, match=f"version {version}"):
        restore(url, made, force=True)
    assert state(url) == before


# click-through


def test_click_through_is_a_table_or_json(url: str, tmp_path: Path) -> None:
    now = int(time.time())

    async def prepare() -> None:
        async with opened(url) as store:
            await store.impressions(
                [
                    Impression(request_id=f"r{i}", variant="ab"[i % 2], release=1,
                               user_id=f"u{i}", items=("i1", "i2"), time=now - 100,
                               fallback=i >= 8)
                    for i in range(10)
                ]
            )  # fmt: skip
            clicked = [event(i, f"u{i}", at=now - 50) for i in (0, 1, 2, 9)]
            await store.add(clicked, weights=WEIGHTS)

    def row(variant: str, fallback: bool, *counts: float) -> dict[str, object]:
        names = ("answers", "impressions", "clicks", "ctr")
        return {"release": 1, "variant": variant, "fallback": fallback} | dict(
            zip(names, counts, strict=True)
        )

    asyncio.run(prepare())
    done = recserve("click-through", "--store", url, "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == [
        row("a", False, 4, 8, 2, 0.25),
        row("a", True, 1, 2, 0, 0.0),
        row("b", False, 4, 8, 1, 0.125),
        row("b", True, 1, 2, 1, 0.5),
    ]
    done = recserve("click-through", "--store", url, "--days", "1", cwd=tmp_path)
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["1", "a", "no", "4", "8", "2", "25.00%"],
        ["1", "a", "yes", "1", "2", "0", "0.00%"],
        ["1", "b", "no", "4", "8", "1", "12.50%"],
        ["1", "b", "yes", "1", "2", "1", "50.00%"],
    ]
    done = recserve("click-through", "--store", url, "--days", "0.01", "--json", cwd=tmp_path)
    assert len(json.loads(done.stdout)) == 4


def test_a_store_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for command in (["click-through"], ["backup", "x"], ["data", "from-store",
                    "sqlite:///.recserve/events.db", "--out", "next"]):  # fmt: skip
        done = recserve(*command, cwd=tmp_path)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "there is no event store .recserve/events.db" in line
    assert list(tmp_path.iterdir()) == []
