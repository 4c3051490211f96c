"""A plan -> release, target, questions, measurement -> a report: one load test."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from client.load import targets
from client.load.generator import measure
from client.load.questions import questions, shuffled
from client.load.report import Report, report
from recommender.release import read_release


@dataclass(frozen=True, kw_only=True)
class Plan:
    target: str  # http://..., grpc://... or triton+http://...
    repository: Path  # users, histories and limits come from its serving release
    concurrency: int = 8  # callers at a time
    requests: int | None = None  # stop after this many,
    duration_s: float | None = None  # or after this time; give one of the two
    n: int = 10  # items per answer, from Bento
    model: str | None = None  # Triton's; None = the one that serves
    timeout_s: float = 10
    seed: int = 0  # which users, in which order


async def run(plan: Plan) -> Report:
    """Raises BadInput, ReleaseError, or Unavailable where no warm-up request is answered."""
    release = read_release(plan.repository)
    target = targets.connect(
        plan.target,
        release,
        n=plan.n,
        model=plan.model or release.models[0],
        timeout_s=plan.timeout_s,
    )
    asked = questions(release, excludes=target.excludes, now=int(time.time()), seed=plan.seed)
    try:
        recording = await measure(
            target,
            shuffled(asked, plan.seed),
            items=len(release.catalogue),
            concurrency=plan.concurrency,
            requests=plan.requests,
            duration_s=plan.duration_s,
        )
    finally:
        await target.close()
    return report(
        recording, target=plan.target, release=release.version, concurrency=plan.concurrency
    )
