"""The audit trail: messages of PS3.15 A.5.1, a chain that shows what was altered, Events that become messages once."""

from __future__ import annotations

import base64
import io
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from store import audit, auditevents, auditwhat, jobs, pools, requested
from store.audit import Trail
from store.auditmessage import Message, Participant, Thing, codes, media_key
from store.auditwhat import Who
from store.db import Database
from store.instances import Provenance, Registrar, ingest_stream
from store.models import Instance
from store.models_base import now
from store.models_nodes import Event
from store.spool import Spool
from tests.makers import study
from tests.soak import size

SCHEMA = etree.RelaxNG(file=str(Path(__file__).parents[1] / "data/audit-message.rng"))
TRAIL = Trail("node-1", "Clinic")


def valid(xml: str) -> etree._Element:
    document = etree.fromstring(xml)
    assert SCHEMA.validate(document), SCHEMA.error_log
    return document


def fill(database: Database, count: int) -> None:
    with database.begin() as session:
        for number in range(count):
            TRAIL.record(session, auditwhat.authentication("login", Who(f"user {number}", "10.0.0.1")))


EVERY = [
    auditwhat.application("start"),
    auditwhat.application("stop", "systemd"),
    auditwhat.authentication("login", Who("müller", "10.0.0.9")),
    auditwhat.authentication("login", Who("?", "client.example"), problem="wrong password"),
    auditwhat.authentication("logout", Who("müller")),
    auditwhat.alert("roles", Who("admin"), "viewer became operator", about="müller"),
    auditwhat.alert("network", Who("admin"), "node PACS entered", about="PACS"),
    auditwhat.configured(Who("admin"), "pool", "radiology", 'changed: {"keep_days": 30}'),
    auditwhat.configured(Who("admin"), "schedule", "nightly", "removed"),
    auditwhat.configured(Who("admin"), "rules", "0" * 64, "1 rules are kept"),
    auditwhat.kept(Who("arc"), Thing("disc", "disc/D7", "D7"), "check-out: none -> Dr Who"),
    auditwhat.kept(Who("arc"), Thing("study", "1.2.3"), "hold H1 held; reason: a trial"),
    auditwhat.log_used(Who("admin")),
    auditwhat.query(Who("FINDSCU", "::1"), "1.2.840.10008.5.1.4.1.2.2.1", b"\x08\x00\x52\x00<&>\x00"),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda one: f"{one.event}-{one.kind}")
def test_every_message_is_of_the_schema(message: Message) -> None:
    document = valid(message.xml(at=now(), node="node-1", site="Clinic"))
    assert document.find("EventIdentification/EventID").get("csd-code") == codes()["events"][message.event][0]
    assert document.find("AuditSourceIdentification").get("AuditSourceID") == "node-1"


@given(st.text(max_size=40), st.text(max_size=40), st.binary(max_size=20))
@settings(max_examples=size(60, 1200))
def test_no_text_breaks_a_message(one: str, other: str, query: bytes) -> None:
    things = (
        Thing("patient", one, other),
        Thing("study", other, accessions=(one,), sop_classes=((other, 3),), encrypted=False),
        Thing("query", one, query=query, details=((one, other),)),
    )
    people = (Participant(one, "source", True, name=other, address=one), Participant(other, media="DVD"))
    message = Message("export", "R", people, things, problem=one)
    document = valid(message.xml(at=now(), node=one or "n", site=other))
    assert len(document.findall("ParticipantObjectIdentification")) == 3


def test_a_medium_has_its_code() -> None:
    assert [media_key(one) for one in ("CD-R-80", "DVD+R-DL", "BD-25", "USB", "MOD-2.3GB")] == [
        "CD",
        "DVD",
        "BD",
        "USB",
        "OTHER",
    ]


def test_a_chain_that_nobody_touched_holds(database: Database) -> None:
    fill(database, 5)
    with database.read() as session:
        found = audit.verify(session, audit.last_of(session))
    assert (found["ok"], found["records"], found["problems"]) == (True, 5, [])


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE audit_record SET message = replace(message, 'user 2', 'user X') WHERE number = 3", "3 .* was altered"),
        ("UPDATE audit_record SET outcome = 8 WHERE number = 1", "1 .* was altered"),
        ("UPDATE audit_record SET \"user\" = '' WHERE number = 5", "5 .* was altered"),
        ("DELETE FROM audit_record WHERE number = 2", "record 2 was removed"),
        ("DELETE FROM audit_record WHERE number IN (2, 3)", "record 2 to 3 was removed"),
        ("DELETE FROM audit_record WHERE number > 3", "record 5 is not there any more"),
        ("DELETE FROM audit_record", "record 5 is not there any more"),
    ],
)
def test_what_was_altered_or_removed_is_found(database: Database, statement: str, told: str) -> None:
    fill(database, 5)
    with database.read() as session:
        anchor = audit.last_of(session)
    with pytest.raises(DBAPIError, match="never changed or removed"), database.begin() as session:
        session.execute(text(statement))
    unguard(database)
    with database.begin() as session:
        session.execute(text(statement))
    with database.read() as session:
        found = audit.verify(session, anchor)
    assert not found["ok"]
    assert any(re.search(told, problem) for problem in found["problems"]), found["problems"]


def unguard(database: Database) -> None:
    """As one with all rights over the database could do."""
    names = ("changed", "removed") if database.is_sqlite else ("changed", "delete", "truncate")
    with database.begin() as session:
        for name in names:
            on = "" if database.is_sqlite else " ON audit_record"
            session.execute(text(f"DROP TRIGGER audit_record_{name}{on}"))


