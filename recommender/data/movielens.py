"""MovieLens-100K as a data folder: one wheel fetched, checked, three files converted.

    pip download recbole  ->  sha256  ->  ml-100k.{inter,item,user}  ->  CSV of our format

The wheel is never installed. The data may not be redistributed: its terms are
written beside it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from recommender.data.folder import new_folder, refuse_taken
from recommender.errors import MachineError

PACKAGE = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
INSIDE = "recbole/dataset_example/ml-100k/ml-100k"

# sha256 of the files we write: what tells a complete data set from any other folder
WRITTEN = {
    "interactions.csv": "a07bc1e86832d0964fa1b233ab20905bd81bd28b50190a7898557324fd5fb696",
    "items.csv": "7772429899733d43c7cad9459851b843b442cd1862a569d3c7f9750cc76818f6",
    "users.csv": "f0666955a899ab27004d413eec2d92e393f5050879597e126ede637390e5a238",
}

TERMS = """\
MovieLens-100K, collected by the GroupLens Research Project at the University of Minnesota.

Terms of use, in short (in full: https://grouplens.org/datasets/movielens/100k/):
- you may not redistribute the data without separate permission;
- you may not use it for commercial or revenue-bearing purposes without permission
  from a faculty member of the GroupLens Research Project;
- you may not state or imply any endorsement by the University of Minnesota or GroupLens;
- publications that use it must cite:

F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context.
ACM Transactions on Interactive Intelligent Systems (TiiS) 5, 4, Article 19 (December 2015),
19 pages. https://doi.org/10.1145/2827872

interactions.csv  100,000 ratings in their original order
items.csv         1,682 films
users.csv         943 users
"""


def write_ml_100k(out: Path) -> bool:
    """Fetch and write the data folder `out`; False if it stood there already, complete.

    Raises DataError for another folder at `out`, MachineError where the wheel cannot be
    fetched or is not the one we know.
    """
    if is_complete(out):
        return False
    refuse_taken(out)
    with tempfile.TemporaryDirectory(prefix="recserve-ml-100k-") as temporary:
        wheel = _fetch(Path(temporary))
        check_wheel(wheel)
        with zipfile.ZipFile(wheel) as archive, new_folder(out) as folder:
            _convert(archive, folder)
    return True


def is_complete(folder: Path) -> bool:
    """Does `folder` hold exactly what `write_ml_100k` writes?"""
    return all(
        (path := folder / name).is_file() and _sha256(path) == wanted
        for name, wanted in WRITTEN.items()
    )


def check_wheel(wheel: Path) -> None:
    """Raise MachineError unless the file is, to the byte, the wheel that we know."""
    if (seen := _sha256(wheel)) != WHEEL_SHA256:
        raise MachineError(
            f"{wheel.name} has sha256 {seen[:12]}…, expected {WHEEL_SHA256[:12]}…",
            remedy="Nothing was opened or written; fetch it from another package index.",
        )


def _fetch(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--dest", str(folder)]
    quiet = ["--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    done = subprocess.run(
        [*command, *quiet, "--retries", "2", "--timeout", "20"],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        raise MachineError(
            f"pip could not fetch {PACKAGE}: {said[-1].strip()}",
            remedy="Give pip a network or a package index it can reach, then run this again.",
        )
    return wheels[0]


def _convert(archive: zipfile.ZipFile, folder: Path) -> None:
    interactions, items, users = (_rows(archive, kind) for kind in ("inter", "item", "user"))
    _write(
        folder / "interactions.csv",
        ("user_id", "item_id", "timestamp", "rating"),
        ((r["user_id"], r["item_id"], r["timestamp"], r["rating"]) for r in interactions),
    )
    _write(
        folder / "items.csv",
        ("item_id", "title", "categories", "year"),
        (
            (r["item_id"], r["movie_title"], "|".join(r["class"].split()), r["release_year"])
            for r in items
        ),
    )
    columns = ("user_id", "age", "gender", "occupation", "zip_code")
    _write(folder / "users.csv", columns, ([r[c] for c in columns] for r in users))
    (folder / "README.txt").write_text(TERMS, encoding="utf-8")


def _rows(archive: zipfile.ZipFile, kind: str) -> Iterator[dict[str, str]]:
    """Rows of one tab-separated file whose header reads `name:type`."""
    with archive.open(f"{INSIDE}.{kind}") as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        lines = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = [column.partition(":")[0] for column in next(lines)]
        for line in lines:
            yield dict(zip(names, line, strict=True))


def _write(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
