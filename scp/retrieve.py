"""C-MOVE and C-GET of Query/Retrieve (PS3.4 C.4.2, C.4.3): instances go out as they are held, one C-STORE each."""

from __future__ import annotations

import logging
import socket
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pydicom.uid import UID
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from media.attributes import Attribute, encode
from media.encoding import syntax_of
from scp.channel import Channel, Message
from scp.commands import (
    C_GET_RQ,
    C_MOVE_RQ,
    COMPLETED,
    FAILED,
    MOVE_DESTINATION,
    REMAINING,
    STATUS,
    WARNING,
    number,
    store_command,
    text,
)
from scp.conversion import EXPLICIT_LE
from scp.identifier import GET, MOVE, Identifier, Refused, check_unique_key, read_identifier, sop_classes
from scp.sender import Sender, SenderFailed
from scp.sending import Outlet
from scp.services import Service
from scp.sources import NotThere, Source, Sources
from scp.statuses import (
    CANCELLED,
    DESTINATION_AWAY,
    NO_SUB_OPERATION,
    NOT_COUNTED,
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
from store.retrieval import Held, held, wanted_contexts, wanted_ids
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
    ae_title: str,
    acse_timeout: float,
    dimse_timeout: float,
    convert: bool = True,
    secure: Secure | None = None,
) -> Service:
    """The service for all associations of a process; times in seconds, for associations to move destinations.

    ``convert``: what a receiver does not take as it is held goes as Explicit VR Little Endian. Without ``secure``
    nothing is moved to nodes that want TLS.
    """
    provider = _Provider(database, spool, ae_title, (acse_timeout, dimse_timeout), convert, secure)
    return Service(
        sop_classes(MOVE, GET), operations={C_MOVE_RQ: provider.move, C_GET_RQ: provider.get}, extended=negotiate
    )


def negotiate(proposed: bytes) -> bytes:
    """Relational retrieval is agreed to (PS3.4 C.5.2.1), all else is not."""
    return bytes(byte if at == 0 and byte == 1 else 0 for at, byte in enumerate(proposed))


class Exit(Protocol):
    """Where the instances of one retrieve go."""

    def takes(self, sop_class_uid: str, transfer_syntax_uid: str) -> bool: ...

    def store(self, instance: Held, source: Source) -> int:
        """The status of the C-STORE of what it takes. Raises SenderFailed where no more can be sent."""


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
        ae_title: str,
        timeouts: tuple[float, float],
        convert: bool,
        secure: Secure | None,
    ) -> None:
        self._database = database
        self._spool = spool
        self._ae_title = ae_title
        self._acse_timeout, self._dimse_timeout = timeouts
        self._convert = convert
        self._secure = secure

    def get(self, message: Message, channel: Channel) -> None:
        """C-GET: to the requestor, on the same association."""
        self._serve("C-GET", message, channel, lambda _: _SameAssociation(message, channel))

    def move(self, message: Message, channel: Channel) -> None:
        """C-MOVE: to a node that we know by its AE title."""
        title = text(dict(message.command), MOVE_DESTINATION).strip()
        exits: list[_OtherAssociation] = []

        def destination(contexts: list[tuple[str, str]]) -> Exit:
            try:
                sender = self._sender(title, contexts)
            except SenderFailed as error:
                _log.warning("C-MOVE of %s: %s", channel.peer, error)
                raise Refused(DESTINATION_AWAY) from None
            exits.append(_OtherAssociation(sender, (channel.calling_ae, message.message_id)))
            return exits[-1]

        try:
            self._serve(f"C-MOVE to {title!r}", message, channel, destination)
        except BaseException:
            for each in exits:
                each.sender.abort()
            raise
        for each in exits:
            each.sender.release()

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
        self, what: str, message: Message, channel: Channel, leave_by: Callable[[list[tuple[str, str]]], Exit]
    ) -> None:
        begun = time.monotonic()
        tally = _Tally(0)
        try:
            identifier = read_identifier(message, channel)
            check_unique_key(identifier)
            wanted = _wanted(identifier)
            with self._database.read() as session:
                ids, contexts = wanted_ids(session, wanted), wanted_contexts(session, wanted)
            tally.remaining = len(ids)
            way = leave_by(contexts) if contexts else _Nowhere()
            cancelled = self._send_all(ids, way, tally, channel)
            answer = _final(tally, cancelled=cancelled)
        except Refused as error:
            answer = error.answer
            tally.failed, tally.remaining = tally.remaining, 0
        except (OperationalError, PoolTimeout) as error:
            _log.error("%s of %s: the database is not available: %s", what, channel.peer, error)
            answer = NOT_COUNTED
            tally.failed, tally.remaining = tally.failed + tally.remaining, 0
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

    def _send_all(self, ids: array[int], way: Exit, tally: _Tally, channel: Channel) -> bool:
        """Send them, one after the other; whether the peer has cancelled."""
        ended = ""
        with Sources(self._spool) as sources:
            for at in range(0, len(ids), _PAGE):
                with self._database.read() as session:
                    page = held(session, ids[at : at + _PAGE])
                tally.remaining -= len(ids[at : at + _PAGE]) - len(page)  # deleted meanwhile: no longer wanted
                for instance in page:
                    if channel.cancelled():
                        return True
                    try:
                        if ended:
                            tally.fail(instance.sop_instance_uid, ended)
                            continue
                        self._send(instance, way, sources, tally)
                    except SenderFailed as error:
                        ended = f"the association to the destination ended: {error}"
                        tally.fail(instance.sop_instance_uid, ended)
                    if tally.remaining:
                        channel.respond(PENDING, None, tally.counts())
                        channel.flush()
        return False

    def _send(self, instance: Held, way: Exit, sources: Sources, tally: _Tally) -> None:
        """One sub-operation. Raises SenderFailed where the way out is closed for all that remain."""
        try:
            with sources.open(instance) as source:
                if way.takes(instance.sop_class_uid, source.transfer_syntax_uid):
                    status = way.store(instance, source)
                elif self._convert and way.takes(instance.sop_class_uid, EXPLICIT_LE):
                    with sources.plain(instance, source) as plain:
                        status = way.store(instance, plain)
                else:
                    tally.fail(instance.sop_instance_uid, _untaken(instance, source))
                    return
        except NotThere as error:
            if instance.spool_path is None and not instance.places:
                tally.only_on_discs += instance.file_sets[:1]
            tally.fail(instance.sop_instance_uid, str(error))
            return
        if status == 0 or status in _WARNINGS:
            tally.remaining -= 1
            tally.completed += status == 0
            tally.warning += status != 0
        else:
            tally.fail(instance.sop_instance_uid, f"answered with {status:04X}H")


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
        return SOME_FAILED
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


