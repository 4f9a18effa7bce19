"""A request that is served in the thread which reads its association's socket: no hand-over, nothing else in between.

``Inbox`` takes the messages that belong to such requests as they come, ``Channel`` is how an operation answers, hears
of a C-CANCEL, and sends instances on the same association (C-GET).
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from scp.commands import (
    AFFECTED_SOP_CLASS_UID,
    C_CANCEL_RQ,
    C_STORE_RSP,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    DATA_SET,
    ERROR_COMMENT,
    MESSAGE_ID,
    MESSAGE_ID_RESPONDED_TO,
    NO_DATA_SET,
    OFFENDING_ELEMENT,
    RESPONSE,
    STATUS,
    ProtocolError,
    command_pdus,
    command_set,
    data_pdus,
    number,
    text,
)
from scp.statuses import Answer

_log = logging.getLogger(__name__)
_IDENTIFIER_LIMIT = 1 << 20
_FLUSH_BYTES = 32 << 10


class Ended(Exception):
    """The peer has released or aborted the association, or closed the connection, while its request was served."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request with its data set."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    command: Mapping[int, bytes]
    data: bytes

    @property
    def field(self) -> int:
        return number(dict(self.command), COMMAND_FIELD)

    @property
    def message_id(self) -> int:
        return number(dict(self.command), MESSAGE_ID)


class Operation(Protocol):
    """Serves one request; returns when its final response is given. Errors of the connection are not its business."""

    def __call__(self, message: Message, channel: Channel) -> None: ...


class Inbox:
    """What has come for the operations of one association."""

    def __init__(self, find: Callable[[int, int], tuple[Operation, str, str] | None]) -> None:
        """``find`` gives operation, SOP class and transfer syntax for a presentation context and a Command Field."""
        self._find = find
        self.request: tuple[Operation, Message] | None = None
        """The next to be served."""
        self.serving: int | None = None
        """Message ID of what is being served now."""
        self.cancelled = False
        self.awaits_response = False
        self.response: dict[int, bytes] | None = None
        """To a C-STORE-RQ of ours."""

    def expect_response(self) -> None:
        """A C-STORE-RQ goes out."""
        self.awaits_response, self.response = True, None

    def take(self, context_id: int, command: dict[int, bytes]) -> Taken | None:
        """Who takes the data set of a message that is for us. None: it is not."""
        field = number(command, COMMAND_FIELD)
        if field == C_CANCEL_RQ:
            # One that comes after the final response is too late, which is no error (PS3.7 9.3.2.3).
            self.cancelled |= self.serving == number(command, MESSAGE_ID_RESPONDED_TO)
            return Taken(None)
        if field == C_STORE_RSP:
            if not self.awaits_response:
                raise ProtocolError("a response comes that nobody waits for")
            self.awaits_response, self.response = False, command
            return Taken(None)
        found = self._find(context_id, field)
        if found is None:
            return None
        if self.serving is not None or self.request is not None:
            raise ProtocolError("a request comes before the one before it is answered")
        operation, abstract_syntax, transfer_syntax = found
        number(command, MESSAGE_ID)

        def complete(data: bytes) -> None:
            self.request = operation, Message(context_id, abstract_syntax, transfer_syntax, command, data)

        return Taken(complete)


class Taken:
    """The data set of a message that an inbox took."""

    def __init__(self, complete: Callable[[bytes], None] | None) -> None:
        self._complete = complete
        self._data = bytearray()

    def write(self, data: memoryview) -> None:
        self._data += data
        if len(self._data) > _IDENTIFIER_LIMIT:
            raise ProtocolError("an identifier is too long")

    def finish(self) -> None:
        if self._complete is not None:
            self._complete(bytes(self._data))

    def discard(self) -> None:
        """Nothing to do: nothing of it was kept elsewhere."""


class Line(Protocol):
    """What a channel needs of whoever reads the socket."""

    inbox: Inbox

    def readable(self) -> bool:
        """Whether something has come."""

    def take_pdu(self) -> None:
        """Wait for a PDU and take it in. Raises Ended, ProtocolError, OSError."""


class Channel:
    """How an operation speaks with its peer. Any method may raise Ended, ProtocolError or OSError: let them pass."""

    def __init__(self, line: Line, sock: socket.socket, association: Any, message: Message) -> None:
        self._line = line
        self.socket = sock
        self.association = association
        self._message = message
        self.max_pdu = int(association.requestor.maximum_length or 0)
        """The largest PDU that the peer takes; 0 = any."""
        self._waiting: list[bytes] = []
        self._size = 0

    @property
    def peer(self) -> str:
        """As logs name it."""
        return str(self.association.peer)

    @property
    def calling_ae(self) -> str:
        return str(self.association.requestor.primitive.calling_ae_title).strip()

    @property
    def address(self) -> str:
        return str(self.association.requestor.address)

    def agreed(self, abstract_syntax: str) -> bytes:
        """What was agreed by SOP Class Extended Negotiation."""
        return bytes(self.association.extended.get(abstract_syntax, b""))

    def respond(self, answer: Answer, data: bytes | None = None, counts: Mapping[int, int] | None = None) -> None:
        """A response with its data set. It may wait with others until ``flush``."""
        message, elements = self._message, dict[int, bytes | int | str](counts or {})
        elements |= {
            AFFECTED_SOP_CLASS_UID: text(dict(message.command), AFFECTED_SOP_CLASS_UID),
            COMMAND_FIELD: message.field | RESPONSE,
            MESSAGE_ID_RESPONDED_TO: message.message_id,
            COMMAND_DATA_SET_TYPE: NO_DATA_SET if data is None else DATA_SET,
            STATUS: answer.status,
        }
        if answer.comment:
            elements[ERROR_COMMENT] = answer.comment[:64]
        if answer.offending is not None:
            elements[OFFENDING_ELEMENT] = struct.pack("<HH", answer.offending >> 16, answer.offending & 0xFFFF)
        self.put(command_set(elements), data)

    def put(self, command: bytes, data: bytes | None) -> None:
        """A message whose command set is encoded."""
        pdus = list(command_pdus(self._message.context_id, command, self.max_pdu))
        if data is not None:
            pdus += data_pdus(self._message.context_id, data, self.max_pdu)
        self._waiting += pdus
        self._size += sum(map(len, pdus))
        if self._size > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self.socket.sendall(data)

    def cancelled(self) -> bool:
        """Whether the peer has sent a C-CANCEL-RQ; takes in what has come since the last time."""
        while not self._line.inbox.cancelled and self._line.readable():
            self._line.take_pdu()
        return self._line.inbox.cancelled

    def response(self) -> dict[int, bytes]:
        """Wait for the answer to a C-STORE-RQ that was just sent on this association."""
        inbox = self._line.inbox
        inbox.expect_response()
        while (response := inbox.response) is None:
            self._line.take_pdu()
        return response
