"""Registration: once, durable, whatever comes twice, differently, at the same moment or never to its end."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import delete, event, func, select, update
from sqlalchemy.exc import OperationalError

from media.items import Header
from media.problems import NotDicom
from store.db import Database
from store.instances import (
    BadIdentity,
    Provenance,
    Registrar,
    RegistrationFailed,
    ingest_file,
    ingest_stream,
    patient_identity,
    registered_paths,
    sweep,
)
from store.models import Instance, Patient, Series, Study
from store.models_nodes import Event
from store.spool import INCOMING, Spool, SpoolFull
from tests.makers import IMPLICIT_LE, PATIENTS, Made, make, study
from tests.waiting import wait_for

FROM = Provenance("MODALITY", "BURNISH", "192.0.2.1")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", node="n")


@pytest.fixture
def registrar(database: Database, spool: Spool) -> Registrar:
    return Registrar(database, spool)


def ingest(registrar: Registrar, made: Made, folder: Path) -> Any:
    return ingest_file(registrar, made.write(folder / f"{time.monotonic_ns()}.dcm"), provenance=FROM)


def rows(database: Database, model: Any = Instance) -> list[Any]:
    with database.read() as session:
        return list(session.execute(select(model).order_by(model.id)).scalars())


def spool_files(spool: Spool) -> tuple[int, int]:
    """Files on their way in, files published."""
    paths = [path.relative_to(spool.root).as_posix() for path in spool.root.rglob("*") if path.is_file()]
    incoming = sum(path.startswith(INCOMING) for path in paths)
    return incoming, len(paths) - incoming


def header(number: int, **values: Any) -> Header:
    values = {
        "study_instance_uid": "1.2.1",
        "series_instance_uid": "1.2.1.1",
        "patient_id": "P",
        "patient_name": "A^B",
        **values,
    }
    return Header("1.2.840.10008.5.1.4.1.1.2", f"1.2.1.1.{number}", "1.2.840.10008.1.2.1", **values)


def register(registrar: Registrar, head: Header, data: bytes = b"") -> Any:
    incoming = registrar.spool.incoming()
    incoming.write_meta(b"meta")
    incoming.write(data or head.sop_instance_uid.encode())
    return registrar.register(incoming, head, FROM)


def test_a_row_tells_all_of_it(registrar: Registrar, spool: Spool, tmp_path: Path) -> None:
    made = make("CT", patient=PATIENTS["japanese"])
    outcome = ingest(registrar, made, tmp_path)
    (row,) = rows(registrar.db)
    assert (outcome.kind, outcome.instance_id) == ("stored", row.id)
    assert row.digest == hashlib.sha256(made.encoded).hexdigest()
    assert row.dataset_bytes == len(made.encoded)
    data = spool.path_of(row.spool_path).read_bytes()
    assert data.endswith(made.encoded)
    assert (row.file_sha256, row.file_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (row.calling_ae, row.called_ae, row.source) == ("MODALITY", "BURNISH", "192.0.2.1")
    (patient,), (a_study,), (series,) = (rows(registrar.db, model) for model in (Patient, Study, Series))
    assert patient.patient_name == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert "山田" in patient.name_search
    assert a_study.study_instance_uid == made.study_instance_uid
    assert series.series_instance_uid == made.series_instance_uid
    assert spool_files(spool) == (0, 1)


def test_a_study_has_its_rows_once(registrar: Registrar, tmp_path: Path) -> None:
    for made in study("CT", 4):
        ingest(registrar, made, tmp_path)
    assert [len(rows(registrar.db, model)) for model in (Patient, Study, Series, Instance)] == [1, 1, 1, 4]


def test_the_same_again_is_kept_once(registrar: Registrar, spool: Spool, tmp_path: Path) -> None:
    made = make("CT")
    first = ingest(registrar, made, tmp_path)
    again = ingest(registrar, made, tmp_path)
    assert (again.kind, again.instance_id) == ("duplicate", first.instance_id)
    assert len(rows(registrar.db)) == 1
    assert spool_files(spool) == (0, 1)


@pytest.mark.parametrize("how", ["purged", "lost"])
def test_the_same_again_comes_back_into_the_spool(registrar: Registrar, spool: Spool, tmp_path: Path, how: str) -> None:
    made = make("CT")
    outcome = ingest(registrar, made, tmp_path)
    (row,) = rows(registrar.db)
    spool.remove(row.spool_path)
    if how == "purged":
        with registrar.db.begin() as session:
            session.execute(update(Instance).values(spool_path=None))
    assert ingest(registrar, made, tmp_path).instance_id == outcome.instance_id
    (row,) = rows(registrar.db)
    assert spool.path_of(row.spool_path).read_bytes().endswith(made.encoded)
    assert spool_files(spool) == (0, 1)


def test_equal_content_in_another_encoding_is_a_duplicate(registrar: Registrar, spool: Spool, tmp_path: Path) -> None:
    first = ingest(registrar, make("CT"), tmp_path)
    again = ingest(registrar, make("CT", transfer_syntax_uid=IMPLICIT_LE), tmp_path)
    assert (again.kind, again.instance_id) == ("duplicate", first.instance_id)
    assert spool_files(spool) == (0, 1)


def test_a_true_conflict_keeps_both_and_is_shown(registrar: Registrar, spool: Spool, tmp_path: Path) -> None:
    first = ingest(registrar, make("CT"), tmp_path)
    second = ingest(registrar, make("CT", SeriesDescription="changed"), tmp_path)
    third = ingest(registrar, make("CT", SeriesDescription="changed again"), tmp_path)
    assert (second.kind, third.kind) == ("conflict", "conflict")
    assert [row.conflict_of for row in rows(registrar.db)] == [None, first.instance_id, first.instance_id]
    assert spool_files(spool) == (0, 3)
    shown = [(e.kind, e.instance_id, e.detail) for e in rows(registrar.db, Event) if e.kind != "received"]
    assert shown == [
        ("conflict", outcome.instance_id, {"conflict_of": first.instance_id}) for outcome in (second, third)
    ]
    # Sent once more, the second is known.
    again = ingest(registrar, make("CT", SeriesDescription="changed"), tmp_path)
    assert (again.kind, again.instance_id) == ("duplicate", second.instance_id)


def test_what_was_purged_cannot_be_compared(database: Database, spool: Spool) -> None:
    registrar = Registrar(database, spool, same_content=lambda _a, _b: pytest.fail("there is nothing to compare"))
    register(registrar, header(1), b"one")
    with database.begin() as session:
        session.execute(update(Instance).values(spool_path=None))
    assert register(registrar, header(1), b"two").kind == "conflict"


def test_other_content_of_one_uid_at_the_same_moment(database: Database, spool: Spool) -> None:
    """Two acceptors, several associations each: one is the first, all others conflict with it."""
    registrars = [Registrar(database, spool, same_content=lambda _a, _b: False) for _ in range(2)]
    start = threading.Barrier(8)

    def one(number: int) -> str:
        start.wait()
        return str(register(registrars[number % 2], header(1), f"data {number}".encode()).kind)

    with ThreadPoolExecutor(8) as pool:
        kinds = list(pool.map(one, range(8)))
    assert sorted(kinds) == ["conflict"] * 7 + ["stored"]
    found = rows(database)
    assert [row.conflict_of for row in found] == [None] + [found[0].id] * 7
    assert spool_files(spool) == (0, 8)


def test_the_same_content_at_the_same_moment(database: Database, spool: Spool) -> None:
    registrars = [Registrar(database, spool) for _ in range(2)]
    start = threading.Barrier(8)

    def one(number: int) -> str:
        start.wait()
        return str(register(registrars[number % 2], header(1), b"data").kind)

    with ThreadPoolExecutor(8) as pool:
        kinds = list(pool.map(one, range(8)))
    assert sorted(kinds) == ["duplicate"] * 7 + ["stored"]
    assert len(rows(database)) == 1
    assert spool_files(spool) == (0, 1)


def test_many_at_once_share_transactions_and_lose_nothing(
    database: Database, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: patients, studies and series that several make at the same moment exist once."""
    registrars = [Registrar(database, spool) for _ in range(2)]
    genuine = Registrar._transaction
    begun: set[int] = set()
    commits = 0

    def transaction(registrar: Registrar, arrivals: Sequence[Any]) -> Any:
        if id(registrar) not in begun:  # its first: as if that took long, so that all others come meanwhile
            begun.add(id(registrar))
            wait_for(lambda: len(arrivals) + len(registrar._waiting) == 8, "half of the threads to be here")
        return genuine(registrar, arrivals)

    monkeypatch.setattr(Registrar, "_transaction", transaction)

    def count(_: Any) -> None:
        nonlocal commits
        commits += 1

    event.listen(database.engine, "commit", count)

    def one(number: int) -> int:
        head = header(
            number,
            patient_id=f"P{number % 3}",
            study_instance_uid=f"1.3.{number % 3}",
            series_instance_uid=f"1.4.{number % 6}",
        )
        return int(register(registrars[number % 2], head).instance_id)

    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(one, range(120)))
    assert len(set(ids)) == 120
    assert {row.id for row in rows(database)} == set(ids)
    assert [len(rows(database, model)) for model in (Patient, Study, Series)] == [3, 3, 6]
    assert commits <= 120 - 2 * 6, "the first eight of each were written in at most two transactions"
    assert spool_files(spool) == (0, 120)


