"""A C-STORE-RQ on its way out: the data set goes from its file into P-DATA-TF PDUs as it is (PS3.8 9.3.5)."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Sequence
from typing import Protocol

from scp.commands import command_pdus

_PDU_LIMIT = 131072
_BUFFER = 1 << 20
_PARTS = 512  # of one sendmsg; the system takes 1,024
_LARGEST_FRAME = 9216
_LOCAL_BUFFER = 64 << 10
_HEAD = struct.Struct(">BBIIBB")


class Stream(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class CutOff(OSError):
    """A file ends before the data set does: half of it is sent, so the association cannot go on."""


class Outlet:
    """Sends data sets over one socket; keeps its buffer from one to the next."""

    def __init__(self, sock: socket.socket, max_pdu: int) -> None:
        """``max_pdu``: the largest PDU that the peer takes, 0 = any."""
        self._sock = sock
        self._max_pdu = max_pdu
        limit = min(max_pdu, _PDU_LIMIT) if max_pdu else _PDU_LIMIT
        self._room = max(limit - 6, 2) & ~1  # presentation data values have even lengths
        self._parts = _PARTS
        if sock.family != socket.AF_UNIX and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > _LARGEST_FRAME:
            # Segments larger than any frame: the peer is on this machine. If its window is small, as DCMTK's is, it
            # acknowledges such segments only after 40 ms; it does at once where they come a PDU at a time.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LOCAL_BUFFER)
            self._parts = 2
        self._buffer = memoryview(bytearray(max(_BUFFER - _BUFFER % self._room, self._room)))

    def send(self, context_id: int, command: bytes, stream: Stream, length: int) -> None:
        """A command set, and ``length`` bytes from the stream. Raises OSError of the socket or the file, CutOff."""
        parts: list[bytes | memoryview] = list(command_pdus(context_id, command, self._max_pdu))
        room, buffer = self._room, self._buffer
        whole = _HEAD.pack(0x04, 0, room + 6, room + 2, context_id, 0)
        left = length
        while left:
            size = min(left, len(buffer))
            _fill(stream, buffer[:size])
            left -= size
            for at in range(0, size, room):
                piece = buffer[at : min(at + room, size)]
                last = not left and at + room >= size
                count = len(piece)
                head = _HEAD.pack(0x04, 0, count + 6, count + 2, context_id, 2 if last else 0)
                parts += (whole if count == room and not last else head, piece)
            send_parts(self._sock, parts, self._parts)
            parts = []


def _fill(stream: Stream, target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = stream.readinto(target[done:])
        if not count:
            raise CutOff("a file is shorter than it should be")
        done += count


def send_parts(sock: socket.socket, parts: Sequence[bytes | memoryview], at_once: int = _PARTS) -> None:
    """All of them, so many with each call, without joining them."""
    if isinstance(sock, ssl.SSLSocket):
        sock.sendall(b"".join(parts))
        return
    for at in range(0, len(parts), at_once):
        group = list(parts[at : at + at_once])
        sent, total = sock.sendmsg(group), sum(map(len, group))
        if sent < total:
            sock.sendall(memoryview(b"".join(group))[sent:])
