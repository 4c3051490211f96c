"""The cold-items protocol: what is hidden is new to training, and ranked among itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cold_data import ITEMS, recserve

from recommender import config
from recommender.cold_items import CHANCE, chance
from recommender.data.dataset import Dataset
from recommender.data.hidden import cold_items, hidden_items
from recommender.data.split import Query
from recommender.evaluate import CUTOFFS
from recommender.metrics import per_query
from recommender.protocols import divide, evaluate
from recommender.report import leaks
from recommender.users import EMPTY


def test_hidden_items_are_new_to_training_and_all_that_is_asked_for(cold_dataset: Dataset) -> None:
    users = cold_dataset.users
    split = cold_items(users)
    hidden = hidden_items(users, split)
    assert len(hidden) == ITEMS // 10
    assert not np.isin(split.train_valid.items, hidden).any()
    assert len(split.train_valid.items) == int((~np.isin(users.items, hidden)).sum())
    assert len(split.test) > 100
    for query in split.test:
        whole = users.history(query.user)
        n = len(query.history)
        assert n
        assert (query.history.items == whole.items[:n]).all()
        assert whole.items[n] in hidden
        assert query.request_time == whole.times[n - 1]
        assert set(query.targets) == set(whole.items) & set(hidden)
    again, other = cold_items(users), cold_items(users, seed=1)
    assert (hidden_items(users, again) == hidden).all()
    assert set(hidden_items(users, other)) != set(hidden)


def test_a_split_that_trains_on_hidden_items_is_refused(cold_dataset: Dataset) -> None:
    users, name = cold_dataset.users, "events of hidden items in training"
    split = cold_items(users)
    fair = leaks.check(cold_dataset, split, "cold-items")
    leaks.refuse(fair)
    assert {f.name: f.verdict for f in fair}[name] == leaks.NOTE
    broken = leaks.check(cold_dataset, replace(split, train_valid=users), "cold-items")
    assert {f.name: f.verdict for f in broken}[name] == leaks.FAILED


@pytest.mark.parametrize("candidates", [7, 30])
def test_what_a_random_order_reaches_is_what_many_random_orders_reach(candidates: int) -> None:
    rng = np.random.default_rng(0)
    targets = [np.arange(1, n + 1) for n in (1, 3, min(25, candidates))]
    queries = [Query(user=0, history=EMPTY, request_time=0, targets=t) for t in targets]
    expected = chance(queries, candidates)
    orders = np.stack([rng.permutation(candidates) + 1 for _ in range(4_000)])
    orders = np.pad(orders, ((0, 0), (0, 20)))  # 0 where there are fewer
    for row, wanted in enumerate(targets):
        for k in CUTOFFS:
            for name, found in per_query(orders, [wanted] * len(orders), k).items():
                assert expected.values[f"{name}@{k}"][row] == pytest.approx(found.mean(), abs=0.03)


def test_new_items_are_ranked_better_by_their_content_than_by_chance(
    cold_folder: Path, tmp_path: Path
) -> None:
    done = recserve("evaluate", cold_folder, "--protocol", "cold-items", "--out", tmp_path,
                    "--models", "content,popularity")  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    for said in ("differences in recall@10", "content minus it", CHANCE):
        assert said in printed
    report = json.loads((tmp_path / "cold-items.json").read_text())
    random, content = (report["models"][name]["all"] for name in (CHANCE, "content"))
    assert random["recall@10"]["mean"] == pytest.approx(10 / 15)
    assert random["coverage@10"]["mean"] == pytest.approx(1)
    assert content["ndcg@10"]["mean"] > 1.2 * random["ndcg@10"]["mean"]
    gap = report["against"][CHANCE]
    assert gap["mean"] - gap["half"] > 0
    assert set(report["against"]) == {"popularity", CHANCE}
    page = (tmp_path / "cold-items.html").read_text()
    assert "A random order finds 10 / 15 of them" in page


def test_a_server_is_not_asked_to_rank_the_hidden_items_alone(
    cold_folder: Path, tmp_path: Path
) -> None:
    done = recserve("evaluate", cold_folder, "--protocol", "cold-items", "--out", tmp_path,
                    "--through", "grpc://127.0.0.1:31300")  # fmt: skip
    assert done.returncode == 2
    assert "cold-items ranks the hidden items alone" in done.stderr


def test_another_draw_hides_other_items_and_other_protocols_draw_nothing(
    cold_dataset: Dataset, cold_folder: Path, tmp_path: Path
) -> None:
    first, second = (
        hidden_items(cold_dataset.users, divide(cold_dataset, "cold-items", draw))
        for draw in (0, 1)
    )
    assert set(first) != set(second)
    done = recserve("evaluate", cold_folder, "--out", tmp_path, "--protocol", "leave-one-out",
                    "--draw", "1", "--models", "popularity")  # fmt: skip
    assert done.returncode == 2
    assert "draw is 1, and leave-one-out draws nothing" in done.stderr


def test_each_seed_hides_other_items_and_the_mean_is_that_of_users(
    cold_dataset: Dataset, cold_folder: Path, tmp_path: Path
) -> None:
    done = recserve("evaluate", cold_folder, "--protocol", "cold-items", "--out", tmp_path,
                    "--models", "content,popularity", "--draw", "1", "--seeds", "2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[int, list[float]] = {}  # recall@10 of each user who is asked
    for seed, draw in enumerate((1, 2)):
        alone = evaluate(
            cold_dataset, "cold-items", tmp_path / "alone", families=("content", "popularity"),
            config=config.read(settings=[f"training.seed={seed}"]), draw=draw,
        )  # fmt: skip
        of_seed = json.loads((tmp_path / f"seed-{seed}" / "cold-items.json").read_text())
        assert (of_seed["draw"], of_seed["models"]) == (draw, alone.models)
        judged = alone.judged["content"]
        for user, value in zip(judged.users, judged.values["recall@10"], strict=True):
            found.setdefault(user, []).append(value)
    assert {len(values) for values in found.values()} == {1, 2}
    mean = json.loads((tmp_path / "cold-items-seeds.json").read_text())
    assert mean["queries"] == {"all": len(found)}
    of_users = np.mean([np.mean(values) for values in found.values()])
    assert mean["models"]["content"]["all"]["recall@10"]["mean"] == pytest.approx(of_users)
