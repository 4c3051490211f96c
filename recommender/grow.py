"""New items into a finished run, without training again.

    FILE ─> read_items ─> frame ─┬─> catalogue, content: the new ones at the end
                     run ────────┴─> tables counted anew from the run's own histories,
                                     encoder and mixer as they are ─> a run

Old items keep their index, so histories and users stay valid. An item that nobody has touched
takes after the items most like it (models/cold.py), as at training. Knows no release.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch

from recommender.catalogue import Catalogue
from recommender.contract import BITS_PER_WORD
from recommender.data import clean
from recommender.data.config import DataConfig
from recommender.data.load import ENDINGS, read_table
from recommender.data.report import Dropped
from recommender.errors import DataError, RunError, shown
from recommender.models.deep import Deep
from recommender.models.encoder import Encoder
from recommender.models.exported import Exported
from recommender.models.families import Blueprint, fit_scorer
from recommender.runs import Run


def read_items(path: Path) -> tuple[pl.DataFrame, tuple[Dropped, ...]]:
    """A table of items as training reads it, `item_id` once each, and what was dropped of it.

    Raises DataError naming column, row and remedy.
    """
    ending = next((e for e in ENDINGS if path.name.endswith(e)), None)
    if ending is None or not path.is_file():
        raise DataError(
            f"{path} {'is no table' if path.is_file() else 'does not exist'}",
            remedy=f"Name a table of items: {', '.join(ENDINGS)}.",
            field="items",
        )
    name = path.name.removesuffix(ending)
    table = read_table(path.parent, name, ("item_id",), DataConfig().max_interactions)
    assert table is not None, "it was there a moment ago"
    return clean.clean_records(table, "item_id")


def grow(run: Run, frame: pl.DataFrame) -> Run:
    """`run` with the items of `frame` (as of `read_items`) in its catalogue, new ones at the end.

    Of an id that is there already, title and categories are replaced where the frame gives
    them, for whoever is shown or filters by them; what the model learned of it stays. The
    metrics stay those of `run`, and `details` says what was added. Raises RunError where the
    run cannot hold the items.
    """
    old = run.blueprint
    if isinstance(run.graph.scorer, Exported):
        raise RunError(
            f"a {old.family} run is a program for its {len(old.catalogue)} items alone",
            remedy="Build it again, on data that holds the new items.",
        )
    new = ~frame["item_id"].is_in(list(old.catalogue.item_ids))
    catalogue = _grown(old.catalogue, frame)
    _check_categories(old, catalogue)
    content = run.content_space.matrix(frame.filter(new))
    blueprint = dataclasses.replace(
        old,
        catalogue=catalogue,
        content=sp.csr_array(sp.vstack([old.content, content], format="csr")),
    )
    added = {
        "new": int(new.sum()),
        "refreshed": int((~new).sum()),
        "without_content": int((np.diff(content.indptr) == 0).sum()),
    }
    return dataclasses.replace(
        run,
        blueprint=blueprint,
        graph=blueprint.graph(_scorer(run, blueprint)),
        details={**run.details, "added": [*run.details.get("added", ()), added]},
    )


def _grown(catalogue: Catalogue, frame: pl.DataFrame) -> Catalogue:
    """Popularity is of events: that of new items is 0."""
    titles, categories = list(catalogue.titles), list(catalogue.categories)
    ids, popularity = list(catalogue.item_ids), catalogue.popularity
    rows = zip(frame["item_id"], clean.titles(frame), clean.categories(frame), strict=True)
    for item_id, title, names in rows:
        if index := catalogue.index(item_id):
            titles[index - 1] = title or titles[index - 1]
            categories[index - 1] = names or categories[index - 1]
        else:
            ids.append(item_id)
            titles.append(title)
            categories.append(names)
    return Catalogue(
        item_ids=tuple(ids),
        titles=tuple(titles),
        categories=tuple(categories),
        popularity=np.pad(popularity, (0, len(ids) - len(popularity))),
    )


def _check_categories(old: Blueprint, catalogue: Catalogue) -> None:
    """The width of the category mask is a constant of every release of the run."""
    words = old.limits.category_words
    if catalogue.category_words == words:
        return
    known = set(old.catalogue.category_names)
    first = next((name for name in catalogue.category_names if name not in known), None)
    raise RunError(
        f"with these items there are {len(catalogue.category_names)} categories"
        f"{f' ({shown(first)} is new)' if first else ''}; the filter of this run has "
        f"{words * BITS_PER_WORD} places",
        remedy="Use the run's categories, or train again on data that holds the new ones.",
        field="categories",
    )


def _scorer(run: Run, blueprint: Blueprint) -> torch.nn.Module:
    """Counted anew where it is counted; what was trained is taken over."""
    scorer = run.graph.scorer
    if not isinstance(scorer, Deep):
        return fit_scorer(blueprint, run.users)
    encoder = _widened(scorer.encoder, blueprint) if scorer.encoder is not None else None
    return blueprint.deep(run.users, encoder, scorer.mixer)


def _widened(encoder: Encoder, blueprint: Blueprint) -> Encoder:
    """The encoder with room for the new items. What categories said of the old ones goes into
    their own vectors: it stays, whatever their categories are called now."""
    wide = blueprint.encoder()
    room = wide.state_dict()
    state = {**encoder.state_dict(), "category.weight": torch.zeros_like(room["category.weight"])}
    for name, old in (("item.weight", encoder.item_table()), ("bias", encoder.bias)):
        state[name] = torch.zeros_like(room[name])
        state[name][: len(old)] = old.detach()
    wide.load_state_dict(state)
    return wide.eval()
