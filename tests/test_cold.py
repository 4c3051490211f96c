"""Who and what nobody knows yet: strangers, untouched items, items added to a finished run.

The data's answer is known: a user's region names the group that the user walks in, and an item's
category names its group.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import scipy.sparse as sp
from cold_data import GROUPS, HITS, ITEMS, LATELY, UNTOUCHED, of_groups, recserve

from export.to_onnx import write_onnx
from recommender import config, runs
from recommender.cold_items import among
from recommender.contract import Array, inputs
from recommender.data.dataset import Dataset
from recommender.errors import DataError, RunError
from recommender.evaluate import rank
from recommender.features import Request, tensors
from recommender.grow import grow, read_items
from recommender.models.cold import likeness, place_in_table
from recommender.models.families import FAMILIES
from recommender.models.itemtoitem import Neighbours
from recommender.release import read_release
from recommender.runs import Run
from recommender.train import blueprint_of, fit_run, train

SMALL = (
    "training.epochs=6", "encoder.width=16", "encoder.layers=1", "training.batch=16",
    "mixer.cuts=2", "mixer.cut_epochs=3", "mixer.queries=800",
)  # fmt: skip


@pytest.fixture(scope="module")
def cold_run(cold_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("cold-run") / "run"
    train(cold_dataset, out, config=config.read("quick", settings=SMALL))
    return runs.read(out)


def group_of(run: Run, index: int) -> int:
    (name,) = run.blueprint.catalogue.categories_of(index)
    return int(name.removeprefix("group-"))


def groups_of(run: Run, items: Array) -> Array:
    """[Q, n] of items [Q, n]."""
    found: Array = np.vectorize(lambda item: group_of(run, int(item)))(items)
    return found


def settled(run: Run) -> tuple[list[Request], Array]:
    """Users whose last events all lie in one group, asked at the last of them; and that group."""
    asked, homes = [], []
    for row, history in enumerate(run.users.histories()):
        group = groups_of(run, history.items[-LATELY:])
        if len(set(group)) == 1:
            features = run.users.features[row]
            time = int(history.times[-1])
            asked.append(Request(history=history, request_time=time, user_features=features))
            homes.append(group[0])
    assert len(asked) > 50
    return asked, np.array(homes)


# Strangers


def test_a_stranger_with_a_region_gets_items_of_its_group(cold_run: Run) -> None:
    asked = [
        Request(
            request_time=cold_run.blueprint.clock,
            user_features=cold_run.user_features.indexes({"region": f"region-{region:03d}"}),
        )
        for region in range(GROUPS)
    ]
    items, _ = rank(cold_run.graph, asked, cold_run.blueprint.limits)
    right = groups_of(cold_run, items[:, :10]) == np.arange(GROUPS)[:, None]
    assert right.mean() > 0.6  # a third by chance


def test_a_stranger_of_whom_nothing_is_known_gets_what_is_popular(cold_run: Run) -> None:
    items, _ = rank(
        cold_run.graph, [Request(request_time=cold_run.blueprint.clock)], cold_run.blueprint.limits
    )
    catalogue = cold_run.blueprint.catalogue
    assert set(catalogue.indexes(HITS)) <= set(items[0, :10])
    counts = np.bincount(cold_run.users.items, minlength=len(catalogue) + 1)
    assert counts[items[0, :20]].mean() > counts[1 : ITEMS + 1].mean()
    assert len(set(groups_of(cold_run, items[:1, :20])[0])) == GROUPS


# Untouched items


def test_an_untouched_item_goes_to_the_users_of_its_group(
    cold_run: Run, cold_dataset: Dataset
) -> None:
    new = cold_dataset.catalogue.indexes(of_groups("untouched")["item_id"])
    assert not np.isin(new, cold_run.users.items).any()
    asked, homes = settled(cold_run)
    items, _ = rank(among(cold_run, new), asked, cold_run.blueprint.limits)
    assert (np.sort(items[:, : len(new)], axis=1) == np.sort(new)).all()
    assert (items[:, len(new) :] == 0).all()
    right = groups_of(cold_run, items[:, :UNTOUCHED]) == homes[:, None]
    assert right.mean() > 0.8  # a third by chance


def test_an_untouched_item_takes_after_touched_ones_whatever_its_untouched_twins() -> None:
    near, far = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    nothing = [0.0, 0.0, 0.0]
    rows = [nothing, *[near] * 2, far, *[near] * 100, nothing]  # padding, touched, untouched
    touched = np.zeros(len(rows), bool)
    touched[1:4] = True
    like = likeness(sp.csr_array(np.array(rows, np.float32)), touched).toarray()
    assert like[4:104, 1:3] == pytest.approx(0.5)
    assert like[4:104].sum(axis=1) == pytest.approx(1)
    assert not like[:4].any()
    assert not like[104].any()


def test_who_touches_nothing_alike_speaks_and_is_spoken_of_in_no_table() -> None:
    table = Neighbours(
        item=np.array([[0, 0], [2, 0], [1, 0], [0, 0], [0, 0]]),
        weight=np.array([[0, 0], [0.5, 0], [0.25, 0], [0, 0], [0, 0]], np.float32),
    )
    like = np.zeros((5, 5), np.float32)
    like[3, 2] = 1.0  # item 3 takes after item 2, item 4 after none
    placed = place_in_table(table, sp.csr_array(like)).sparse().toarray()
    assert placed[1].tolist() == [0, 0, 0.5, 0.5, 0]
    assert placed[3].tolist() == [0, 0.25, 0, 0, 0]
    assert not placed[4].any()
    assert not placed[:, 4].any()


# Items added to a finished run


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "new-items.csv"
    of_groups("new").write_csv(path)
    return path


def test_an_added_item_goes_to_the_users_of_its_group_through_the_exported_model(
    cold_run: Run, added: Path, tmp_path: Path
) -> None:
    grown = grow(cold_run, read_items(added)[0])
    limits, catalogue = grown.blueprint.limits, grown.blueprint.catalogue
    write_onnx(grown.graph, limits, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    new = catalogue.indexes(of_groups("new")["item_id"])
    everything_else = np.arange(1, cold_run.blueprint.items)
    right = []
    for request, home in zip(*settled(cold_run), strict=True):
        arrays = tensors([replace(request, exclude=everything_else)], limits)
        (item,) = session.run(["item"], {t.name: arrays[t.name] for t in inputs(limits)})
        assert sorted(item[0, : len(new)]) == new.tolist()
        groups = [catalogue.categories_of(int(i)) for i in item[0, :UNTOUCHED]]
        right += [group == (f"group-{home:03d}",) for group in groups]
    assert np.mean(right) > 0.8  # a third by chance


def test_a_release_with_added_items_says_so_and_keeps_the_run_s_figures(
    cold_dataset: Dataset, added: Path, tmp_path: Path
) -> None:
    run = train(cold_dataset, tmp_path / "run", family="content", config=config.read())
    done = recserve("export", tmp_path / "run", "--repository", tmp_path / "r", "--items", added)
    assert done.returncode == 0, done.stderr
    assert f"{GROUPS * UNTOUCHED} items are new, 0 were there already" in done.stdout
    release = read_release(tmp_path / "r")
    old, catalogue = run.blueprint.catalogue, release.catalogue
    assert catalogue.item_ids == (*old.item_ids, *of_groups("new")["item_id"])
    assert catalogue.categories[len(old) :] == tuple((c,) for c in of_groups("new")["categories"])
    assert not catalogue.popularity[len(old) :].any()
    assert (catalogue.popularity[: len(old)] == old.popularity).all()
    assert release.details["metrics"] == run.metrics
    assert release.details["training"]["added"] == [
        {"new": GROUPS * UNTOUCHED, "refreshed": 0, "without_content": 0}
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_new_items_and_reads_back(
    family: str, cold_run: Run, cold_dataset: Dataset, added: Path, tmp_path: Path
) -> None:
    run = cold_run
    if family != "deep":
        blueprint = blueprint_of(family, cold_dataset.users, cold_dataset, config.read())
        run = fit_run(blueprint, cold_dataset.users, cold_dataset)
    grown = grow(run, read_items(added)[0])
    runs.write(grown, tmp_path / "run")
    again = runs.read(tmp_path / "run")
    assert len(again.blueprint.catalogue) == len(run.blueprint.catalogue) + GROUPS * UNTOUCHED
    asked, limits = settled(run)[0][:40], run.blueprint.limits
    for first, second in zip(rank(grown.graph, asked, limits), rank(again.graph, asked, limits),
                             strict=True):  # fmt: skip
        assert (first == second).all()
    new = np.arange(run.blueprint.items, grown.blueprint.items)
    items, scores = rank(among(grown, new), asked, limits)
    assert (np.sort(items[:, : len(new)], axis=1) == new).all()
    assert np.isfinite(scores[:, : len(new)]).all()


def test_known_ids_keep_their_place_and_their_signals_and_show_what_is_given(
    cold_run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        "item_id,title,categories\nitem-000004,Another title,\nitem-000007,,group-000\n"
    )
    grown = grow(cold_run, read_items(path)[0])
    catalogue, old = grown.blueprint.catalogue, cold_run.blueprint.catalogue
    assert catalogue.item_ids == old.item_ids
    one, two = catalogue.indexes(["item-000004", "item-000007"])
    assert (catalogue.title(one), catalogue.categories_of(one)) == ("Another title", ("group-001",))
    assert (catalogue.title(two), catalogue.categories_of(two)) == (old.title(two), ("group-000",))
    asked, limits = settled(cold_run)[0], cold_run.blueprint.limits
    before, after = (rank(r.graph, asked, limits) for r in (cold_run, grown))
    assert (before[0] == after[0]).all()
    only = [Request(category_mask=catalogue.category_mask(["group-000"]))]
    assert two in rank(grown.graph, only, limits)[0][0]
    assert two not in rank(cold_run.graph, only, limits)[0][0]


def test_a_new_category_can_be_filtered_by(cold_run: Run) -> None:
    frame = pl.DataFrame({"item_id": ["a", "b"], "categories": ["a first one", "group-001"]})
    grown = grow(cold_run, frame)
    catalogue, limits = grown.blueprint.catalogue, grown.blueprint.limits
    asked = [Request(category_mask=catalogue.category_mask([name]))
             for name in ("a first one", "group-001")]  # fmt: skip
    first, group = rank(grown.graph, asked, limits)[0]
    assert first[first > 0].tolist() == [catalogue.index("a")]
    assert catalogue.index("b") in group
    assert {group_of(grown, int(i)) for i in group[group > 0]} == {1}
    assert grown.details["added"] == [{"new": 2, "refreshed": 0, "without_content": 1}]


def test_more_categories_than_the_filter_has_places_for_are_refused(cold_run: Run) -> None:
    frame = pl.DataFrame(
        {"item_id": ["a"], "categories": ["|".join(f"more-{i}" for i in range(61))]}
    )
    with pytest.raises(RunError, match=r"64 categories \('more-0' is new\).* 63 places"):
        grow(cold_run, frame)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("new.csv", None, "new.csv does not exist"),
        ("new.txt", "item_id\na\n", "new.txt is no table"),
        ("new.csv", "id,title\na,A\n", "no column item_id"),
    ],
)
def test_a_file_that_is_no_table_of_items_is_refused(
    tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        read_items(tmp_path / name)
