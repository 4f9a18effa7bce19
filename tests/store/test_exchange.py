"""A catalogue that is written to a file and read again, whole, in parts, twice, and by whoever means ill."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, true

from service.catalogue_files import Bad, opened, write_csv, write_jsonl
from store import copies, exchange, exchange_enter, migrate, rereading, shelves, waiting
from store.db import Database
from store.exchange_values import BadRecord
from store.models import Derived, Instance, Patient
from store.models_archive import Pool, PoolInstance
from store.models_base import now
from store.models_jobs import Disc, Request, Volume
from tests.rows import add_disc, add_instance

FORMULAS = ("=1+1", "+1", "-1", "@x", "'x", "\tx", "12", "true", '"x"', "[1]", "null", 'x,"y"\r\nz', "")


def filled(database: Database) -> None:
    """Names that make trouble in a spreadsheet, a derived file, a mark, a shelf, a check, a pool."""
    with database.begin() as session:
        ones = [
            add_instance(session, f"1.2.{n}", patient_id=name or "E", patient_name=name, study=f"1.5.{n}",
                         series=f"1.6.{n}", instance_number=-n, directory_keys=bytes(range(n)))
            for n, name in enumerate(FORMULAS, 1)
        ]  # fmt: skip
        add_instance(session, "1.9", study="1.9.1", series="1.9.2")  # on no disc
        first, second = add_disc(session, ones[:7]), add_disc(session, ones[5:])
        derived = Derived(
            source_digest=ones[0].digest, sop_instance_uid=ones[0].sop_instance_uid, recipe="edit/1", path="x", size=5,
            sha256="a" * 64, transfer_syntax_uid="1.2", changes=[{"tag": "(0010,0020)", "old": "=", "new": ""}],
            new_sop_instance_uid=None, directory_keys=b"\x00\xff", facts={"patient_name": "N^M", "name_search": "n^m"},
            created_at=now(),
        )  # fmt: skip
        session.add(derived)
        session.flush()
        volume = session.get_one(Volume, first.volume_id)
        volume.set_catalogue, volume.readme, volume.site = b"\x00x", b"r\r\n", "=cmd|' /C calc'!A0"
        session.add(
            Pool(name="P", kind="archive", options={"copies": 2}, copies=2, required_copies=2, min_fill=95.5,
                 latest_days=None, keep_days=0, shelves=["A"], created_at=now())
        )  # fmt: skip
        session.flush()
        shelves.move(session, first.id, "A/3", by="x")
        shelves.mark(session, second.id, "LOST", reason="-gone", by="x")
        rereading.record_check(
            session, first.id, good=True, how="image", detail={}, sectors=5, unreadable=0, seconds=1.5
        )


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Database]]:
    made: list[Database] = []

    def make_one() -> Database:
        made.append(Database(f"sqlite:///{tmp_path / f'fresh{len(made)}.db'}"))
        migrate.upgrade(made[-1])
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def records(database: Database, limit: int = 3) -> list[dict[str, Any]]:
    with database.read() as session:
        found = [head := exchange.head(session, site="S", software="B")]
        for table in exchange.TABLES:
            after: int | str | None = 0
            while after is not None:
                until = head["until"].get(table, 0)
                told, after = exchange.page(session, table, after=after, until=until, limit=limit)
                found += told
        return found


def entered(database: Database, found: list[dict[str, Any]], batch: int = 4) -> dict[str, int]:
    new: dict[str, int] = {}
    for start in range(0, len(found), batch):
        with database.begin() as session:
            counts = exchange_enter.enter(session, found[start : start + batch], dict)
        for table, told in counts.items():
            new[table] = new.get(table, 0) + told["new"]
    return new


def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is not kept: a set's source and burner."""
    told = [json.loads(json.dumps(record)) for record in found if record["record"] != "catalogue"]
    for record in told:
        if record["record"] == "volume":
            record["set"] |= {"source": "", "burner": "", "created_at": ""}
    return told


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_is_written_is_read_again(
    form: str, database: Database, fresh: Callable[[], Database], tmp_path: Path
) -> None:
    filled(database)
    before = records(database)
    path = tmp_path / "export"
    if form == "csv":
        counts = write_csv(path, iter(before))
    else:
        with path.open("w", encoding="utf-8", newline="\n") as out:
            counts = write_jsonl(out, iter(before))
    assert counts["instance"] == len(FORMULAS) and counts["disc"] == 2 and counts["pool"] == counts["check"] == 1
    with opened(path) as (head, rest):
        assert head["file_set_number"] == 0
        read = [record for _, record in rest]
    assert plain(read) == plain(before)
    other = fresh()
    assert sum(entered(other, read).values()) == len(read)
    assert plain(records(other)) == plain(before)
    with other.read() as session:
        assert copies.wrong(session) == []
        assert {patient.patient_name for patient in session.scalars(select(Patient))} == {*FORMULAS}
        assert session.scalars(select(Instance.spool_path).where(Instance.spool_path.is_not(None))).all() == []
    # Once more, and into a catalogue that has a part of it.
    assert sum(entered(other, read).values()) == 0
    assert sum(entered(database, read).values()) == 0
    assert plain(records(other)) == plain(before)


