"""Plans whose profile has icons: made once, pinned, made again when lost, demanded where the profile demands them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select

from jobs import iconing
from jobs.assemble import volume_image
from jobs.conform_pool import FAILED, Conformed, Task
from jobs.options import RequestOptions
from jobs.plandocument import plan_document
from jobs.planning import check_plan, create_request, make_plan
from jobs.preparing import PlanRefused
from media.problems import MediaError
from media.trees import open_tree
from media.verify import verify_path
from store import retention
from store.instances import Provenance, Registrar, ingest_file
from store.models import Derived, Instance
from store.models_jobs import Volume, VolumeInstance
from store.selection import Selection
from tests.jobs.conftest import House
from tests.makers import make


def receive(house: House, count: int, kind: str = "CT", change: Callable[[Dataset], None] | None = None) -> None:
    registrar = Registrar(house.db, house.ctx.spool)
    folder = house.data / "in"
    for number in range(1, count + 1):
        made = make(kind, number=number, seed=7, size=64 * 64 * 2, change=change)
        ingest_file(registrar, made.write(folder), provenance=Provenance("CT", "BURNISH", "test"))


def plan(house: House, profile: str = "STD-CTMR-CD", **options: Any) -> dict[str, Any]:
    given = RequestOptions.from_settings(house.settings, {"profile": profile, **options})
    with house.db.begin() as session:
        request = create_request(session, selection=Selection(all=True), options=given, source="test")
    done = make_plan(house.ctx, request)
    with house.db.read() as session:
        return plan_document(session, done)


def image(house: House, plan: dict[str, Any], path: Path) -> Path:
    with house.db.read() as session:
        uid = plan["volumes"][0]["file_set_uid"]
        volume = session.scalars(select(Volume.id).where(Volume.file_set_uid == uid)).one()
    with path.open("wb") as out:
        volume_image(house.ctx, volume).write(out)
    assert path.stat().st_size == plan["volumes"][0]["sectors"] * 2048
    return path


def icons_of(path: Path) -> list[Dataset]:
    with open_tree(path).open("DICOMDIR") as stream:
        records = dcmread(BytesIO(stream.read())).DirectoryRecordSequence
    return [record.IconImageSequence[0] for record in records if "IconImageSequence" in record]


def files(house: House) -> list[Path]:
    return sorted(house.settings.derived_dir.rglob("*.icon"))


def test_optional_icons_are_made_once_and_stand_on_the_disc(house: House, tmp_path: Path) -> None:
    receive(house, 5)
    first = plan(house)
    assert first["refused"] == []
    path = image(house, first, tmp_path / "1.iso")
    icons = icons_of(path)
    assert [(icon.Rows, icon.Columns, len(icon.PixelData)) for icon in icons] == [(64, 64, 4096)] * 5
    assert len({icon.PixelData for icon in icons}) == 5
    assert [str(one) for one in verify_path(path, profile="STD-CTMR-CD").problems] == []
    assert first["supplied"] == []  # an icon is no supplied key
    made = [(one, one.stat().st_mtime_ns) for one in files(house)]
    assert len(made) == 5
    plan(house)
    assert [(one, one.stat().st_mtime_ns) for one in files(house)] == made
    assert not list(house.settings.derived_dir.rglob("*.part"))


def test_profiles_with_random_file_ids(house: House, tmp_path: Path) -> None:
    """STD-US (PS3.11 C.3.3.2); every plan has names of its own, and its size is exact all the same."""
    receive(house, 4, "US")
    names = []
    for number in range(2):
        made = plan(house, "STD-US-ID-MF-CDR")
        assert made["refused"] == []
        path = image(house, made, tmp_path / f"{number}.iso")
        assert [str(one) for one in verify_path(path, profile="STD-US-ID-MF-CDR").problems] == []
        names.append({name for name in open_tree(path).files if name.startswith("DICOM/")})
    assert len(names[0]) == 4
    assert not names[0] & names[1]
    assert not any(name.endswith("IM000001") for name in names[0] | names[1])


def test_profiles_without_icons_have_none(house: House, tmp_path: Path) -> None:
    receive(house, 2)
    assert icons_of(image(house, plan(house, "STD-GEN-CD"), tmp_path / "1.iso")) == []
    assert files(house) == []


def test_lost_or_damaged_icons_are_made_again_to_the_byte(house: House, tmp_path: Path) -> None:
    receive(house, 3)
    made = plan(house)
    before = image(house, made, tmp_path / "1.iso").read_bytes()
    lost, damaged, cut = files(house)
    lost.unlink()
    damaged.write_bytes(bytes(damaged.stat().st_size))
    cut.write_bytes(b"")
    assert image(house, made, tmp_path / "2.iso").read_bytes() == before
    for one in files(house):
        one.unlink()
    check_plan(house.ctx, int(made["plan"][1:]))
    assert len(files(house)) == 3
    with house.db.begin() as session:
        for row in session.scalars(select(Derived)):
            session.delete(row)
    assert image(house, made, tmp_path / "3.iso").read_bytes() == before
    files(house)[0].unlink()
    again = image(house, plan(house), tmp_path / "4.iso")
    assert [icon.PixelData for icon in icons_of(again)] == [icon.PixelData for icon in icons_of(tmp_path / "1.iso")]


def test_an_icon_that_comes_out_differently_makes_the_plan_stale(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(house, 1)
    made = plan(house)
    with house.db.begin() as session:
        (row,) = session.scalars(select(VolumeInstance))
        ((kind, tag, vr, pinned),) = row.supplied
        recipe, size, digest = pinned.split(" ")
        row.supplied = [[kind, tag, vr, f"{recipe} {size} {digest[::-1]}"]]
    with pytest.raises(PlanRefused, match=r"PLAN_STALE: The icon of instance .* cannot be made again as it was"):
        check_plan(house.ctx, int(made["plan"][1:]))
    with pytest.raises(MediaError, match="another decoder gives another picture"):
        image(house, made, tmp_path / "1.iso")


def test_an_icon_whose_instance_has_gone_makes_the_plan_stale(house: House) -> None:
    receive(house, 1)
    made = plan(house)
    pinned = iconing.Pinned("0" * 64, "1.2.3", None, "icon-64c/1", 1, "0" * 64)
    with pytest.raises(MediaError, match=r"The icon of instance 1\.2\.3 is gone, and so is the instance"):
        iconing.restore(house.ctx, [pinned])
    check_plan(house.ctx, int(made["plan"][1:]))


def undecodable(ds: Dataset) -> None:
    ds.NumberOfFrames = 3
    ds.PixelData = ds.PixelData[:64]


def test_where_icons_are_optional_an_image_without_one_goes_on_the_disc(house: House, tmp_path: Path) -> None:
    receive(house, 1)
    receive(house, 1, "MR", undecodable)
    made = plan(house)
    assert made["refused"] == []
    path = image(house, made, tmp_path / "1.iso")
    assert len(icons_of(path)) == 1
    before = path.read_bytes()
    assert image(house, made, tmp_path / "2.iso").read_bytes() == before


@pytest.fixture
def first_crashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The helper that makes the first icon ends like one whose decoder crashed."""
    real = iconing.conform_all

    def crashing(tasks: Sequence[Task], **more: Any) -> Iterator[Conformed]:
        for number, result in enumerate(real(tasks, **more)):
            if number:
                yield result
            else:
                result.task.target.unlink()
                yield Conformed(result.task, refused=("PROC_FAILURE", f"{FAILED}its decoder crashed (SIGSEGV)"))

    monkeypatch.setattr(iconing, "conform_all", crashing)
    yield monkeypatch


