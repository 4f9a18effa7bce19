"""C-MOVE and C-GET of Query/Retrieve (PS3.4 C.4.2, C.4.3): instances go out as they are held, one C-STORE each."""

from __future__ import annotations

import logging
import socket
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from media.attributes import Attribute, encode
from media.encoding import syntax_of
from scp.auditing import Auditor
from scp.channel import Channel, Message
from scp.commands import (
    C_GET_RQ,
    C_MOVE_RQ,
    COMPLETED,
    FAILED,
    MOVE_DESTINATION,
    REMAINING,
    WARNING,
    text,
)
from scp.conversion import EXPLICIT_LE
from scp.exits import Exit, Nowhere, OtherAssociation, SameAssociation
from scp.identifier import GET, MOVE, Identifier, Refused, check_unique_key, read_identifier, sop_classes
from scp.recalling import Recalling, RecallPolicy, is_far
from scp.sender import Sender, SenderFailed
from scp.services import Service
from scp.sources import NotThere, Source, Sources
from scp.statuses import (
    CANCELLED,
    DESTINATION_AWAY,
    NO_SUB_OPERATION,
    NOT_COUNTED,
    NOT_RECALLED,
    ONLY_ON_DISCS,
    PENDING,
    SOME_FAILED,
    SUCCESS,
    UNKNOWN_DESTINATION,
    Answer,
)
from store import remotes
from store.db import Database
from store.query_keys import LEVELS, UNIQUE, Level, text_values
from store.retrieval import Held, held_by_id, wanted_and_purged, wanted_contexts
from store.spool import Spool

_log = logging.getLogger(__name__)
_FAILED_SOP_INSTANCE_UID_LIST = 0x00080058
_LIST_BYTES = 0xFFF0
"""A UID value of Explicit VR has a 16-bit length; what does not fit is left out of the list, not of the count."""
_PAGE = 100
_WARNINGS = range(0xB000, 0xC000)
_COUNT_LIMIT = 0xFFFF


class Secure(Protocol):
    """Takes the connected socket to a node that wants TLS, and returns one whose bytes go over it."""

    def __call__(self, sock: socket.socket, *, remote: remotes.Remote) -> socket.socket: ...


def service(
    database: Database,
    spool: Spool,
    *,
    derived_dir: Path,
    writing: Database,
    recall: RecallPolicy,
    ae_title: str,
    acse_timeout: float,
    dimse_timeout: float,
    convert: bool = True,
    secure: Secure | None = None,
    auditor: Auditor | None = None,
) -> Service:
    """The service for all associations of a process; times in seconds, for associations to move destinations.

    ``convert``: what a receiver does not take as it is held goes as Explicit VR Little Endian. Without ``secure``
    nothing is moved to nodes that want TLS. ``writing`` is a database on which recalls can be begun.
    """
    provider = _Provider(
        database,
        spool,
        derived_dir,
        writing,
        recall,
        ae_title,
        (acse_timeout, dimse_timeout),
        convert,
        secure,
        auditor or Auditor(),
    )
    return Service(
        sop_classes(MOVE, GET), operations={C_MOVE_RQ: provider.move, C_GET_RQ: provider.get}, extended=negotiate
    )


def negotiate(proposed: bytes) -> bytes:
    """Relational retrieval is agreed to (PS3.4 C.5.2.1), all else is not."""
    return bytes(byte if at == 0 and byte == 1 else 0 for at, byte in enumerate(proposed))


