"""The composition root: the only file that starts and stops things, in order and in reverse."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import SQLAlchemyError

from burners import registry
from burners.registry import Burners
from config.settings import Settings
from jobs.context import Context
from jobs.engine import Engine
from jobs.fetching import FetchFailed
from service import auth, checks, doctor, opening
from service.api.application import build
from service.clocks import Clocks
from service.contract import Document, OnProgress
from service.creating import Creating
from service.crossorigin import shared
from service.errors import NotDone, UsageError, as_refusal
from service.exchange import Exchange
from service.http import HttpServer, fingerprint, local_url, tls_context
from service.lock import DataLock, write_private
from service.logs import logger
from service.operations import StoreOperations
from service.recalling import Recalling
from service.shutdown import Stopping
from service.signin import Setup
from service.watching import Watching
from store import auditwhat, instances, retention
from store.instances import Registrar

_STARTING_PATIENCE = 5.0
"""Seconds that a service waits for a short command, or for a predecessor that is just dying, to let go of the lock."""


class Workshop:
    """The store opened, and the engine at work on it: what a service has at its heart, and `burn --wait` alone.

    The lock of the data folder must be held. Use it as a context manager.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        source: str = "cli",
        on_fatal: Callable[[str], None] = lambda _reason: None,
        receives: bool = False,
    ) -> None:
        """``on_fatal`` hears why the engine cannot go on (its lease was lost ...): whoever runs it should stop.

        ``receives``: a storage SCP is going to run; ``receiving`` is set when it does.
        """
        self.settings = settings
        self._source = source
        self._receives = receives
        self.receiving = threading.Event()
        self._on_fatal = on_fatal
        self._stack = contextlib.ExitStack()
        self.context: Context
        self.burners: Burners
        self.engine: Engine
        self.operations: StoreOperations

    def __enter__(self) -> Self:
        log = logger("service")
        try:
            self.context = opening.open_context(self.settings)
            self._stack.callback(opening.close_context, self.context)
            swept = instances.sweep(self.context.db, self.context.spool)
            swept += retention.sweep(self.context.db, self.context.spool, self.settings.derived_dir)
            swept += _sweep_data(self.settings)
            if swept:
                log.info("removed what a crash had left behind", files=swept)
            self.burners = registry.load(self.settings.burners, data=self.settings.data)
            self._stack.callback(self.burners.close)
            for status in self.burners.unusable.values():
                log.warning("a burner cannot be used", burner=status.name, reason=status.reason)
            self.engine = Engine(
                self.context,
                self.burners,
                node=self.context.spool.node,
                on_fatal=self._on_fatal,
                pull=self._pull,
            )
            self.engine.start()
            self._stack.callback(self.engine.stop)
            self.operations = StoreOperations(
                self.context, source=self._source, submit=self.engine.submit, doctor=self.examine, burners=self.burners
            )
            self.operations.healthy = lambda: self.engine.healthy
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _pull(self, node: str, criteria: Mapping[str, Any], progress: OnProgress, stop: Callable[[], bool]) -> Document:
        """Fetch what a job needs; where a storage SCP is still to come up, that is waited for."""
        deadline = time.monotonic() + _STARTING_PATIENCE * 6
        while self._receives and not self.receiving.wait(0.2) and not stop() and time.monotonic() < deadline:
            pass
        context = self.context
        exchange = Exchange(
            context,
            lambda: Registrar(context.db, context.spool, derived_dir=context.settings.derived_dir),
            receiving=self.receiving.is_set(),
        )
        try:
            return exchange.pull(node, criteria, progress, stop)
        except Exception as error:
            refusal = as_refusal(error)
            if refusal is None:
                raise
            raise FetchFailed(str(refusal)) from error

    def examine(self) -> Document:
        """The doctor's report of this running store."""
        return doctor.examine(
            self.settings, db=self.context.db, spool=self.context.spool, burners=self.burners, service="running"
        )


