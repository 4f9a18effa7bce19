"""C-FIND of Query/Retrieve, Patient Root and Study Root (PS3.4 C.4.1), over the spool and the catalogue."""

from __future__ import annotations

import logging
import time

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from media.attributes import SPECIFIC_CHARACTER_SET, Attribute, Attributes, character_set_for, encode
from media.encoding import Syntax, syntax_of
from scp.auditing import Auditor
from scp.channel import Channel, Message
from scp.commands import (
    AFFECTED_SOP_CLASS_UID,
    C_FIND_RQ,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    DATA_SET,
    MESSAGE_ID_RESPONDED_TO,
    RESPONSE,
    STATUS,
    command_set,
    text,
)
from scp.identifier import FIND, QUERY_RETRIEVE_LEVEL, Identifier, Refused, read_identifier, sop_classes
from scp.services import Service
from scp.statuses import (
    CANCELLED,
    OUT_OF_RESOURCES,
    PENDING,
    PENDING_WITHOUT_SOME,
    SUCCESS,
    WRONG_VALUE,
)
from store.db import Database
from store.matching import BadKey
from store.query import Match, find
from store.query_facts import NEARLINE, ONLINE
from store.query_keys import (
    FACTS,
    FILE_SET_ID,
    FILE_SET_UID,
    INSTANCE_AVAILABILITY,
    RETRIEVE_AE_TITLE,
    UNIQUE,
    Query,
    text_values,
)

_log = logging.getLogger(__name__)
_NO_KEYS = (0x00080053, 0x00080201)
"""Query/Retrieve View, Timezone Offset From UTC: no keys, and nothing that we lack."""
_RELATIONAL, _COMBINED_DATETIME = 0, 1
"""Bytes of the extended negotiation (PS3.4 C.5.1.1)."""
_LOOK_SECONDS = 0.05


class _Cancelled(Exception):
    """The peer has sent a C-CANCEL-RQ."""


def service(database: Database, ae_title: str, auditor: Auditor | None = None) -> Service:
    """The service for all associations of a process. ``ae_title`` is where matches can be retrieved from."""
    find_ = _Find(database, ae_title, auditor or Auditor())
    return Service(sop_classes(FIND), operations={C_FIND_RQ: find_}, extended=negotiate)


def negotiate(proposed: bytes) -> bytes:
    """Relational queries and combined date-time matching are agreed to, all else is not."""
    return bytes(
        byte if at in (_RELATIONAL, _COMBINED_DATETIME) and byte == 1 else 0 for at, byte in enumerate(proposed)
    )


class _Find:
    def __init__(self, database: Database, ae_title: str, auditor: Auditor) -> None:
        self._database = database
        self._ae_title = ae_title
        self._auditor = auditor

    def __call__(self, message: Message, channel: Channel) -> None:
        begun = time.monotonic()
        count = 0
        try:
            identifier = read_identifier(message, channel)
            query = _query(identifier, channel.agreed(message.abstract_syntax))
            answers = _Answers(message, channel, identifier, query, self._ae_title)
            with self._database.read() as session:
                for match in find(session, query, answers.look):
                    count += answers.tell(match)
            answer = SUCCESS
        except _Cancelled:
            answer = CANCELLED
        except Refused as error:
            answer = error.answer
        except BadKey as error:
            answer = WRONG_VALUE.blaming(error.tag)
        except (OperationalError, PoolTimeout) as error:
            _log.error("C-FIND of %s: the database is not available: %s", channel.peer, error)
            answer = OUT_OF_RESOURCES
        problem = "" if answer in (SUCCESS, CANCELLED) else f"{answer.status:04X}H {answer.comment}".strip()
        self._auditor.query(message, channel, problem=problem)
        level = logging.INFO if answer in (SUCCESS, CANCELLED) else logging.WARNING
        _log.log(
            level,
            "C-FIND of %s: %d matches in %.3f s, %04XH%s",
            channel.peer,
            count,
            time.monotonic() - begun,
            answer.status,
            f" {answer.comment}" if answer.comment else "",
        )
        channel.respond(answer)


def _query(identifier: Identifier, agreed: bytes) -> Query:
    """Asks for the unique keys of all levels, too: a match without them is worth little."""
    unique = {UNIQUE[level].tag: Attribute(UNIQUE[level].vr, "") for level in (*identifier.above, identifier.level)}
    return Query(
        identifier.level,
        unique | identifier.keys,
        combined_datetime=agreed[_COMBINED_DATETIME : _COMBINED_DATETIME + 1] == b"\x01",
    )


class _Answers:
    """The pending responses of one query."""

    def __init__(self, message: Message, channel: Channel, identifier: Identifier, query: Query, ae_title: str) -> None:
        self._channel = channel
        self._character_set = identifier.character_set
        self._syntax: Syntax = syntax_of(message.transfer_syntax)
        self._ae_title = ae_title
        self._asked = identifier.keys
        self._level = Attribute(b"CS", identifier.level)
        self._looked = 0.0
        pending = PENDING_WITHOUT_SOME if _lacks_some(query) else PENDING
        self._command = command_set(
            {
                AFFECTED_SOP_CLASS_UID: text(dict(message.command), AFFECTED_SOP_CLASS_UID),
                COMMAND_FIELD: C_FIND_RQ | RESPONSE,
                MESSAGE_ID_RESPONDED_TO: message.message_id,
                COMMAND_DATA_SET_TYPE: DATA_SET,
                STATUS: pending.status,
            }
        )

    def look(self) -> None:
        """Send what waits, and hear whether the peer wants no more."""
        self._channel.flush()
        if self._channel.cancelled():
            raise _Cancelled

    def tell(self, match: Match) -> bool:
        attributes: Attributes = {QUERY_RETRIEVE_LEVEL: self._level, **match.attributes}
        fact = match.fact
        if fact.availability in (ONLINE, NEARLINE):
            attributes[RETRIEVE_AE_TITLE] = Attribute(b"AE", self._ae_title)
        attributes[INSTANCE_AVAILABILITY] = Attribute(b"CS", fact.availability)
        for tag, value in ((FILE_SET_ID, fact.file_set_id), (FILE_SET_UID, fact.file_set_uid)):
            if value or tag in self._asked:
                attributes[tag] = Attribute(FACTS[tag], value)
        character_set = character_set_for(attributes, self._character_set)
        if character_set:
            attributes[SPECIFIC_CHARACTER_SET] = Attribute(b"CS", character_set)
        self._channel.put(self._command, encode(attributes, self._syntax, character_set))
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self.look()
        return True


def _lacks_some(query: Query) -> bool:
    """Whether something was asked for that we do not have, or do not match on (PS3.4 C.4.1.1.4, FF01H)."""
    supported = {key.tag: key for key in query.supported()}
    for tag, attribute in query.keys.items():
        if tag in _NO_KEYS or tag in FACTS:
            continue
        key = supported.get(tag)
        if key is None or (text_values(attribute) and not key.matched):
            return True
    return False
