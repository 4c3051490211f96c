"""Where data comes from: MovieLens-100K, synthetic data, and the commands for them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_folders import events, history, items, write
from typer.testing import CliRunner

from recommender.data import movielens
from recommender.data.dataset import load
from recommender.data.synthetic import successor, write_synthetic
from recommender.errors import BadInput, DataError, MachineError
from serving.commands.data import data

# MovieLens-100K, fetched for real


@pytest.fixture(scope="module")
def ml_100k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("movielens") / "ml-100k"
    assert movielens.write_ml_100k(out)
    return out


def test_movielens_is_whole(ml_100k: Path) -> None:
    dataset, report = load(ml_100k)
    assert (report.users, report.items, report.interactions) == (943, 1682, 100_000)
    assert report.longest_history == 737
    assert report.dropped == () and report.warnings == ()
    assert report.mean_rating == dataset.mean_rating == pytest.approx(3.52986)
    assert round(report.simultaneous, 2) == 0.76
    toy_story = dataset.catalogue.index("1")
    assert dataset.catalogue.title(toy_story) == "Toy Story"
    assert dataset.catalogue.categories_of(toy_story) == ("Animation", "Children's", "Comedy")


def test_movielens_keeps_the_order_of_its_rows(ml_100k: Path) -> None:
    first = (ml_100k / "interactions.csv").read_text().splitlines()[:3]
    assert first == [
        "user_id,item_id,timestamp,rating",
        "196,242,881250949,3",
        "186,302,891717742,3",
    ]
    dataset, _ = load(ml_100k)
    rows = pl.read_csv(ml_100k / "interactions.csv", infer_schema=False)
    mine = [(r[1], int(r[2])) for r in rows.filter(pl.col("user_id") == "196").iter_rows()]
    wanted = sorted(mine, key=lambda row: row[1])
    assert [(item, time) for item, time, _ in history(dataset, "196")] == wanted


def test_movielens_columns_are_guessed_right(ml_100k: Path) -> None:
    dataset, report = load(ml_100k)
    assert {f"{c.table}.{c.name}": c.kind for c in report.columns} == {
        "users.age": "numeric",
        "users.gender": "categorical",
        "users.occupation": "categorical",
        "users.zip_code": "ignore",
        "items.year": "numeric",
    }
    assert dataset.user_features.sizes == (9, 3, 22)
    spread = Counter(dataset.users.features[:, 0].tolist())
    assert set(spread) == set(range(1, 9)) and min(spread.values()) > 60


def test_movielens_comes_with_its_citation_and_terms(ml_100k: Path) -> None:
    readme = (ml_100k / "README.txt").read_text()
    assert "F. Maxwell Harper and Joseph A. Konstan" in readme
    assert "may not redistribute" in readme


def test_a_complete_movielens_is_left_alone(ml_100k: Path) -> None:
    before = (ml_100k / "items.csv").stat().st_mtime_ns
    assert not movielens.write_ml_100k(ml_100k)
    assert (ml_100k / "items.csv").stat().st_mtime_ns == before


def test_a_folder_with_anything_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already and is not empty"):
        movielens.write_ml_100k(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_wheel_with_another_checksum_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "recbole-1.2.1-py3-none-any.whl").write_bytes(b"not the one")
    with pytest.raises(MachineError, match=r"has sha256 .*expected 9c9948202011"):
        movielens.check_wheel(tmp_path / "recbole-1.2.1-py3-none-any.whl")


def test_without_a_network_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(MachineError, match=r"pip could not fetch recbole==1\.2\.1.*network"):
        movielens.write_ml_100k(tmp_path / "ml")
    assert list(tmp_path.iterdir()) == []


# Synthetic data


def test_synthetic_data_follows_its_rule(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "toy", users=200, items=120, events=6000, seed=4)
    dataset, report = load(tmp_path / "toy")
    assert (report.users, report.items, report.interactions) == (200, 120, 6000)
    assert report.dropped == () and report.warnings == ()
    ids = dataset.catalogue.item_id
    follows = [
        successor(ids(int(a)), 120) == ids(int(b))
        for h in dataset.users.histories()
        for a, b in zip(h.items, h.items[1:], strict=False)
    ]
    assert 0.87 < np.mean(follows) < 0.93
    region = {c.name: c for c in report.columns}["region"]
    assert region.kind == "categorical"


@pytest.mark.parametrize("size", [2, 7, 50, 51, 120])
def test_the_successors_form_cycles_within_one_category(size: int, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "toy", users=3, items=size, events=9, seed=0)
    catalogue = load(tmp_path / "toy")[0].catalogue
    after = {i: successor(i, size) for i in catalogue.item_ids}
    assert sorted(after.values()) == sorted(after)
    for item_id, following in after.items():
        assert item_id != following
        here, there = catalogue.index(item_id), catalogue.index(following)
        assert catalogue.categories_of(here) == catalogue.categories_of(there)


def test_the_region_tells_a_users_group(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "toy", users=400, items=200, events=4000, seed=0)
    dataset, _ = load(tmp_path / "toy")
    users = pl.read_csv(tmp_path / "toy" / "users.csv")
    region = dict(users.select("user_id", "region").iter_rows())
    first = [
        dataset.catalogue.categories_of(int(h.items[0]))[0].replace("group", "region")
        == region[user_id]
        for user_id, h in zip(dataset.users.user_ids, dataset.users.histories(), strict=True)
    ]
    assert np.mean(first) > 0.75


def test_a_seed_gives_the_same_data_twice_and_another_seed_other_data(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic(tmp_path / name, users=20, items=30, events=300, seed=seed)
    digest = {name: load(tmp_path / name)[0].digest for name in "abc"}
    assert digest["a"] == digest["b"] != digest["c"]


def test_sizes_that_make_no_data_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--items is 1\. Give at least 2"):
        write_synthetic(tmp_path / "toy", users=5, items=1, events=5, seed=0)
    assert list(tmp_path.iterdir()) == []


# The commands


def test_check_prints_counts_guesses_and_what_was_dropped(tmp_path: Path) -> None:
    users = pl.DataFrame({"user_id": list("abcdef"), "plan": ["x", "y"] * 3})
    frame = events(*[(u, "i", 900000000 + n) for n, u in enumerate("abcdef")], ("a", "i", None))
    write(tmp_path, interactions=frame, items=items("i"), users=users)
    done = CliRunner().invoke(data, ["check", str(tmp_path)])
    assert done.exit_code == 0
    for part in ("6 interactions of 6 users", "users.plan", "categorical", "row 7"):
        assert part in done.output
    told = CliRunner().invoke(data, ["check", str(tmp_path), "--json"])
    report = json.loads(told.output)
    assert report["interactions"] == 6
    assert report["dropped"][0]["reason"] == "missing timestamp"
    assert report["dropped"][0]["rows"] == [7]


def test_check_takes_a_config(tmp_path: Path) -> None:
    users = pl.DataFrame({"user_id": list("abcdef"), "plan": ["x", "y"] * 3})
    frame = events(*[(u, "i", 900000000 + n) for n, u in enumerate("abcdef")])
    write(tmp_path, interactions=frame, items=items("i"), users=users)
    (tmp_path / "c.toml").write_text('[data.columns]\nplan = "ignore"\n')
    done = CliRunner().invoke(
        data, ["check", str(tmp_path), "--json", "--config", str(tmp_path / "c.toml")]
    )
    (guess,) = json.loads(done.output)["columns"]
    assert (guess["name"], guess["kind"]) == ("plan", "ignore")


def test_synthetic_is_a_command(tmp_path: Path) -> None:
    sizes = ["--users", "9", "--items", "12", "--events", "80", "--seed", "3"]
    done = CliRunner().invoke(data, ["synthetic", *sizes, "--out", str(tmp_path / "toy")])
    assert done.exit_code == 0
    assert load(tmp_path / "toy")[1].interactions == 80


@pytest.mark.parametrize("command", ["ml-100k", "check", "synthetic"])
def test_every_command_has_an_example(command: str) -> None:
    assert f"recserve data {command}" in CliRunner().invoke(data, [command, "--help"]).output


def test_the_group_alone_prints_its_commands() -> None:
    done = CliRunner().invoke(data, [])
    assert done.exit_code == 0
    assert all(command in done.output for command in ("ml-100k", "check", "synthetic"))


@pytest.mark.parametrize(
    "wrong", [["--users", "0"], ["--items", "1"], ["--events", "0"], ["--seed", "-1"]]
)
def test_a_size_that_makes_no_data_is_bad_usage(wrong: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(data, ["synthetic", *wrong, "--out", str(tmp_path / "toy")])
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_check_of_a_broken_folder_raises_what_the_command_line_prints(tmp_path: Path) -> None:
    done = CliRunner().invoke(data, ["check", str(tmp_path / "nowhere")])
    assert isinstance(done.exception, DataError)
    assert done.output == ""
