"""An acceptor process: ``python -m scp.acceptor``, started by ``scp.server`` and never by people.

It inherits the listening socket, gets its settings as the first line of its standard input, says on its standard
output what happens (one JSON document a line), and ends when its standard input does.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from config import traces
from scp.questions import Questions
from store.processes import die_with_parent

if TYPE_CHECKING:
    from scp.association import StorageAssociation
    from scp.recalling import RecallPolicy
    from scp.tls import TlsFiles
    from store.remotes import Remote

_log = logging.getLogger(__name__)
_REJECTIONS = 32
_POLITE_SECONDS = 0.004
_LAST_WORDS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AcceptorConfig:
    """What an acceptor process must know; sent to it as JSON."""

    number: int
    """From 0 ..."""
    acceptors: int
    """... of so many."""
    parent: int
    """Process id of who started it."""
    listen_fd: int
    """The listening socket without TLS; -1: none."""
    seats_fd: int
    database_url: str
    spool_dir: str
    node: str
    high_water_percent: float
    max_bytes: int
    ae_title: str
    called_ae_titles: tuple[str, ...]
    calling_ae_titles: tuple[str, ...]
    max_pdu: int
    max_associations: int
    acse_timeout: float
    dimse_timeout: float
    network_timeout: float
    private_sop_classes: tuple[str, ...]
    allowed_addresses: tuple[str, ...]
    peers_fd: int
    associations_per_address: int
    connections_per_minute: int
    user_identity: str
    users_file: str
    tls_fd: int
    """The listening socket for TLS; -1: none."""
    tls_certificate: str
    tls_key: str
    tls_ca: str
    tls_client_certificates: str
    tls_check_host: bool
    commitment_discs: int
    commitment_wait_hours: float
    commitment_give_up_hours: float
    derived_dir: str
    recall: str
    """What is done about what is only on discs: ``mode``, ``seconds`` and more of ``RecallPolicy``, as JSON."""
    convert: bool
    """What a retrieve's receiver does not take as it is held goes as Explicit VR Little Endian."""
    audit: bool
    site: str
    """The institution that audit messages name."""
    log_level: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> AcceptorConfig:
        values = json.loads(text)
        for name in ("called_ae_titles", "calling_ae_titles", "private_sop_classes", "allowed_addresses"):
            values[name] = tuple(values[name])
        return cls(**values)


class _Reports(logging.Handler):
    """Sends log records, and what else the server should know, up the pipe."""

    def __init__(self) -> None:
        super().__init__()
        self._out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)  # a stray print must not look like a report

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + traces.formatted(record.exc_info)
        self.say(event="log", level=record.levelno, logger=record.name, text=text)

    def say(self, **document: Any) -> None:
        with self.lock or threading.Lock():
            try:
                self._out.write(json.dumps(document) + "\n")
            except OSError:
                os._exit(1)  # nobody listens: the server is gone


