"""The autoscaler's algorithm against Kubernetes' own examples, and days of it end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from autoscaling import cluster, hpa, judge, metrics, queueing, traffic  # noqa: E402
from autoscaling.hpa import CPU, Autoscaler, Pod, Policy, Rules, Sample, Spec, Target  # noqa: E402
from autoscaling.service import Service, read, write  # noqa: E402

BOTH = (ROOT / "k8s", ROOT / "k8s" / "optional")
NAME = "triton-horizontalpodautoscaler.yaml"
ANY = Target("m", 100.0)
WIDE = Spec(low=1, high=1000, targets=(ANY,))


def pods(count: int, *, pending: int = 0) -> list[Pod]:
    running = [Pod(name=i, started=0.0) for i in range(count)]
    return running + [Pod(name=count + i, started=None, ready=False) for i in range(pending)]


def asked(values: list[float], *, missing: int = 0, pending: int = 0, target: Target = ANY) -> int:
    """The wish for pods that say `values`, long after they started."""
    all_pods = pods(len(values) + missing, pending=pending)
    samples = {i: Sample(value) for i, value in enumerate(values)}
    wish = hpa.wished(len(all_pods), target, all_pods, samples, 1e6, WIDE)
    assert wish is not None
    return wish


# --- one metric


@pytest.mark.parametrize(
    ("values", "wish"),
    [
        ([200.0], 2),  # "the number of replicas will be doubled, since 200.0 / 100.0 == 2.0"
        ([50.0] * 4, 2),  # "you'll halve the number of replicas"
        ([110.0] * 10, 10),  # within the tolerance of 0.1
        ([112.0] * 10, 12),
        ([90.0] * 10, 10),
        ([88.0] * 10, 9),
        ([0.0] * 3, 0),  # the minimum is the behavior's business
    ],
)
def test_the_ratio_of_metric_to_target_makes_the_wish(values: list[float], wish: int) -> None:
    assert asked(values) == wish


def test_fifty_pods_at_90_percent_of_cpu_become_sixty_for_75() -> None:
    target = Target(CPU, 75.0)
    assert asked([90.0] * 50, target=target) == 60
    assert asked([75.9] * 50, target=target) == 50


def test_pods_without_the_metric_count_as_on_target_downwards_and_as_idle_upwards() -> None:
    assert asked([20.0] * 4) == 1
    assert asked([20.0] * 4, missing=4) == 5  # (4 * 20 + 4 * 100) / 100 = 4.8
    assert asked([300.0] * 4) == 12
    assert asked([300.0] * 4, missing=2) == 12  # (1200 + 0) / 100
    assert asked([120.0] * 4, missing=4) == 8  # it would turn round: 480 / 800 is below 1


def test_pods_that_are_not_ready_yet_slow_only_the_way_up() -> None:
    assert asked([200.0] * 4, pending=2) == 8  # 800 / 600 of 6
    assert asked([200.0] * 4, pending=6) == 10  # it would turn round
    assert asked([50.0] * 4, pending=4) == 2  # not counted on the way down


def test_cpu_of_a_pod_that_is_starting_does_not_count() -> None:
    target = Target(CPU, 50.0)
    old = [Pod(name=i, started=0.0) for i in range(2)]
    new = Pod(name=2, started=1000.0, ready=True, changed=1030.0)
    samples = {0: Sample(90.0, 1050.0, 15.0), 1: Sample(90.0, 1050.0, 15.0)}
    before = {**samples, 2: Sample(300.0, 1040.0, 15.0)}  # its window began before it was ready
    after = {**samples, 2: Sample(300.0, 1046.0, 15.0)}
    assert hpa.wished(3, target, [*old, new], before, 1050.0, WIDE) == 4  # 180 / 50
    assert hpa.wished(3, target, [*old, new], after, 1050.0, WIDE) == 10  # 480 / 50
    custom = {name: Sample(sample.value) for name, sample in before.items()}
    assert hpa.wished(3, Target("m", 50.0), [*old, new], custom, 1050.0, WIDE) == 10


def test_no_pod_with_the_metric_is_no_wish() -> None:
    assert hpa.wished(2, ANY, pods(2), {}, 0.0, WIDE) is None


# --- several metrics and the behavior


def steps(spec: Spec, current: int, wishes: list[int | None], every: float = 15.0) -> list[int]:
    """Replicas after each wish, one every `every` seconds."""
    scaler, found = Autoscaler(spec), list[int]()
    for i, wish in enumerate(wishes):
        current = scaler.step(i * every, current, [wish])
        found.append(current)
    return found


def test_the_largest_wish_counts_and_a_missing_metric_stops_only_the_way_down() -> None:
    calm = replace(WIDE, down=Rules(window_s=0, policies=hpa.DOWN.policies))
    assert Autoscaler(calm).step(0, 4, [3, 6]) == 6
    assert Autoscaler(calm).step(0, 4, [2, 3]) == 3
    assert Autoscaler(calm).step(0, 4, [2, None]) == 4
    assert Autoscaler(calm).step(0, 4, [6, None]) == 6
    assert Autoscaler(calm).step(0, 4, [None]) == 4


def test_four_pods_or_ten_percent_a_minute_as_kubernetes_documents_it() -> None:
    policies = (Policy("Pods", 4, 60), Policy("Percent", 10, 60))
    spec = replace(WIDE, down=Rules(window_s=0, policies=policies))
    # 10% of 80 is 8; of 72 it is 7.2, rounded up to 8; from 40 on the 4 pods are more.
    assert steps(spec, 80, [10] * 5, every=60) == [72, 64, 57, 51, 45]
    assert steps(spec, 40, [10] * 3, every=60) == [36, 32, 28]
    least = replace(spec, down=Rules(window_s=0, policies=policies, select="Min"))
    assert steps(least, 80, [10] * 2, every=60) == [76, 72]
    off = replace(spec, down=Rules(window_s=0, policies=policies, select="Disabled"))
    assert steps(off, 80, [10] * 2, every=60) == [80, 80]
    # Within the period what was taken already counts.
    assert steps(spec, 80, [10] * 5) == [72, 72, 72, 72, 64]


def test_without_a_behavior_it_doubles_or_adds_four_every_15_seconds() -> None:
    assert steps(WIDE, 1, [100] * 5) == [5, 10, 20, 40, 80]


def test_the_way_down_waits_until_the_whole_window_agrees() -> None:
    found = steps(WIDE, 10, [10] + [4] * 20 + [6] + [4] * 21)
    assert found[:20] == [10] * 20  # 300 s after the last wish of ten
    assert found[20] == 4
    assert found[21] == 6 and set(found[21:41]) == {6} and found[-1] == 4


def test_the_way_up_can_wait_too() -> None:
    spec = replace(WIDE, up=Rules(window_s=60, policies=(Policy("Percent", 900, 15),)))
    assert steps(spec, 2, [2, 9, 8, 9, 9, 9]) == [2, 2, 2, 2, 8, 8]


def test_minimum_and_maximum_are_kept() -> None:
    spec = replace(WIDE, low=2, high=8, down=Rules(window_s=0, policies=hpa.DOWN.policies))
    assert steps(spec, 4, [100, 100, 0, 0]) == [8, 8, 2, 2]
    assert steps(spec, 1, [0]) == [2]


@pytest.mark.parametrize("folder", BOTH, ids=["k8s", "optional"])
def test_the_manifests_are_read_as_they_stand(folder: Path) -> None:
    spec, raw = hpa.read(folder / NAME), yaml.safe_load((folder / NAME).read_text())["spec"]
    assert (spec.low, spec.high) == (raw["minReplicas"], raw["maxReplicas"])
    assert len(spec.targets) == len(raw["metrics"])
    for rules, given in (
        (spec.up, raw["behavior"]["scaleUp"]),
        (spec.down, raw["behavior"]["scaleDown"]),
    ):
        assert rules.window_s == given["stabilizationWindowSeconds"]
        assert [(p.kind, p.value, p.period_s) for p in rules.policies] == [
            (p["type"], p["value"], p["periodSeconds"]) for p in given["policies"]
        ]
    # A change of direction twice, and the same within ten minutes: impossible from 600 on.
    assert spec.down.window_s >= judge.WINDOW_S


def test_quantities() -> None:
    assert [hpa.quantity(q) for q in ("1500m", "2500", "4k", 3)] == [1.5, 2500.0, 4000.0, 3.0]


# --- the queue

POD = Service(
    machine="", taken="", model="m", sizes=(1, 2, 4, 8), batch_s=(0.004, 0.005, 0.007, 0.011),
    delay_s=0.0, beside_s=0.001, cpu_batch_s=0.002, cpu_row_s=0.0005, start_s=10.0,
)  # fmt: skip


def test_a_batch_takes_all_that_wait_when_the_instance_is_free() -> None:
    came = np.array([0.0, 0.001, 0.002, 0.0035] + [0.01] * 9)
    found = queueing.run(came, POD)
    # The first alone until .004, then the three until .010, a full batch until .021, the last.
    assert found.batches.tolist() == [1, 3, 8, 1]
    assert found.waits.tolist() == pytest.approx([0, 0.003, 0.002, 0.0005] + [0] * 8 + [0.011])
    assert found.latencies[0] == pytest.approx(0.005)
    assert found.busy_s == pytest.approx(0.004 + 0.006 + 0.011 + 0.004)


def test_an_idle_instance_waits_for_neighbours_but_not_with_a_full_batch() -> None:
    patient = replace(POD, delay_s=0.002)
    assert queueing.run(np.array([0.0, 0.0015, 0.0025]), patient).batches.tolist() == [2, 1]
    assert queueing.run(np.full(8, 1.0), patient).waits.tolist() == [0.0] * 8


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_without_batching_it_is_the_textbook_queue(load: float) -> None:
    alone = replace(POD, sizes=(1,), batch_s=(0.004,))
    found = queueing.run(queueing.poisson(load / 0.004, seed=1, requests=200_000), alone)
    assert found.waits.mean() == pytest.approx(load * 0.004 / (2 * (1 - load)), rel=0.06)


def test_more_load_waits_longer_in_fuller_batches() -> None:
    table = queueing.table(POD, requests=20_000)
    assert (np.diff(table.wait_s[5:]) > 0).all()
    assert table.batches[0] == pytest.approx(table.rates[0], rel=0.05)
    assert table.rates[-1] / table.batches[-1] > 6
    assert (table.busy <= 1.001).all() and table.latency.sum(axis=1) == pytest.approx(1)
    best = table.rate_for(0.05)
    assert table.p99_s[table.rates <= best].max() <= 0.05 * 1.1
    with pytest.raises(ValueError, match="choose a longer --objective-ms"):
        table.rate_for(0.001)


# --- the cluster

UNTIL_READY = 10.0 * 1.2 + 10.0 * 1.2 + 5.0


@pytest.fixture(scope="module")
def setting() -> cluster.Setting:
    return cluster.Setting(
        table=queueing.table(POD, requests=20_000), service=POD,
        start_up=cluster.StartUp(pending_s=10.0, load_s=10.0), deadline_s=0.3, cpu_request=2.0,
    )  # fmt: skip


def steady(load: float, seconds: int = 1800) -> np.ndarray:
    return np.full(seconds, load * POD.capacity)


def queue_spec(target_us: float, **changes: object) -> Spec:
    slow = Rules(window_s=600, policies=(Policy("Percent", 10, 60),))
    spec = Spec(low=2, high=20, targets=(Target(metrics.QUEUE, target_us),), down=slow)
    return replace(spec, **changes)  # type: ignore[arg-type]


def test_an_overload_piles_up_as_it_does_event_by_event(setting: cluster.Setting) -> None:
    """Two pods, 1.3 times what they can do for half a minute, then half of it."""
    patient = replace(setting, deadline_s=100.0)
    rates = np.concatenate([steady(1.3 * 2, 30), steady(0.5 * 2, 60)])
    found = cluster.planned(rates, patient, np.full(6, 2))
    came = np.cumsum(np.random.default_rng(0).exponential(1, int(rates.sum() / 2)))
    inverse = np.concatenate([[0], np.cumsum(rates / 2)])
    each = queueing.run(np.interp(came, inverse, np.arange(91)), POD)
    waited = [each.waits[(came > a) & (came <= b)].mean()
              for a, b in zip(inverse[:-1:15], inverse[15::15], strict=True)]  # fmt: skip
    assert found.wait_s == pytest.approx(waited, rel=0.15, abs=0.001)
    assert found.left.sum() == 0


def test_whoever_would_wait_beyond_the_deadline_leaves(setting: cluster.Setting) -> None:
    found = cluster.planned(steady(2.0, 300), setting, np.full(20, 1))
    assert found.left.sum() / found.requests.sum() == pytest.approx(0.5, abs=0.02)
    assert found.requests.sum() == pytest.approx(steady(2.0, 300).sum(), rel=0.01)
    assert 0.2 < found.wait_s[-1] < 0.3


def test_new_pods_answer_only_after_their_start(setting: cluster.Setting) -> None:
    rates = np.concatenate([steady(1.0, 600), steady(4.0, 600)])
    found = cluster.simulate(rates, setting, queue_spec(3000))
    asked_at = int(np.flatnonzero(np.diff(found.replicas[38:]) > 0)[0]) + 39
    ready_at = int(np.flatnonzero(found.ready[asked_at:] > found.ready[asked_at - 1])[0]) + asked_at
    assert 15 * (ready_at - asked_at + 1) >= 10.0 * 0.8 + 10.0 * 0.8
    assert 15 * (ready_at - asked_at - 1) <= UNTIL_READY
    assert found.left.sum() > 0 and found.left[-4:].sum() == 0
    assert found.replicas[-1] * POD.capacity > rates[-1]


def test_a_steady_load_keeps_its_pods(setting: cluster.Setting) -> None:
    found = cluster.simulate(steady(3.0, 7200), setting, queue_spec(3000))
    assert set(found.replicas[240:].tolist()) == {found.replicas[-1]}
    assert judge.direction_changes(found.replicas) <= judge.CHANGES


def test_what_the_autoscaler_is_told_is_a_rate_over_a_minute() -> None:
    counters = metrics.Counters(3, cpu_request=2.0, seed=0)
    counters.begin(0, -1e6)
    counters.begin(1, -1e6)
    grown = np.zeros((5, 15, 3))
    grown[:, :, 0] = np.array([0.4, 200.0, 50.0, 0.8, 1.0])[:, None]
    for _ in range(8):
        counters.add(grown)
    both = np.array([0, 1])
    told = {name: counters.samples(name, both) for name in (*metrics.RATES, CPU)}
    values = {name: [told[name][i].value for i in (0, 1)] for name in told}
    assert values == {
        metrics.QUEUE: pytest.approx([2000.0, 0.0]), metrics.ROWS: pytest.approx([4.0, 0.0]),
        metrics.RATE: pytest.approx([200.0, 0.0]), metrics.DUTY: pytest.approx([80.0, 0.0]),
        CPU: pytest.approx([50.0, 0.0]),
    }  # fmt: skip
    counters.begin(2, 110.0)  # read once, at most, by now
    assert counters.samples(CPU, np.array([2])) == {}
    assert all(one.value == 0 for one in counters.samples(metrics.QUEUE, np.array([2])).values())
    grown[metrics.QUEUE_S] *= 3
    for _ in range(2):  # half of the minute
        counters.add(grown)
    assert 3000 < counters.samples(metrics.QUEUE, both)[0].value < 5000


# --- the judge


def test_changes_of_direction_within_ten_minutes() -> None:
    def changes(*replicas: int) -> int:
        return judge.direction_changes(np.repeat(replicas, 8))  # two minutes each

    assert changes(2, 4, 6, 8) == 0
    assert changes(2, 4, 3) == 1
    assert changes(2, 4, 3, 4, 3) == 3
    assert changes(2, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 4) == 1


def test_the_oracle_could_do_with_no_pod_less(setting: cluster.Setting) -> None:
    rates = np.concatenate([steady(load, 600) for load in (1.5, 4.2, 2.6)])
    plan = judge.oracle(rates, setting, 0.05, low=1)
    kept, tighter = (judge.of_plan(rates, setting, pods, 0.05, 1.0) for pods in (plan, plan - 1))
    assert kept.in_good_time == 1.0
    assert tighter.in_good_time < 0.1
    assert (judge.oracle(rates, setting, 0.05, low=4) >= 4).all()
    early = judge.early(plan, setting)
    ahead = -(-(10 + 10 + 5 + 25) // 15)
    assert (early >= plan).all() and (early[40 - ahead : 40] == plan[40]).all()


# --- traffic, files, and all of it


def test_a_day_is_the_same_for_a_seed_and_has_its_crowd() -> None:
    day = traffic.Day(peak=1000.0)
    rates = traffic.rates(day, 3)
    assert (rates == traffic.rates(day, 3)).all() and (rates != traffic.rates(day, 4)).any()
    at = int(day.crowd_at_s)
    before, after = rates[at - 60 : at].mean(), rates[at + 90 : at + 150].mean()
    assert after / before == pytest.approx(5, rel=0.2)
    assert rates[at + 3 * 3600 :].max() < 1600
    calm = traffic.rates(replace(day, crowd=1.0), 3)
    assert calm[:at].mean() == pytest.approx(rates[:at].mean(), rel=0.01)
    assert (
        0.25
        < calm[4 * 3600 : 4 * 3600 + 600].mean() / calm[16 * 3600 : 16 * 3600 + 600].mean()
        < 0.4
    )


def test_a_pod_is_written_and_read_again(tmp_path: Path) -> None:
    write(POD, tmp_path / "pod.json")
    assert read(tmp_path / "pod.json") == POD


def test_the_command_reports_a_trace(tmp_path: Path) -> None:
    write(POD, tmp_path / "pod.json")
    trace = np.concatenate([steady(2.0, 900), steady(4.0, 900)])
    np.savetxt(tmp_path / "trace.txt", trace)
    done = subprocess.run(
        [sys.executable, "-m", "autoscaling", "--service", str(tmp_path / "pod.json"),
         "--trace", str(tmp_path / "trace.txt"), "--objective-ms", "60", "--price", "2",
         "--out", str(tmp_path), "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "autoscaling.json").read_text())
    settings = found["settings"]
    assert settings["oracle"]["cost"] == 1.0
    assert {"ours", "GPU duty cycle 85%", "CPU 30%, k8s/"} <= set(settings)
    assert all(0 <= one["in_time"] <= 1 and one["replica_hours"] > 0 for one in settings.values())
    page = (tmp_path / "autoscaling.html").read_text()
    assert page.count("<svg") >= 4 and "cost a day" in page
    (tmp_path / "trace.txt").write_text("-1\n")
    with pytest.raises(ValueError, match="is no trace"):
        traffic.read(tmp_path / "trace.txt")
