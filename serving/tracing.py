"""Triton's own spans: sent where Bento's go, in the traces of the requests that come with one.

Knows the flags of tritonserver; what the environment says of a collector is `bento/tracing.py`'s.
"""

from __future__ import annotations

from bento.tracing import endpoint


def flags() -> list[str]:
    """For tritonserver's command line. It traces every call, whatever OTEL_TRACES_SAMPLER says."""
    if (collector := endpoint()) is None:
        return []
    settings = (
        *("mode=opentelemetry", "level=TIMESTAMPS", "rate=1"),
        *(f"opentelemetry,url={collector}", "opentelemetry,resource=service.name=triton"),
    )
    return [f"--trace-config={setting}" for setting in settings]
