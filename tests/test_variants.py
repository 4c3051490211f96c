"""Who is drawn for which variant, when a canary is worse, and what an index may say of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from bento_process import write_release
from test_service import LIMITS
from typer.testing import CliRunner

from bento.canary import BESIDE, WINDOW, Judge, Outcome
from export.index import choose, gc, locked, write_index
from recommender.errors import ReleaseError
from recommender.release import read_index, read_release
from recommender.variants import Variant, copied, drawn
from serving.commands.variants import variants as commands

MODELS = ("recommender_onnx", "recommender_torchscript", "ranker")
USERS = [f"user-{i}" for i in range(40_000)]
A, B, CANARY, SHADOW = (
    Variant(name="a", release=2, share=10),
    Variant(name="b", release=3, share=20),
    Variant(name="c", release=4, share=15, role="canary"),
    Variant(name="s", release=5, share=30, role="shadow"),
)


def drawn_for(*variants: Variant) -> list[str]:
    """Of every user, the name of the variant."""
    return [v.name if (v := drawn(variants, user)) else "default" for user in USERS]


def moved(before: list[str], after: list[str]) -> Counter[tuple[str, str]]:
    return Counter((b, a) for b, a in zip(before, after, strict=True) if b != a)


# Who is drawn


def test_shares_are_kept_within_what_chance_allows() -> None:
    seen = Counter(drawn_for(A, B, CANARY, SHADOW))
    for name, share in {"a": 0.1, "b": 0.2, "c": 0.15, "default": 0.55}.items():
        spread = (len(USERS) * share * (1 - share)) ** 0.5
        assert abs(seen[name] - len(USERS) * share) < 5 * spread, (name, seen)
    assert seen["s"] == 0


def test_a_draw_is_the_same_everywhere_and_for_ever() -> None:
    """Pinned: whoever changes the hash gives every running test new users."""
    first = [v.name if (v := drawn((A, B, CANARY), f"u{i}")) else "-" for i in range(24)]
    assert "".join(first) == "b----bba-b-b--------a-cb"
    assert drawn_for(A, B, CANARY) == drawn_for(CANARY, A, B)


def test_all_users_are_drawn_where_the_shares_leave_nobody() -> None:
    assert set(drawn_for(replace(A, share=100))) == {"a"}
    assert set(drawn_for(replace(A, share=60), replace(B, share=40))) == {"a", "b"}
    assert set(drawn_for(replace(A, share=60), replace(CANARY, share=40))) == {"a", "c"}


def test_a_share_that_grows_takes_users_and_hardly_moves_others() -> None:
    assert set(moved(drawn_for(A, B), drawn_for(A, replace(B, share=30)))) == {("default", "b")}
    moves = moved(drawn_for(A, B), drawn_for(replace(A, share=20), B))
    assert all(name != "a" for name, _ in moves), "nobody leaves it"
    others = sum(count for (_, to), count in moves.items() if to != "a")
    # 10% of users must move; with plain cumulative shares another 10% would, from b.
    assert others < 0.03 * len(USERS), moves


def test_a_variant_that_is_added_takes_from_the_default_alone() -> None:
    assert set(moved(drawn_for(A), drawn_for(A, B))) == {("default", "b")}


def test_a_canary_that_comes_and_goes_moves_nobody_of_an_ab_test() -> None:
    assert set(moved(drawn_for(A, B), drawn_for(A, B, CANARY))) == {("default", "c")}


def test_an_experiment_of_another_name_draws_other_users() -> None:
    one, two = drawn_for(A), drawn_for(replace(A, name="z"))
    both = sum(x == "a" and y == "z" for x, y in zip(one, two, strict=True))
    assert both == pytest.approx(0.01 * len(USERS), rel=0.25)  # a tenth of a tenth: independent


def test_a_shadow_gets_its_part_of_the_requests() -> None:
    seen = sum(copied(SHADOW, user) for user in USERS)
    assert abs(seen - 0.3 * len(USERS)) < 5 * (0.21 * len(USERS)) ** 0.5
    assert all(copied(replace(SHADOW, share=100), user) for user in USERS)


# When a canary is worse

FINE, SLOW, FAILED = Outcome(False, 0.010), Outcome(False, 0.016), Outcome(True, 0.010)


def judged(judge: Judge, canary: list[Outcome], default: list[Outcome]) -> list[str]:
    """Why it must stop, whenever it is said; requests alternate."""
    said = []
    for its, theirs in zip(canary, default, strict=True):
        said.append(judge.canary(its))
        judge.default(theirs)
    return [reason for reason in said if reason]


def judge(**margins: float) -> Judge:
    return Judge(replace(CANARY, **{"after": 100, "error_margin": 0.05, **margins}))


def test_a_canary_stops_beyond_its_error_margin_and_not_at_it() -> None:
    at, beyond = [FAILED] * 5 + [FINE] * 95, [FAILED] * 6 + [FINE] * 94
    assert not judged(judge(), at, [FINE] * 100)
    (reason,) = judged(judge(), beyond, [FINE] * 100)
    assert reason.startswith("6.0% of 100 requests fell back, 0.0% of 99 of the default")


def test_it_is_judged_after_its_least_number_of_requests_and_not_before() -> None:
    assert not judged(judge(), [FAILED] * 99, [FINE] * 99)
    assert len(judged(judge(), [FAILED] * 100, [FINE] * 100)) == 1


def test_a_canary_stops_beyond_its_latency_margin_and_not_below_it() -> None:
    assert not judged(judge(latency_margin=0.7), [SLOW] * 200, [FINE] * 200)
    reason = judged(judge(latency_margin=0.5), [SLOW] * 200, [FINE] * 200)[0]
    assert "p95 of 110 requests is 16.0 ms, of 109 of the default 10.0 ms" in reason
    few = [FINE] * 90 + [SLOW] * 4 + [FINE] * 6  # a twentieth at most
    assert not judged(judge(), few * 5, [FINE] * 500)


def test_an_outage_of_both_rolls_nobody_back_also_while_it_ends() -> None:
    """The default has nine times the traffic: over its last requests alone, its outage would be
    over while the canary's is not."""
    its = judge(latency_margin=100)
    for phase in (FINE, FAILED, FINE):
        for _ in range(300):
            assert its.canary(phase) is None
            for _ in range(9):
                its.default(phase)