class Service:
    """`burnish serve`: the workshop with the DICOM front door, the clocks and the HTTP API."""

    def __init__(self, settings: Settings, *, on_fatal: Callable[[str], None] = lambda _reason: None) -> None:
        self.settings = settings
        self._on_fatal = on_fatal
        self._stack = contextlib.ExitStack()
        self._stopping = Stopping()

    def start(self) -> Document:
        """Start everything; returns the ``ready`` event. Raises ``Refusal`` with everything stopped again."""
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Document:
        from scp.courier import Courier
        from scp.server import ServerFailed, StorageServer

        settings, log = self.settings, logger("service")
        if foreign := checks.foreign_packages():
            raise NotDone("; ".join([*foreign, "give Burnish a virtual environment of its own"]), "SHADOWED")
        if wrong := checks.wrong_settings(settings):
            raise UsageError("\n".join(["the settings are wrong:", *wrong]), "SETTINGS")
        lock = DataLock(settings.data)
        lock.acquire("serve", patience=_patience)
        self._stack.callback(lock.release)
        (settings.data / "service.json").unlink(missing_ok=True)

        workshop = self._stack.enter_context(Workshop(settings, source="api", on_fatal=self._on_fatal, receives=True))
        self.operations = workshop.operations
        clocks = Clocks(workshop.context, workshop.engine)
        clocks.start()
        self._stack.callback(clocks.stop)
        self._tell("start")
        self._stack.callback(self._tell, "stop")

        storage = StorageServer(
            settings.dicom,
            settings.spool,
            spool_dir=settings.spool_dir,
            database_url=settings.database_url,
            node=workshop.context.spool.node,
            commitment=settings.commitment,
            tls=settings.tls,
            data=settings.data,
            convert=settings.remote.convert,
            derived_dir=settings.derived_dir,
            recall=settings.recall,
            answerer=Creating(workshop.context, workshop.engine.submit).answer,
            site=settings.site.institution,
        )
        try:
            dicom_host, dicom_port = storage.start()
        except ServerFailed as error:
            raise NotDone(str(error), "DICOM_PORT") from error
        self._stack.callback(storage.stop)
        workshop.operations.receiving = True
        workshop.receiving.set()
        courier = Courier(
            workshop.context.db,
            workshop.operations.exchange.peer,
            discs=settings.commitment.discs,
            patience=timedelta(hours=settings.commitment.wait_hours),
            give_up_after=timedelta(hours=settings.commitment.give_up_hours),
        )
        courier.start()
        self._stack.callback(courier.stop)
        recalling = Recalling(workshop.operations)
        recalling.start()
        self._stack.callback(recalling.stop)
        watching = Watching(workshop.operations)
        workshop.operations.watches = watching.documents
        watching.start()
        self._stack.callback(watching.stop)

        token = auth.new_token(settings.data)
        http = HttpServer(settings.http.host, settings.http.port)
        self._stack.callback(http.stop)
        hosts = {settings.http.host, *settings.http.allowed_hosts}
        setup = Setup.where_needed(workshop.context.db, settings.data)
        application = build(workshop.operations, token=token, hosts=hosts, stopping=self._stopping, setup=setup)
        http.start(shared(application, settings.http.cors_origins), tls_context(settings))
        url = local_url(settings.http.host, http.port, "https" if settings.http.certificate else "http")
        self._stack.callback(self._withdraw)
        where = {"url": url, "pid": os.getpid(), "fingerprint": fingerprint(settings)}
        write_private(settings.data / "service.json", json.dumps(where) + "\n")
        log.info("ready", dicom=f"{dicom_host}:{dicom_port}", http=url)
        return {
            "event": "ready",
            "dicom": {"host": dicom_host, "port": dicom_port, "ae_title": settings.dicom.ae_title}
            | ({"tls_port": storage.tls_port} if storage.tls_port else {}),
            "http": {"url": url},
        } | ({"setup": {"url": f"{url}/setup", "code": setup.code}} if setup is not None else {})

    def _tell(self, kind: str) -> None:
        """The audit trail hears that we start and stop."""
        context = self.operations.context
        try:
            with context.db.begin() as session:
                context.audit.record(session, auditwhat.application(kind))
        except SQLAlchemyError as error:
            logger("service").error("the audit trail cannot be written", error=type(error).__name__)

    def stop(self) -> None:
        """Stop everything, in reverse; may be called again."""
        self._stopping.begin()
        self._stack.close()

    def _withdraw(self) -> None:
        """Tell nobody any more to come."""
        for name in ("service.json", "cli.token"):
            (self.settings.data / name).unlink(missing_ok=True)


def _patience(holder: dict[str, Any]) -> float:
    """A service that runs is told at once, everybody else is waited for."""
    pid = holder.get("pid")
    if holder.get("what") == "serve" and isinstance(pid, int) and _is_running(pid):
        return 1.0
    return _STARTING_PATIENCE


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _sweep_data(settings: Settings) -> int:
    """Temporary files of writes that a crash cut short; the lock is ours, so nobody is at work on one."""
    count = 0
    for path in settings.data.glob(".*"):
        if path.name.startswith((".cli.token.", ".service.json.", ".node-id.")):
            path.unlink(missing_ok=True)
            count += 1
    leftovers = settings.data / "tmp"
    if leftovers.is_dir():
        shutil.rmtree(leftovers, ignore_errors=True)
    return count


def run_until_stopped(settings: Settings, ready: Callable[[Document], None], *, limit: float = 60.0) -> bool:
    """Start the service, wait for SIGTERM or SIGINT, stop in order; True where it ended because it was asked to.

    A second signal, or ``limit`` seconds of stopping, end it at once.
    """
    import signal

    wanted = threading.Event()
    fatal: list[str] = []

    def on_signal(_number: int, _frame: Any) -> None:
        if wanted.is_set():
            os._exit(1)
        wanted.set()

    def on_fatal(reason: str) -> None:
        fatal.append(reason)
        wanted.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    service = Service(settings, on_fatal=on_fatal)
    document = service.start()
    try:
        ready(document)
        wanted.wait()
    finally:
        log = logger("service")
        log.info("stopping", **({"reason": fatal[0]} if fatal else {}))
        last_resort = threading.Timer(limit, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        service.stop()
        last_resort.cancel()
        log.info("stopped")
    return not fatal
