"""A folder's files -> tables of text, exactly as they stand: nothing is dropped or guessed here.

    interactions | items | users, each .parquet, .csv or .csv.gz  ->  Table

CSV is read as text throughout, so that the id "007" stays "007"; Parquet's numbers
become the same text, except timestamps and ratings. Knows no meaning of columns
beyond which must be there. Raises DataError naming file, column, row and remedy.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl
from polars.exceptions import PolarsError

from recommender.data.names import renames
from recommender.errors import DataError, shown

ROW = "recserve row"  # number of the row in its file, from 1 below the header
NATIVE = ("timestamp", "rating")  # may stay numbers or datetimes
SINGLE = (*NATIVE, "event", "title")  # a list makes no sense here
SMALLEST_ROW = 6  # bytes of "a,b,1\n"
ENDINGS = (".parquet", ".csv", ".csv.gz")


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    name: str  # the file's: "interactions.csv"
    frame: pl.DataFrame  # ROW and the file's columns

    @property
    def columns(self) -> list[str]:
        return [c for c in self.frame.columns if c != ROW]


def read_table(folder: Path, name: str, required: Sequence[str], max_rows: int) -> Table | None:
    """`folder/name.parquet`, `.csv` or `.csv.gz`, None where there is none.

    Raises DataError for a file that cannot be used as a whole.
    """
    path = _find(folder, name)
    if path is None:
        return None
    read = {".parquet": _read_parquet, ".csv": _read_csv, ".gz": _read_gzip}[path.suffix]
    frame = read(path, max_rows)
    names = frame.columns
    if absent := [c for c in required if c not in names]:
        needs = [f"{name} needs {', '.join(required)}", *renames(absent, names)]
        raise DataError(
            f"{path}: no column {absent[0]}; the header row reads {shown(', '.join(names), 120)}",
            remedy=f"Name the columns in the first row; {'; '.join(needs)}.",
            field=absent[0],
        )
    if frame.is_empty():
        raise DataError(
            f"{path}: no row below the header row {shown(', '.join(names), 120)}",
            remedy=f"Give at least one row with {', '.join(required)}.",
            field=required[0],
        )
    frame = frame.select([_as_text(path, frame[c], c in required) for c in names])
    return Table(name=path.name, frame=frame.with_row_index(ROW, offset=1))


def missing(folder: Path, name: str, required: Sequence[str]) -> DataError:
    """The refusal of a folder that lacks a file it must have."""
    held = sorted(p.name for p in folder.iterdir())
    return DataError(
        f"{folder} has no {name}.csv or {name}.parquet; it holds {shown(', '.join(held), 120)}",
        remedy=f"Add one of them with the columns {', '.join(required)}.",
        field=name,
    )


def _find(folder: Path, name: str) -> Path | None:
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist",
            remedy="Name a data folder; `recserve data ml-100k --out DIR` makes one.",
        )
    found = [p for s in ENDINGS if (p := folder / f"{name}{s}").is_file()]
    if len(found) > 1:
        raise DataError(
            f"{folder} holds both {found[0].name} and {found[1].name}",
            remedy="Remove the one that must not be read.",
            field=name,
        )
    return found[0] if found else None


# Parquet


def _read_parquet(path: Path, max_rows: int) -> pl.DataFrame:
    try:
        _check_rows(path, int(pl.scan_parquet(path).select(pl.len()).collect().item()), max_rows)
        frame = pl.read_parquet(path)
    except PolarsError as error:
        raise DataError(
            f"{path} is not Parquet: {_first_line(error)}",
            remedy="Write it again as Parquet, or as CSV with the ending .csv.",
        ) from error
    frame.columns = _names(path, frame.columns)
    return frame


def _as_text(path: Path, values: pl.Series, required: bool) -> pl.Series:
    """Text for whatever can be text; lists keep their shape, other nested types are left alone."""
    dtype = values.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Duration, pl.Object):
        if required or values.name in SINGLE:
            raise DataError(
                f"{path}: column {values.name} is of type {dtype}, first in row 1",
                remedy="Write the column as text or numbers.",
                field=values.name,
            )
        plain = isinstance(dtype, pl.List) and not dtype.inner.is_nested()
        return values.cast(pl.List(pl.String)) if plain else values
    if values.name in NATIVE and (dtype.is_numeric() or dtype.is_temporal()):
        return values
    if required and dtype.is_float():
        values = values.fill_nan(None)
        whole = (values == values.round()) & (values.abs() < 2**53)
        if whole.all():  # pandas makes whole numbers with gaps floats
            values = values.cast(pl.Int64)
    return values.cast(pl.String)


# CSV


def _read_csv(path: Path, max_rows: int) -> pl.DataFrame:
    header = _header(path)
    try:
        if path.suffix == ".gz" or path.stat().st_size > SMALLEST_ROW * max_rows:
            rows = pl.scan_csv(path, infer_schema=False).select(pl.len()).collect().item()
            _check_rows(path, int(rows), max_rows)
        frame = pl.read_csv(path, infer_schema=False)
    except PolarsError as error:
        raise _fault(path, header, _first_line(error)) from error
    if len(header) != frame.width:
        raise DataError(
            f"{path} is not CSV: the header row {shown(', '.join(header))} "
            "does not end in a newline",
            remedy="Save it as CSV with one row a line and column names of one line.",
        )
    frame.columns = header  # polars renames what it takes for a repetition
    return frame


def _read_gzip(path: Path, max_rows: int) -> pl.DataFrame:
    try:
        return _read_csv(path, max_rows)
    except (OSError, EOFError, zlib.error) as error:  # of gzip and of polars
        raise DataError(
            f"{path} is not a whole gzip file: {error}",
            remedy="Compress the CSV again, or unpack it.",
        ) from error


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _header(path: Path) -> list[str]:
    """The names of the header row; raises DataError where the file is no comma-separated text."""
    with _open(path) as file:
        head = file.read(1 << 16)
    if not head.strip():
        raise DataError(
            f"{path} is empty: it lacks even the header row",
            remedy="Write the column names in the first row and the data below.",
        )
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        row = head[: head.find(b"\0")].count(b"\n")
        raise DataError(
            f"{path} is not UTF-8 text: it begins with the bytes {shown(head[:8])} and holds a "
            f"zero byte in {f'row {row}' if row else 'the header row'}",
            remedy="Save it as CSV in UTF-8.",
        )
    first = head.splitlines()[0].decode("utf-8-sig", errors="replace")
    names = next(csv.reader([first]), [])
    if not any(name.strip() for name in names):
        raise DataError(
            f"{path}: the header row is blank",
            remedy="Write the column names in the first row.",
        )
    if len(names) == 1 and (other := next((c for c in ";\t|" if c in first), None)):
        raise DataError(
            f"{path}: the header row {shown(first)} is separated by {other!r}",
            remedy="Save it as CSV separated by commas.",
        )
    return _names(path, names)


def _fault(path: Path, header: Sequence[str], said: str) -> DataError:
    """Find the row at which polars gave up; it does not say."""
    record: list[str] = []  # the lines of the row being read
    row = 0  # the header

    def lines() -> Iterator[str]:
        with _open(path) as file:
            for line in file:
                record.append(line.decode("utf-8-sig"))
                yield record[-1]

    what, column = said, header[-1]
    try:
        for row, fields in enumerate(csv.reader(lines(), strict=True)):  # noqa: B007
            text = "".join(record)
            if len(fields) > len(header):
                what = f"{len(fields)} fields where the header has {len(header)}"
                break
            if text.count('"') % 2:
                what, column = "a quote inside a field", _column(header, text.split('"')[0])
                break
            record.clear()
    except csv.Error as error:
        row, what = row + 1, f"a quote that is not closed ({error})"
        column = _column(header, "".join(record).split('"')[0])
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        return DataError(
            f"{path} is not UTF-8 at row {row + 1}, column {_column(header, before)}: "
            f"bytes {shown(error.object[error.start : error.start + 8])}",
            remedy="Save it as CSV in UTF-8.",
        )
    return DataError(
        f"{path} is not CSV at row {row}, column {column}: {what}",
        remedy='Put fields with commas or quotes in quotes and double each quote within ("").',
        field=column,
    )


def _column(header: Sequence[str], before: str) -> str:
    """The column that begins after `before`, the part of the line in front of a fault."""
    return header[min(before.count(","), len(header) - 1)]


def _names(path: Path, header: Sequence[str]) -> list[str]:
    """Column names without outer spaces; unnamed columns get a name that is ignored later."""
    names = [c.strip() or f"unnamed {i}" for i, c in enumerate(header, start=1)]
    if repeated := next((c for c in names if names.count(c) > 1), None):
        raise DataError(
            f"{path}: column {shown(repeated)} stands twice in the header row",
            remedy="Rename or remove one of the two.",
            field=repeated,
        )
    return names


def _check_rows(path: Path, rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise DataError(
            f"{path} has {rows:,} rows; up to {max_rows:,} are read into memory",
            remedy="Keep the newest rows, or raise max_interactions in [data] of a --config file.",
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
