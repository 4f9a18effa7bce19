"""The audit trail: messages in a chain, each with a digest that covers the one before it.

Whoever changes or removes a record breaks the chain from there on (``verify``). Who could write the whole chain anew
would still be found by an anchor: number and digest of a record that is kept outside the database, and that the
receiver of the messages has, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from store.auditmessage import Message, clean
from store.models_audit import AuditRecord
from store.models_base import now

FIRST = "0" * 64
"""What the first record has for the digest of the one before it."""

_LOCK = 7236002
_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Trail:
    """Who tells: this node, and the institution of the settings."""

    node: str
    site: str = ""

    def record(self, session: Session, message: Message) -> int:
        """Add a message to the chain in this transaction; returns its number.

        Let it be the last thing that a transaction does: on PostgreSQL all others that record wait for its end.
        """
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        session.flush()
        last = session.execute(
            select(AuditRecord.number, AuditRecord.digest).order_by(AuditRecord.number.desc()).limit(1)
        ).first()
        number, previous = (last[0] + 1, last[1]) if last is not None else (1, FIRST)
        at = now()
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        who = clean(next((one.user_id for one in message.participants if one.requestor), ""))[:255]
        row = AuditRecord(
            number=number,
            at=at,
            event=message.event,
            outcome=message.outcome,
            user=who,
            node=self.node[:64],
            message=message.xml(at=at, node=self.node, site=self.site),
            previous=previous,
            digest="",
            sent_at=None,
        )
        row.digest = digest_of(row)
        session.add(row)
        session.flush()
        return number


def digest_of(row: AuditRecord) -> str:
    """SHA-256 over all that a record says and the digest of the one before it, lower-case hex."""
    parts = [
        row.number,
        row.at.isoformat(timespec="milliseconds"),
        row.event,
        row.outcome,
        row.user,
        row.node,
        row.message,
        row.previous,
    ]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()


def verify(session: Session, anchor: tuple[int, str] | None = None) -> dict[str, Any]:
    """Read the whole chain: ``{"ok", "records", "last": {"number", "digest"} | None, "problems": [...]}``.

    ``anchor``: number and digest of a record that must be there, kept by whoever does not trust the database.
    """
    problems: list[str] = []
    number, digest, count = 0, FIRST, 0
    seen = ""
    rows = session.scalars(select(AuditRecord).order_by(AuditRecord.number).execution_options(yield_per=500))
    for row in rows:
        count += 1
        problems += _faults(row, number, digest)
        number, digest = row.number, row.digest
        if anchor is not None and row.number == anchor[0]:
            seen = row.digest
        session.expunge(row)
        if len(problems) > _PROBLEMS:
            problems.append("and so on; nothing further was read")
            break
    else:
        if anchor is not None and seen != anchor[1]:
            what = "is not there any more" if not seen else "is another than it was"
            problems.append(f"record {anchor[0]} {what}: the anchor outside the database has the digest {anchor[1]}")
    last = {"number": number, "digest": digest} if count else None
    return {"ok": not problems, "records": count, "last": last, "problems": problems}


def _faults(row: AuditRecord, before: int, digest: str) -> Iterator[str]:
    if row.number != before + 1:
        missing = f"{before + 1}" if row.number == before + 2 else f"{before + 1} to {row.number - 1}"
        yield f"record {missing} was removed"
    elif row.previous != digest:
        yield f"record {row.number} does not follow record {before}: one of them was replaced"
    if digest_of(row) != row.digest:
        yield f"record {row.number} ({row.at.isoformat(timespec='seconds')}) was altered"


def last_of(session: Session) -> tuple[int, str] | None:
    """Number and digest of the latest record."""
    row = session.execute(
        select(AuditRecord.number, AuditRecord.digest).order_by(AuditRecord.number.desc()).limit(1)
    ).first()
    return (row[0], row[1]) if row is not None else None


def has(session: Session, anchor: tuple[int, str]) -> bool:
    """Whether the chain still has the record of that number and digest."""
    return session.scalar(select(AuditRecord.digest).where(AuditRecord.number == anchor[0])) == anchor[1]


def read_anchor(path: Path) -> tuple[int, str] | None:
    """Number and digest that ``write_anchor`` kept; None where there is no such file, or none that can be read."""
    try:
        document = json.loads(path.read_text())
        return int(document["number"]), str(document["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_anchor(path: Path, anchor: tuple[int, str]) -> None:
    """Keep number and digest of a record in a file of our own (0600), outside the database."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    content = json.dumps({"number": anchor[0], "digest": anchor[1]}) + "\n"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def records(
    session: Session,
    *,
    after: int = 0,
    before: int | None = None,
    limit: int = 100,
    event: str = "",
    user: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    newest_first: bool = True,
) -> Sequence[AuditRecord]:
    """Some records of the chain, by what they are of and who asked."""
    query = select(AuditRecord).where(AuditRecord.number > after)
    if before is not None:
        query = query.where(AuditRecord.number < before)
    if event:
        query = query.where(AuditRecord.event == event)
    if user:
        query = query.where(AuditRecord.user == user)
    if since is not None:
        query = query.where(AuditRecord.at >= since)
    if until is not None:
        query = query.where(AuditRecord.at < until)
    order = AuditRecord.number.desc() if newest_first else AuditRecord.number
    return session.scalars(query.order_by(order).limit(limit)).all()


def unsent(session: Session, node: str, limit: int = 200) -> Sequence[AuditRecord]:
    """Messages of this node that the receiver has not been given, in their order."""
    return session.scalars(
        select(AuditRecord)
        .where(AuditRecord.sent_at.is_(None), AuditRecord.node == node)
        .order_by(AuditRecord.number)
        .limit(limit)
    ).all()


def waiting(session: Session) -> int:
    """How many messages wait for the receiver."""
    return session.scalar(select(func.count()).where(AuditRecord.sent_at.is_(None))) or 0
