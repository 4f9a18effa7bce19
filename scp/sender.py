"""An association that we open to store instances with a node, written straight to the socket (PS3.8, PS3.7 9.3.1).

Each instance is a round trip: no thread in between, no copy of the data set.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp.commands import (
    C_STORE_RSP,
    COMMAND_FIELD,
    ERROR_COMMENT,
    MESSAGE_ID_RESPONDED_TO,
    STATUS,
    ProtocolError,
    number,
    parse_command,
    store_command,
    text,
)
from scp.receive import PduSocket
from scp.sending import Outlet, Stream

CONTEXTS = 128
"""Presentation contexts of one association (PS3.8 9.3.2.2: odd numbers to 255)."""
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_CONNECT_SECONDS = 10.0
_PDU_LIMIT = 1 << 20
_MAX_PDU = 16384
"""What we take: responses are short."""
_ACCEPT, _REJECT, _DATA, _RELEASE, _RELEASED, _ABORTED = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
_ABORT = bytes((0x07, 0, 0, 0, 0, 4, 0, 0, 0, 0))
_REFUSALS = {
    (1, 3): "it does not know our AE title",
    (1, 7): "its AE title is another",
    (3, 1): "it has too much to do",
    (3, 2): "it has too many associations",
}
"""Why an association is rejected, by source and reason (PS3.8 9.3.4)."""


class SenderFailed(Exception):
    """The association cannot be opened, or is over; ``transient``: it may be possible later."""

    def __init__(self, text: str, *, transient: bool = True) -> None:
        super().__init__(text)
        self.transient = transient


def _item(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(data)) + data


def association_request(calling: str, called: str, contexts: Sequence[tuple[str, str]]) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2); a context for each SOP class and transfer syntax, with IDs 1, 3, 5 ..."""
    parts = [_item(0x10, _APPLICATION_CONTEXT.encode())]
    for at, (abstract, syntax) in enumerate(contexts):
        inner = _item(0x30, abstract.encode("ascii")) + _item(0x40, syntax.encode("ascii"))
        parts.append(_item(0x20, bytes((2 * at + 1, 0, 0, 0)) + inner))
    user = (
        _item(0x51, struct.pack(">I", _MAX_PDU))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    )
    parts.append(_item(0x50, user))
    titles = called.encode("ascii", "replace").ljust(16)[:16] + calling.encode("ascii", "replace").ljust(16)[:16]
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + b"".join(parts)
    return struct.pack(">BBI", 0x01, 0, len(body)) + body