def test_what_is_long_past_counts_no_more() -> None:
    its = judge()
    assert not judged(its, [FINE] * (WINDOW + 500), [FINE] * (WINDOW + 500))
    assert judged(its, [FAILED] * 60, [FINE] * 60)
    worn = judge(error_margin=0.5)
    judged(worn, [FAILED] * 400, [FAILED] * 400)
    assert not judged(worn, [FINE] * WINDOW, [FINE] * WINDOW)
    assert not judged(worn, [FAILED] * 490, [FINE] * 490)
    assert BESIDE < WINDOW


# What an index may say

GOOD = {"name": "b", "release": 1, "model": None, "role": "ab", "share": 10}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_release(tmp_path, LIMITS, items=30, models=MODELS)
    return tmp_path


def test_an_index_without_variants_has_none_and_one_with_them_is_written_as_read(
    repository: Path,
) -> None:
    index = read_index(repository)
    assert index.variants == ()
    mine = (replace(A, release=1), replace(CANARY, release=1, after=7), replace(SHADOW, release=1))
    write_index(repository, replace(index, variants=mine))
    assert read_index(repository).variants == mine
    raw = json.loads((repository / "releases.json").read_text())["variants"]
    assert raw[0] == {"name": "a", "release": 1, "model": None, "role": "ab", "share": 10}
    assert raw[1]["after"] == 7


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ({}, "releases.json has variants {} instead of a list"),
        (["b"], "releases.json has 'b' as variant 1 instead of an object"),
        ([{**GOOD, "name": 7}], "variant 7 has name 7 instead of a text"),
        ([{**GOOD, "name": "default"}], "variant 'default' has a name that is taken"),
        ([{**GOOD, "name": "B b"}], "variant 'B b' has a name"),
        ([{k: v for k, v in GOOD.items() if k != "share"}], "variant 'b' has no share"),
        ([{**GOOD, "share": "10"}], "variant 'b' has share '10' instead of a number"),
        ([{**GOOD, "share": True}], "variant 'b' has share True instead of a number"),
        ([{**GOOD, "share": 0}], "variant 'b' has share 0, not above 0"),
        ([{**GOOD, "share": 101}], "variant 'b' has share 101, not above 0"),
        ([{**GOOD, "share": float("nan")}], "variant 'b' has share nan, not above 0"),
        ([{**GOOD, "release": 9}], "variant 'b' has release 9, which is none of the releases 1"),
        ([{**GOOD, "release": None}], "variant 'b' has release None instead of a whole number"),
        ([{**GOOD, "model": 3}], "variant 'b' has model 3 instead of a text or null"),
        ([{**GOOD, "role": "boss"}], "variant 'b' has role 'boss', not ab, canary, shadow"),
        ([{**GOOD, "after": 9}], "variant 'b' has 'after', which no 'ab' has"),
        ([{**GOOD, "colour": 9}], "variant 'b' has 'colour', which no 'ab' has"),
        ([{**GOOD, "role": "canary", "after": 0}], "variant 'b' has after 0, not from 1"),
        ([{**GOOD, "role": "canary", "error_margin": 2}], "has error_margin 2, not from 0 to 1"),
        ([{**GOOD, "role": "canary", "latency_margin": -1}], "has latency_margin -1, not from 0"),
        ([GOOD, GOOD], "two variants are called 'b'"),
        ([{**GOOD, "share": 60}, {**GOOD, "name": "c", "share": 41}], "have 101% of the users"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_variants_are_refused_in_one_line(
    repository: Path, variants: object, words: str
) -> None:
    path = repository / "releases.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "variants": variants}))
    with pytest.raises(ReleaseError) as refusal:
        read_index(repository)
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_promoted_is_a_variant_no_more_but_for_its_other_models(
    repository: Path,
) -> None:
    write_release(repository, LIMITS, items=30, models=MODELS, version=2)
    index = replace(read_index(repository), serving=1)
    mine = (replace(A, release=2), replace(B, release=2, model=MODELS[0]),
            replace(CANARY, release=2, model=MODELS[1]), replace(SHADOW, release=1))  # fmt: skip
    write_index(repository, replace(index, variants=mine))
    with locked(repository):
        choose(repository, read_release(repository, 2))
    assert [variant.name for variant in read_index(repository).variants] == ["c", "s"]
    assert (read_index(repository).serving, read_index(repository).previous) == (2, 1)


def test_gc_keeps_the_releases_of_variants(repository: Path) -> None:
    for version in (2, 3, 4):
        write_release(repository, LIMITS, items=30, models=MODELS, version=version)
    write_index(repository, replace(read_index(repository), variants=(replace(A, release=2),)))
    gc(repository, keep=1)
    assert sorted(read_index(repository).releases) == [2, 4]


# The command line, with no server running


def recserve(repository: Path, *arguments: str) -> str:
    """What `recserve variants` prints; what it raises is raised."""
    command = [*arguments, "--repository", str(repository)]
    done = CliRunner().invoke(commands, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_variants_are_added_replaced_listed_and_removed(repository: Path) -> None:
    recserve(repository, "add", "b", "--release", "1", "--share", "10")
    recserve(repository, "add", "c", "--release", "1", "--share", "5", "--role", "canary",
             "--after", "50", "--error-margin", "0.1", "--latency-margin", "2")  # fmt: skip
    recserve(repository, "add", "b", "--release", "1", "--share", "30")
    listed = json.loads(recserve(repository, "list", "--json"))
    assert [(one["name"], one["share"], one["servers"]) for one in listed] == [
        ("b", 30.0, []), ("c", 5.0, [])
    ]  # fmt: skip
    assert (listed[1]["after"], listed[1]["error_margin"], listed[1]["latency_margin"]) == (
        50, 0.1, 2.0
    )  # fmt: skip
    assert "30% of users (ab)" in recserve(repository, "list")
    recserve(repository, "remove", "c")
    assert [one.name for one in read_index(repository).variants] == ["b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "default", "--release", "1", "--share", "9"), "a name that is taken"),
        (("add", "b", "--release", "7", "--share", "9"), "release 7"),
        (("add", "b", "--release", "1", "--share", "0"), "share 0"),
        (("add", "b", "--release", "1", "--share", "9", "--role", "x"), "role 'x'"),
        (("add", "b", "--release", "1", "--share", "9", "--model", "ranker"), "no recommender"),
        (("add", "b", "--release", "1", "--share", "71"), "101% of the users"),
        (("remove", "b"), "no variant 'b'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_a_variant_is_refused_and_nothing_changes(
    repository: Path, arguments: tuple[str, ...], words: str
) -> None:
    recserve(repository, "add", "a", "--release", "1", "--share", "30")
    before = (repository / "releases.json").read_bytes()
    with pytest.raises(Exception, match=words):
        recserve(repository, *arguments)
    assert (repository / "releases.json").read_bytes() == before
