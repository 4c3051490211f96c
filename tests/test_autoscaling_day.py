"""A day of traffic with the autoscaler as it is shipped: it holds, and says where it does not.

The same as `make bench-autoscaling`, of which docs/autoscaling.md has the table: the manifest of
k8s/optional/, pods as measured, a flash crowd of five times the load within 90 s. A day takes
about two seconds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from autoscaling import __main__ as bench  # noqa: E402
from autoscaling import cluster, contest, hpa, judge, queueing, service, traffic  # noqa: E402

OPTIONAL = ROOT / "k8s" / "optional"
OBJECTIVE_S, DEADLINE_S = 0.075, 0.3  # the benchmark's own
CPU_PODS = ROOT / "benchmarks" / "autoscaling" / "measured-2-cores.json"


def shipped() -> hpa.Spec:
    return hpa.read(OPTIONAL / bench.NAME)


def with_rows(tmp_path: Path) -> hpa.Spec:
    """As the component k8s/optional/rows makes it."""
    component = yaml.safe_load((OPTIONAL / "rows" / "kustomization.yaml").read_text())
    manifest = yaml.safe_load((OPTIONAL / bench.NAME).read_text())
    (_, added) = yaml.safe_load(component["patches"][0]["patch"])
    assert added["path"] == "/spec/metrics/-"
    manifest["spec"]["metrics"].append(added["value"])
    path = tmp_path / bench.NAME
    path.write_text(yaml.safe_dump(manifest))
    return hpa.read(path)


def setting(pods: Path, start: bench.Start = bench.Start.warm) -> cluster.Setting:
    pod = service.read(pods)
    return cluster.Setting(
        table=queueing.table(pod), service=pod, deadline_s=DEADLINE_S, cpu_request=2.0,
        start_up=cluster.StartUp(pending_s=bench.PENDING_S[start], load_s=bench.LOAD_S),
    )  # fmt: skip


def judged(spec: hpa.Spec, at: cluster.Setting) -> judge.Verdict:
    """A day whose crowd the manifest's most pods can just answer."""
    day = traffic.Day(peak=spec.high * bench.PEAK * at.service.capacity)
    return contest.alone(traffic.rates(day, at.seed), at, spec, OBJECTIVE_S)


@pytest.fixture(scope="module")
def on_cpus() -> cluster.Setting:
    return setting(CPU_PODS)


@pytest.fixture(scope="module")
def on_gpus() -> cluster.Setting:
    return setting(bench.GPU)


def holds(found: judge.Verdict) -> None:
    assert found.in_time >= 0.995, found
    assert found.cost <= 1.3, found
    assert found.changes <= 2, found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_manifest_as_it_stands_holds_on_more_than_one_day(
    seed: int, on_cpus: cluster.Setting
) -> None:
    holds(judged(shipped(), replace(on_cpus, seed=seed)))


def fleet(target_us: float) -> hpa.Spec:
    """Of many pods, by another wait than the manifest's."""
    spec = shipped()
    return replace(spec, high=bench.MOST, targets=(replace(spec.targets[0], value=target_us),))


def test_a_fleet_on_cpus_holds_by_a_shorter_wait(on_cpus: cluster.Setting) -> None:
    holds(judged(fleet(2400), on_cpus))
    assert judged(fleet(2750), on_cpus).cost > 1.3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_large_gpus_hold_a_day_with_the_second_metric(
    seed: int, on_gpus: cluster.Setting, tmp_path: Path
) -> None:
    spec = with_rows(tmp_path)
    assert [target.metric for target in spec.targets] == [
        "triton_queue_us_per_request", "triton_rows_per_batch",
    ]  # fmt: skip
    assert spec.targets[1].value == bench.ROWS
    holds(judged(replace(spec, high=bench.MOST), replace(on_gpus, seed=seed)))


def test_the_second_metric_changes_little_on_a_cpu(
    on_cpus: cluster.Setting, tmp_path: Path
) -> None:
    holds(judged(with_rows(tmp_path), on_cpus))


def test_eight_large_gpus_are_in_time_at_more_pods_than_they_need(
    on_gpus: cluster.Setting, tmp_path: Path
) -> None:
    """Whole pods: three where the oracle does with two, most of the day."""
    found = judged(with_rows(tmp_path), on_gpus)
    assert found.in_time >= 0.995 and found.changes <= 2
    assert 1.3 < found.cost < 1.6


def test_what_does_not_hold_is_found_not_to(
    on_cpus: cluster.Setting, on_gpus: cluster.Setting
) -> None:
    gpus = replace(shipped(), high=bench.MOST)
    assert judged(gpus, on_gpus).cost > 1.3  # by the wait alone
    slow = judged(shipped(), replace(on_cpus, start_up=replace(on_cpus.start_up, pending_s=160.0)))
    assert slow.in_time < 0.995  # an image to pull
    two_a_minute = replace(shipped().up, policies=(hpa.Policy("Pods", 2, 60),))
    assert judged(replace(shipped(), up=two_a_minute), on_cpus).in_time < 0.995
