"""Training learns the known answer, twice the same, and goes on where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from served import ITEMS
from trainings import all_asked, check_sound, fitted, small, write_little

from recommender import config, runs
from recommender.data.dataset import Dataset
from recommender.data.split import leave_one_out, requests
from recommender.data.synthetic import successor
from recommender.errors import BadInput, DataError, RunError
from recommender.evaluate import drop_excluded, judge, rank
from recommender.models.families import FAMILIES
from recommender.runs import Run
from recommender.train import blueprint_of, fit_run, train
from recommender.users import Users


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


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    straight: Run, little: Dataset
) -> None:
    first = straight.graph.state_dict()
    again, other = (fitted(little, f"training.seed={seed}").graph.state_dict() for seed in (0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_little(tmp_path_factory.mktemp("little") / "data")


@pytest.fixture(scope="module")
def straight(little: Dataset) -> Run:
    """A training that nothing interrupts."""
    assert little.time_kind == "real"
    return fitted(little)


@pytest.mark.parametrize("stage", ["search", "cut 1", "cut 2", "refit"])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    straight: Run, little: Dataset, tmp_path: Path, stage: str
) -> None:
    stop = f"{stage}, epoch {1 if stage == 'cut 2' else 2}"  # the second cut has one epoch only

    def interrupt(what: str, done: int, total: int) -> None:
        if what == stop and done == total // 2:
            raise KeyboardInterrupt

    recipe = small()
    with pytest.raises(KeyboardInterrupt):
        train(little, tmp_path / "run", config=recipe, progress=interrupt)
    steps = _Steps()
    resumed = train(little, tmp_path / "run", config=recipe, resume=True, progress=steps)
    assert stop in steps.seen
    assert "search, epoch 1" not in steps.seen  # what was done is not done again
    state, wanted = resumed.graph.state_dict(), straight.graph.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert resumed.metrics == straight.metrics


class _Steps:
    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, what: str, done: int, total: int) -> None:
        self.seen.add(what)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_read_back_answers_as_it_did(family: str, little: Dataset, tmp_path: Path) -> None:
    trained = fitted(little, family=family)
    runs.write(trained, tmp_path / "run")
    again = runs.read(tmp_path / "run")
    asked = requests(leave_one_out(little.users).test, little.users)[:50]
    first, second = (rank(r.graph, asked, r.blueprint.limits) for r in (trained, again))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
    assert len(again.users) == len(little.users)
    check_sound(again)


@pytest.mark.parametrize(
    "use",
    ["encoder", "ease", "ease_long,content", "popularity", "trend,age,affinity",
     "ease_long,ease,ease_recent,basket,following,similar,content,trend,popularity,age,affinity"],
)  # fmt: skip
def test_any_choice_of_signals_trains(use: str, little: Dataset, tmp_path: Path) -> None:
    trained = fitted(little, f"signals.use={use}")
    check_sound(trained)
    runs.write(trained, tmp_path / "run")
    again = runs.read(tmp_path / "run")
    assert (all_asked(again)[0] == all_asked(trained)[0]).all()


def test_what_each_signal_pays_is_measured_on_both_kinds_of_questions(little: Dataset) -> None:
    use = "signals.use=encoder,following,trend"
    details = fitted(little, use, "mixer.ablate=1").details
    kinds = ("next item", "after a cut")
    found = {(row["signal"], row["kind"]): row["difference"] for row in details["ablation"]}
    assert set(found) == {(s, kind) for s in ("encoder", "following", "trend") for kind in kinds}
    # Items follow each other in the made-up data: what follows is the signal that pays.
    assert found["following", "next item"] < -0.01
    assert set(details["cost"]) == {"encoder", "following", "trend"}
    assert [row["kind"] for row in details["alone"]] == list(kinds)
    plain = fitted(little, use).details
    assert "ablation" not in plain and "alone" not in plain


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


def test_a_run_of_another_schema_is_refused_before_it_answers(run: Run, tmp_path: Path) -> None:
    runs.write(run, tmp_path)
    path = tmp_path / "run.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema": runs.SCHEMA - 1}))
    with pytest.raises(RunError, match=f"schema {runs.SCHEMA - 1}.*reads {runs.SCHEMA}"):
        runs.read(tmp_path)


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
