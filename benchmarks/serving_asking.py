"""Ask servers: first whether all answer the same, then how many requests a second and how late.

The load is `client/load`'s closed loop, whose answers are all checked; what a request costs is the
CPU time of the server's processes over those that were answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import uvloop
from serving_paths import OURS, Server, awake

from client.load.report import Report
from client.load.sending.worker import FIRST
from client.load.session import Plan, run
from recommender.release import Release

SAME_USERS = 50
TIE = 1e-4  # scores closer than this may change places, as between the formats of a release


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One path, one round."""

    rate: float  # right answers a second
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # of the server, a request
    asked: int
    wrong: int  # of them: not answered, or not rightly
    behind: bool  # the generator, on the same cores, never had one to spare


def measured(
    server: Server,
    repository: Path,
    *,
    connections: int,
    seconds: float,
    warm_up_s: float,
    inline: bool = False,
    data: Path | None = None,
) -> Rate:
    """`inline` sends histories, `data` has other users. Exits where it is no measurement."""
    plan = Plan(target=server.url, repository=repository, concurrency=connections,
                duration_s=seconds, inline=inline, data=data)  # fmt: skip
    with awake(server):
        # Other users first: nobody's past is at hand because the warm-up asked for it.
        uvloop.run(run(replace(plan, duration_s=warm_up_s, seed=plan.seed + 1)))
        before = server.cpu_s()
        found = uvloop.run(run(plan))
        spent = server.cpu_s() - before
    _refuse(server, found)
    asked = found.requests + max(2 * connections, FIRST)  # each run begins with a few questions
    return Rate(
        rate=found.throughput,
        p50_ms=found.latency_ms["p50"],
        p99_ms=found.latency_ms["p99"],
        cpu_ms=1000 * spent / asked,
        asked=found.requests,
        wrong=found.requests - found.right,
        behind=found.behind,
    )


def _refuse(server: Server, found: Report) -> None:
    """No measurement: hardly a right answer."""
    if found.right < found.requests / 2:
        kinds = {**found.errors, **found.wrong, **found.refused}
        raise SystemExit(
            f"{server.path.name}: {found.right} of {found.requests} right, {kinds}; "
            f"its log:\n{server.tail()}"
        )


# --- what is asked


def fill_store(server: Server, release: Release, newest: int) -> int:
    """How many events our store was given: each user's newest. The release was trained on them,
    so that answers stay as they are, and every request has something to read and to leave out."""
    users, sent = release.users, list[dict[str, object]]()
    for row, user_id in enumerate(users.user_ids):
        history = users.history(row)
        for item, time in zip(history.items[-newest:].tolist() if newest else (),
                              history.times[-newest:].tolist(), strict=False):  # fmt: skip
            sent.append({"user_id": user_id, "item_id": release.catalogue.item_id(item),
                         "event": "view", "timestamp": time})  # fmt: skip
    with awake(server), httpx.Client(base_url=server.url, timeout=20) as http:
        for at in range(0, len(sent), 1000):
            http.post("/v1/events", json={"events": sent[at : at + 1000]}).raise_for_status()
    return len(sent)


def folder_of(release: Release, bucket: int, folder: Path) -> Path | None:
    """A data folder of those users alone whose histories need this length; None: there are none."""
    users = release.users
    rows = np.repeat(np.arange(len(users)), users.lengths)
    lengths = np.array([release.limits.bucket(int(length)) for length in users.lengths])
    wanted = (lengths == bucket)[rows]
    if not wanted.any():
        return None
    place = folder / f"users-{bucket}"
    place.mkdir()
    pl.DataFrame(
        {
            "user_id": [users.user_ids[row] for row in rows[wanted]],
            "item_id": [release.catalogue.item_id(i) for i in users.items[wanted].tolist()],
            "timestamp": users.times[wanted],
        }
    ).write_csv(place / "interactions.csv")
    return place


# --- the same answers


def refuse_others(servers: Mapping[str, Server], release: Release) -> int:
    """How many bodies were asked of all. Exits with the first answer that is not as ours."""
    asked = bodies(release)
    ours = _answers(servers[OURS], asked)
    for name, server in servers.items():
        for body, here, there in zip(asked, ours, _answers(server, asked), strict=True):
            if wrong := difference(here, there):
                raise SystemExit(f"{name} answers {body} otherwise than {OURS}: {wrong}")
    return len(asked)


def bodies(release: Release) -> list[dict[str, object]]:
    """Users of all lengths, by id and by history; also one that nobody knows."""
    users = release.users
    step = max(1, len(users) // SAME_USERS)
    rows = sorted(range(len(users)), key=lambda row: int(users.lengths[row]))[::step]
    ids: list[dict[str, object]] = [{"user_id": users.user_ids[row], "n": 10} for row in rows]
    sent: list[dict[str, object]] = [
        {"history": [release.catalogue.item_id(i) for i in users.history(row).items.tolist()],
         "n": 10}
        for row in rows
    ]  # fmt: skip
    return [*ids, *sent, {"user_id": "nobody-at-all", "n": 10}, {"n": 100}]


def _answers(server: Server, bodies: Sequence[object]) -> list[dict[str, object]]:
    with awake(server), httpx.Client(base_url=server.url, timeout=20) as http:
        found = []
        for body in bodies:
            response = http.post("/v1/recommend", json=body)
            if response.status_code != 200:
                raise SystemExit(f"{server.path.name} answers {body} with {response.text}")
            found.append(response.json())
        return found


def difference(ours: dict[str, object], theirs: dict[str, object]) -> str | None:
    if theirs["fallback"] or ours["fallback"]:
        return "popular items instead of the model's"
    if ours["release"] != theirs["release"] or not theirs["request_id"] or not theirs["model"]:
        return f"release {theirs['release']}, model {theirs['model']}"
    mine, other = ours["items"], theirs["items"]
    assert isinstance(mine, list)
    assert isinstance(other, list)
    if len(mine) != len(other):
        return f"{len(other)} items instead of {len(mine)}"
    for one, two in zip(mine, other, strict=True):
        if one["rank"] != two["rank"] or abs(one["score"] - two["score"]) > TIE:
            return f"{two} instead of {one}"
        shown = {item["item_id"]: (item.get("title"), item["categories"]) for item in mine}
        said = (two.get("title"), two["categories"])
        if shown.get(two["item_id"], said) != said:
            return f"{two} instead of {one}"
        if one["item_id"] != two["item_id"] and not _tied(mine, two):
            return f"{two} instead of {one}"
    return None


def _tied(mine: list[dict[str, float]], other: dict[str, float]) -> bool:
    """`other` stands elsewhere in our list too, or just below its end."""
    scores = [item["score"] for item in mine if item["item_id"] == other["item_id"]]
    return all(abs(score - other["score"]) <= TIE for score in scores)