def test_two_people_with_one_patient_id(registrar: Registrar) -> None:
    register(registrar, header(1, patient_name="Doe^Jane", study_instance_uid="1.5"))
    register(registrar, header(2, patient_name="Doe^John", study_instance_uid="1.5"))
    register(registrar, header(3, patient_name=" DOE^ JANE^^", study_instance_uid="1.5"))
    assert len(rows(registrar.db, Patient)) == 2
    first, second, third = rows(registrar.db)
    assert first.series_id == third.series_id != second.series_id
    assert rows(registrar.db, Patient)[0].patient_name == "Doe^Jane"  # as it came first


def test_identity() -> None:
    def identity(**values: Any) -> str:
        return patient_identity(header(1, **{"patient_birth_date": "19700101", **values}))

    same = identity(patient_id="7", patient_name="Müller^Eva")
    assert identity(patient_id=" 7 ", patient_name="MÜLLER ^eva^^=") == same
    assert identity(patient_id="7", patient_name="Müller^Eva", study_instance_uid="9.9") == same
    others = [
        identity(patient_id="07", patient_name="Müller^Eva"),
        identity(patient_id="7", patient_name="Muller^Eva"),
        identity(patient_id="7", patient_name="Müller^Eva=山田"),
        identity(patient_id="7", patient_name="Müller^Eva", issuer_of_patient_id="X"),
        identity(patient_id="7", patient_name="Müller^Eva", patient_birth_date=""),
        identity(patient_id="", patient_name="Müller^Eva"),
        identity(patient_id="", patient_name="Müller^Eva", study_instance_uid="9.9"),
    ]
    assert len({same, *others}) == len(others) + 1
    assert len(same) == 64


