"""The small shop that `recserve init` writes: three CSV files to replace, and recserve.toml.

Made up, the same every time, and small enough to train on in a minute or two: visits of views,
carts, purchases and now and then a return. recserve.toml spells out every choice at its
default, so that it is both the manual and the place to change it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recommender.data.config import FILE
from recommender.data.folder import new_folder

USERS, DAYS, START = 200, 120, 1_735_689_600  # from 2025-01-01 UTC
KINDS = ("Small", "Large", "Classic", "Limited")
SHELVES = {
    "Coffee": ("grinder", "espresso beans", "filter papers", "drip pot"),
    "Tea": ("green tea", "teapot", "herbal tea", "strainer"),
    "Kitchen": ("knife", "pan", "cutting board", "apron"),
    "Garden": ("watering can", "seeds", "gloves", "planter"),
    "Reading": ("notebook", "reading lamp", "bookmark", "pen"),
    "Outdoor": ("backpack", "tent", "flask", "headlamp"),
}
CITIES = ("Lisbon", "Lyon", "Turin", "Ghent", "Graz")

SETTINGS = """\
# How recserve reads this folder: the table [data], every key at its default.
# Change what is wrong for your data, or delete the file: the defaults stay the same.
# `recserve data check DIR` shows what each choice does; --set data.KEY=VALUE overrules it.
#
# The files, each .csv, .csv.gz or .parquet, columns in any order, ids are text:
#   interactions  user_id, item_id, timestamp (unix seconds, or ISO 8601 such as
#                 2025-01-31T18:30:00Z; without a zone it is UTC); optional event, rating
#   items         item_id; optional title, categories (separated by |), further columns
#   users         optional: user_id and any further columns

[data]
# Strength of an event by its name. Names of your own may be added; a name without a weight
# counts 1 and is reported. Below 0 (return, dislike): the event takes back what the user did
# with that item before; the item stays out of the user's recommendations and gains nothing
# by it. 0: rows of that name are left out.
event_weights.view = 1
event_weights.click = 1
event_weights.play = 1
event_weights.rating = 1
event_weights.like = 2
event_weights.cart = 2
event_weights.purchase = 4
event_weights.dislike = -1
event_weights.return = -2

# Ratings say how strong an interaction was, around their mean. To let them decide instead
# what counts at all, keep only what is rated at least this (events without a rating stay):
# min_rating = 4

# One user with one item, several times: "keep" every event, or the "last" or "first" only.
repeats = "keep"
# The same act with the same item again within this many seconds counts once. 0: never.
burst_seconds = 60
# May be recommended again what the user already had? true for groceries, false for films.
repurchase = false

# Events of a user at most this many seconds apart are one visit or basket; 0: only those of
# the same timestamp. Without the key it is guessed, and `data check` says why.
# session_gap = 1800

# Bots: of a user with more events, the newest that many count. 0: no cap.
max_events_per_user = 10000
max_events_per_day = 0

# Columns of items and users are read as categorical, numeric, text or ignore, by a guess
# that `data check` prints. Overrule it here:
# columns = { price = "numeric", city = "ignore" }

half_life_days = 30.0        # an event this much older counts half in the popularity
bins = 8                     # a number is told apart by this many quantiles
min_occurrences = 3          # a category seen less often is unknown
max_values = 500             # categories kept per column
max_interactions = 20000000  # more rows are refused: they would need more than about 10 GB
"""


def write_sample(out: Path) -> None:
    """Write the data folder `out`; raises DataError where it is taken."""
    rng = np.random.default_rng(0)
    items, users = _items(rng), _users(rng)
    with new_folder(out) as folder:
        _interactions(rng, users, items).write_csv(folder / "interactions.csv")
        items.write_csv(folder / "items.csv")
        users.drop("likes").write_csv(folder / "users.csv")
        (folder / FILE).write_text(SETTINGS, encoding="utf-8")


def _items(rng: np.random.Generator) -> pl.DataFrame:
    rows = [
        (f"{kind} {thing}", f"{shelf}|Gifts" if kind == "Limited" else shelf)
        for shelf, things in SHELVES.items()
        for thing in things
        for kind in KINDS
    ]
    return pl.DataFrame(
        {
            "item_id": [f"P{n:03d}" for n in range(1, len(rows) + 1)],
            "title": [title for title, _ in rows],
            "categories": [categories for _, categories in rows],
            "price": np.round(rng.lognormal(3, 0.6, len(rows)), 2),
        }
    )


def _users(rng: np.random.Generator) -> pl.DataFrame:
    """With `likes`, the shelf that a user mostly visits: one for each city, mostly."""
    city = rng.integers(0, len(CITIES), USERS)
    likes = np.where(rng.random(USERS) < 0.7, city, rng.integers(0, len(SHELVES), USERS))
    return pl.DataFrame(
        {
            "user_id": [f"C{n:04d}" for n in range(1, USERS + 1)],
            "city": [CITIES[c] for c in city],
            "age": rng.integers(18, 80, USERS),
            "likes": [list(SHELVES)[shelf] for shelf in likes],
        }
    )


def _interactions(
    rng: np.random.Generator, users: pl.DataFrame, items: pl.DataFrame
) -> pl.DataFrame:
    """Visits of a few views on one shelf; of some, the last item goes to the cart, is bought,
    and seldom returned some days later."""
    shelves = {
        shelf: items.filter(pl.col("categories").str.starts_with(shelf))["item_id"].to_list()
        for shelf in SHELVES
    }
    rows: list[tuple[str, str, int, str]] = []
    for user_id, likes in users.select("user_id", "likes").iter_rows():
        for _ in range(1 + rng.poisson(3)):
            shelf = likes if rng.random() < 0.8 else str(rng.choice(list(SHELVES)))
            time = START + int(rng.integers(0, DAYS * 86_400))
            popular = 1 / np.arange(1, len(shelves[shelf]) + 1)
            count = 1 + int(rng.integers(0, 5))
            seen = rng.choice(shelves[shelf], count, False, popular / popular.sum()).tolist()
            for item_id in seen:
                rows.append((user_id, item_id, time, "view"))
                time += int(rng.integers(20, 240))
            for event, chance in (("cart", 0.5), ("purchase", 0.6), ("return", 0.1)):
                if rng.random() > chance:
                    break
                time += int(rng.integers(20, 240)) + (5 * 86_400 if event == "return" else 0)
                rows.append((user_id, seen[-1], time, event))
    rows.sort(key=lambda row: row[2])
    frame = pl.DataFrame(rows, ["user_id", "item_id", "timestamp", "event"], orient="row")
    moment = pl.from_epoch("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return frame.with_columns(moment)
