"""Variants of a live stack: who answers whom, what shadows see, and canaries rolled back."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from bento_process import bentoml_serve
from prometheus_client.parser import text_string_to_metric_families
from served import Stack, Threads, serving
from test_variants import recserve
from triton_process import wait_until
from two_catalogues import MODEL, OTHER
from worse_releases import failing, slow

from client.control import Control
from client.service import Answer, RecserveClient, Served
from export.releases import publish
from recommender.errors import NotFound, ReleaseError
from recommender.release import read_index
from recommender.runs import Run
from recommender.variants import Variant, drawn
from serving.commands.ask import ask as asked_by_command
from serving.promotion import promote
from serving.variants import add, remove

FAILING, SLOW = 4, 5
USERS = [f"u{i}" for i in range(300)]


@pytest.fixture(scope="module")
def repository(one: Run, other: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases 1, and 2 and 3, answer with different items; 4 fails and 5 is slow."""
    folder = tmp_path_factory.mktemp("variants") / "repository"
    assert [publish(run, folder) for run in (one, other, other, other, other)] == [1, 2, 3, 4, 5]
    failing(folder / MODEL / str(FAILING))
    slow(folder / MODEL / str(SLOW))
    return folder


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with serving(repository, tmp_path_factory.mktemp("serve")) as running:
        yield running


@pytest.fixture
def plain(stack: Stack, repository: Path) -> Iterator[RecserveClient]:
    """Release 1 serves, and nothing beside it; so it is left, too."""
    promote(repository, 1)
    with RecserveClient(stack.url) as bento:
        yield bento
    for variant in read_index(repository).variants:
        remove(repository, variant.name)


def ask(bento: RecserveClient, user: str) -> Answer:
    return bento.recommend(user_id=user, n=5, deadline_ms=2000)


def ask_of(bento: RecserveClient, variant: str) -> Answer:
    return bento.recommend(user_id="u1", variant=variant, n=5, deadline_ms=2000)


def assert_whole(answer: Answer) -> None:
    """A model gave it, and its items are those of the release that it names."""
    assert not answer.fallback
    assert {item.item_id.startswith(OTHER) for item in answer.items} == {answer.release != 1}


