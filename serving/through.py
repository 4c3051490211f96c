"""A run -> the release that was exported from it -> its answers from a running server.

The checks before a server is believed: the repository holds a whole release of
exactly this run, and the server answers for that release.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bento.settings import MAX_DEADLINE_MS
from client.answers import Question, answers
from recommender.data.split import Query, requests
from recommender.errors import ReleaseError
from recommender.models.learn import Progress
from recommender.release import Release, read_index, read_release
from recommender.runs import Run
from recommender.through import Answered, Ask


def asker(address: str, repository: Path, progress: Progress) -> Ask:
    """Asks the server at `address`, which serves from `repository`."""

    def ask(run: Run, queries: Sequence[Query]) -> Answered:
        release = release_of(run, repository)
        asked = [
            Question(user_id=run.users.user_ids[query.user], request=request)
            for query, request in zip(queries, requests(queries, run.users), strict=True)
        ]
        item, score = answers(
            address,
            release,
            asked,
            deadline_ms=MAX_DEADLINE_MS,
            progress=lambda done, total: progress(f"ask {address}", done, total),
        )
        source = {
            "url": address,
            "repository": str(repository),
            "release": release.version,
            "model": release.models[0],
        }
        return Answered(item=item, score=score, source=source)

    return ask


def release_of(run: Run, repository: Path) -> Release:
    """The release exported from `run`, the serving one before newer ones, checksums verified.

    A release is known by its family, the digest of its data, and what its training
    recorded (held-out metrics, curve, seconds). Raises ReleaseError where there is none.
    """
    index = read_index(repository)
    for version in sorted(index.releases, key=lambda v: (v == index.serving, v), reverse=True):
        release = read_release(repository, version, verify=False)
        if _trained_as(release) == _identity(run):
            release.verify()
            return release
    raise ReleaseError(
        f"no release of {repository} was exported from this {run.blueprint.family} run",
        remedy="Run `recserve export REPORT_DIR/runs/PROTOCOL-MODEL --repository "
        f"{repository}`, serve it, and ask that server.",
    )


def _identity(run: Run) -> str:
    return _text(run.blueprint.family, run.digest, run.blueprint.clock, run.metrics, run.details)


def _trained_as(release: Release) -> str:
    raw = release.details
    return _text(release.family, raw["data"], release.clock, raw["metrics"], raw["training"])


def _text(*parts: object) -> str:
    return json.dumps(parts, sort_keys=True)
