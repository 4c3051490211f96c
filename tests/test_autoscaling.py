"""Queues, pods and days of the simulation, end to end; the autoscaler alone is in _hpa."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from autoscaling import cluster, judge, metrics, queueing, traffic  # noqa: E402
from autoscaling.hpa import CPU, Policy, Rules, Spec, Target  # noqa: E402
from autoscaling.service import Service, read, write  # noqa: E402

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
