"""Explanations: the score taken apart, exactly, and put into words that are true."""

from __future__ import annotations

import json
import os
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.parity import check_parity
from export.to_onnx import write_onnx
from recommender import config
from recommender.batch import Question, request_of
from recommender.config import HEADS
from recommender.contract import EXPLAINER, Array
from recommender.data.dataset import Dataset
from recommender.data.synthetic import successor
from recommender.errors import NotFound
from recommender.explain import explain
from recommender.features import tensors
from recommender.models.beside import modules
from recommender.models.deep import Deep
from recommender.models.explain import Explainer, signal_names, take_apart
from recommender.models.graph import Graph, answer
from recommender.models.scorer import UserInputs
from recommender.models.signals import Reading
from recommender.reasons import Wording
from recommender.runs import Run
from recommender.train import blueprint_of, fit_run
from serving.cli import run as recserve

STRANGER, NOTHING = "nobody", "Nothing speaks for it in particular."
ITEMS = 150
T = 1_700_000_000
LESS = ("ease_long", "following", "trend", "age")  # signals of a smaller deep model


def _asked(run: Run, rows: range | list[int], length: int | None = None) -> dict[str, Array]:
    """Some known users and a stranger."""
    end = int(run.users.times.max())
    ids = [*(run.users.user_ids[row] for row in rows), STRANGER]
    asked = [request_of(run, user_id, Question(), end) for user_id in ids]
    return tensors(asked, run.blueprint.limits, length=length)


def _stirred(graph: Graph) -> Graph:
    """The graph with a mixer of far stronger gates and interactions than it learned."""
    stirred = deepcopy(graph)
    torch.manual_seed(1)
    with torch.no_grad():
        mixer = stirred.scorer.mixer
        for parameter in (mixer.gate.weight, *mixer.first.parameters(), mixer.second.weight):
            parameter.normal_(std=0.5)
    return stirred


@pytest.fixture(scope="module")
def stirred(run: Run) -> Run:
    return replace(run, graph=_stirred(run.graph))


@pytest.fixture(scope="module")
def less(run: Run) -> Run:
    """A deep run without encoder and most signals: tables counted, mixer not trained."""
    signals = replace(run.blueprint.config.signals, use=LESS)
    blueprint = replace(run.blueprint, config=replace(run.blueprint.config, signals=signals))
    graph = blueprint.graph(blueprint.deep(run.users, None, blueprint.mixer()))
    return replace(run, blueprint=blueprint, graph=_stirred(graph))


@pytest.fixture(scope="module", params=["ease", "item-knn", "content", "popularity"])
def counted(request: pytest.FixtureRequest, dataset: Dataset) -> Run:
    blueprint = blueprint_of(request.param, dataset.users, dataset, config.read())
    return fit_run(blueprint, dataset.users, dataset)


def _check_sums(run: Run) -> None:
    asked = _asked(run, range(40))
    answered = answer(run.graph, asked, run.blueprint.limits)
    signal, value, share = take_apart(Explainer(run.graph), asked, answered["item"])
    names = signal_names(run.blueprint)
    assert signal.shape == value.shape == (*answered["item"].shape, len(names))
    assert share.shape == (*answered["item"].shape, asked["history"].shape[1])
    some = answered["item"] > 0
    assert np.abs(signal.sum(axis=2) - answered["score"])[some].max() < 1e-4
    read = [position for position, name in enumerate(names) if name in HEADS]
    assert np.abs(share.sum(axis=2) - signal[:, :, read].sum(axis=2)).max() < 1e-4
    assert (signal[-1][:, read] == 0).all()  # nobody's history says nothing
    padding = np.broadcast_to((asked["history"] == 0)[:, None], share.shape)
    assert not share[padding].any()


@pytest.mark.parametrize("which", ["run", "stirred", "less"])
def test_signals_add_up_to_the_score_and_events_to_what_reads_the_history(
    which: str, request: pytest.FixtureRequest
) -> None:
    _check_sums(request.getfixturevalue(which))


