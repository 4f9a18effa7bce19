"""Verification: sound media of ours and of others have no problem; each thing that is wrong is found and named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from media.items import Supplied
from media.problems import MediaError, ProblemKind
from media.update_directory import DirectoryEdit, Node
from media.verify import Expected, VerifyCancelled, VerifyResult, verify_path
from media.verify_scan import Malformed, Value, scan
from media.verify_values import same
from tests.makers import (
    EXPLICIT_BE,
    IMPLICIT_LE,
    JPEG_BASELINE,
    KINDS,
    PATIENTS,
    Made,
    disc_image,
    file_set,
    make,
    our_disc,
    study,
)
from tests.media.directory import encoded

K = ProblemKind


def found(result: VerifyResult) -> set[tuple[str, str]]:
    return {(problem.kind.value, problem.file) for problem in result.problems}


def files_of(folder: Path) -> list[Path]:
    """The instances of a made file-set, in the order of their names."""
    return sorted(path for path in folder.glob("PT*/**/*") if path.is_file())


def name_in(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def everything() -> list[Made]:
    return [make(kind, number=n) for n, kind in enumerate(KINDS, 1)] + [
        make("CT", patient=patient) for name, patient in PATIENTS.items() if name != "ascii"
    ]


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_set(tmp_path_factory.mktemp("all") / "set", everything())


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three CT of one series and a report of the same study."""
    return file_set(tmp_path / "set", [*study("CT", 3), make("SR", series=2)])


# --------------------------------------------------------------------------------------------------- sound media


def test_every_kind_and_script_on_an_image_is_sound(all_kinds: Path, tmp_path: Path) -> None:
    image = disc_image(tmp_path / "disc.iso", all_kinds)
    result = verify_path(image)
    assert result.problems == ()
    assert result.ok
    assert result.file_set_id == "TESTDISC"
    assert {instance.sop_instance_uid for instance in result.instances} == {m.sop_instance_uid for m in everything()}
    sums = subprocess.run(["sha256sum", image], capture_output=True, text=True, check=True).stdout
    assert result.image_sha256 == sums.split()[0]
    assert result.as_json() == {"ok": True, "problems": []}


def test_folder_of_another_maker_is_sound(all_kinds: Path) -> None:
    result = verify_path(all_kinds)
    assert result.problems == ()
    assert result.image_sha256 is None
    assert len(result.instances) == len(everything())
    assert verify_path(all_kinds / "DICOMDIR").ok


@pytest.mark.parametrize("spelling", [str.lower, lambda name: f"{name};1", lambda name: f"{name}.", str.title])
def test_names_as_mounts_and_tools_spell_them(small: Path, tmp_path: Path, spelling: Callable[[str], str]) -> None:
    respelled = tmp_path / "respelled"
    for path in small.rglob("*"):
        target = respelled.joinpath(*(part.lower() for part in path.relative_to(small).parts[:-1]))
        if path.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / spelling(path.name))
    result = verify_path(respelled)
    assert result.problems == ()
    assert len(result.instances) == 4


def test_alternate_name_outside_the_file_set_is_allowed(small: Path) -> None:
    shutil.copy(files_of(small)[0], small / "COPY.DCM")
    assert verify_path(small).ok


def test_a_name_spelled_in_two_ways_within_one_study(tmp_path: Path) -> None:
    two = [make("CT", number=1), make("CT", number=2, PatientName="DOE^JANE")]
    assert verify_path(file_set(tmp_path / "set", two)).problems == ()


