"""DICOM over TLS (PS3.15 B.9 and B.10: the BCP 195 profiles): contexts, and TLS ended before anything else sees it.

What speaks DICOM here reads and writes plain sockets in ways that TLS cannot (whole PDUs in one call, waiting for the
socket itself). So each TLS connection is ended by a thread of its own that passes bytes on, and the rest of us has the
other end of a pair of plain sockets.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
"""Of TLS 1.2, as BCP 195 recommends (forward secrecy, authenticated encryption); those of TLS 1.3 all are such."""
_PIECE = 1 << 17
_HELD = 1 << 19
_OTHERS_MAY_READ = 0o077


class TlsError(Exception):
    """Certificate, key or authorities cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; an empty text: none."""

    certificate: str
    """Our certificate, with those between it and its authority."""
    key: str
    ca: str
    """Authorities whose certificates we trust in others."""


def server_context(files: TlsFiles, *, client_certificates: str) -> ssl.SSLContext:
    """For associations that others open. Raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if not files.certificate:
        raise TlsError("tls.certificate is not set; a server needs one")
    _equip(context, files)
    if client_certificates != "none":
        if not files.ca:
            raise TlsError("tls.ca is not set; without authorities no client certificate can be checked")
        context.verify_mode = ssl.CERT_REQUIRED if client_certificates == "required" else ssl.CERT_OPTIONAL
    return context


def client_context(files: TlsFiles, *, check_host: bool) -> ssl.SSLContext:
    """For associations that we open: the other's certificate is always checked. Raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_host
    if not files.ca:
        raise TlsError("tls.ca is not set; without authorities nobody's certificate can be checked")
    _equip(context, files)
    return context


def _equip(context: ssl.SSLContext, files: TlsFiles) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        if files.certificate:
            require_private(Path(files.key or files.certificate))
            context.load_cert_chain(files.certificate, files.key or None, password=_no_passphrase)
        if files.ca:
            context.load_verify_locations(files.ca)
    except (OSError, ssl.SSLError) as error:
        which = ", ".join(part for part in (files.certificate, files.key, files.ca) if part)
        raise TlsError(f"{which}: {getattr(error, 'reason', None) or error.strerror or error}") from error


def _no_passphrase() -> str:
    raise ssl.SSLError("the key has a passphrase; a service has nobody to ask for it")


def require_private(key: Path) -> None:
    """Raise TlsError where others than its owner may read a private key."""
    try:
        mode = key.stat().st_mode
    except OSError as error:
        raise TlsError(f"{key}: {error.strerror}") from error
    if mode & _OTHERS_MAY_READ:
        raise TlsError(f"{key} may be read by others (mode {mode & 0o777:04o}); chmod 600 it")


def ended(
    sock: socket.socket, context: ssl.SSLContext, *, peer: str, timeout: float, server_hostname: str | None = None
) -> socket.socket:
    """The plain end of a connected socket that speaks TLS. Returns at once; the handshake has ``timeout`` seconds.

    Where it fails the plain end is closed, and one line is logged that names ``peer``. ``server_hostname``: we are the
    client.
    """
    ours, theirs = socket.socketpair()
    thread = threading.Thread(
        target=_pass_on, args=(sock, theirs, context, peer, timeout, server_hostname), name=f"tls-{peer}", daemon=True
    )
    thread.start()
    return ours


def _pass_on(
    sock: socket.socket,
    plain: socket.socket,
    context: ssl.SSLContext,
    peer: str,
    timeout: float,
    server_hostname: str | None,
) -> None:
    try:
        sock.settimeout(timeout)
        secure = context.wrap_socket(sock, server_side=server_hostname is None, server_hostname=server_hostname)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error
        _log.warning("no TLS with %s: %s", peer, reason)
        _close(sock, plain)
        return
    _log.info("TLS with %s: %s, %s", peer, secure.version(), (secure.cipher() or ("no cipher",))[0])
    try:
        _exchange(secure, plain)
    except OSError as error:
        _log.debug("TLS with %s is over: %s", peer, error)
    finally:
        _close(secure, plain)


def _exchange(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Both ways until both have ended; never more than ``_HELD`` bytes are held for a slow side."""
    secure.setblocking(False)
    plain.setblocking(False)
    inwards, outwards = _Flow(secure.recv, plain.send), _Flow(plain.recv, secure.send)
    while not (inwards.done and outwards.done):
        of_secure = (select.POLLIN if inwards.hungry else 0) | (select.POLLOUT if outwards.held else 0)
        of_plain = (select.POLLIN if outwards.hungry else 0) | (select.POLLOUT if inwards.held else 0)
        poll = select.poll()
        for sock, events in ((secure, of_secure), (plain, of_plain)):
            if events:  # a side that has hung up would be told again and again
                poll.register(sock, events)
        # What OpenSSL has read ahead, no poll tells of.
        poll.poll(0 if inwards.hungry and secure.pending() else None)
        inwards.move()
        if inwards.ended and not inwards.held and not inwards.done:
            inwards.done = True
            with suppress(OSError):
                plain.shutdown(socket.SHUT_WR)
        outwards.move()
        if outwards.ended and not outwards.held and not outwards.done:
            outwards.done = True
            # Our side has nothing more to say; DICOM has no half-open connections.
            with suppress(OSError):
                secure.unwrap()
            return


class _Flow:
    """One direction."""

    def __init__(self, receive: Callable[[int], bytes], send: Callable[[memoryview], int]) -> None:
        self._receive, self._send = receive, send
        self.held = bytearray()
        self.ended = False
        """The source has no more."""
        self.done = False

    @property
    def hungry(self) -> bool:
        return not self.ended and len(self.held) < _HELD

    def move(self) -> None:
        if self.hungry:
            try:
                piece = self._receive(_PIECE)
                self.held += piece
                self.ended = not piece
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except ssl.SSLEOFError:
                self.ended = True
        if self.held:
            try:
                # OpenSSL wants the very same bytes again after a partial write: only what was sent is dropped.
                sent = self._send(memoryview(bytes(self.held[:_PIECE])))
                del self.held[:sent]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass


def _close(*socks: socket.socket) -> None:
    for sock in socks:
        for end in (lambda sock=sock: sock.shutdown(socket.SHUT_RDWR), sock.close):
            with suppress(OSError):
                end()
