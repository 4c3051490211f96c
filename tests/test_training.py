"""Training learns the known answer, twice the same, and goes on where it was interrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from served import ITEMS

from recommender import config, runs
from recommender.data.dataset import Dataset
from recommender.data.split import leave_one_out, requests
from recommender.data.synthetic import successor
from recommender.errors import BadInput, DataError, RunError
from recommender.evaluate import drop_excluded, judge, rank
from recommender.models.families import FAMILIES
from recommender.models.learn import train_encoder
from recommender.runs import Run
from recommender.train import blueprint_of, fit_run, train
from recommender.users import Users

SMALL = ("training.epochs=3", "encoder.width=16", "encoder.layers=1", "training.batch=32")


def test_the_deep_model_learns_that_items_follow_each_other(run: Run, dataset: Dataset) -> None:
    split = leave_one_out(dataset.users)
    items, _ = rank(run.graph, requests(split.test, split.train_valid), run.blueprint.limits)
    right = [
        dataset.catalogue.item_id(int(items[row, 0]))
        == successor(dataset.catalogue.item_id(int(query.history.items[-1])), ITEMS)
        for row, query in enumerate(split.test)
    ]
    assert np.mean(right) > 0.6


def test_held_out_metrics_beat_popularity(run: Run, dataset: Dataset) -> None:
    blueprint = blueprint_of("popularity", dataset.users, dataset, run.blueprint.config)
    popularity = fit_run(blueprint, dataset.users, dataset)
    assert run.metrics["ndcg@10"]["mean"] > 3 * popularity.metrics["ndcg@10"]["mean"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(dataset: Dataset) -> None:
    first, again, other = (_state(dataset, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def _state(dataset: Dataset, seed: int) -> dict[str, torch.Tensor]:
    recipe = config.read("quick", settings=[*SMALL, f"training.seed={seed}"])
    blueprint = blueprint_of("deep", dataset.users, dataset, recipe)
    return dict(fit_run(blueprint, dataset.users, dataset).graph.state_dict())


def test_an_interrupted_training_goes_on_to_the_same_weights(
    dataset: Dataset, tmp_path: Path
) -> None:
    recipe = config.read("quick", settings=SMALL).training
    blueprint = blueprint_of("deep", dataset.users, dataset, config.read("quick", settings=SMALL))

    def encoder(stop_at: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        one = blueprint.encoder()
        checkpoint = tmp_path / "checkpoint.pt"
        seen = 0

        def progress(what: str, done: int, total: int) -> None:
            nonlocal seen
            seen += 1
            if stop_at is not None and seen == stop_at:
                raise KeyboardInterrupt

        train_encoder(
            one, dataset.users, recipe, epochs=3, checkpoint=checkpoint, progress=progress
        )
        return dict(one.state_dict())

    with pytest.raises(KeyboardInterrupt):
        encoder(stop_at=17)  # in the middle of the second epoch
    assert (tmp_path / "checkpoint.pt").exists()
    resumed = encoder(stop_at=None)
    (tmp_path / "checkpoint.pt").unlink()
    straight = encoder(stop_at=None)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_read_back_answers_as_it_did(family: str, dataset: Dataset, tmp_path: Path) -> None:
    blueprint = blueprint_of(family, dataset.users, dataset, config.read("quick", settings=SMALL))
    trained = fit_run(blueprint, dataset.users, dataset)
    runs.write(trained, tmp_path / "run")
    again = runs.read(tmp_path / "run")
    asked = requests(leave_one_out(dataset.users).test, dataset.users)[:50]
    first, second = (rank(r.graph, asked, r.blueprint.limits) for r in (trained, again))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
    assert len(again.users) == len(dataset.users)


def test_a_run_folder_is_never_overwritten(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="finished run"):
        runs.check_free(run_folder, resume=False)
    (tmp_path / "something").write_text("mine")
    with pytest.raises(RunError, match="--resume"):
        runs.check_free(tmp_path, resume=False)
    with pytest.raises(RunError, match="no training to resume"):
        runs.begin(tmp_path, family="deep", config=config.read(), digest="", resume=True)


def test_resuming_a_finished_training_gives_it_back(
    run_folder: Path, run: Run, dataset: Dataset
) -> None:
    again = train(dataset, run_folder, config=run.blueprint.config, resume=True)
    assert again.details == run.details


@pytest.mark.parametrize("changed", ["recipe", "data"])
def test_resuming_with_another_recipe_or_other_data_is_refused(
    tmp_path: Path, changed: str
) -> None:
    runs.begin(tmp_path, family="deep", config=config.read(), digest="a", resume=False)
    recipe = config.read(settings=["training.seed=7"]) if changed == "recipe" else config.read()
    digest = "b" if changed == "data" else "a"
    with pytest.raises(RunError, match="other data or with another recipe"):
        runs.begin(tmp_path, family="deep", config=recipe, digest=digest, resume=True)


@pytest.mark.parametrize("damage", ["weights.pt", "catalogue.parquet", "users.parquet", "run.json"])
def test_a_damaged_run_is_refused_in_one_line(run: Run, tmp_path: Path, damage: str) -> None:
    runs.write(run, tmp_path)
    content = (tmp_path / damage).read_bytes()
    (tmp_path / damage).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="broken") as refusal:
        runs.read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_an_unfinished_run_is_told_from_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        runs.read(tmp_path)
    (tmp_path / "checkpoint-search.pt").touch()
    with pytest.raises(RunError, match="--resume"):
        runs.read(tmp_path)


def test_data_without_pairs_of_events_is_refused(dataset: Dataset) -> None:
    users = dataset.users
    lonely = Users(
        user_ids=users.user_ids,
        features=users.features,
        offsets=np.arange(len(users) + 1),
        items=users.items[users.offsets[:-1]],
        times=users.times[users.offsets[:-1]],
        weights=users.weights[users.offsets[:-1]],
    )
    blueprint = blueprint_of("popularity", lonely, dataset, config.read())
    with pytest.raises(DataError, match="held out"):
        fit_run(blueprint, lonely, dataset)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["training.epochs=many"], "training.epochs"),
        (["training.speed=1"], "training.speed"),
        (["epochs=1"], "section.key=value"),
        (["optimiser.name=sgd"], "optimiser"),
        (["training.epochs=-1"], "training.epochs"),
    ],
)
def test_a_wrong_setting_is_named(settings: list[str], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        config.read("quick", settings=settings)


def test_excluded_items_beyond_e_are_dropped_and_the_rest_moves_up() -> None:
    item, score = np.array([4, 7, 2, 9]), np.array([4, 3, 2, 1], np.float32)
    drop_excluded(item, score, np.array([7, 4]))
    assert item.tolist() == [2, 9, 0, 0]
    assert score.tolist() == [2, 1, -np.inf, -np.inf]


def test_judging_keeps_queries_and_answers_together(dataset: Dataset) -> None:
    queries = leave_one_out(dataset.users).test[:5]
    perfect = np.zeros((5, 20), np.int64)
    perfect[:, 0] = [q.targets[0] for q in queries]
    judged = judge(perfect, queries, len(dataset.catalogue))
    assert (judged.values["ndcg@10"] == 1).all()
    assert (judge(perfect[::-1], queries, 10).values["ndcg@10"] < 1).any()
