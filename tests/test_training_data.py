"""Training on little and on odd data: what the data says of its events holds in the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from data_folders import write
from histories import users as histories_of
from trainings import T, all_asked, answers, check_sound, fitted, small, write_little

from recommender import runs
from recommender.batch import Question, best
from recommender.data.config import DataConfig
from recommender.data.dataset import Dataset, load
from recommender.data.split import leave_one_out
from recommender.errors import DataError, TrainingError
from recommender.models.encoder import Encoder
from recommender.models.families import FAMILIES
from recommender.models.learn import train_encoder
from recommender.models.scorer import UserInputs
from recommender.train import blueprint_of
from recommender.users import Users


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_little(tmp_path_factory.mktemp("little") / "data")


# Little data, odd data


def folder(
    path: Path, rows: list[tuple[str, str, int]], users: dict[str, str] | None = None
) -> Dataset:
    """`rows`: user, item, time."""
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frames = {"interactions": frame, "items": frame.select("item_id").unique(maintain_order=True)}
    if users:
        frames["users"] = pl.DataFrame({"user_id": list(users), "team": list(users.values())})
    return load(write(path, **frames))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_five_users_and_ten_items_are_enough(family: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{(user * 3 + item) % 10}", T + int(time))
        for user in range(5)
        for item, time in enumerate(rng.permutation(10**6)[: 2 + user])
    ]
    check_sound(fitted(folder(tmp_path / "data", rows), family=family))


@pytest.mark.parametrize("family", FAMILIES)
def test_items_that_nobody_shares_train_without_a_nan(family: str, tmp_path: Path) -> None:
    rows = [(f"u{n // 3}", f"i{n}", T + n * n * 60) for n in range(120)]
    check_sound(fitted(folder(tmp_path / "data", rows), family=family))


def test_events_at_one_moment_train(tmp_path: Path) -> None:
    rows = [(f"u{n % 30}", f"i{(n % 30 + n // 30 * 4) % 40}", T + n // 150) for n in range(300)]
    check_sound(fitted(folder(tmp_path / "data", rows)))


@pytest.mark.parametrize("clock", ["constant", "places"])
def test_without_real_times_users_without_a_history_get_what_their_like_want(
    clock: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    teams = {f"u{n}": "red" if n % 2 else "blue" for n in range(160)}
    rows = []
    for user, team in list(teams.items())[:150]:
        liked = rng.permutation(60)[:12] + (60 if team == "red" else 0)
        rows += [(user, f"{item}", T + (place if clock == "places" else 0))
                 for place, item in enumerate(liked.tolist())]  # fmt: skip
    dataset = folder(tmp_path / "data", rows, users=teams)
    assert dataset.time_kind == {"constant": "none", "places": "order"}[clock]
    run = fitted(dataset)
    items, _ = all_asked(run)
    for row in range(150, 160):
        reds = [int(run.blueprint.catalogue.item_id(int(i))) >= 60 for i in items[row, :10]]
        assert np.mean(reds) == (teams[run.users.user_ids[row]] == "red")


def test_constant_times_keep_the_order_of_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for user in range(200):
        start = int(rng.integers(30))
        rows += [(f"u{user}", f"i{(start + step) % 30}", T) for step in range(10)]
    run = fitted(folder(tmp_path / "data", rows), "training.epochs=8")
    asked = leave_one_out(run.users).test
    right = [items[0] == query.targets[0] for items, query in zip(
        answers(run, *asked)[0], asked, strict=True)]  # fmt: skip
    assert np.mean(right) > 0.9


# What the data says of its events


def test_what_was_given_back_is_read_and_never_learned_as_wanted(little: Dataset) -> None:
    returned, others = 1, list(range(2, 12))
    rng = np.random.default_rng(0)
    rows = [[(int(i), n) for n, i in enumerate(np.append(rng.permutation(others)[:4], [1, 1, 1]))]
            for _ in range(200)]  # fmt: skip
    plain = histories_of(*rows)
    plain = replace(plain, features=np.zeros((200, little.user_features.width), np.int64))
    marked = replace(plain, negative=plain.times == 6)  # the last of three times the same item
    asked = UserInputs(
        history_BL=torch.tensor([others[:4]]),
        time_BL=torch.arange(4)[None],
        weight_BL=torch.ones(1, 4),
        request_time_B1=torch.tensor([[3]]),
        features_BU=torch.zeros(1, little.user_features.width, dtype=torch.int64),
    )
    scores = []
    for users in (plain, marked):
        encoder = _encoder(little, users)
        train_encoder(encoder, users, small().training, epochs=6)
        table = encoder.item_table()
        scores.append((encoder(asked, table, last_only=True) @ table.T + encoder.bias)[0])
    assert scores[0][returned] > scores[0][others].max()
    assert scores[1][returned] < scores[1][others].min()


def _encoder(dataset: Dataset, users: Users) -> Encoder:
    torch.manual_seed(0)
    return blueprint_of("deep", users, dataset, small()).encoder()


def test_users_of_whom_nothing_is_to_be_learned_are_no_nan(little: Dataset) -> None:
    whole = histories_of([(1, 1), (2, 2)], [(3, 1), (4, 2), (5, 3)])
    whole = replace(whole, features=np.zeros((2, little.user_features.width), np.int64))
    encoder = _encoder(little, whole)
    marked = replace(whole, negative=whole.offsets[1] > np.arange(5))  # all of the first user's
    train_encoder(encoder, marked, small().training, epochs=2)
    everything = replace(whole, negative=np.ones(5, bool))
    train_encoder(encoder, everything, small().training, epochs=2)
    assert all(value.isfinite().all() for value in encoder.state_dict().values())


@pytest.fixture(scope="module")
def groceries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everybody buys three things of their own again and again."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        own = rng.permutation(30)[:3]
        for week in range(6):
            rows += [(f"u{user}", f"i{own[week % 3]}", T + week * 604_800 + user * 997)]
    path = tmp_path_factory.mktemp("groceries") / "data"
    folder(path, rows)
    return path


@pytest.mark.parametrize("repurchase", [True, False])
@pytest.mark.parametrize("family", ["deep", "popularity"])
def test_repurchase_reaches_the_run_its_metrics_and_the_answers(
    family: str, repurchase: bool, groceries: Path, tmp_path: Path
) -> None:
    dataset = load(groceries, DataConfig(repurchase=repurchase))[0]
    if not repurchase:  # each user's newest events are all repeats
        with pytest.raises(DataError, match="held out"):
            fitted(dataset, family=family)
        return
    runs.write(fitted(dataset, family=family), tmp_path / "run")
    run = runs.read(tmp_path / "run")
    assert run.blueprint.repurchase
    ids = run.users.user_ids
    seen = {}
    for name, allowed in (("as the data says", None), ("never", False), ("always", True)):
        table = best(run, ids, Question(n=30, allow_seen=allowed))
        of_user = table.filter(pl.col("user_id") == ids[0])["item_id"].to_list()
        catalogue = run.blueprint.catalogue
        had = {catalogue.item_id(int(i)) for i in run.users.history(0).items}
        seen[name] = len(had & set(of_user))
    assert seen == {"as the data says": 3, "never": 0, "always": 3}


# Trainings that come to nothing


@pytest.mark.parametrize("setting", ["training.learning_rate", "mixer.learning_rate"])
def test_a_diverged_training_is_refused_and_names_what_to_lower(
    little: Dataset, setting: str
) -> None:
    with pytest.raises(TrainingError, match=rf"diverged.*Lower it.*--set {setting}="):
        fitted(little, f"{setting}=1e8")
