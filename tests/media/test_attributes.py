"""Small data sets as plain values: there and back in every encoding and character set, and what is malformed."""

from __future__ import annotations

import random
from contextlib import suppress
from io import BytesIO

import pytest
from pydicom.filereader import read_dataset

from media.attributes import Attribute, Attributes, character_set_for, encode, parse
from media.encoding import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, Syntax
from media.problems import NotDicom
from tests.makers import PATIENTS

CODE: Attributes = {0x00080100: Attribute(b"SH", "C1"), 0x00080104: Attribute(b"LO", "Schädel")}
SYNTAXES = [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE]


def values(name: str = "Äneas^Rüdiger") -> Attributes:
    return {
        0x00080016: Attribute(b"UI", "1.2.3"),
        0x00080020: Attribute(b"DA", ""),
        0x00100010: Attribute(b"PN", name),
        0x00280010: Attribute(b"US", b"\x00\x02"),
        0x0040A043: Attribute(b"SQ", (CODE, {})),
    }


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("name", "wished", "chosen"),
    [
        ("Äneas^Rüdiger", "ISO_IR 100", "ISO_IR 100"),
        ("Äneas^Rüdiger", "", "ISO_IR 192"),
        ("Äneas^Rüdiger", "ISO_IR 144", "ISO_IR 192"),
        (PATIENTS["japanese"].name, "ISO_IR 100", "ISO_IR 192"),
        (PATIENTS["korean"].name, "ISO_IR 192\\ISO 2022 IR 149", "ISO_IR 192"),
        (PATIENTS["chinese"].name, "GB18030", "GB18030"),
        ("Doe^Jane", "NONSENSE\\2022", "ISO_IR 192"),
    ],
)
def test_there_and_back(syntax: Syntax, name: str, wished: str, chosen: str) -> None:
    given = values(name)
    character_set = character_set_for(given, wished)
    assert character_set == chosen
    data = encode(given, syntax, character_set)
    assert parse(data, syntax, character_set=character_set) == given
    data = encode({0x00080005: Attribute(b"CS", character_set), **given}, syntax, character_set)
    theirs = read_dataset(BytesIO(data), is_implicit_VR=not syntax.explicit, is_little_endian=syntax.order == "<")
    assert str(theirs.PatientName) == name
    assert (theirs.Rows, theirs.ConceptNameCodeSequence[0].CodeValue) == (512, "C1")


@pytest.mark.parametrize("patient", [key for key in PATIENTS if PATIENTS[key].charset.startswith(("\\", "ISO"))])
def test_names_in_the_character_set_of_who_asks(patient: str) -> None:
    given: Attributes = {0x00100010: Attribute(b"PN", PATIENTS[patient].name)}
    wished = PATIENTS[patient].charset
    character_set = character_set_for(given, wished)
    assert character_set in (wished, "ISO_IR 192")
    assert parse(encode(given, EXPLICIT_LE, character_set), EXPLICIT_LE, character_set=character_set) == given


def test_ascii_needs_no_character_set() -> None:
    assert character_set_for({0x00100010: Attribute(b"PN", "Doe^Jane")}, "ISO_IR 100") == ""


def test_the_own_character_set_counts() -> None:
    data = encode({0x00080005: Attribute(b"CS", "ISO_IR 192"), **values()}, EXPLICIT_LE, "ISO_IR 192")
    assert parse(data, EXPLICIT_LE, character_set="ISO_IR 144")[0x00100010].value == "Äneas^Rüdiger"


def test_nested_beyond_reason() -> None:
    data = b"\x40\x00\x43\xa0SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    with pytest.raises(NotDicom):
        parse(data, EXPLICIT_LE)


def test_chance() -> None:
    dice = random.Random(5)
    for syntax in SYNTAXES:
        good = encode(values(), syntax, "ISO_IR 192")
        for _ in range(400):
            data = bytearray(good[: dice.randint(1, len(good))])
            data[dice.randrange(len(data))] = dice.randrange(256)
            with suppress(NotDicom):
                parse(bytes(data), syntax)
