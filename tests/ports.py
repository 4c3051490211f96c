"""Ports of 127.0.0.1 for servers of the tests.

Some are given long before their server starts, so none is given twice in a session, and all
lie below Linux's ephemeral range (32768 to 60999 as a rule), from which outgoing connections
and servers on port 0 take theirs. Each worker of pytest-xdist has ports of its own.
"""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST, EPHEMERAL = 10_000, int(RANGE.read_text().split()[0])
NOBODY = {13098, 13199, 13299, 18199, 31300}  # tests name them: nobody answers there
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_left = [port for port in range(LOWEST + WORKER, EPHEMERAL, WORKERS) if port not in NOBODY]
random.SystemRandom().shuffle(_left)


def free_ports(count: int) -> list[int]:
    """Each could be bound a moment ago."""
    found: list[int] = []
    while len(found) < count:
        port = _left.pop()
        if _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
