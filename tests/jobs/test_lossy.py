"""Lossy compression of a request: what is protected stays whole, what refers to the others follows, discs verify."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from config.settings import load
from jobs.assemble import volume_items
from jobs.context import Context
from jobs.documents import job_document
from media.recipes import is_lossy
from media.verify import verify_path
from store import migrate, purging
from store.catalogue import find
from store.checks import volume_document
from store.db import Database
from store.models import Derived
from store.models_jobs import Volume
from store.selection import Selection, instance_ids
from store.spool import Spool
from store.states import JobState
from tests.jobs.conftest import House
from tests.jobs.test_correcting import burnt, files, found, ingest, plan, volumes
from tests.makers import Made, make

MG = "1.2.840.10008.5.1.4.1.1.1.2"
J2K, J2K_LOSSLESS = "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.90"
LOSSY: dict[str, Any] = {"profile": "STD-GEN-DVD-J2K", "compress": "lossy", "allow_lossy": True}


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    database = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    migrate.upgrade(database)
    settings = load(data=tmp_path / "data")
    yield Context(settings, database, Spool(settings.spool_dir, node="test", high_water_percent=100.0, max_bytes=0))
    database.close()


def smooth(ds: Dataset) -> None:
    """Pixel data as of an image, not noise."""
    ds.Rows = ds.Columns = 64
    start = 16 * int(ds.InstanceNumber)
    ds["PixelData"].value = struct.pack("<4096H", *(start + 20 * (n % 64) + 10 * (n // 64) for n in range(4096)))


def refers(*made: Made) -> Any:
    """A change to a data set: it refers to these, and is smooth if it is an image."""

    def change(ds: Dataset) -> None:
        if "PixelData" in ds:
            smooth(ds)
        ds.ReferencedImageSequence = []
        for one in made:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
            ds.ReferencedImageSequence.append(item)

    return change


def referred(ds: Dataset) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in ds.ReferencedImageSequence]


def clinic() -> dict[str, Made]:
    """A mammogram, three CT of which two refer to each other, a key object note and a presentation state."""
    first = make("CT", number=1, change=smooth)
    second = make("CT", number=2)
    one = make("CT", number=1, change=refers(second))
    two = make("CT", number=2, change=refers(first))
    three = make("CT", number=3, change=smooth)
    mammogram = make("CT", series=2, SOPClassUID=MG, Modality="MG", change=refers(one, three))

    def key(ds: Dataset) -> None:
        ds.ContentSequence[1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = three.sop_instance_uid
        evidence = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = three.sop_instance_uid

    def state(ds: Dataset) -> None:
        image = ds.ReferencedSeriesSequence[0].ReferencedImageSequence[0]
        image.ReferencedSOPInstanceUID = one.sop_instance_uid

    return {
        "one": one, "two": two, "three": three, "mg": mammogram,
        "ko": make("KO", change=key), "pr": make("PR", change=state),
    }  # fmt: skip


def test_mammography_stays_whole_and_references_follow(ctx: Context, tmp_path: Path) -> None:
    made = clinic()
    ingest(ctx, tmp_path / "in", *made.values())
    document = plan(ctx, **LOSSY)
    assert document["refused"] == []
    new = {c["old"]: c["new"] for c in document["changes"] if c["tag"] == "(0008,0018)"}
    assert new.keys() == {made[name].sop_instance_uid for name in ("one", "two", "three")}
    discs = {str(ds.SOPInstanceUID): ds for ds in files(ctx, document)}
    on_disc = {name: discs[new.get(one.sop_instance_uid, one.sop_instance_uid)] for name, one in made.items()}
    for name in ("one", "two", "three"):
        ds = on_disc[name]
        assert ds.file_meta.TransferSyntaxUID == J2K and ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert ds.ImageType[0] == "DERIVED" and ds.LossyImageCompression == "01"
        assert ds.SourceImageSequence[-1].ReferencedSOPInstanceUID == made[name].sop_instance_uid
        raw, packed = 64 * 64 * 2, len(ds.PixelData) - 100
        assert float(ds.LossyImageCompressionRatio) == pytest.approx(raw / packed, rel=0.3)
    assert on_disc["mg"].file_meta.TransferSyntaxUID == J2K_LOSSLESS
    assert on_disc["mg"].pixel_array.tobytes() == made["mg"].dataset.PixelData
    # Those that refer to each other, the mammogram, the note and the presentation state all follow.
    assert referred(on_disc["one"]) == [new[made["two"].sop_instance_uid]]
    assert referred(on_disc["two"]) == [new[made["one"].sop_instance_uid]]
    assert referred(on_disc["mg"]) == [new[made["one"].sop_instance_uid], new[made["three"].sop_instance_uid]]
    picked = on_disc["ko"].ContentSequence[1].ReferencedSOPSequence[0]
    assert picked.ReferencedSOPInstanceUID == new[made["three"].sop_instance_uid]
    evidence = on_disc["ko"].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == new[made["three"].sop_instance_uid]
    shown = on_disc["pr"].ReferencedSeriesSequence[0].ReferencedImageSequence[0]
    assert shown.ReferencedSOPInstanceUID == new[made["one"].sop_instance_uid]
    for name in ("mg", "ko", "pr"):
        assert on_disc[name].SOPInstanceUID == made[name].sop_instance_uid
    told = {(group["what"], group["instances"]): group["note"] for group in document["compression"]}
    assert told["lossy, JPEG 2000 (1.2.840.10008.1.2.4.91)", 3] == ""
    ((_, note),) = [one for one in told.items() if "Lossless" in one[0][0]]
    assert "protected from lossy compression" in note
    (image,) = burnt(ctx, document, tmp_path)
    assert image.stat().st_size == document["volumes"][0]["sectors"] * 2048
    (fsid,) = [volume["file_set_id"] for volume in document["volumes"]]
    for old, now in new.items():
        assert found(ctx, sop=old) == found(ctx, sop=now) == [fsid]


def test_a_retry_gives_the_same_uids_and_bytes(ctx: Context, tmp_path: Path) -> None:
    ingest(ctx, tmp_path / "in", *clinic().values())
    first = plan(ctx, **LOSSY)
    digests = sorted(item.sha256 for v in volumes(ctx, first) for item, _ in volume_items(ctx, v.id))
    for path in ctx.settings.derived_dir.rglob("*.dcm"):
        path.unlink()
    again = plan(ctx, **LOSSY)
    assert again["changes"] == first["changes"]
    assert sorted(item.sha256 for v in volumes(ctx, again) for item, _ in volume_items(ctx, v.id)) == digests


def test_one_uid_is_not_given_to_two_contents(ctx: Context, tmp_path: Path) -> None:
    """Alone, an image refers to the original; beside the other one, to what became of it."""
    made = clinic()
    ingest(ctx, tmp_path / "in", *made.values())

    def new_uid(document: dict[str, Any]) -> str:
        return next(
            str(c["new"])
            for c in document["changes"]
            if c["tag"] == "(0008,0018)" and c["old"] == made["one"].sop_instance_uid
        )

    alone = plan(ctx, Selection(sop=(made["one"].sop_instance_uid,)), **LOSSY)
    both = plan(ctx, Selection(sop=(made["one"].sop_instance_uid, made["two"].sop_instance_uid)), **LOSSY)
    assert new_uid(alone) != new_uid(both) == new_uid(plan(ctx, **LOSSY))
    (ds,) = files(ctx, alone)
    assert referred(ds) == [made["two"].sop_instance_uid]
    # Whatever its patient is called, it is the same image.
    rule = {"name": "r", "set": {"PatientComments": "x"}}
    assert new_uid(plan(ctx, coerce=[rule], **LOSSY)) == new_uid(both)


def test_what_does_not_suit_stays_whole_under_its_own_uid(ctx: Context, tmp_path: Path) -> None:
    def floats(ds: Dataset) -> None:
        smooth(ds)
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 32, 32, 31
        ds["PixelData"].value = bytes(64 * 64 * 4)

    good, odd = make("CT", number=1, change=smooth), make("CT", number=2, change=floats)
    ingest(ctx, tmp_path / "in", good, odd, make("MR", change=refers(good, odd)))
    document = plan(ctx, **LOSSY)
    assert document["refused"] == []
    uids = {str(ds.SOPInstanceUID): ds for ds in files(ctx, document)}
    assert odd.sop_instance_uid in uids and good.sop_instance_uid not in uids
    (mr,) = [ds for ds in uids.values() if "ReferencedImageSequence" in ds]
    assert referred(mr)[1] == odd.sop_instance_uid and referred(mr)[0] in uids
    burnt(ctx, document, tmp_path)


def test_what_is_refused_is_referred_to_as_it_was(ctx: Context, tmp_path: Path) -> None:
    broken = make("CT", number=1, change=smooth, Rows=None)
    ingest(ctx, tmp_path / "in", broken, make("KO", change=refers(broken)), make("CT", number=2, change=smooth))
    document = plan(ctx, skip_refused=True, **LOSSY)
    there = files(ctx, document)
    refused = {one["sop_instance_uid"] for one in document["refused"]}
    kept = {str(ds.SOPInstanceUID) for ds in there}
    (note,) = [ds for ds in there if ds.Modality == "KO"]
    if broken.sop_instance_uid in refused | kept:
        assert referred(note) == [broken.sop_instance_uid]
    else:
        assert referred(note)[0] in kept


def test_a_lossy_copy_is_no_copy(ctx: Context, tmp_path: Path) -> None:
    made = clinic()
    ingest(ctx, tmp_path / "in", *made.values())
    burnt(ctx, plan(ctx, **LOSSY), tmp_path)
    report = purging.purge(ctx.db, ctx.spool, ctx.settings.derived_dir, purging.Policy(min_copies=1), dry_run=True)
    assert (report["instances"], report["kept"]) == (3, 3)
    with ctx.db.read() as session:
        assert len(instance_ids(session, Selection(not_on_disc=True))) == 3
        lossy = [row for row in session.query(Derived) if is_lossy(row.recipe.partition("+")[0])]
        assert len(lossy) == 3 and all(row.new_sop_instance_uid for row in lossy)
    burnt(ctx, plan(ctx), tmp_path)
    report = purging.purge(ctx.db, ctx.spool, ctx.settings.derived_dir, purging.Policy(min_copies=1), dry_run=True)
    assert report["instances"] == 6


def test_without_leave_nothing_is_lost(ctx: Context, tmp_path: Path) -> None:
    ingest(ctx, tmp_path / "in", *clinic().values())
    object.__setattr__(ctx.settings, "compress", ctx.settings.compress.model_copy(update={"default": "lossy"}))
    document = plan(ctx, profile="STD-GEN-DVD-J2K")
    assert not [c for c in document["changes"] if c["tag"] == "(0008,0018)"]
    assert {group["note"] for group in document["compression"]} == {"the request does not allow lossy compression"}
    assert pydicom.uid.JPEG2000Lossless in {ds.file_meta.TransferSyntaxUID for ds in files(ctx, document)}


def test_a_job_burns_verifies_and_reports_what_was_changed(any_house: House, tmp_path: Path) -> None:
    house = any_house
    ingest(house.ctx, tmp_path / "in", *clinic().values())
    rule = {"name": "moved", "set": {"PatientID": "NEW-1", "PatientName": "Müller^Änne"}}
    job_id = house.order(coerce=[rule], **LOSSY)
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    with house.db.read() as session:
        document = job_document(session, job_id)
    (disc,) = document["discs"]
    assert (disc["state"], disc["verified_by"]) == ("VERIFIED", "read-back")
    groups = {(one["tag"], one["new"]): one["instances"] for one in document["report"]["changed"]}
    assert groups["(0010,0020)", "NEW-1: rule moved"] == 6
    assert groups["(0008,1155)", "the reference follows the new SOP Instance UID"] == 5
    assert len(groups) < 25
    with house.db.read() as session:
        assert len(find(session, patient_name="muller")) == len(find(session, patient_id="NEW-1")) == 1
        (volume,) = session.query(Volume)
        told = volume_document(session, file_set_uid=volume.file_set_uid)
    assert b"NEW-1" in volume.readme and b"PAT-0001" not in volume.readme
    assert told is not None and {one["patient_id"] for one in told["instances"]} == {"NEW-1"}
    assert verify_path(Path(disc["image"])).ok