def test_values_are_compared_as_text_not_as_bytes() -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    japanese = Value("PN", make("CT", patient=PATIENTS["japanese"]).encoded.split(b"PN", 2)[2][2:].split(b"\x10\0")[0])
    assert b"\x1b$B" in japanese.data
    unicode = Value("PN", name.encode())
    assert same(unicode, "ISO_IR 192", japanese, "\\ISO 2022 IR 87")
    assert not same(Value("PN", name.replace("太", "犬").encode()), "ISO_IR 192", japanese, "\\ISO 2022 IR 87")
    assert not same(Value("LO", "Ä".encode("latin-1")), "ISO_IR 100", Value("LO", "Ä".encode("latin-1")), "ISO_IR 144")
    assert not same(japanese, "", japanese, "\\ISO 2022 IR 149")
    assert same(Value("PN", b"Doe^Jane^^ "), "", Value("PN", b"Doe^Jane"), "")
    assert same(Value("IS", b"7 "), "", Value("IS", b"+007"), "")
    assert same(Value("TM", b"1011"), "", Value("TM", b"101100.000"), "")
    assert same(Value("DA", b"2024.02.29"), "", Value("DA", b"20240229"), "")
    assert not same(Value("DA", b"20240228"), "", Value("DA", b"20240229"), "")
    assert not same(Value("US", b"\1\0"), "", Value("US", b"\2\0"), "")


# --------------------------------------------------------------------------------------------- what may be wrong


def test_missing_file(small: Path) -> None:
    gone = files_of(small)[1]
    gone.unlink()
    assert found(verify_path(small)) == {("MISSING", name_in(small, gone))}


def test_no_dicomdir(small: Path) -> None:
    (small / "DICOMDIR").unlink()
    result = verify_path(small)
    assert ("MISSING", "DICOMDIR") in found(result)
    assert result.instances == ()


def test_unreferenced_files(small: Path) -> None:
    folder = files_of(small)[0].parent
    make("MR").write(folder / "IM99")
    (folder / "NOTES").write_text("hello")
    make("MR").write(small / "LOOSE.DCM")
    (small / "VIEWER.EXE").write_bytes(b"MZ")
    (small / "HELP").mkdir()
    (small / "HELP" / "HELP.TXT").write_text("help")
    where = name_in(small, folder)
    expected = {("UNREFERENCED", f"{where}/IM99"), ("UNREFERENCED", f"{where}/NOTES"), ("UNREFERENCED", "LOOSE.DCM")}
    assert found(verify_path(small)) == expected


def test_swapped_files_are_told_by_their_uids(small: Path) -> None:
    first, second = files_of(small)[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    result = verify_path(small)
    assert {("UID", name_in(small, first)), ("UID", name_in(small, second))} <= found(result)
    assert {kind for kind, _ in found(result)} == {"UID", "KEY"}


def replace(path: Path, made: Made) -> None:
    path.write_bytes(made.part10())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"PatientID": "PAT-9999"}, "KEY"),
        ({"PatientID": ""}, ""),
        ({"StudyInstanceUID": "1.2.3"}, "UID"),
        ({"SeriesInstanceUID": "1.2.3"}, "UID"),
        ({"InstanceNumber": 77}, "KEY"),
        ({"InstanceNumber": None}, ""),
        ({"SOPInstanceUID": "1.2.3"}, "UID"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "UID"),
        ({"PatientName": "Doe^Janet"}, ""),
    ],
)
def test_key_of_one_file_of_several(small: Path, values: dict[str, object], kind: str) -> None:
    """Without a manifest a type 1 key that the file lacks counts as supplied; a name may have two spellings."""
    changed = files_of(small)[0]
    replace(changed, make("CT", number=1, **values))
    result = verify_path(small)
    assert {k for k, _ in found(result)} == ({kind} if kind else set())
    assert {file for _, file in found(result)} <= {name_in(small, changed)}


@pytest.mark.parametrize("keyword", ["PatientName", "StudyDate", "StudyDescription", "AccessionNumber", "Modality"])
def test_descriptive_key_that_no_file_has(tmp_path: Path, keyword: str) -> None:
    folder = file_set(tmp_path / "set", [make("CT")])
    value = {"StudyDate": "20010101", "Modality": "OT"}.get(keyword, "Somebody^Else")
    replace(files_of(folder)[0], make("CT", **{keyword: value}))
    result = verify_path(folder)
    assert found(result) == {("KEY", "DICOMDIR")}
    assert value in result.problems[0].detail