def test_so_they_do_in_every_family(counted: Run) -> None:
    _check_sums(counted)


def test_the_part_of_an_event_is_what_its_table_says_for_it_alone(less: Run) -> None:
    asked = _asked(less, [3])
    candidates = np.tile(np.arange(1, ITEMS + 1), (2, 1))
    signal, value, share = take_apart(Explainer(less.graph), asked, candidates)
    scorer = less.graph.scorer
    assert isinstance(scorer, Deep)
    names = signal_names(less.blueprint)
    user = less.graph.user(*(torch.from_numpy(asked[name]) for name in list(asked)[:5]))
    expected = np.zeros_like(share[0])
    for which, name in enumerate(scorer.mixer.heads):
        source, history_BL, strength_BL1 = scorer.mixer.readings(user)[which]
        words = scorer.tables.say(source, history_BL, strength_BL1)[0]
        for back in range(1, min(expected.shape[1], history_BL.shape[1]) + 1):
            alone_BL1 = torch.zeros_like(strength_BL1)
            alone_BL1[:, -back] = strength_BL1[:, -back]
            word = scorer.tables.say(*Reading(source, history_BL, alone_BL1))[0]
            z = ((word - word.mean()) / words.std(correction=0))[1:]
            slope = signal[0, :, names.index(name)] / value[0, :, names.index(name)]
            expected[:, -back] += slope * z.numpy()
    assert np.abs(share[0] - expected).max() < 1e-4
    assert np.abs(expected).max() > 0.1


def test_an_item_named_twice_has_one_explanation_and_no_item_has_none(run: Run) -> None:
    asked = _asked(run, [3])
    candidates = np.array([[7, 0, 8, 7, ITEMS + 1, -3]] * 2)
    for part in take_apart(Explainer(run.graph), asked, candidates):
        assert np.abs(part[:, 0] - part[:, 3]).max() < 1e-5
        assert not part[:, [1, 4, 5]].any()
        assert part[0, 0].any()


def test_the_length_of_the_padding_changes_no_reason(run: Run) -> None:
    candidates = np.tile(np.arange(20, 30), (2, 1))
    short, long = (
        take_apart(Explainer(run.graph), _asked(run, [3], length), candidates)
        for length in (64, 200)
    )
    assert np.abs(short[0] - long[0]).max() < 1e-4
    assert np.abs(short[2] - long[2][:, :, -64:]).max() < 1e-4
    assert not long[2][:, :, :-64].any()


def test_a_successor_is_explained_by_the_item_it_follows(run: Run) -> None:
    named = []
    for user_id in run.users.user_ids[:60]:
        history = run.users.history(run.users.row(user_id) or 0)
        last = run.blueprint.catalogue.item_id(int(history.items[-1]))
        (item,) = explain(run, user_id, [successor(last, ITEMS)]).items
        named.append(bool(item.reason.items) and item.reason.items[0].item_id == last)
    assert np.mean(named) > 0.9


def test_the_best_items_are_explained_with_their_scores(run: Run) -> None:
    explanation = explain(run, run.users.user_ids[3], n=5)
    answered = answer(run.graph, _asked(run, [3]), run.blueprint.limits)
    catalogue = run.blueprint.catalogue
    items = [catalogue.item_id(int(index)) for index in answered["item"][0, :5]]
    assert [item.item_id for item in explanation.items] == items
    for item, score in zip(explanation.items, answered["score"][0], strict=False):
        assert item.score == pytest.approx(float(score), abs=1e-4)
        contributions = [signal.contribution for signal in item.reason.signals]
        assert contributions == sorted(contributions, reverse=True)
        assert sum(contributions) == pytest.approx(item.score, abs=1e-4)
    top = explanation.items[0].reason
    assert top.text.startswith(f"Because of {top.items[0].title}")


def test_the_time_of_the_request_counts(run: Run) -> None:
    then, now = (
        explain(run, STRANGER, ["item-000007"], at=at)
        for at in (int(run.users.times.min()), int(run.users.times.max()))
    )
    assert then.request_time < now.request_time
    assert then.items[0].score != now.items[0].score


