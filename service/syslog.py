"""Sending audit messages to a receiver: syslog messages of RFC 5424 over TLS (RFC 5425), as PS3.15 A.6 has it.

Syslog acknowledges nothing. A message counts as sent when the receiver's end of the connection was still open after it
was written. What was written lately when a connection breaks may never have been read, and is sent again: the receiver
may get one twice, and none is missing but for what it had taken and lost itself.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from store.models_audit import AuditRecord

_PRI = 10 * 8 + 5
"""Facility 10 (security and authorization), severity 5 (notice), as A.6 recommends."""
_MESSAGE_ID = "DICOM+RFC3881"
_TIMEOUT = 10.0
_DOUBTFUL_SECONDS = 300.0
_DOUBTFUL_BYTES = 8 << 20
"""Of what was written so long before a connection broke, and of no more, it is not known whether it was read."""
_UNANSWERED_MILLISECONDS = 30_000
"""A receiver whose machine acknowledges nothing for so long is gone."""
_PORTS = {"tls": 6514, "tcp": 514}
_NOT_PRINTABLE = re.compile(r"[^!-~]")


class SyslogError(Exception):
    """The receiver cannot be reached, or its address makes no sense."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where to send."""

    scheme: str
    """``tls``, or ``tcp`` for a receiver on the same machine."""
    host: str
    port: int
    ca: str = ""
    """PEM file of the authorities that are trusted; empty: the system's."""
    certificate: str = ""
    key: str = ""
    check_host: bool = True


def receiver_of(url: str, *, ca: str = "", certificate: str = "", key: str = "", check_host: bool = True) -> Receiver:
    """The receiver of ``tls://host:port`` (or ``tcp://``). Raises SyslogError for anything else."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise SyslogError(f"{url!r}: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise SyslogError(f"{url!r} is no receiver of syslog: tls://HOST:PORT is wanted")
    return Receiver(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], ca, certificate, key, check_host)


class Sender:
    """A connection to the receiver, made when it is needed. Not for several threads."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._socket: socket.socket | None = None
        self._written: deque[tuple[float, bytes]] = deque()
        self._again: list[bytes] = []

    def send(self, records: Iterable[AuditRecord]) -> None:
        """Send all, in their order, behind what is to be sent again. Raises SyslogError; then none of them counts as
        sent.
        """
        try:
            connection = self._connected()
            messages = [*self._again, *(_counted(frame(record)) for record in records)]
            for message in messages:
                connection.sendall(message)
            if _closed(connection):
                raise OSError("the receiver has closed the connection")
        except (OSError, ssl.SSLError) as error:
            self._broken()
            receiver = self._receiver
            raise SyslogError(f"{receiver.scheme}://{receiver.host}:{receiver.port}: {_words(error)}") from error
        self._again = []
        self._note(messages)

    @property
    def has_doubts(self) -> bool:
        """Whether something is to be sent again, though there may be nothing new."""
        if self._socket is not None and _closed(self._socket):
            self._broken()
        return bool(self._again)

    def _note(self, messages: Iterable[bytes]) -> None:
        at = time.monotonic()
        self._written.extend((at, message) for message in messages)
        size = sum(len(message) for _, message in self._written)
        while self._written and (size > _DOUBTFUL_BYTES or at - self._written[0][0] > _DOUBTFUL_SECONDS):
            size -= len(self._written.popleft()[1])

    def _broken(self) -> None:
        """The connection is gone, and with it what the receiver had not read."""
        at = time.monotonic()
        self._again += [message for then, message in self._written if at - then <= _DOUBTFUL_SECONDS]
        self._written.clear()
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is not None and _closed(self._socket):
            self._broken()
        if self._socket is None:
            receiver = self._receiver
            plain = socket.create_connection((receiver.host, receiver.port), timeout=_TIMEOUT)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MILLISECONDS)
            if receiver.scheme == "tcp":
                self._socket = plain
            else:
                try:
                    self._socket = _context(receiver).wrap_socket(plain, server_hostname=receiver.host)
                except BaseException:
                    plain.close()
                    raise
        return self._socket


def frame(record: AuditRecord) -> bytes:
    """A message of RFC 5424; its octets are counted by whoever sends it (RFC 5425 4.3)."""
    at = record.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = _NOT_PRINTABLE.sub("_", socket.gethostname())[:255] or "-"
    # The byte order mark says that the message is UTF-8.
    head = f"<{_PRI}>1 {at} {host} burnish {os.getpid()} {_MESSAGE_ID} - \ufeff"
    return (head + record.message).encode()


def _counted(message: bytes) -> bytes:
    return f"{len(message)} ".encode() + message


def _context(receiver: Receiver) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=receiver.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = receiver.check_host
    if receiver.certificate:
        context.load_cert_chain(Path(receiver.certificate), Path(receiver.key) if receiver.key else None)
    return context


def _closed(connection: socket.socket) -> bool:
    """Whether the other end has said that it is gone: receivers never send anything else."""
    timeout = connection.gettimeout()
    connection.settimeout(0)
    try:
        return not connection.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(timeout)


def _words(error: Exception) -> str:
    return getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
