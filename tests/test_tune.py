"""Tuning begins from the recipe given, never sees a test row, goes on where it stopped, and
proposes only what earns it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trainings import small
from tunings import BASE, EFFORT, QUICK, Steps, outcome, search

from recommender import config
from recommender.contract import Array
from recommender.data.config import DataConfig
from recommender.data.dataset import Dataset, load
from recommender.data.split import Query, leave_one_out, temporal
from recommender.data.synthetic import write_synthetic
from recommender.data.timing import NONE, REAL
from recommender.errors import BadInput, DataError, RunError, TrainingError
from recommender.models.mix import UNTOUCHED
from recommender.tune import BEST, FIGURES, PAGE
from recommender.tuning.score import WITHHELD, Bench, Score, allowed_rows, tidy
from recommender.tuning.space import changed, space_of, to_toml
from recommender.tuning.trials import Journal, Trial
from recommender.tuning.verdict import Finalist, Tuned
from recommender.users import Users
from serving.cli import run as recserve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "data"
    write_synthetic(folder, users=60, items=40, events=900, seed=5)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return load(folder)[0]


@pytest.fixture(scope="module")
def straight_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("straight") / "tuned"


@pytest.fixture(scope="module")
def straight(data: Dataset, straight_folder: Path) -> Tuned:
    """A search that nothing interrupts."""
    return search(data, straight_folder)


def test_the_first_trial_is_the_recipe_given(straight: Tuned) -> None:
    first, *others = straight.trials
    assert changed(BASE, first.settings) == BASE
    assert all(changed(BASE, trial.settings) != BASE for trial in others)
    assert straight.finals[0].trial == 0


def test_both_kinds_of_questions_are_answered_well_where_the_answer_is_known(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Of a catalogue large enough that the mixer also learns from hidden items, which are none of
    the questions."""
    bench = Bench(dataset, allowed_rows(dataset, "both"), tmp_path)
    score = bench.score(BASE)
    assert score.next_item > 0.7
    assert score.window is not None and score.window > 0.7


@pytest.mark.parametrize(
    ("name", "value"), [("mixer.epochs", 3), ("signals.ridge", 0.5), ("mixer.cut_epochs", 12)]
)
def test_what_trials_share_changes_no_score(
    straight: Tuned, data: Dataset, tmp_path: Path, name: str, value: float
) -> None:
    """A mixer, tables or encoders made anew: as if the recipe before had never been."""
    users = allowed_rows(data, "both")
    shared = Bench(data, users, tmp_path / "shared")
    assert shared.score(BASE) == straight.trials[0].score
    other = changed(BASE, {name: value})
    assert shared.score(other) == Bench(data, users, tmp_path / "fresh").score(other)
    assert shared.score(other) != straight.trials[0].score
    tidy(tmp_path / "shared", [other])
    assert len(list((tmp_path / "shared").iterdir())) == 1  # encoders of the last recipe alone