class Acceptor:
    """Accepts connections on the inherited socket and runs an association for each."""

    def __init__(
        self,
        config: AcceptorConfig,
        listener: socket.socket | None,
        tls_listener: socket.socket | None,
        questions: Questions,
    ) -> None:
        from pynetdicom.ae import ApplicationEntity

        from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
        from scp import commitment, identity, media_creation, query, retrieve
        from scp.association import Associations, Policy
        from scp.auditing import Auditor
        from scp.peers import Peers, networks
        from scp.seats import Seats
        from scp.services import Services
        from scp.storage import Storage
        from scp.tls import TlsFiles, server_context
        from store.audit import Trail
        from store.auditwriter import AuditWriter
        from store.db import Database
        from store.instances import Registrar, sweep
        from store.spool import Spool

        self.questions = questions
        self._listeners = [listener] if listener is not None else []
        self._tls: ssl.SSLContext | None = None
        files = TlsFiles(config.tls_certificate, config.tls_key, config.tls_ca)
        if tls_listener is not None:
            self._listeners.append(tls_listener)
            self._tls = server_context(files, client_certificates=config.tls_client_certificates)
        self._tls_listener = tls_listener
        self._handshake_timeout = config.acse_timeout
        self._allowed = networks(config.allowed_addresses)
        self._peers = Peers(
            config.peers_fd,
            config.acceptors,
            own=config.number,
            at_once=config.associations_per_address,
            per_minute=config.connections_per_minute,
        )
        self._seats = Seats(config.seats_fd, config.acceptors, own=config.number, limit=config.max_associations)
        self._database = Database(config.database_url)
        self._reading = Database(config.database_url, for_queries=True)
        """Connections of its own for queries: however many wait for slow peers, receiving goes on."""
        spool = Spool(
            Path(config.spool_dir),
            node=config.node,
            high_water_percent=config.high_water_percent,
            max_bytes=config.max_bytes,
        )
        if removed := sweep(self._database, spool):
            _log.warning("%d files that a dead process had left unfinished were removed", removed)
        trail = Trail(config.node, config.site)
        self._auditor = Auditor(AuditWriter(self._database, trail) if config.audit else None)
        registrar = Registrar(self._database, spool, derived_dir=Path(config.derived_dir))
        self._storage = Storage(registrar, private_sop_classes=config.private_sop_classes)
        self._services = Services(
            [
                media_creation.service(self._database, questions),
                commitment.service(
                    self._database,
                    discs=config.commitment_discs,
                    patience=timedelta(hours=config.commitment_wait_hours),
                    give_up_after=timedelta(hours=config.commitment_give_up_hours),
                ),
                query.service(self._reading, config.ae_title, self._auditor),
                retrieve.service(
                    self._reading,
                    spool,
                    derived_dir=Path(config.derived_dir),
                    writing=self._database,
                    recall=_recall_policy(config),
                    ae_title=config.ae_title,
                    acse_timeout=config.acse_timeout,
                    dimse_timeout=config.dimse_timeout,
                    convert=config.convert,
                    secure=partial(_secured, files, config) if config.tls_ca else None,
                    auditor=self._auditor,
                ),
            ]
        )
        self._policy = Policy(
            config.ae_title,
            frozenset(title.strip() for title in config.called_ae_titles),
            frozenset(title.strip() for title in config.calling_ae_titles),
            config.max_pdu,
            config.acse_timeout,
            config.dimse_timeout,
            config.network_timeout,
            config.user_identity,
            {} if config.user_identity == "ignore" else identity.read_users(Path(config.users_file)),
            self._needs_tls,
            self._auditor.refused,
        )
        self._entity = ApplicationEntity(config.ae_title)
        self._entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._associations = Associations(self._seats.leave)
        self._stop_read, self._stop_write = os.pipe()

    def serve(self) -> None:
        """Accept until ``stop``; then end what still runs."""
        poll = select.poll()
        for listener in self._listeners:
            listener.setblocking(False)
            poll.register(listener, select.POLLIN)
        by_fd = {listener.fileno(): listener for listener in self._listeners}
        poll.register(self._stop_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop_read in ready:
                break
            if self._seats.is_busiest():
                time.sleep(_POLITE_SECONDS)  # another process has fewer: it may be first
            listener = by_fd[min(ready)]
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                continue
            except OSError as error:
                _log.error("a connection cannot be accepted: %s", error.strerror)
                time.sleep(0.1)  # out of file descriptors, most likely
                continue
            self._begin(sock, peer, secure=listener is self._tls_listener)
        self._associations.cut_all(_LAST_WORDS_SECONDS)
        self._auditor.close()
        self._database.close()
        self._reading.close()

    def stop(self) -> None:
        os.write(self._stop_write, b"x")

    def _over(self, association: StorageAssociation) -> None:
        self._peers.leave(association.address)
        self._associations.ended(association)

    def _needs_tls(self, ae_title: str) -> bool:
        """Whether this AE title is that of a node whose associations must be over TLS."""
        from store import remotes

        with self._reading.read() as session:
            remote = remotes.by_ae_title(session, ae_title)
        return remote is not None and remote.tls

    def _begin(self, sock: socket.socket, peer: tuple[Any, ...], *, secure: bool) -> None:
        from scp import tls
        from scp.association import StorageAssociation
        from scp.peers import is_allowed

        address = str(peer[0])
        refusal = "" if is_allowed(address, self._allowed) else "its address is not allowed"
        refusal = refusal or self._peers.enter(address)
        if refusal:
            _log.warning("the connection from %s:%d is refused: %s", address, peer[1], refusal)
            sock.close()
            return
        seated = self._seats.enter()
        if not seated and len(self._associations) > self._seats.total() + _REJECTIONS:
            sock.close()  # not even time to reject politely
            self._peers.leave(address)
            return
        local = sock.getsockname()
        try:
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if secure:
                assert self._tls is not None
                sock = tls.ended(sock, self._tls, peer=f"{address}:{peer[1]}", timeout=self._handshake_timeout)
            association = StorageAssociation(
                self._entity,
                sock,
                peer,
                local,
                secure=secure,
                policy=self._policy,
                storage=self._storage,
                services=self._services,
                over_limit=not seated,
                ended=self._over,
            )
            self._associations.add(association, counted=seated)
            association.start()
        except Exception:  # noqa: BLE001 - the next connection may be better
            _log.exception("a connection cannot be served")
            sock.close()
            self._peers.leave(address)
            if seated:
                self._seats.leave()


def _recall_policy(config: AcceptorConfig) -> RecallPolicy:
    from scp.recalling import RecallPolicy

    values = json.loads(config.recall)
    return RecallPolicy(**values | {"nearest": tuple(values.get("nearest", ()))})


def _secured(files: TlsFiles, config: AcceptorConfig, sock: socket.socket, *, remote: Remote) -> socket.socket:
    """A connection of ours to a node, over TLS. Raises OSError where our certificates cannot be used."""
    from scp import tls

    try:
        context = tls.client_context(files, check_host=config.tls_check_host)
    except tls.TlsError as error:
        raise OSError(str(error)) from error
    return tls.ended(sock, context, peer=f"{remote.name}", timeout=config.acse_timeout, server_hostname=remote.host)


def main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server, which tells us
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    config = AcceptorConfig.from_json(sys.stdin.readline())
    die_with_parent(config.parent)
    gc.set_threshold(10_000, 10, 10)  # what is imported stays, and is not to be looked through again and again
    _import_pydicom_without_numpy()
    reports = _Reports()
    logging.basicConfig(level=config.log_level, handlers=[reports])
    # What goes wrong with an association is told here, with the peer's address; pynetdicom would tell it again without.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL if config.log_level > logging.DEBUG else logging.DEBUG)
    logging.getLogger("pydicom").setLevel(logging.ERROR)  # what it warns of are values of the peer's
    with ExitStack() as stack:
        plain, secure = (
            stack.enter_context(socket.socket(fileno=fd)) if fd >= 0 else None
            for fd in (config.listen_fd, config.tls_fd)
        )
        acceptor = Acceptor(config, plain, secure, Questions(reports.say))
        threading.Thread(target=_obey, args=(acceptor,), daemon=True).start()
        reports.say(event="ready")
        acceptor.serve()
    os._exit(0)  # everything is closed; taking the interpreter down would keep a stop waiting


def _import_pydicom_without_numpy() -> None:
    """Nothing here decodes pixels, and numpy would cost each process 20 MB; pydicom does without it."""
    sys.modules["numpy"] = None  # type: ignore[assignment]
    import pydicom  # noqa: F401
    import pynetdicom  # noqa: F401

    del sys.modules["numpy"]


def _obey(acceptor: Acceptor) -> None:
    """Hear the server's answers to our questions until it says stop, or ends."""
    while (line := sys.stdin.readline()) and line != "stop\n":
        acceptor.questions.answered(line)
    if not line:
        os._exit(1)
    acceptor.stop()
    while line := sys.stdin.readline():
        acceptor.questions.answered(line)
    os._exit(1)


if __name__ == "__main__":
    main()