class Sender:
    """``with Sender(...)``: released at the end, aborted where an error leaves it."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        calling: str,
        called: str,
        contexts: Sequence[tuple[str, str]],
        acse_timeout: float,
        dimse_timeout: float,
        connect_timeout: float = _CONNECT_SECONDS,
        secure: Callable[[socket.socket], socket.socket] | None = None,
    ) -> None:
        """Opens the association. ``contexts`` are SOP class and transfer syntax. Raises SenderFailed.

        ``secure`` takes the connected socket and returns one whose bytes go over TLS.
        """
        self._dimse_timeout = dimse_timeout
        self._message_id = 0
        self._open = True
        contexts = contexts[:CONTEXTS]
        try:
            self._sock = socket.create_connection(address, timeout=connect_timeout)
        except OSError as error:
            raise SenderFailed(f"{address[0]}:{address[1]} cannot be reached: {error.strerror or error}") from error
        try:
            self._sock.settimeout(None)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if secure is not None:
                self._sock = secure(self._sock)
            self._sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", max(1, int(dimse_timeout)), 0)
            )
            self._pdus = PduSocket(self._sock)
            self._sock.sendall(association_request(calling, called, contexts))
            kind, body = self._read(acse_timeout)
            if kind != _ACCEPT:
                for_good = kind == _REJECT and len(body) >= 4 and body[1] == 1
                raise SenderFailed(
                    f"{called} does not accept the association ({_refusal(kind, body)})", transient=not for_good
                )
            accepted, max_pdu = _accepted(body)
        except (OSError, ProtocolError) as error:
            self._sock.close()
            raise SenderFailed(f"{called} at {address[0]}:{address[1]}: {error}") from error
        except SenderFailed:
            self._sock.close()
            raise
        self.accepted = {pair: 2 * at + 1 for at, pair in enumerate(contexts) if accepted.get(2 * at + 1) == pair[1]}
        """Context IDs of what the peer takes."""
        self.comment = ""
        """Error Comment of the last answer."""
        self._outlet = Outlet(self._sock, max_pdu)

    def store(
        self, context_id: int, sop_class_uid: str, sop_instance_uid: str, stream: Stream, length: int,
        originator: tuple[str, int] | None = None,
    ) -> int:  # fmt: skip
        """The status that the peer answers with. Raises SenderFailed where the association is over."""
        self._message_id = self._message_id % 0xFFFF + 1
        command = store_command(self._message_id, sop_class_uid, sop_instance_uid, originator=originator)
        try:
            self._outlet.send(context_id, command, stream, length)
            return self._status()
        except (OSError, ProtocolError) as error:
            self.abort()
            raise SenderFailed(str(error)) from error

    def _status(self) -> int:
        received = bytearray()
        while True:
            kind, body = self._read(self._dimse_timeout)
            if kind != _DATA:
                raise ProtocolError("the association was ended before the answer")
            at = 0
            while at + 6 <= len(body):
                end = at + 4 + int.from_bytes(body[at : at + 4], "big")
                received += body[at + 6 : end]
                last = body[at + 5] & 0x02
                at = max(end, at + 6)
                if last:
                    command = parse_command(received)
                    answered = number(command, COMMAND_FIELD), number(command, MESSAGE_ID_RESPONDED_TO)
                    if answered != (C_STORE_RSP, self._message_id):
                        raise ProtocolError("the answer is to something else")
                    self.comment = text(command, ERROR_COMMENT)
                    return number(command, STATUS)

    def _read(self, timeout: float) -> tuple[int, bytes]:
        head = memoryview(bytearray(6))
        if not self._pdus.read(head, timeout):
            raise ConnectionError("the connection was closed")
        self._pdus.acknowledge()  # DCMTK writes an answer in two pieces, the second once the first has arrived
        length = int.from_bytes(head[2:6], "big")
        if length > _PDU_LIMIT:
            raise ProtocolError(f"a PDU of {length} bytes")
        body = bytearray(length)
        if length and not self._pdus.read(memoryview(body), timeout):
            raise ConnectionError("the connection was closed within a PDU")
        return head[0], bytes(body)

    def release(self) -> None:
        """End the association in good order."""
        if self._open:
            self._open = False
            with suppress(OSError, ProtocolError):
                self._sock.sendall(struct.pack(">BBI", _RELEASE, 0, 4) + bytes(4))
                self._read(5.0)
            self._sock.close()

    def abort(self) -> None:
        """End it at once."""
        if self._open:
            self._open = False
            with suppress(OSError):
                self._sock.sendall(_ABORT)
            self._sock.close()


def _refusal(kind: int, body: bytes) -> str:
    if kind == _REJECT and len(body) >= 4:
        words = _REFUSALS.get((body[2], body[3]))
        return f"rejected: {words or f'result {body[1]}, source {body[2]}, reason {body[3]}'}"
    return "aborted" if kind == _ABORTED else f"a PDU of type {kind:02X}H"


def _accepted(body: bytes) -> tuple[dict[int, str], int]:
    """Transfer syntaxes by context ID, and the largest PDU, of an A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    accepted: dict[int, str] = {}
    max_pdu = 0
    for kind, value in _items(body, 68):
        if kind == 0x21 and len(value) >= 4 and value[2] == 0:
            for inner, syntax in _items(value, 4):
                if inner == 0x40:
                    accepted[value[0]] = syntax.decode("ascii", "replace").strip("\0 ")
        elif kind == 0x50:
            for inner, data in _items(value, 0):
                if inner == 0x51 and len(data) == 4:
                    max_pdu = int.from_bytes(data, "big")
    return accepted, max_pdu


def _items(data: bytes, at: int) -> list[tuple[int, bytes]]:
    found = []
    while at + 4 <= len(data):
        kind, length = struct.unpack_from(">BxH", data, at)
        found.append((kind, data[at + 4 : at + 4 + length]))
        at += 4 + length
    return found
