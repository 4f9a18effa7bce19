"""Ports that a test needs before anything listens there, or again after it ceased to."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

_held: list[socket.socket] = []


def own_port() -> int:
    """A free TCP port of loopback that nothing else on this machine gets by chance while this process lives.

    It lies below those that the kernel hands out, and other processes of a test run know by a name that it is taken.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    low, high = (first - 12_000, first) if first > 14_000 else (50_000, 62_000)
    begin = os.getpid() * 37 % (high - low)
    for number in range(high - low):
        port = low + (begin + number) % (high - low)
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0burnish-test-port-{port}")
        except OSError:
            name.close()
            continue
        _held.append(name)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("there is no free port")
