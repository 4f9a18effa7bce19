"""Instances corrected on their way in: what changes is recorded, UIDs and references stay, and nobody becomes two."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from sqlalchemy import select

from media.coercion import RulesError
from media.problems import InstanceRefused
from store.db import Database
from store.instances import Outcome, Provenance, Registrar, ingest_file
from store.models import Instance, Patient
from store.models_nodes import Event
from store.reconcile import Reconciler, changes_of, keep_rules, kept_rules
from store.spool import Spool
from tests.makers import Made, make
from tests.makers import Patient as Person

OURS = Person("H-1", "Doe^Jane", "19610203", "F")
THEIRS = Person("4711", "DOE^JANE^A", "19610203", "F")
RULE = {
    "name": "jane",
    "when": {"PatientID": "4711"},
    "set": {"PatientID": "H-1"},
    "from_catalogue": ["PatientName", "PatientBirthDate", "PatientSex"],
}
FROM = Provenance("", "", "import")


class Door:
    """A store whose import corrects by one rule set."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db, self.folder = db, folder
        self.spool = Spool(folder / "spool", node="n")
        self.registrar = Registrar(db, self.spool)

    def take(self, made: Made, *rules: dict[str, Any]) -> Outcome:
        path = made.write(self.folder / "in" / "one.dcm")
        reconciler = Reconciler(self.db, list(rules), keep_rules(self.folder, list(rules))) if rules else None
        return ingest_file(self.registrar, path, provenance=FROM, reconciler=reconciler)

    def file(self, outcome: Outcome) -> Any:
        with self.db.read() as session:
            path = session.get_one(Instance, outcome.instance_id).spool_path
        assert path
        return dcmread(self.spool.path_of(path))


