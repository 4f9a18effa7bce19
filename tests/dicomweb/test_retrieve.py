"""WADO-RS: what was stored comes back, in the form that was asked for."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import imagecodecs
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from sqlalchemy import select, update

from media.elements import swapped
from service import telling
from service.app import Workshop
from store.models import Instance
from store.models_audit import AuditRecord
from tests.dicomweb.conftest import Web
from tests.dicomweb.test_store import multipart, post, read
from tests.makers import DEFLATED, EXPLICIT_BE, EXPLICIT_LE, PATIENTS, make, study
from tests.waiting import wait_for

ANY_SYNTAX = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'


def path_of(dataset: Dataset) -> str:
    return f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"


def stored(web: Web, *names: str) -> list[Dataset]:
    sets = []
    for name in names:
        file = Path(get_testdata_file(name))
        assert post(web, *multipart(file.read_bytes())).status_code == 200, name
        sets.append(dcmread(file))
    return sets


def parts(answer: Any) -> list[tuple[str, bytes]]:
    """Content type and bytes of each part."""
    assert answer.status_code in (200, 206), answer.text
    boundary = answer.headers["content-type"].rpartition("boundary=")[2].encode()
    found = []
    for part in answer.content.split(b"--" + boundary)[1:-1]:
        head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        found.append((head.decode().partition(": ")[2], body[:-2]))
    assert answer.content.endswith(b"--" + boundary + b"--\r\n")
    return found


def test_a_study_comes_back_as_it_was(web: Web) -> None:
    made = [*study("CT", 3, seed=1), make("SR", seed=1, series=2)]
    post(web, *multipart(*(one.part10() for one in made)))
    got = web.client.retrieve_study(made[0].study_instance_uid)
    assert {one.SOPInstanceUID: one for one in got} == {one.sop_instance_uid: read(one) for one in made}
    series = web.client.retrieve_series(made[0].study_instance_uid, read(made[3]).SeriesInstanceUID)
    assert [one.SOPInstanceUID for one in series] == [made[3].sop_instance_uid]


@pytest.mark.parametrize("syntax", [EXPLICIT_BE, DEFLATED])
def test_explicit_little_endian_is_the_default(web: Web, syntax: str) -> None:
    made = make("CT", seed=1, transfer_syntax_uid=syntax)
    post(web, *multipart(made.part10()))
    at, pixels = path_of(made.dataset), made.dataset.PixelData
    if syntax == EXPLICIT_BE:
        pixels = swapped(pixels, 2)
    plain = web.get(at, "application/dicom")
    assert plain.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT_LE}"
    dataset = dcmread(io.BytesIO(plain.content))
    assert (dataset.file_meta.TransferSyntaxUID, dataset.PixelData) == (EXPLICIT_LE, pixels)
    ((kind, held),) = parts(web.get(at, 'multipart/related; type="application/dicom"; transfer-syntax=*'))
    assert kind == f"application/dicom; transfer-syntax={syntax}"
    assert held[-100:] == made.part10()[-100:]
    assert web.get(at, f"application/dicom; transfer-syntax={syntax}").status_code == 200
    refused = web.get(at, "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90")
    assert refused.status_code == 406 and EXPLICIT_LE in refused.json()["detail"]
    frame = parts(web.get(f"{at}/frames/1"))
    assert frame == [(f"application/octet-stream; transfer-syntax={EXPLICIT_LE}", pixels)]
    told = web.get(f"{at}/metadata").json()[0]
    where = told["7FE00010"]["BulkDataURI"].removeprefix(web.dicomweb)
    assert web.get(where, "application/octet-stream").content == pixels


def test_a_frame_that_is_not_there_has_a_status(web: Web) -> None:
    made = make("CT", seed=1, NumberOfFrames="3")  # pixel data of one
    post(web, *multipart(made.part10()))
    for numbers in ("3", "1,3"):
        refused = web.get(f"{path_of(made.dataset)}/frames/{numbers}", ANY_SYNTAX)
        assert (refused.status_code, "more than the" in refused.json()["detail"]) == (409, True)


def test_metadata_is_the_data_set_without_bulk_data(web: Web) -> None:
    made = [make(kind, seed=1, patient=PATIENTS["japanese"]) for kind in ("CT", "SR", "SEG", "RTDOSE", "ECG", "PDF")]
    post(web, *multipart(*(one.part10() for one in made)))
    for one in made:
        (told,) = web.get(f"{path_of(one.dataset)}/metadata").json()
        bulk: list[str] = []
        dataset = Dataset.from_json(json.dumps(told), bulk_data_uri_handler=bulk.append)
        for element in one.dataset:
            if (
                element.tag.element
                and element.VR not in ("OB", "OW", "SQ")
                and element.keyword != "SpecificCharacterSet"
            ):
                assert dataset[element.tag].value == element.value, element
            elif element.VR == "SQ":
                assert len(dataset[element.tag].value) == len(element.value)
        assert dataset.PatientName.ideographic == "山田^太郎"
        for uri in bulk:
            assert web.get(uri.removeprefix(web.dicomweb), "application/octet-stream").content
    series = web.get(f"/studies/{made[0].study_instance_uid}/metadata")
    assert len(series.json()) == len([one for one in made if one.study_instance_uid == made[0].study_instance_uid])
    assert web.get(f"/studies/{made[0].study_instance_uid}/metadata", "application/dicom+xml").status_code == 406


def test_bulk_data_in_items(web: Web) -> None:
    from pydicom.sequence import Sequence

    item = Dataset()
    item.add_new(0x00189810, "OB", bytes(range(256)) * 20)
    made = make("CT", seed=1, IconImageSequence=Sequence([Dataset(), item]))
    post(web, *multipart(made.part10()))
    at = path_of(made.dataset)
    told = web.get(f"{at}/metadata").json()[0]
    uri = told["00880200"]["Value"][1]["00189810"]["BulkDataURI"]
    assert uri.endswith("/bulkdata/00880200/2/00189810")
    assert parts(web.get(uri.removeprefix(web.dicomweb))) == [("application/octet-stream", bytes(range(256)) * 20)]
    for wrong in ("00880200/3/00189810", "00880200", "0088020/1/0", "7FE00011", "00880200/x/00189810", "x"):
        assert web.get(f"{at}/bulkdata/{wrong}").status_code == 404, wrong


def test_compressed_frames_come_as_held_or_decoded(web: Web) -> None:
    jpeg, j2k, rle, many = stored(
        web, "SC_rgb_jpeg_dcmtk.dcm", "examples_jpeg2k.dcm", "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm"
    )
    for dataset, kind in ((jpeg, "image/jpeg"), (j2k, "image/jp2"), (rle, "image/dicom-rle"), (many, "image/jpeg")):
        syntax = dataset.file_meta.TransferSyntaxUID
        at = path_of(dataset)
        count = int(dataset.get("NumberOfFrames", 1))
        frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
        wanted = ",".join(str(number) for number in range(1, count + 1))
        held = parts(web.get(f"{at}/frames/{wanted}", f'multipart/related; type="{kind}"'))
        assert {one for one, _ in held} == {f"{kind}; transfer-syntax={syntax}"}
        assert [frame.rstrip(b"\0") for _, frame in held] == [frame.rstrip(b"\0") for frame in frames]
        ((told, _),) = parts(web.get(f"{at}/frames/{count}", ANY_SYNTAX))
        assert told == f"application/octet-stream; transfer-syntax={syntax}"
        ((told, decoded),) = parts(
            web.get(f"{at}/frames/{count}", 'multipart/related; type="application/octet-stream"')
        )
        assert told == f"application/octet-stream; transfer-syntax={EXPLICIT_LE}"
        assert len(decoded) == dataset.Rows * dataset.Columns * 3
    ((_, second),) = parts(web.get(f"{path_of(rle)}/frames/2"))
    planes = rle.pixel_array[1].transpose(2, 0, 1) if rle.PlanarConfiguration else rle.pixel_array[1]
    assert second == planes.tobytes()
    plain = web.get(path_of(j2k), "application/dicom")
    assert dcmread(io.BytesIO(plain.content)).file_meta.TransferSyntaxUID == EXPLICIT_LE


@pytest.mark.parametrize(
    ("rest", "accept", "status"),
    [
        ("/frames/2", "", 404),
        ("/frames/0", "", 404),
        ("/frames/1,x", "", 400),
        ("/frames/1", "image/jpeg", 406),
        ("/frames/1", 'multipart/related; type="image/jp2"', 406),
        ("/frames/1", "application/octet-stream", 200),
        ("/rendered", "text/html", 406),
        ("/rendered?window=40,400,sigmoid", "", 400),
        ("/rendered?window=40,x,linear", "", 400),
        ("/rendered?viewport=100", "", 400),
        ("/rendered?quality=0", "", 400),
        ("/frames/9/rendered", "", 406),
        ("?accept=application/dicom", "", 200),
        ("?accept=text/html", "", 406),
    ],
)
def test_what_cannot_be_is_said(shared: Web, rest: str, accept: str, status: int) -> None:
    made = make("CT", seed=1)
    if not shared.operations.studies():
        post(shared, *multipart(made.part10()))
    answer = shared.get(f"{path_of(made.dataset)}{rest}", accept)
    assert answer.status_code == status, answer.text
    if status >= 400:
        assert answer.json()["detail"]


def test_pictures(web: Web) -> None:
    (many,) = stored(web, "examples_ybr_color.dcm")
    at = path_of(many)
    picture = web.get(f"{at}/rendered?viewport=120,100")
    assert picture.headers["content-type"] == "image/jpeg"
    assert imagecodecs.jpeg8_decode(picture.content).shape == (75, 100, 3)
    frame = web.get(f"{at}/frames/3/rendered", "image/png")
    assert imagecodecs.png_decode(frame.content).shape == (240, 320, 3)
    made = make("CT", seed=1, size=64 * 64 * 2)
    post(web, *multipart(made.part10()))
    wide = web.get(f"{path_of(made.dataset)}/rendered?window=0,100000,linear", "image/png").content
    narrow = web.get(f"{path_of(made.dataset)}/rendered?window=0,2,linear", "image/png").content
    assert imagecodecs.png_decode(wide).std() < imagecodecs.png_decode(narrow).std()
    for level in (f"/studies/{many.StudyInstanceUID}", at, f"{at}/frames/2"):
        assert max(imagecodecs.jpeg8_decode(web.get(f"{level}/thumbnail").content).shape[:2]) == 128
    document = make("PDF", seed=1)
    post(web, *multipart(document.part10()))
    assert web.get(f"{path_of(document.dataset)}/rendered").json()["code"] == "NO_PICTURE"
    assert web.get(f"{path_of(document.dataset)}/frames/1").status_code == 404


def test_what_is_on_discs_only_is_said(web: Web) -> None:
    made = list(study("CT", 2, seed=1))
    post(web, *multipart(*(one.part10() for one in made)))
    gone = made[1]
    with web.operations.context.db.begin() as session:
        session.execute(update(Instance).where(Instance.instance_number == 2).values(spool_path=None))
    answer = web.get(path_of(gone.dataset), "application/dicom")
    assert answer.status_code == 404 and "any more" in answer.json()["detail"]
    partly = web.get(f"/studies/{gone.study_instance_uid}")
    assert partly.status_code == 206 and partly.headers["warning"].startswith('299 burnish "1 further')
    assert len(parts(partly)) == 1
    assert web.get(f"/studies/{gone.study_instance_uid}/metadata").status_code == 206
    assert web.get("/studies/1.2.3").status_code == 404
    assert web.get(f"/studies/{gone.study_instance_uid}/series/1.2.3/metadata").status_code == 404


def test_what_a_disc_holds_within_reach_is_read_from_it(web: Web) -> None:
    made = list(study("CT", 2, seed=1))
    post(web, *multipart(*(one.part10() for one in made)))
    operations = web.operations
    job = operations.burn(selection={"all": True}, plan=None, options={})["job"]
    with Workshop(operations.context.settings) as workshop:
        workshop.engine.submit(int(job[1:]))
        wait_for(lambda: operations.job(job)["state"] == "DONE", "the disc")
    assert operations.purge(min_copies=1, dry_run=False)["instances"] == 2
    at = path_of(made[0].dataset)
    assert web.get("/studies").json()[0]["00080056"]["Value"] == ["NEARLINE"]
    plain = dcmread(io.BytesIO(web.get(at, "application/dicom").content))
    assert plain.PixelData == made[0].dataset.PixelData
    assert web.get(f"{at}/metadata").json()[0]["00080018"]["Value"] == [made[0].sop_instance_uid]
    ((_, frame),) = parts(web.get(f"{at}/frames/1"))
    assert frame == made[0].dataset.PixelData
    assert web.get(f"{at}/rendered").headers["content-type"] == "image/jpeg"
    Path(operations.job(job)["discs"][0]["image"]).unlink()
    for path in (at, f"{at}/metadata", f"{at}/frames/1", f"{at}/thumbnail", f"/studies/{plain.StudyInstanceUID}"):
        gone = web.get(path)
        assert (gone.status_code, gone.json()["code"]) == (503, "OFFLINE")
        assert operations.job(job)["discs"][0]["file_set_id"] in gone.json()["detail"]
    (found,) = web.get("/studies").json()
    assert found["00080056"]["Value"] == ["OFFLINE"] and "00081190" not in found
    spool = operations.context.spool.root
    assert not [file for file in spool.rglob("*") if file.is_file()]


def test_who_saw_what_is_in_the_audit_trail(web: Web) -> None:
    made = make("CT", seed=1)
    post(web, *multipart(made.part10()))
    for _ in range(3):
        web.get(f"{path_of(made.dataset)}/frames/1")
    web.get(path_of(made.dataset))
    web.get("/studies?PatientName=Doe*")
    telling.finish(web.operations.context.db)
    with web.operations.context.db.read() as session:
        kinds = sorted(session.scalars(select(AuditRecord.event)))
        asked = session.scalars(select(AuditRecord.message).where(AuditRecord.event == "query")).one()
    assert kinds == ["accessed", "query", "transferred"]
    assert base64.b64encode(b"PatientName=Doe*").decode() in asked
