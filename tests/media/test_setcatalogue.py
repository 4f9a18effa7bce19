"""VOLUMES.TXT: what is written is read again; what is not in its form is refused by its line."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from media.problems import MediaError
from media.setcatalogue import (
    Before,
    Entry,
    Protected,
    Sender,
    SetFacts,
    SetStudy,
    SetVolume,
    catalogue_bytes,
    changes_line,
    head_line,
    sender_line,
)
from media.setcatalogue_read import before_keys, parse, received_keys
from media.verify import verify_path
from tests.makers import our_disc, study

CREATED = datetime(2026, 2, 28, 12, 0, 1, tzinfo=UTC)
FACTS = SetFacts(
    "Burnish 1", 'St. "Elsewhere"\n', "STD-GEN-CD", "CD-R-80", 1000, CREATED, "archive", "POOL", {"copies": 2}
)
VOLUMES = (SetVolume(1, "B_0000007", "2.25.1"), SetVolume(2, "B_0000008", "2.25.2"))
STUDY = SetStudy(
    {
        "study_instance_uid": "1.2.3",
        **dict.fromkeys(("study_date", "study_time", "study_id", "study_description"), "x"),
        **dict.fromkeys(("accession_number", "referring_physician_name", "institution_name"), "ü漢\u202e"),
        **dict.fromkeys(("issuer_of_patient_id", "patient_birth_date", "patient_sex"), ""),
        "patient_id": "=1+1",
        "patient_name": "A^B\ud800=C",
    },
    {1: 2, 2: 1},
    {"patient_id": "old"},
)
BEFORE = Before(
    "raw/1", "1.2.9", "1.2.840.10008.1.2", 100, "b" * 64, 436, [{"tag": "t", "old": "", "new": "n"}], {"rows": 3}, {}
)
ENTRIES = {
    "DICOM/P1/IM1": Entry("a" * 64, CREATED, 0),
    "DICOM/P1/IM2": Entry("c" * 64, CREATED.replace(microsecond=5), 0, [("IMAGE", "(1,2)", "SQ", "v")], BEFORE),
    "DICOM/P1/IM3": Entry("c" * 64, CREATED, 0, (), BEFORE, 4),
}
SHARED = [{"tag": "(0028,0004)", "old": "1", "new": "2"}]


def lines(entries: dict[str, Entry] = ENTRIES) -> list[bytes]:
    head = head_line(FACTS, VOLUMES[0], 2, len(entries), 300, Protected("rs02", 32, 400))
    return [
        head,
        *(volume.line() for volume in VOLUMES),
        STUDY.line(),
        sender_line(0, Sender("CT", "BURNISH", "10.0.0.1")),
        changes_line(4, SHARED),
        *(entry.line(path) for path, entry in entries.items()),
    ]


def test_what_is_written_is_read_again() -> None:
    found = parse(catalogue_bytes(lines()[:6], 4000, lines()[6:]))
    assert found.facts == FACTS and found.volume == VOLUMES[0] and found.of == 2
    assert (found.sectors, found.protection) == (300, Protected("rs02", 32, 400))
    assert found.volumes == {1: VOLUMES[0], 2: VOLUMES[1]}
    (read,) = found.studies
    assert read.volumes == STUDY.volumes and read.received == {"patient_id": "old"}
    assert read.attributes["patient_name"] == "A^B?=C"
    assert replace(found.entries["DICOM/P1/IM1"], supplied=()) == ENTRIES["DICOM/P1/IM1"]
    second = found.entries["DICOM/P1/IM2"]
    assert second.before == BEFORE and second.received.microsecond == 5
    third = found.entries["DICOM/P1/IM3"].before
    assert third is not None and third.changes == SHARED


def test_its_size_is_what_was_reserved_and_the_lines_of_instances() -> None:
    for path, entry in ENTRIES.items():
        assert entry.length(len(path)) == len(entry.line(path))
    own = sum(map(len, lines()[6:]))
    assert len(catalogue_bytes(lines()[:6], 4000, lines()[6:])) == 4000 + own
    need = sum(map(len, lines()[:6]))
    assert len(catalogue_bytes(lines()[:6], need, lines()[6:])) == need + own
    with pytest.raises(MediaError, match="reserved"):
        catalogue_bytes(lines()[:6], need - 1, [])


def test_keys_as_received_come_from_those_of_the_file() -> None:
    own = {0x00100010: b"\x10\x00\x10\x00PN\x02\x00AB", 0x00100020: b"\x10\x00\x20\x00LO\x02\x00NN"}
    received = {0x00100010: own[0x00100010], 0x00100040: b"\x10\x00\x40\x00CS\x02\x00F "}
    keys = before_keys(own, received)
    assert keys.keys() == {"00100020", "00100040"} and keys["00100020"] is None
    assert received_keys(own, keys) == b"".join(received.values())


def _changed(number: int, **values: Any) -> bytes:
    documents = [json.loads(line) for line in lines()]
    for name, value in values.items():
        if value is ...:
            documents[number].pop(name)
        else:
            documents[number][name] = value
    return b"\n".join(json.dumps(document).encode() for document in documents)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"\xff\xfe", "line 1"),
        (b"[" * 100_000, "line 1"),
        (_changed(0, format="x"), "line 1"),
        (_changed(0, version=99), "version 99"),
        (_changed(0, of=0), "of is no number"),
        (_changed(0, instances=7), "lists 3 instances; its first line says 7"),
        (_changed(0, created="yesterday"), "created"),
        (_changed(0, created="9999-99-99T99:99:99Z"), "created"),
        (_changed(1, file_set_uid="../x"), "line 2: file_set_uid"),
        (_changed(2, volume=1), "volume 1 stands there twice"),
        (_changed(2, volume=3), "line 3"),
        (_changed(2, file_set_uid="2.25.1"), "two volumes have one File-set UID"),
        (_changed(3, instances={"9": 1}), "line 4"),
        (_changed(3, patient_name=7), "line 4: patient_name"),
        (_changed(3, received={"evil": "x"}), "line 4"),
        (_changed(6, file="../../etc/passwd"), "line 7: file"),
        (_changed(6, digest="x"), "line 7: digest"),
        (_changed(6, sender=1), "line 7: sender"),
        (_changed(7, file="DICOM/P1/IM1"), "line 8: DICOM/P1/IM1 stands there twice"),
        (_changed(7, before={}), "line 8: recipe"),
        (_changed(8, changes=99), "line 9: changes"),
        (_changed(8, changes=[{"tag": 1}]), "line 9: changes"),
        (b"\n".join(lines()[:1]) + b'\n{"volume": "' + b"x" * (1 << 20) + b'"}', "line 2: it has"),
    ],
)
def test_what_is_not_in_its_form_is_refused_by_its_line(data: bytes, told: str) -> None:
    with pytest.raises(MediaError, match=r"VOLUMES\.TXT") as caught:
        parse(data)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "before",
    [
        {"attributes": {"__class__": 1}},
        {"attributes": {"rows": "many"}},
        {"attributes": {"has_pixel_data": 1}},
        {"keys": {"xyz": None}},
        {"keys": {"00100010": "!!"}},
        {"keys": {"00100010": "AAAAAAAAAAA="}},
        {"dataset_bytes": -1},
        {"recipe": "../x y"},
    ],
)
def test_what_an_instance_was_before_is_checked_too(before: dict[str, Any]) -> None:
    document = json.loads(lines()[7])
    document["before"] |= before
    with pytest.raises(MediaError, match="line 8"):
        parse(b"".join(lines()[:7]) + json.dumps(document).encode() + b"\n" + lines()[8])


def test_any_damage_ends_in_a_clear_error_or_a_sound_value() -> None:
    data = b"".join(lines())
    dice = random.Random(6)
    for _ in range(1500):
        broken = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            parse(bytes(broken[: dice.randrange(len(broken)) if dice.random() < 0.2 else None]))
        except MediaError as error:
            assert "VOLUMES.TXT" in str(error)


def test_lines_and_fields_of_a_later_version_are_passed_over() -> None:
    data = b"".join(lines()) + b'{"weather": "fine"}\n'
    assert parse(data).entries.keys() == ENTRIES.keys()


def test_later_discs_and_private_sets_can_be_told_apart() -> None:
    head = head_line(replace(FACTS, private=True), VOLUMES[0], 2, 3, 300, None)
    assert parse(b"".join([head, *lines()[1:]])).facts.private is True


def test_a_disc_without_one_is_right(tmp_path: Path) -> None:
    assert verify_path(our_disc(tmp_path / "disc.iso", study("CT", 1))).ok
