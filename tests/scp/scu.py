"""A DICOM sender of a few lines, made of raw PDUs, so that a test can say exactly what goes over the wire."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from media.part10 import locate

EXPLICIT_LE = "1.2.840.10008.1.2.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Response:
    """A C-STORE-RSP or C-ECHO-RSP."""

    status: int
    comment: str
    offending: tuple[int, int] | None
    sop_instance_uid: str
    message_id: int


class Rejected(Exception):
    """A-ASSOCIATE-RJ; ``args`` are result, source and reason."""


class Aborted(Exception):
    """A-ABORT; ``args`` are source and reason."""


def element(tag: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, tag, len(value)) + value


def command(**fields: bytes) -> bytes:
    """A command set; names are ``e0100`` and so on."""
    body = b"".join(element(int(name[1:], 16), value) for name, value in sorted(fields.items()))
    return element(0, struct.pack("<I", len(body))) + body


def store_command(sop_class: str, sop_instance: str, *, message_id: int = 1, has_data: bool = True) -> bytes:
    return command(
        e0002=sop_class.encode(),
        e0100=b"\x01\x00",
        e0110=struct.pack("<H", message_id),
        e0700=b"\0\0",
        e0800=b"\0\0" if has_data else b"\x01\x01",
        e1000=sop_instance.encode(),
    )


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, control) + data


def pdata(*values: bytes) -> bytes:
    body = b"".join(values)
    return struct.pack(">BBI", 4, 0, len(body)) + body


def _item(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(data)) + data


def associate_request(
    contexts: Iterable[tuple[str, Iterable[str]]], *, calling: str = "SCU", called: str = "BURNISH", max_pdu: int = 0
) -> bytes:
    """An A-ASSOCIATE-RQ; contexts get the IDs 1, 3, 5, ..."""
    parts = [_item(0x10, b"1.2.840.10008.3.1.1.1")]
    for number, (abstract, syntaxes) in enumerate(contexts):
        inner = _item(0x30, abstract.encode()) + b"".join(_item(0x40, uid.encode()) for uid in syntaxes)
        parts.append(_item(0x20, bytes((2 * number + 1, 0, 0, 0)) + inner))
    user = _item(0x51, struct.pack(">I", max_pdu)) + _item(0x52, b"1.2.3.4")
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    body += b"".join(parts) + _item(0x50, user)
    return struct.pack(">BBI", 1, 0, len(body)) + body


class Scu:
    """An association as requestor. Leaving its ``with`` closes the connection without a word."""

    def __init__(
        self,
        port: int,
        contexts: Iterable[tuple[str, Iterable[str]]] = ((CT, (EXPLICIT_LE,)),),
        *,
        calling: str = "SCU",
        called: str = "BURNISH",
        max_pdu: int = 0,
    ) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.accepted: dict[int, str] = {}
        self.results: dict[int, int] = {}
        self.max_pdu = 0
        try:
            self.send(associate_request(contexts, calling=calling, called=called, max_pdu=max_pdu))
            self._take_accept(self.pdu(0x02))
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Scu:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def pdu(self, expected: int) -> bytes:
        """The body of the next PDU, which must be of this type."""
        kind, length = struct.unpack(">BxI", self._exactly(6))
        body = self._exactly(length)
        if kind == 0x03:
            raise Rejected(*body[1:4])
        if kind == 0x07:
            raise Aborted(*body[2:4])
        assert kind == expected, f"PDU type {kind:02X}"
        return body

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise ConnectionError("closed by the peer")
            data += piece
        return data

    def _take_accept(self, body: bytes) -> None:
        at = 68
        while at < len(body):
            kind, length = struct.unpack_from(">BxH", body, at)
            value = body[at + 4 : at + 4 + length]
            if kind == 0x21:
                self.results[value[0]] = value[2]
                if value[2] == 0:
                    self.accepted[value[0]] = value[8:].decode()
            elif kind == 0x50:
                self.max_pdu = struct.unpack_from(">I", value, 4)[0]
            at += 4 + length

    def response(self) -> Response:
        """The next response; it may come in several PDUs."""
        data = b""
        while True:
            body = self.pdu(0x04)
            data += body[6:]
            if body[5] & 2:
                break
        fields: dict[int, bytes] = {}
        at = 0
        while at < len(data):
            _, tag, length = struct.unpack_from("<HHI", data, at)
            fields[tag] = data[at + 8 : at + 8 + length]
            at += 8 + length
        offending = struct.unpack("<HH", fields[0x0901]) if 0x0901 in fields else None
        return Response(
            int.from_bytes(fields[0x0900], "little"),
            fields.get(0x0902, b"").decode().strip(),
            offending,
            fields.get(0x1000, b"").decode().strip("\0"),
            int.from_bytes(fields[0x0120], "little"),
        )

    def store(
        self,
        sop_class: str,
        sop_instance: str,
        data: bytes,
        *,
        context_id: int = 1,
        fragment: int = 16384,
        message_id: int = 1,
    ) -> Response:
        """A whole C-STORE."""
        self.begin(sop_class, sop_instance, context_id=context_id, message_id=message_id)
        for at in range(0, len(data) or 1, fragment):
            last = 2 if at + fragment >= len(data) else 0
            self.send(pdata(pdv(context_id, last, data[at : at + fragment])))
        return self.response()

    def begin(self, sop_class: str, sop_instance: str, *, context_id: int = 1, message_id: int = 1) -> None:
        """The command only; the data set is still to come."""
        self.send(pdata(pdv(context_id, 3, store_command(sop_class, sop_instance, message_id=message_id))))

    def echo(self, *, context_id: int = 1) -> Response:
        fields = {"e0002": VERIFICATION.encode(), "e0100": b"\x30\x00", "e0110": b"\x07\x00", "e0800": b"\x01\x01"}
        self.send(pdata(pdv(context_id, 3, command(**fields))))
        return self.response()

    def release(self) -> None:
        self.send(struct.pack(">BBII", 5, 0, 4, 0))
        self.pdu(0x06)

    def abort(self) -> None:
        self.send(struct.pack(">BBII", 7, 0, 4, 0))


def context_of(path: Path) -> tuple[str, str, str, bytes]:
    """SOP class, SOP instance, transfer syntax and data set of a file."""
    located = locate(path)
    return (
        located.sop_class_uid,
        located.sop_instance_uid,
        located.transfer_syntax_uid,
        path.read_bytes()[located.dataset_offset :],
    )