def test_duplicate_sop_instance(small: Path) -> None:
    first, second = files_of(small)[:2]
    second.write_bytes(first.read_bytes())
    assert ("UID", name_in(small, second)) in found(verify_path(small))


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_BE])
def test_transfer_syntax_of_no_profile(small: Path, syntax: str) -> None:
    changed = files_of(small)[0]
    replace(changed, make("CT", number=1, transfer_syntax_uid=syntax))
    result = verify_path(small)
    assert found(result) == {("PROFILE", name_in(small, changed)), ("UID", name_in(small, changed))}
    replace(changed, make("CT", number=1, transfer_syntax_uid=syntax, InstanceNumber=5))
    assert ("KEY", name_in(small, changed)) in found(verify_path(small))


def test_profile_decides_on_compressed_files(tmp_path: Path) -> None:
    folder = file_set(tmp_path / "set", [make("SC_JPEG", transfer_syntax_uid=JPEG_BASELINE)])
    assert verify_path(folder).ok
    # The syntax is one of that profile; pydicom's directory lacks its type 1 Rows and Columns (PS3.11 Table H.3-2).
    assert found(verify_path(folder, profile="STD-GEN-DVD-JPEG")) == {("KEY", "DICOMDIR")}
    result = verify_path(folder, profile="STD-GEN-CD")
    assert found(result) == {("PROFILE", name_in(folder, files_of(folder)[0]))}
    assert result.profile == "STD-GEN-CD"
    with pytest.raises(MediaError, match="NO-SUCH"):
        verify_path(folder, profile="NO-SUCH")


def damaged(name: str, data: bytes) -> bytes:
    if name == "group length":
        return data[:140] + b"\x01\0\0\0" + data[144:]
    if name == "version":
        at = data.index(b"\x02\0\x01\0OB")
        return data[: at + 12] + b"\x00\x02" + data[at + 14 :]
    if name == "prefix":
        return data[:128] + b"DICN" + data[132:]
    if name == "cut":
        return data[:-30]
    if name == "trailing":
        return data + b"rubbish"
    if name == "VR":
        return data.replace(b"\x10\0\x20\0LO", b"\x10\0\x20\0??")
    assert name == "empty"
    return b""


@pytest.mark.parametrize("damage", ["group length", "version", "prefix", "cut", "trailing", "VR", "empty"])
def test_structure_of_one_file(small: Path, damage: str) -> None:
    changed = files_of(small)[0]
    changed.write_bytes(damaged(damage, changed.read_bytes()))
    result = verify_path(small)
    assert found(result) == {("STRUCTURE", name_in(small, changed))}, result.problems


@pytest.mark.parametrize("oddity", ["zeros behind", "order", "implicit element"])
def test_what_ingest_lets_pass_is_no_fault_of_the_disc(small: Path, oddity: str) -> None:
    path = files_of(small)[0]
    data = path.read_bytes()
    at = data.index(b"\x10\0\x20\0LO")
    element = data[at : at + 16]
    if oddity == "zeros behind":
        data += bytes(700)
    elif oddity == "order":
        data = data[:at] + data[at + 16 :] + element
    else:
        data = data[:at] + element[:4] + b"\x08\0\0\0" + element[8:] + data[at + 16 :]
    path.write_bytes(data)
    assert verify_path(small).problems == ()
    path.write_bytes(data.replace(b"PAT-0001", b"PAT-0002"))
    assert found(verify_path(small)) == {("KEY", name_in(small, path))}


# --------------------------------------------------------------------------------------------------- the manifest


