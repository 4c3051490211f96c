"""The choices of the `[data]` table: what each leaves out, keeps apart and reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_folders import events, history, items, write
from typer.testing import CliRunner

from recommender.data.config import DataConfig
from recommender.data.dataset import Dataset, load
from recommender.data.report import Report
from recommender.errors import BadInput, DataError
from recommender.users import Users
from serving.commands.data import data

T = 900_000_000
HOUR, DAY = 3_600, 86_400
EVENT = "user_id item_id timestamp event"
RATING = "user_id item_id timestamp rating"


def loaded(
    tmp_path: Path, *rows: tuple[object, ...], columns: str = EVENT, **choices: object
) -> tuple[Dataset, Report]:
    folder = write(tmp_path, interactions=events(*rows, columns=columns), items=items(*"abcdef"))
    return load(folder, DataConfig.from_table(choices))


def steps(dataset: Dataset, user_id: str = "u") -> list[tuple[str, int]]:
    """The items of a history and the hours at which they came."""
    return [(item, (time - T) // HOUR) for item, time, _ in history(dataset, user_id)]


def reasons(report: Report) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {d.reason: (d.count, d.rows) for d in report.dropped}


# Events and returns


def test_a_return_stays_in_the_history_but_neither_it_nor_the_purchase_is_a_target(
    tmp_path: Path,
) -> None:
    dataset, report = loaded(
        tmp_path,
        ("t", "a", T, "purchase"),
        ("u", "a", T, "view"),
        ("u", "a", T + HOUR, "purchase"),
        ("u", "b", T + 2 * HOUR, "purchase"),
        ("u", "a", T + 3 * HOUR, "return"),
        ("u", "a", T + 4 * HOUR, "purchase"),
    )
    assert [weight for *_, weight in history(dataset, "u")] == [1, 4, 4, -2, 4]
    assert dataset.users.negative is not None
    assert dataset.users.negative.tolist() == [False, False, False, False, True, False]
    # what t did has nothing to do with it, and what u buys after the return counts again
    assert dataset.users.targets.tolist() == [True, False, False, True, False, True]
    assert (report.negative_events, report.taken_back) == (1, 2)


def test_what_was_returned_gains_no_popularity(tmp_path: Path) -> None:
    dataset, _ = loaded(
        tmp_path,
        ("u", "a", T, "purchase"),
        ("u", "a", T, "return"),
        ("u", "b", T, "dislike"),
        ("u", "c", T, "purchase"),
    )
    assert (dataset.catalogue.popularity > 0).tolist() == [False, False, True, False, False, False]


def test_before_the_return_is_known_the_purchase_is_a_target(tmp_path: Path) -> None:
    dataset, _ = loaded(tmp_path, ("u", "a", T, "purchase"), ("u", "a", T + DAY, "return"))
    whole = dataset.users
    assert whole.negative is not None
    before = Users(
        user_ids=whole.user_ids,
        features=whole.features,
        offsets=np.array([0, 1]),
        items=whole.items[:1],
        times=whole.times[:1],
        weights=whole.weights[:1],
        negative=whole.negative[:1],
    )
    assert before.targets.tolist() == [True]
    assert whole.targets.tolist() == [False, False]


def test_a_low_rating_is_a_target_all_the_same(tmp_path: Path) -> None:
    dataset, report = loaded(tmp_path, ("u", "a", T, 1), ("u", "b", T + HOUR, 5), columns=RATING)
    assert [weight for *_, weight in history(dataset, "u")] == [-2, 2]
    assert dataset.users.negative is None
    assert dataset.users.targets.all()
    assert report.negative_events == 0


def test_the_marks_of_returns_survive_the_release_file(tmp_path: Path) -> None:
    rows = [("u", "a", T, "purchase"), ("u", "a", T + 1, "return"), ("v", "b", T, "view")]
    dataset, _ = loaded(tmp_path, *rows)
    dataset.users.write(tmp_path)
    assert Users.read(tmp_path).targets.tolist() == dataset.users.targets.tolist()
    plain, _ = loaded(tmp_path, *rows[2:])
    plain.users.write(tmp_path)
    assert Users.read(tmp_path).negative is None


def test_an_event_of_weight_0_is_left_out(tmp_path: Path) -> None:
    dataset, report = loaded(
        tmp_path,
        ("u", "a", T, "Impression"),
        ("u", "b", T + HOUR, "view"),
        event_weights={"impression": 0},
    )
    assert steps(dataset) == [("b", 1)]
    assert reasons(report) == {"event of weight 0": (1, (1,))}
    assert report.unknown_events == {}


# Ratings as a filter


def test_min_rating_keeps_what_is_rated_high_or_not_at_all(tmp_path: Path) -> None:
    rated = zip("abcd", (5, 3.5, 4, None), strict=True)
    rows = [("u", item, T + n * HOUR, rating) for n, (item, rating) in enumerate(rated)]
    dataset, report = loaded(tmp_path, *rows, columns=RATING, min_rating=4)
    assert history(dataset, "u") == [("a", T, 1), ("c", T + 2 * HOUR, 1), ("d", T + 3 * HOUR, 1)]
    assert dataset.mean_rating is None
    assert reasons(report) == {"rated below 4": (1, (2,))}
    assert report.warnings == ()


def test_min_rating_without_ratings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"min_rating is 4 and no interaction has a rating"):
        loaded(tmp_path, ("u", "a", T, "view"), min_rating=4)


def test_a_choice_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no interaction is left: .*1 × rated below 6.*Loosen"):
        loaded(tmp_path, ("u", "a", T, 5), columns=RATING, min_rating=6)


# Repeats


def test_an_act_repeated_at_once_counts_once_the_last_time(tmp_path: Path) -> None:
    seconds = [0, 5, 65, 126, 127, 200]
    names = ["view"] * 4 + ["cart", "cart"]
    rows = [("u", "a", T + s, n) for s, n in zip(seconds, names, strict=True)]
    dataset, report = loaded(tmp_path, *rows, ("v", "a", T + 61, "view"))
    assert [time - T for _, time, _ in history(dataset, "u")] == [65, 126, 127, 200]
    assert reasons(report) == {"repeated within 60 s": (2, (1, 2))}
    dataset, report = loaded(tmp_path, *rows, burst_seconds=0)
    assert len(history(dataset, "u")) == 6
    assert report.dropped == ()


def test_another_act_in_between_or_another_rating_is_no_repetition(tmp_path: Path) -> None:
    _, report = loaded(
        tmp_path, ("u", "a", T, "view"), ("u", "b", T + 1, "view"), ("u", "a", T + 2, "view")
    )
    assert report.dropped == ()
    _, report = loaded(tmp_path, ("u", "a", T, 4), ("u", "a", T + 1, 5), columns=RATING)
    assert report.dropped == ()


@pytest.mark.parametrize(
    ("repeats", "wanted"),
    [
        ("keep", [("a", 0), ("b", 1), ("a", 2), ("a", 3), ("b", 4), ("a", 5)]),
        ("last", [("a", 2), ("a", 3), ("b", 4), ("a", 5)]),
        ("first", [("a", 0), ("b", 1), ("a", 3), ("a", 5)]),
    ],
)
def test_repeats_keep_all_the_last_or_the_first_and_every_return(
    repeats: str, wanted: list[tuple[str, int]], tmp_path: Path
) -> None:
    names = ["purchase", "view", "purchase", "return", "view", "return"]
    acts = zip("abaaba", names, strict=True)
    rows = [("u", item, T + n * HOUR, name) for n, (item, name) in enumerate(acts)]
    dataset, report = loaded(tmp_path, *rows, ("v", "a", T, "view"), repeats=repeats)
    assert steps(dataset) == wanted
    assert steps(dataset, "v") == [("a", 0)]
    assert report.interactions == len(wanted) + 1
    assert sum(d.count for d in report.dropped) == 6 - len(wanted)


def test_repurchase_is_recorded_and_is_another_data_set(tmp_path: Path) -> None:
    rows = [("u", "a", T, "purchase"), ("u", "a", T + DAY, "purchase")]
    never, report = loaded(tmp_path, *rows)
    again, allowed = loaded(tmp_path, *rows, repurchase=True)
    assert (never.repurchase, again.repurchase) == (False, True)
    assert never.digest != again.digest
    assert (report.repeated, allowed.repeated) == (1, 1)
    assert "never recommended again" in "\n".join(report.lines())
    assert "may be recommended again" in "\n".join(allowed.lines())


# Bots


def test_of_a_bot_only_the_newest_events_count_and_it_is_named(tmp_path: Path) -> None:
    bot = [("bot", "abcdef"[n % 6], T + n * HOUR, "view") for n in range(9)]
    dataset, report = loaded(tmp_path, *bot, ("u", "a", T, "view"), max_events_per_user=4)
    assert steps(dataset, "bot") == [("f", 5), ("a", 6), ("b", 7), ("c", 8)]
    assert steps(dataset) == [("a", 0)]
    (dropped,) = report.dropped
    assert (dropped.count, dropped.rows) == (5, (1, 2, 3))
    assert str(dropped).endswith("older than the user's newest 4 (column user_id, row 1, 2, 3, …: "
                                 "of 'bot' 5)")  # fmt: skip


def test_a_cap_per_day_counts_each_day_for_itself(tmp_path: Path) -> None:
    day = T // DAY * DAY
    hours = [0, 1, 2, 24, 25, 49]
    rows = [("u", "abcdef"[n], day + h * HOUR, "view") for n, h in enumerate(hours)]
    dataset, report = loaded(tmp_path, *rows, max_events_per_day=2)
    assert [item for item, *_ in history(dataset, "u")] == ["b", "c", "d", "e", "f"]
    assert reasons(report) == {"older than the newest 2 of the user's day": (1, (1,))}


def test_a_suspicious_user_is_named_and_kept(tmp_path: Path) -> None:
    rows = [("bot", "abcdef"[n % 6], T + n * 97, "view") for n in range(1_500)]
    rows += [(f"u{n}", "a", T + n * 101, "view") for n in range(30)]
    _, report = loaded(tmp_path, *rows)
    assert report.longest_history == 1_500
    assert any(
        "many times the usual 1 events: 1, such as 'bot' 1,500" in w for w in report.warnings
    )


def test_many_events_are_not_suspicious_where_everybody_has_them(tmp_path: Path) -> None:
    rows = [(f"u{n % 2}", "abcdef"[n % 6], T + n * 97 + n % 13, "view") for n in range(2_400)]
    assert loaded(tmp_path, *rows)[1].warnings == ()


def test_what_is_left_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    frame = events(("z", "y", T + 9), ("a", "x", T), ("z", "x", T + 10), ("m", "w", T))
    dataset, _ = load(write(tmp_path, interactions=frame, items=items("y")))
    assert dataset.users.user_ids == ("z", "a", "m")
    assert dataset.catalogue.item_ids == ("y", "x", "w")


# The config


def test_the_folders_own_file_is_overruled_by_the_named_one_and_that_by_settings(
    tmp_path: Path,
) -> None:
    (tmp_path / "recserve.toml").write_text(
        "[data]\nbins = 3\nrepeats = 'last'\nburst_seconds = 7\nevent_weights.view = 0.5\n"
    )
    other = tmp_path / "other.toml"
    other.write_text("[data]\nbins = 4\nevent_weights.cart = 3\n[training]\nepochs = 2\n")
    settings = ["training.epochs=9", "data.repeats=first", "data.event_weights.wave=2"]
    config = DataConfig.of(tmp_path, other, settings)
    assert (config.bins, config.repeats, config.burst_seconds) == (4, "first", 7)
    weights = config.event_weights
    assert [weights[n] for n in ("view", "cart", "wave", "purchase")] == [0.5, 3, 2, 4]
    assert DataConfig.of(tmp_path / "elsewhere") == DataConfig()


def test_a_folder_is_read_as_its_own_file_says(tmp_path: Path) -> None:
    (tmp_path / "recserve.toml").write_text("[data]\nrepurchase = true\n")
    folder = write(tmp_path, interactions=events(("u", "a", T)), items=items("a"))
    assert load(folder)[0].repurchase


def test_another_table_in_the_folders_own_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recserve.toml").write_text("[data]\nbins = 3\n[training]\nepochs = 3\n")
    with pytest.raises(BadInput, match=r"sets 'training'.*Move training to another file"):
        DataConfig.of(tmp_path)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.min_rating", "is not data.key=value"),
        ("data.min_rating=high", "data.min_rating is 'high'. Give a number"),
        ("data.repeats=never", "data.repeats is 'never'. Choose keep, last, first"),
        ("data.repurchase=yes", "data.repurchase is 'yes'. Give true or false"),
        ("data.session_gap=-1", "data.session_gap is -1. Give a whole number from 0"),
        ("data.max_events=5", "data.max_events does not exist"),
        ("training.epochs=5", "is not data.key=value"),
    ],
)
def test_a_wrong_setting_is_bad_usage(setting: str, said: str, tmp_path: Path) -> None:
    write(tmp_path, interactions=events(("u", "a", T)), items=items("a"))
    done = CliRunner().invoke(data, ["check", str(tmp_path), "--set", setting])
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)


def test_check_takes_settings_and_reports_what_they_do(tmp_path: Path) -> None:
    frame = events(("u", "a", T, 2), ("u", "b", T + 1, 5), columns=RATING)
    write(tmp_path, interactions=frame, items=items("a", "b"))
    done = CliRunner().invoke(
        data, ["check", str(tmp_path), "--json", "--set", "data.min_rating=3"]
    )
    report = json.loads(done.output)
    assert report["interactions"] == 1
    assert report["dropped"][0]["reason"] == "rated below 3"


def test_a_null_event_and_a_null_rating_are_no_obstacle_to_any_choice(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["u"] * 4,
            "item_id": ["a", "a", "b", "b"],
            "timestamp": [T, T + 1, T + HOUR, T + 2 * HOUR],
            "event": ["view", None, None, None],
            "rating": [None, None, 4.0, None],
        }
    )
    folder = write(tmp_path, interactions=frame, items=items("a", "b"))
    table = {"repeats": "last", "min_rating": 3, "max_events_per_user": 3, "max_events_per_day": 9}
    dataset, _ = load(folder, DataConfig.from_table(table))
    assert steps(dataset) == [("a", 0), ("b", 2)]
