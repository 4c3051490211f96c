"""How well are items recommended that a run was given after its training, as `export --items` does?

    python benchmarks/new_items.py DATA --out FOLDER [--draw N] [--models deep,content]

The items that `recserve evaluate --protocol cold-items --draw N` hides are left out of the data
folder altogether, record and events; a run is trained on the rest and grown by their records. Then
the same questions are asked of it, and the hidden items alone are ranked. FOLDER keeps the data
without them and the runs. Torch is here, no server.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from recommender import config, train
from recommender.cold_items import among, chance
from recommender.contract import Array
from recommender.data import dataset
from recommender.data.dataset import Dataset
from recommender.data.hidden import cold_items, hidden_items
from recommender.data.load import read_table
from recommender.data.split import Query, requests
from recommender.evaluate import judge, rank
from recommender.grow import grow
from recommender.metrics import estimate
from recommender.runs import Run

METRIC = "recall@10"


def main(
    data: Path,
    out: Annotated[Path, typer.Option(help="Where data and runs are kept.")],
    draw: Annotated[int, typer.Option(help="Which tenth of the items; the seed, too.")] = 0,
    models: str = "deep,content",
) -> None:
    whole, _ = dataset.load(data)
    split = cold_items(whole.users, repurchase=whole.repurchase, seed=draw)
    hidden = [whole.catalogue.item_id(i) for i in hidden_items(whole.users, split).tolist()]
    known, records = _without(data, hidden, out / f"data-{draw}")
    judged = {"random order": chance(split.test, len(hidden))}
    for family in models.split(","):
        run = grow(_trained(known, out / f"{family}-{draw}", family, draw), records)
        theirs = run.blueprint.catalogue
        queries = [_said(query, whole, run) for query in split.test]
        graph = among(run, theirs.indexes(hidden))
        items, _ = rank(graph, requests(queries, run.users), run.blueprint.limits)
        judged[family] = judge(items, queries, len(hidden))
    table = Table("model", METRIC, "±", title=f"draw {draw}: {len(hidden)} items added afterwards")
    for name, one in judged.items():
        found = estimate(one.values[METRIC])
        table.add_row(name, f"{found.mean:.4f}", f"{found.half:.4f}")
    Console().print(table)


def _without(data: Path, hidden: list[str], folder: Path) -> tuple[Path, pl.DataFrame]:
    """The data folder without these items, and their records."""
    folder.mkdir(parents=True, exist_ok=True)
    records = pl.DataFrame()
    for name in ("interactions", "items", "users"):
        table = read_table(data, name, (), 10**9)
        if table is None:
            continue
        frame = table.frame.select(table.columns)
        if "item_id" in frame.columns:
            new = frame["item_id"].cast(pl.String).is_in(hidden)
            records = frame.filter(new) if name == "items" else records
            frame = frame.filter(~new)
        frame.write_parquet(folder / f"{name}.parquet")
    return folder, records


def _trained(folder: Path, out: Path, family: str, seed: int) -> Run:
    recipe = config.read(settings=[f"training.seed={seed}"])
    found, _ = dataset.load(folder)
    return train.train(found, out, family=family, config=recipe, resume=out.exists())


def _said(query: Query, whole: Dataset, run: Run) -> Query:
    """The same question in the run's rows and indexes."""

    def by_id(items: Array) -> Array:
        ids = [whole.catalogue.item_id(index) for index in items.tolist()]
        return run.blueprint.catalogue.indexes(ids)

    user = run.users.row(whole.users.user_ids[query.user])
    assert user is not None, "whoever is asked had an event before"
    history = replace(query.history, items=by_id(query.history.items))
    return replace(query, user=user, history=history, targets=by_id(query.targets))


if __name__ == "__main__":
    typer.run(main)
