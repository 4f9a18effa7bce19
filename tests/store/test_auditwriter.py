from __future__ import annotations

from store import audit, auditwhat
from store.audit import Trail
from store.auditmessage import Message
from store.auditwhat import Who
from store.auditwriter import AuditWriter, Telling
from store.db import Database


def test_what_was_put_is_recorded_at_the_latest_when_the_writer_closes(database: Database) -> None:
    writer = AuditWriter(database, Trail("n"))
    for number in range(450):
        writer.put(lambda _session, number=number: [auditwhat.authentication("login", Who(f"u{number}"))])
    writer.close()
    with database.read() as session:
        assert [row.user for row in audit.records(session, limit=1000, newest_first=False)] == [
            f"u{number}" for number in range(450)
        ]
        assert audit.verify(session)["ok"]


def test_one_that_was_never_used_closes(database: Database) -> None:
    AuditWriter(database, Trail("n")).close()


def test_it_goes_on_after_it_was_closed(database: Database) -> None:
    writer = AuditWriter(database, Trail("n"))
    for name in ("one", "two"):
        writer.put(lambda _session, name=name: [auditwhat.application("start", name)])
        writer.close()
    with database.read() as session:
        assert len(audit.records(session)) == 2


def test_one_that_cannot_be_recorded_takes_no_other_with_it(database: Database) -> None:
    writer = AuditWriter(database, Trail("here"))

    def broken(_session: object) -> list[Message]:
        raise KeyError("gone")

    for telling in (lambda _s: [auditwhat.query(Who("A\udc80B\0C"), "", b"x")], broken, _of("after")):
        writer.put(telling)
    writer.close()
    with database.read() as session:
        assert sorted(row.user for row in audit.records(session)) == ["A\ufffdB\ufffdC", "after"]
        assert audit.verify(session)["ok"]


def _of(name: str) -> Telling:
    return lambda _session: [auditwhat.query(Who(name), "", b"x")]
