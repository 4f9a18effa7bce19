"""dcmmkdir refuses under its own profile options what our rules refuse, but for the differences that are listed."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from media.part10 import file_meta
from media.profile_rules import check, facts_of, rule_sets
from media.profiles import Profile, profile
from tests.makers import EXPLICIT_LE, encode, make, uid
from tests.media.test_profile_rules import CONFORMING, CT, DX, MR, SC, US, US_MF, XA, cases

OPTIONS = {
    "-Pbc": "STD-XABC-CD",
    "-Pxa": "STD-XA1K-CD",
    "-Pus": "STD-US-ID-SF-CDR",
    "--ultrasound-sc-sf": "STD-US-SC-SF-CDR",
    "--ultrasound-cc-sf": "STD-US-CC-SF-CDR",
    "-Pum": "STD-US-ID-MF-CDR",
    "--ultrasound-sc-mf": "STD-US-SC-MF-CDR",
    "--ultrasound-cc-mf": "STD-US-CC-MF-CDR",
    "-Pcm": "STD-CTMR-CD",
    "-Pde": "STD-DEN-CD",
}
MODALITY = {XA: "XA", SC: "OT", CT: "CT", MR: "MR", US: "US", US_MF: "US", DX: "DX"}


class Difference(NamedTuple):
    """Where one of the two refuses and the other does not."""

    who: str
    """Who refuses: ``ours`` or ``dcmmkdir``."""
    option: str
    """Regular expression of the options."""
    case: str
    """Regular expression of the case: set, number of the rule, attribute, how it is broken; or ``conforming``."""
    why: str


DIFFERENCES = [
    Difference(
        "ours",
        "-Pbc|-Pxa|-Pde|-Pcm",
        r" (Bits|High|Samples|Pixel).* several ",
        "of a number with several values it looks at the first one only; these have one value (PS3.6)",
    ),
    Difference("ours", "-Pxa", "B.3-4 7 Pixel Representation empty ", "it takes an empty number for 0"),
    Difference(
        "ours",
        "-Pcm",
        "E.3-5 [1-7] ",
        "it checks those of Tables E.3-5 and E.3-6 only where Photometric Interpretation is absent (a test negated)",
    ),
    Difference("dcmmkdir", "-Pcm", "E.3-4 conforming 1[345]$", "Table E.3-4 has 8 and 12 to 16, not 8, 12 and 16"),
    Difference("ours", "-Pu.|--ultra.*", "C.3-2 [45] Samples", "it does not look at PS3.11 C.3.1.1"),
    Difference("ours", "-Pu.|--ultra.*", "C.3-2 6 Number", "it takes single frame images of several frames"),
    Difference("ours", "-Pum|--ultra.*-mf", "C.3-2 7 Number", "it takes multi-frame images without a number of frames"),
    Difference(
        "ours",
        "--ultrasound-cc-..",
        "C.5 12 Pixel Component Organization (other|several) ",
        "it looks for it in the data set instead of the item, finds none and takes it for 0",
    ),
    Difference(
        "dcmmkdir",
        "--ultrasound-cc-..",
        "C.5 conforming .* [123]$",
        "for the same reason it demands of every region what those of bit aligned pixel components have",
    ),
]


class Case(NamedTuple):
    name: str
    syntax: str
    made: Dataset


def complete(row: Profile, syntax: str, part: Dataset) -> Dataset:
    """The data set with what a directory record, and every other set of the profile, demands beside it."""
    made = copy.deepcopy(part)
    of_class = [one for name in row.rules for one in CONFORMING[name] if one[1].SOPClassUID == part.SOPClassUID]
    others = [other for _, other in sorted(of_class, key=lambda one: one[0] != syntax)]
    common = make("CT").dataset
    for keyword in ("Modality", "PixelData", "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
        if keyword in common:
            del common[keyword]
    common.Modality = MODALITY[str(part.SOPClassUID)]
    for other in [*others, common]:
        for element in other:
            if element.tag not in made:
                made[element.tag] = copy.deepcopy(element)
    return made


def of_profile(row: Profile) -> Iterator[Case]:
    """Conforming data sets of each set of the profile, and those that break each of its rules in every way."""
    for name in row.rules:
        full = [(syntax, complete(row, syntax, part)) for syntax, part in CONFORMING[name]]
        full = [(syntax, made) for syntax, made in full if not row.violations(str(made.SOPClassUID), syntax)]
        for syntax, made in full:
            regions = made.get("SequenceOfUltrasoundRegions") or [made]
            about = f"{made.get('BitsStored')} {regions[0].get('PixelComponentOrganization')}"
            yield Case(f"{name} conforming {about}".removesuffix(" None"), syntax, made)
        for number, rule in enumerate(rule_sets()[name]):
            for word, syntax, made in cases(rule, full):
                yield Case(f"{name} {number} {rule.name} {word}", syntax, made)


def refused_by_dcmmkdir(folder: Path, option: str, count: int) -> tuple[set[str], str]:
    """Names of the files that it made no record for, and what it said."""
    run = subprocess.run(
        ["dcmmkdir", option, "+D", str(folder / "DICOMDIR"), "+id", str(folder), "+r"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    directory = dcmread(folder / "DICOMDIR")
    held = {
        str(record.ReferencedFileID) for record in directory.DirectoryRecordSequence if "ReferencedFileID" in record
    }
    assert held, run.stderr
    return {f"F{number:05d}" for number in range(count)} - held, run.stderr


@pytest.mark.peer("dcmmkdir")
@pytest.mark.parametrize("option", list(OPTIONS))
def test_dcmmkdir_refuses_the_same(option: str, tmp_path: Path) -> None:
    row = profile(OPTIONS[option])
    ours: set[str] = set()
    names: dict[str, str] = {}
    for number, case in enumerate(of_profile(row)):
        made = copy.deepcopy(case.made)
        made.StudyInstanceUID, made.SeriesInstanceUID = uid("study", number), uid("series", number)
        made.SOPInstanceUID = uid("rules", number)
        path = tmp_path / f"F{number:05d}"
        meta = file_meta(str(made.SOPClassUID), str(made.SOPInstanceUID), case.syntax)
        path.write_bytes(meta + encode(made, EXPLICIT_LE))
        names[path.name] = case.name
        if check(row, facts_of(path)):
            ours.add(path.name)
    theirs, said = refused_by_dcmmkdir(tmp_path, option, len(names))
    unexplained = []
    expected = {one for one in DIFFERENCES if re.fullmatch(one.option, option)}
    seen = set()
    for who, files in (("ours", ours - theirs), ("dcmmkdir", theirs - ours)):
        for file in sorted(files):
            why = [one for one in expected if one.who == who and re.search(one.case, names[file])]
            seen.update(why)
            if not why:
                lines = [line for line in said.splitlines() if file in line]
                unexplained.append(f"{who} only: {names[file]}: {lines}")
    assert not unexplained, "\n".join(unexplained)
    assert ours & theirs
    assert not expected - seen, "a difference that is listed is none"
