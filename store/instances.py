"""What we hold: instances come in here, from the network or from files, and are registered once and durably."""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from media.editing import edit_instance
from media.edits import Edits
from media.header import read_header
from media.items import Header
from media.part10 import Part10, dataset_chunks, file_meta, locate
from media.problems import NotDicom
from store import owncopies
from store.bulk import chunks
from store.comparison import same_content_aside
from store.db import Database
from store.models import Instance
from store.models_base import now
from store.registration import (
    Arrival,
    BadIdentity,
    Outcome,
    Provenance,
    Reconciled,
    Rival,
    check_identity,
    patient_identity,
    register_group,
)
from store.spool import Incoming, Spool, SpoolFull

if TYPE_CHECKING:
    from store.reconcile import Reconciler

__all__ = [
    "BadIdentity",
    "Outcome",
    "Provenance",
    "Registrar",
    "RegistrationFailed",
    "ingest_file",
    "ingest_stream",
    "patient_identity",
    "registered_paths",
    "sweep",
]
_GROUP = 64
_TRIES = 8
_LOOKS = 3
"""So often is it looked whether an instance is one that we made ourselves, should that change at this moment."""
_CHUNK = 1 << 20


class RegistrationFailed(Exception):
    """The database could not take the instance (it is away, locked for long, broken); it may be sent again later."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """An instance that waits for its transaction, and the thread that brought it."""

    arrival: Arrival
    incoming: Incoming
    turn: threading.Event = field(default_factory=threading.Event)
    """Set when ``answer`` is there, or when this thread is the next to write."""
    leads: bool = False
    answer: Outcome | list[Rival] | Exception | None = None
    tried: bool = False
    """A transaction was begun with it, so that only the database knows what became of it."""


class Registrar:
    """Registers received instances, many of them in one transaction. Safe for threads; one for each process.

    Threads that come while a transaction is on its way wait for the next one, which takes them all; one of them writes
    it. So no thread of our own is needed, and under load the cost of a commit is shared.
    """

    def __init__(
        self,
        db: Database,
        spool: Spool,
        *,
        derived_dir: Path | None = None,
        same_content: Callable[[Path, Path], bool] = same_content_aside,
    ) -> None:
        """``same_content`` says whether two PS3.10 files are equal after decoding. ``derived_dir``: where conformed
        files lie; None: one that comes in stands only for an instance that is in the spool."""
        self.db = db
        self.spool = spool
        self._derived_dir = derived_dir
        self._same_content = same_content
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._busy = False
        if spool.max_bytes:
            spool.held_bytes = _HeldBytes(db)

    def register(
        self, incoming: Incoming, header: Header, provenance: Provenance, reconciled: Reconciled | None = None
    ) -> Outcome:
        """Make an instance ours; returns when that is durable. Of ``incoming`` remains only what is needed.

        Raises BadIdentity, SpoolFull or RegistrationFailed; then nothing is registered and nothing remains.
        """
        ticket: _Ticket | None = None
        try:
            check_identity(header)
            arrival = Arrival(header, incoming.finish(), provenance, now(), incoming.spool_path, reconciled)
            looks = 0
            placed: list[Path] = []
            while not isinstance(outcome := self._answer(ticket := _Ticket(arrival, incoming)), Outcome):
                looks += 1
                if looks <= _LOOKS and self._recognise(arrival, incoming, outcome, placed):
                    continue
                arrival.own = None
                for rival in outcome:
                    # Decoding may take long: it happens here, outside of any transaction.
                    if rival.instance_id not in arrival.verdicts:
                        arrival.verdicts[rival.instance_id] = self._equals(incoming.path, rival)
        except BaseException:
            if ticket is None or not ticket.tried or self._is_unregistered(incoming.spool_path):
                incoming.discard()
            raise
        if arrival.kept:
            incoming.settle()
        else:
            incoming.discard()
        for path in placed[:-1] if arrival.own_kept else placed:
            path.unlink(missing_ok=True)
        return outcome

    def _answer(self, ticket: _Ticket) -> Outcome | list[Rival]:
        """Hand a ticket in and wait until it was part of a transaction, which this thread may have to write."""
        with self._lock:
            self._waiting.append(ticket)
            if not self._busy:
                self._busy = ticket.leads = True
        if not ticket.leads:
            ticket.turn.wait()
        if ticket.leads:
            while ticket.answer is None:
                group = self._next_group()
                self._write(group)
                for other in group:
                    other.turn.set()
            with self._lock:
                if self._waiting:
                    self._waiting[0].leads = True
                    self._waiting[0].turn.set()
                else:
                    self._busy = False
        answer = ticket.answer
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    def _next_group(self) -> list[_Ticket]:
        """The tickets that have waited longest; of several with one SOP Instance UID only the first."""
        group: dict[str, _Ticket] = {}
        with self._lock:
            for ticket in self._waiting:
                if len(group) < _GROUP:
                    group.setdefault(ticket.arrival.header.sop_instance_uid, ticket)
            chosen = set(map(id, group.values()))
            self._waiting = [ticket for ticket in self._waiting if id(ticket) not in chosen]
        return list(group.values())

    def _write(self, group: Sequence[_Ticket]) -> None:
        """Publish the files of a group and register it; every ticket then has its answer."""
        ready: list[_Ticket] = []
        for ticket in group:
            try:
                ticket.incoming.publish()
                ready.append(ticket)
            except (OSError, SpoolFull) as error:
                ticket.answer = error
        if not ready:
            return
        try:
            self.spool.sync([ticket.arrival.spool_path for ticket in ready])
            for ticket in ready:
                ticket.tried = True
            answers = self._transaction([ticket.arrival for ticket in ready])
        except Exception as error:  # noqa: BLE001 - whatever it is, a thread waits for each of them
            if len(ready) > 1 and not isinstance(error, OSError | OperationalError):
                for ticket in ready:  # what one instance brought must not spoil the others
                    self._write([ticket])
                return
            for ticket in ready:
                ticket.answer = _translated(error)
            return
        for ticket, answer in zip(ready, answers, strict=True):
            ticket.answer = answer

    def _transaction(self, arrivals: Sequence[Arrival]) -> list[Outcome | list[Rival]]:
        for attempt in range(_TRIES):
            try:
                with self.db.begin() as session:
                    return register_group(session.connection(), self.spool, arrivals)
            except (IntegrityError, OperationalError) as error:
                # Another process registered or deleted the same things at the same moment.
                if attempt == _TRIES - 1 or not (isinstance(error, IntegrityError) or _state(error) in _RACES):
                    raise
        raise AssertionError("unreachable")

    def _recognise(self, arrival: Arrival, incoming: Incoming, rivals: Sequence[Rival], placed: list[Path]) -> bool:
        """Whether an instance that would be in conflict is one that we made ourselves of a rival, for a disc.

        Where what was received is not in the spool, the file is put where conformed ones lie (``placed``), before its
        row says so.
        """
        uid, received = arrival.header.sop_instance_uid, arrival.received
        try:
            meta_end = received.file_bytes - received.dataset_bytes
            earlier = owncopies.as_earlier(incoming.path, meta_end, arrival.header)
            known = [received.file_sha256, *earlier]
            with self.db.read() as session:
                own = owncopies.recognise(session, uid, [rival.digest for rival in rivals], known)
            if own is not None and own.sha256 in earlier:
                own = replace(own, meta=earlier[own.sha256], meta_end=meta_end)
            arrival.own = own
            if own is None or (own.spool_path is not None and self.spool.path_of(own.spool_path).exists()):
                return own is not None
            if self._derived_dir is None:
                return False
            arrival.own = owncopies.placed(own, incoming.path, self._derived_dir)
            placed += filter(None, (arrival.own.placed,))
            return True
        except (OSError, SQLAlchemyError) as error:
            raise _translated(error) from error

    def _equals(self, path: Path, rival: Rival) -> bool:
        held = self.spool.path_of(rival.spool_path) if rival.spool_path else None
        # What was purged cannot be compared any more: both are kept, and shown.
        return held is not None and held.exists() and self._same_content(held, path)

    def _is_unregistered(self, spool_path: str) -> bool:
        """After a failure: surely not registered, so that the file may go. Else the next sweep will find out."""
        with suppress(SQLAlchemyError):
            return not registered_paths(self.db, [spool_path])
        return False


class _HeldBytes:
    """Bytes that the spool holds by our tables; asked for again only now and then, for it reads the whole table."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._value = 0
        self._until = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            begun = time.monotonic()
            if begun >= self._until:
                with self._db.read() as session:
                    held = select(func.sum(Instance.file_bytes)).where(Instance.spool_path.is_not(None))
                    self._value = int(session.execute(held).scalar() or 0)
                self._until = time.monotonic() + max(1.0, 50 * (time.monotonic() - begun))
            return self._value


