"""Sending the instances of one retrieve: what is here at once, what must be recalled as it comes; and the tally."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from media.attributes import Attribute, encode
from media.encoding import syntax_of
from scp.channel import Channel, Message
from scp.commands import COMPLETED, FAILED, REMAINING, WARNING
from scp.conversion import EXPLICIT_LE
from scp.exits import Exit
from scp.recalling import Recalling, is_far
from scp.sender import SenderFailed
from scp.sources import NotThere, Source, Sources
from scp.statuses import (
    CANCELLED,
    NO_SUB_OPERATION,
    NOT_RECALLED,
    ONLY_ON_DISCS,
    PENDING,
    SOME_FAILED,
    SUCCESS,
    Answer,
)
from store.db import Database
from store.retrieval import Held, held_by_id

_FAILED_SOP_INSTANCE_UID_LIST = 0x00080058
_LIST_BYTES = 0xFFF0
"""A UID value of Explicit VR has a 16-bit length; what does not fit is left out of the list, not of the count."""
_PAGE = 100
_WARNINGS = range(0xB000, 0xC000)
_COUNT_LIMIT = 0xFFFF
_RENAMED = "Only under another patient's name or number: not sent"


@dataclass(slots=True)
class Tally:
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


class Delivery:
    """Sends the instances of one retrieve."""

    def __init__(
        self,
        database: Database,
        way: Exit,
        sources: Sources,
        tally: Tally,
        channel: Channel,
        recalling: Recalling,
        *,
        convert: bool,
    ) -> None:
        """``convert``: what the receiver does not take as it is held goes as Explicit VR Little Endian."""
        self._database = database
        self._way = way
        self._sources = sources
        self._tally = tally
        self._channel = channel
        self._recalling = recalling
        self._convert = convert
        self._ended = ""
        """Why nothing more can be sent."""
        self._broken: list[int] = []
        """What an image that is online did not give."""

    def send_all(self, ids: array[int], purged: array[int]) -> bool:
        """Send them, one after the other, what must be recalled last; whether the peer has cancelled."""
        recalling = self._recalling
        far = self._far(purged) if recalling.policy.mode != "no" else set[int]()
        number = recalling.begin(sorted(far)) if far else 0
        if self._send([each for each in ids if each not in far], retry=recalling.policy.mode == "wait"):
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
        self._recalling.alive()
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
            if instance.only_renamed:
                tally.words = tally.words or _RENAMED
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


def final(tally: Tally, *, cancelled: bool) -> Answer:
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


def failed_list(tally: Tally, message: Message) -> bytes:
    """Failed SOP Instance UID List (0008,0058)."""
    value = "\\".join(tally.failed_uids)
    if len(value) > _LIST_BYTES:
        value = value[:_LIST_BYTES].rpartition("\\")[0]
    attributes = {_FAILED_SOP_INSTANCE_UID_LIST: Attribute(b"UI", value)}
    return encode(attributes, syntax_of(message.transfer_syntax), "")


def _untaken(instance: Held, source: Source) -> str:
    return f"SOP class {instance.sop_class_uid} is not taken in transfer syntax {source.transfer_syntax_uid}"
