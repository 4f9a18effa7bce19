"""What was conformed here for a disc comes in again: known, not in conflict; it serves where the received is away."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, update

from media import uids
from media.part10 import file_meta
from store import auditevents, owncopies
from store.db import Database
from store.instances import Outcome, Provenance, Registrar, ingest_file
from store.models import Derived, Instance
from store.models_base import now
from store.models_nodes import Event
from store.query_facts import facts_of
from store.spool import Spool
from tests.makers import Made, make

FROM = Provenance("PACS", "BURNISH", "192.0.2.7")
RECEIVED, CONFORMED = make("CT"), make("CT", SeriesDescription="as it was conformed")
ALSO = make("CT", SeriesDescription="something else")


class Place:
    """A spool with an instance of which a file was made for a disc, and has left the cache."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.db, self.folder = database, folder
        self.derived = folder / "derived"
        self.registrar = Registrar(
            database, Spool(folder / "spool", node="n"), derived_dir=self.derived, same_content=lambda _a, _b: False
        )
        assert self.ingest(RECEIVED).kind == "stored"
        self.file = file_meta(CONFORMED.sop_class_uid, CONFORMED.sop_instance_uid, CONFORMED.transfer_syntax_uid)
        self.file += CONFORMED.encoded
        with database.begin() as session:
            session.add(
                Derived(
                    source_digest=hashlib.sha256(RECEIVED.encoded).hexdigest(),
                    sop_instance_uid=RECEIVED.sop_instance_uid,
                    recipe="le",
                    path="aa/was.dcm",
                    size=len(self.file),
                    sha256=hashlib.sha256(self.file).hexdigest(),
                    transfer_syntax_uid=CONFORMED.transfer_syntax_uid,
                    changes=[],
                    created_at=now(),
                    purged_at=now(),
                )
            )

    def ingest(self, made: Made) -> Outcome:
        path = made.write(self.folder / "in.dcm")
        return ingest_file(self.registrar, path, provenance=FROM)

    def change(self, model: Any, **values: Any) -> None:
        with self.db.begin() as session:
            session.execute(update(model).values(**values))

    def rows(self, model: Any) -> list[Any]:
        with self.db.read() as session:
            return list(session.scalars(select(model).order_by(model.id)))

    def files(self) -> int:
        return sum(path.is_file() for folder in (self.derived, self.folder / "spool") for path in folder.rglob("*"))


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Place:
    return Place(database, tmp_path)


def test_while_the_received_is_in_the_spool_it_is_a_duplicate(place: Place) -> None:
    outcome = place.ingest(CONFORMED)
    assert (outcome.kind, outcome.instance_id, outcome.conformed) == ("duplicate", 1, True)
    assert place.files() == 1 and len(place.rows(Instance)) == 1
    assert [one.kind for one in place.rows(Event)] == ["received"]
    assert place.ingest(ALSO).kind == "conflict"  # other content is what it was


def test_it_serves_where_the_received_has_left_the_spool(place: Place) -> None:
    received = place.rows(Instance)[0].spool_path
    place.registrar.spool.remove(received)
    place.change(Instance, spool_path=None)
    for _ in range(2):  # the second finds it there
        outcome = place.ingest(CONFORMED)
        assert (outcome.kind, outcome.instance_id, outcome.conformed) == ("duplicate", 1, True)
        (row,) = place.rows(Derived)
        assert row.restored_at is not None and (place.derived / row.path).read_bytes() == place.file
        assert place.files() == 1 and len(place.rows(Instance)) == 1
    (told,) = [one for one in place.rows(Event) if one.kind == "restored"]
    assert (told.instance_id, told.detail) == (1, {"derived": 1, "calling_ae": "PACS", "source": "192.0.2.7"})
    with place.db.read() as session:
        shown = session.execute(
            select(Instance.id.label("row_id"), Instance.spool_path.label("row_path"), Instance.id.label("any_disc"))
        )
        assert facts_of(session, "IMAGE", list(shown), ())[1].availability == "ONLINE"
    with place.db.read() as session:  # what comes in is told, whatever becomes of it
        assert len(auditevents._messages(session, [told])) == 1
    # It is purged once more, its file first of all: what comes then is put there again.
    (place.derived / row.path).unlink()
    place.change(Derived, restored_at=None, purged_at=now())
    assert place.ingest(CONFORMED).conformed and place.files() == 1


@pytest.mark.parametrize(
    "what",
    [
        {"recipe": "lossy"},
        {"facts": {"patient_id": "SOMEBODY"}},
        {"new_sop_instance_uid": "1.2.3.4"},
        {"sha256": "0" * 64},
    ],
)
def test_what_stands_for_itself_alone_is_in_conflict(place: Place, what: dict[str, Any]) -> None:
    if "recipe" in what:
        from media.encoders import lossy_encoders

        encoder = next(iter(lossy_encoders()))
        what = {"recipe": f"{encoder.name}-{encoder.letter}10"}
    place.change(Derived, **what)
    outcome = place.ingest(CONFORMED)
    assert (outcome.kind, outcome.conformed, outcome.instance_id) == ("conflict", False, 2)
    assert place.files() == 2


def test_who_knows_no_place_for_it_keeps_it_as_another(place: Place) -> None:
    place.change(Instance, spool_path=None)
    place.registrar._derived_dir = None
    assert place.ingest(CONFORMED).kind == "conflict"


def test_a_purge_at_the_same_moment_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    recognised = owncopies.recognise

    def purged_since(*arguments: Any) -> Any:
        found = recognised(*arguments)
        monkeypatch.setattr(owncopies, "recognise", recognised)
        place.registrar.spool.remove(found.spool_path)
        place.change(Instance, spool_path=None)
        return found

    monkeypatch.setattr(owncopies, "recognise", purged_since)
    assert place.ingest(CONFORMED).conformed
    assert place.rows(Derived)[0].restored_at is not None and place.files() == 1


def test_only_what_would_be_in_conflict_is_looked_for(place: Place) -> None:
    asked: list[str] = []
    engine = place.db.engine
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: asked.append(statement))
    place.ingest(make("MR"))
    place.ingest(RECEIVED)
    assert not [one for one in asked if "derived" in one]
    place.ingest(CONFORMED)
    assert len([one for one in asked if "FROM instance JOIN derived" in one]) == 1


def test_what_an_earlier_version_wrote_is_known(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (CONFORMED.sop_class_uid, CONFORMED.sop_instance_uid, CONFORMED.transfer_syntax_uid)
    place.file = file_meta(*names, "BURNISH_0") + CONFORMED.encoded
    place.change(Derived, size=len(place.file), sha256=hashlib.sha256(place.file).hexdigest())
    monkeypatch.setattr(uids, "EARLIER_VERSION_NAMES", ("BURNISH_A", "BURNISH_0"))
    place.registrar.spool.remove(place.rows(Instance)[0].spool_path)
    place.change(Instance, spool_path=None)
    for _ in range(2):
        outcome = place.ingest(CONFORMED)
        assert (outcome.kind, outcome.instance_id, outcome.conformed) == ("duplicate", 1, True)
        (row,) = place.rows(Derived)
        assert (place.derived / row.path).read_bytes() == place.file, "byte by byte as the catalogue has it"
        assert place.files() == 1
