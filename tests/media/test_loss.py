"""What is lost of a damaged medium is told by patient, study, series and instance."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from media.loss import Lost, lost_by_catalogue
from media.problems import Problem, ProblemKind
from media.trees import IsoTree
from media.verify import Expected, verify_path, verify_tree
from tests.faulty import FaultyDrive
from tests.makers import PATIENTS, disc_image, file_set, make, our_disc, study


@pytest.fixture
def image(tmp_path: Path) -> Path:
    made = [*study("CT", 3, seed=1), *study("MR", 2, seed=2, patient=PATIENTS["german"])]
    return our_disc(tmp_path / "disc.iso", made)


def files(image: Path) -> list[str]:
    with IsoTree(image) as tree:
        return sorted(name for name in tree.files if name.startswith("DICOM/"))


def sector(image: Path, name: str) -> int:
    with IsoTree(image) as tree:
        return tree.extents(name)[0][0] // 2048


def test_a_sound_medium_has_lost_nothing(image: Path) -> None:
    assert verify_path(image).lost == ()


def test_by_the_directory_of_the_disc(image: Path) -> None:
    names = files(image)
    with image.open("r+b") as out:  # one changed, one unreadable
        out.seek(sector(image, names[0]) * 2048 + 200)
        out.write(b"\xff\x00\xff")
    with IsoTree(image, FaultyDrive(image, [sector(image, names[-1])])) as tree:
        result = verify_tree(tree)
    first, last = sorted(result.lost, key=lambda one: one.file)
    assert (first.file, first.kind, first.modality) == (names[0], "DIGEST", "MR")
    assert (last.file, last.kind, last.modality) == (names[-1], "UNREADABLE", "CT")
    german = PATIENTS["german"]
    assert first.patient_name == german.name and first.patient_id == german.patient_id
    assert last.sop_instance_uid and last.study_instance_uid and last.series_instance_uid
    assert german.name in first.series_text and "MR" in first.series_text
    assert last.sop_instance_uid in last.instance_text and names[-1] in last.instance_text


def test_by_the_manifest_where_the_directory_cannot_be_read(image: Path) -> None:
    names = files(image)
    bad = [sector(image, "DICOMDIR"), sector(image, names[1])]
    with IsoTree(image, FaultyDrive(image, bad)) as tree:
        result = verify_tree(tree)
    assert [(one.file, one.kind) for one in result.lost] == [(names[1], "UNREADABLE")]
    assert result.lost[0].series_text == "unknown patient"


def test_by_a_catalogue_whatever_the_disc_says(image: Path) -> None:
    sound = verify_path(image)
    names = files(image)
    with IsoTree(image, FaultyDrive(image, [sector(image, "DICOMDIR"), sector(image, "MANIFEST.TXT")])) as tree:
        result = verify_tree(tree, expect=Expected(files={name: sound.digests[name] for name in names}))
    assert {problem.file for problem in result.problems if problem.kind is not ProblemKind.UNREADABLE} == set()
    known = [{"file": name, "sha256": sound.digests[name], "patient_id": "1", "series_number": 7} for name in names]
    assert lost_by_catalogue(known, result.digests, result.problems) == ()
    known[2]["sha256"] = "0" * 64
    known.append({"file": "DICOM/GONE", "sha256": "1" * 64})
    changed, gone = lost_by_catalogue(known, result.digests, [Problem(ProblemKind.MISSING, "DICOM/GONE", "")])
    assert changed == Lost(names[2], "DIGEST", patient_id="1", series_number="7")
    assert gone == Lost("DICOM/GONE", "MISSING")


def test_the_catalogue_names_what_is_not_as_it_has_it(image: Path) -> None:
    first, *_ = files(image)
    result = verify_path(image, expect=Expected(files={first: "0" * 64, "DICOM/GONE": "1" * 64}))
    assert {(problem.kind.value, problem.file) for problem in result.problems} == {
        ("DIGEST", first),
        ("MISSING", "DICOM/GONE"),
    }


def test_other_makers_discs_lose_what_is_gone_or_cut_off_not_what_was_badly_written(tmp_path: Path) -> None:
    folder = file_set(tmp_path / "set", [make("CT", number=n) for n in range(1, 5)])
    cut, gone, odd, *_ = sorted(path for path in folder.glob("PT*/**/*") if path.is_file())
    cut.write_bytes(cut.read_bytes()[:-100])
    gone.unlink()
    data = bytearray(odd.read_bytes())
    data[140] ^= 1  # the group length of the file meta information
    odd.write_bytes(data)
    result = verify_path(folder)
    assert {(one.file, one.kind) for one in result.lost} == {
        (cut.relative_to(folder).as_posix(), "STRUCTURE"),
        (gone.relative_to(folder).as_posix(), "MISSING"),
    }
    assert verify_path(disc_image(tmp_path / "x.iso", folder)).lost
    shutil.rmtree(folder)
