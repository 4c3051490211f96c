"""Do the autoscaler's settings hold the objective over a day? A simulation, with a report.

    PYTHONPATH=benchmarks python -m autoscaling [--out DIR] [--seed N] [--start-up warm|image|node]
    PYTHONPATH=benchmarks python -m autoscaling --measure REPOSITORY --service FILE

Replays a day of traffic with a flash crowd (or `--trace FILE`) over pods that the documented
HorizontalPodAutoscaler algorithm starts and stops, as `k8s/optional/` tells it, on CPU as `k8s/`
does, and on the GPU's duty cycle, beside an oracle. How fast a pod is was measured from the real
Triton: `--measure` does so on this machine and writes FILE. docs/autoscaling.md explains it all.
"""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from autoscaling import contest, hpa, metrics, queueing, report, service, traffic
from autoscaling.cluster import Setting, StartUp
from rich.console import Console

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
GPU = HERE / "h200-graph.json"  # batches that take as long full as empty
NAME = "triton-horizontalpodautoscaler.yaml"
# A fleet: of the manifest's 8 pods, a budget of GPUs, the day's wave (a fifth of them) needs the
# minimum of 2 nearly always, so that only the crowd tests the settings. What suits 32 pods as
# measured here:
MOST, FLEET_US = 32, 2400.0
PEAK = 1 / 5  # of them: what a crowd of five times leaves
LOAD_S = 20.0  # Triton's start until warm: less here (start_s), but a GPU's libraries come on top
ROWS = 54.0  # of a batch of 64: how full batches get is how busy a pod is where they cost the same


class Start(StrEnum):
    """What a new pod has to wait for."""

    warm = "warm"
    image = "image"
    node = "node"


# Seconds until its containers begin. Scheduling and copying the release (init container): 10.
# Pulling and unpacking Triton's image, 15 GB at 100 MB/s: 150. A cloud's GPU node until it is
# ready, its driver loaded: 240. Estimates, not measured here.
PENDING_S = {Start.warm: 10.0, Start.image: 10.0 + 150, Start.node: 10.0 + 150 + 240}


def main(
    service_file: Annotated[Path, typer.Option("--service")] = HERE / "measured-2-cores.json",
    measure: Annotated[
        Path | None, typer.Option(help="A repository: measure Triton with it, write --service.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each loop of --measure.")] = 2.0,
    ours: Annotated[Path, typer.Option()] = ROOT / "k8s" / "optional" / NAME,
    cpu: Annotated[Path, typer.Option()] = ROOT / "k8s" / NAME,
    objective_ms: Annotated[float, typer.Option(help="p99 of Triton's answers.")] = 75.0,
    deadline_ms: Annotated[float, typer.Option(help="Bento's: later answers are nobody's.")] = 300,
    most: Annotated[
        int | None, typer.Option(help="Replicas, instead of the manifest's maximum.")
    ] = None,
    peak: Annotated[
        float | None, typer.Option(help="Of the daily wave, in pods' capacities.")
    ] = None,
    crowd: Annotated[float, typer.Option(help="The flash crowd, by the load before.")] = 5.0,
    rise_s: Annotated[float, typer.Option(help="Within which the crowd comes.")] = 90.0,
    trace: Annotated[
        Path | None, typer.Option(help="Requests of each second, a line each.")
    ] = None,
    start_up: Start = Start.warm,
    pending_s: Annotated[float | None, typer.Option(help="Instead of what it stands for.")] = None,
    load_s: Annotated[float, typer.Option(help="Triton's start to warm models.")] = LOAD_S,
    cpu_request: Annotated[float, typer.Option(help="As in triton-deployment.yaml.")] = 2.0,
    seed: int = 0,
    elsewhere: Annotated[bool, typer.Option(help="Ours on other days and start-ups too.")] = True,
    price: Annotated[float | None, typer.Option(help="Of a pod's hour, in any currency.")] = None,
    out: Path = Path("reports/autoscaling"),
    as_json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
) -> None:
    if measure is not None:
        from autoscaling.measure import measure as measured

        service_file.parent.mkdir(parents=True, exist_ok=True)
        service.write(measured(measure, seconds=seconds), service_file)
    pod, spec = service.read(service_file), hpa.read(ours)
    spec = replace(spec, high=spec.high if most is None else most)
    setting = Setting(
        table=queueing.table(pod),
        service=pod,
        start_up=StartUp(
            pending_s=PENDING_S[start_up] if pending_s is None else pending_s,
            load_s=load_s,
        ),
        deadline_s=deadline_ms / 1e3,
        cpu_request=cpu_request,
        seed=seed,
    )
    objective_s = objective_ms / 1e3
    pods = spec.high * PEAK if peak is None else peak
    day = traffic.Day(peak=pods * pod.capacity, crowd=crowd, crowd_rise_s=rise_s)
    rates = traffic.rates(day, seed) if trace is None else traffic.read(trace)
    study = report.Study(
        entries=contest.contest(rates, setting, spec, hpa.read(cpu), objective_s),
        others=_elsewhere(day, setting, spec, objective_s) if elsewhere and trace is None else {},
        rates=rates,
        setting=setting,
        ours=spec,
        objective_s=objective_s,
        early_hours=contest.early_hours(rates, setting, spec, objective_s),
        price=price,
        about=_about(day, seed, pods) if trace is None else f"The trace {trace}.",
        crowd_at_s=day.crowd_at_s if trace is None else None,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "autoscaling.html").write_text(report.page(study))
    found = json.dumps(report.as_json(study), indent=2)
    (out / "autoscaling.json").write_text(found + "\n")
    if as_json:
        typer.echo(found)
        return
    console = Console(width=180)
    for table in report.terminal(study):
        console.print(table)
    if pod.checks:
        console.print("The model of the queue against the real Triton:")
        console.print(report.checks(study))
    console.print(f"{study.about} {report.machine(study)}", soft_wrap=True)
    console.print(f"Plots: {out / 'autoscaling.html'}", soft_wrap=True)


