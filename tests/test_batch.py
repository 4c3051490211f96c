"""`recserve batch`: every listed user gets the graph's best items, in a CSV whole or absent."""

from __future__ import annotations

import csv
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recommender import batch
from recommender.batch import Question, read_ids, write_batch
from recommender.catalogue import Catalogue
from recommender.contract import Array
from recommender.errors import BadInput, RunError
from recommender.evaluate import rank
from recommender.features import Request
from recommender.runs import Run
from recommender.users import Users
from serving.cli import run as recserve

STRANGER = 'Smith, "Jo"'
Rows = list[dict[str, str]]


def _read(path: Path) -> Rows:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _items(rows: Rows, user_id: str) -> list[str]:
    return [row["item_id"] for row in rows if row["user_id"] == user_id]


def _expected(run: Run, request: Request, n: int) -> list[str]:
    items, _ = rank(run.graph, [request], run.blueprint.limits)
    return [run.blueprint.catalogue.item_id(int(i)) for i in items[0, :n] if i]


def _request(run: Run, row: int, at: int | None = None, *, seen: bool = False) -> Request:
    history = run.users.history(row)
    return Request(
        history=history,
        request_time=int(history.times[-1]) if at is None else at,
        user_features=run.users.features[row],
        exclude=np.zeros(0, np.int64) if seen else history.items,
    )


