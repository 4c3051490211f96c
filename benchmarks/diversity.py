"""What does diversity cost? NDCG@10 against how different the ten items of a list are.

    python benchmarks/diversity.py DATA RUN [--markdown]

RUN is one of `recserve evaluate DATA --protocol leave-one-out --out REPORTS`, such as
REPORTS/runs/leave-one-out-deep. Its K answers to every test question are arranged as the service
arranges them (bento/postprocess.py). Difference is 1 - Jaccard of the categories, the mean over
the pairs of a list. Torch is here, no server.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from bento.postprocess import Ranked, Wishes, arranged
from recommender import runs
from recommender.catalogue import Catalogue
from recommender.contract import PADDING, Array
from recommender.data import dataset
from recommender.data.split import requests
from recommender.evaluate import rank
from recommender.metrics import coverage, estimate, per_query
from recommender.protocols import check_rows, split_of

PROTOCOL, AT = "leave-one-out", 10
STEPS = tuple(step / 10 for step in range(11))
COLUMNS = ("diversity", f"NDCG@{AT}", f"HR@{AT}", f"difference@{AT}", f"coverage@{AT}", "ms a list")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one value of diversity, over all questions."""

    diversity: float
    ndcg: float
    half: float  # of its 95% interval
    hr: float
    difference: float
    coverage: float
    milliseconds: float  # median for a page of ten

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            f"{self.diversity:.1f}", f"{self.ndcg:.4f} ± {self.half:.4f}", f"{self.hr:.4f}",
            f"{self.difference:.3f}", f"{self.coverage:.3f}", f"{self.milliseconds:.2f}",
        )  # fmt: skip


def main(
    data: Path,
    run: Path,
    markdown: Annotated[bool, typer.Option("--markdown", help="For docs/api.md.")] = False,
) -> None:
    rows = measure(data, run)
    if markdown:
        lines = (COLUMNS, ["---:"] * len(COLUMNS), *(row.cells for row in rows))
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return
    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row.cells)
    Console().print(table)


def measure(data: Path, folder: Path) -> list[Measured]:
    run, (read, _) = runs.read(folder), dataset.load(data)
    split = split_of(read, PROTOCOL)
    check_rows(run, read, split, PROTOCOL)
    asked, catalogue = requests(split.test, split.train_valid), run.blueprint.catalogue
    item, score = rank(run.graph, asked, run.blueprint.limits)
    answers = [Ranked(i[i != PADDING], s[i != PADDING]) for i, s in zip(item, score, strict=True)]
    targets = [query.targets for query in split.test]
    return [_measured(step, answers, targets, catalogue) for step in STEPS]


def _measured(
    diversity: float, answers: list[Ranked], targets: list[Array], catalogue: Catalogue
) -> Measured:
    wishes = Wishes(diversity=diversity)
    items, took = np.zeros((len(answers), AT), np.int64), np.zeros(len(answers))
    for row, answer in enumerate(answers):
        began = time.perf_counter()
        shown = arranged(answer, wishes, catalogue, AT).item
        took[row] = time.perf_counter() - began
        items[row, : len(shown)] = shown
    found = per_query(items, targets, AT)
    ndcg = estimate(found["ndcg"])
    return Measured(
        diversity=diversity,
        ndcg=ndcg.mean,
        half=ndcg.half,
        hr=float(found["hr"].mean()),
        difference=float(np.mean([difference(row[row > 0], catalogue) for row in items])),
        coverage=coverage(items, AT, len(catalogue)),
        milliseconds=float(np.median(took)) * 1000,
    )


def difference(items: Array, catalogue: Catalogue) -> float:
    """The mean over pairs of 1 - Jaccard, from the names: not by the code that is judged."""
    names = [set(catalogue.categories_of(int(index))) for index in items]
    pairs = [(a, b) for at, a in enumerate(names) for b in names[at + 1 :]]
    return float(np.mean([1 - len(a & b) / max(1, len(a | b)) for a, b in pairs] or [0.0]))


if __name__ == "__main__":
    typer.run(main)
