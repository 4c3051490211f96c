"""Ports of 127.0.0.1 for servers of the tests.

Some are given long before their server starts, so none is given twice in a session, and all
lie below Linux's ephemeral range (32768 to 60999 as a rule), from which outgoing connections
and servers on port 0 take theirs.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOWEST, EPHEMERAL = 10_000, int(RANGE.read_text().split()[0])
_left = random.SystemRandom().sample(range(LOWEST, EPHEMERAL), EPHEMERAL - LOWEST)


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
