"""Events are told once each, in whatever order transactions commit."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from sqlalchemy.orm import Session

from store import events, migrate
from store.db import Database
from store.events import BadPlace, Place
from store.models_base import now
from store.models_nodes import Event


def add(session: Session, kind: str = "job", **values: object) -> int:
    event = Event(at=now(), kind=kind, detail={}, **values)
    session.add(event)
    session.flush()
    return event.id


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def told(db: Database, place: Place, clock: Clock) -> list[int]:
    with db.read() as session:
        return [event.id for event, _ in events.news(session, place, clock=clock)]


def test_each_event_is_told_once(database: Database) -> None:
    db = database
    clock = Clock()
    with db.begin() as session:
        add(session)
    with db.read() as session:
        place = events.newest(session, clock=clock)
    assert told(db, place, clock) == []
    with db.begin() as session:
        wanted = [add(session) for _ in range(3)]
    assert told(db, place, clock) == wanted
    assert told(db, place, clock) == []


def test_a_batch_is_a_place_to_go_on_from(database: Database) -> None:
    db = database
    with db.begin() as session:
        wanted = [add(session) for _ in range(5)]
    with db.read() as session:
        first = events.news(session, Place(0), limit=3)
        rest = events.news(session, Place.of(first[1][1]))
    assert [event.id for event, _ in first] == wanted[:3]
    assert [event.id for event, _ in rest] == wanted[2:]


@pytest.mark.postgres
def test_what_commits_late_is_told_late(postgres_url: str) -> None:
    """Number 1 is given before number 2, and seen after it: also by who went on with ``Last-Event-ID`` meanwhile."""
    clock, db = Clock(), Database(postgres_url)
    migrate.upgrade(db)
    with db.read() as session:
        place, other = events.newest(session, clock=clock), events.newest(session, clock=clock)
    with db.begin() as slow:
        late = add(slow)
        with db.begin() as session:
            early = add(session)
        with suppress(ZeroDivisionError), db.begin() as session:
            gone = add(session)
            raise ZeroDivisionError
        with db.begin() as session:
            last = add(session)
        assert told(db, place, clock) == [early, last]
        with db.read() as session:
            newcomer = events.newest(session, clock=clock)
        resumed = Place.of(str(place), clock=clock)
        assert told(db, place, clock) == told(db, newcomer, clock) == []
    assert told(db, place, clock) == told(db, resumed, clock) == told(db, newcomer, clock) == [late]
    assert told(db, other, clock) == [late, early, last]
    assert gone in place.gaps
    clock.now = events.PATIENCE + 1
    assert told(db, place, clock) == [] and not place.gaps
    db.close()


def test_gaps_are_bounded(database: Database) -> None:
    db = database
    with db.begin() as session:
        session.add(Event(id=50_000, at=now(), kind="job", detail={}))
    place = Place(0)
    assert told(db, place, Clock()) == [50_000]
    assert 0 < len(place.gaps) <= 500


@pytest.mark.parametrize("text", ["", "x", "-1", "1.x", "1..2", "9" * 30, ".".join(["1"] * 2000)])
def test_places_that_are_none(text: str) -> None:
    with pytest.raises(BadPlace):
        Place.of(text)


def test_pages_of_the_past(database: Database) -> None:
    db = database
    with db.begin() as session:
        wanted = [add(session, kind, job_id=job) for kind, job in (("job", 1), ("disc", 1), ("job", 2))]
    with db.read() as session:
        assert [event.id for event in events.page(session)] == wanted[::-1]
        assert [event.id for event in events.page(session, kinds=["job"], job_id=1)] == wanted[:1]
        assert [event.id for event in events.page(session, before=wanted[2], limit=1)] == [wanted[1]]
        assert events.page(session, disc_id=7) == []
        assert events.event_document(events.page(session, job_id=2)[0])["job"] == "J2"


def test_without_words_nothing_tells_of_a_patient() -> None:
    secret = "Doe^Jane"
    said = {
        "job": {"reason": "PROC_FAILURE", "error": f"rule r: Patient's Name {secret}", "node": "n1"},
        "recall": {
            "recall": "C1",
            "words": f"the disc of {secret}: no recall needs it",
            "place": secret,
            "instances": 3,
        },
        "check": {
            "first": f"P/{secret} cannot be read",
            "how": f"image /in/{secret}.iso",
            "failed": 1,
            "worse": [secret],
        },
        "mark": {"by": "maria", "reason": f"lent to {secret}", "old": secret},
        "hold": {"hold": "H1", "study_instance_uid": "1.2", "by": "maria", "reason": secret},
        "watch": {"watch": "inbox", "seen": 4, "error": secret, "file_set_id": "BURNISH_0000001", "complete": True},
        "rebuild": {"path": f"/in/{secret}", "by": "cli"},
        "delete": {"instances": [1], "uids": [secret], "spool": [secret], "bytes": 9},
        "schedule": {"schedule": "nightly", "by": "maria", "rules": {"patient": secret}},
        "shelf": {"by": "maria", "new": secret},
    }
    for kind, detail in said.items():
        event = Event(id=1, at=now(), kind=kind, old=None, new=secret if kind == "shelf" else "X", detail=detail)
        told = json.dumps(events.event_document(event, words=False))
        assert secret not in told, kind
        assert secret in json.dumps(events.event_document(event))
    event = Event(id=1, at=now(), kind="job", old="PLANNING", new="FAILED", detail=said["job"])
    assert events.event_document(event, words=False)["detail"] == {"reason": "PROC_FAILURE", "node": "n1"}
