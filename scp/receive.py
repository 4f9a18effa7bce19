"""The receiving end of an association: P-DATA goes from the socket straight into the spool.

pynetdicom's upper layer provider is kept for everything but the hot path. Replaced are its waiting (it wakes a thousand
times a second, we sleep in ``poll``), its reading (4,096 bytes at a time, we take a whole PDU) and what becomes of a
C-STORE-RQ (it holds or copies the data set and hands it to a second thread; here the thread that reads also stores and
answers). All other messages go to pynetdicom's DIMSE provider as before.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import P_DATA

from scp.channel import Channel, Ended, Inbox, Operation, Taken
from scp.commands import (
    C_STORE_RQ,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    NO_DATA_SET,
    ProtocolError,
    StoreRequest,
    command_pdus,
    number,
    parse_command,
    store_request,
    store_response,
)
from scp.statuses import UNABLE, Answer
from scp.storage import Reception

_log = logging.getLogger(__name__)
_P_DATA_TF = 0x04
_ABORT = bytes((0x07, 0, 0, 0, 0, 4, 0, 0, 2, 0))  # A-ABORT by the service provider, no reason given (PS3.8 9.3.8)
_COMMAND_LIMIT = 64 << 10
_OTHER_PDU_LIMIT = 1 << 20
_OTHER_DATA_LIMIT = 16 << 20
_IDLE_WAIT = 0.5
_TOLERATED = 64  # some senders count the PDU without the heads of its values


class PduSocket:
    """Reads whole PDUs from a blocking socket, each within a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout = -1.0

    def read(self, target: memoryview, timeout: float) -> bool:
        """Fill ``target``; False where the connection ends before its first byte.

        TimeoutError where it takes longer than ``timeout`` seconds, ConnectionError where it ends in the middle.
        """
        if timeout != self._timeout:
            # A time limit in the kernel: the socket stays blocking, so that MSG_WAITALL takes a PDU in one call.
            whole = int(timeout)
            value = struct.pack("@ll", whole, int((timeout - whole) * 1e6))
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
            self._timeout = timeout
        deadline = 0.0
        done, size = 0, len(target)
        while done < size:
            try:
                count = self._sock.recv_into(target[done:], 0, socket.MSG_WAITALL)
            except BlockingIOError:
                raise TimeoutError(f"the peer sent nothing for {timeout:g} s within a PDU") from None
            if not count:
                if done:
                    raise ConnectionError("the connection ended within a PDU")
                return False
            done += count
            if done < size:
                deadline = deadline or time.monotonic() + timeout
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the peer took more than {timeout:g} s for a PDU")
        return True

    def acknowledge(self) -> None:
        """Acknowledge at once what has come: senders that wait for that lose 40 ms with each instance otherwise."""
        if hasattr(socket, "TCP_QUICKACK"):
            with suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _DataSet(Protocol):
    """Who takes a message's data set."""

    def write(self, data: memoryview) -> None: ...
    def discard(self) -> None: ...


