"""Updating file-sets in their place: what stays, what comes, what goes, and a kill at every step."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from media import update_folder
from media.dicomdir_reader import read
from media.items import Item
from media.problems import FileSetInvalid, MediaError
from media.signing import Seal, SiteKey
from media.trees import FolderTree, IsoTree, open_tree
from media.update import STAGING, contents, recover, update
from media.update_directory import DirectoryEdit
from media.verify import verify_path
from tests import makers
from tests.extracting import extracted
from tests.makers import PATIENTS, Made, disc_image, file_set, make, our_disc

NOW = datetime(2025, 6, 7, 8, 9, tzinfo=UTC)
ANN, BOB = PATIENTS["ascii"], next(patient for name, patient in PATIENTS.items() if name != "ascii")


class Killed(BaseException):
    """kill -9"""


@pytest.fixture
def items(tmp_path: Path) -> Callable[..., list[Item]]:
    folder = tmp_path / "new"
    folder.mkdir()

    def made(*instances: Made) -> list[Item]:
        return [makers.item_of(instance, folder, 100 + key)[0] for key, instance in enumerate(instances)]

    return made


def old() -> list[Made]:
    return [make("CT", number=number) for number in (1, 2, 3)] + [make("SR", series=9)]


def ours(tmp_path: Path, instances: Iterable[Made] | None = None, *, seal: Seal | None = None) -> Path:
    """A folder with what a disc of ours holds."""
    image = our_disc(tmp_path / "ours.iso", old() if instances is None else instances, seal=seal)
    return extracted(image, tmp_path / "stick")


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def uids(target: Path) -> set[str]:
    return {held.sop_instance_uid for held in contents(target)}


def assert_right(target: Path) -> None:
    found = verify_path(target)
    assert not found.problems, found.problems


def assert_consistent(folder: Path) -> None:
    """The DICOMDIR reads without a fault and every file that it references is there with the instance it names."""
    directory = read((folder / "DICOMDIR").read_bytes())
    assert not directory.problems
    for record in directory.records:
        if record.file_id:
            assert record.referenced_sop_instance_uid.encode() in folder.joinpath(*record.file_id).read_bytes()


def test_adding_to_a_folder_of_ours(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    folder = ours(tmp_path)
    before = state(folder)
    new = items(
        make("CT", number=4), make("CT", series=2), make("MR", study=2), make("CT", patient=BOB), make("PR", series=5)
    )
    done = update(folder, add=new, now=NOW)
    assert_right(folder)
    assert done.added[:3] == (
        "DICOM/P0000001/ST000001/SE000001/IM000004",
        "DICOM/P0000001/ST000001/SE000003/IM000001",
        "DICOM/P0000001/ST000002/SE000001/IM000001",
    )
    assert done.added[3] == "DICOM/P0000002/ST000001/SE000001/IM000001"
    assert done.added[4].startswith("DICOM/P0000001/ST000001/SE000004/")
    assert done.instances == 9 and not done.removed
    after = state(folder)
    texts = {"DICOMDIR", "README.TXT", "MANIFEST.TXT"}
    assert all(after[name] == data for name, data in before.items() if name not in texts)
    assert {read(before["DICOMDIR"]).file_set_uid, read(after["DICOMDIR"]).file_set_uid} == {done.file_set_uid}
    assert set(after) - set(before) == set(done.added)
    readme = after["README.TXT"].decode()
    assert "Updated:       2025-06-07 08:09 UTC\r\n" in readme and readme.count("Patient ID:") == 2
    assert before["README.TXT"].split(b"CONTENTS")[0].split(b"Created:")[0] in after["README.TXT"]
    update(folder, add=items(make("CT", number=5)), now=NOW)
    assert_right(folder)
    assert state(folder)["README.TXT"].count(b"Updated:") == 1


def test_random_names_meet_none_that_is_there(
    tmp_path: Path, items: Callable[..., list[Item]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rolls = iter([3, 1, 77, 77, 500])
    monkeypatch.setattr("media.update_change.random_names", lambda prefix, _: (f"{prefix}{n:06}" for n in rolls))
    folder = ours(tmp_path)
    new = items(make("CT", number=4), make("CT", number=5))
    done = update(folder, add=new, now=NOW, random_file_ids=True)
    assert_right(folder)
    assert done.added == (
        "DICOM/P0000001/ST000001/SE000001/IM000077",
        "DICOM/P0000001/ST000001/SE000001/IM000500",
    )


def test_removing_from_a_folder_of_ours(tmp_path: Path) -> None:
    folder = ours(tmp_path, [*old(), make("CT", patient=BOB)])
    before = state(folder)
    (gone,) = [held for held in contents(folder) if held.modality == "SR"]
    bob = [held for held in contents(folder) if held.patient_id == BOB.patient_id]
    done = update(folder, remove=[gone.sop_instance_uid, bob[0].sop_instance_uid], now=NOW)
    assert_right(folder)
    assert set(done.removed) == {gone.path, bob[0].path}
    after = state(folder)
    assert set(before) - set(after) == set(done.removed)
    assert not (folder / bob[0].path).parent.exists() and BOB.patient_id not in after["README.TXT"].decode()
    assert "PATIENT" in [record.type for record in read(after["DICOMDIR"]).records]
    # What was removed can come back, under a name of its own.
    assert done.instances == 3


def test_everything_can_go_and_come_back(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    folder = ours(tmp_path)
    update(folder, remove=uids(folder), now=NOW)
    assert uids(folder) == set() and not (folder / "DICOM").exists()
    update(folder, add=items(*old()), now=NOW)
    assert_right(folder)


def test_what_is_there_already_is_left(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    folder = ours(tmp_path)
    before = state(folder)
    (same,) = items(old()[0])
    done = update(folder, add=[same], now=NOW)
    assert done.already == (same.sop_instance_uid,) and state(folder) == before
    (other,) = items(make("CT", number=1, seriesdescription=None, SeriesDescription="changed"))
    assert other.sop_instance_uid == same.sop_instance_uid
    with pytest.raises(MediaError, match="other bytes"):
        update(folder, add=[other], now=NOW)
    assert state(folder) == before


def test_two_people_under_one_number_are_refused(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    folder = ours(tmp_path)
    before = state(folder)
    with pytest.raises(MediaError, match="Patient's Name"):
        update(folder, add=items(make("CT", study=7, PatientName="Somebody^Else")), now=NOW)
    with pytest.raises(MediaError, match="Patient ID"):
        update(folder, add=items(make("CT", number=7, PatientID="ANOTHER")), now=NOW)
    with pytest.raises(MediaError, match="not on the medium"):
        update(folder, remove=["1.2.3"], now=NOW)
    assert state(folder) == before


def test_a_source_that_changed_leaves_all_as_it_was(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    folder = ours(tmp_path)
    before = state(folder)
    first, second = items(make("CT", number=4), make("CT", number=5))
    second.source.write_bytes(second.source.read_bytes()[:-2] + b"xx")
    with pytest.raises(MediaError, match="has changed"):
        update(folder, add=[first, second], now=NOW)
    assert state(folder) == before


@pytest.mark.parametrize("what", ["add", "remove", "add signed", "remove and do not sign"])
def test_killed_at_every_step(
    tmp_path: Path, items: Callable[..., list[Item]], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step is the last, the DICOMDIR is right, and the next update begins with the old set or the new."""
    key = SiteKey.open(tmp_path / "key.pem")
    start = ours(tmp_path, seal=key.seal if "sign" in what else None)
    seal = key.seal if "signed" in what else None
    old_uids = uids(start)
    new = items(make("CT", number=4), make("MR", study=2), make("CT", patient=BOB))
    removed = {held.sop_instance_uid for held in contents(start) if held.modality == "SR"}
    adds = what.startswith("add")
    wanted = old_uids | {item.sop_instance_uid for item in new} if adds else old_uids - removed
    sets = []
    for kill_at in range(1, 500):
        folder = tmp_path / "work"
        shutil.copytree(start, folder)
        steps = _kill(monkeypatch, kill_at)
        with suppress(Killed):
            if adds:
                update(folder, add=new, now=NOW, seal=seal)
            else:
                update(folder, remove=removed, now=NOW, seal=seal)
        monkeypatch.undo()
        assert_consistent(folder)
        recover(folder)
        assert not (folder / STAGING).exists()
        assert_right(folder)
        sets.append(uids(folder))
        if sets[-1] == old_uids:
            assert state(folder) == state(start)
        else:
            assert sets[-1] == wanted
        update(folder, add=items(make("CT", number=8)), now=NOW, seal=seal)
        assert_right(folder)
        assert (verify_path(folder).signer is not None) == ("signed" in what)
        shutil.rmtree(folder)
        if steps[0] < kill_at:
            break
    assert old_uids in sets and wanted in sets and len(sets) > 12