def test_what_a_pool_has_taken_it_has_taken_in_the_other_catalogue_too(
    database: Database, fresh: Callable[[], Database]
) -> None:
    filled(database)
    with database.begin() as session:
        session.scalars(select(Request).order_by(Request.id)).all()[0].pool = "P"
        session.get_one(Pool, "P").seen_instance = 10**6  # a number of this database
    other = fresh()
    entered(other, records(database)[1:])
    with other.begin() as session:
        pool = session.get_one(Pool, "P")
        taken = session.scalars(select(PoolInstance.request_id).where(PoolInstance.pool == "P")).all()
        assert len(taken) == 7 and None not in taken and (pool.seen_instance, pool.look_at) == (0, None)
        patient = session.scalars(select(Patient).where(Patient.patient_name == FORMULAS[0])).one()
        add_instance(session, "1.2.99", patient_id=patient.patient_id, patient_name=patient.patient_name, study="1.5.1")
        assert waiting.late_arrivals(session, pool, true()) == 1


def test_no_cell_begins_as_a_formula_does(database: Database, tmp_path: Path) -> None:
    filled(database)
    write_csv(tmp_path / "csv", iter(records(database)))
    cells = 0
    for path in (tmp_path / "csv").iterdir():
        with path.open(newline="") as stream:
            for row in csv.reader(stream):
                for cell in row:
                    cells += 1
                    assert not cell.startswith(("=", "+", "@", "\t", "\r", "\n")), (path, cell)
                    assert not cell.startswith("-") or cell[1:].isdigit(), (path, cell)
    assert cells > 400


def test_pages_of_any_size_give_the_same(database: Database) -> None:
    filled(database)
    assert plain(records(database, 1)) == plain(records(database, 2)) == plain(records(database, 1000))


def test_two_catalogues_are_joined(fresh: Callable[[], Database]) -> None:
    source, target = fresh(), fresh()
    filled(source)
    with target.begin() as session:
        disc = add_disc(session, [add_instance(session, "1.77", study="1.77.1", series="1.77.2")])
        session.get_one(Volume, disc.volume_id).file_set_uid = "9.9"
    entered(target, [record for record in records(source) if record["record"] != "catalogue"])
    with target.read() as session:
        assert len(session.scalars(select(Disc)).all()) == 3
        ids = {volume.file_set_uid: (volume.file_set_id, volume.origin) for volume in session.scalars(select(Volume))}
    # Both sites had given the first File-set ID.
    assert ids["9.9"] == ("TEST_0000001", "own") and ids["1.2.3.1"] == ("TEST_0000001", "rebuilt")