def counted(stack: Stack, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{stack.url}/metrics").text)
    samples = [s for f in families for s in f.samples if s.name == f"recserve_{name}"]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def answered_by_triton(stack: Stack, version: int, model: str = MODEL) -> int:
    """Rows that this version has answered since it was loaded."""

    async def read() -> int:
        async with Control(stack.grpc.removeprefix("grpc://")) as triton:
            return (await triton.statistics(model, version)).inferences

    return asyncio.run(read())


def loaded(stack: Stack, version: int) -> bool:
    url = stack.http.removeprefix("triton+")
    return httpx.get(f"{url}/v2/models/{MODEL}/versions/{version}/ready").status_code == 200


def stub(stack: Stack, version: int) -> psutil.Process | None:
    """The process inside Triton that runs this version of the model; None where there is none."""
    return next(iter(stack.processes(f"/{MODEL}/{version}/")), None)


class Callers(Threads):
    """Ask without a pause, and keep every answer."""

    def __init__(self, url: str, *, count: int = 4, deadline_ms: int = 300) -> None:
        super().__init__(count)
        self._url, self._deadline_ms = url, deadline_ms
        self.answers: list[Answer] = []
        self.of: dict[str, set[int]] = {user: set() for user in USERS}  # releases they saw
        self.wrong: list[str] = []

    def _call(self, number: int) -> None:
        at = number
        with RecserveClient(self._url) as bento:
            while not self._stop.is_set():
                at = (at + 7) % len(USERS)
                try:
                    answer = bento.recommend(user_id=USERS[at], n=5, deadline_ms=self._deadline_ms)
                    self.answers.append(answer)
                    self.of[USERS[at]].add(answer.release)
                except Exception as error:  # whatever it is, a caller has noticed
                    self.wrong.append(repr(error))


def test_every_user_is_answered_by_the_variant_that_is_drawn(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    before = counted(stack, "variant_requests_total", variant="b", release="2")
    assert "serves variant b" in recserve(repository, "add", "b", "--release", "2", "--share", "30")
    wanted = [drawn(read_index(repository).variants, user) for user in USERS]
    answers = [ask(plain, user) for user in USERS]
    for answer, variant in zip(answers, wanted, strict=True):
        assert_whole(answer)
        name, release = (variant.name, variant.release) if variant else ("default", 1)
        assert (answer.variant, answer.release) == (name, release)
    assert 50 < sum(variant is not None for variant in wanted) < 130
    seen = sum(answer.variant == "b" for answer in answers)
    assert counted(stack, "variant_requests_total", variant="b", release="2") == before + seen
    assert counted(stack, "variant_seconds_count", variant="b") >= seen


def test_similar_items_and_candidates_are_answered_by_the_users_variant_too(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    add(repository, Variant(name="b", release=2, share=30))
    here, there = (ask_of(plain, name).items for name in ("default", "b"))
    both = [item.item_id for item in (*here, *there)]
    for user in USERS[:20]:
        variant = drawn(read_index(repository).variants, user)
        answer = plain.rank(user_id=user, candidates=both, deadline_ms=2000)
        assert_whole(answer)
        assert answer.variant == (variant.name if variant else "default")
        assert len(answer.items) == len(answer.ignored) == 5  # the other release's are unknown
    for name, items in (("default", here), ("b", there)):
        answer = plain.similar(item_id=items[0].item_id, variant=name, n=5, deadline_ms=2000)
        assert_whole(answer)
        assert answer.variant == name
    # Drawn for b, which lacks it: the default answers.
    drawn_by = {
        plain.similar(item_id=here[0].item_id, n=1, deadline_ms=2000).variant for _ in range(20)
    }
    assert drawn_by == {"default"}


def test_a_request_without_a_user_is_drawn_by_its_own_id(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    add(repository, Variant(name="b", release=2, share=50))
    for request_id in ("r1", "r2", "r3", "r4", "r5", "r6"):
        headers = {"X-Request-ID": request_id}
        reply = httpx.post(f"{stack.url}/v1/recommend", json={}, headers=headers).json()
        variant = drawn(read_index(repository).variants, request_id)
        assert reply["variant"] == (variant.name if variant else "default")


def test_a_request_may_name_its_variant_and_an_unknown_one_is_refused_with_the_names(
    plain: RecserveClient, repository: Path
) -> None:
    add(repository, Variant(name="b", release=2, share=1))
    add(repository, Variant(name="t", release=3, model=MODEL, share=1))
    add(repository, Variant(name="s", release=3, share=1, role="shadow"))
    for name, release in (("b", 2), ("t", 3), ("default", 1)):
        answer = plain.recommend(user_id="u1", variant=name, model=MODEL, deadline_ms=2000)
        assert_whole(answer)
        assert (answer.variant, answer.release, answer.model) == (name, release, MODEL)
    assert asked_by_command(plain.url, "u1", 3, [], "t").variant == "t"
    for name in ("nobody", "s"):  # a shadow answers nobody
        with pytest.raises(NotFound, match=f"no variant '{name}'.*There is default, b, t") as no:
            plain.recommend(user_id="u1", variant=name)
        assert (no.value.field, no.value.value) == ("variant", name)
    with pytest.raises(NotFound, match="release 2 has no recommender 'ranker'"):
        plain.recommend(user_id="u1", variant="b", model="ranker")


def test_a_request_that_names_a_model_is_the_defaults(
    plain: RecserveClient, repository: Path
) -> None:
    add(repository, Variant(name="b", release=2, share=100))
    assert ask(plain, "u1").variant == "b"
    answer = plain.recommend(user_id="u1", model=MODEL, deadline_ms=2000)
    assert (answer.variant, answer.release) == ("default", 1)


def test_a_shadow_is_asked_the_same_and_never_answers(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    add(repository, Variant(name="s", release=2, share=100, role="shadow"))
    add(repository, Variant(name="same", release=1, share=100, role="shadow"))
    names = ("shadow_requests_total", "shadow_overlap_count", "shadow_overlap_sum")
    before = {(n, v): counted(stack, n, variant=v) for n in names for v in ("s", "same")}
    rows, fallbacks = answered_by_triton(stack, 2), counted(stack, "fallback_total")
    for user in USERS[:40]:
        answer = ask(plain, user)
        assert_whole(answer)
        assert (answer.variant, answer.release) == ("default", 1)

    def more(name: str, variant: str) -> float:
        return counted(stack, name, variant=variant) - before[name, variant]

    wait_until(lambda: more("shadow_requests_total", "s") == 40, "not all copies are counted")
    wait_until(lambda: more("shadow_requests_total", "same") == 40, "not all copies are counted")
    assert answered_by_triton(stack, 2) == rows + 40
    assert counted(stack, "shadow_failures_total") == 0
    assert counted(stack, "fallback_total") == fallbacks
    assert more("shadow_overlap_count", "s") == more("shadow_overlap_count", "same") == 40
    assert more("shadow_overlap_sum", "s") == 0  # no item is in both catalogues
    assert more("shadow_overlap_sum", "same") == 40


def test_a_slow_shadow_delays_nobody_and_copies_beyond_those_under_way_are_dropped(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    """Callers go on as soon as they are answered, so that copies pile up behind them."""
    add(repository, Variant(name="s", release=SLOW, share=100, role="shadow"))
    dropped = counted(stack, "shadow_dropped_total", variant="s")
    with Callers(stack.url) as callers:
        wait_until(lambda: counted(stack, "shadow_dropped_total") > dropped, "none is dropped")
    assert not callers.wrong, callers.wrong[0]
    assert {answer.variant for answer in callers.answers} == {"default"}


def test_the_failures_of_a_shadow_are_counted_and_are_nobody_elses(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    add(repository, Variant(name="s", release=FAILING, share=100, role="shadow"))
    failed = counted(stack, "shadow_failures_total", variant="s")
    fallbacks = counted(stack, "fallback_total")
    for user in USERS[:10]:
        assert_whole(ask(plain, user))
    wait_until(
        lambda: counted(stack, "shadow_failures_total", variant="s") == failed + 10,
        "not all are counted",
    )
    assert counted(stack, "fallback_total") == fallbacks


@pytest.mark.parametrize(
    ("release", "margins", "reason"),
    [
        (FAILING, {"error_margin": 0.1, "latency_margin": 100}, "100.0% of 20 requests fell back"),
        (SLOW, {"error_margin": 1, "latency_margin": 0.5}, "p95 of "),
    ],
    ids=["failing", "slow"],
)
def test_a_canary_that_is_worse_is_rolled_back_by_itself(
    plain: RecserveClient, stack: Stack, repository: Path, release: int,
    margins: dict[str, float], reason: str,
) -> None:  # fmt: skip
    canary = Variant(name="c", release=release, share=40, role="canary", after=20, **margins)
    stops = counted(stack, "canary_stops_total")
    add(repository, canary)
    with Callers(stack.url) as callers:
        wait_until(lambda: not read_index(repository).variants, "it is still there", 60)
    with Callers(stack.url, deadline_ms=2000) as later:
        wait_until(lambda: len(later.answers) > 100, "nobody asks", 60)
    assert not callers.wrong + later.wrong
    assert sum(answer.variant == "c" for answer in callers.answers) >= 20
    assert {answer.variant for answer in later.answers} == {"default"}
    assert counted(stack, "canary_stops_total") == stops + 1
    said = (stack.folder / "serve.log").read_text()
    assert f"Rolled back canary c (release {release}): {reason}" in said
    wait_until(lambda: not loaded(stack, release), "it is not put away")
    for answer in later.answers:
        assert_whole(answer)


def test_a_canary_that_is_as_good_stays(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    """Its margins are wide: how busy the machine is decides nothing here."""
    add(repository, Variant(name="c", release=2, share=50, role="canary", after=20,
                            error_margin=0.9, latency_margin=100))  # fmt: skip
    for user in USERS:
        ask(plain, user)
    (said,) = plain.release().variants
    assert (said.state, said.reason) == ("serving", None)
    assert [variant.name for variant in read_index(repository).variants] == ["c"]


def test_where_nobody_supervises_a_replica_keeps_its_canary_stopped_until_the_index_changes(
    plain: RecserveClient, stack: Stack, repository: Path, tmp_path: Path
) -> None:
    """As on Kubernetes: Bento alone, on a copy of the repository."""
    copy = Path(shutil.copytree(repository, tmp_path / "repository"))
    for path in copy.glob(".serving-*"):  # who serves the other one
        path.unlink()
    canary = ("add", "c", "--release", str(FAILING), "--share", "100", "--role", "canary")
    recserve(copy, *canary, "--after", "5")
    add(repository, Variant(name="loaded", release=FAILING, share=1))  # this Triton has it
    variables = {"RECSERVE_REPOSITORY": str(copy), "RECSERVE_TRITON": stack.grpc}
    with bentoml_serve(tmp_path, variables) as service, RecserveClient(service.url) as bento:
        wait_until(lambda: state_of(bento, "c") == "serving", "it does not serve")
        seen = [ask(bento, user).variant for user in USERS[:8]]
        assert seen == ["c"] * 5 + ["default"] * 3  # stopped at once
        (served,) = bento.release().variants
        assert served.state == "stopped"
        assert str(served.reason).startswith("100.0% of 5 requests fell back")
        assert [variant.name for variant in read_index(copy).variants] == ["c"]
        recserve(copy, *canary, "--after", "6")
        wait_until(lambda: state_of(bento, "c") == "serving", "it is not tried again")
        assert ask(bento, "u1").variant == "c"


def state_of(bento: RecserveClient, name: str) -> str | None:
    return next((one.state for one in bento.release().variants if one.name == name), None)


def test_what_lives_beside_is_told(plain: RecserveClient, stack: Stack, repository: Path) -> None:
    add(repository, Variant(name="b", release=2, share=12.5))
    served: Served = plain.release()
    (variant,) = served.variants
    assert (variant.name, variant.release, variant.share, variant.state) == (
        "b", 2, 12.5, "serving"
    )  # fmt: skip
    (row,) = json.loads(recserve(repository, "list", "--json"))
    assert row["servers"] == [{"url": stack.url, "state": "serving", "reason": None}]


def test_a_share_changes_without_a_break(plain: RecserveClient, repository: Path) -> None:
    add(repository, Variant(name="b", release=2, share=20))
    twenty = {user for user in USERS if ask(plain, user).variant == "b"}
    add(repository, Variant(name="b", release=2, share=40))
    forty = {user for user in USERS if ask(plain, user).variant == "b"}
    assert twenty < forty


def test_a_release_that_does_not_answer_as_exported_cannot_be_a_variant(
    plain: RecserveClient,
    stack: Stack,
    repository: Path,
    other: Run,
) -> None:
    bad = publish(other, repository)
    weights = repository / MODEL / str(bad) / "model.onnx"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match=r"model\.onnx is corrupted"):
        add(repository, Variant(name="b", release=bad, share=10))
    assert read_index(repository).variants == ()
    assert not loaded(stack, bad)


def test_a_variant_that_is_promoted_becomes_the_default_and_nobody_notices(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    add(repository, Variant(name="b", release=2, share=30))
    add(repository, Variant(name="t", release=3, share=20))
    shares = read_index(repository).variants
    theirs = [user for user in USERS if (v := drawn(shares, user)) and v.name == "b"]
    with Callers(stack.url, deadline_ms=2000) as callers:
        wait_until(lambda: len(callers.answers) > 50, "nobody asks")
        promote(repository, 2)
    with Callers(stack.url, deadline_ms=2000) as later:
        wait_until(lambda: len(later.answers) > 100, "nobody asks", 60)
    assert not callers.wrong + later.wrong
    for answer in callers.answers + later.answers:
        assert_whole(answer)
    assert {(answer.variant, answer.release) for answer in later.answers} == {
        ("default", 2), ("t", 3)
    }  # fmt: skip
    assert set().union(*(callers.of[user] for user in theirs)) <= {2, 3}  # the one before: never
    assert [variant.name for variant in read_index(repository).variants] == ["t"]
    wait_until(lambda: not loaded(stack, 1), "the release before is not put away")


def test_a_variant_stays_loaded_for_as_long_as_it_is_one(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    add(repository, Variant(name="b", release=2, share=30))
    promote(repository, 3)
    wait_until(lambda: not loaded(stack, 1), "the release before is not put away")
    assert loaded(stack, 2)
    recserve(repository, "remove", "b")
    wait_until(lambda: not loaded(stack, 2), "it is not put away")
    assert loaded(stack, 3)


def test_a_variant_whose_process_dies_is_loaded_again_and_the_default_notices_nothing(
    plain: RecserveClient, stack: Stack, repository: Path
) -> None:
    add(repository, Variant(name="b", release=2, share=30))
    default, killed = stub(stack, 1), stub(stack, 2)
    assert default is not None and killed is not None
    with Callers(stack.url) as callers:
        killed.kill()
        wait_until(lambda: stub(stack, 2) not in (None, killed), "it is not loaded again")
        wait_until(lambda: not ask(plain, in_variant("b", repository)).fallback, "it is away")
    assert not callers.wrong, callers.wrong[0]
    assert not [a for a in callers.answers if a.fallback and a.variant == "default"]
    assert stub(stack, 1) == default
    assert "Loaded again" in (stack.folder / "serve.log").read_text()


def in_variant(name: str, repository: Path) -> str:
    shares = read_index(repository).variants
    return next(user for user in USERS if (v := drawn(shares, user)) and v.name == name)


def test_a_restart_serves_the_variants_and_one_that_cannot_be_loaded_stops_nobody(
    one: Run,
    other: Run,
    tmp_path: Path,
) -> None:
    repository = tmp_path / "repository"
    assert [publish(run, repository) for run in (one, other, other)] == [1, 2, 3]
    for name, release in (("b", 2), ("broken", 3)):
        add(repository, Variant(name=name, release=release, share=30))
    weights = repository / MODEL / "3" / "model.onnx"
    weights.write_bytes(weights.read_bytes()[:-1])
    with serving(repository, tmp_path) as stack, RecserveClient(stack.url) as bento:
        wait_until(lambda: state_of(bento, "b") == "serving", "b does not serve")
        seen = Counter()
        for user in USERS[:100]:
            answer = ask(bento, user)
            assert_whole(answer)
            seen[answer.variant] += 1
        assert seen.keys() == {"default", "b"}
        states = {one.name: one for one in bento.release().variants}
        assert states["broken"].state == "starting"
        assert "corrupted" in str(states["broken"].reason)
        (line,) = [line for line in (tmp_path / "serve.log").read_text().splitlines()
                   if "does not serve" in line]  # fmt: skip
        assert line.startswith("Release 3, of a variant, does not serve: ")
        assert "model.onnx is corrupted" in line
