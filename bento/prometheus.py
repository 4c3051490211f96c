"""prometheus-client, as this service uses it: import it from here, so that it is set up first.

Knows no metric; `bento/metrics.py` does.
"""

from __future__ import annotations

import os

# BentoML switches prometheus-client to files shared by all its workers, in a
# folder that a second server on the machine wipes. Its own metrics are off and
# the service has one worker: plain numbers in memory are right, and cheaper.
# prometheus-client looks at this once, when it is imported.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to a rate

__all__ = [
    "CollectorRegistry",
    "Counter",
    "Gauge",
    "Histogram",
    "ProcessCollector",
    "generate_latest",
]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5)
