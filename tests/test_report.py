"""The report says what the answers say, and the page stands alone and shows all of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from histories import users
from pages import Reader

from recommender import config, runs
from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.data.split import Split, leave_one_out, requests, temporal
from recommender.evaluate import rank
from recommender.metrics import per_query
from recommender.protocols import PROTOCOLS, evaluate, groups_of
from recommender.report import leaks
from recommender.report.charts import WIDTH, Point, Series, intervals, lines
from recommender.report.measure import Study, by_history, measure, popularity_thirds
from recommender.report.page import page
from serving.cli import run as command

FAMILIES = ("item-knn", "popularity")


@pytest.fixture(scope="module")
def reports(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reports")
    for protocol in PROTOCOLS:
        evaluate(dataset, protocol, out, families=FAMILIES, config=config.read("quick"))
    return out


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def written(reports: Path, protocol: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((reports / f"{protocol}.json").read_text())
    return content


@pytest.fixture
def split(dataset: Dataset, protocol: str) -> Split:
    return PROTOCOLS[protocol](dataset.users)


@pytest.fixture
def answers(reports: Path, protocol: str, split: Split) -> dict[str, Array]:
    asked = requests(split.test, split.train_valid)
    found = {name: runs.read(reports / "runs" / f"{protocol}-{name}") for name in FAMILIES}
    return {name: rank(run.graph, asked, run.blueprint.limits)[0] for name, run in found.items()}


def study_of(dataset: Dataset, answers: dict[str, Array], **changes: Any) -> Study:
    split = leave_one_out(dataset.users)
    study = Study(
        protocol="leave-one-out",
        queries={"all": len(split.test)},
        targets=len(split.test),
        items=len(dataset.catalogue),
        models={family: {"all": {"ndcg@10": {"mean": 0.0, "half": 0.0}}} for family in answers},
        figures=measure(
            answers,
            split.test,
            train=split.train_valid,
            catalogue=dataset.catalogue,
            groups=groups_of("leave-one-out", split),
        ),
        training={family: {} for family in answers},
        runs={family: f"REPORT_DIR/runs/leave-one-out-{family}" for family in answers},
        leaks=leaks.check(dataset, split, "leave-one-out"),
        data="digest",
        config=config.to_json(config.read("quick")),
        command="recserve evaluate DIR",
        ablation="recserve evaluate DIR --set mixer.ablate=1",
    )
    return dataclasses.replace(study, **changes)


def random_answers(dataset: Dataset, *families: str) -> dict[str, Array]:
    """Lists of distinct items, and for the first family the target on top of half of them."""
    rng = np.random.default_rng(0)
    queries = leave_one_out(dataset.users).test
    n = len(dataset.catalogue)
    given = {f: np.stack([rng.permutation(n)[:100] + 1 for _ in queries]) for f in families}
    for row in range(0, len(queries), 2):
        given[families[0]][row, 0] = queries[row].targets[0]
    return given


# What the JSON says


def test_figures_by_cutoff_are_the_metrics_of_the_runs_answers(
    written: dict[str, Any], answers: dict[str, Array], split: Split
) -> None:
    targets = [query.targets for query in split.test]
    for family, items in answers.items():
        for k in (1, 5, 10, 20, 50, 100):
            values = per_query(items, targets, k)
            for metric in ("ndcg", "hr", "recall", "mrr"):
                figure = written["figures"]["cutoffs"][family][metric][str(k)]
                spread = values[metric].std(ddof=1) / len(targets) ** 0.5
                assert figure["mean"] == pytest.approx(values[metric].mean())
                assert figure["half"] == pytest.approx(1.96 * spread)


def test_the_same_figure_is_the_same_wherever_it_stands(written: dict[str, Any]) -> None:
    figures = written["figures"]
    for family in FAMILIES:
        for group in figures["slices"]["group"]:
            assert group["models"][family] == written["models"][family][group["name"]]["ndcg@10"]
        assert figures["cutoffs"][family]["hr"]["20"] == written["models"][family]["all"]["hr@20"]
    (compared,) = [c for c in figures["comparisons"] if c["metric"] == "ndcg@10"]
    against = written["against"]["popularity"]
    assert compared["difference"] == against["mean"]
    assert (compared["high"] - compared["low"]) / 2 == against["half"]


def test_parts_by_history_length_make_up_the_whole(dataset: Dataset) -> None:
    histories = [dataset.users.history(row)[: 4 + row % 15] for row in range(len(dataset.users))]
    uneven = users(*(list(zip(h.items, h.times, strict=True)) for h in histories))
    dataset = dataclasses.replace(dataset, users=uneven)
    figures = study_of(dataset, random_answers(dataset, "good", "random")).figures
    parts = figures.slices["history length"]
    assert len(parts) == 4
    for family in ("good", "random"):
        whole = figures.cutoffs[family]["ndcg"][10].mean
        total = sum(part.queries * part.models[family].mean for part in parts)
        assert total / sum(part.queries for part in parts) == pytest.approx(whole)


def test_most_recommended_items_are_counted(
    written: dict[str, Any], answers: dict[str, Array], dataset: Dataset, split: Split
) -> None:
    for family, items in answers.items():
        shown = written["figures"]["most_shown"][family]
        assert len(shown) == 10
        for entry in shown[:3]:
            index = dataset.catalogue.index(entry["item_id"])
            assert entry["share"] == pytest.approx((items[:, :10] == index).any(axis=1).mean())
            assert entry["events"] == (split.train_valid.items == index).sum()


def test_a_family_without_worth_is_behind_in_every_resample(dataset: Dataset) -> None:
    figures = study_of(dataset, random_answers(dataset, "good", "random")).figures
    assert figures.lead is not None
    assert (figures.lead.first, figures.lead.significant) == ("good", True)
    assert [c.above for c in figures.comparisons] == [1.0, 1.0]
    behind = study_of(dataset, dict(reversed(random_answers(dataset, "good", "random").items())))
    assert behind.figures.lead == figures.lead
    assert [c.above for c in behind.figures.comparisons] == [0.0, 0.0]
    assert "yes, ahead" not in (words := Reader(page(behind)).words) and "yes, behind" in words
    assert all(c.low < c.difference < c.high for c in figures.comparisons)


def test_thirds_share_the_events_and_unseen_items_stand_apart() -> None:
    seen = [(1, t) for t in range(6)] + [(2, t) for t in range(6, 10)] + [(3, 10), (4, 11)]
    third = popularity_thirds(users(seen), items=5)
    assert third[1:].tolist() == [0, 1, 2, 2, 3]


def test_history_lengths_part_the_queries_once_each(dataset: Dataset) -> None:
    queries = temporal(dataset.users).test
    rows = np.concatenate(list(by_history(queries).values()))
    assert sorted(rows.tolist()) == list(range(len(queries)))


# The page


def test_the_page_stands_alone_and_holds_every_family(reports: Path, protocol: str) -> None:
    text = (reports / f"{protocol}.html").read_text()
    read = Reader(text)
    assert "http" not in text
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in read.seen}
    assert all(a.get("href", "#").startswith("#") for _, a in read.seen)  # type: ignore[union-attr]
    assert "url(" not in text and "@import" not in text
    order = ("Every model at a glance", "By cut-off", "Does the split", "Every figure", "Recipe")
    assert sorted(order, key=read.words.index) == list(order)
    assert {f"model-{family}" for family in FAMILIES} <= read.ids
    assert {a["href"][1:] for _, a in read.seen if a.get("href")} <= read.ids  # type: ignore[index]


def test_the_page_shows_the_figures_of_the_json(
    reports: Path, protocol: str, written: dict[str, Any]
) -> None:
    words = Reader((reports / f"{protocol}.html").read_text()).words
    for family in FAMILIES:
        for by_k in written["figures"]["cutoffs"][family].values():
            for figure in by_k.values():
                assert f"{figure['mean']:.4f} ± {figure['half']:.4f}" in words
    assert written["data"] in words
    assert all(finding["text"] in words for finding in written["leaks"])


def test_charts_have_a_name_and_tables_stand_beside_them(reports: Path) -> None:
    read = Reader((reports / "temporal.html").read_text())
    charts = [attributes for tag, attributes in read.seen if attributes.get("role") == "img"]
    assert len(charts) >= 10
    assert all(chart["aria-label"] for chart in charts)
    assert sum(tag == "table" for tag, _ in read.seen) >= 10


def test_sections_of_a_deep_run_appear_with_what_it_brings(dataset: Dataset) -> None:
    answers = random_answers(dataset, "deep", "popularity")
    plain = Reader(page(study_of(dataset, answers))).words
    details = {
        "curve": [0.1, 0.2, 0.15],
        "epochs": 2,
        "ablation": [
            {"signal": "trend", "kind": "next item",
             "ndcg@10": 0.1234, "difference": -0.0123, "half": 0.004},
            {"signal": "trend", "kind": "after a cut",
             "ndcg@10": 0.2345, "difference": -0.0234, "half": 0.005},
        ],
        "cost": {"trend": 12.5},
        "alone": [
            {"kind": "next item", "ndcg@10": 0.1357, "difference": 0.0021, "half": 0.003},
            {"kind": "after a cut", "ndcg@10": 0.2468, "difference": -0.0011, "half": 0.004},
        ],
    }  # fmt: skip
    full = Reader(page(study_of(dataset, answers, training={"deep": details}))).words
    signals = ("A signal left out: next item", "−0.0123 ± 0.0040", "−0.0234 ± 0.0050", "12.5")
    alone = ("A mixer for one kind of question alone", "+0.0021 ± 0.0030", "0.2468")
    for shown in ("best after epoch 2", *signals, *alone):
        assert shown in full
        assert shown not in plain


def test_a_winner_is_named_only_when_it_is_one(dataset: Dataset) -> None:
    answers = random_answers(dataset, "good", "random")
    assert "good ranks best" in Reader(page(study_of(dataset, answers))).words
    twins = {"one": answers["good"], "other": answers["good"]}
    assert "perhaps by chance" in Reader(page(study_of(dataset, twins))).words
    alone = Reader(page(study_of(dataset, {"good": answers["good"]}))).words
    assert "No other model was judged beside it" in alone


def test_a_failed_check_is_said_on_top(dataset: Dataset) -> None:
    found = leaks.Finding(name="a leak", verdict=leaks.FAILED, count=3, text="3 rows leak.")
    study = study_of(dataset, random_answers(dataset, "good"), leaks=(found,))
    read = Reader(page(study))
    assert "Leak check: FAILED, 1 of 1" in read.words
    assert sum(attributes.get("class") == "bad" for _, attributes in read.seen) == 2


def test_a_model_that_answers_nothing_is_said_to(dataset: Dataset) -> None:
    answers = random_answers(dataset, "good")
    answers["mute"] = np.zeros_like(answers["good"])
    assert "It recommended nothing at all" in Reader(page(study_of(dataset, answers))).words


def test_titles_are_text_whatever_they_hold(dataset: Dataset) -> None:
    titles = tuple(f"<b>{i} & </table>" for i in range(len(dataset.catalogue)))
    renamed = dataclasses.replace(dataset.catalogue, titles=titles)
    strange = dataclasses.replace(dataset, catalogue=renamed)
    words = Reader(page(study_of(strange, random_answers(strange, "good")))).words
    assert "& </table>" in words


def test_a_signal_left_out_is_shown_or_said_to_come_by_a_command(dataset: Dataset) -> None:
    answers = random_answers(dataset, "deep", "popularity")
    trained = {"deep": {"curve": [0.1, 0.2], "epochs": 2}}
    study = study_of(dataset, answers, training=trained)
    words = Reader(page(study)).words
    told = "By signal left out : not measured in this report"
    assert told in words and study.ablation in words
    assert words.index("Model by model") < words.index(told) < words.index("Does the split")
    assert told not in Reader(page(study_of(dataset, answers))).words  # nothing deep, no signals
    # One signal alone cannot be left out, though it was asked for.
    asked = config.to_json(config.read("quick", settings=["mixer.ablate=1"]))
    assert told not in Reader(page(dataclasses.replace(study, config=asked))).words


def test_the_best_run_is_exported_where_a_part_of_it_ranks_best(dataset: Dataset) -> None:
    answers = random_answers(dataset, "the encoder of it", "deep", "ease")
    answers["ease"][:, 0] = [q.targets[0] for q in leave_one_out(dataset.users).test][::-1]
    folders = {"deep": "REPORT_DIR/runs/leave-one-out-deep", "ease": "my runs/ease"}
    study = study_of(dataset, answers, runs=folders)
    reached = {family: study.figures.cutoffs[family]["ndcg"][10].mean for family in answers}
    assert max(reached, key=reached.__getitem__) == "the encoder of it"
    best = max(folders, key=reached.__getitem__)
    words = Reader(page(study)).words
    wanted = {"deep": folders["deep"], "ease": "'my runs/ease'"}
    assert f"recserve export {wanted.pop(best)}" in words
    assert f"recserve export {wanted.popitem()[1]}" not in words


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (-0.3, -0.1), (1e-5, 2e-5), (0.0, 1.0), (0.8123, 0.8124)]
)
def test_no_mark_lies_outside_its_chart(values: tuple[float, float]) -> None:
    points = [Point(mean=v, low=v - 0.01, high=v + 0.01) for v in values]
    series = [Series(name="a", points=points), Series(name="b", points=points, colour=1)]
    for chart in (
        intervals("t", ["x", "y"], series, difference=True),
        intervals("t", ["x", "y"], series[:1]),
        lines("t", ["1", "2"], series, axis="k", from_zero=False),
    ):
        height = float(chart.get("viewBox", "").split()[-1])
        for node in chart.iter():
            for name, most in (("cx", WIDTH), ("x1", WIDTH), ("x2", WIDTH), ("cy", height)):
                if name in node.attrib:
                    assert 0 <= float(node.attrib[name]) <= most


def test_labels_beside_their_marks_are_told_apart() -> None:
    rows = ["minus popularity of 0.5 days", "minus popularity of 90 days", "ease", "e" * 60]
    points = [Point(mean=1.0, low=0.5, high=1.5)] * len(rows)
    chart = intervals("t", rows, [Series(name="", points=points)], difference=True)
    shown = [node.text for node in chart.iter() if node.get("class") == "label"]
    assert shown[:3] == rows[:3]
    assert shown[3] is not None and shown[3].endswith("e…")


def test_the_command_names_the_page(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reports"
    assert command(["evaluate", str(data_folder), "--models", "popularity", "--out", str(out)]) == 0
    assert str(out / "leave-one-out.html") in capsys.readouterr().out
    assert "model-popularity" in Reader((out / "leave-one-out.html").read_text()).ids
