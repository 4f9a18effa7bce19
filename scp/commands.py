"""DIMSE command sets as bytes (PS3.7 6.3, 9.3): those that are read and written for every instance or match."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
C_FIND_RQ, C_GET_RQ, C_MOVE_RQ, C_CANCEL_RQ = 0x0020, 0x0010, 0x0021, 0x0FFF
RESPONSE = 0x8000
"""Set in the Command Field of a response."""
DATA_SET, NO_DATA_SET = 0x0001, 0x0101

AFFECTED_SOP_CLASS_UID = 0x00000002
COMMAND_FIELD = 0x00000100
MESSAGE_ID = 0x00000110
MESSAGE_ID_RESPONDED_TO = 0x00000120
MOVE_DESTINATION = 0x00000600
PRIORITY = 0x00000700
COMMAND_DATA_SET_TYPE = 0x00000800
STATUS = 0x00000900
OFFENDING_ELEMENT = 0x00000901
ERROR_COMMENT = 0x00000902
AFFECTED_SOP_INSTANCE_UID = 0x00001000
REMAINING, COMPLETED, FAILED, WARNING = 0x00001020, 0x00001021, 0x00001022, 0x00001023
"""Numbers of sub-operations."""
_MOVE_ORIGINATOR, _MOVE_ORIGINATOR_MESSAGE_ID = 0x00001030, 0x00001031
_UIDS = (AFFECTED_SOP_CLASS_UID, AFFECTED_SOP_INSTANCE_UID)


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


def text(command: dict[int, bytes], tag: int) -> str:
    """A UID or AE title of a command set; empty where it is missing."""
    return command.get(tag, b"").decode("ascii", "replace").strip("\0 ")


def store_request(context_id: int, command: dict[int, bytes]) -> StoreRequest:
    """ProtocolError where it cannot even be answered."""
    return StoreRequest(
        context_id,
        number(command, MESSAGE_ID),
        text(command, AFFECTED_SOP_CLASS_UID),
        text(command, AFFECTED_SOP_INSTANCE_UID),
    )


def _element(element: int, value: bytes, pad: bytes = b"\0") -> bytes:
    if len(value) % 2:
        value += pad
    return struct.pack("<HHI", 0, element, len(value)) + value


def store_response(request: StoreRequest, status: int, *, comment: str = "", offending: int | None = None) -> bytes:
    """A C-STORE-RSP command set (PS3.7 9.3.1.2); a comment is at most 64 characters, ``offending`` a tag."""
    parts = [
        _element(AFFECTED_SOP_CLASS_UID, request.sop_class_uid.encode("ascii", "replace")),
        _element(COMMAND_FIELD, struct.pack("<H", C_STORE_RSP)),
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


def command_set(elements: dict[int, bytes | int | str]) -> bytes:
    """A command set of unsigned shorts (numbers), text and bytes, with its group length."""
    parts = []
    for tag, value in sorted(elements.items()):
        data = struct.pack("<H", value) if isinstance(value, int) else value
        if isinstance(data, str):
            data = data.encode("ascii", "replace")
        parts.append(_element(tag, data, b"\0" if tag in _UIDS else b" "))
    body = b"".join(parts)
    return _element(0x0000, struct.pack("<I", len(body))) + body


def store_command(
    message_id: int, sop_class_uid: str, sop_instance_uid: str, *, originator: tuple[str, int] | None = None
) -> bytes:
    """A C-STORE-RQ (PS3.7 9.3.1.1); ``originator`` is AE title and message ID of the C-MOVE that it is a part of."""
    elements: dict[int, bytes | int | str] = {
        AFFECTED_SOP_CLASS_UID: sop_class_uid,
        COMMAND_FIELD: C_STORE_RQ,
        MESSAGE_ID: message_id,
        PRIORITY: 0,
        COMMAND_DATA_SET_TYPE: DATA_SET,
        AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
    }
    if originator is not None:
        elements[_MOVE_ORIGINATOR], elements[_MOVE_ORIGINATOR_MESSAGE_ID] = originator
    return command_set(elements)


def command_pdus(context_id: int, command: bytes, max_pdu: int) -> Iterator[bytes]:
    """A command set as P-DATA-TF PDUs (PS3.8 9.3.5) of at most ``max_pdu`` bytes each, 0 = no limit."""
    return _pdus(context_id, command, max_pdu, 0x01)


def data_pdus(context_id: int, data: bytes, max_pdu: int) -> Iterator[bytes]:
    """The same for a data set in memory."""
    return _pdus(context_id, data, max_pdu, 0x00)


def _pdus(context_id: int, data: bytes, max_pdu: int, kind: int) -> Iterator[bytes]:
    room = max(max_pdu - 6, 1) if max_pdu else max(len(data), 1)
    for at in range(0, len(data) or 1, room):
        piece = data[at : at + room]
        last = 0x02 if at + room >= len(data) else 0x00
        yield struct.pack(">BBIIBB", 0x04, 0, len(piece) + 6, len(piece) + 2, context_id, kind | last) + piece
