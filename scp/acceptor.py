"""An acceptor process: ``python -m scp.acceptor``, started by ``scp.server`` and never by people.

It inherits the listening socket, gets its settings as the first line of its standard input, says on its standard
output what happens (one JSON document a line), and ends when its standard input does.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from scp.questions import Questions
from store.processes import die_with_parent

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
    commitment_discs: int
    commitment_wait_hours: float
    commitment_give_up_hours: float
    log_level: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> AcceptorConfig:
        values = json.loads(text)
        for name in ("called_ae_titles", "calling_ae_titles", "private_sop_classes"):
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
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.say(event="log", level=record.levelno, logger=record.name, text=text)

    def say(self, **document: Any) -> None:
        with self.lock or threading.Lock():
            try:
                self._out.write(json.dumps(document) + "\n")
            except OSError:
                os._exit(1)  # nobody listens: the server is gone


class Acceptor:
    """Accepts connections on the inherited socket and runs an association for each."""

    def __init__(self, config: AcceptorConfig, listener: socket.socket, questions: Questions) -> None:
        from pynetdicom.ae import ApplicationEntity

        from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
        from scp import commitment, media_creation, query, retrieve
        from scp.association import Associations, Policy
        from scp.seats import Seats
        from scp.services import Services
        from scp.storage import Storage
        from store.db import Database
        from store.instances import Registrar, sweep
        from store.spool import Spool

        self.questions = questions
        self._listener = listener
        self._seats = Seats(config.seats_fd, config.acceptors, own=config.number, limit=config.max_associations)
        self._database = Database(config.database_url)
        self._reading = Database(config.database_url)
        """Connections of its own for queries: however many wait for slow peers, receiving goes on."""
        spool = Spool(
            Path(config.spool_dir),
            node=config.node,
            high_water_percent=config.high_water_percent,
            max_bytes=config.max_bytes,
        )
        if removed := sweep(self._database, spool):
            _log.warning("%d files that a dead process had left unfinished were removed", removed)
        self._storage = Storage(Registrar(self._database, spool), private_sop_classes=config.private_sop_classes)
        self._services = Services(
            [
                media_creation.service(self._database, questions),
                commitment.service(
                    self._database,
                    discs=config.commitment_discs,
                    patience=timedelta(hours=config.commitment_wait_hours),
                    give_up_after=timedelta(hours=config.commitment_give_up_hours),
                ),
                query.service(self._reading, config.ae_title),
                retrieve.service(
                    self._reading,
                    spool,
                    ae_title=config.ae_title,
                    acse_timeout=config.acse_timeout,
                    dimse_timeout=config.dimse_timeout,
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
        )
        self._entity = ApplicationEntity(config.ae_title)
        self._entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._associations = Associations(self._seats.leave)
        self._stop_read, self._stop_write = os.pipe()

    def serve(self) -> None:
        """Accept until ``stop``; then end what still runs."""
        self._listener.setblocking(False)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop_read in ready:
                break
            if self._seats.is_busiest():
                time.sleep(_POLITE_SECONDS)  # another process has fewer: it may be first
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                continue
            except OSError as error:
                _log.error("a connection cannot be accepted: %s", error.strerror)
                time.sleep(0.1)  # out of file descriptors, most likely
                continue
            self._begin(sock, peer)
        self._associations.cut_all(_LAST_WORDS_SECONDS)
        self._database.close()
        self._reading.close()

    def stop(self) -> None:
        os.write(self._stop_write, b"x")

    def _begin(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        from scp.association import StorageAssociation

        seated = self._seats.enter()
        if not seated and len(self._associations) > self._seats.total() + _REJECTIONS:
            sock.close()  # not even time to reject politely
            return
        try:
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            association = StorageAssociation(
                self._entity,
                sock,
                peer,
                policy=self._policy,
                storage=self._storage,
                services=self._services,
                over_limit=not seated,
                ended=self._associations.ended,
            )
            self._associations.add(association, counted=seated)
            association.start()
        except Exception:  # noqa: BLE001 - the next connection may be better
            _log.exception("a connection cannot be served")
            sock.close()
            if seated:
                self._seats.leave()


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server, which tells us
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    config = AcceptorConfig.from_json(sys.stdin.readline())
    die_with_parent(config.parent)
    _import_pydicom_without_numpy()
    reports = _Reports()
    logging.basicConfig(level=config.log_level, handlers=[reports])
    logging.getLogger("pynetdicom").setLevel(max(logging.ERROR, config.log_level))
    with socket.socket(fileno=config.listen_fd) as listener:
        acceptor = Acceptor(config, listener, Questions(reports.say))
        threading.Thread(target=_obey, args=(acceptor,), daemon=True).start()
        reports.say(event="ready")
        acceptor.serve()
    return 0


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
    sys.exit(main())