def test_strangers_get_reasons_that_name_nothing_of_a_history(run: Run, stirred: Run) -> None:
    for some in (run, stirred):
        explanation = explain(some, STRANGER, n=50)
        assert not explanation.known
        texts = {item.reason.text for item in explanation.items}
        assert len(texts) > 1
        words = {part.strip(" .").lower() for text in texts for part in text.split(";")}
        assert {w for w in words if not w.startswith("popular ")} <= {
            "a usual start", "new in the catalogue", "long in the catalogue",
            NOTHING.strip(".").lower(),
        }  # fmt: skip
        assert not any(item.reason.items for item in explanation.items)


def test_signals_left_out_give_no_reasons(less: Run) -> None:
    kinds = {"ease_long", "following", "age", "new", "context", "trend of all"}
    kinds |= {f"trend of {days:g} days" for days in less.blueprint.config.signals.half_life_days}
    texts = []
    for user_id in less.users.user_ids[:40]:
        for item in explain(less, user_id, n=20).items:
            assert {signal.name for signal in item.reason.signals} == kinds
            texts.append(item.reason.text)
    said = " ".join(texts)
    for left_out in ("same baskets", "of the same kind", "usual next step", "of the same region"):
        assert left_out not in said
    assert "often comes soon after" in said


def _wording(run: Run, names: list[str], *, real_time: bool = True) -> Wording:
    return Wording(
        names=names,
        catalogue=run.blueprint.catalogue,
        user_columns=["region", "age"],
        real_time=real_time,
    )


@pytest.mark.parametrize(
    ("signals", "text"),
    [
        # contribution, value
        ({"following": (2.0, 3.0)}, "Because of {1} and {2}: often comes soon after."),
        ({"following": (-2.0, -3.0), "popularity": (1.0, 1.0)}, "Popular overall."),
        ({"following": (2.0, -3.0)}, NOTHING),
        ({"trend of 7 days": (2.0, 1.0), "popularity": (-1.0, 1.0)}, "Popular this week."),
        ({"trend of 7 days": (2.0, 1.0), "popularity": (-2.5, 1.0)}, NOTHING),
        (
            {"similar": (1.0, 1.0), "ease_long": (2.0, 1.0), "basket": (1.5, 1.0)},
            "Because of {1} and {2}: chosen by the same people, often in the same baskets.",
        ),
        (
            {"content": (1.0, 1.0), "affinity 0": (3.0, 1.0), "age": (2.0, -0.4)},
            "Because of {1} and {2}: of the same kind; chosen by users of the same region; "
            "new in the catalogue.",
        ),
        ({"encoder": (3.0, 1.0)}, "A usual next step in a history like this."),
        ({"context": (3.0, 0.0)}, NOTHING),
    ],
    ids=str,
)
def test_what_raised_the_score_is_said_in_plain_words(
    run: Run, signals: dict[str, tuple[float, float]], text: str
) -> None:
    contribution, value = np.array(list(signals.values())).T
    history, share = np.array([0, 2, 1, 1, 3]), np.array([0.0, 0.5, 0.5, 0.1, -0.2])
    reason = _wording(run, list(signals)).reason(contribution, value, share, history)
    titles = ["", *(run.blueprint.catalogue.title(index) or "" for index in (1, 2, 3))]
    assert reason.text == text.format(*titles)
    assert len(reason.items) == (2 if "{1}" in text else 0)


def test_made_up_times_have_no_weeks(run: Run) -> None:
    arrays = [np.array([1.0]), np.array([1.0]), np.zeros(1), np.zeros(1, np.int64)]
    wording = _wording(run, ["trend of 7 days"], real_time=False)
    assert wording.reason(*arrays).text == "Popular lately."


def test_a_scorer_of_foreign_make_is_refused(run: Run) -> None:
    foreign = run.blueprint.graph(torch.nn.Identity())
    with pytest.raises(NotFound, match="no explanation of a Identity"):
        Explainer(foreign)