def test_manifest_names_the_changed_file(small: Path, tmp_path: Path) -> None:
    image = disc_image(tmp_path / "disc.iso", small)
    subprocess.run(["7z", "x", f"-o{tmp_path / 'copy'}", image], check=True, capture_output=True)
    copy = tmp_path / "copy"
    assert verify_path(copy).ok
    changed = files_of(copy)[2]
    data = bytearray(changed.read_bytes())
    data[-5] ^= 4
    changed.write_bytes(data)
    assert found(verify_path(copy)) == {("DIGEST", name_in(copy, changed))}
    changed.unlink()
    assert found(verify_path(copy)) == {("MISSING", name_in(copy, changed))}
    (copy / "EXTRA.TXT").write_text("not listed")
    assert ("MANIFEST", "EXTRA.TXT") in found(verify_path(copy))


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """A copied disc with a manifest."""
    image = disc_image(tmp_path / "disc.iso", small)
    subprocess.run(["7z", "x", f"-o{tmp_path / 'copy'}", image], check=True, capture_output=True)
    return tmp_path / "copy"


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.upper(),
        lambda data: data[:-1],
        lambda data: data.replace(b"  README", b" *README"),
        lambda data: data[data.index(b"\n") + 1 :],
        lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
        lambda data: data + b"\n",
    ],
    ids=["CRLF", "upper case", "no last LF", "star", "line less", "no seal", "blank line"],
)
def test_manifest_is_read_strictly(copy: Path, edit: Callable[[bytes], bytes]) -> None:
    manifest = copy / "MANIFEST.TXT"
    manifest.write_bytes(edit(manifest.read_bytes()))
    assert ("MANIFEST", "MANIFEST.TXT") in found(verify_path(copy))


def test_every_bit_of_a_manifest_counts(copy: Path) -> None:
    manifest = copy / "MANIFEST.TXT"
    sound = manifest.read_bytes()
    from media.manifest import parse

    parse(sound)
    for position in range(len(sound)):
        for bit in range(8):
            data = bytearray(sound)
            data[position] ^= 1 << bit
            with pytest.raises(MediaError):
                parse(bytes(data))


def test_manifest_of_another_program_is_left_alone(small: Path) -> None:
    (small / "MANIFEST.TXT").write_text("What is in the box:\r\n- one disc\r\n")
    assert verify_path(small).ok


def resealed(lines: list[str]) -> bytes:
    import hashlib

    body = "".join(f"{line}\n" for line in lines).encode()
    return body + f"# sha256 of the lines above: {hashlib.sha256(body).hexdigest()}\n".encode()


@pytest.mark.parametrize(
    "path", ["../ETC/PASSWD", "A/../../B", "readme.txt", "A//B", "./README.TXT", "MANIFEST.TXT", "A;1"]
)
def test_manifest_with_tricks_in_its_paths(copy: Path, path: str) -> None:
    manifest = copy / "MANIFEST.TXT"
    lines = manifest.read_text().splitlines()[:-1]
    manifest.write_bytes(resealed([*lines, f"{'0' * 64}  {path}"]))
    assert found(verify_path(copy)) == {("MANIFEST", "MANIFEST.TXT")}


def test_supplied_key_must_be_listed(small: Path, tmp_path: Path) -> None:
    """The directory has an Instance Number and a Study ID that the files lack."""
    paths = files_of(small)
    for number in (1, 2, 3):
        replace(paths[number - 1], make("CT", number=number, InstanceNumber=None, StudyID=None))
    replace(paths[3], make("SR", series=2, StudyID=None))
    names = [name_in(small, path) for path in paths]
    unlisted = verify_path(disc_image(tmp_path / "a.iso", small))
    assert found(unlisted) == {("KEY", name) for name in names[:3]} | {("KEY", "DICOMDIR")}

    def supplied(number: str) -> list[tuple[str, Supplied]]:
        keys = [(name, Supplied("IMAGE", "(0020,0013)", "IS", str(n))) for n, name in enumerate(names[:3], 1)]
        keys[1] = (names[1], Supplied("IMAGE", "(0020,0013)", "IS", number))
        return [*keys, (names[0], Supplied("STUDY", "(0020,0010)", "SH", "1"))]

    assert verify_path(disc_image(tmp_path / "b.iso", small, supplied=supplied("2"))).problems == ()
    wrong = verify_path(disc_image(tmp_path / "c.iso", small, supplied=supplied("9")))
    assert found(wrong) == {("KEY", names[1])}
    nowhere = [*supplied("2"), ("NO/SUCH", Supplied("IMAGE", "(0020,0013)", "IS", "1"))]
    assert found(verify_path(disc_image(tmp_path / "d.iso", small, supplied=nowhere))) == {("MANIFEST", "MANIFEST.TXT")}