class MessageDecoder:
    """Puts presentation data values together to messages (PS3.8 Annex E); C-STORE data sets are never held.

    ``begin`` starts a reception, ``reply`` sends the answer, ``take`` may take another message as a whole, ``other``
    gets each fragment of all that remain.
    """

    def __init__(
        self,
        begin: Callable[[StoreRequest], Reception],
        reply: Callable[[StoreRequest, Answer], None],
        other: Callable[[int, bytes], None],
        take: Callable[[int, dict[int, bytes]], Taken | None] = lambda _, __: None,
    ) -> None:
        self._take = take
        self._begin = begin
        self._reply = reply
        self._other = other
        self._command = bytearray()
        self._context_id = 0
        self._request: StoreRequest | None = None
        self._data_set: _DataSet | None = None

    @property
    def busy(self) -> bool:
        """Whether a message has begun and is not complete."""
        return self._data_set is not None or bool(self._command)

    @property
    def storing(self) -> bool:
        """Whether the data set of a C-STORE-RQ is on its way."""
        return isinstance(self._data_set, Reception)

    def feed(self, body: memoryview) -> None:
        """The variable field of a P-DATA-TF PDU. ProtocolError where it is malformed or out of order."""
        at, size = 0, len(body)
        while at < size:
            if size - at < 6:
                raise ProtocolError("a P-DATA-TF PDU ends within the head of a presentation data value")
            length = int.from_bytes(body[at : at + 4], "big")
            end = at + 4 + length
            if length < 2 or end > size:
                raise ProtocolError("a presentation data value is longer than its PDU")
            self._value(body[at + 4], body[at + 5], body[at + 6 : end])
            at = end

    def _value(self, context_id: int, control: int, data: memoryview) -> None:
        last = bool(control & 0x02)
        if self.busy and context_id != self._context_id:
            raise ProtocolError("a message changes its presentation context")
        if control & 0x01:
            if self._data_set is not None:
                raise ProtocolError("a command comes before the end of the data set before it")
            self._context_id = context_id
            self._command += data
            if len(self._command) > _COMMAND_LIMIT:
                raise ProtocolError("a command set is too long")
            if last:
                self._command_complete()
        else:
            if self._data_set is None:
                raise ProtocolError("a data set comes without a command")
            self._data_set.write(data)
            if last:
                self._data_set_complete()

    def _command_complete(self) -> None:
        command = parse_command(self._command)
        has_data = number(command, COMMAND_DATA_SET_TYPE) != NO_DATA_SET
        if number(command, COMMAND_FIELD) == C_STORE_RQ:
            self._request = store_request(self._context_id, command)
            self._data_set = self._begin(self._request)
            if not has_data:
                self._data_set_complete()
        elif (taken := self._take(self._context_id, command)) is not None:
            self._data_set = taken
            if not has_data:
                self._data_set_complete()
        else:
            self._other(self._context_id, b"\x03" + self._command)
            self._data_set = _Other(self._context_id, self._other) if has_data else None
        self._command.clear()

    def _data_set_complete(self) -> None:
        data_set, request = self._data_set, self._request
        self._data_set = self._request = None
        if isinstance(data_set, Reception) and request is not None:
            self._reply(request, data_set.finish())
        elif isinstance(data_set, _Other | Taken):
            data_set.finish()

    def discard(self) -> None:
        """The association is over: nothing of an unfinished message remains."""
        if self._data_set is not None:
            self._data_set.discard()
        self._data_set = self._request = None
        self._command.clear()


class _Other:
    """Data set of a message that is not a C-STORE: held by pynetdicom, so it has a limit."""

    def __init__(self, context_id: int, other: Callable[[int, bytes], None]) -> None:
        self._context_id = context_id
        self._other = other
        self._size = 0

    def write(self, data: memoryview) -> None:
        self._size += len(data)
        if self._size > _OTHER_DATA_LIMIT:
            raise ProtocolError("a data set that is not to be stored is too long")
        self._other(self._context_id, b"\x00" + data)

    def finish(self) -> None:
        self._other(self._context_id, b"\x02")

    def discard(self) -> None:
        pass


