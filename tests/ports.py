"""Ports of 127.0.0.1 that nobody listens on right now."""

from __future__ import annotations

import socket


def free_ports(count: int) -> list[int]:
    """All different: held together before any is let go."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for one in sockets:
        one.close()
    return ports