@pytest.fixture
def quick(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """On SQLite only."""
    shutil.copyfile(sqlite_template, tmp_path / "burnish.db")
    made = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    yield made
    made.close()


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Door:
    return Door(database, tmp_path)


def test_what_a_rule_changes_is_in_the_file_in_the_tables_and_in_an_event(door: Door) -> None:
    rule = {"name": "number", "when": {"PatientID": "4711"}, "set": {"PatientID": "H-1"}}
    made = make("CT", patient=THEIRS)
    outcome = door.take(made, rule)
    assert outcome.kind == "stored"
    assert [(one.tag, one.old) for one in outcome.changes] == [("(0010,0020)", "4711")]
    assert "H-1" in outcome.changes[0].new
    ds = door.file(outcome)
    assert (ds.PatientID, str(ds.PatientName)) == ("H-1", "DOE^JANE^A")
    for uid in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert ds[uid].value == made.dataset[uid].value, "references go on to hold"
    assert ds.PixelData == made.dataset.PixelData
    with door.db.read() as session:
        ((_, told),) = changes_of(session, made.study_instance_uid)
        (event,) = session.scalars(select(Event).where(Event.kind == "reconcile"))
        assert event.instance_id == outcome.instance_id
        assert session.scalars(select(Patient.patient_id)).all() == ["H-1"]
    assert told["sop_instance_uid"] == made.sop_instance_uid
    assert told["changes"][0]["old"] == "4711"
    assert kept_rules(door.folder, told["rules"]) == [rule]


def test_the_same_again_is_a_duplicate_and_recorded_once(door: Door) -> None:
    rule = {"name": "number", "set": {"PatientID": "H-1"}}
    first, second = (door.take(make("CT", patient=THEIRS), rule) for _ in range(2))
    assert (first.kind, second.kind) == ("stored", "duplicate")
    assert first.instance_id == second.instance_id
    with door.db.read() as session:
        assert len(list(session.scalars(select(Event).where(Event.kind == "reconcile")))) == 1


def test_what_no_rule_touches_comes_in_byte_for_byte(door: Door) -> None:
    made = make("CT", patient=OURS)
    outcome = door.take(made, RULE)
    assert (outcome.kind, outcome.changes) == ("stored", ())
    with door.db.read() as session:
        path = session.get_one(Instance, outcome.instance_id).spool_path
    assert path
    assert door.spool.path_of(path).read_bytes().endswith(made.encoded)


def test_the_corrected_beside_the_uncorrected_is_a_conflict_that_is_shown(door: Door) -> None:
    door.take(make("CT", patient=THEIRS))
    outcome = door.take(make("CT", patient=THEIRS), {"name": "number", "set": {"PatientID": "H-1"}})
    assert outcome.kind == "conflict"


def test_the_person_of_the_catalogue_stays_one(door: Door) -> None:
    door.take(make("CT", patient=OURS))
    for number in (1, 2):
        outcome = door.take(make("MR", patient=THEIRS, number=number), RULE)
        assert outcome.kind == "stored"
        assert str(door.file(outcome).PatientName) == "Doe^Jane"
    with door.db.read() as session:
        assert session.scalars(select(Patient.patient_id)).all() == ["H-1"]


@pytest.mark.parametrize(
    ("held", "rule", "reason"),
    [
        ([], RULE, "knows nobody under 'H-1'"),
        ([OURS, Person("H-1", "Roe^Rick", "19500101", "M")], RULE, "knows 2 people under 'H-1'"),
        ([OURS], RULE | {"from_catalogue": ["PatientSex"]}, "its PatientName is not that of the catalogue"),
        ([Person("H-1", "Doe^Jane", "")], RULE, "its PatientBirthDate is not that of the catalogue"),
    ],
)
def test_nobody_is_made_two_people_nor_two_people_one(
    door: Door, held: list[Person], rule: dict[str, Any], reason: str
) -> None:
    for number, person in enumerate(held):
        door.take(make("CT", patient=person, number=number))
    with door.db.read() as session:
        before = len(list(session.scalars(select(Instance.id))))
    with pytest.raises(InstanceRefused, match=reason):
        door.take(make("MR", patient=THEIRS), rule)
    with door.db.read() as session:
        assert len(list(session.scalars(select(Instance.id)))) == before
    assert not list((door.folder / "spool/incoming").rglob("scratch-*"))


def test_rule_sets_are_kept_by_digest(tmp_path: Path) -> None:
    rule = {"name": "a", "set": {"PatientID": "1"}}
    digest = keep_rules(tmp_path, [rule])
    assert keep_rules(tmp_path, [dict(reversed(rule.items()))]) == digest
    for wrong in ("../../etc/passwd", "0" * 64, digest[:-1]):
        with pytest.raises(RulesError):
            kept_rules(tmp_path, wrong)
    with pytest.raises(RulesError, match="no rule"):
        keep_rules(tmp_path, [])


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        ("explicit", "none"),
        ("implicit", "defined"),
        ("big", "undefined"),
        ("deflated", "defined"),
        ("implicit", "none"),
    ],
)
def test_what_the_values_were_is_kept_in_the_instance(quick: Database, tmp_path: Path, kind: str, before: str) -> None:
    door = Door(quick, tmp_path)
    made = make("CT", patient=THEIRS)
    ds = made.dataset
    if before != "none":
        old = Dataset()
        old.ModifiedAttributesSequence = [Dataset()]
        old.ModifiedAttributesSequence[0].PatientID = "0"
        old.AttributeModificationDateTime = "20200101"
        old.ModifyingSystem = old.SourceOfPreviousValues = "ELSEWHERE"
        old.ReasonForTheAttributeModification = "COERCE"
        ds.OriginalAttributesSequence = [old]
        ds["OriginalAttributesSequence"].is_undefined_length = before == "undefined"
    ds.InstitutionName = "Elsewhere"
    path = door.folder / "in.dcm"
    syntax = {
        "explicit": ExplicitVRLittleEndian,
        "implicit": ImplicitVRLittleEndian,
        "big": ExplicitVRBigEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
    }[kind]
    file = FileDataset(str(path), ds, preamble=bytes(128), file_meta=FileMetaDataset())
    file.file_meta.TransferSyntaxUID = syntax
    little = kind != "big"
    dcmwrite(path, file, force_encoding=True, implicit_vr=kind == "implicit", little_endian=little)
    rule = {"name": "number", "set": {"PatientID": "H-1", "PatientName": "D\u00f6e^Jane", "AccessionNumber": "A1"}}
    digest = keep_rules(door.folder, [rule])

    def take() -> Outcome:
        reconciler = Reconciler(door.db, [rule], digest, system="BURNISH")
        return ingest_file(door.registrar, path, provenance=FROM, reconciler=reconciler)

    outcome = take()
    found = door.file(outcome)
    assert (found.PatientID, str(found.PatientName)) == ("H-1", "D\u00f6e^Jane")
    *others, ours = found.OriginalAttributesSequence
    assert [str(one.ModifyingSystem) for one in others] == ([] if before == "none" else ["ELSEWHERE"])
    (modified,) = ours.ModifiedAttributesSequence
    assert (modified.PatientID, str(modified.PatientName)) == ("4711", "DOE^JANE^A")
    assert (ours.ModifyingSystem, ours.ReasonForTheAttributeModification) == ("BURNISH", "COERCE")
    assert ours.SourceOfPreviousValues == "Elsewhere"
    assert ours.AttributeModificationDateTime.endswith("+0000")
    assert found.PixelData == ds.PixelData
    with door.db.begin() as session:  # as if it had been some time ago
        (event,) = session.scalars(select(Event).where(Event.kind == "reconcile"))
        assert event.detail["original"]["at"] == ours.AttributeModificationDateTime
    assert take().kind == "duplicate"


def test_what_was_reconciled_before_values_were_kept_is_still_the_same(
    quick: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(quick, tmp_path)
    rule = {"name": "number", "set": {"PatientID": "H-1"}}
    with monkeypatch.context() as patch:
        patch.setattr(Reconciler, "original", lambda *_: None)
        assert door.take(make("CT", patient=THEIRS), rule).kind == "stored"
    assert door.take(make("CT", patient=THEIRS), rule).kind == "duplicate"
