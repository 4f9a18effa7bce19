"""The audit trail at work: Events become messages, messages go to the receiver, the chain's end is kept outside."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import update

from config.settings import Settings
from jobs.context import Context
from service.logs import logger
from service.syslog import Receiver, Sender, SyslogError, receiver_of
from store import audit, auditevents
from store.models_audit import AuditRecord
from store.models_base import now

ANCHOR = "audit-anchor.json"
_BATCHES = 20


class Auditing:
    """What the clock calls; one a service."""

    def __init__(self, context: Context) -> None:
        """Raises SyslogError where the setting ``audit.syslog`` makes no sense."""
        self._context = context
        receiver = receiver_in(context.settings)
        self._sender = Sender(receiver) if receiver is not None else None
        self._anchored = audit.read_anchor(anchor_of(context.settings))
        self._doubted = False
        self._away = False

    def tick(self) -> None:
        """Tell of what has happened since; called every second or so."""
        for _ in range(_BATCHES):
            if not auditevents.tick(self._context.db, self._context.audit):
                break
        self._anchor()

    def _anchor(self) -> None:
        """Keep the chain's end outside the database; an anchor that the chain does not fit to stays, as a proof."""
        with self._context.db.read() as session:
            last = audit.last_of(session)
            if last == self._anchored:
                return
            fits = self._anchored is None or audit.has(session, self._anchored)
        if fits and last is not None:
            audit.write_anchor(anchor_of(self._context.settings), last)
            self._anchored, self._doubted = last, False
        elif not self._doubted:
            self._doubted = True
            logger("service.audit").error("the audit trail does not fit its anchor: records were removed or replaced")

    def send(self) -> None:
        """Send what waits to the receiver; while it is away, the table is the spool."""
        if self._sender is None:
            return
        for _ in range(_BATCHES):
            with self._context.db.read() as session:
                records = list(audit.unsent(session, self._context.spool.node[:64]))
            if not records and not self._sender.has_doubts:
                return
            try:
                self._sender.send(records)
            except SyslogError as error:
                if not self._away:
                    logger("service.audit").warning("the receiver of audit messages is away", reason=str(error))
                self._away = True
                return
            if self._away:
                logger("service.audit").info("the receiver of audit messages is there again")
                self._away = False
            if not records:
                return
            with self._context.db.begin() as session:
                numbers = [record.number for record in records]
                session.execute(update(AuditRecord).where(AuditRecord.number.in_(numbers)).values(sent_at=now()))

    def close(self) -> None:
        """Tell the last, and hang up."""
        self.tick()
        self.send()
        if self._sender is not None:
            self._sender.close()


def receiver_in(settings: Settings) -> Receiver | None:
    """Where the settings want audit messages sent; None: nowhere. Raises SyslogError."""
    wanted = settings.audit
    if not wanted.syslog:
        return None
    return receiver_of(
        wanted.syslog,
        ca=settings.in_data(wanted.ca),
        certificate=settings.in_data(wanted.certificate),
        key=settings.in_data(wanted.key),
        check_host=wanted.check_host,
    )


def anchor_of(settings: Settings) -> Path:
    """The file with number and digest of the last audit record that this node has seen."""
    return settings.data / ANCHOR