class _Nowhere:
    """Where nothing can be sent."""

    def takes(self, _sop_class_uid: str, _transfer_syntax_uid: str) -> bool:
        return False

    def store(self, _instance: Held, _source: Source) -> int:
        raise SenderFailed("there is no association")


class _SameAssociation:
    """The way back to the requestor of a C-GET, which is SCP of the storage classes it says so of."""

    def __init__(self, message: Message, channel: Channel) -> None:
        self._channel = channel
        self._outlet = Outlet(channel.socket, channel.max_pdu)
        self._message_id = message.message_id
        association = channel.association
        self._contexts: dict[tuple[str, str], int] = {}
        for context_id, context in association._accepted_cx.items():
            role = association.requestor.role_selection.get(UID(context.abstract_syntax))
            if role is not None and role.scp_role:
                self._contexts[str(context.abstract_syntax), str(context.transfer_syntax[0])] = context_id

    def takes(self, sop_class_uid: str, transfer_syntax_uid: str) -> bool:
        return (sop_class_uid, transfer_syntax_uid) in self._contexts

    def store(self, instance: Held, source: Source) -> int:
        context_id = self._contexts[instance.sop_class_uid, source.transfer_syntax_uid]
        self._channel.flush()
        self._message_id = self._message_id % 0xFFFF + 1
        command = store_command(self._message_id, instance.sop_class_uid, instance.sop_instance_uid)
        self._outlet.send(context_id, command, source.stream, source.length)
        return number(self._channel.response(), STATUS)


class _OtherAssociation:
    """The way to a move destination."""

    def __init__(self, sender: Sender, originator: tuple[str, int]) -> None:
        self.sender = sender
        self._originator = originator

    def takes(self, sop_class_uid: str, transfer_syntax_uid: str) -> bool:
        return (sop_class_uid, transfer_syntax_uid) in self.sender.accepted

    def store(self, instance: Held, source: Source) -> int:
        return self.sender.store(
            self.sender.accepted[instance.sop_class_uid, source.transfer_syntax_uid],
            instance.sop_class_uid,
            instance.sop_instance_uid,
            source.stream,
            source.length,
            self._originator,
        )


def _untaken(instance: Held, source: Source) -> str:
    return f"SOP class {instance.sop_class_uid} is not taken in transfer syntax {source.transfer_syntax_uid}"
