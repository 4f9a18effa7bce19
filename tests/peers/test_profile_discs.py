"""A conforming set under every application profile: planned, written, right for verify, and taken by dcmmkdir.

A profile that is added to the table is tested here without a line written; only its option of dcmmkdir is data.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from jobs.assemble import volume_image
from jobs.options import RequestOptions
from jobs.plandocument import plan_document
from jobs.planning import create_request, make_plan
from media.dicomdir_reader import read
from media.profiles import Profile, profiles
from media.trees import open_tree
from media.verify import verify_path
from store.instances import Provenance, Registrar, ingest_file
from store.models_jobs import Volume
from store.selection import Selection
from tests.jobs.conftest import House, house
from tests.makers import KINDS, Made, make, us_region

__all__ = ["house"]

READY = [name for name, row in profiles().items() if row.status == "ready"]
_USES = {"ID": "id", "SC": "sc", "CC": "cc"}
OPTIONS = {
    **dict.fromkeys(("STD-GEN-CD", "STD-GEN-DVD-RAM", "STD-GEN-BD"), "-Pgp"),
    "STD-GEN-DVD-JPEG": "-Pdv",
    "STD-GEN-DVD-J2K": "-Pd2",
    "STD-GEN-BD-JPEG": "-Pbd",
    "STD-GEN-BD-J2K": "-Pb2",
    **{f"STD-GEN-{card}-JPEG": "-Pfl" for card in ("USB", "MMC", "CF", "SD")},
    **{f"STD-GEN-{card}-J2K": "-Pf2" for card in ("USB", "MMC", "CF", "SD")},
    "STD-XABC-CD": "-Pbc",
    "STD-XA1K-CD": "-Pxa",
    "STD-XA1K-DVD": "-Pxd",
    "STD-DEN-CD": "-Pde",
    **{f"STD-CTMR-{medium}": "-Pcm" for medium in ("MOD41", "CD", "DVD-RAM", "DVD")},
    **{
        f"STD-US-{use}-{frames}-{medium}": f"--ultrasound-{_USES[use]}-{frames.lower()}"
        for use in _USES
        for frames in ("SF", "MF")
        for medium in ("MOD23-90", "CDR", "DVD-RAM", "DVD")
    },
    "STD-DVD-MPEG2-MPML": "-Pmp",
    "STD-GEN-BD-MPEG2-MPML": "-Pbm",
    "STD-GEN-BD-MPEG2-MPHL": "-Pbh",
    "STD-GEN-BD-MPEG4-HPLV41": "-Pba",
    "STD-GEN-BD-MPEG4-HPLV41BD": "-Pbb",
    "STD-GEN-BD-MPEG4-HPLV42-2D": "--general-bd-mpeg4-hp2d",
    "STD-GEN-BD-MPEG4-HPLV42-3D": "--general-bd-mpeg4-hp3d",
    "STD-GEN-BD-MPEG4-SHPLV42": "--general-bd-mpeg4-hpst",
}
"""The profile option of dcmmkdir; the augmented profiles have none."""
VIDEO = "1.2.840.10008.1.2.4.10"


def conforming(row: Profile) -> Iterator[Made]:
    """One instance of every kind that the profile takes."""
    if row.reads[0].startswith(VIDEO):
        size = {} if row.reads[0].endswith(".100") else {"Rows": 1080, "Columns": 1920}
        for number in (1, 2):
            yield make("VIDEO", number=number, transfer_syntax_uid=row.reads[0], **size)
        return
    for series, kind in enumerate(KINDS, 1):
        made = make(kind, series=series, change=_change(row, kind))
        if row.class_violation(made.sop_class_uid) is None:
            yield made


def _change(row: Profile, kind: str) -> object:
    """Secondary captures are grey where the profile has rules on them; ultrasound is calibrated."""

    def change(ds: Dataset) -> None:
        if kind == "SC" and row.rules:
            ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
            del ds.PlanarConfiguration
            ds.PixelData = ds.PixelData[: ds.Rows * ds.Columns]
        if kind == "US":
            ds.SequenceOfUltrasoundRegions = [us_region(ds)]

    return change


def disc(house: House, row: Profile, folder: Path) -> tuple[Path, int]:
    """The image of a conforming set, and how many instances it has."""
    registrar = Registrar(house.db, house.ctx.spool)
    (folder / "in").mkdir()
    count = 0
    for made in conforming(row):
        ingest_file(registrar, made.write(folder / "in"), provenance=Provenance("A", "BURNISH", "test"))
        count += 1
    options = RequestOptions.from_settings(house.settings, {"profile": row.identifier, "iod": "strict"})
    with house.db.begin() as session:
        request = create_request(session, selection=Selection(all=True), options=options, source="test")
    plan = make_plan(house.ctx, request)
    with house.db.read() as session:
        document = plan_document(session, plan)
        (volume,) = session.query(Volume.id).filter_by(plan_id=plan).one()
    assert document["refused"] == []
    assert document["volumes"][0]["instances"] == count > 0
    image = folder / "disc.iso"
    with image.open("wb") as out:
        volume_image(house.ctx, volume).write(out)
    return image, count


@pytest.mark.parametrize("identifier", READY)
def test_a_conforming_set_becomes_a_right_disc(identifier: str, house: House, tmp_path: Path) -> None:
    image, count = disc(house, profiles()[identifier], tmp_path)
    found = verify_path(image, profile=identifier)
    assert found.problems == ()
    assert (found.profile, len(found.instances)) == (identifier, count)


@pytest.mark.peer("dcmmkdir")
@pytest.mark.parametrize("identifier", sorted(set(READY) & set(OPTIONS)))
def test_dcmmkdir_takes_it_under_the_same_profile(identifier: str, house: House, tmp_path: Path) -> None:
    """Strict, without inventing anything: its exit status is 0 either way, so its words and records are read."""
    image, count = disc(house, profiles()[identifier], tmp_path)
    root = tmp_path / "copy"
    with open_tree(image) as tree:
        ours = read(tree.open("DICOMDIR").read())
        paths = ["/".join(record.file_id) for record in ours.records if record.file_id]
        for name in paths:
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(tree.open(name), out)
    command = ["dcmmkdir", OPTIONS[identifier], "-nb", "+D", "THEIRS", "+id", ".", *paths]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if line[:2] in ("E:", "W:", "F:")]
    assert complaints == []
    theirs = read((root / "THEIRS").read_bytes())
    assert sum(bool(record.file_id) for record in theirs.records) == count == len(paths)


def test_every_ready_profile_has_an_option_or_is_augmented() -> None:
    assert {name for name in READY if not name.startswith("AUG-")} == set(OPTIONS)