@pytest.mark.parametrize(
    ("table", "values", "told"),
    [
        ("patient", {"identity": "x"}, "identity"),
        ("patient", {"patient_id": None}, "has no patient_id"),
        ("patient", {"patient_id": ["x"]}, "patient_id is not"),
        ("patient", {"patient_id": "x" * 300}, "patient_id is not"),
        ("study", {"patient": "y" * 64}, "names a patient that is not there"),
        ("series", {"study": "9.9"}, "names a study that is not there"),
        ("series", {"series_number": 1 << 70}, "series_number"),
        ("instance", {"series": "9.9"}, "names a series that is not there"),
        ("instance", {"digest": "../x"}, "digest"),
        ("instance", {"directory_keys": "?"}, "base64"),
        ("instance", {"received_at": "2020-01-01T00:00:00"}, "received_at"),
        ("instance", {"has_pixel_data": 1}, "has_pixel_data"),
        ("volume", {"set": None}, "set is no object"),
        ("volume", {"origin": "mine"}, "origin"),
        ("volume", {"number": 5}, "number or of"),
        ("file", {"file_id": "../../etc/passwd"}, "file_id"),
        ("file", {"volume": "9.9"}, "names a volume or an instance"),
        ("file", {"recipe": "none"}, "derived file that is not there"),
        ("disc", {"state": "BURNING"}, "state or purpose"),
        ("disc", {"copy": "1"}, "copy is not"),
        ("check", {"copy": 9}, "names a disc that is not there"),
        ("pool", {"kind": "evil"}, "kind"),
        ("pool", {"copies": -5}, "required_copies that make no sense"),
    ],
)
def test_a_wrong_record_is_named_and_nothing_of_its_batch_stays(
    table: str, values: dict[str, Any], told: str, fresh: Callable[[], Database], tmp_path: Path
) -> None:
    source, target = fresh(), fresh()
    filled(source)
    found = [record for record in records(source, 1000) if record["record"] != "catalogue"]
    at = next(index for index, record in enumerate(found) if record["record"] == table)
    found[at] = {**found[at], **values}
    with pytest.raises(BadRecord, match=f"table {table}") as caught:
        entered(target, found, 10_000)
    assert told in str(caught.value)
    with target.read() as session:
        assert session.scalars(select(Patient)).all() == []


def _file(tmp_path: Path, database: Database) -> Path:
    path = tmp_path / "x.jsonl"
    with path.open("w", encoding="utf-8", newline="\n") as out:
        write_jsonl(out, iter(records(database)))
    return path


def test_a_file_that_is_cut_off_or_broken_is_named_by_its_line(fresh: Callable[[], Database], tmp_path: Path) -> None:
    database = fresh()
    filled(database)
    lines = _file(tmp_path, database).read_bytes().splitlines(keepends=True)
    cases = {
        "cut off": b"".join(lines[:-1]),
        "something is missing": b"".join([*lines[:3], *lines[4:]]),
        "line 3 is no JSON": b"".join([*lines[:2], b"{\n", *lines[3:]]),
        "line 2 is of no table": b"".join([lines[0], b'{"record": "users"}\n', *lines[1:]]),
        "does not begin with its head": b"".join(lines[1:]),
        "behind the end": b"".join([*lines, b"{}\n"]),
        "version 99": lines[0].replace(b'"version":1', b'"version":99') + b"".join(lines[1:]),
        "is no JSON": b"\xff\xfe\x00",
        "no JSON object": b"[" * 200_000 + b"\n",
    }
    for told, data in cases.items():
        path = tmp_path / "case.jsonl"
        path.write_bytes(data)
        with pytest.raises(Bad, match=r"case\.jsonl") as caught, opened(path) as (_, rest):
            list(rest)
        assert told in str(caught.value), told


def test_a_csv_folder_that_is_not_whole_is_refused(fresh: Callable[[], Database], tmp_path: Path) -> None:
    database = fresh()
    filled(database)
    folder = tmp_path / "csv"
    write_csv(folder, iter(records(database)))
    text = (folder / "study.csv").read_text()
    for told, change in (
        ("study.csv has", lambda: (folder / "study.csv").write_text("\n".join(text.splitlines()[:-1]) + "\n")),
        ("cells; there are", lambda: (folder / "study.csv").write_text(text + "a,b\n")),
        ("not in UTF-8", lambda: (folder / "study.csv").write_bytes(b"a\n\xff\n")),
        ("names of its columns", lambda: (folder / "study.csv").write_bytes(b"a,a\n")),
        ("has no catalogue.csv", (folder / "catalogue.csv").unlink),
    ):
        change()
        with pytest.raises(Bad) as caught, opened(folder) as (_, rest):
            list(rest)
        assert told in str(caught.value)


def test_any_damage_of_a_file_ends_in_a_clear_error(fresh: Callable[[], Database], tmp_path: Path) -> None:
    source, target = fresh(), fresh()
    filled(source)
    data = _file(tmp_path, source).read_bytes()
    dice = random.Random(3)
    path = tmp_path / "broken.jsonl"
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(dice.randint(1, 5)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        path.write_bytes(bytes(broken))
        try:
            with opened(path) as (_, rest):
                found = [record for _, record in rest]
            with target.begin() as session:
                exchange_enter.enter(session, found, dict)
                session.rollback()
        except (Bad, BadRecord):
            pass