def test_where_icons_are_required_an_image_without_one_is_refused(
    house: House, tmp_path: Path, first_crashes: pytest.MonkeyPatch
) -> None:
    receive(house, 3, "XA", lambda ds: setattr(ds, "CalibrationImage", "NO"))
    made = plan(house, "STD-XA1K-CD", compress="lossless")
    (refused,) = made["refused"]
    assert refused["reason"] == (
        "INST_AP_CONFLICT: its IMAGE record must have an icon (0088,0200) (PS3.11 B.3.3.2), and none can be made: "
        "its decoder crashed (SIGSEGV)"
    )
    path = image(house, made, tmp_path / "1.iso")
    assert [(icon.Rows, icon.PhotometricInterpretation) for icon in icons_of(path)] == [(128, "MONOCHROME2")] * 2
    assert [str(one) for one in verify_path(path, profile="STD-XA1K-CD").problems] == []
    first_crashes.undo()
    assert plan(house, "STD-XA1K-CD", compress="lossless")["refused"] == []


def test_a_crash_costs_an_optional_icon_and_a_plan_stays_what_it_was(
    house: House, tmp_path: Path, first_crashes: pytest.MonkeyPatch
) -> None:
    receive(house, 3)
    made = plan(house)
    assert made["refused"] == []
    assert len(icons_of(image(house, made, tmp_path / "1.iso"))) == 2
    first_crashes.undo()
    assert len(icons_of(image(house, plan(house), tmp_path / "2.iso"))) == 3
    assert len(icons_of(image(house, made, tmp_path / "3.iso"))) == 2


def test_icons_go_with_their_instances(house: House) -> None:
    receive(house, 2)
    plan(house)
    assert len(files(house)) == 2
    with house.db.read() as session:
        ids = list(session.scalars(select(Instance.id)))
    retention.delete(house.db, house.ctx.spool, house.settings.derived_dir, ids[:1])
    assert len(files(house)) == 1
    retention.delete(house.db, house.ctx.spool, house.settings.derived_dir, ids[1:])
    assert files(house) == []