@pytest.mark.parametrize("stop", ["trial 1 of 3, cut 1, epoch 1", "trial 2 of 3, mixer"])
def test_an_interrupted_search_goes_on_to_the_same_trials(
    straight: Tuned, data: Dataset, tmp_path: Path, stop: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(data, tmp_path / "tuned", progress=Steps(stop))
    steps = Steps()
    resumed = search(data, tmp_path / "tuned", resume=True, progress=steps)
    assert stop in steps.seen
    done_before = [s for s in steps.seen if s.startswith("trial 1 of 3") and "search" in s]
    assert not done_before
    assert outcome(resumed) == outcome(straight)
    assert resumed.finals == straight.finals


def test_a_finished_search_can_be_made_longer_and_repeats_nothing(
    straight: Tuned, straight_folder: Path, data: Dataset, tmp_path: Path
) -> None:
    folder, steps = shutil.copytree(straight_folder, tmp_path / "tuned"), Steps()
    assert outcome(search(data, folder, resume=True, progress=steps)) == outcome(straight)
    assert not steps.seen
    longer = search(data, folder, resume=True, effort=replace(EFFORT, trials=4))
    assert outcome(longer)[:3] == outcome(straight)
    assert len({json.dumps(dict(trial.settings)) for trial in longer.trials}) == 4


def test_no_trial_starts_after_the_minutes_but_the_base_is_always_tried(
    data: Dataset, tmp_path: Path
) -> None:
    tuned = search(data, tmp_path / "tuned", effort=replace(EFFORT, minutes=0.0))
    assert [trial.number for trial in tuned.trials] == [0]
    assert tuned.best == BASE
    assert "it stays" in tuned.verdict


@pytest.mark.parametrize("changed", ["data", "recipe", "space", "protocol"])
def test_a_folder_begun_otherwise_is_refused(
    straight: Tuned, straight_folder: Path, data: Dataset, tmp_path: Path, changed: str
) -> None:
    more: dict[str, object] = {"resume": True}
    if changed == "data":
        write_synthetic(tmp_path / "other", users=60, items=40, events=900, seed=6)
        data = load(tmp_path / "other")[0]
    elif changed == "recipe":
        more["config"] = small(*QUICK, "encoder.dropout=0.3")
    elif changed == "space":
        more["only"] = ["mixer.epochs"]
    else:
        more["protocol"] = "temporal"
    with pytest.raises(RunError, match=f"another {changed}"):
        search(data, straight_folder, **more)


def test_a_taken_folder_is_refused(
    straight: Tuned, straight_folder: Path, data: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="--resume"):
        search(data, straight_folder)
    (tmp_path / "something").write_text("mine")
    with pytest.raises(RunError, match="no search"):
        search(data, tmp_path, resume=True)


@pytest.mark.parametrize("protocol", WITHHELD)
def test_no_test_row_is_among_the_allowed(data: Dataset, protocol: str) -> None:
    rows = allowed_rows(data, protocol)
    for name, split in (("leave-one-out", leave_one_out), ("temporal", temporal)):
        asked = split(data.users).test
        assert asked
        if protocol in (name, "both"):
            assert not any(np.isin(q.targets, known(rows, q)).any() for q in asked)
    assert len(rows.items) > 0.7 * len(data.users.items)


def known(users: Users, query: Query) -> Array:
    return users.history(query.user).items


def test_scores_do_not_change_with_what_the_test_rows_hold(
    straight: Tuned, data: Dataset, tmp_path: Path
) -> None:
    users, items = data.users, data.users.items.copy()
    rows = allowed_rows(data, "both")
    for user, known in enumerate(rows.histories()):
        # Of one user other items, and repeats where repeats were: the same rows are tested.
        others = np.setdiff1d(np.arange(1, len(data.catalogue) + 1), known.items)
        tested = slice(int(users.offsets[user]) + len(known), int(users.offsets[user + 1]))
        new = np.isin(items[tested], others)
        items[tested][new] = np.roll(others, 1)[np.searchsorted(others, items[tested][new])]
    assert (items != users.items).sum() >= len(users)
    other = replace(data, users=replace(users, items=items))
    assert outcome(search(other, tmp_path / "tuned")) == outcome(straight)


def test_made_up_time_is_tuned_by_next_items_alone(data: Dataset, tmp_path: Path) -> None:
    users = replace(data.users, times=np.full_like(data.users.times, 1_700_000_000))
    timeless = replace(data, users=users, time_kind=NONE)
    effort = replace(EFFORT, trials=1)
    tuned = search(timeless, tmp_path / "tuned", effort=effort)
    assert tuned.protocol == "leave-one-out"
    assert tuned.trials[0].score.window is None
    assert tuned.trials[0].score.value == tuned.trials[0].score.next_item
    with pytest.raises(DataError, match="no moment to cut at"):
        search(timeless, tmp_path / "both", effort=effort, protocol="both")


def test_best_toml_is_the_recipe_chosen_and_train_takes_it(
    straight: Tuned, straight_folder: Path, folder: Path, tmp_path: Path
) -> None:
    best = straight_folder / BEST
    assert config.read(file=best) == straight.best
    assert recserve(["train", str(folder), "--config", str(best), "--out", str(tmp_path)]) == 0
    recipe = json.loads((tmp_path / "run.json").read_text())["config"]
    assert config.from_json(recipe) == straight.best


def test_page_and_figures_hold_every_trial_and_seed(straight: Tuned, straight_folder: Path) -> None:
    figures = json.loads((straight_folder / FIGURES).read_text())
    page = (straight_folder / PAGE).read_text()
    assert [t["trial"] for t in figures["trials"]] == [t.number for t in straight.trials]
    for trial in straight.trials:
        assert f"{trial.score.value:.4f}" in page
        assert f"trial {trial.number}, at " in page  # its mark in the plots
    for finalist in straight.finals:
        assert all(f"{score.value:.4f}" in page for score in finalist.scores)
    assert straight.verdict in page
    assert all(setting.why in page for setting in straight.space)
    assert "<script" not in page
    assert "http" not in page


def finalist(*gains: float) -> Finalist:
    base = [Score(next_item=value, window=None) for value in (0.10, 0.20, 0.30)]
    found = [
        Score(next_item=b.next_item + g, window=None) for b, g in zip(base, gains, strict=True)
    ]
    return Finalist.of(1, found, base)


@pytest.mark.parametrize(
    ("gains", "earned"),
    [
        ((0.010, 0.011, 0.012), True),  # far less than the seeds differ, but with every one of them
        ((0.030, -0.010, 0.004), False),
        ((-0.010, -0.011, -0.012), False),
        ((0.0, 0.0, 0.0), False),
    ],
)
def test_a_gain_is_worth_it_beyond_its_spread(
    straight: Tuned, gains: tuple[float, ...], earned: bool
) -> None:
    leader = finalist(*gains)
    tuned = replace(straight, finals=(finalist(0, 0, 0), leader), seeds=(1, 2, 3))
    assert leader.gain == pytest.approx(np.mean(gains))
    assert leader.gain_spread == pytest.approx(np.std(gains, ddof=1))
    assert leader.earned is earned
    assert (tuned.best != BASE) is earned
    assert tuned.verdict.startswith("Proposed" if earned else "The recipe given stays")


def test_after_a_recipe_that_diverged_others_are_scored_as_ever(
    straight: Tuned, data: Dataset, tmp_path: Path
) -> None:
    bench = Bench(data, allowed_rows(data, "both"), tmp_path / "encoders")
    assert bench.score(BASE) == straight.trials[0].score
    with pytest.raises(TrainingError):
        bench.score(changed(BASE, {"training.learning_rate": 1e30}))
    assert bench.score(BASE) == straight.trials[0].score


def test_a_base_that_diverges_is_refused(data: Dataset, tmp_path: Path) -> None:
    recipe = small(*QUICK, "mixer.learning_rate=1e8", "mixer.epochs=3")
    with pytest.raises(TrainingError, match="the recipe given"):
        search(data, tmp_path / "tuned", config=recipe)


def test_the_search_ends_where_every_recipe_was_tried(tmp_path: Path) -> None:
    (epochs,) = space_of(BASE, "all", ["mixer.epochs"])
    journal = Journal(tmp_path / "journal.log", [epochs], 0)
    proposed = []
    while (settings := journal.propose()) is not None:
        proposed.append(settings["mixer.epochs"])
        score = Score(next_item=0.1, window=None)
        journal.add(Trial(number=len(proposed), settings=settings, score=score, seconds=0.0))
    assert len(proposed) == len(set(proposed)) > 4
    assert set(proposed) <= set(range(int(epochs.low), int(epochs.high) + 1))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--space", "everything"], "'everything' does not exist"),
        (["--only", "mixer.speed"], "'mixer.speed' cannot be tuned"),
        (["--protocol", "sometimes"], "'sometimes' does not exist"),
        (["--seeds", "1"], "--seeds"),
        (["--jobs", "0"], "--jobs"),
        (["--set", "signals.use=ease", "--space", "encoder"], "no encoder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_named(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: str,
) -> None:
    assert recserve(["tune", str(folder), "--out", str(tmp_path / "tuned"), *arguments]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()


def test_the_command_prints_what_it_found(
    straight: Tuned,
    straight_folder: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = straight_folder.parent / "base.toml"
    recipe.write_text(to_toml(BASE, DataConfig(), ""))
    command = [
        "tune", str(folder), "--out", str(straight_folder), "--config", str(recipe),
        "--trials", "3", "--seeds", "2", "--finalists", "1", "--resume",
    ]  # fmt: skip
    assert recserve(command) == 0
    printed = capsys.readouterr().out
    assert "trial 0 is the recipe given" in printed
    assert str(straight_folder / BEST) in printed
    assert recserve([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (straight_folder / FIGURES).read_text()
    )


def test_an_unknown_protocol_is_refused(data: Dataset) -> None:
    with pytest.raises(BadInput, match="both"):
        allowed_rows(data, "none")


def test_the_window_asks_what_came_after_the_last_cut(tmp_path: Path) -> None:
    """And not for the items that a training hides, where the catalogue has a hundred."""
    write_synthetic(tmp_path / "data", users=60, items=120, events=2000, seed=2)
    data = load(tmp_path / "data")[0]
    assert data.time_kind == REAL
    bench = Bench(data, data.users, tmp_path / "encoders")
    bench.score(BASE)
    hidden = bench._views[-1]
    assert hidden.kind == UNTOUCHED
    bench._views[-1] = hidden.part(np.zeros(len(hidden.queries), bool))  # nobody asks for them
    window = bench.score(BASE).window
    assert window is not None
    assert window > 0
