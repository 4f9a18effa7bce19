"""Our DICOMDIRs before other programs: dcmdump, dciodvfy and pydicom read them, dcmmkdir writes the same keys."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.fileset import DIRECTORY_RECORDERS, FileSet
from pydicom.sequence import Sequence as PydicomSequence
from pydicom.uid import UID_dictionary

from media import part10, records
from media.dicomdir import dicomdir_bytes
from media.dicomdir_reader import Directory, Record, read
from media.fileids import FileIds
from media.header import read_header
from media.items import Item
from media.problems import InstanceRefused, NotDicom
from media.profile_keys import key_set
from media.uids import new_uid
from tests.makers import KINDS, PATIENTS, make, uid
from tests.media.directory import encoded, item_of

KNOWN = tomllib.loads(Path(__file__).with_name("dciodvfy_known.toml").read_text())["known"]
TEXT: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
PACKAGED = Path(str(get_testdata_file("CT_small.dcm"))).parent


def files_as_items(paths: Sequence[Path]) -> Iterator[Item]:
    """Every instance that can stand in a directory, once, under the transfer syntax that its file has."""
    seen: set[str] = set()
    for n, path in enumerate(paths, 1):
        try:
            located = part10.locate(path)
            header = read_header(path, offset=located.dataset_offset, transfer_syntax_uid=located.transfer_syntax_uid)
            if records.record_type(header.sop_class_uid) is None or not located.sop_class_uid:
                continue
            item = item_of(header, n, source=path)
        except (NotDicom, InstanceRefused):
            continue
        if item.sop_instance_uid not in seen:
            seen.add(item.sop_instance_uid)
            yield replace(item, transfer_syntax_uid=header.transfer_syntax_uid)


def made_items(folder: Path) -> list[Item]:
    """One valid instance of each kind, and a patient in each character set."""
    paths = [make(kind, series=n).write(folder) for n, kind in enumerate(KINDS)]
    paths += [make("CT", patient=patient, seed=n).write(folder) for n, patient in enumerate(PATIENTS.values(), 1)]
    return list(files_as_items(paths))


def packaged_items() -> list[Item]:
    return list(files_as_items(sorted(PACKAGED.rglob("*"))))


def shared_items(folder: Path) -> list[Item]:
    return list(files_as_items(sorted(path for path in folder.rglob("*") if path.is_file())))


def write_file_set(items: Sequence[Item], root: Path, keys: str | None = None) -> list[Path]:
    """A whole file-set in a folder, with that set of keys; the files' paths below it, in the order of the items."""
    ids = FileIds()
    named = [(item, ids.allocate(item)) for item in items]
    for item, file_id in named:
        target = root.joinpath(*file_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(item.source, target)
    (root / "DICOMDIR").write_bytes(
        dicomdir_bytes("PEERS_0001", new_uid(), named, keys=key_set(keys) if keys else None)
    )
    return [Path(*file_id) for _, file_id in named]


def chains(directory: Directory) -> dict[str, list[Record]]:
    """The records from the root down to each instance, by SOP Instance UID."""
    return {
        record.referenced_sop_instance_uid: [directory.records[n] for n in directory.path(index)]
        for index, record in enumerate(directory.records)
        if record.referenced_sop_instance_uid
    }


@pytest.mark.peer("dcmdump")
def test_dcmdump_reads_it(tmp_path: Path) -> None:
    items = made_items(tmp_path)
    write_file_set(items, tmp_path / "fs")
    done = subprocess.run(["dcmdump", "+E", tmp_path / "fs/DICOMDIR"], check=False, **TEXT)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
    assert done.stdout.count("DirectoryRecordType") == len(read((tmp_path / "fs/DICOMDIR").read_bytes()).records)


def test_pydicom_reads_it(tmp_path: Path) -> None:
    items = made_items(tmp_path) + packaged_items()
    write_file_set(items, tmp_path / "fs")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Invalid value for VR")
        warnings.filterwarnings("ignore", message="The value length")
        file_set = FileSet(tmp_path / "fs/DICOMDIR")
    assert file_set.ID == "PEERS_0001"
    assert sorted(instance.SOPInstanceUID for instance in file_set) == sorted(item.sop_instance_uid for item in items)
    for instance in list(file_set)[:20]:
        assert Path(instance.path).is_file()
        assert instance.load().SOPInstanceUID == instance.SOPInstanceUID


def errors_of_dciodvfy(dicomdir: Path) -> list[str]:
    done = subprocess.run(["dciodvfy", dicomdir], check=False, **TEXT)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def unknown(errors: list[str], record_type: str, *, real: bool) -> list[str]:
    patterns = [
        known["error"]
        for known in KNOWN
        if (not known["record_types"] or record_type in known["record_types"]) and (real or known.get("only") != "real")
    ]
    return [line for line in errors if not any(re.fullmatch(pattern, line.strip()) for pattern in patterns)]


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error(kind: str, tmp_path: Path) -> None:
    items = list(files_as_items([make(kind, patient=PATIENTS["german"]).write(tmp_path)]))
    write_file_set(items, tmp_path / "fs")
    assert unknown(errors_of_dciodvfy(tmp_path / "fs/DICOMDIR"), items[0].record_type, real=False) == []


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_on_a_whole_file_set(tmp_path: Path) -> None:
    items = made_items(tmp_path)
    write_file_set(items, tmp_path / "fs")
    assert unknown(errors_of_dciodvfy(tmp_path / "fs/DICOMDIR"), "", real=False) == []


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_on_packaged_files(tmp_path: Path) -> None:
    for n, item in enumerate(packaged_items()):
        write_file_set([item], tmp_path / str(n))
        assert unknown(errors_of_dciodvfy(tmp_path / str(n) / "DICOMDIR"), item.record_type, real=True) == []


KEYS_OF = {
    "-Pgp": "D.3-2",
    "-Pcm": "E.3-2",
    **dict.fromkeys(("-Pdv", "-Pd2", "-Pbd", "-Pb2", "-Pfl", "-Pf2"), "H.3-2"),
}
"""The set of additional keys that belongs to a profile option of dcmmkdir."""


def differences(items: Sequence[Item], root: Path, profile: str) -> list[str]:
    """Keys that dcmmkdir writes for the same files and that ours lacks or has otherwise, without what is explained.

    dcmmkdir's exit status is 0 even where it refuses a file, so its output is read.
    """
    paths = write_file_set(items, root, KEYS_OF[profile])
    command = ["dcmmkdir", profile, "+I", "+Nrs", "-Nxc", "-Nec", "-Nrc", "-W", "-nb", "+D", root / "THEIRS"]
    done = subprocess.run([*command, "+id", root, *paths], check=False, **TEXT, cwd=root)
    log = done.stdout + done.stderr
    ours, theirs = chains(read((root / "DICOMDIR").read_bytes())), chains(read((root / "THEIRS").read_bytes()))
    assert theirs, log
    assert set(theirs) <= set(ours)
    for path, item in zip(paths, items, strict=True):
        assert item.sop_instance_uid in theirs or str(path) in log, f"{path} silently left out"
    supplied = {
        (record, supply.record_type, supply.tag)
        for item in items
        for supply in item.supplied
        for record in (item.sop_instance_uid,)
    }
    found = []
    for instance, chain in theirs.items():
        assert [record.type for record in chain] == [record.type for record in ours[instance]]
        for their, our in zip(chain, ours[instance], strict=True):
            mine = our.elements
            for tag, (vr, value) in their.elements.items():
                text = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
                if _same(vr, value, mine.get(tag)) or (instance, their.type, text) in supplied:
                    continue
                found.append(f"{their.type} {text} {value[:60]!r} {mine.get(tag, ('', b''))[1][:60]!r}")
    return [line for line in found if not any(re.match(pattern, line) for pattern in EXPLAINED)]


def _same(vr: str, value: bytes, mine: tuple[str, bytes] | None) -> bool:
    """Equal but for padding; a value of blanks is none, and we write none where the key is of type 1C."""
    if vr not in ("SQ", "OB", "OW", "UN", "US", "UL", "SS"):
        return value.strip(b" \0") == (mine[1].strip(b" \0") if mine else b"")
    return mine is not None and value == mine[1]


EXPLAINED = {
    r"(IMAGE|SPECTROSCOPY) \(0008,1140\)": "PS3.11 Table D.3-2 names two elements of an item, dcmmkdir copies all",
}
"""What differs by intent: a pattern of a line that ``differences`` makes, and why."""


@pytest.mark.peer("dcmmkdir")
@pytest.mark.parametrize("profile", ["-Pgp", "-Pdv", "-Pd2", "-Pbd", "-Pb2", "-Pfl", "-Pf2"])
def test_every_key_of_dcmmkdir_for_made_instances(profile: str, tmp_path: Path) -> None:
    assert differences(made_items(tmp_path), tmp_path / "fs", profile) == []


@pytest.mark.peer("dcmmkdir")
def test_every_key_of_dcmmkdir_for_ct_and_mr(tmp_path: Path) -> None:
    """STD-CTMR; icons are compared in test_icon_peers."""
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
    more: dict[str, Any] = {"ReferencedImageSequence": PydicomSequence([reference])}
    paths = [make(kind, series=n, **more).write(tmp_path) for n, kind in enumerate(("CT", "MR"))]
    found = differences(list(files_as_items(paths)), tmp_path / "fs", "-Pcm")
    assert [line for line in found if not line.startswith("IMAGE (0088,0200)")] == []


def one_patient_an_id(items: Sequence[Item]) -> list[Item]:
    """dcmmkdir takes patients of one ID for one, and without an ID those of one name: leave it one of them."""
    first: dict[object, object] = {}
    return [
        item
        for item in items
        if (item.patient_id and first.setdefault(item.patient_id, item.patient) == item.patient)
        or (not item.patient_id and first.setdefault(item.patient, item.study_instance_uid) == item.study_instance_uid)
    ]


@pytest.mark.peer("dcmmkdir")
@pytest.mark.parametrize("profile", ["-Pgp", "-Pdv", "-Pbd"])
def test_every_key_of_dcmmkdir_for_packaged_files(profile: str, tmp_path: Path) -> None:
    items = one_patient_an_id(packaged_items())
    assert len(items) > 50
    assert differences(items, tmp_path / "fs", profile) == []


@pytest.mark.shared_data
@pytest.mark.peer("dcmmkdir")
@pytest.mark.parametrize("profile", ["-Pgp", "-Pdv", "-Pbd"])
def test_every_key_of_dcmmkdir_for_real_files(profile: str, shared_data: Path, tmp_path: Path) -> None:
    items = one_patient_an_id(shared_items(shared_data))
    assert len(items) > 150
    assert differences(items, tmp_path / "fs", profile) == []


@pytest.mark.shared_data
@pytest.mark.peer("dciodvfy", "dcmdump")
def test_real_files(shared_data: Path, tmp_path: Path) -> None:
    items = shared_items(shared_data)
    write_file_set(items, tmp_path / "fs")
    directory = read((tmp_path / "fs/DICOMDIR").read_bytes())
    assert directory.problems == []
    assert unknown(errors_of_dciodvfy(tmp_path / "fs/DICOMDIR"), "SPECTROSCOPY", real=True) == []
    done = subprocess.run(["dcmdump", "+E", tmp_path / "fs/DICOMDIR"], check=False, **TEXT)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if line.startswith("E:")]


