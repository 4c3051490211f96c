"""A run and a list of users -> a CSV of the best items for each of them.

    ids ─> requests ─> rank (the graph, eager PyTorch) ─> user_id, item_id, rank, score

Users go through in chunks, so that memory does not grow with their number. Every id is
answered: the run's own users by their history and features, strangers as new users.
"""

from __future__ import annotations

import csv
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recommender.contract import Array
from recommender.errors import BadInput, RunError, shown
from recommender.evaluate import rank
from recommender.features import Request
from recommender.models.learn import Progress, silent
from recommender.runs import Run
from recommender.users import EMPTY

CHUNK = 1024  # users
USER_ID = "user_id"
HEADER = (USER_ID, "item_id", "rank", "score")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # no id of the data holds one either


@dataclass(frozen=True, kw_only=True)
class Question:
    """What every user is asked."""

    n: int = 20  # items
    at: int | None = None  # unix seconds; None = each user's last event
    allow_seen: bool | None = None  # also items of the history; None = as the data's repurchase


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of the list of users."""

    users: int  # answered
    rows: int  # written below the header
    repeated: int  # ids that stood in the list again, and were answered once
    unknown: int  # users the run has never seen, not even their features
    no_history: int  # users it knows the features of, without an event
    fewer: int  # users with fewer than n items: too few are left in the catalogue
    seconds: float


def read_ids(path: Path) -> list[str]:
    """The ids of `path` in its order: one a line, or column user_id of a CSV whose header has it.

    Blank lines are skipped; outer spaces go, as they do when data is read. Raises BadInput
    naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is not UTF-8 text: byte {error.start} is {shown(error.object[error.start])}",
            remedy="Give one id a line, or a CSV with a column user_id.",
        ) from error
    first = lines[0]
    header = [name.strip() for name in next(csv.reader([first]), [])]
    if USER_ID in header:
        return _column(path, header.index(USER_ID))
    if other := next((c for c in ";\t|" if USER_ID in map(str.strip, first.split(c))), None):
        raise BadInput(
            f"{path}: the header row {shown(first)} is separated by {other!r}",
            remedy="Save it as CSV separated by commas.",
        )
    ids = [line.strip() for line in lines]
    return _checked(path, [(number, one) for number, one in enumerate(ids, start=1) if one])


def _column(path: Path, position: int) -> list[str]:
    found = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            next(reader)
            for fields in reader:
                if len(fields) > position and (one := fields[position].strip()):
                    found.append((reader.line_num, one))
                elif any(field.strip() for field in fields):
                    raise BadInput(
                        f"{path}, line {reader.line_num}: {USER_ID} is missing",
                        remedy="Give every row an id, or remove it.",
                    )
        except csv.Error as error:
            raise BadInput(
                f"{path}, line {reader.line_num}: no CSV ({error})",
                remedy="Put fields with commas or quotes in quotes and double each quote within.",
            ) from error
    return _checked(path, found)


def _checked(path: Path, found: Sequence[tuple[int, str]]) -> list[str]:
    if not found:
        raise BadInput(
            f"{path} names no user", remedy="Give one id a line, or a CSV with a column user_id."
        )
    if bad := next((pair for pair in found if CONTROL.search(pair[1])), None):
        raise BadInput(
            f"{path}, line {bad[0]}: id {shown(bad[1])} holds a control character",
            remedy="Give one id a line, or a CSV with a column user_id.",
        )
    return [one for _, one in found]


def write_batch(
    run: Run,
    user_ids: Sequence[str],
    question: Question,
    out: Path,
    *,
    progress: Progress = silent,
) -> Summary:
    """Answer each id of `user_ids` once, in their order, and write `out`, whole or not at all.

    Raises BadInput where `question` asks for more than the run's K answers.
    """
    check_count(run, question.n)
    started = time.monotonic()
    distinct = list(dict.fromkeys(user_ids))
    rows = fewer = done = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("xb") as file:
            file.write((",".join(HEADER) + "\n").encode())
            for chunk in _chunks(distinct):
                frame = best(run, chunk, question)
                frame.write_csv(file, include_header=False)
                done, rows = done + len(chunk), rows + len(frame)
                fewer += len(chunk) - int((frame["rank"] == question.n).sum())
                progress("users", done, len(distinct))
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    known = [row for one in distinct if (row := run.users.row(one)) is not None]
    return Summary(
        users=len(distinct),
        rows=rows,
        repeated=len(user_ids) - len(distinct),
        unknown=len(distinct) - len(known),
        no_history=int((run.users.lengths[known] == 0).sum()),
        fewer=fewer,
        seconds=round(time.monotonic() - started, 1),
    )


def check_count(run: Run, n: int) -> None:
    """Raise BadInput where `run` cannot answer with `n` items."""
    answers = run.blueprint.limits.answers
    if not 1 <= n <= answers:
        raise BadInput(f"-n is {n}", remedy=f"This run gives 1 to {answers} items.")


def best(run: Run, user_ids: Sequence[str], question: Question) -> pl.DataFrame:
    """The columns of HEADER for users of one chunk, in their order, best items first.

    Raises RunError where the graph gives a user nothing though items are left.
    """
    end = int(run.users.times.max())
    asked = [request_of(run, user_id, question, end) for user_id in user_ids]
    item, score = (a[:, : question.n] for a in rank(run.graph, asked, run.blueprint.limits))
    _check_answered(run, user_ids, asked, item)
    user, place = np.nonzero(item)  # index 0 is no item: the answer was shorter
    return pl.DataFrame(
        {
            USER_ID: pl.Series(user_ids, dtype=pl.String).gather(user),
            "item_id": pl.Series(run.blueprint.catalogue.item_ids).gather(item[user, place] - 1),
            "rank": place + 1,
            "score": score[user, place],
        },
        schema_overrides={"score": pl.Float32},
    )


def _check_answered(
    run: Run, user_ids: Sequence[str], asked: Sequence[Request], item: Array
) -> None:
    """Broken weights (NaN) rank nothing: that is no short answer, and must not pass for one."""
    limits, items = run.blueprint.limits, len(run.blueprint.catalogue)
    for row in np.flatnonzero(item[:, 0] == 0):
        seen = len(asked[row].exclude)
        if seen < items and seen <= limits.exclude:
            raise RunError(
                f"the run ranks nothing for user {shown(user_ids[row])}, though {items - seen} "
                "items are left: its weights are not all numbers",
                remedy="Train the run again, with a lower training.learning_rate.",
            )


def request_of(run: Run, user_id: str, question: Question, end: int) -> Request:
    """What the user asks; `end` is the end of the data, the moment of who has no event."""
    row = run.users.row(user_id)
    history = EMPTY if row is None else run.users.history(row)
    last = int(history.times[-1]) if len(history) else end
    seen = run.blueprint.repurchase if question.allow_seen is None else question.allow_seen
    return Request(
        history=history,
        request_time=last if question.at is None else question.at,
        user_features=None if row is None else run.users.features[row],
        exclude=EMPTY.items if seen else _newest_first(history.items),
    )


def _newest_first(items: Array) -> Array:
    """Each once: what exceeds the release's E is the oldest, and dropped after the answer."""
    return np.array(list(dict.fromkeys(items[::-1].tolist())), np.int64)


def _chunks(user_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(user_ids), CHUNK):
        yield user_ids[at : at + CHUNK]
