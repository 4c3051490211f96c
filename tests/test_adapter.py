"""A model of one's own, and RecBole's SASRec, are families like ours: the same behavioural suite
(tests/test_backends.py) runs over both, eager, as ONNX and in the served stack."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from adapted import OWN, SASREC, Mean, write_sasrec
from served import Stack, serving
from test_backends import (  # noqa: F401 - the suite, collected here over these models
    Answerer,
    _triton,
    test_a_filter_gives_every_item_of_the_category_and_no_other,
    test_a_row_alone_equals_the_same_row_in_a_batch_of_64,
    test_a_wrong_shape_is_refused_and_the_next_request_is_answered,
    test_an_empty_history_is_answered_sensibly,
    test_an_impossible_filter_gives_nothing,
    test_answers_equal_eager_on_random_real_and_hostile_inputs,
    test_excluded_items_never_come_back,
    test_scores_fall_and_no_item_comes_twice,
    test_the_answer_does_not_depend_on_the_length_bucket,
    test_times_long_after_the_training_data_change_nothing,
)

from export.parity import TOLERANCE, compare, onnx_answerer
from export.releases import publish
from recommender import config, runs
from recommender.adapter import adapt, builder
from recommender.contract import Limits, inputs
from recommender.data.dataset import Dataset
from recommender.errors import RunError
from recommender.features import Request, tensors
from recommender.models import exported
from recommender.models.graph import answer
from recommender.protocols import evaluate, split_of
from recommender.release import read_release
from recommender.runs import Run
from recommender.users import History
from serving import cli

DOCS = Path(__file__).parent.parent / "docs" / "models.md"
UNKNOWN = 10  # items of the catalogue that RecBole has never seen
CASES = ["my-model, eager", "my-model, onnx", "sasrec, eager", "sasrec, onnx", "sasrec, triton"]


@pytest.fixture(scope="module")
def weights(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recbole") / "sasrec.npz"
    write_sasrec(path, list(dataset.catalogue.item_ids[UNKNOWN:]), longest=50)
    return path


@pytest.fixture(scope="module")
def folders(
    dataset: Dataset, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    """The run folders of both examples."""
    out = tmp_path_factory.mktemp("adapted")
    builds = {"my-model": builder(OWN), "sasrec": builder(SASREC, {"weights": str(weights)})}
    for name, build in builds.items():
        adapt(dataset, build, out / name, name=name, config=config.read())
    return {name: out / name for name in builds}


@pytest.fixture(scope="module")
def adapted(folders: Mapping[str, Path]) -> Mapping[str, Run]:
    return {name: runs.read(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def repositories(
    adapted: Mapping[str, Run], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) / "repository" for name in adapted}
    for name, run in adapted.items():
        publish(run, found[name])
    return found


@pytest.fixture(scope="module")
def stack(
    repositories: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    with serving(repositories["sasrec"], tmp_path_factory.mktemp("serve")) as running:
        yield running


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, _, backend = request.param.partition(", ")
    return name, backend


@pytest.fixture(scope="module")
def run(case: tuple[str, str], adapted: Mapping[str, Run]) -> Run:
    return adapted[case[0]]


@pytest.fixture(scope="module")
def ask(
    case: tuple[str, str], run: Run, repositories: Mapping[str, Path],
    request: pytest.FixtureRequest,
) -> Answerer:  # fmt: skip
    name, backend = case
    model = f"{name.replace('-', '_')}_onnx"
    if backend == "eager":
        return lambda arrays: answer(run.graph, arrays, run.blueprint.limits)
    if backend == "onnx":
        return onnx_answerer(repositories[name] / model / "1" / "model.onnx")
    return _triton(request.getfixturevalue("stack").grpc, model)


@pytest.fixture
def limits(run: Run) -> Limits:
    return run.blueprint.limits


# --- RecBole's SASRec


def test_items_that_recbole_never_saw_come_last(adapted: Mapping[str, Run]) -> None:
    run = adapted["sasrec"]
    everything = tensors([Request(history=run.users.history(0))], run.blueprint.limits, length=200)
    everything["exclude"][0, :100] = np.arange(UNKNOWN + 1, UNKNOWN + 101)
    items = answer(run.graph, everything, run.blueprint.limits)["item"][0]
    assert sorted(items[items > 0][-UNKNOWN:]) == list(range(1, UNKNOWN + 1))


def test_a_stranger_gets_the_most_popular_items(
    adapted: Mapping[str, Run], dataset: Dataset
) -> None:
    run = adapted["sasrec"]
    answered = answer(run.graph, tensors([Request()], run.blueprint.limits), run.blueprint.limits)
    counts = np.bincount(dataset.users.items)
    assert (np.diff(counts[answered["item"][0]]) <= 0).all()


# --- the run


def test_the_module_of_the_docs_is_a_run_that_needs_its_file_no_longer(
    dataset: Dataset, tmp_path: Path
) -> None:
    source, out = tmp_path / "mine.py", tmp_path / "run"
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    source.write_text(example)
    made = adapt(dataset, builder(str(source)), out, name="mine", config=config.read())
    source.unlink()
    del sys.modules["adapted_mine"]
    arrays = tensors([Request(history=dataset.users.history(3))], made.blueprint.limits)
    again, limits = runs.read(out), made.blueprint.limits
    compare(answer(made.graph, arrays, limits), answer(again.graph, arrays, limits), "read again")
    assert str(tmp_path).encode() not in (out / exported.FILE).read_bytes()


def test_a_damaged_program_is_refused(folders: Mapping[str, Path], tmp_path: Path) -> None:
    content = bytearray((folders["sasrec"] / exported.FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / exported.FILE).write_bytes(content)
    with pytest.raises(RunError, match="is broken"):
        exported.read(tmp_path / exported.FILE, 151)


def test_a_program_that_holds_a_pickle_is_not_even_opened(
    adapted: Mapping[str, Run], folders: Mapping[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / exported.FILE
    with (
        zipfile.ZipFile(folders["sasrec"] / exported.FILE) as old,
        zipfile.ZipFile(path, "w") as new,
    ):
        for entry in old.infolist():
            inputs = "/sample_inputs/" in entry.filename
            new.writestr(entry.filename, b"a pickle" if inputs else old.read(entry))
    with pytest.raises(RunError, match="no plain tensor"):
        exported.read(path, 151)


def test_a_program_of_another_catalogue_is_refused(folders: Mapping[str, Path]) -> None:
    with pytest.raises(RunError, match="scores 151 items, the catalogue has 152"):
        exported.read(folders["sasrec"] / exported.FILE, 152)


def test_beside_it_are_similar_items_and_a_ranker_but_nobody_takes_its_scores_apart(
    adapted: Mapping[str, Run], stack: Stack
) -> None:
    run, limits = adapted["sasrec"], adapted["sasrec"].blueprint.limits
    assert read_release(stack.repository).details["signals"] == []
    asked = tensors([Request(history=run.users.history(3))], limits)
    answered = _triton(stack.grpc, "sasrec_onnx")(asked)
    candidates = np.zeros((1, limits.candidates), np.int64)
    candidates[:, : limits.answers] = answered["item"]
    about = {**{t.name: asked[t.name] for t in inputs(limits)[:5]}, "candidates": candidates}
    ranked = _triton(stack.grpc, "sasrec_ranker")(about)["score"][:, : limits.answers]
    assert np.abs(ranked - answered["score"]).max() < TOLERANCE

    # The items most like one are what the model recommends to whose history is that item.
    alone = History(
        items=np.array([20]), times=np.array([run.blueprint.clock]), weights=np.ones(1, np.float32)
    )
    visitor = Request(history=alone, request_time=run.blueprint.clock, exclude=alone.items)
    visiting = tensors([visitor], limits)
    query = {"query_item": np.array([[20]]), "exclude": np.zeros_like(visiting["exclude"]),
             "category_filter": visiting["category_filter"]}  # fmt: skip
    similar = _triton(stack.grpc, "sasrec_similar_items")(query)
    compare(answer(run.graph, visiting, limits), similar, "a visitor")


# --- what is measured


def test_a_model_trained_here_is_measured_on_events_that_it_has_not_seen(
    dataset: Dataset, tmp_path: Path
) -> None:
    given: list[Dataset] = []

    def build(known: Dataset) -> torch.nn.Module:
        given.append(known)
        module = Mean(len(known.catalogue) + 1)
        torch.manual_seed(len(given))
        torch.nn.init.normal_(module.table)
        return module

    run = adapt(dataset, build, tmp_path / "run", name="mine", config=config.read())
    without, whole = given
    assert len(without.users.items) < len(whole.users.items) == len(dataset.users.items)
    for known in given:
        assert known.catalogue.popularity.sum() == len(known.users.items)
        assert known.end == known.users.times.max()
    assert run.metrics["ndcg@10"]["mean"] < 0.3  # random vectors know nothing
    assert run.details["trained_elsewhere"] is False


def test_a_model_trained_elsewhere_has_no_held_out_metrics(adapted: Mapping[str, Run]) -> None:
    assert adapted["sasrec"].metrics == {}
    assert adapted["sasrec"].details["trained_elsewhere"] is True
    assert adapted["my-model"].metrics["ndcg@10"]["mean"] > 0.3


def test_an_adapted_run_is_compared_under_a_protocol_if_its_rows_are_those(
    dataset: Dataset, adapted: Mapping[str, Run], tmp_path: Path
) -> None:
    known = split_of(dataset, "leave-one-out").train_valid
    mine = adapt(
        dataset, builder(OWN), tmp_path / "run", name="mine", config=config.read(), users=known
    )
    report = evaluate(
        dataset, "leave-one-out", tmp_path, families=["popularity"], runs=[mine],
        config=config.read(),
    )  # fmt: skip
    figures = {name: model["all"]["ndcg@10"]["mean"] for name, model in report.models.items()}
    assert figures["mine"] > 2 * figures["popularity"]
    with pytest.raises(RunError, match="not of the leave-one-out rows"):
        evaluate(
            dataset, "leave-one-out", tmp_path / "other", families=["popularity"],
            runs=[adapted["my-model"]], config=config.read(),
        )  # fmt: skip


def test_an_adapted_run_is_judged_through_a_server_too(
    dataset: Dataset, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = split_of(dataset, "leave-one-out").train_valid
    out, repository = tmp_path / "run", tmp_path / "repository"
    adapt(dataset, builder(OWN), out, name="mine", config=config.read(), users=known)
    publish(runs.read(out), repository)
    command = ["evaluate", str(data_folder), "--run", str(out), "--out", str(tmp_path),
               "--repository", str(repository)]  # fmt: skip
    with serving(repository, tmp_path) as running:
        assert cli.run([*command, "--through", running.grpc]) == 0
    said = capsys.readouterr().out
    assert f"mine through {running.grpc}" in said
    through = json.loads((tmp_path / "leave-one-out-through.json").read_text())
    assert list(through["models"]) == ["mine"]
    assert through["agreement"]["mine"]["largest_figure_difference"] < 5e-5


# --- the command, and the service


def test_the_command_writes_a_run_and_says_what_its_figures_are_worth(
    data_folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["adapt", str(data_folder), "--module", SASREC, "--argument", f"weights={weights}",
                 "--name", "sasrec", "--out", str(out), "--set", "training.length=50"]  # fmt: skip
    assert cli.run(arguments) == 0
    assert "no held-out metrics" in capsys.readouterr().out
    assert runs.read(out).blueprint.limits.length_buckets == (16, 50)
    assert cli.run(arguments) == 1  # the folder is taken
    assert cli.run([*arguments[:4], "--argument", "weights", *arguments[6:]]) == 2


def test_a_release_without_held_out_metrics_is_listed(
    repositories: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["releases", "list", "--repository", str(repositories["sasrec"])]
    assert cli.run(command) == 0
    assert "sasrec_onnx" in capsys.readouterr().out
    assert cli.run([*command, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["models"] == ["sasrec_onnx", "sasrec_similar_items", "sasrec_ranker"]
    assert row["ndcg@10"] is None


def test_the_service_recommends_by_an_adapted_model(stack: Stack, dataset: Dataset) -> None:
    user = dataset.users.user_ids[0]
    asked = httpx.post(f"{stack.url}/v1/recommend", json={"user_id": user, "n": 5})
    assert asked.status_code == 200, asked.text
    assert len(asked.json()["items"]) == 5