def test_objects_of_no_patient(registrar: Registrar, tmp_path: Path) -> None:
    hanging = Header("1.2.840.10008.5.1.4.38.1", "1.2.9", "1.2.840.10008.1.2.1")
    register(registrar, hanging)
    assert rows(registrar.db)[0].series_id is None
    assert rows(registrar.db, Patient) == []


@pytest.mark.parametrize("missing", ["study_instance_uid", "series_instance_uid", "sop_instance_uid"])
def test_an_instance_that_belongs_nowhere_is_refused(registrar: Registrar, spool: Spool, missing: str) -> None:
    import dataclasses

    for wrong in ("", "1.2\0", "x" * 65, "1" * 65):
        with pytest.raises(BadIdentity):
            register(registrar, dataclasses.replace(header(1), **{missing: wrong}))
    assert rows(registrar.db) == []
    assert spool_files(spool) == (0, 0)


def test_hostile_text_is_registered_as_far_as_it_fits(registrar: Registrar) -> None:
    """Among others in one group: what one instance brings must not spoil the others."""
    hostile = "\0\ud800" + "Ω" * 100_000
    texts = {
        name: hostile
        for name, kind in Header.__annotations__.items()
        if kind == "str" and not name.endswith("_uid") and name != "specific_character_set"
    }
    numbers = {"series_number": 1 << 70, "instance_number": -(1 << 70), "rows": 1 << 40, "number_of_frames": -1}
    register(registrar, header(1, **texts, **numbers))
    register(registrar, header(2))
    assert len(rows(registrar.db)) == 2
    assert rows(registrar.db, Series)[0].series_number is None