def _elsewhere(
    day: traffic.Day, setting: Setting, spec: hpa.Spec, objective_s: float
) -> contest.Others:
    """What the settings were not chosen on."""
    Case = tuple[traffic.Day, Setting, hpa.Spec]
    found: dict[str, Case] = {
        "another day": (day, replace(setting, seed=setting.seed + 1), spec),
        "a third day": (day, replace(setting, seed=setting.seed + 2), spec),
        "no flash crowd": (replace(day, crowd=1.0), setting, spec),
        "a crowd within 60 s": (replace(day, crowd_rise_s=60.0), setting, spec),
        "a crowd within 120 s": (replace(day, crowd_rise_s=120.0), setting, spec),
    }
    slowly = replace(spec.up, policies=(hpa.Policy("Pods", 2, 60),))
    found["two pods a minute at most"] = day, setting, replace(spec, up=slowly)
    for start in (Start.image, Start.node):
        took = replace(setting.start_up, pending_s=PENDING_S[start])
        found[f"start-up: {start}"] = day, replace(setting, start_up=took), spec
    large, fleet = replace(day, peak=day.peak * MOST / spec.high), replace(spec, high=MOST)
    by_less = (replace(spec.targets[0], value=FLEET_US), *spec.targets[1:])
    found[f"a fleet: {MOST} pods at most, and their traffic"] = large, setting, fleet
    found[f"the same, with a target of {FLEET_US:,.0f} us"] = (
        large, setting, replace(fleet, targets=by_less),
    )  # fmt: skip
    gpu = service.read(GPU)
    on_gpu, more = replace(setting, service=gpu, table=queueing.table(gpu)), gpu.capacity
    flat, flats = (
        replace(one, peak=one.peak * more / setting.service.capacity) for one in (day, large)
    )
    rows = (*spec.targets, hpa.Target(metrics.ROWS, ROWS))
    found["pods with a GPU"] = flat, on_gpu, spec
    found[f"the same, and {metrics.ROWS} {ROWS:g}"] = flat, on_gpu, replace(spec, targets=rows)
    found["a fleet with GPUs"] = flats, on_gpu, fleet
    found[f"that fleet, and {metrics.ROWS} {ROWS:g}"] = flats, on_gpu, replace(fleet, targets=rows)
    found[f"on the CPU, and {metrics.ROWS} {ROWS:g}"] = day, setting, replace(spec, targets=rows)
    return {
        name: contest.alone(traffic.rates(d, s.seed), s, one, objective_s)
        for name, (d, s, one) in found.items()
    }


def _about(day: traffic.Day, seed: int, pods: float) -> str:
    return (
        f"A day (seed {seed}) with a peak of {day.peak:,.0f} requests/s, {pods:.1f} pods' capacity,"
        f" {day.trough:.0%} of it at night, noise of {day.noise:.0%} over minutes, and at "
        f"{day.crowd_at_s / 3600:.0f}:00 a crowd that makes {day.crowd:g} times the load within "
        f"{day.crowd_rise_s:g} s."
    )


if __name__ == "__main__":
    typer.run(main)