def test_a_disc_of_ours_must_have_its_manifest(tmp_path: Path) -> None:
    image = our_disc(tmp_path / "disc.iso", [make("CT")])
    result = verify_path(image)
    assert (result.problems, result.profile) == ((), "STD-GEN-CD")
    data = image.read_bytes()
    image.write_bytes(data.replace(b"MANIFEST.TXT;1", b"MANIFEST.TXU;1"))
    assert ("MANIFEST", "MANIFEST.TXT") in found(verify_path(image))


def test_profile_of_our_readme_is_applied(tmp_path: Path) -> None:
    compressed = [make("SC_JPEG", transfer_syntax_uid=JPEG_BASELINE)]
    dvd = our_disc(tmp_path / "dvd.iso", compressed, profile="STD-GEN-DVD-JPEG")
    assert verify_path(dvd).profile == "STD-GEN-DVD-JPEG"
    assert verify_path(dvd).ok
    assert {kind for kind, _ in found(verify_path(our_disc(tmp_path / "cd.iso", compressed)))} == {"PROFILE"}


def test_file_set_descriptor_must_be_there(small: Path) -> None:
    from pydicom.fileset import FileSet

    (small / "README").write_text("read me")
    written = FileSet(small / "DICOMDIR")
    written.descriptor_file_id = "README"
    written.write(use_existing=True)
    assert verify_path(small).ok
    (small / "README").unlink()
    assert found(verify_path(small)) == {("MISSING", "README")}


# --------------------------------------------------------------------------------------------------- images


def test_volume_identifier_is_the_file_set_id(small: Path, tmp_path: Path) -> None:
    result = verify_path(disc_image(tmp_path / "disc.iso", small, volume_id="OTHER"))
    assert found(result) == {("PROFILE", "")}
    assert "OTHER" in result.problems[0].detail


def test_image_cut_off(small: Path, tmp_path: Path) -> None:
    image = disc_image(tmp_path / "disc.iso", small)
    image.write_bytes(image.read_bytes()[:-2048])
    assert found(verify_path(image)) == {("STRUCTURE", "")}
    image.write_bytes(image.read_bytes()[: -160 * 2048])
    assert ("STRUCTURE", "") in found(verify_path(image))
    assert any(kind == "MISSING" for kind, _ in found(verify_path(image)))


def test_what_is_no_medium_is_a_result(tmp_path: Path) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("Dear Sir")
    for path in (text, tmp_path / "absent", tmp_path):
        result = verify_path(path)
        assert not result.ok
        assert result.problems[0].detail


# ------------------------------------------------------------------------------------------ what the caller knows


def test_expectations_of_the_burner(small: Path, tmp_path: Path) -> None:
    image = disc_image(tmp_path / "disc.iso", small)
    sound = verify_path(image, drop_cache=True)
    assert sound.image_sha256
    known = {instance.sop_instance_uid: instance.sha256 for instance in sound.instances}
    size = image.stat().st_size
    expect = Expected(sound.image_sha256, size, sound.file_set_id, sound.file_set_uid, known)
    assert verify_path(image, expect=expect).ok
    with image.open("ab") as out:
        out.write(b"\0" * 4096)  # as a drive shows its disc
    assert verify_path(image, expect=expect).ok
    assert found(verify_path(image, expect=Expected(image_sha256="0" * 64))) == {("DIGEST", "")}
    assert found(verify_path(image, expect=Expected(image_bytes=size + 9999))) == {("STRUCTURE", "")}
    assert found(verify_path(image, expect=Expected(file_set_id="X", file_set_uid="1.2"))) == {("UID", "DICOMDIR")}
    assert found(verify_path(image, expect=Expected(instances={"1.2.3": "0" * 64}))) == {("MISSING", "")}
    uid, file, _ = sound.instances[0]
    assert found(verify_path(image, expect=Expected(instances={uid: "0" * 64}))) == {("DIGEST", file)}


