"""A user's own files: usual spellings are hinted at, and `recserve init` shows how it is done."""

from __future__ import annotations

import dataclasses
import gzip
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recommender.data.config import DataConfig
from recommender.data.dataset import load
from recommender.data.sample import SETTINGS, write_sample
from recommender.errors import DataError

ROOT = Path(__file__).parent.parent
ROWS = "u1,i1,900000001\nu1,i2,900000002\nu2,i1,900000003\n"


def put(folder: Path, header: str = "user_id,item_id,timestamp", items: str = "item_id") -> Path:
    (folder / "interactions.csv").write_text(f"{header}\n{ROWS}")
    (folder / "items.csv").write_text(f"{items}\ni1\ni2\n")
    return folder


@pytest.mark.parametrize(
    ("header", "hints"),
    [
        ("userId,movieId,timestamp", ["userId to user_id", "movieId to item_id"]),
        ("User ID,Item ID,Timestamp", ["User ID to user_id", "Item ID to item_id",
                                       "Timestamp to timestamp"]),
        ("visitorid,itemid,ts", ["visitorid to user_id", "ts to timestamp"]),
        ("CustomerID,StockCode,InvoiceDate", ["CustomerID to user_id", "StockCode to item_id",
                                              "InvoiceDate to timestamp"]),
        ("usr_id,item_id,timestamp", ["usr_id to user_id"]),
    ],
)  # fmt: skip
def test_another_name_of_a_column_is_refused_with_what_to_rename(
    header: str, hints: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refusal:
        load(put(tmp_path, header))
    assert [hint for hint in hints if f"rename {hint}" not in refusal.value.remedy] == []


def test_names_that_mean_nothing_are_not_hinted_at(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refusal:
        load(put(tmp_path, "alpha,beta,gamma"))
    assert "rename" not in refusal.value.remedy


def test_one_column_is_hinted_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refusal:
        load(put(tmp_path, "id,beta,timestamp"))
    assert refusal.value.remedy.count("rename id") == 1


def test_a_rating_or_event_under_another_name_is_warned_of(tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp,stars,event_type,colour"
    put(tmp_path)
    lines = [f"u{n},i{n % 2 + 1},{900_000_000 + n},5,view,red" for n in range(4)]
    (tmp_path / "interactions.csv").write_text("\n".join([header, *lines]))
    _, report = load(tmp_path)
    said = "\n".join(report.warnings)
    assert "column stars of interactions is ignored: rename it to rating" in said
    assert "column event_type of interactions is ignored: rename it to event" in said
    assert "colour" not in said


def test_a_gzipped_file_is_read_like_a_plain_one(tmp_path: Path) -> None:
    plain = load(put(tmp_path))[0].digest
    raw = (tmp_path / "interactions.csv").read_bytes()
    (tmp_path / "interactions.csv").unlink()
    (tmp_path / "interactions.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + raw))
    assert load(tmp_path)[0].digest == plain


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ROWS.encode(), "interactions.csv.gz is not a whole gzip file"),
        (
            gzip.compress(ROWS.encode() * 9_000)[:-40],
            "interactions.csv.gz is not a whole gzip file",
        ),
        (gzip.compress(b"user_id;item_id;timestamp\nu;i1;900000001\n"), "separated by ';'"),
        (gzip.compress(b'user_id,item_id,timestamp\nu,i1,9\nu,"i1,9\n'), "row 2, column item_id"),
        (gzip.compress(b"user_id,item_id,timestamp\n" + b"u,i1,9\n" * 99), "up to 50 are read"),
    ],
    ids=["no gzip", "cut off", "semicolons", "open quote", "too many rows"],
)
def test_a_broken_gzip_is_refused_like_a_broken_file(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (put(tmp_path) / "interactions.csv").unlink()
    (tmp_path / "interactions.csv.gz").write_bytes(content)
    with pytest.raises(DataError) as refusal:
        load(tmp_path, DataConfig(max_interactions=50))
    assert said in str(refusal.value)


def test_a_plain_and_a_gzipped_file_of_one_name_are_refused(tmp_path: Path) -> None:
    (put(tmp_path) / "items.csv.gz").write_bytes(gzip.compress(b"item_id\ni1\n"))
    with pytest.raises(DataError, match=r"both items\.csv and items\.csv\.gz"):
        load(tmp_path)


# The sample


def test_the_sample_loads_without_a_warning_and_shows_every_kind_of_event(tmp_path: Path) -> None:
    write_sample(tmp_path / "mine")
    dataset, report = load(tmp_path / "mine")
    assert report.dropped == () and report.warnings == ()
    assert set(report.events) == {"view", "cart", "purchase", "return"}
    assert report.users == 200 and report.interactions > 3_000
    assert dataset.user_features.width == 2
    assert not dataset.users.targets.all()


def test_the_sample_is_the_same_every_time(tmp_path: Path) -> None:
    write_sample(tmp_path / "a")
    write_sample(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_the_samples_settings_spell_out_every_key_at_its_default() -> None:
    assert DataConfig.from_table(tomllib.loads(SETTINGS)["data"]) == DataConfig()
    for field in dataclasses.fields(DataConfig):
        assert re.search(rf"^(# )?{field.name}(\.\w+)? = ", SETTINGS, re.MULTILINE), field.name
    uncommented = re.sub(r"^# (\w+ = )", r"\1", SETTINGS, flags=re.MULTILINE)
    assert DataConfig.from_table(tomllib.loads(uncommented)["data"]).min_rating == 4


def test_the_page_on_data_explains_every_key_and_its_toml_is_valid() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    for field in dataclasses.fields(DataConfig):
        assert f"`{field.name}`" in page, field.name
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        DataConfig.from_table(tomllib.loads(example)["data"])


def test_the_commands_that_init_prints_check_and_train_the_sample(tmp_path: Path) -> None:
    def recserve(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "serving.cli", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    commands = [line.split() for line in recserve("init", "data/mine").splitlines()
                if line.startswith("recserve ")]  # fmt: skip
    assert [command[1] for command in commands] == ["data", "train", "export", "serve"]
    assert "200 users" in recserve(*commands[0][1:])
    # the family that needs no epochs: this is about the data
    assert "item-knn trained" in recserve(*commands[1][1:], "--model", "item-knn")


def test_train_reads_the_data_as_its_settings_say(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", "train", str(put(tmp_path)),
         "--out", str(tmp_path / "run"), "--set", "data.min_rating=4"],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    assert "min_rating is 4 and no interaction has a rating" in done.stderr
    assert not (tmp_path / "run").exists()
