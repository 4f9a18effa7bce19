"""Another copy of a volume, byte by byte equal, from the spool or from another disc, image or folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from jobs import reburning, retaining
from jobs.options import OptionsError
from store import atrisk, copies, discviews, rereading, shelves
from store.models import Derived, Instance
from store.models_jobs import Disc, Job, Volume
from store.purging import Policy
from store.reburns import NoSuchVolume, ReburnError
from store.states import JobState
from tests.extracting import extracted
from tests.jobs.conftest import House


def _burn(house: House) -> House:
    house.receive(3)
    engine = house.engine()
    engine.start()
    assert engine.wait(house.order(profile="STD-GEN-DVD-JPEG"), 120) is JobState.DONE
    return house


@pytest.fixture
def burnt(house: House) -> House:
    """A house with a verified disc D1 of three instances, which are still in the spool; its engine runs."""
    return _burn(house)


def _end(house: House, ordered: reburning.Ordered) -> Disc:
    """Wait for the job; its one disc."""
    (engine,) = house._engines
    assert engine.wait(ordered.job_id, 120) is JobState.DONE
    with house.db.read() as session:
        return session.scalars(select(Disc).where(Disc.job_id == ordered.job_id)).one()


def _disc(house: House, number: int) -> Disc:
    with house.db.read() as session:
        return session.get_one(Disc, number)


def _lose(house: House, number: int, *, image: bool = True) -> None:
    with house.db.begin() as session:
        shelves.mark(session, number, "LOST", reason="")
    if image:
        Path(str(_disc(house, number).image)).unlink()


def _purge(house: House) -> None:
    """Out of the spool, on the word of the discs."""
    assert retaining.purge(house.ctx, Policy(), dry_run=False)["instances"] == 3


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_image(house: House, number: int) -> Path:
    """A disc on a shelf: its image is somewhere that the catalogue does not know."""
    disc = _disc(house, number)
    away = house.data / "away.iso"
    Path(str(disc.image)).rename(away)
    with house.db.begin() as session:
        session.execute(update(Disc).where(Disc.id == number).values(image=None, location=None, shelf="A/1"))
    return away


def test_from_the_spool(any_house: House) -> None:
    burnt = _burn(any_house)
    with burnt.db.begin() as session:
        shelves.move(session, 1, "vault/3")
    _lose(burnt, 1)
    ordered = reburning.order(burnt.ctx, "D1", by="ada")
    assert (ordered.source, ordered.restored) == ("spool", 0)
    made = _end(burnt, ordered)
    before = _disc(burnt, 1)
    assert (made.volume_id, made.copy, made.state) == (before.volume_id, 2, "VERIFIED")
    assert (made.sha256, made.purpose, made.shelf) == (before.sha256, "archive", "vault/3")
    with burnt.db.read() as session:
        volume = session.get_one(Volume, made.volume_id)
        assert (volume.good_copies, volume.wanted_copies) == (1, 1)
        assert volume.image_sha256 == _sha256(Path(str(made.image)))
        events = discviews.disc(session, made.id)["events"]
        assert (events[0]["detail"]["action"], events[0]["detail"]["by"]) == ("reburn", "ada")


def test_a_volume_s_new_discs_go_where_those_were_that_count_no_more(any_house: House) -> None:
    burnt = _burn(any_house)
    with burnt.db.begin() as session:
        shelves.move(session, 1, "vault/3")
    assert _end(burnt, reburning.order(burnt.ctx, "BURNISH_0000001", copies=1)).shelf is None  # the other stands there
    _lose(burnt, 1)
    assert _end(burnt, reburning.order(burnt.ctx, "BURNISH_0000001", copies=1)).shelf == "vault/3"
    assert _end(burnt, reburning.order(burnt.ctx, "D1", copies=1)).shelf is None  # it has its place again


def test_from_another_image_that_is_online(burnt: House) -> None:
    _purge(burnt)
    ordered = reburning.order(burnt.ctx, "BURNISH_0000001", copies=1)
    assert ordered.source == str(Path(str(_disc(burnt, 1).image)).resolve())
    made = _end(burnt, ordered)
    assert made.sha256 == _disc(burnt, 1).sha256
    with burnt.db.read() as session:
        assert session.scalars(select(Instance.spool_path)).all() == [None] * 3  # nothing had to come back


def test_from_a_path_that_is_given(burnt: House) -> None:
    _purge(burnt)
    away = _without_image(burnt, 1)
    with pytest.raises(ReburnError, match=r"please insert BURNISH_0000001, shelf A/1; then say --from") as caught:
        reburning.order(burnt.ctx, "D1")
    assert caught.value.code == "NO_SOURCE"
    made = _end(burnt, reburning.order(burnt.ctx, "D1", path=away))
    assert made.sha256 == _disc(burnt, 1).sha256


def test_an_image_that_is_gone_when_it_is_to_be_copied(burnt: House, tmp_path: Path) -> None:
    _purge(burnt)
    first = Path(str(_disc(burnt, 1).image))
    other = Path(shutil.copy(first, tmp_path / "other.iso"))
    assert reburning.order(burnt.ctx, "D1", path=other).source == str(other.resolve())
    other.unlink()
    image = reburning.volume_image(burnt.ctx, _disc(burnt, 1).volume_id)
    written: list[bytes] = []
    image.write(written.append, lambda _done: None, lambda: False)
    assert b"".join(written) == first.read_bytes()


def test_from_a_folder(burnt: House, tmp_path: Path) -> None:
    _purge(burnt)
    folder = extracted(_without_image(burnt, 1), tmp_path / "folder")
    told: list[dict[str, Any]] = []
    ordered = reburning.order(burnt.ctx, "D1", path=folder, progress=told.append)
    assert (ordered.source, ordered.restored) == ("spool", 3)
    assert told[-1] == {"phase": "reading folder", "done": 3, "total": 3, "unit": "files"}
    assert _end(burnt, ordered).sha256 == _disc(burnt, 1).sha256


def test_what_one_copy_does_not_give_another_does(burnt: House, tmp_path: Path) -> None:
    """Two folders, each with a file that is damaged, are one whole volume."""
    _purge(burnt)
    away = _without_image(burnt, 1)
    folders = [extracted(away, tmp_path / name) for name in ("one", "two")]
    files = sorted(path.relative_to(folders[0]) for path in (folders[0] / "DICOM").rglob("*") if path.is_file())
    for folder, name in zip(folders, files, strict=False):
        damaged = bytearray((folder / name).read_bytes())
        damaged[-5] ^= 1
        (folder / name).write_bytes(damaged)
    with pytest.raises(ReburnError, match=r"1 of its files are neither .* differs from the catalogue's digest"):
        reburning.order(burnt.ctx, "D1", path=folders[0])
    ordered = reburning.order(burnt.ctx, "D1", path=folders[1])
    assert ordered.restored == 1
    assert _end(burnt, ordered).sha256 == _disc(burnt, 1).sha256


def test_a_damaged_image_is_never_copied(burnt: House, tmp_path: Path) -> None:
    _purge(burnt)
    away = _without_image(burnt, 1)
    sound = away.read_bytes()
    files = extracted(away, tmp_path / "folder")
    one = next(path for path in (files / "DICOM").rglob("*") if path.is_file()).read_bytes()
    damaged = bytearray(sound)
    damaged[sound.index(one) + len(one) - 3] ^= 1
    away.write_bytes(damaged)
    with pytest.raises(ReburnError, match="is not as BURNISH_0000001 was made"):
        reburning.order(burnt.ctx, "D1", path=away)
    with burnt.db.read() as session:
        assert session.scalars(select(Job.id)).all() == [1]


def test_of_a_damaged_image_what_is_whole_is_taken(burnt: House) -> None:
    """Where the damage is in no instance, a new image is made from what was read back."""
    _purge(burnt)
    away = _without_image(burnt, 1)
    content = bytearray(away.read_bytes())
    content[-1] ^= 1  # behind the last file
    away.write_bytes(content)
    ordered = reburning.order(burnt.ctx, "D1", path=away)
    assert (ordered.source, ordered.restored) == ("spool", 3)
    assert _end(burnt, ordered).sha256 == _disc(burnt, 1).sha256


def test_what_is_another_disc_is_refused(burnt: House) -> None:
    burnt.receive(1, seed=2)
    (engine,) = burnt._engines
    assert engine.wait(burnt.order(profile="STD-GEN-DVD-JPEG"), 120) is JobState.DONE
    with pytest.raises(ReburnError, match="is not BURNISH_0000001") as caught:
        reburning.order(burnt.ctx, "D1", path=Path(str(_disc(burnt, 2).image)))
    assert caught.value.code == "WRONG_DISC"
    with pytest.raises(OptionsError, match="there is no /nowhere"):
        reburning.order(burnt.ctx, "D1", path=Path("/nowhere"))


def test_nothing_is_burnt_twice_unasked(house: House) -> None:
    house.receive(1)
    engine = house.engine()
    engine.start()
    assert engine.wait(house.order(profile="STD-GEN-DVD-JPEG"), 120) is JobState.DONE
    engine.stop()
    first = reburning.order(house.ctx, "D1", idempotency_key="k").job_id
    with pytest.raises(ReburnError, match=r"is being made already: D2 \(J2\)"):
        reburning.order(house.ctx, "D1")
    assert reburning.order(house.ctx, "D1", copies=1, idempotency_key="k").job_id == first
    assert reburning.order(house.ctx, "D1", copies=2).job_id == first + 1
    with house.db.read() as session:
        assert session.scalars(select(Disc.copy).order_by(Disc.id)).all() == [1, 2, 3, 4]
    # what it is made of must not be purged
    assert retaining.purge(house.ctx, Policy(), dry_run=True)["instances"] == 0


@pytest.mark.parametrize(
    ("of", "given", "kind", "words"),
    [
        ("D9", {}, rereading.NoSuchDisc, "no disc D9"),
        ("NOWHERE", {}, NoSuchVolume, "no volume 'NOWHERE'"),
        ("D1", {"burner": "none"}, OptionsError, "no burner 'none'"),
        ("D1", {"copies": 0}, OptionsError, "copies is 0"),
        ("D1", {"priority": "now"}, OptionsError, "priority is 'now'"),
    ],
)
def test_what_cannot_be(house: House, of: str, given: dict[str, Any], kind: type[Exception], words: str) -> None:
    from tests.rows import add_disc, add_instance

    with house.db.begin() as session:
        add_disc(session, [add_instance(session, "1.1")])
    with pytest.raises(kind, match=words):
        reburning.order(house.ctx, of, **given)


def test_a_conformed_volume_comes_back_whole(any_house: House, tmp_path: Path) -> None:
    """Files that were conformed for the disc, and purged with what they were made of."""
    house = any_house
    house.receive(2)
    engine = house.engine()
    engine.start()
    assert engine.wait(house.order(profile="STD-GEN-DVD-J2K", compress="lossless"), 120) is JobState.DONE
    with house.db.read() as session:
        assert session.scalars(select(Derived.path)).all()
    assert retaining.purge(house.ctx, Policy(), dry_run=False)["derived"] == 2
    folder = extracted(_without_image(house, 1), tmp_path / "folder")
    ordered = reburning.order(house.ctx, "D1", path=folder)
    assert ordered.restored == 2
    assert _end(house, ordered).sha256 == _disc(house, 1).sha256
    # Once it is there twice it may go again, and what is at risk is nothing.
    with house.db.begin() as session:
        copies.recount_all(session)
        assert atrisk.volumes(session) == []
    assert retaining.purge(house.ctx, Policy(), dry_run=False)["derived"] == 2


def test_a_disc_in_a_drive_is_read_once_and_for_all(burnt: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One drive may have to burn what it has read: the image is kept until the disc is made."""
    _purge(burnt)
    away = _without_image(burnt, 1)
    monkeypatch.setattr(reburning.stat, "S_ISBLK", lambda _mode: True)
    ordered = reburning.order(burnt.ctx, "D1", path=away)
    kept = Path(ordered.source)
    assert kept.parent == burnt.data / "staging" / "copies"
    away.unlink()  # taken out
    assert _end(burnt, ordered).sha256 == _disc(burnt, 1).sha256
    reburning.tidy(burnt.ctx)
    assert kept.exists()  # perhaps of an order that is not entered yet
    os.utime(kept, (0, 0))
    reburning.tidy(burnt.ctx)
    assert not kept.exists()