def test_every_user_gets_the_best_items_of_the_graph_at_the_last_event(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "all.csv"
    summary = write_batch(run, run.users.user_ids, Question(n=7), out)
    rows = _read(out)
    assert out.read_text().startswith("user_id,item_id,rank,score\n")
    assert summary.users == len(run.users)
    assert summary.rows == len(rows) == 7 * len(run.users)
    assert [row["user_id"] for row in rows] == list(np.repeat(run.users.user_ids, 7))
    assert [row["rank"] for row in rows] == list("1234567") * len(run.users)
    for row in (0, 150, len(run.users) - 1):
        expected = _expected(run, _request(run, row), 7)
        assert _items(rows, run.users.user_ids[row]) == expected
    scores = [float(row["score"]) for row in rows[:7]]
    assert scores == sorted(scores, reverse=True)


def test_the_scores_written_are_those_of_the_graph(run: Run, tmp_path: Path) -> None:
    write_batch(run, run.users.user_ids[:1], Question(n=5), tmp_path / "one.csv")
    _, score = rank(run.graph, [_request(run, 0)], run.blueprint.limits)
    written = np.array([row["score"] for row in _read(tmp_path / "one.csv")]).astype(np.float32)
    assert (written == score[0, :5]).all()


def test_what_was_seen_comes_back_only_when_allowed(run: Run, tmp_path: Path) -> None:
    ids = run.users.user_ids
    write_batch(run, ids, Question(), tmp_path / "new.csv")
    write_batch(run, ids, Question(allow_seen=True), tmp_path / "any.csv")
    assert not _seen_again(run, _read(tmp_path / "new.csv"))
    assert _seen_again(run, _read(tmp_path / "any.csv"))
    expected = _expected(run, _request(run, 3, seen=True), 20)
    assert _items(_read(tmp_path / "any.csv"), ids[3]) == expected


def _seen_again(run: Run, rows: Rows) -> list[str]:
    seen = {
        (user_id, run.blueprint.catalogue.item_id(int(item)))
        for user_id, history in zip(run.users.user_ids, run.users.histories(), strict=True)
        for item in history.items
    }
    return [row["item_id"] for row in rows if (row["user_id"], row["item_id"]) in seen]


def test_seen_items_beyond_the_exclusions_of_the_graph_are_dropped_too(
    run: Run, tmp_path: Path
) -> None:
    small = replace(run.blueprint, limits=replace(run.blueprint.limits, exclude=2))
    narrow = replace(run, blueprint=small)
    summary = write_batch(narrow, run.users.user_ids[:50], Question(n=5), tmp_path / "narrow.csv")
    assert min(run.users.lengths[:50]) > 2
    assert summary.fewer == 0
    rows = _read(tmp_path / "narrow.csv")
    assert not _seen_again(run, rows)
    write_batch(run, run.users.user_ids[:50], Question(n=5), tmp_path / "wide.csv")
    assert rows == _read(tmp_path / "wide.csv")


def test_at_is_the_moment_of_every_request(run: Run, tmp_path: Path) -> None:
    at = int(run.users.times.min())
    write_batch(run, run.users.user_ids[:40], Question(at=at), tmp_path / "then.csv")
    for row in (0, 39):
        expected = _expected(run, _request(run, row, at), 20)
        assert _items(_read(tmp_path / "then.csv"), run.users.user_ids[row]) == expected


def test_users_without_events_are_answered_from_their_features_at_the_end_of_the_data(
    run: Run, tmp_path: Path
) -> None:
    users = run.users
    lengths = np.where(np.arange(len(users)) == 4, 0, users.lengths)
    keep = np.repeat(lengths > 0, users.lengths)
    without = Users(
        user_ids=users.user_ids,
        features=users.features,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=users.items[keep],
        times=users.times[keep],
        weights=users.weights[keep],
    )
    out = tmp_path / "cold.csv"
    ids = [users.user_ids[4], STRANGER]
    summary = write_batch(replace(run, users=without), ids, Question(n=10), out)
    end = int(without.times.max())
    known = Request(request_time=end, user_features=users.features[4])
    assert _items(_read(out), users.user_ids[4]) == _expected(run, known, 10)
    assert _items(_read(out), STRANGER) == _expected(run, Request(request_time=end), 10)
    assert (summary.no_history, summary.unknown, summary.rows) == (1, 1, 20)


def test_ids_with_commas_and_quotes_survive_the_csv(run: Run, tmp_path: Path) -> None:
    catalogue = run.blueprint.catalogue
    ids = tuple(f'{item}, "new"' for item in catalogue.item_ids)
    odd = Catalogue(
        item_ids=ids,
        titles=catalogue.titles,
        categories=catalogue.categories,
        popularity=catalogue.popularity,
    )
    named = replace(run, blueprint=replace(run.blueprint, catalogue=odd))
    write_batch(named, [STRANGER], Question(n=3), tmp_path / "odd.csv")
    rows = _read(tmp_path / "odd.csv")
    assert [row["user_id"] for row in rows] == [STRANGER] * 3
    assert {row["item_id"] for row in rows} <= set(ids)


def test_the_size_of_chunks_changes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = run.users.user_ids[:100]
    write_batch(run, ids, Question(), tmp_path / "one.csv")
    monkeypatch.setattr(batch, "CHUNK", 7)
    write_batch(run, ids, Question(), tmp_path / "many.csv")
    one, many = _read(tmp_path / "one.csv"), _read(tmp_path / "many.csv")
    assert [list(row.values())[:3] for row in one] == [list(row.values())[:3] for row in many]
    assert np.allclose(_scores(one), _scores(many), atol=1e-4)


def _scores(rows: Rows) -> Array:
    return np.array([float(row["score"]) for row in rows])


def test_more_items_than_are_left_gives_a_shorter_answer_and_says_so(
    run: Run, tmp_path: Path
) -> None:
    catalogue, k = len(run.blueprint.catalogue), run.blueprint.limits.answers
    seen = np.arange(1, catalogue - k + 11)
    busy = _with_history(run, seen)
    summary = write_batch(busy, run.users.user_ids[:1], Question(n=k), tmp_path / "short.csv")
    assert summary.fewer == 1
    assert summary.rows == k - 10


def _with_history(run: Run, items: Array) -> Run:
    """The run with its first user alone, who has had all of `items` at once."""
    return replace(
        run,
        users=Users(
            user_ids=run.users.user_ids[:1],
            features=run.users.features[:1],
            offsets=np.array([0, len(items)]),
            items=items,
            times=np.full(len(items), run.users.times.max()),
            weights=np.ones(len(items), np.float32),
        ),
    )


def test_a_run_whose_weights_are_no_numbers_is_refused(run: Run, tmp_path: Path) -> None:
    broken = deepcopy(run.graph)
    for weight in broken.state_dict().values():
        if weight.is_floating_point():
            weight.fill_(float("nan"))
    with pytest.raises(RunError, match="not all numbers"):
        write_batch(replace(run, graph=broken), ["new"], Question(), tmp_path / "nan.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_batch_leaves_nothing_and_an_old_file_as_it_was(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "batch.csv"
    out.write_text("old")

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_batch(run, run.users.user_ids, Question(), out, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["batch.csv"]
    assert out.read_text() == "old"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("7\n\n  8 \n007\n", ["7", "8", "007"]),
        ("7\r\n8", ["7", "8"]),
        ("\ufeff7\n8\n", ["7", "8"]),
        ("a,b\n", ["a,b"]),
        ("user_id\n7\n8\n", ["7", "8"]),
        ("\ufeffuser_id,age\n7,30\n\n8,\n", ["7", "8"]),
        ('age,user_id\n"1,5",007\n,"a, ""b"""\n', ["007", 'a, "b"']),
        ("7\n8\n7\n", ["7", "8", "7"]),
    ],
)
def test_lists_of_users_are_read_as_lines_or_as_a_column(
    tmp_path: Path, text: str, ids: list[str]
) -> None:
    (tmp_path / "users").write_text(text, newline="")
    assert read_ids(tmp_path / "users") == ids


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "names no user"),
        (b"user_id,age\n", "names no user"),
        (b"7\n\xff\n", "UTF-8"),
        (b"user_id;age\n7;30\n", "separated by ';'"),
        (b"user_id,age\n7,30\n,31\n", "line 3"),
        (b'user_id,age\n"7,30\n', "line 2"),
        (b"7\n8\x009\n", "line 2"),
    ],
)
def test_a_list_that_is_none_is_refused_with_its_line(
    tmp_path: Path, content: bytes, named: str
) -> None:
    (tmp_path / "users").write_bytes(content)
    with pytest.raises(BadInput, match=named) as refusal:
        read_ids(tmp_path / "users")
    assert "\n" not in str(refusal.value)