@pytest.mark.parametrize("form", ["folder", "image"])
def test_progress_and_cancel(small: Path, tmp_path: Path, form: str) -> None:
    medium = small if form == "folder" else disc_image(tmp_path / "disc.iso", small)
    told: list[tuple[int, int]] = []
    verify_path(medium, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    with pytest.raises(VerifyCancelled):
        verify_path(medium, cancelled=lambda: True)


def test_starts_without_heavy_imports() -> None:
    heavy = "numpy pydicom sqlalchemy dbos fastapi pydantic typer"
    program = f"import sys, media.verify; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------ the walk over a file


def test_large_files_are_not_held(tmp_path: Path) -> None:
    """An image with pixel data across many buffers, and one whose header is longer than what is read at first."""
    big = make("CT", size=5_000_000)
    long_text = make("SR", size=300_000, number=2)
    folder = file_set(tmp_path / "set", [big, long_text])
    assert verify_path(folder).ok
    assert verify_path(disc_image(tmp_path / "disc.iso", folder)).ok


def test_scan_follows_undefined_lengths() -> None:
    def undefined(ds: object) -> None:
        for element in ds:  # type: ignore[attr-defined]
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True

    made = make("SEG", change=undefined)
    data = made.encoded
    wanted = frozenset({0x00100020, 0x00620002})
    result = scan(data[:100], lambda offset, count: data[offset : offset + count], 0, len(data), wanted)
    assert result[0x00100020].data.strip() == made.dataset.PatientID.encode()
    assert result[0x00620002].vr == "SQ"
    for end in range(10, len(data), 7):
        cut = data[:end]
        try:
            scan(cut, lambda offset, count, cut=cut: cut[offset : offset + count], 0, len(cut), wanted)
        except Malformed:
            continue
        assert not any(tag > 0x7FE00000 for tag in result)


# --------------------------------------------------------------------------------------- media of other makers


@pytest.mark.shared_data
def test_real_media_of_other_makers(shared_data: Path) -> None:
    tiny = verify_path(shared_data / "filesets" / "pydicom_tiny_alpha")
    assert tiny.problems == ()
    assert len(tiny.instances) == 50
    many = verify_path(shared_data / "filesets" / "pydicom_dicomdirtests")
    assert len(many.instances) == 31
    assert all(problem.detail.endswith(".") for problem in many.problems)


def _with_hl7(folder: Path, document: bytes) -> Path:
    """Another maker's file-set that also has an HL7 structured document as a file of its own (PS3.10 Annex B)."""
    from pydicom.dataset import Dataset

    file_set(folder, [make("CT")])
    (folder / "HL7DOC").write_bytes(document)
    edit = DirectoryEdit((folder / "DICOMDIR").read_bytes())
    record = Dataset()
    record.OffsetOfTheNextDirectoryRecord = 0
    record.RecordInUseFlag = 0xFFFF
    record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.DirectoryRecordType = "HL7 STRUC DOC"
    record.ReferencedFileID = "HL7DOC"
    record.HL7InstanceIdentifier = "2.16.840.1.113883.19.4^c266"
    record.add_new(0x0040E004, "DT", "20240229")
    body = encoded(record)
    # A record's body begins behind its pointers, which the writer makes: next, in use, lower.
    edit.roots[0].below.append(Node("HL7 STRUC DOC", body[body.index(b"\x04\x00\x30\x14") :], "HL7DOC"))
    (folder / "DICOMDIR").write_bytes(edit.to_bytes())
    return folder


@pytest.mark.parametrize(
    ("document", "kinds"),
    [
        (b'<?xml version="1.0"?><levelone xmlns="urn:hl7-org:v3/cda"/>', []),
        (b"\xef\xbb\xbf\r\n<ClinicalDocument/>", []),
        (b"MSH|^~\\&|", [ProblemKind.STRUCTURE]),
    ],
)
def test_a_native_hl7_document_is_read_as_what_it_is(tmp_path: Path, document: bytes, kinds: list[ProblemKind]) -> None:
    found = verify_path(_with_hl7(tmp_path / "set", document))
    assert [(problem.kind, problem.file) for problem in found.problems] == [(kind, "HL7DOC") for kind in kinds]
    assert len(found.instances) == 1
