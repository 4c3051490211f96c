"""One recipe under several seeds -> the mean of what each user got, and how seeds differ.

    OUT/seed-S/                  the whole report of each seed, its runs too
    OUT/PROTOCOL-seeds.json      means over seeds with their intervals; figures of each seed
    OUT/PROTOCOL-seeds.html      the same as tables

The interval of a mean is that of users, as in one report: another draw of users, with as many
seeds. What the seeds alone make of it is their spread. Where each seed asks other questions
(each hides other items), a user's value is the mean of those that they were asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recommender.evaluate import Judged
from recommender.protocols import METRIC, Report, compared
from recommender.report import command
from recommender.report.seeds import SeedsStudy, page


@dataclass(frozen=True, kw_only=True, eq=False)
class Seeds:
    mean: Report
    each: Mapping[int, Report]

    def to_json(self) -> dict[str, Any]:
        each = {str(seed): report.models for seed, report in self.each.items()}
        return {**self.mean.to_json(), "seeds": each}


def over_seeds(seeds: range, out: Path, evaluate: Callable[[int, Path], Report]) -> Seeds:
    """`evaluate` one seed into a folder, for each of `seeds`; write the means into `out`."""
    each = {seed: evaluate(seed, out / f"seed-{seed}") for seed in seeds}
    first = next(iter(each.values()))
    judged = {name: _mean([report.judged[name] for report in each.values()])
              for name in first.judged}  # fmt: skip
    groups = {**first.groups, "all": np.arange(len(next(iter(judged.values())).users))}
    mean = replace(
        compared(first.protocol, groups, judged, first.data, first.config),
        command=command.over_seeds(first.command or "", len(each)),
    )
    found = Seeds(mean=mean, each=each)
    path = out / f"{first.protocol}-seeds.json"
    path.write_text(json.dumps(found.to_json(), indent=2) + "\n")
    path.with_suffix(".html").write_text(page(_study(found)))
    return found


def _study(found: Seeds) -> SeedsStudy:
    mean = found.mean
    return SeedsStudy(
        protocol=mean.protocol,
        metric=METRIC[mean.protocol],
        queries=mean.queries,
        mean=mean.models,
        each={seed: report.models for seed, report in found.each.items()},
        against=mean.against,
        data=mean.data,
        command=mean.command or "",
    )


def _mean(judged: Sequence[Judged]) -> Judged:
    """User by user, as they are first asked; each is asked once a seed at most."""
    asked = pl.concat(pl.DataFrame({"user": one.users, **one.values}) for one in judged)
    mean = asked.group_by("user", maintain_order=True).mean()
    return Judged(
        values={name: mean[name].to_numpy() for name in judged[0].values},
        coverage={
            name: float(np.mean([one.coverage[name] for one in judged]))
            for name in judged[0].coverage
        },
        users=mean["user"].to_numpy(),
    )
