from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet

from media.iso9660 import IsoImage
from media.items import DiscFile
from service.contract import Document, Source
from service.errors import TryLater, UsageError
from service.importing import bring_in, survey
from service.operations import StoreOperations
from tests.makers import make, study
from tests.service.conftest import write


def imported(operations: Any, *paths: Path, **options: Any) -> Document:
    with ExitStack() as stack:
        return bring_in(operations, survey(paths, stack), **options)


def test_a_folder_is_imported_and_what_is_no_instance_is_refused_with_a_reason(
    opened: Callable[[], StoreOperations], made: Path
) -> None:
    (made / "sub").mkdir()
    (made / "sub/notes.txt").write_text("nothing of interest")
    (made / "sub/empty").touch()
    seen: list[int] = []
    document = imported(opened(), made, progress=seen.append)
    assert (document["imported"], document["duplicates"], document["conflicts"]) == (5, 0, 0)
    assert document["refused"] == [
        {"path": str(made / "sub/empty"), "reason": "is empty"},
        {"path": str(made / "sub/notes.txt"), "reason": "is a text file, not DICOM"},
    ]
    assert sum(seen) == sum(path.stat().st_size for path in made.rglob("*") if path.is_file())


def test_the_same_again_is_a_duplicate_and_other_content_a_conflict(
    opened: Callable[[], StoreOperations], made: Path, tmp_path: Path
) -> None:
    operations = opened()
    imported(operations, made)
    again = make("CT", number=1, seed=1, PatientComments="not as before").write(tmp_path / "other.dcm")
    document = imported(operations, made / "CT-1.dcm", made / "CT-2.dcm", again)
    assert (document["imported"], document["duplicates"], document["conflicts"]) == (0, 2, 1)


def test_bare_data_sets_are_accepted(opened: Callable[[], StoreOperations], tmp_path: Path) -> None:
    path = tmp_path / "bare"
    path.write_bytes(make("CT").encoded)
    assert imported(opened(), path)["imported"] == 1


def medium(tmp_path: Path, *, lower: bool = False) -> Path:
    """A folder such as Linux shows a level 1 disc, with a DICOMDIR that refers to three files, one of them absent."""

    fileset = FileSet()
    for one in study("CT", 3, seed=9):
        fileset.add(dcmread(BytesIO(one.part10())))
    folder = tmp_path / "medium"
    fileset.write(folder)
    (folder / "README.TXT").write_text("A disc")
    (folder / "MANIFEST.TXT").write_text("sums")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name.startswith("IM"))
    files[-1].unlink()
    if lower:
        for path in sorted(folder.rglob("*"), key=lambda path: -len(path.parts)):
            path.rename(path.with_name(path.name.lower()))
    return folder


@pytest.mark.parametrize("lower", [False, True])
def test_a_file_set_is_taken_by_its_dicomdir_without_regard_to_case(
    opened: Callable[[], StoreOperations], tmp_path: Path, lower: bool
) -> None:
    folder = medium(tmp_path, lower=lower)
    make("MR", seed=4).write(folder / "extra.dcm")
    document = imported(opened(), folder)
    assert document["imported"] == 3, "two that are referenced, and one that is not"
    (refused,) = document["refused"]
    assert "refers to it, but it is absent" in refused["reason"]
    assert refused["path"].upper().endswith("IM000002")


def test_a_dicomdir_stands_for_its_folder(opened: Callable[[], StoreOperations], tmp_path: Path) -> None:
    assert imported(opened(), medium(tmp_path) / "DICOMDIR")["imported"] == 2


def test_an_iso_image_is_read_as_a_medium(opened: Callable[[], StoreOperations], tmp_path: Path) -> None:
    contents = [one.part10() for one in study("CT", 3, seed=5)]
    files = [
        DiscFile(("DICOM", f"IM{number}"), len(data), hashlib.sha256(data).hexdigest(), data)
        for number, data in enumerate(contents)
    ]
    path = tmp_path / "disc.img"
    with path.open("wb") as out:
        IsoImage(files, "TEST", datetime(2026, 1, 2, tzinfo=UTC)).write(out)
    document = imported(opened(), path)
    assert (document["imported"], document["refused"]) == (3, [])


def test_names_that_differ_in_case_only_and_links_are_refused(
    opened: Callable[[], StoreOperations], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    write(folder, study("CT", 1, seed=1))
    (folder / "ct-1.DCM").write_bytes(make("CT", seed=2).part10())
    outside = make("CT", seed=3).write(tmp_path / "outside.dcm")
    (folder / "link").symlink_to(outside)
    document = imported(opened(), folder)
    assert document["imported"] == 0
    reasons = "\n".join(one["reason"] for one in document["refused"])
    assert "differ in nothing but case" in reasons
    assert "symbolic link" in reasons


def test_paths_that_do_not_exist_are_wrong_usage_before_anything_is_done(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(UsageError, match="nowhere"):
        survey([tmp_path, tmp_path / "nowhere"], stack)


class Slow:
    """Operations whose files come back in another order than they went."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.fail = fail
        self.taken: list[str] = []

    def ingest(self, source: Source) -> Document:
        self.taken.append(source.shown)
        if self.fail is not None and source.shown.endswith("7"):
            raise self.fail
        if int(source.shown[-1]) % 2:
            raise UsageError(f"{source.shown}: is odd")
        return {"outcome": "stored", "sop_instance_uid": "1"}


def _sources(tmp_path: Path, count: int) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(count):
        (folder / f"f{number:03}").touch()
    return folder


def test_refusals_come_in_the_order_of_the_files_whatever_order_they_end_in(tmp_path: Path) -> None:
    document = imported(Slow(), _sources(tmp_path, 100))
    assert document["imported"] == 50
    paths = [one["path"] for one in document["refused"]]
    assert paths == sorted(paths) and len(paths) == 50
    assert {one["reason"] for one in document["refused"]} == {"is odd"}


def test_a_fault_with_one_file_does_not_cost_the_others(tmp_path: Path) -> None:
    document = imported(Slow(fail=ZeroDivisionError("oh")), _sources(tmp_path, 20))
    assert document["imported"] == 10
    assert {one["reason"] for one in document["refused"]} == {"is odd", "unexpected ZeroDivisionError: oh"}


def test_a_full_spool_ends_the_import(tmp_path: Path) -> None:
    operations = Slow(fail=TryLater("the spool is full"))
    with pytest.raises(TryLater, match="full"):
        imported(operations, _sources(tmp_path, 100))
    assert len(operations.taken) < 50
