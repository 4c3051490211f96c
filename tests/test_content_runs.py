"""Content goes with the data set and the run: by index, in the digest, whole or refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import scipy.sparse as sp
from data_folders import events, write
from films import films, same

from recommender import config, runs
from recommender.data.dataset import Dataset, load
from recommender.errors import RunError
from recommender.runs import Run
from recommender.train import blueprint_of, fit_run


def folder(path: Path, frame: pl.DataFrame, format: str = "csv") -> Path:
    rows = [(f"u{k % 20}", f"i{k % 70}", 900000000 + k) for k in range(400)]
    return write(
        path, format, interactions=events(*rows, ("u1", "stranger", 900009999)), items=frame
    )


def test_a_dataset_holds_content_by_index(tmp_path: Path) -> None:
    frame = films(60)
    dataset, _ = load(folder(tmp_path, frame))
    assert dataset.content.shape == (71 + 1, dataset.content_space.width)
    assert dataset.content[[0]].nnz == 0
    assert dataset.content[list(range(61, 72))].nnz == 0  # seen in interactions only
    known = dataset.content_space.matrix(frame)
    assert same(dataset.content[[dataset.catalogue.index("i7")]], known[[7]])


@pytest.mark.parametrize("column", ["studio", "year", "plot"])
def test_the_digest_sees_a_changed_value_of_a_further_column(column: str, tmp_path: Path) -> None:
    frame = films(60)
    values = frame[column].to_list()
    first, other = next((0, k) for k in range(1, 60) if values[k] != values[0])
    values[first], values[other] = values[other], values[first]
    before = load(folder(tmp_path / "before", frame))[0].digest
    again = load(folder(tmp_path / "again", frame, "parquet"))[0].digest
    after = load(folder(tmp_path / "after", frame.with_columns(pl.Series(column, values))))[0]
    assert before == again != after.digest


def test_a_column_that_is_ignored_has_no_part_in_content_or_digest(tmp_path: Path) -> None:
    frame = films(60).with_columns(plot=None)
    with_codes = frame.with_columns(code=pl.Series([f"00{k * 7919 % 1000:05d}" for k in range(60)]))
    plain, coded = (load(folder(tmp_path / name, f))[0] for name, f in
                    (("a", frame), ("b", with_codes)))  # fmt: skip
    assert "code" not in coded.content_space.columns
    assert plain.digest == coded.digest


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Run]:
    dataset, _ = load(folder(tmp_path_factory.mktemp("films"), films(60)))
    blueprint = blueprint_of("popularity", dataset.users, dataset, config.read("quick"))
    return dataset, fit_run(blueprint, dataset.users, dataset)


def test_a_run_read_back_has_the_same_content(filmed: tuple[Dataset, Run], tmp_path: Path) -> None:
    dataset, run = filmed
    runs.write(run, tmp_path)
    again = runs.read(tmp_path)
    assert again.content_space == dataset.content_space
    assert same(again.blueprint.content, dataset.content)


@pytest.mark.parametrize("damage", ["cut", "another", "missing"])
@pytest.mark.parametrize("file", ["content.npz", "content.json"])
def test_a_run_whose_content_is_damaged_is_refused_in_one_line(
    filmed: tuple[Dataset, Run], file: str, damage: str, tmp_path: Path
) -> None:
    runs.write(filmed[1], tmp_path)
    path = tmp_path / file
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif file == "content.npz":
        sp.save_npz(path, sp.csr_array((3, 3)))
    else:
        path.write_text("[]")
    with pytest.raises(RunError, match="broken") as refusal:
        runs.read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_content_with_any_bytes_changed_is_refused_or_reads_the_same(
    filmed: tuple[Dataset, Run], tmp_path: Path
) -> None:
    dataset, run = filmed
    runs.write(run, tmp_path)
    path = tmp_path / "content.npz"
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + b"\xff" * 4 + whole[at + 4 :])
        try:
            assert same(runs.read(tmp_path).blueprint.content, dataset.content)
        except RunError:
            refused += 1
    assert refused > 10
