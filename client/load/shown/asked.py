"""What was asked -> in words, by name: what it takes to run a load test again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client.load.arrivals import Arrivals
from client.load.objective import Found
from client.load.plan import Plan


def asked(plan: Plan, search: Found | None = None) -> dict[str, str]:
    """Name -> words; without the target, which stands above them."""
    mix, triton = plan.mix, not plan.target.startswith("http")
    found = {
        "pace": _pace(plan) if search is None else _searched(plan, search),
        "warm-up": f"{plan.warm_up_s:g} s of the same" if plan.warm_up_s else "none",
        "mix": _numbers(mix.endpoints),
        "filters": _numbers(mix.filters) or "none",
        "users": f"by Zipf's law, exponent {plan.zipf:g}" if plan.zipf is not None else "evenly",
        "users of": str(plan.data or plan.repository),
        "histories": "in the request" if plan.inline or triton else "by user id",
        "items": "all that the model gives" if triton else str(plan.n),
        "timeout": f"{plan.timeout_s:g} s",
        "processes": str(plan.processes),
        "seed": str(plan.seed),
    }
    return found if plan.model is None else {**found, "model": plan.model}


def _searched(plan: Plan, search: Found) -> str:
    return (
        f"open loops, poisson, at the rates of a search with a resolution of "
        f"{search.resolution:.1%}, which began with a closed loop of {plan.concurrency} callers"
    )


def _pace(plan: Plan) -> str:
    if plan.arrivals is not None:
        return _arrivals(plan.arrivals)
    length = f"{plan.requests:,} requests" if plan.duration_s is None else f"{plan.duration_s:g} s"
    return f"closed loop, {plan.concurrency} callers, {length}"


def _arrivals(arrivals: Arrivals) -> str:
    parts = [f"open loop, {arrivals.kind}"]
    if arrivals.trace is not None:
        parts[0] += f" {arrivals.trace}"
    if arrivals.rate is not None:
        parts.append(f"{arrivals.rate:g}/s")
    if arrivals.kind == "flash":
        parts.append(f"{arrivals.peak:g} times as many in the middle fifth")
    if arrivals.duration_s is not None:
        parts.append(f"{arrivals.duration_s:g} s")
    return ", ".join(parts)


def _numbers(numbers: Mapping[Any, float]) -> str:
    return ",".join(f"{name}={number:g}" for name, number in numbers.items())
