"""A real `bentoml serve` on a small release, as a child process that is always stopped:
even if the tests are killed, it gets SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from ports import free_ports

from recommender.catalogue import Catalogue
from recommender.contract import Limits
from recommender.features import UserColumn, UserFeatures
from recommender.release import read_index
from recommender.stored import SCHEMA
from recommender.users import Users
from recommender.verify import sha256
from serving.processes import die_with_parent

ROOT = Path(__file__).parent.parent
BENTOML = str(Path(sys.executable).with_name("bentoml"))
CLOCK = 1_000_000  # the last second of the toy release's training data
COLUMNS = UserFeatures(
    columns=(UserColumn(name="job", values=("baker", "nurse")), UserColumn(name="age", edges=(30,)))
)
GENRES = ("Comedy", "Drama", "Noir")  # item i has GENRES[i % 3]; item 3 has all of them


def write_release(
    repository: Path, limits: Limits, *, items: int, models: tuple[str, ...], version: int = 1
) -> None:
    """Items i1 to iN, the first the most popular; users `reader` (10 events) and `new` (none).

    It names whatever lies in its folders, and is one more where there are releases already.
    """
    home = repository / models[0] / str(version)
    home.mkdir(parents=True, exist_ok=True)
    Catalogue(
        item_ids=tuple(f"i{i}" for i in range(1, items + 1)),
        titles=tuple(None if i == 1 else f"Title {i}" for i in range(1, items + 1)),
        categories=tuple(GENRES if i == 3 else (GENRES[i % 3],) for i in range(1, items + 1)),
        popularity=np.arange(items, 0, -1).astype(np.float32),
    ).write(home)
    Users(
        user_ids=("reader", "new"),
        features=np.array([[1, 2], [2, 1]]),
        offsets=np.array([0, 10, 10]),
        items=np.arange(1, 11),
        times=np.arange(CLOCK - 10, CLOCK),
        weights=np.ones(10, np.float32),
    ).write(home)
    files = {
        str(path.relative_to(repository)): sha256(path)
        for model in models
        for path in (repository / model / str(version)).glob("*")
        if path.name != "release.json"
    }
    release = {
        "schema": SCHEMA,
        "version": version,
        "family": "deep",
        "items": items,
        "models": models,
        "limits": {
            "user_features": limits.user_features,
            "category_words": limits.category_words,
            "exclude": limits.exclude,
            "answers": limits.answers,
            "length_buckets": limits.length_buckets,
            "max_batch_size": limits.max_batch_size,
        },
        "user_features": COLUMNS.to_json(),
        "mean_rating": None,
        "clock": CLOCK,
        "files": files,
    }
    (home / "release.json").write_text(json.dumps(release))
    path = repository / "releases.json"
    known = read_index(repository).releases if path.exists() else {}
    releases = {**known, version: f"{models[0]}/{version}/release.json"}
    write_index(repository, serving=version, releases=releases)


def write_index(repository: Path, *, serving: int, releases: Mapping[int, str]) -> None:
    """As the export writes it."""
    checksums = {number: sha256(repository / home) for number, home in releases.items()}
    index = {"schema": SCHEMA, "serving": serving, "releases": releases, "checksums": checksums}
    (repository / "releases.json").write_text(json.dumps(index))


@dataclass(frozen=True)
class Service:
    url: str
    http: httpx.Client
    log: Path

    def recommend(self, **body: object) -> dict[str, object]:
        return self.post("/v1/recommend", body)

    def post(self, path: str, body: object) -> dict[str, object]:
        response = self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, object] = response.json()
        return answer


def environment(home: Path, **variables: str) -> dict[str, str]:
    """This process's environment without settings of ours, BentoML's home and tracking set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RECSERVE_", "BENTOML_"))}
    return kept | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"} | variables


@contextmanager
def bentoml_serve(
    tmp: Path, variables: Mapping[str, str], *, target: tuple[str, ...] = (), cwd: Path = ROOT
) -> Iterator[Service]:
    """`bentoml serve [target]` in `cwd`, alive; its process group is gone afterwards."""
    (port,) = free_ports(1)
    log = tmp / f"bentoml-{port}.log"
    command = [BENTOML, "serve", *target, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(tmp / "bentoml", **variables),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            wait_until(lambda: answers(http, "/livez"), process, log)
            yield Service(url, http, log)
    finally:
        stop(process)


def worker_of(service: Service) -> psutil.Process:
    """The process that answers: of BentoML's, the one with the most memory."""
    port = f"--port {service.url.rpartition(':')[2]}"
    (master,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if "bentoml" in (command := " ".join(process.info["cmdline"] or ())) and port in command
    )
    return max(master.children(recursive=True), key=lambda p: p.memory_info().rss)


def answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
    *,
    seconds: float = 60,
) -> None:
    until = time.monotonic() + seconds
    while not condition():
        ended = process is not None and process.poll() is not None
        assert not ended and time.monotonic() < until, log.read_text() if log else "too late"
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGINT to the group, SIGKILL to whatever is left of it after ten seconds."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGINT)
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
