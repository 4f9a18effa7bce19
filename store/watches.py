"""What watched folders and drives have brought: each disc once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, func, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.bulk import chunks
from store.db import Database
from store.models import Instance
from store.models_archive import WatchSeen
from store.models_base import now
from store.models_nodes import Event, Node
from store.nodes import lease_held_by

_CLAIM = "claim"
"""In a result: which node is dealing with it now, in which life of that."""


def seen(session: Session, watch: str, identity: str) -> WatchSeen | None:
    """What is kept of a disc at a watched place; None: it was not here before."""
    return session.scalars(_one(watch, identity)).first()


@dataclass(frozen=True, slots=True)
class Claimed:
    """What came of the attempt to have a disc to oneself."""

    number: int
    result: dict[str, Any]
    """What is kept of it; empty: it was not here before."""
    path: str = ""
    """Where it lay then."""
    by: str = ""
    """The living node that is dealing with it; empty: it is ours."""


def claim(db: Database, watch: str, identity: str, path: str, node: str) -> Claimed:
    """Have a disc at a watched place dealt with by this node alone, until ``keep`` or ``release``.

    Of several nodes that look at one folder one gets it. The claim of a node that lives no more is none.
    """
    for attempt in (1, 2):
        try:
            with db.begin() as session:
                row = session.scalars(_one(watch, identity).with_for_update()).first()
                if row is None:
                    row = WatchSeen(watch=watch, identity=identity, path=path, at=now(), result={})
                    session.add(row)
                kept = {key: value for key, value in row.result.items() if key != _CLAIM}
                if (by := _holder(session, row.result.get(_CLAIM), node)) is not None:
                    return Claimed(row.id, kept, row.path, by)
                epoch = session.scalar(select(Node.epoch).where(Node.name == node)) or 0
                row.result = {"complete": False, **kept, _CLAIM: {"node": node, "epoch": epoch}}
                session.flush()
                return Claimed(row.id, {} if set(kept) <= {"complete"} else kept, row.path)
        except IntegrityError:  # another node enters the same at the same moment
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


def _holder(session: Session, claim: Any, node: str) -> str | None:
    """The other node that has a claim and lives."""
    if not claim or claim["node"] == node:
        return None
    lives = session.scalar(select(lease_held_by(session, literal(claim["node"]), literal(claim["epoch"]))))
    return str(claim["node"]) if lives else None


def release(db: Database, watch: str, identity: str, node: str) -> None:
    """Give up a claim without a result."""
    with db.begin() as session:
        row = session.scalars(_one(watch, identity).with_for_update()).first()
        if row is None or (row.result.get(_CLAIM) or {}).get("node") != node:
            return
        kept = {key: value for key, value in row.result.items() if key != _CLAIM}
        if set(kept) <= {"complete"}:
            session.delete(row)
        else:
            row.result = kept


def _one(watch: str, identity: str) -> Select[WatchSeen]:
    return select(WatchSeen).where(WatchSeen.watch == watch, WatchSeen.identity == identity)


def at_path(session: Session, watch: str, path: str) -> WatchSeen | None:
    """What was last dealt with at a path; None: nothing."""
    query = select(WatchSeen).where(WatchSeen.watch == watch, WatchSeen.path == path)
    return session.scalars(query.order_by(WatchSeen.at.desc(), WatchSeen.id.desc())).first()


def at_paths(session: Session, watch: str, paths: Collection[str]) -> dict[str, dict[str, Any]]:
    """By path, the results of what was last dealt with there."""
    found: dict[str, dict[str, Any]] = {}
    wanted = sorted(set(paths))
    for chunk in chunks(wanted):
        rows = session.execute(
            select(WatchSeen.path, WatchSeen.result)
            .where(WatchSeen.watch == watch, WatchSeen.path.in_(chunk))
            .order_by(WatchSeen.at, WatchSeen.id)
        )
        found.update((row.path, row.result) for row in rows)
    return found


def keep(db: Database, watch: str, identity: str, path: str, result: dict[str, Any]) -> int:
    """Keep what came of a disc, in place of what was kept of it before and of any claim, with an Event; returns the
    row's number."""
    result = {key: value for key, value in result.items() if key != _CLAIM}
    for attempt in (1, 2):
        try:
            with db.begin() as session:
                row = seen(session, watch, identity)
                if row is None:
                    row = WatchSeen(watch=watch, identity=identity, path=path, at=now(), result=result)
                    session.add(row)
                else:
                    row.path, row.at, row.result = path, now(), result
                session.flush()
                detail = {"watch": watch, "seen": row.id, "complete": bool(result.get("complete"))}
                detail |= {key: result[key] for key in ("file_set_id", "imported", "error") if result.get(key)}
                session.add(Event(at=now(), kind="watch", new="seen", detail=detail))
                return row.id
        except IntegrityError:  # another node keeps the same at the same moment
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


def unsent(session: Session, watch: str) -> list[WatchSeen]:
    """What still has to be sent on, the oldest first."""
    rows = session.scalars(select(WatchSeen).where(WatchSeen.watch == watch).order_by(WatchSeen.at, WatchSeen.id))
    return [row for row in rows if row.result.get("unsent")]


def uids_of(session: Session, numbers: Sequence[int]) -> Iterator[tuple[int, str]]:
    """SOP Instance UIDs of instances, by their numbers."""
    for chunk in chunks(numbers):
        query = select(Instance.id, Instance.sop_instance_uid).where(Instance.id.in_(chunk))
        for row in session.execute(query):
            yield row[0], row[1]


def by_number(session: Session, number: int) -> WatchSeen | None:
    return session.get(WatchSeen, number)


def listed(session: Session, watch: str, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """What a watched place brought, the newest first."""
    query = select(WatchSeen).where(WatchSeen.watch == watch)
    if before is not None:
        query = query.where(WatchSeen.id < before)
    return [
        {"seen": row.id, "at": row.at.isoformat(), "path": row.path, "result": shown(row.result)}
        for row in session.scalars(query.order_by(WatchSeen.id.desc()).limit(limit))
    ]


def shown(result: dict[str, Any]) -> dict[str, Any]:
    """A result as people see it."""
    document = {key: value for key, value in result.items() if key not in ("signature", "unsent", "tries", _CLAIM)}
    if claim := result.get(_CLAIM):
        document["busy"] = claim["node"]
    return document | {"to_send": len(result.get("unsent") or ())}


def counts(session: Session, watches: Iterable[str]) -> dict[str, int]:
    """How many discs each has brought."""
    rows = session.execute(
        select(WatchSeen.watch, func.count()).where(WatchSeen.watch.in_(list(watches))).group_by(WatchSeen.watch)
    )
    return {row[0]: row[1] for row in rows}


def forget(session: Session, watch: str, number: int) -> bool:
    """Have a disc dealt with again when it is next seen; False: there is no such row."""
    rows = session.execute(
        delete(WatchSeen).where(WatchSeen.watch == watch, WatchSeen.id == number).returning(WatchSeen.id)
    )
    return rows.first() is not None
