"""The DICOM front door: one listening socket, several acceptor processes that are started anew when one dies."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from config.sections import Commitment, Dicom, Recall, Tls
from config.sections import Spool as SpoolSettings
from scp import identity
from scp.acceptor import AcceptorConfig
from scp.peers import Peers
from scp.questions import Answerer, answer_line
from scp.seats import Seats
from scp.tls import TlsError, TlsFiles, server_context

_log = logging.getLogger(__name__)
_BACKLOG = 256
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_RESTARTS, _RESTART_WINDOW = 5, 60.0
_ANSWERING_THREADS = 4


class ServerFailed(Exception):
    """The DICOM port cannot be opened, or no acceptor process comes up."""


class _Acceptor:
    """A running acceptor process and the thread that reads its reports."""

    def __init__(
        self,
        config: AcceptorConfig,
        ended: queue.SimpleQueue[int],
        answer: Callable[[dict[str, Any], Callable[[bytes], None]], None],
    ) -> None:
        self.number = config.number
        self._answer = answer
        self._writing = threading.Lock()
        self.ready = threading.Event()
        self.stopping = False
        environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scp.acceptor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd for fd in (config.listen_fd, config.tls_fd, config.seats_fd, config.peers_fd) if fd >= 0],
            env=environment,
        )
        self._send(config.to_json().encode() + b"\n")
        self._ended = ended
        threading.Thread(target=self._listen, name=f"acceptor-{config.number}", daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                report = json.loads(line)
            except ValueError:
                continue
            if report.get("event") == "ready":
                self.ready.set()
            elif report.get("event") == "log":
                logging.getLogger(report["logger"]).log(report["level"], "%s", report["text"])
            elif report.get("event") == "ask":
                self._answer(report, self._send)
        self.process.wait()
        self._ended.put(self.number)

    def _send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with self._writing, suppress(OSError, ValueError):  # it is gone, or was closed after its end
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def stop(self) -> None:
        """Ask it to end; associations are cut, what is being registered is answered."""
        self.stopping = True
        self._send(b"stop\n")

    def wait(self, timeout: float) -> None:
        """Until it has ended; after ``timeout`` seconds it is killed."""
        try:
            self.process.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        with self._writing, suppress(OSError):
            self.process.stdin.close()


def _recall_policy(recall: Recall | None) -> str:
    """``scp.recalling.RecallPolicy`` as JSON."""
    if recall is None:
        return "{}"
    values = {
        "mode": recall.network,
        "seconds": recall.network_seconds,
        "pending_seconds": recall.pending_seconds,
        "nearest": recall.nearest,
        "drive": recall.drive,
    }
    return json.dumps(values)


class StorageServer:
    """Storage SCP and Verification SCP. ``start`` and ``stop`` once each, from any threads."""

    def __init__(
        self,
        dicom: Dicom,
        spool: SpoolSettings,
        *,
        spool_dir: Path,
        database_url: str,
        node: str,
        commitment: Commitment,
        tls: Tls,
        data: Path,
        convert: bool = True,
        derived_dir: Path | None = None,
        recall: Recall | None = None,
        answerer: Answerer | None = None,
        site: str | None = None,
    ) -> None:
        """``data``: the folder that relative files of the settings lie in. ``convert``: what is fetched from us goes
        uncompressed to who does not take it as it is. ``answerer`` hears what acceptors ask (``scp.questions``); it is
        called from several threads. ``derived_dir``: where files lie that came back from discs. ``recall``: what is
        done about what is only on discs; None: nothing. ``site``: the institution that audit messages name; None: none
        are recorded.
        """
        self._site = site
        self._dicom = dicom
        self._spool = spool
        self._spool_dir = spool_dir
        self._database_url = database_url
        self._node = node
        self._commitment = commitment
        self._tls = tls
        self._data = data
        self._convert = convert
        self._derived_dir = derived_dir or data / "derived"
        self._recall = recall
        self._tls_listener: socket.socket | None = None
        self._peers_fd = -1
        self._answerer = answerer
        self._answering = ThreadPoolExecutor(_ANSWERING_THREADS, thread_name_prefix="answers")
        self._acceptors: dict[int, _Acceptor] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._started: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._seats_fd = -1

    def start(self) -> tuple[str, int]:
        """Open the ports and start the acceptors; returns address and port (without TLS; 0: none) once all accept.

        Raises ServerFailed.
        """
        self._check_security()
        if not (self._tls.enabled and self._tls.only):
            self._listener = self._listen(self._dicom.port)
        if self._tls.enabled:
            self._tls_listener = self._listen(self._tls.port)
        self._seats_fd = Seats.create(self._dicom.acceptors)
        self._peers_fd = Peers.create(self._dicom.acceptors)
        # Helpers are killed when the thread that started them ends, so one thread lives as long as they do.
        self._keeper = threading.Thread(target=self._keep, name="acceptors", daemon=True)
        self._keeper.start()
        failure = self._started.get()
        if failure is not None:
            self.stop()
            raise failure
        host, port = self._listener.getsockname()[:2] if self._listener is not None else (self._dicom.host, 0)
        if self._listener is not None:
            _log.info("DICOM: listening on %s port %d as %s", host, port, self._dicom.ae_title)
        if self._tls_listener is not None:
            _log.info("DICOM over TLS: listening on %s port %d as %s", host, self.tls_port, self._dicom.ae_title)
        return str(host), int(port)

    @property
    def tls_port(self) -> int:
        """The port for TLS; 0: there is none."""
        return int(self._tls_listener.getsockname()[1]) if self._tls_listener is not None else 0

    def _check_security(self) -> None:
        """Tell what cannot be used now, rather than by an acceptor that does not come up. Raises ServerFailed."""
        try:
            if self._tls.enabled:
                files = TlsFiles(
                    *(self._in_data(name) for name in (self._tls.certificate, self._tls.key, self._tls.ca))
                )
                server_context(files, client_certificates=self._tls.client_certificates)
            if self._dicom.user_identity != "ignore":
                identity.read_users(self._data / self._dicom.users_file)
        except (TlsError, identity.IdentityError) as error:
            raise ServerFailed(str(error)) from error

    def stop(self) -> None:
        """Close the port, end the associations and wait until all acceptors are gone."""
        if self._keeper is None:
            return
        self._stopping.set()
        self._ended.put(-1)
        self._keeper.join()
        self._keeper = None
        self._answering.shutdown(cancel_futures=True)
        for listener in (self._listener, self._tls_listener):
            if listener is not None:
                listener.close()
        os.close(self._seats_fd)
        os.close(self._peers_fd)

    @property
    def processes(self) -> list[int]:
        """Process ids of the acceptors that run now."""
        return [acceptor.process.pid for acceptor in self._acceptors.values() if acceptor.process.poll() is None]

    @property
    def associations(self) -> int:
        """How many associations there are now."""
        seats = self._seats()
        try:
            return seats.total()
        finally:
            seats.close()

    def _listen(self, port: int) -> socket.socket:
        host = self._dicom.host
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, protocol)
            # A port whose former owner was killed is free at once.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ServerFailed(f"the DICOM port {port} on {host} cannot be opened: {error.strerror}") from error
        return listener

    def _in_data(self, name: str) -> str:
        return str(self._data / name) if name else ""

    def _config(self, number: int) -> AcceptorConfig:
        return AcceptorConfig(
            number=number,
            acceptors=self._dicom.acceptors,
            parent=os.getpid(),
            listen_fd=self._listener.fileno() if self._listener is not None else -1,
            seats_fd=self._seats_fd,
            database_url=self._database_url,
            spool_dir=str(self._spool_dir),
            node=self._node,
            high_water_percent=self._spool.high_water_percent,
            max_bytes=self._spool.max_bytes,
            ae_title=self._dicom.ae_title,
            called_ae_titles=self._dicom.called_ae_titles,
            calling_ae_titles=self._dicom.calling_ae_titles,
            max_pdu=self._dicom.max_pdu,
            max_associations=self._dicom.max_associations,
            acse_timeout=self._dicom.acse_timeout,
            dimse_timeout=self._dicom.dimse_timeout,
            network_timeout=self._dicom.network_timeout,
            private_sop_classes=self._dicom.private_sop_classes,
            allowed_addresses=self._dicom.allowed_addresses,
            peers_fd=self._peers_fd,
            associations_per_address=self._dicom.associations_per_address,
            connections_per_minute=self._dicom.connections_per_minute,
            user_identity=self._dicom.user_identity,
            users_file=str(self._data / self._dicom.users_file),
            tls_fd=self._tls_listener.fileno() if self._tls_listener is not None else -1,
            tls_certificate=self._in_data(self._tls.certificate),
            tls_key=self._in_data(self._tls.key),
            tls_ca=self._in_data(self._tls.ca),
            tls_client_certificates=self._tls.client_certificates,
            tls_check_host=self._tls.check_host,
            commitment_discs=self._commitment.discs,
            commitment_wait_hours=self._commitment.wait_hours,
            commitment_give_up_hours=self._commitment.give_up_hours,
            derived_dir=str(self._derived_dir),
            recall=_recall_policy(self._recall),
            convert=self._convert,
            audit=self._site is not None,
            site=self._site or "",
            log_level=_log.getEffectiveLevel(),
        )

    def _seats(self) -> Seats:
        return Seats(self._seats_fd, self._dicom.acceptors, own=0, limit=self._dicom.max_associations)

    def _answer(self, report: dict[str, Any], send: Callable[[bytes], None]) -> None:
        def work() -> None:
            line, failure = answer_line(self._answerer, report)
            if failure is not None:
                _log.error("an acceptor's question (%s) cannot be answered", report.get("what"), exc_info=failure)
            send(line)

        with suppress(RuntimeError):  # we are stopping: the asker will not need it
            self._answering.submit(work)

    def _keep(self) -> None:
        """Start the acceptors, start one that died again, end them: all in this one thread."""
        try:
            for number in range(self._dicom.acceptors):
                self._acceptors[number] = _Acceptor(self._config(number), self._ended, self._answer)
            deadline = time.monotonic() + _START_SECONDS
            for acceptor in self._acceptors.values():
                while not acceptor.ready.wait(0.05):
                    if acceptor.process.poll() is not None or time.monotonic() > deadline:
                        raise ServerFailed(f"acceptor {acceptor.number} does not come up; its reason is on stderr")
            self._started.put(None)
            self._keep_alive()
        except Exception as error:  # noqa: BLE001 - start() raises it
            self._started.put(error)
        finally:
            for acceptor in self._acceptors.values():
                acceptor.stop()
            deadline = time.monotonic() + _STOP_SECONDS
            for acceptor in self._acceptors.values():
                acceptor.wait(deadline - time.monotonic())

    def _keep_alive(self) -> None:
        deaths: list[float] = []
        while not self._stopping.is_set():
            number = self._ended.get()
            if number < 0 or self._stopping.is_set():
                continue
            status = self._acceptors[number].process.returncode
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            seats = self._seats()
            seats.clear(number)
            seats.close()
            peers = Peers(self._peers_fd, self._dicom.acceptors, own=0, at_once=1, per_minute=0)
            peers.clear(number)
            peers.close()
            deaths = [at for at in deaths if at > time.monotonic() - _RESTART_WINDOW] + [time.monotonic()]
            if len(deaths) > _RESTARTS:
                pause = 2.0 ** min(len(deaths) - _RESTARTS, 5)
                _log.error("acceptor %d ended (%s) as others before it; started again in %d s", number, how, pause)
                self._stopping.wait(pause)
                if self._stopping.is_set():
                    return
            else:
                _log.error("acceptor %d ended (%s); it is started again", number, how)
            self._acceptors[number] = _Acceptor(self._config(number), self._ended, self._answer)
