"""What the audit trail has of our Events: what came in, and what went out on discs.

Events are written in the transaction that makes something so; here each becomes audit messages once, in a transaction
of its own, so that nothing is missed or told twice, whatever crashed in between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from store.audit import Trail
from store.auditmessage import Message, Participant, Thing, media_key
from store.auditwhat import OURSELVES, Who, configured, exported, imported, kept, ordered, transferred
from store.bulk import chunks
from store.db import Database
from store.guard import rows_changed
from store.models import Instance
from store.models_archive import Recall, RecallInstance
from store.models_jobs import Disc, Job, Plan, Request, RequestInstance, Volume, VolumeInstance
from store.models_nodes import Event

_BATCH = 200
_UPLOADED_BY = "user:"
"""How the source of what a signed-in user sent us begins."""
_ON_THE_DISC = ("BURNING", "BURNT", "VERIFYING")


_CONFIGURED = {
    "pool": ("added", "changed", "closed", "removed", "put"),
    "schedule": ("added", "changed", "removed"),
}
"""Events by which people change what is archived and how long it is kept; others are what came of it."""
_LONGEST = 2000


def tick(db: Database, trail: Trail) -> int:
    """Tell of some Events that the trail has not; returns how many there were, 0 where there were none.

    What there is to tell is read first, so that nobody waits who writes; another node that was faster wins.
    """
    with db.read() as session:
        events = list(session.scalars(select(Event).where(~Event.audited).order_by(Event.id).limit(_BATCH)))
        if not events:
            return 0
        messages = _messages(session, events)
    ids = [event.id for event in events]
    with db.begin() as session:
        statement = update(Event).where(Event.id.in_(ids), ~Event.audited).values(audited=True)
        if rows_changed(session, statement) != len(ids):
            session.rollback()
            return 0
        for message in messages:
            trail.record(session, message)
    return len(ids)


def _messages(session: Session, events: Sequence[Event]) -> list[Message]:
    found: list[Message] = []
    arrived: list[int] = []
    back: list[tuple[int, str, str]] = []
    for event in events:
        if event.kind == "received":
            arrived += event.detail.get("instances", ())
        elif event.kind == "restored" and event.instance_id is not None:
            back.append((event.instance_id, event.detail["calling_ae"], event.detail["source"]))
        elif event.kind == "disc" and event.disc_id is not None:
            found += _disc(session, event)
        elif event.kind == "recall" and event.new == "read" and event.disc_id is not None:
            found += _read_back(session, event)
        elif event.kind == "job" and event.old is None and event.new == "QUEUED":
            found += _order(session, event)
        elif event.kind in _CONFIGURED and event.new in _CONFIGURED[event.kind]:
            found.append(_configured(event))
        elif event.kind in ("hold", "mark", "shelf"):
            found.append(_kept(event))
    return _received(session, arrived, back) + found


def _received(session: Session, ids: Sequence[int], back: Sequence[tuple[int, str, str]]) -> list[Message]:
    """What came, by whom it came from. ``back``: what was conformed here for a disc, and came in again."""
    by_peer: dict[tuple[str, str], list[int]] = {}
    for instance_id, calling_ae, source in back:
        by_peer.setdefault((calling_ae, source), []).append(instance_id)
    for chunk in chunks(ids):
        rows = session.execute(select(Instance.id, Instance.calling_ae, Instance.source).where(Instance.id.in_(chunk)))
        for instance_id, calling_ae, source in rows:
            by_peer.setdefault((calling_ae, source), []).append(instance_id)
    found: list[Message] = []
    for (calling_ae, source), instances in by_peer.items():
        if calling_ae:
            peer = Participant(calling_ae, "source", True, address=source)
            found += transferred(session, instances, peer, Participant(OURSELVES, "destination"))
        elif source.startswith(_UPLOADED_BY):
            who = Who(source.removeprefix(_UPLOADED_BY))
            found += imported(session, instances, who, Participant("upload", "source_media"))
        else:
            found += imported(session, instances, Who(OURSELVES), Participant(source or "import", "source_media"))
    return found


def _order(session: Session, event: Event) -> list[Message]:
    """Somebody, or a rule, wants discs of some instances."""
    row = session.execute(
        select(Job.burner, Job.copies, Request.id, Request.source)
        .join(Request, Request.id == Job.request_id)
        .where(Job.id == event.job_id)
    ).first()
    if row is None:
        return []
    ids = session.scalars(select(RequestInstance.instance_id).where(RequestInstance.request_id == row.id)).all()
    copies = f"{row.copies} {'copy' if row.copies == 1 else 'copies'}"
    return ordered(session, ids, Who(row.source), f"job J{event.job_id}: {copies} by burner {row.burner}")


def _configured(event: Event) -> Message:
    detail = {key: value for key, value in event.detail.items() if key not in ("by", event.kind)}
    words = f"{event.new}: {json.dumps(detail, ensure_ascii=False, sort_keys=True)}" if detail else str(event.new)
    by = str(event.detail.get("by") or OURSELVES)
    return configured(Who(by), event.kind, str(event.detail.get(event.kind)), words[:_LONGEST])


def _kept(event: Event) -> Message:
    detail = event.detail
    if event.kind == "hold":
        thing = Thing("study", str(detail.get("study_instance_uid")))
        words = [f"hold {detail.get('hold')} {str(event.new).lower()}"]
    else:
        thing = Thing("disc", f"disc/D{event.disc_id}", f"D{event.disc_id}")
        old, new = (detail.get(name, getattr(event, name)) for name in ("old", "new"))
        words = [f"{detail.get('action') or event.kind}: {old or 'none'} -> {new or 'none'}"]
    words += [f"reason: {detail['reason']}"] if detail.get("reason") else []
    return kept(Who(str(detail.get("by") or OURSELVES)), thing, "; ".join(words)[:_LONGEST])


def _read_back(session: Session, event: Event) -> list[Message]:
    """What came back from a disc for recalls."""
    row = session.execute(
        select(Disc.volume_id, Volume.file_set_uid, Volume.file_set_id, Plan.medium, Disc.copy)
        .join(Volume, Volume.id == Disc.volume_id)
        .join(Plan, Plan.id == Volume.plan_id)
        .where(Disc.id == event.disc_id)
    ).first()
    if row is None:
        return []
    ids = session.scalars(
        select(RecallInstance.instance_id)
        .join(Recall, Recall.id == RecallInstance.recall_id)
        .where(
            RecallInstance.volume_id == row.volume_id,
            RecallInstance.state == "RESTORED",
            or_(Recall.finished_at.is_(None), Recall.finished_at >= event.at),
        )
        .distinct()
    ).all()
    return imported(session, ids, Who(OURSELVES), _medium(row, "source_media"))


def _medium(row: Any, role: str) -> Participant:
    """The medium of a disc: ``file_set_uid``, ``file_set_id``, ``copy`` and ``medium`` of a row."""
    name = f"{row.file_set_id} copy {row.copy}"
    return Participant(row.file_set_uid, role, alternative=name, media=media_key(row.medium))


def _disc(session: Session, event: Event) -> list[Message]:
    """A disc that was made; or was not, but may bear some of it. One that was entered from itself was made before."""
    problem = ""
    if event.old is None:
        return []
    if event.new != "VERIFIED":
        if event.new not in ("FAILED", "CANCELLED") or event.old not in _ON_THE_DISC:
            return []
        problem = str(event.detail.get("error") or f"the disc ended as {event.new}")[:1000]
    row = session.execute(
        select(Disc.volume_id, Volume.file_set_uid, Volume.file_set_id, Plan.medium, Request.source, Disc.copy)
        .join(Volume, Volume.id == Disc.volume_id)
        .join(Plan, Plan.id == Volume.plan_id)
        .join(Job, Job.id == Disc.job_id)
        .join(Request, Request.id == Job.request_id)
        .where(Disc.id == event.disc_id)
    ).first()
    if row is None:
        return []
    ids = session.scalars(
        select(VolumeInstance.instance_id)
        .where(VolumeInstance.volume_id == row.volume_id)
        .order_by(VolumeInstance.position)
    ).all()
    return exported(session, ids, Who(row.source), _medium(row, "destination_media"), problem=problem)
