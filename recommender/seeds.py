"""One recipe under several seeds -> the mean of what each question got, and how seeds differ.

    OUT/seed-S/                  the whole report of each seed, its runs too
    OUT/PROTOCOL-seeds.json      means over seeds with their intervals; figures of each seed
    OUT/PROTOCOL-seeds.html      the same as tables

The interval of a mean is that of users, as in one report: another draw of users, with as many
seeds. What the seeds alone make of it is their spread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

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
    mean = replace(
        compared(first.protocol, first.groups, judged, first.data, first.config),
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
    """Of each query's values: the seeds ask the same queries, in the same order."""
    return Judged(
        values={
            name: np.mean([one.values[name] for one in judged], axis=0) for name in judged[0].values
        },
        coverage={
            name: float(np.mean([one.coverage[name] for one in judged]))
            for name in judged[0].coverage
        },
        users=judged[0].users,
    )