class Provider(DULServiceProvider):
    """pynetdicom's upper layer service provider with a fast way for P-DATA."""

    def __init__(
        self,
        assoc: Any,
        begin: Callable[[StoreRequest], Reception],
        find: Callable[[int, int], tuple[Operation, str, str] | None],
        max_pdu: int,
    ) -> None:
        """``begin`` and ``find``: see ``MessageDecoder`` and ``Inbox``."""
        super().__init__(assoc)
        self.daemon = True
        self._association: Any = assoc
        self.bell = threading.Event()
        """Rung when there is something for the association's thread."""
        self._run_loop_delay = 0
        self.inbox = Inbox(find)
        self._decoder = MessageDecoder(begin, self._reply, self._pass_on, self.inbox.take)
        self._head = memoryview(bytearray(6))
        self._body = memoryview(bytearray(max_pdu + _TOLERATED))
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wakeup_lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._wakeup, select.POLLIN)
        self._watched = -1
        self._pdus: PduSocket | None = None
        self._in_message = False
        self._told = False
        """Why it ended is in the log."""

    # --- Waiting ---

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except InvalidEventError as error:
            # What we were about to say and what the peer did have crossed: it hung up before it was accepted, say.
            self._log_end(f"its messages are out of order ({error})")
            if self.socket:
                self.socket.close()
        finally:
            self._decoder.discard()
            # Ends the wait for a request that will never come.
            nothing: Any = None
            self.to_user_queue.put(nothing)
            self.bell.set()
            with self._wakeup_lock:
                os.close(self._wakeup)
                self._wakeup = -1

    def wake(self) -> None:
        """End the reactor's wait."""
        with self._wakeup_lock:
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    def send_pdu(self, primitive: Any) -> None:
        super().send_pdu(primitive)
        self.wake()

    def kill_dul(self) -> None:
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        self.wake()
        return bool(super().stop_dul())

    def idle_timer_expired(self) -> bool:
        """Never while we are the ones who take their time."""
        return not self._in_message and super().idle_timer_expired()

    def _is_transport_event(self) -> bool:
        if not self.to_user_queue.empty() or not self.assoc.dimse.msg_queue.empty():
            self.bell.set()
        sock = self.socket.socket if self.socket else None
        if sock is None:
            time.sleep(0.001)
            return False
        if self.state_machine.current_state == "Sta13":
            return bool(super()._is_transport_event())
        if self._pdus is None:
            self._pdus = PduSocket(sock)
            self._watched = sock.fileno()
            self._poll.register(self._watched, select.POLLIN)
        if not self._has_work():
            ready = self._poll.poll(_IDLE_WAIT * 1000)
            if any(fd == self._wakeup for fd, _ in ready):
                os.eventfd_read(self._wakeup)
            if not any(fd == self._watched for fd, _ in ready):
                return False
        elif not self.socket or not self.socket.ready:
            return False
        self._read_pdu_data()
        return True

    def _has_work(self) -> bool:
        return self._kill_thread or not self.event_queue.empty() or not self.to_provider_queue.empty()

    # --- Reading ---

    def _read_pdu_data(self) -> None:
        """Read one PDU or, where it begins a message, all PDUs of that message."""
        if self.state_machine.current_state == "Sta13":
            self._pass_over()
            return
        self._in_message = True
        try:
            while self._read_pdu() and not self._kill_thread:
                self._operate()
                if not self._decoder.busy:
                    break
        except Ended:
            pass  # what ended it is an event already
        except (OSError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                self._abort_at_once()
            self._log_end(str(error))
            self.event_queue.put("Evt17")
        except ProtocolError as error:
            self._log_end(str(error))
            self.event_queue.put("Evt19")
        finally:
            self._in_message = False

    def _pass_over(self) -> None:
        """The association is aborted: what still comes before the peer hangs up means nothing (PS3.8 9.2.3, Sta13)."""
        sock = self.socket.socket if self.socket else None
        try:
            gone = sock is None or not sock.recv(_COMMAND_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self.event_queue.put("Evt17")

    def _read_pdu(self) -> bool:
        """Whether a P-DATA-TF PDU was taken; anything else has become an event for the state machine."""
        assert self._pdus is not None
        within = self._decoder.busy or self.inbox.awaits_response
        timeout = self.assoc.dimse_timeout if within else self.assoc.network_timeout
        if self.state_machine.current_state != "Sta6":
            timeout = self.assoc.acse_timeout
        if not self._pdus.read(self._head, timeout or 86400.0):
            if within:
                self._log_end("the peer closed the connection within a message")
            self.event_queue.put("Evt17")
            return False
        if not self._decoder.storing:
            self._pdus.acknowledge()  # DCMTK writes a short PDU in two pieces, the second once the first has arrived
        kind, length = self._head[0], int.from_bytes(self._head[2:6], "big")
        if kind == _P_DATA_TF and self.state_machine.current_state == "Sta6":
            if length > len(self._body):
                raise ProtocolError(f"a P-DATA-TF PDU has {length} bytes, more than was agreed")
            body = self._body[:length]
            if length and not self._pdus.read(body, timeout or 86400.0):
                raise ConnectionError("the connection ended within a PDU")
            self._decoder.feed(body)
            if self._decoder.busy:
                self._pdus.acknowledge()
            return True
        self._read_other(kind, length)
        return False

    def _read_other(self, kind: int, length: int) -> None:
        """A PDU of the association control, decoded as pynetdicom does."""
        assert self._pdus is not None
        if not 0x01 <= kind <= 0x07 or length > _OTHER_PDU_LIMIT:
            raise ProtocolError(f"there is no PDU of type {kind:02X}H with {length} bytes")
        pdu = bytearray(6 + length)
        pdu[:6] = self._head
        if length and not self._pdus.read(memoryview(pdu)[6:], self.assoc.acse_timeout or 86400.0):
            raise ConnectionError("the connection ended within a PDU")
        self._decoder.discard()
        try:
            decoded, event = self._decode_pdu(pdu)
        except Exception as error:
            raise ProtocolError(f"a PDU of type {kind:02X}H cannot be decoded ({type(error).__name__})") from error
        self.event_queue.put(event)
        self._recv_pdu.put(decoded)

    # --- Serving ---

    def _operate(self) -> None:
        """Serve the request that has just come, if it is one that is served here."""
        if self.inbox.request is None:
            return
        (operation, message), self.inbox.request = self.inbox.request, None
        sock = self.socket.socket if self.socket else None
        if sock is None:
            raise ConnectionError("the connection is closed")
        limit = self.assoc.network_timeout or 86400.0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(limit), 0))
        channel = Channel(self, sock, self._association, message)
        self.inbox.serving, self.inbox.cancelled = message.message_id, False
        try:
            operation(message, channel)
            channel.flush()
        except (OSError, ProtocolError, Ended):
            raise
        except Exception:  # noqa: BLE001 - the peer gets a status
            _log.exception("a request of %s failed unexpectedly", self._association.peer)
            channel.respond(UNABLE)
            channel.flush()
        finally:
            self.inbox.serving, self.inbox.awaits_response = None, False

    def readable(self) -> bool:
        """Whether something has come from the peer."""
        return any(fd == self._watched for fd, _ in self._poll.poll(0))

    def take_pdu(self) -> None:
        """Another PDU while a request is served. Raises Ended where the association is over."""
        if self._kill_thread or not self._read_pdu():
            raise Ended

    # --- Answering ---

    def _reply(self, request: StoreRequest, answer: Answer) -> None:
        """Send a C-STORE-RSP; this thread is the only one that writes to the socket."""
        response = store_response(request, answer.status, comment=answer.comment, offending=answer.offending)
        sock = self.socket.socket if self.socket else None
        if sock is None:
            raise ConnectionError("the connection is closed")
        sock.sendall(b"".join(command_pdus(request.context_id, response, self.assoc.requestor.maximum_length or 0)))

    def _pass_on(self, context_id: int, value: bytes) -> None:
        primitive: Any = P_DATA()
        primitive.presentation_data_value_list = [[context_id, value]]
        self.assoc.dimse.receive_primitive(primitive)

    def _abort_at_once(self) -> None:
        sock = self.socket.socket if self.socket else None
        if sock is not None:
            with suppress(OSError):
                sock.sendall(_ABORT)

    def _log_end(self, reason: str) -> None:
        """Once an association, however it goes on to misbehave."""
        if self._told:
            return
        self._told = True
        _log.warning("association with %s is ended: %s", self._association.peer, reason)
