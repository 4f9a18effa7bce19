"""Headers that are read with a memory are those that are read without one, whatever comes in which order."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from media import headermemory
from media.header import header_in
from media.headermemory import HeaderMemory
from media.headerwalk import HeaderWalk
from media.items import Header
from media.part10 import locate_in
from media.problems import NotDicom
from media.verify_meta import MetaMemory, read_meta
from tests.makers import DEFLATED, EXPLICIT_BE, IMPLICIT_LE, KINDS, PATIENTS, make, study
from tests.media.directory import EXPLICIT_LE

Read = tuple[bytes, int, str]
"""A file, where its data set begins, and in which transfer syntax."""


def plainly(one: Read) -> Header | str:
    data, offset, syntax = one
    try:
        return header_in(io.BytesIO(data), offset=offset, transfer_syntax_uid=syntax, length=len(data) - offset)
    except NotDicom as error:
        return str(error)


def remembering(memory: HeaderMemory, one: Read, head: int = 65536, like: str = "") -> Header | str:
    data, offset, syntax = one
    try:
        values = memory.values_in(
            io.BytesIO(data),
            data[:head],
            offset=offset,
            transfer_syntax_uid=syntax,
            length=len(data) - offset,
            like=like,
        )
        return Header(*values)
    except NotDicom as error:
        return str(error)


def packaged() -> list[Read]:
    found = []
    for path in sorted(Path(str(get_testdata_file("CT_small.dcm"))).parent.glob("*.dcm")):
        data = path.read_bytes()
        try:
            located = locate_in(io.BytesIO(data), path.name)
        except NotDicom:
            continue
        found.append((data, located.dataset_offset, located.transfer_syntax_uid))
    return found


def test_packaged_files_in_any_order() -> None:
    files = packaged()
    assert len(files) > 60
    wanted = [plainly(one) for one in files]
    memory = HeaderMemory()
    for seed in range(3):
        order = list(range(len(files)))
        random.Random(seed).shuffle(order)
        for number in order:
            for head in (65536, 700):
                assert remembering(memory, files[number], head) == wanted[number]


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED])
def test_kinds_and_series(syntax: str) -> None:
    made = [one for kind in KINDS for one in study(kind, 4, seed=1, transfer_syntax_uid=syntax)]
    made += [one for name in PATIENTS for one in study("CT", 3, patient=PATIENTS[name], transfer_syntax_uid=syntax)]
    memory = HeaderMemory()
    for one in made:
        read = (one.encoded, 0, one.transfer_syntax_uid)
        assert remembering(memory, read) == plainly(read)


def test_a_series_is_walked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is the same is not looked at element by element again."""
    kept: list[int] = []
    keep = HeaderWalk._keep
    monkeypatch.setattr(HeaderWalk, "_keep", lambda self, *rest: kept.append(rest[0]) or keep(self, *rest))  # type: ignore[func-returns-value]
    memory = HeaderMemory()
    counts = []
    for one in study("CT", 6, seed=1):
        kept.clear()
        remembering(memory, (one.encoded, 0, one.transfer_syntax_uid))
        counts.append(len(kept))
    assert counts[-1] < counts[0] / 3


def test_any_byte_may_differ() -> None:
    """Of files that are alike but for a byte, a missing or a doubled element each is read, or refused, as it is."""
    data = make("CT", size=8).encoded
    chance = random.Random(7)
    memory = HeaderMemory()
    for _ in range(5):
        remembering(memory, (data, 0, EXPLICIT_LE))
    for _ in range(1500):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2))):
            at = chance.randrange(len(changed))
            kind = chance.random()
            if kind < 0.5:
                changed[at] = chance.randrange(256)
            elif kind < 0.7:
                del changed[at : at + chance.choice((2, 8, 20))]
            else:
                changed[at:at] = changed[at : at + chance.choice((8, 12, 40))]
        one = (bytes(changed), 0, EXPLICIT_LE)
        assert remembering(memory, one) == plainly(one)


def test_an_element_twice_with_another_value() -> None:
    data = make("CT", size=8).encoded
    memory = HeaderMemory()
    for _ in range(3):
        remembering(memory, (data, 0, EXPLICIT_LE))
    twice = (data + b"\x10\x00\x20\x00LO\x02\x00B2", 0, EXPLICIT_LE)
    assert "occurs twice" in str(plainly(twice))
    assert remembering(memory, twice) == plainly(twice)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headermemory, "_LIKE", 2)
    monkeypatch.setattr(headermemory, "_LESSONS", 3)
    memory = HeaderMemory()
    for number in range(40):
        one = make("CT", seed=number, size=8, StationName=f"S{number % 7}", PatientID=f"{number % 5}")
        read = (one.encoded, 0, EXPLICIT_LE)
        assert remembering(memory, read, like=str(number % 5)) == plainly(read)
        assert len(memory._likes) <= 2


def test_file_meta_information_that_is_alike() -> None:
    memory = MetaMemory()
    files = [one.part10()[:4096] for one in study("CT", 4, seed=1)] + [make("MR").part10()[:4096]]
    chance = random.Random(3)
    for _ in range(400):
        changed = bytearray(chance.choice(files))
        for _ in range(chance.choice((0, 0, 1, 2))):
            changed[chance.randrange(128, 400)] = chance.randrange(256)
        head = bytes(changed[: chance.choice((4096, 4096, 4096, 300, 200, 140))])
        assert memory.read(head) == read_meta(head)[0]
