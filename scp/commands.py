"""DIMSE command sets as bytes (PS3.7 6.3, 9.3.1): the few that a storage SCP reads and writes for every instance."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

C_STORE_RQ = 0x0001
_C_STORE_RSP = 0x8001
NO_DATA_SET = 0x0101

AFFECTED_SOP_CLASS_UID = 0x00000002
COMMAND_FIELD = 0x00000100
MESSAGE_ID = 0x00000110
COMMAND_DATA_SET_TYPE = 0x00000800
AFFECTED_SOP_INSTANCE_UID = 0x00001000


class ProtocolError(Exception):
    """The peer does not speak DICOM: the association is aborted."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ, as far as it concerns us (PS3.7 9.3.1.1)."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


def parse_command(data: bytes | bytearray) -> dict[int, bytes]:
    """Elements of a command set by tag. ProtocolError where it is malformed."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ProtocolError("a command set ends within an element")
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if group != 0 or at + length > len(data):
            raise ProtocolError(f"a command set is malformed at ({group:04X},{element:04X})")
        found[element] = bytes(data[at : at + length])
        at += length
    return found


def number(command: dict[int, bytes], tag: int) -> int:
    """An unsigned short of a command set. ProtocolError where it is missing."""
    value = command.get(tag, b"")
    if len(value) != 2:
        raise ProtocolError(f"a command set has no valid (0000,{tag:04X})")
    return int.from_bytes(value, "little")


def _uid(command: dict[int, bytes], tag: int) -> str:
    return command.get(tag, b"").decode("ascii", "replace").strip("\0 ")


def store_request(context_id: int, command: dict[int, bytes]) -> StoreRequest:
    """ProtocolError where it cannot even be answered."""
    return StoreRequest(
        context_id,
        number(command, MESSAGE_ID),
        _uid(command, AFFECTED_SOP_CLASS_UID),
        _uid(command, AFFECTED_SOP_INSTANCE_UID),
    )


def _element(element: int, value: bytes, pad: bytes = b"\0") -> bytes:
    if len(value) % 2:
        value += pad
    return struct.pack("<HHI", 0, element, len(value)) + value


def store_response(request: StoreRequest, status: int, *, comment: str = "", offending: int | None = None) -> bytes:
    """A C-STORE-RSP command set (PS3.7 9.3.1.2); a comment is at most 64 characters, ``offending`` a tag."""
    parts = [
        _element(AFFECTED_SOP_CLASS_UID, request.sop_class_uid.encode("ascii", "replace")),
        _element(COMMAND_FIELD, struct.pack("<H", _C_STORE_RSP)),
        _element(0x0120, struct.pack("<H", request.message_id)),
        _element(COMMAND_DATA_SET_TYPE, struct.pack("<H", NO_DATA_SET)),
        _element(0x0900, struct.pack("<H", status)),
    ]
    if offending is not None:
        parts.append(_element(0x0901, struct.pack("<HH", offending >> 16, offending & 0xFFFF)))
    if comment:
        parts.append(_element(0x0902, comment[:64].encode("ascii", "replace"), b" "))
    parts.append(_element(AFFECTED_SOP_INSTANCE_UID, request.sop_instance_uid.encode("ascii", "replace")))
    body = b"".join(parts)
    return _element(0x0000, struct.pack("<I", len(body))) + body


def command_pdus(context_id: int, command: bytes, max_pdu: int) -> Iterator[bytes]:
    """A command set as P-DATA-TF PDUs (PS3.8 9.3.5) of at most ``max_pdu`` bytes each, 0 = no limit."""
    room = max(max_pdu - 6, 1) if max_pdu else len(command)
    for at in range(0, len(command), room):
        piece = command[at : at + room]
        last = 0x02 if at + room >= len(command) else 0x00
        yield struct.pack(">BBIIBB", 0x04, 0, len(piece) + 6, len(piece) + 2, context_id, 0x01 | last) + piece