def registered_paths(db: Database, spool_paths: Collection[str]) -> set[str]:
    """Those of some published names that a row names."""
    found: set[str] = set()
    wanted = sorted(spool_paths)
    with db.read() as session:
        for chunk in chunks(wanted):
            query = select(Instance.spool_path).where(Instance.spool_path.in_(chunk))
            found.update(path for path in session.execute(query).scalars() if path)
    return found


def sweep(db: Database, spool: Spool) -> int:
    """At the start of a node: remove what its dead processes left half done; returns how many files that were."""
    return spool.sweep(lambda paths: registered_paths(db, paths))


# --- From files ------------------------------------------------------------------------------------------------------


def ingest_file(
    registrar: Registrar, path: Path, *, provenance: Provenance, reconciler: Reconciler | None = None
) -> Outcome:
    """Take an instance from a PS3.10 file, with or without preamble and file meta information, by the same door.

    NotDicom (a MediaError) says in words why a file is no instance; SpoolFull and RegistrationFailed as in
    ``Registrar.register``. With a ``reconciler`` what its rules change is changed first, and told with the outcome;
    InstanceRefused where that cannot be.
    """
    edits = reconciler.edits(path) if reconciler is not None else ()
    if reconciler is None or not edits:
        return _ingest(registrar, path, provenance, None)
    edited = registrar.spool.scratch()
    try:
        located = locate(path)
        digest = hashlib.sha256()
        for chunk in dataset_chunks(path, located):
            digest.update(chunk)
        original = reconciler.original(path, digest.hexdigest())
        changes = edit_instance(path, edited, Edits(edits, original=original)).changes
        reconciled = Reconciled(reconciler.digest, changes, digest.hexdigest(), original)
        return replace(_ingest(registrar, edited, provenance, reconciled), changes=changes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpoolFull(f"the spool is full: {error.strerror}") from error
        raise NotDicom(f"{path.name} cannot be read: {error.strerror or error}") from error
    finally:
        edited.unlink(missing_ok=True)


def _ingest(registrar: Registrar, path: Path, provenance: Provenance, reconciled: Reconciled | None) -> Outcome:
    located = locate(path)
    try:
        header = read_header(path, offset=located.dataset_offset, transfer_syntax_uid=located.transfer_syntax_uid)
        check_identity(header)
        return _copy_in(registrar, path, located, header, provenance, reconciled)
    except BadIdentity as error:
        raise NotDicom(f"{path.name}: {error}") from None
    except OSError as error:
        raise NotDicom(f"{path.name} cannot be read: {error.strerror or error}") from error


def _copy_in(
    registrar: Registrar,
    path: Path,
    located: Part10,
    header: Header,
    provenance: Provenance,
    reconciled: Reconciled | None,
) -> Outcome:
    if registrar.spool.is_full():
        raise SpoolFull("the spool is above its high-water mark")
    incoming = registrar.spool.incoming()
    try:
        incoming.write_meta(file_meta(header.sop_class_uid, header.sop_instance_uid, located.transfer_syntax_uid))
        for chunk in dataset_chunks(path, located):
            incoming.write(chunk)
        if incoming.finish().dataset_bytes != header.dataset_bytes:
            raise NotDicom(f"{path.name} changed while it was read")
    except BaseException:
        incoming.discard()
        raise
    return registrar.register(incoming, header, provenance, reconciled)


def ingest_stream(
    registrar: Registrar, stream: BinaryIO, *, provenance: Provenance, reconciler: Reconciler | None = None
) -> Outcome:
    """The same for a PS3.10 file that comes as a stream; it is read to its end."""
    if registrar.spool.is_full():
        raise SpoolFull("the spool is above its high-water mark")
    upload = registrar.spool.incoming()
    try:
        while chunk := stream.read(_CHUNK):
            upload.write(chunk)
        return ingest_file(registrar, upload.path, provenance=provenance, reconciler=reconciler)
    finally:
        upload.discard()


# --- Errors ----------------------------------------------------------------------------------------------------------

_RACES = ("40001", "40P01")
"""SQLSTATE: serialization failure, deadlock detected."""
_DISK_FULL = ("53100", "SQLITE_FULL")


def _state(error: BaseException) -> str:
    """SQLSTATE, or SQLite's name of the error; empty where there is none."""
    cause = getattr(error, "orig", None)
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or "")


def _translated(error: Exception) -> Exception:
    if isinstance(error, DBAPIError) and _state(error) in _DISK_FULL:
        return SpoolFull("there is no room left for the database")
    if isinstance(error, SQLAlchemyError | OSError):
        # The text of a database error holds the values of the statement: not for logs and peers.
        failed = RegistrationFailed(f"the database refused: {type(error).__name__} {_state(error)}".strip())
        failed.__cause__ = error
        return failed
    return error