def test_the_command_writes_the_file_and_a_summary(
    run: Run, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users, out = tmp_path / "users.csv", tmp_path / "out.csv"
    users.write_text(f"age,user_id\n3,{run.users.user_ids[5]}\n4,nobody\n5,nobody\n")
    arguments = ["batch", str(run_folder), "--users", str(users), "--out", str(out), "-n", "4"]
    assert recserve([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["users"], summary["rows"], summary["repeated"], summary["unknown"]) == (
        2, 8, 1, 1,
    )  # fmt: skip
    assert _items(_read(out), run.users.user_ids[5]) == _expected(run, _request(run, 5), 4)
    written = out.read_text()

    assert recserve(arguments) == 2  # never over a file that is there
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == written
    at_another_time = [*arguments, "--at", str(int(run.users.times.min())), "--overwrite"]
    assert recserve(at_another_time) == 0
    assert "2 users" in capsys.readouterr().out
    assert out.read_text() != written


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["-n", "101"], "1 to 100"),
        (["-n", "0"], "-n"),
        (["--at", "yesterday"], "unix seconds"),
        (["--at", "1743000000000"], "unix seconds"),
        (["--users", "nowhere.csv"], "nowhere.csv"),
        (["--out", "."], "folder"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, flags: list[str], named: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = {"--users": "all", "--out": "out.csv", **dict([flags])}
    code = recserve(["batch", str(run_folder), *(part for pair in given.items() for part in pair)])
    assert code == (1 if named == "nowhere.csv" else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert list(tmp_path.iterdir()) == []