def test_the_exported_explainer_says_what_eager_pytorch_says(stirred: Run, tmp_path: Path) -> None:
    blueprint, path = stirred.blueprint, tmp_path / "model.onnx"
    explainer = modules(stirred.graph, blueprint.limits)[EXPLAINER]
    write_onnx(explainer, blueprint.limits, path, EXPLAINER)
    checked = check_parity(
        stirred.graph, {EXPLAINER: path}, limits=blueprint.limits, items=blueprint.items,
        clock=blueprint.clock, users=stirred.users,
    )  # fmt: skip
    assert checked[EXPLAINER].rows > 200


def test_rounding_does_not_decide_what_is_explained(stirred: Run) -> None:
    """All hidden units at their folds, moved to either side by as much as backends differ."""
    asked, scorer = _asked(stirred, [3]), deepcopy(stirred.graph.scorer)
    user = stirred.graph.user(*UserInputs.of(asked))
    assert isinstance(scorer, Deep)
    with torch.inference_mode():
        said = [said_BN[:, None] for said_BN in scorer.mixer.said(user, scorer.tables)]
        said += scorer.others(user, scorer.query(user))
        _, asked_BH = scorer.mixer.asked(user)
        hidden_H = scorer.mixer.first_of_signals @ torch.cat(said, dim=1)[0, :, 7] + asked_BH[0]
    parts, bias_H = [], scorer.mixer.first.bias.detach().clone()
    for side in (-1e-6, 1e-6):
        with torch.no_grad():
            scorer.mixer.first.bias.copy_(bias_H - hidden_H + side)
        graph = stirred.blueprint.graph(scorer)
        parts.append(take_apart(Explainer(graph), asked, np.full((2, 1), 7))[0][0])
    assert np.abs(parts[0] - parts[1]).max() < 1e-3


def test_the_command_explains_the_best_items_in_words_and_in_numbers(
    run: Run, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_id = run.users.user_ids[3]
    arguments = ["explain", str(run_folder), "--user", user_id]
    assert recserve([*arguments, "-n", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert user_id in lines[0]
    assert len(lines) == 1 + 2 * 2
    assert "Because of Item" in lines[2]

    assert recserve(["explain", str(run_folder), "--user", STRANGER, "--at", "1740000000"]) == 0
    out = capsys.readouterr().out
    assert "2025-02-19" in out
    assert "as a new user" in out

    assert recserve([*arguments, "--item", "item-000004", "--item", "item-000005", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [item["item_id"] for item in told["items"]] == ["item-000004", "item-000005"]
    for item in told["items"]:
        summed = sum(signal["contribution"] for signal in item["reason"]["signals"])
        assert summed == pytest.approx(item["score"], abs=1e-4)


def test_without_a_run_it_is_the_newest_one_below_runs(
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["explain", "--user", STRANGER, "--item", "item-000004"]
    assert recserve(asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "RUN" in line and "recserve train DIR --out runs/NAME" in line
    for age, name in enumerate(("newer", "older")):
        shutil.copytree(run_folder, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "run.json", (T - age, T - age))
    (tmp_path / "runs" / "unfinished").mkdir()
    assert recserve(asked) == 0
    told = capsys.readouterr()
    assert "runs/newer" in told.err and "runs/newer" not in told.out
    assert recserve(["explain", "runs/older", *asked[1:]]) == 0
    named = capsys.readouterr()
    assert (named.out, named.err) == (told.out, "")


@pytest.mark.parametrize(
    ("flags", "code", "named"),
    [
        (["--item", "item-7"], 1, "item-7"),
        (["-n", "101"], 2, "1 to 100"),
        (["-n", "0"], 2, "-n"),
        (["--at", "yesterday"], 2, "unix seconds"),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    run_folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, named: str
) -> None:
    assert recserve(["explain", str(run_folder), "--user", "u", *flags]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