def test_a_chain_that_was_written_anew_is_found_by_its_anchor(database: Database) -> None:
    fill(database, 3)
    with database.read() as session:
        anchor = audit.last_of(session)
    unguard(database)
    with database.begin() as session:
        session.execute(text("DELETE FROM audit_record"))
    fill(database, 3)
    with database.read() as session:
        assert audit.verify(session)["ok"]
        assert "another than it was" in audit.verify(session, anchor)["problems"][0]


def test_an_anchor_is_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "anchor"
    assert audit.read_anchor(path) is None
    audit.write_anchor(path, (7, "ab"))
    assert audit.read_anchor(path) == (7, "ab")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{}")
    assert audit.read_anchor(path) is None


def test_what_came_is_told_once_by_peer_and_study(database: Database, instances: list[Instance]) -> None:
    while auditevents.tick(database, TRAIL):
        pass
    with database.read() as session:
        told = [valid(row.message) for row in audit.records(session, limit=50, newest_first=False)]
        assert audit.verify(session)["ok"]
    transferred = [one for one in told if one.find("EventIdentification/EventID").get("csd-code") == "110104"]
    assert [one.find("ActiveParticipant").get("UserID") for one in transferred] == ["CT1"]
    counts = [int(one.get("NumberOfInstances")) for one in transferred[0].iter("SOPClass")]
    assert sum(counts) == len(instances)
    assert auditevents.tick(database, TRAIL) == 0
    with database.read() as session:
        assert len(audit.records(session)) == len(told)


@pytest.fixture
def instances(database: Database, tmp_path: Path) -> list[Instance]:
    """Three instances, received from the AE title CT1."""
    spool = Spool(tmp_path / "spool", node="n", high_water_percent=99.9, max_bytes=0)
    registrar = Registrar(database, spool)
    for one in study("CT", 3, seed=1):
        ingest_stream(registrar, io.BytesIO(one.part10()), provenance=Provenance("CT1", "BURNISH", "10.1.1.1"))
    with database.read() as session:
        return list(session.query(Instance).all())


@pytest.mark.usefixtures("instances")
def test_a_batch_that_fails_is_told_later(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[Message]:
        raise RuntimeError("a crash")

    with monkeypatch.context() as patch:
        patch.setattr(auditevents, "_messages", broken)
        with pytest.raises(RuntimeError):
            auditevents.tick(database, TRAIL)
    with database.read() as session:
        assert audit.records(session) == [] and session.query(Event).filter(~Event.audited).count() > 0
    assert auditevents.tick(database, TRAIL) > 0


@pytest.mark.usefixtures("instances")
def test_of_two_nodes_one_tells(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    read = auditevents._messages

    def overtaken(session: object, events: list[Event]) -> list[Message]:
        found = read(session, events)  # type: ignore[arg-type]
        monkeypatch.setattr(auditevents, "_messages", read)
        assert auditevents.tick(database, Trail("node-2")) == len(events)
        return found

    monkeypatch.setattr(auditevents, "_messages", overtaken)
    assert auditevents.tick(database, TRAIL) == 0
    with database.read() as session:
        assert {row.node for row in audit.records(session)} == {"node-2"}


def test_a_chain_that_many_write_at_once_holds(database: Database) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: fill(database, 5), range(6)))
    with database.read() as session:
        found = audit.verify(session)
    assert (found["ok"], found["records"]) == (True, 30)


def test_orders_and_changes_of_what_is_kept_are_told(database: Database, instances: list[Instance]) -> None:
    with database.begin() as session:
        options: dict[str, Any] = {"purpose": "handout"}
        request = requested.add_request(
            session, [instances[0].id], selection={}, options=options, source="user:maria", idempotency_key=None
        )
        job = jobs.create_job(session, request, None, Order())
        pools.note(session, "radiology", "changed", by="arc", keep_days=30)
        pools.note(session, "radiology", "filled", by="clock")
        for kind, new, detail in (
            ("hold", "HELD", {"hold": "H1", "study_instance_uid": "1.2.3", "by": "arc", "reason": "a trial"}),
            ("mark", "LOST", {"by": "arc", "reason": "", "old": None, "new": "LOST"}),
        ):
            session.add(Event(at=now(), kind=kind, new=new, disc_id=7 if kind == "mark" else None, detail=detail))
        session.add(Event(at=now(), kind="disc", disc_id=7, old=None, new="VERIFIED", detail={"how": "rebuild"}))
    while auditevents.tick(database, TRAIL):
        pass
    with database.read() as session:
        told = [valid(row.message) for row in audit.records(session, limit=50, newest_first=False)]
    found = []
    for one in told:
        event, kind = one.find("EventIdentification/EventID"), one.find("EventIdentification/EventTypeCode")
        details = [base64.b64decode(each.get("value")).decode() for each in one.iter("ParticipantObjectDetail")]
        if details:
            who = one.find("ActiveParticipant").get("UserID")
            thing = one.find("ParticipantObjectIdentification").get("ParticipantObjectID")
            found.append((event.get("csd-code"), kind is not None and kind.get("csd-code"), who, thing, *details))
    study_uid = next(iter(study("CT", 3, seed=1))).study_instance_uid
    assert found == [
        ("110103", False, "user:maria", study_uid, f"job J{job}: 2 copies by burner iso"),
        ("110113", "110131", "arc", "pool/radiology", 'changed: {"keep_days": 30}'),
        ("110113", "110135", "arc", "1.2.3", "hold H1 held; reason: a trial"),
        ("110113", "110135", "arc", "disc/D7", "mark: none -> LOST"),
    ]


@dataclass
class Order:
    burner: str = "iso"
    copies: int = 2
    priority: str = "med"
    skip_refused: bool = False
