"""Ports of 127.0.0.1 for the servers that a benchmark starts."""

from __future__ import annotations

import socket


def free_ports(count: int) -> list[int]:
    """All different: held together before any is let go."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