@pytest.mark.parametrize("image", [False, True])
def test_a_signed_medium_is_signed_anew_or_not_at_all(
    tmp_path: Path, items: Callable[..., list[Item]], image: bool
) -> None:
    key, other = SiteKey.open(tmp_path / "key.pem"), SiteKey.open(tmp_path / "other.pem")
    target = ours(tmp_path, seal=key.seal)
    target = tmp_path / "ours.iso" if image else target
    assert verify_path(target).signer == key.public_key
    update(target, add=items(make("CT", number=4)), now=NOW, seal=other.seal)
    assert_right(target)
    assert verify_path(target).signer == other.public_key
    update(target, remove=[items(make("CT", number=4))[0].sop_instance_uid], now=NOW)
    assert_right(target)
    assert verify_path(target).signer is None
    with open_tree(target) as tree:
        assert not {"MANIFEST.SIG", "SITEKEY.PEM", "VERIFY.TXT"} & set(tree.files)


def test_what_was_forged_is_not_signed_anew(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    key = SiteKey.open(tmp_path / "key.pem")
    folder = ours(tmp_path, seal=key.seal)
    (folder / "MANIFEST.SIG").write_bytes(bytes(64))
    before = state(folder)
    with pytest.raises(MediaError, match=r"MANIFEST\.SIG: The key in SITEKEY\.PEM did not sign"):
        update(folder, add=items(make("CT", number=4)), now=NOW, seal=key.seal)
    assert state(folder) == before


def _kill(monkeypatch: pytest.MonkeyPatch, kill_at: int) -> list[int]:
    count, me = [0], threading.get_ident()
    for name in ("fsync", "rename", "replace", "unlink", "mkdir", "rmdir"):
        real = getattr(os, name)

        def step(*args: Any, _real: Callable[..., Any] = real, **more: Any) -> Any:
            count[0] += threading.get_ident() == me
            if count[0] >= kill_at and threading.get_ident() == me:  # nothing that comes after is done either
                raise Killed
            return _real(*args, **more)

        monkeypatch.setattr(os, name, step)
    return count


def test_another_makers_records_stay_as_they_stand(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    folder = tmp_path / "other"
    file_set(folder, old())
    before = read((folder / "DICOMDIR").read_bytes())
    new = items(make("CT", number=4), make("CT", patient=BOB))
    done = update(folder, add=new, now=NOW)
    assert_right(folder)
    after = read((folder / "DICOMDIR").read_bytes())
    assert not (folder / "MANIFEST.TXT").exists() and not (folder / "README.TXT").exists()
    assert (after.file_set_id, after.file_set_uid) == (before.file_set_id, before.file_set_uid)
    kept = [record.content() for record in after.records]
    assert all(record.content() in kept for record in before.records)
    assert len(kept) == len(before.records) + 1 + 4
    update(folder, remove=[item.sop_instance_uid for item in new], now=NOW)
    assert_right(folder)
    assert {record.content() for record in read((folder / "DICOMDIR").read_bytes()).records} == {
        record.content() for record in before.records
    }
    assert not any((folder / path).exists() for path in done.added)


@pytest.mark.parametrize("maker", ["ours", "another"])
def test_an_image_is_made_anew(tmp_path: Path, items: Callable[..., list[Item]], maker: str) -> None:
    if maker == "ours":
        image = our_disc(tmp_path / "disc.iso", old())
    else:
        folder = tmp_path / "other"
        file_set(folder, old())
        image = disc_image(tmp_path / "disc.iso", folder)
    with IsoTree(image) as tree:
        before = {name: tree.open(name).read() for name in tree.files}
        volume_id = tree.volume_id
    done = update(image, add=items(make("CT", number=4)), now=NOW)
    assert_right(image)
    with IsoTree(image) as tree:
        assert tree.volume_id == volume_id
        for name, data in before.items():
            if name not in ("DICOMDIR", "README.TXT", "MANIFEST.TXT"):
                assert tree.open(name).read() == data
        assert set(tree.files) == set(before) | set(done.added)
    update(image, remove=list(uids(image))[:2], now=NOW)
    assert_right(image)
    assert len(uids(image)) == 3
    assert sorted(path.name for path in tmp_path.glob(".disc*")) == []


def test_an_image_that_cannot_be_made_stays(
    tmp_path: Path, items: Callable[..., list[Item]], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = our_disc(tmp_path / "disc.iso", old())
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    new = items(make("CT", number=4))
    for kill_at in range(1, 100):
        steps = _kill(monkeypatch, kill_at)
        with suppress(Killed):
            update(image, add=new, now=NOW)
        monkeypatch.undo()
        assert_right(image)
        if hashlib.sha256(image.read_bytes()).hexdigest() != before:
            break
    assert steps[0] >= 2
    update(image, add=items(make("CT", number=5)), now=NOW)
    assert_right(image)


def test_a_journal_that_leads_out_of_the_medium_is_refused(tmp_path: Path) -> None:
    folder = ours(tmp_path)
    outside = tmp_path / "precious"
    outside.write_bytes(b"1")
    digest = hashlib.sha256((folder / "DICOMDIR").read_bytes()).hexdigest()
    for path in ("../precious", "/etc/passwd", "link/precious", ".."):
        (folder / STAGING).mkdir()
        (folder / "link").symlink_to(tmp_path)
        journal = f'{{"directory": "{digest}", "place": [], "replace": [], "delete": ["{path}"]}}'
        (folder / STAGING / "JOURNAL").write_text(journal)
        with pytest.raises(MediaError, match="no journal of ours"):
            recover(folder)
        shutil.rmtree(folder / STAGING)
        (folder / "link").unlink()
    assert outside.exists()


def test_what_is_no_file_set_or_damaged_is_refused(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    new = items(make("CT", number=4))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileSetInvalid, match="DICOMDIR"):
        update(tmp_path / "empty", add=new, now=NOW)
    folder = ours(tmp_path)
    data = (folder / "DICOMDIR").read_bytes()
    for damaged in (data[:-20], data[: len(data) // 2], b"not DICOM"):
        (folder / "DICOMDIR").write_bytes(damaged)
        with pytest.raises(MediaError):
            update(folder, add=new, now=NOW)
        assert (folder / "DICOMDIR").read_bytes() == damaged
    (folder / "DICOMDIR").write_bytes(data)
    (folder / "MANIFEST.TXT").write_bytes((folder / "MANIFEST.TXT").read_bytes().replace(b"DICOMDIR", b"DICOMDIX"))
    with pytest.raises(MediaError, match=r"MANIFEST\.TXT"):
        update(folder, add=new, now=NOW)


def test_one_at_a_time(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    folder = ours(tmp_path)
    with update_folder._locked(folder), pytest.raises(MediaError, match="another process"):
        update(folder, add=items(make("CT", number=4)), now=NOW)


def test_names_in_lower_case_as_linux_shows_them(tmp_path: Path, items: Callable[..., list[Item]]) -> None:
    folder = ours(tmp_path)
    for path in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.lower()))
    update(folder, add=items(make("CT", number=4)), now=NOW)
    assert_right(folder)
    assert (folder / "dicom/p0000001/st000001/se000001/IM000004").is_file()
    assert sorted(path.name for path in folder.iterdir()) == ["dicom", "dicomdir", "manifest.txt", "readme.txt"]
    update(folder, remove=list(uids(folder))[:3], now=NOW)
    assert_right(folder)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("DICOMDIR", True),
        ("DICOMDIR-bigEnd", True),
        ("DICOMDIR-implicit", True),
        ("DICOMDIR-reordered", True),
        ("DICOMDIR-nooffset", False),
        ("DICOMDIR-nopatient", False),
    ],
)
def test_real_directories(shared_data: Path, name: str, sound: bool) -> None:
    data = (shared_data / "filesets/pydicom_dicomdirtests" / name).read_bytes()
    if not sound:
        with pytest.raises(FileSetInvalid, match="damaged"):
            DirectoryEdit(data)
        return
    before, after = read(data), read(DirectoryEdit(data).to_bytes())
    assert not after.problems
    assert (after.file_set_id, after.file_set_uid) == (before.file_set_id, before.file_set_uid)
    assert sorted(record.content() for record in after.records) == sorted(record.content() for record in before.records)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["pydicom_tiny_alpha", "pydicom_dicomdirtests"])
def test_real_file_sets(shared_data: Path, tmp_path: Path, items: Callable[..., list[Item]], name: str) -> None:
    folder = tmp_path / "medium"
    shutil.copytree(shared_data / "filesets" / name, folder)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    before, directory = state(folder), read((folder / "DICOMDIR").read_bytes())
    problems = verify_path(folder).problems
    done = update(folder, add=items(make("CT", patient=BOB)), now=NOW)
    after = read((folder / "DICOMDIR").read_bytes())
    assert after.file_set_uid == directory.file_set_uid
    contents_now = [record.content() for record in after.records]
    assert all(record.content() in contents_now for record in directory.records if record.in_use)
    assert all(state(folder)[path] == data for path, data in before.items() if path != "DICOMDIR")
    assert {p.detail for p in verify_path(folder).problems if p.file in done.added} == set()
    assert len(verify_path(folder).problems) <= len(problems)
    with FolderTree(folder) as tree:
        assert done.added[0] in tree.files
