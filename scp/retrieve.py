"""C-MOVE and C-GET of Query/Retrieve (PS3.4 C.4.2, C.4.3): instances go out as they are held, one C-STORE each."""

from __future__ import annotations

import logging
import socket
import time
from array import array
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from scp.auditing import Auditor
from scp.channel import Channel, Message
from scp.commands import (
    C_GET_RQ,
    C_MOVE_RQ,
    MOVE_DESTINATION,
    text,
)
from scp.conversion import EXPLICIT_LE
from scp.delivery import Delivery, Tally, failed_list, final
from scp.exits import Exit, Nowhere, OtherAssociation, SameAssociation
from scp.identifier import GET, MOVE, Identifier, Refused, check_unique_key, read_identifier, sop_classes
from scp.recalling import Recalling, RecallPolicy
from scp.sender import Sender, SenderFailed
from scp.services import Service
from scp.sources import Sources
from scp.statuses import (
    CANCELLED,
    DESTINATION_AWAY,
    NOT_COUNTED,
    SUCCESS,
    UNKNOWN_DESTINATION,
)
from store import remotes
from store.db import Database
from store.query_keys import LEVELS, UNIQUE, Level, text_values
from store.retrieval import wanted_and_purged, wanted_contexts
from store.spool import Spool

_log = logging.getLogger(__name__)


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
        tally = Tally(0)
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
                delivery = Delivery(self._database, way, sources, tally, channel, recalling, convert=self._convert)
                cancelled = delivery.send_all(ids, purged)
            recalling.delivered(f"{tally.failed} of {len(ids)} were not delivered" if tally.failed else "")
            answer = final(tally, cancelled=cancelled)
        except Refused as error:
            answer = error.answer
            tally.failed, tally.remaining = tally.remaining, 0
        except (OperationalError, PoolTimeout) as error:
            _log.error("%s of %s: the database is not available: %s", what, channel.peer, error)
            answer = NOT_COUNTED
            tally.failed, tally.remaining = tally.failed + tally.remaining, 0
        finally:
            recalling.abandon()
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
        channel.respond(answer, failed_list(tally, message) if tally.failed_uids else None, counts)


def _wanted(identifier: Identifier) -> Mapping[Level, tuple[str, ...]]:
    levels = LEVELS[: LEVELS.index(identifier.level) + 1]
    keys = {level: identifier.keys.get(UNIQUE[level].tag) for level in levels}
    return {level: text_values(key) for level, key in keys.items() if key is not None}