@dataclass(slots=True)
class _Tally:
    """The sub-operations of one retrieve."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    only_on_discs: list[str] = field(default_factory=list)
    """File-set IDs of what would have to be recalled."""
    failed_uids: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    words: str = ""
    """How a recall ended, where it did not give all."""

    def counts(self, *, final: bool = False) -> dict[int, int]:
        found = {COMPLETED: self.completed, FAILED: self.failed, WARNING: self.warning}
        if not final:
            found[REMAINING] = self.remaining
        return {tag: min(value, _COUNT_LIMIT) for tag, value in found.items()}

    def fail(self, uid: str, reason: str) -> None:
        self.remaining -= 1
        self.failed += 1
        self.failed_uids.append(uid)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


class _Provider:
    def __init__(
        self,
        database: Database,
        spool: Spool,
        derived_dir: Path,
        writing: Database,
        recall: RecallPolicy,
        ae_title: str,
        timeouts: tuple[float, float],
        convert: bool,
        secure: Secure | None,
        auditor: Auditor,
    ) -> None:
        self._auditor = auditor
        self._database = database
        self._spool = spool
        self._derived_dir = derived_dir
        self._writing = writing
        self._recall = recall
        self._ae_title = ae_title
        self._acse_timeout, self._dimse_timeout = timeouts
        self._convert = convert
        self._secure = secure

    def get(self, message: Message, channel: Channel) -> None:
        """C-GET: to the requestor, on the same association."""
        self._serve("C-GET", message, channel, lambda _: SameAssociation(message, channel), None)

    def move(self, message: Message, channel: Channel) -> None:
        """C-MOVE: to a node that we know by its AE title."""
        title = text(dict(message.command), MOVE_DESTINATION).strip()
        exits: list[OtherAssociation] = []

        def destination(contexts: list[tuple[str, str]]) -> Exit:
            try:
                way = OtherAssociation(partial(self._sender, title, contexts), (channel.calling_ae, message.message_id))
            except SenderFailed as error:
                _log.warning("C-MOVE of %s: %s", channel.peer, error)
                raise Refused(DESTINATION_AWAY) from None
            exits.append(way)
            return way

        try:
            self._serve(f"C-MOVE to {title!r}", message, channel, destination, title)
        except BaseException:
            for each in exits:
                each.abort()
            raise
        for each in exits:
            each.rest()

    def _sender(self, title: str, contexts: list[tuple[str, str]]) -> Sender:
        """An association with a move destination. Raises Refused, SenderFailed."""
        with self._database.read() as session:
            remote = remotes.by_ae_title(session, title)
        if remote is None:
            raise Refused(UNKNOWN_DESTINATION)
        secure = None
        if remote.tls:
            if self._secure is None:
                raise SenderFailed(f"{remote.ae_title} wants TLS, for which we have no certificates")
            secure = partial(self._secure, remote=remote)
        return Sender(
            (remote.host, remote.port),
            calling=self._ae_title,
            called=remote.ae_title,
            contexts=self._proposed(contexts),
            acse_timeout=self._acse_timeout,
            dimse_timeout=self._dimse_timeout,
            secure=secure,
        )

    def _proposed(self, contexts: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """As things are held, and then how they can be made."""
        plain = [(sop_class, EXPLICIT_LE) for sop_class, _ in contexts] if self._convert else []
        return list(dict.fromkeys([*contexts, *plain]))

    def _serve(
        self,
        what: str,
        message: Message,
        channel: Channel,
        leave_by: Callable[[list[tuple[str, str]]], Exit],
        to: str | None,
    ) -> None:
        begun = time.monotonic()
        tally = _Tally(0)
        ids = array("q")
        caller = channel.calling_ae
        source = f"{'c-get' if to is None else 'c-move'}:{caller}"
        recalling = Recalling(self._writing, self._recall, source=source, by=caller)
        try:
            identifier = read_identifier(message, channel)
            check_unique_key(identifier)
            wanted = _wanted(identifier)
            with self._database.read() as session:
                (ids, purged), contexts = wanted_and_purged(session, wanted), wanted_contexts(session, wanted)
            tally.remaining = len(ids)
            way = leave_by(contexts) if contexts else Nowhere()
            with Sources(self._spool, self._derived_dir) as sources:
                delivery = _Delivery(self._database, way, sources, tally, channel, convert=self._convert)
                cancelled = delivery.send_all(ids, purged, recalling)
            recalling.delivered(f"{tally.failed} of {len(ids)} were not delivered" if tally.failed else "")
            answer = _final(tally, cancelled=cancelled)
        except Refused as error:
            answer = error.answer
            tally.failed, tally.remaining = tally.remaining, 0
        except (OperationalError, PoolTimeout) as error:
            _log.error("%s of %s: the database is not available: %s", what, channel.peer, error)
            answer = NOT_COUNTED
            tally.failed, tally.remaining = tally.failed + tally.remaining, 0
        except BaseException:
            recalling.abandon()
            raise
        problem = "" if answer in (SUCCESS, CANCELLED) else f"{answer.status:04X}H {answer.comment}".strip()
        self._auditor.retrieved(channel, ids, to=to, problem=problem)
        reasons = "".join(f"; {count} x {reason}" for reason, count in list(tally.reasons.items())[:5])
        _log.log(
            logging.INFO if answer in (SUCCESS, CANCELLED) else logging.WARNING,
            "%s of %s: %d sent, %d with a warning, %d failed in %.3f s, %04XH%s%s",
            what,
            channel.peer,
            tally.completed,
            tally.warning,
            tally.failed,
            time.monotonic() - begun,
            answer.status,
            f" {answer.comment}" if answer.comment else "",
            reasons,
        )
        counts = tally.counts(final=answer is not CANCELLED)
        channel.respond(answer, _failed_list(tally, message) if tally.failed_uids else None, counts)


class _Delivery:
    """Sends the instances of one retrieve."""

    def __init__(
        self, database: Database, way: Exit, sources: Sources, tally: _Tally, channel: Channel, *, convert: bool
    ) -> None:
        self._database = database
        self._way = way
        self._sources = sources
        self._tally = tally
        self._channel = channel
        self._convert = convert
        self._ended = ""
        """Why nothing more can be sent."""
        self._broken: list[int] = []
        """What an image that is online did not give."""

    def send_all(self, ids: array[int], purged: array[int], recalling: Recalling) -> bool:
        """Send them, one after the other, what must be recalled last; whether the peer has cancelled."""
        far = self._far(purged) if recalling.policy.mode != "no" else set[int]()
        number = recalling.begin(sorted(far)) if far else 0
        if self._send([each for each in ids if each not in far], retry=recalling.policy.mode == "wait"):
            if number:
                recalling.abandon()
            return True
        if number and recalling.policy.mode == "start":
            words = f"Recall C{number} has begun; ask again later"
            self._tally.words = words
            self._lose(dict.fromkeys(sorted(far), words))
            return False
        numbers = [number] if number else []
        if self._broken:
            numbers.append(recalling.begin(self._broken))
        for each in numbers:
            self._way.rest()
            cancelled, words = recalling.wait(
                each,
                arrived=self._arrived,
                pending=self._pending,
                idle=self._way.rest,
                cancelled=self._channel.cancelled,
            )
            self._tally.words = self._tally.words or words
            if cancelled:
                recalling.abandon()
                return True
        return False

    def _far(self, purged: array[int]) -> set[int]:
        found = set()
        for at in range(0, len(purged), _PAGE):
            page = purged[at : at + _PAGE]
            with self._database.read() as session:
                # One that was deleted meanwhile is found as before, a moment later.
                for row_id, instance in held_by_id(session, page).items():
                    if is_far(instance):
                        found.add(row_id)
        return found

    def _arrived(self, came: Sequence[int], lost: dict[int, str]) -> None:
        self._send(came, retry=False)
        self._lose(lost)

    def _lose(self, lost: dict[int, str]) -> None:
        ids = list(lost)
        for at in range(0, len(ids), _PAGE):
            with self._database.read() as session:
                page = held_by_id(session, ids[at : at + _PAGE])
            self._tally.remaining -= len(ids[at : at + _PAGE]) - len(page)
            for row_id, instance in page.items():
                self._tally.fail(instance.sop_instance_uid, lost[row_id])

    def _send(self, ids: Sequence[int], *, retry: bool) -> bool:
        """Whether the peer has cancelled. ``retry``: what cannot be read is kept for a recall."""
        tally, channel = self._tally, self._channel
        for at in range(0, len(ids), _PAGE):
            with self._database.read() as session:
                page = held_by_id(session, ids[at : at + _PAGE])
            tally.remaining -= len(ids[at : at + _PAGE]) - len(page)  # deleted meanwhile: no longer wanted
            for row_id, instance in page.items():
                if channel.cancelled():
                    return True
                try:
                    if self._ended:
                        tally.fail(instance.sop_instance_uid, self._ended)
                        continue
                    if not self._send_one(instance, retry=retry):
                        self._broken.append(row_id)
                except SenderFailed as error:
                    self._ended = f"the association to the destination ended: {error}"
                    tally.fail(instance.sop_instance_uid, self._ended)
                if tally.remaining:
                    self._pending()
        return False

    def _pending(self) -> None:
        self._channel.respond(PENDING, None, self._tally.counts())
        self._channel.flush()

    def _send_one(self, instance: Held, *, retry: bool) -> bool:
        """One sub-operation; False where another disc may have what could not be read. Raises SenderFailed where the
        way out is closed for all that remain."""
        way, tally = self._way, self._tally
        try:
            with self._sources.open(instance) as source:
                if way.takes(instance.sop_class_uid, source.transfer_syntax_uid):
                    status = way.store(instance, source)
                elif self._convert and way.takes(instance.sop_class_uid, EXPLICIT_LE):
                    with self._sources.plain(instance, source) as plain:
                        status = way.store(instance, plain)
                else:
                    tally.fail(instance.sop_instance_uid, _untaken(instance, source))
                    return True
        except NotThere as error:
            if retry and instance.spool_path is None and instance.places:
                return False
            if instance.spool_path is None and not instance.places:
                tally.only_on_discs += instance.file_sets[:1]
            tally.fail(instance.sop_instance_uid, str(error))
            return True
        if status == 0 or status in _WARNINGS:
            tally.remaining -= 1
            tally.completed += status == 0
            tally.warning += status != 0
        else:
            tally.fail(instance.sop_instance_uid, f"answered with {status:04X}H")
        return True


def _wanted(identifier: Identifier) -> Mapping[Level, tuple[str, ...]]:
    levels = LEVELS[: LEVELS.index(identifier.level) + 1]
    keys = {level: identifier.keys.get(UNIQUE[level].tag) for level in levels}
    return {level: text_values(key) for level, key in keys.items() if key is not None}


def _final(tally: _Tally, *, cancelled: bool) -> Answer:
    if cancelled:
        return CANCELLED
    if not tally.failed:
        return SUCCESS
    if tally.completed or tally.warning:
        return Answer(SOME_FAILED.status, tally.words[:64]) if tally.words else SOME_FAILED
    if tally.words:
        return Answer(NOT_RECALLED.status, tally.words[:64])
    if len(tally.only_on_discs) == tally.failed:
        names = ", ".join(sorted(set(tally.only_on_discs)))
        return Answer(ONLY_ON_DISCS.status, f"{ONLY_ON_DISCS.comment}: {names}"[:64])
    return NO_SUB_OPERATION


def _failed_list(tally: _Tally, message: Message) -> bytes:
    """Failed SOP Instance UID List (0008,0058)."""
    value = "\\".join(tally.failed_uids)
    if len(value) > _LIST_BYTES:
        value = value[:_LIST_BYTES].rpartition("\\")[0]
    attributes = {_FAILED_SOP_INSTANCE_UID_LIST: Attribute(b"UI", value)}
    return encode(attributes, syntax_of(message.transfer_syntax), "")


def _untaken(instance: Held, source: Source) -> str:
    return f"SOP class {instance.sop_class_uid} is not taken in transfer syntax {source.transfer_syntax_uid}"