def test_rows_that_were_deleted_meanwhile_are_made_anew(registrar: Registrar) -> None:
    register(registrar, header(1))
    with registrar.db.begin() as session:
        for model in (Instance, Series, Study, Patient):
            session.execute(delete(model))
    register(registrar, header(50, patient_id="other", series_instance_uid="1.9"))
    register(registrar, header(2))
    with registrar.db.read() as session:
        query = (
            select(Patient.patient_id)
            .join(Study, Study.patient_id == Patient.id)
            .join(Series, Series.study_id == Study.id)
            .join(Instance, Instance.series_id == Series.id)
            .where(Instance.sop_instance_uid == "1.2.1.1.2")
        )
        assert session.execute(query).scalar_one() == "P"


def test_a_database_that_refuses_leaves_nothing(
    registrar: Registrar, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import store.instances as module

    def refuse(*_: Any) -> Any:
        raise OperationalError("INSERT a patient's name", {}, Exception("secret"))

    monkeypatch.setattr(module, "register_group", refuse)
    with pytest.raises(RegistrationFailed) as failure:
        register(registrar, header(1))
    assert "name" not in str(failure.value) and "secret" not in str(failure.value)
    assert spool_files(spool) == (0, 0)
    monkeypatch.undo()
    assert register(registrar, header(1)).kind == "stored"


def test_a_commit_whose_answer_was_lost(registrar: Registrar, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is there although the commit failed for us: then so is its file."""
    import store.instances as module

    genuine = Database.begin

    class Lost:
        def __init__(self, db: Database) -> None:
            self.inner = genuine(db)

        def __enter__(self) -> Any:
            return self.inner.__enter__()

        def __exit__(self, *error: Any) -> None:
            self.inner.__exit__(*error)
            raise OperationalError("COMMIT", {}, Exception("connection lost"))

    monkeypatch.setattr(module.Database, "begin", lambda db: Lost(db))  # noqa: PLW0108
    with pytest.raises(RegistrationFailed):
        register(registrar, header(1))
    monkeypatch.undo()
    (row,) = rows(registrar.db)
    assert spool.path_of(row.spool_path).exists()
    assert register(registrar, header(1)).kind == "duplicate"


def test_a_full_spool_refuses_files(registrar: Registrar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registrar.spool, "is_full", lambda: True)
    with pytest.raises(SpoolFull):
        ingest(registrar, make("CT"), tmp_path)
    with pytest.raises(SpoolFull):
        ingest_stream(registrar, io.BytesIO(make("CT").part10()), provenance=FROM)


def test_the_limit_in_bytes_is_counted_in_rows(database: Database, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", node="n", max_bytes=10)
    registrar = Registrar(database, spool)
    register(registrar, header(1), b"123456")
    assert spool.held_bytes is not None
    assert spool.held_bytes() == 10  # with four bytes of meta
    assert spool.is_full()


def test_files_that_are_no_instances(registrar: Registrar, spool: Spool, tmp_path: Path) -> None:
    whole = make("CT").part10()
    no_series = make("CT", SeriesInstanceUID=None)
    wrong = {
        "empty": b"",
        "text": b"hello, world\n" * 20,
        "cut": whole[: len(whole) - 100],
        "no-series": no_series.part10(),
    }
    for name, data in wrong.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(NotDicom) as refusal:
            ingest_file(registrar, tmp_path / name, provenance=FROM)
        assert len(str(refusal.value)) > 20
        with pytest.raises(NotDicom):
            ingest_stream(registrar, io.BytesIO(data), provenance=FROM)
    with pytest.raises(NotDicom):
        ingest_file(registrar, tmp_path / "not there", provenance=FROM)
    assert rows(registrar.db) == []
    assert spool_files(spool) == (0, 0)


def test_a_dicomdir_is_no_instance(registrar: Registrar, tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    path = get_testdata_file("DICOMDIR")
    assert isinstance(path, str)
    with pytest.raises(NotDicom, match="DICOMDIR"):
        ingest_file(registrar, Path(path), provenance=FROM)


@pytest.mark.parametrize("form", ["whole", "no-preamble", "data-set-only"])
def test_files_without_preamble_or_meta(registrar: Registrar, spool: Spool, tmp_path: Path, form: str) -> None:
    made = make("CT")
    data = {"whole": made.part10(), "no-preamble": made.part10()[132:], "data-set-only": made.encoded}[form]
    (tmp_path / "file").write_bytes(data)
    assert ingest_file(registrar, tmp_path / "file", provenance=FROM).kind == "stored"
    assert ingest_stream(registrar, io.BytesIO(data), provenance=FROM).kind == "duplicate"
    (row,) = rows(registrar.db)
    assert row.digest == hashlib.sha256(made.encoded).hexdigest()
    stored = spool.path_of(row.spool_path).read_bytes()
    assert stored[128:132] == b"DICM" and stored.endswith(made.encoded)
    assert spool_files(spool) == (0, 1)


def test_the_sweep_asks_the_database(registrar: Registrar, spool: Spool) -> None:
    register(registrar, header(1))
    (row,) = rows(registrar.db)
    assert registered_paths(registrar.db, [row.spool_path, "x"]) == {row.spool_path}
    dead = spool.root / INCOMING / "n" / "999999999-1"
    dead.mkdir(parents=True)
    name = Path(row.spool_path).stem
    (dead / name).hardlink_to(spool.path_of(row.spool_path))
    (dead / "2020010100-0123456789abcdef0123").write_bytes(b"half")
    assert sweep(registrar.db, spool) == 2
    assert spool_files(spool) == (0, 1)


def test_cost_does_not_grow_with_what_is_held(database: Database, spool: Spool) -> None:
    """The statements of one registration find their rows by an index, never by reading a table."""
    registrar = Registrar(database, spool)
    register(registrar, header(1))
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    register(registrar, header(2))
    event.remove(database.engine, "before_cursor_execute", note)
    selects = [pair for pair in statements if pair[0].startswith("SELECT")]
    assert len([pair for pair in statements if not pair[0].startswith("BEGIN")]) <= 5
    if database.is_sqlite:
        with database.engine.connect() as connection:
            for statement, parameters in selects:
                plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
                assert not [step for step in plan if step.startswith("SCAN")], plan
    with database.read() as session:
        assert session.execute(select(func.count()).select_from(Instance)).scalar_one() == 2


def test_dataset_attributes_come_from_the_first(registrar: Registrar, tmp_path: Path) -> None:
    def describe(text: str) -> Any:
        def change(ds: Dataset) -> None:
            ds.StudyDescription = text

        return change

    ingest(registrar, make("CT", number=1, change=describe("first")), tmp_path)
    ingest(registrar, make("CT", number=2, change=describe("second")), tmp_path)
    assert [row.study_description for row in rows(registrar.db, Study)] == ["first"]
