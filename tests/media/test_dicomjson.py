"""The DICOM JSON model held against pydicom's, with values that are wrong, long or strange."""

from __future__ import annotations

import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence

from media import dicomjson
from media.attributes import Attribute
from media.dicomjson import NoSuchValue, of_attributes, of_instance, of_text
from media.elements import Encoding
from media.part10 import locate
from media.problems import NotDicom
from tests.makers import EXPLICIT_BE, IMPLICIT_LE, PATIENTS, make


def told(path: Path, more: dict[str, Any] | None = None) -> dict[str, Any]:
    pieces = list(of_instance(path, locate(path), lambda where: f"x:{where}", more or {}))
    assert all(len(piece) < 400_000 for piece in pieces)
    document: dict[str, Any] = json.loads("".join(pieces))
    return document


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "rtplan.dcm",
        "reportsi.dcm",
        "UN_sequence.dcm",
        "ExplVR_BigEnd.dcm",
        "image_dfl.dcm",
        "SC_rgb_rle.dcm",
    ],
)
def test_files_of_others(name: str) -> None:
    path = Path(get_testdata_file(name))
    document = told(path)
    ours = Dataset.from_json(json.dumps(document), bulk_data_uri_handler=lambda uri: uri.encode())
    for element in dcmread(path):
        if element.tag in (0xFFFCFFFC, 0x00080005) or not element.tag.element:
            continue
        if "BulkDataURI" in document[f"{element.tag:08X}"]:
            continue
        if element.VR == "SQ":
            assert len(ours[element.tag].value) == len(element.value)
        elif element.value not in (None, "", b""):
            value = ours[element.tag].value
            assert value == element.value or str(value).strip() == str(element.value).strip(), element


@pytest.mark.parametrize("patient", list(PATIENTS))
def test_names_in_all_scripts(patient: str, tmp_path: Path) -> None:
    made = make("CT", patient=PATIENTS[patient])
    name = told(made.write(tmp_path / "a.dcm"))["00100010"]
    groups = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), PATIENTS[patient].name.split("="), strict=False))
    assert name == {"vr": "PN", "Value": [groups]}
    assert told(tmp_path / "a.dcm")["00080005"]["Value"] == ["ISO_IR 192"]


def test_values_of_text() -> None:
    assert of_text("DS", "1.50\\-2e3\\") == {"vr": "DS", "Value": [1.5, -2000.0, None]}
    assert of_text("IS", "7") == {"vr": "IS", "Value": [7]} and of_text("IS", "7.5")["Value"] == ["7.5"]
    assert of_text("DS", "NaN")["Value"] == ["NaN"] and of_text("LO", "") == {"vr": "LO"}
    assert of_text("LT", "a\\b")["Value"] == ["a\\b"] and of_text("LO", "a\\b")["Value"] == ["a", "b"]
    assert of_text("CS", "\\") == {"vr": "CS"}


def test_values_of_bytes() -> None:
    item = {0x00280010: Attribute(b"US", b"\x10\x00"), 0x00081150: Attribute(b"UI", "1.2")}
    found = of_attributes(
        {
            0x00081199: Attribute(b"SQ", (item,)),
            0x00081198: Attribute(b"SQ", ()),
            0x00189087: Attribute(b"FD", struct.pack("<3d", 1.5, math.inf, math.nan)),
            0x00209165: Attribute(b"AT", b"\x10\x00\x20\x00"),
            0x00420011: Attribute(b"OB", b"abc"),
            0x00280011: Attribute(b"US", b""),
        }
    )
    assert found["00081199"]["Value"] == [
        {"00081150": {"vr": "UI", "Value": ["1.2"]}, "00280010": {"vr": "US", "Value": [16]}}
    ]
    assert found["00081198"] == {"vr": "SQ"} and found["00280011"] == {"vr": "US"}
    assert found["00189087"]["Value"] == [1.5, "Infinity", "NaN"]
    assert found["00209165"]["Value"] == ["00100020"]
    assert found["00420011"]["InlineBinary"] == "YWJj"
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_BE])
def test_long_values_stand_elsewhere_and_are_found_there(tmp_path: Path, syntax: str) -> None:
    inner, item = Dataset(), Dataset()
    inner.add_new(0x0040A160, "UT", "x" * 70_000)
    item.add_new(0x00081140, "SQ", Sequence([Dataset(), inner]))
    made = make("CT", transfer_syntax_uid=syntax, ContentSequence=Sequence([item]), LossyImageCompressionRatio="9")
    path = made.write(tmp_path / "a.dcm")
    document = told(path, {"00083002": {"vr": "UI", "Value": ["1"]}})
    uri = document["0040A730"]["Value"][0]["00081140"]["Value"][1]["0040A160"]["BulkDataURI"]
    assert uri == "x:0040A730/1/00081140/2/0040A160" and document["00083002"]["Value"] == ["1"]
    with path.open("rb") as stream:
        value = found(stream, path, uri[2:])
        assert (value.vr, value.length, b"".join(value.pieces)) == ("UT", 70_000, b"x" * 70_000)
        for wrong in (
            "0040A730",
            "0040A730/2/00081140",
            "0040A730/1/0040A160",
            "zz",
            "0040A730/1",
            "0040A730/-1/00081140",
            "0040A730/\n1/0040A160",
            "0040_730",
        ):
            with pytest.raises(NoSuchValue):
                found(stream, path, wrong)


def found(stream: Any, path: Path, where: str) -> dicomjson.BulkValue:
    located = locate(path)
    source, encoding = dicomjson.opened_at(stream, located.dataset_offset, located.transfer_syntax_uid, "it")
    assert isinstance(encoding, Encoding)
    return dicomjson.bulk_value(source, encoding, dicomjson.steps_of(where))


def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path) -> None:
    data = make("SR").part10()
    for end in range(len(data) - 1, 400, -97):
        path = tmp_path / "cut.dcm"
        path.write_bytes(data[:end])
        try:
            told(path)
        except NotDicom:
            continue
        assert dcmread(io.BytesIO(data[:end]))
