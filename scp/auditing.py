"""What the audit trail hears of associations: queries, retrieves, and who was turned away.

What is stored with us it hears from the store itself (``store.auditevents``).
"""

from __future__ import annotations

import threading
import time
from array import array

from sqlalchemy.orm import Session

from scp.channel import Channel, Message
from store import auditmessage as messages
from store import auditwhat
from store.auditmessage import Participant
from store.auditwhat import OURSELVES, Who
from store.auditwriter import AuditWriter

_SAME_SECONDS = 60.0
_PEERS = 1000


class Auditor:
    """Tells the trail; without a writer it tells nobody."""

    def __init__(self, writer: AuditWriter | None = None) -> None:
        self._writer = writer
        self._guard = threading.Lock()
        self._refused: dict[tuple[str, str], float] = {}

    def query(self, message: Message, channel: Channel, *, problem: str = "") -> None:
        """A C-FIND, with its identifier as it came."""
        if self._writer is not None:
            who, content, uid = Who(channel.calling_ae, channel.address), message.data, message.abstract_syntax
            self._writer.put(lambda _session: [auditwhat.query(who, uid, content, problem=problem)])

    def retrieved(self, channel: Channel, ids: array[int], *, to: str | None, problem: str = "") -> None:
        """A C-MOVE or C-GET; ``to``: AE title of the destination, None: the requestor itself."""
        if self._writer is None or not ids:
            return
        asker = Participant(channel.calling_ae, "destination", True, address=channel.address)
        destination = asker if to is None else Participant(to, "destination")

        def tell(session: Session) -> list[messages.Message]:
            source = Participant(OURSELVES, "source")
            told = auditwhat.transferred(session, ids, source, destination, problem=problem)
            if to is None:
                return told
            requestor = Participant(channel.calling_ae, requestor=True, address=channel.address)
            return [
                messages.Message(
                    one.event,
                    one.action,
                    (requestor, *one.participants),
                    one.things,
                    outcome=one.outcome,
                    problem=one.problem,
                )
                for one in told
            ]

        self._writer.put(tell)

    def refused(self, calling_ae: str, address: str, reason: str) -> None:
        """An association that was rejected; one peer's repeated attempts are told once a minute."""
        if self._writer is None:
            return
        now = time.monotonic()
        with self._guard:
            if now - self._refused.get((address, reason), -_SAME_SECONDS) < _SAME_SECONDS:
                return
            if len(self._refused) > _PEERS:
                self._refused.clear()
            self._refused[address, reason] = now
        who = Who(calling_ae or "unknown", address)
        self._writer.put(lambda _session: [auditwhat.alert("node", who, reason, about=calling_ae, problem=reason)])

    def close(self) -> None:
        """Record what was told."""
        if self._writer is not None:
            self._writer.close()
