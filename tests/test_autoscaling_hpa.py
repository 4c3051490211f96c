"""The autoscaler's algorithm against Kubernetes' own examples, and the manifests it reads."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from autoscaling import hpa, judge  # noqa: E402
from autoscaling.hpa import CPU, Autoscaler, Pod, Policy, Rules, Sample, Spec, Target  # noqa: E402

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