@pytest.mark.shared_data
def test_media_of_other_makers(shared_data: Path) -> None:
    for path in sorted(shared_data.glob("filesets/*/DICOMDIR")):
        directory = read(path.read_bytes())
        assert directory.problems == []
        for record in directory.records:
            if record.file_id:
                header = read_header(path.parent.joinpath(*record.file_id))
                assert header.sop_instance_uid == record.referenced_sop_instance_uid


def bare_instance(record_type: str, folder: Path) -> Path:
    """An instance of the first SOP class of a record type that has every key of its records, and little else."""
    values: dict[str, Any] = {"DA": "20240229", "TM": "111500", "DT": "20240229111500", "IS": "3", "UI": "1.2.3"}
    values |= {
        "SH": "short",
        "UV": 2,
        "US": 2,
        "UL": 2,
        "SL": 2,
        "DS": ["1.5", "2.5"],
        "PN": "Ångström^A=漢字",
        "CS": "ABC",
    }
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for name in records.levels(record_type):
        for key in records.TYPES[name].keys:
            vr = key.vr.decode()
            code = Dataset()
            code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "Mäning"
            code.RelationshipType = "HAS CONCEPT MOD"
            code.StudyInstanceUID = "1.4"
            code.ReferencedSOPClassUID, code.ReferencedSOPInstanceUID = "1.2", "1.3"
            value = PydicomSequence([code]) if vr == "SQ" else values.get(vr, f"Value of {record_type}")
            dataset.add_new(key.tag, vr, value)
    classes = records._TABLE["sop_classes"][record_type]
    # Not a retired one, nor one of those newer than the peer (the RT instructions under 481 are).
    dataset.SOPClassUID = next(
        one
        for one in classes
        if UID_dictionary.get(one, [""] * 4)[3] != "Retired" and not (record_type == "PLAN" and ".481." in one)
    )
    dataset.SOPInstanceUID = dataset.StudyInstanceUID = dataset.SeriesInstanceUID = uid(record_type)
    dataset.PatientID = record_type
    if "CompletionFlag" in dataset:
        observer = Dataset()
        observer.VerificationDateTime = dataset.VerificationDateTime
        dataset.VerificationFlag, dataset.VerifyingObserverSequence = "VERIFIED", [observer]
        del dataset.VerificationDateTime
    path = folder / record_type.replace(" ", "_")
    path.write_bytes(
        part10.file_meta(dataset.SOPClassUID, dataset.SOPInstanceUID, part10.EXPLICIT_LE) + encoded(dataset)
    )
    return path


