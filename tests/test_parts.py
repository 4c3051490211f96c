"""What a deep model is compared with in every report is what its names say: the encoder alone,
the equal-weight fusion, recent popularity. Each is computed by hand beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import by_hand
import numpy as np
import pytest
import torch
from histories import users as users_of
from trainings import fitted, small, write_little

from recommender import protocols, runs
from recommender.batch import Question, request_of
from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.data.split import requests, temporal
from recommender.features import Request, tensors
from recommender.models.deep import Deep
from recommender.models.graph import answer
from recommender.models.parts import ENCODER, FUSION, parts
from recommender.models.scorer import USER_INPUTS, UserInputs
from recommender.protocols import Report
from recommender.runs import Run
from recommender.users import Users

DAY = 86_400
DAYS = (0.5, 2.0, 7.0, 30.0, 90.0)  # of the default recipe


def inputs_of(run: Run, asked: list[Request]) -> UserInputs:
    """What a scorer of the run gets, cleaned by its graph."""
    arrays = tensors(asked, run.blueprint.limits)
    return run.graph.user(*(torch.from_numpy(arrays[name]) for name in USER_INPUTS))


@pytest.fixture(scope="module")
def asked(run: Run) -> list[Request]:
    """Some users at their last event, one years later, and a stranger."""
    end = int(run.users.times.max())
    ids = [*run.users.user_ids[:8], "nobody"]
    late = request_of(run, ids[0], Question(at=end + 30 * DAY), end)
    return [*(request_of(run, user_id, Question(), end) for user_id in ids), late]


@pytest.fixture(scope="module")
def user(run: Run, asked: list[Request]) -> UserInputs:
    assert {len(request.history) for request in asked} > {0}
    return inputs_of(run, asked)


@pytest.fixture(scope="module")
def visitors() -> Users:
    """Some with long visits, whose late events count less elsewhere, and one who sends back."""
    long = [(1 + i % 3, 100 * i) for i in range(40)]
    rows = users_of(long, [(5, DAY), (6, 40 * DAY)], [(7, 90 * DAY)], [(2, DAY), (8, 2 * DAY)])
    return replace(rows, negative=np.arange(len(rows.items)) == len(rows.items) - 2)


# Each part by itself


def test_the_encoder_alone_says_its_logits_by_hand(run: Run, user: UserInputs) -> None:
    assert set(range(1, run.blueprint.items)) == set(run.users.items)  # nothing in another's place
    alone = parts(run.blueprint, run.users, run.graph, trends=False)[ENCODER]
    logits = by_hand.encoder_logits(run, user)
    assert logits.std() > 0.5
    np.testing.assert_allclose(alone.scorer(user).numpy(), logits, atol=1e-3)


def test_a_part_answers_with_its_best_items_that_the_user_has_not_had(
    run: Run, asked: list[Request], user: UserInputs
) -> None:
    alone = parts(run.blueprint, run.users, run.graph, trends=False)[ENCODER]
    limits = run.blueprint.limits
    given = answer(alone, tensors(asked, limits), limits)
    for row, logits in enumerate(by_hand.encoder_logits(run, user)):
        logits[[0, *asked[row].history.items]] = -np.inf
        best = np.sort(logits)[::-1][:10]
        np.testing.assert_allclose(logits[given["item"][row, :10]], best, atol=1e-3)
        np.testing.assert_allclose(given["score"][row, :10], best, atol=1e-3)


def test_the_fusion_is_the_sum_of_four_signals_of_equal_weight(
    run: Run, user: UserInputs, visitors: Users
) -> None:
    found = parts(run.blueprint, visitors, run.graph, trends=False)[FUSION].scorer(user).numpy()
    counted = by_hand.counts(visitors, run.blueprint.items)
    assert counted[1] == 14 and counted[2] == 13 and counted[8] == 1
    said = [
        by_hand.encoder_logits(run, user),
        by_hand.table_says(run, user, "ease"),
        by_hand.table_says(run, user, "similar"),
        np.tile(np.log(counted + 0.5), (len(found), 1)),
    ]
    stranger = len(user.history_BL) - 2
    assert not said[1][stranger].any() and not said[2][stranger].any()
    summed = sum(by_hand.in_spreads(one) for one in said)
    np.testing.assert_allclose(found, summed, atol=2e-3)


@pytest.mark.parametrize("days", DAYS)
def test_recent_popularity_counts_every_event_once_and_lets_it_decay(
    run: Run, user: UserInputs, visitors: Users, days: float
) -> None:
    rule = parts(run.blueprint, visitors, run.graph, trends=True)[f"popularity of {days:g} days"]
    start, end = int(visitors.times.min()), int(visitors.times.max())
    step = int(rule.scorer.tables.trend_step)
    assert step <= (end - start) / 800 + 1  # how old what is read may be
    moments = [start, start + 3_000, start + DAY, start + 41 * DAY, end, end + step]
    for moment in moments:
        # tabulated: the last moment not after the request, and nothing of that moment itself
        read = start + min((moment - start) // step, (end + 1 - start) // step + 1) * step
        decayed = by_hand.decayed_counts(visitors, run.blueprint.items, read, days * DAY)
        logs = np.log(decayed + 0.5)
        now = user._replace(request_time_B1=torch.full_like(user.request_time_B1, moment))
        said = rule.scorer(now).numpy()
        np.testing.assert_allclose(said[0], logs - logs[1:].mean(), atol=0.01)
        assert (said == said[0]).all()  # the same for everybody


def test_a_short_half_life_prefers_what_is_new_and_a_long_one_what_is_frequent(
    run: Run, user: UserInputs, visitors: Users
) -> None:
    found = parts(run.blueprint, visitors, run.graph, trends=True)
    now = user._replace(request_time_B1=torch.full_like(user.request_time_B1, 91 * DAY))
    best = {
        days: int(found[f"popularity of {days:g} days"].scorer(now)[0].argmax()) for days in DAYS
    }
    assert best[0.5] == 7 and best[90.0] == 1


# Which parts there are, and what a report makes of them


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_little(tmp_path_factory.mktemp("little") / "data")


def test_only_a_deep_model_has_parts_and_only_those_it_is_made_of(
    run: Run, little: Dataset
) -> None:
    assert list(parts(run.blueprint, run.users, run.graph, trends=False)) == [ENCODER, FUSION]
    rules = [f"popularity of {days:g} days" for days in DAYS]
    assert list(parts(run.blueprint, run.users, run.graph, trends=True)) == [
        *(ENCODER, FUSION),
        *rules,
    ]
    blind = fitted(little, "signals.use=ease,popularity")
    assert list(parts(blind.blueprint, blind.users, blind.graph, trends=True)) == rules
    ease = fitted(little, family="ease")
    assert not isinstance(ease.graph.scorer, Deep)
    assert parts(ease.blueprint, ease.users, ease.graph, trends=True) == {}


@pytest.fixture(scope="module")
def report(little: Dataset, reports: Path) -> Report:
    recipe = small("signals.use=encoder,ease,similar,trend")
    return protocols.evaluate(little, "temporal", reports, families=["deep"], config=recipe)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


def test_a_report_judges_parts_by_the_same_questions_and_the_rows_of_the_training(
    report: Report, reports: Path, little: Dataset
) -> None:
    split = temporal(little.users)
    run, known = runs.read(reports / "runs" / "temporal-deep"), split.train_valid
    asked = requests(split.test, known)
    user, items = inputs_of(run, asked), run.blueprint.items
    logits = by_hand.encoder_logits(run, user)
    popularity = np.tile(np.log(by_hand.counts(known, items) + 0.5), (len(asked), 1))
    tables = [by_hand.table_says(run, user, head) for head in ("ease", "similar")]
    moment = split.test[0].request_time
    by_name = {
        ENCODER: logits,
        FUSION: sum(by_hand.in_spreads(said) for said in (logits, *tables, popularity)),
        "popularity of 7 days": np.tile(
            by_hand.decayed_counts(known, items, moment, 7 * DAY), (len(asked), 1)
        ),
    }
    deep = report.judged["deep"].values["ndcg@10"]
    for name, scores in by_name.items():
        by_query = [
            _ndcg(row, query.history.items, query.targets)
            for row, query in zip(scores, split.test, strict=True)
        ]
        values = report.judged[name].values["ndcg@10"]
        # Near ties may fall either way, of trends most: they are tabulated by the moment.
        same = np.mean(np.abs(values - by_query) < 1e-6)
        assert same > (0.8 if "popularity" in name else 0.97), name
        assert values.mean() == pytest.approx(np.mean(by_query), abs=0.02)
        assert report.against[name]["mean"] == pytest.approx((deep - values).mean())


def _ndcg(scores: Array, had: Array, wanted: Array) -> float:
    scores = scores.copy()
    scores[[0, *had]] = -np.inf
    best = np.argsort(-scores, kind="stable")[:10]
    gain = 1 / np.log2(np.arange(2, 12))
    return float(np.isin(best, wanted) @ gain / gain[: min(len(wanted), 10)].sum())