UNKNOWN_TO_DCMTK_367 = {"ANNOTATION", "INVENTORY", "WF PRESENTATION"}
"""Newer than DCMTK 3.6.7, which takes their SOP classes for images."""
SWAPPED_BY_DCMTK = {"IMPLANT ASSY", "IMPLANT GROUP"}
"""DCMTK (3.6.7 and later) demands the keys of Implant Group for Implant Assembly and the other way round."""


@pytest.mark.peer("dcmmkdir")
@pytest.mark.parametrize(
    "record_type",
    sorted(set(records.TYPES) - {*records.LEVELS, "PRIVATE"} - UNKNOWN_TO_DCMTK_367 - SWAPPED_BY_DCMTK),
)
def test_every_key_of_dcmmkdir_for_every_record_type(record_type: str, tmp_path: Path) -> None:
    items = list(files_as_items([bare_instance(record_type, tmp_path)]))
    assert [item.record_type for item in items] == [record_type]
    assert differences(items, tmp_path / "fs", "-Pgp") == []
    if record_type == "IMAGE":
        assert differences(items, tmp_path / "fs", "-Pdv") == []


@pytest.mark.parametrize("record_type", sorted(set(DIRECTORY_RECORDERS) - {*records.LEVELS}))
def test_pydicom_reads_every_record_type(record_type: str, tmp_path: Path) -> None:
    items = list(files_as_items([bare_instance(record_type, tmp_path)]))
    write_file_set(items, tmp_path / "fs")
    directory = read((tmp_path / "fs/DICOMDIR").read_bytes())
    assert directory.problems == []
    assert directory.records[-1].type == record_type
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (instance,) = FileSet(tmp_path / "fs/DICOMDIR")
    assert instance.SOPInstanceUID == items[0].sop_instance_uid
    if record_type not in records.ROOT_RECORDS:
        assert instance.PatientName == "Ångström^A=漢字"


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize(
    "record_type",
    sorted(
        set(records.TYPES)
        - {*records.LEVELS, "PRIVATE"}
        # Sequences of these need more than a made-up code; real and made instances of most are checked above.
        - {"PRESENTATION", "ENCAP DOC", "HANGING PROTOCOL", "KEY OBJECT DOC", "SR DOCUMENT", "SPECTROSCOPY"}
    ),
)
def test_dciodvfy_on_every_record_type(record_type: str, tmp_path: Path) -> None:
    items = list(files_as_items([bare_instance(record_type, tmp_path)]))
    write_file_set(items, tmp_path / "fs")
    assert unknown(errors_of_dciodvfy(tmp_path / "fs/DICOMDIR"), record_type, real=False) == []
