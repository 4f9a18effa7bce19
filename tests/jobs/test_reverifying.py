"""Discs are read again when they are due, oldest first; what is worn or damaged is flagged and made anew."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from jobs import retaining, reverifying, schedules
from jobs.engine import Engine
from jobs.options import OptionsError
from jobs.schedules import Firing
from store import atrisk, duediscs, rereading, shelves
from store.db import Database
from store.models_archive import DiscCheck
from store.models_base import now
from store.models_jobs import Disc, Job, Volume
from store.purging import Policy
from store.states import JobState
from tests.jobs.conftest import House
from tests.rows import add_disc, add_instance


def _age(db: Database, **days: int) -> None:
    """Let discs have been verified so many days ago."""
    with db.begin() as session:
        for disc, ago in days.items():
            at = now() - timedelta(days=ago)
            session.execute(update(Disc).where(Disc.id == int(disc[1:])).values(verified_at=at))


@pytest.fixture
def burnt(house: House) -> House:
    """A house with two discs of one volume, D1 and D2, and its engine."""
    house.receive(2)
    engine = house.engine()
    engine.start()
    assert engine.wait(house.order(profile="STD-GEN-DVD-JPEG", copies=2), 120) is JobState.DONE
    return house


def _stop(house: House) -> None:
    """What is ordered from here on waits."""
    (engine,) = house._engines
    engine.stop()


def _started(house: House) -> Engine:
    """Another engine."""
    engine = house.engine()
    engine.start()
    return engine


def _firing(jobs: list[int] | None = None, **options: Any) -> Firing:
    given = reverifying.values_of(None, {}, options, None)[1]  # type: ignore[arg-type]
    return Firing("again", {}, given, None, now(), submit=(jobs if jobs is not None else []).append)


def _image(house: House, number: int) -> Path:
    with house.db.read() as session:
        return Path(str(session.get_one(Disc, number).image))


def _damage(house: House, number: int) -> None:
    path = _image(house, number)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_due_is_read_oldest_first(burnt: House) -> None:
    _age(burnt.db, D1=400, D2=500)
    assert [one["disc"] for one in reverifying.preview(burnt.ctx, _firing())["read"]] == ["D2", "D1"]
    done = reverifying.run(burnt.ctx, _firing(at_most=1))
    assert (done["read"], done["good"], done["due"], done["flagged"]) == (1, 1, 1, [])
    with burnt.db.read() as session:
        (check,) = session.scalars(select(DiscCheck))
        volume = session.scalars(select(Volume)).one()
        assert (check.disc_id, check.result, check.sectors, check.unreadable) == (2, "GOOD", volume.sectors, 0)
        assert check.seconds is not None and check.how == f"image {_image(burnt, 2)}"
    assert reverifying.run(burnt.ctx, _firing())["read"] == 1
    assert reverifying.run(burnt.ctx, _firing()) == {"read": 0, "good": 0, "flagged": [], "insert": [], "due": 0}


def test_discs_on_shelves_are_asked_for(burnt: House) -> None:
    _age(burnt.db, D1=400, D2=400)
    _image(burnt, 1).rename(burnt.data / "away.iso")
    with burnt.db.begin() as session:
        shelves.move(session, 1, "vault/3")
    done = reverifying.run(burnt.ctx, _firing())
    assert (done["read"], done["due"]) == (1, 1)
    (asked,) = done["insert"]
    assert asked["words"] == (
        "please insert BURNISH_0000001 (copy 1, D1), shelf vault/3; `burnish verify DRIVE --record --disc D1`"
    )
    listed = reverifying.due_document(burnt.ctx, months=12)
    assert [(one["disc"], one["path"]) for one in listed] == [("D1", None)]


def test_a_disc_that_fails_is_flagged_and_made_anew_from_the_other(burnt: House) -> None:
    assert retaining.purge(burnt.ctx, Policy(), dry_run=False)["instances"] == 2
    _age(burnt.db, D1=400)
    _damage(burnt, 1)
    _stop(burnt)  # else the new disc may be there before anybody looks
    ordered: list[int] = []
    done = reverifying.run(burnt.ctx, _firing(ordered, refresh=True))
    (flagged,) = done["flagged"]
    assert (flagged["disc"], flagged["checked_result"], flagged["refresh"]["job"]) == ("D1", "DAMAGED", "J2")
    assert flagged["refresh"]["words"] == f"another copy is made from {_image(burnt, 2).resolve()}"
    with burnt.db.read() as session:
        assert len(atrisk.volumes(session)) == 1  # until the new disc is verified
    assert ordered == [2] and _started(burnt).wait(2, 120) is JobState.DONE
    with burnt.db.read() as session:
        assert atrisk.volumes(session) == []
        new = session.scalars(select(Disc).where(Disc.job_id == 2)).one()
        assert (new.copy, new.sha256) == (3, session.get_one(Disc, 2).sha256)
    assert reverifying.run(burnt.ctx, _firing(refresh=True))["read"] == 0  # it is known of D1


def test_without_another_copy_it_is_said_what_to_do(burnt: House) -> None:
    assert retaining.purge(burnt.ctx, Policy(), dry_run=False)["instances"] == 2
    with burnt.db.begin() as session:
        shelves.mark(session, 2, "LOST", reason="")
        session.execute(update(Disc).where(Disc.id == 2).values(image=None))
    _age(burnt.db, D1=400)
    path = _image(burnt, 1)
    path.write_bytes(path.read_bytes()[: 20 * 2048])  # little of it is left
    (flagged,) = reverifying.run(burnt.ctx, _firing(refresh=True))["flagged"]
    assert flagged["refresh"]["job"] is None and "neither in the spool" in flagged["refresh"]["words"]
    with burnt.db.read() as session:
        assert session.scalars(select(Job.id)).all() == [1]
        assert atrisk.volumes(session)[0]["gone"]


def test_a_folder_is_read_too(burnt: House, tmp_path: Path) -> None:
    from media.trees import open_tree

    folder = tmp_path / "folder"
    with open_tree(_image(burnt, 1)) as tree:
        for name in tree.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with tree.open(name) as source, (folder / name).open("wb") as out:
                shutil.copyfileobj(source, out)
    told = reverifying.check(burnt.ctx, 1, folder)
    assert (told["checked_result"], told["checked_how"]) == ("GOOD", f"folder {folder}")
    next(path for path in (folder / "DICOM").rglob("*") if path.is_file()).unlink()
    told = reverifying.check(burnt.ctx, 1, folder)
    assert (told["checked_result"], told["lost"]) == ("DAMAGED", 1)


def test_a_worn_disc_is_made_anew_once(burnt: House) -> None:
    with burnt.db.begin() as session:
        session.execute(update(Disc).where(Disc.id == 1).values(checked_result="WORN"))
        assert duediscs.sound_copies(session, 1) == (1, 2)
    one = next(one for one in _all_due(burnt) if one.disc_id == 1)
    _stop(burnt)
    first = reverifying._refresh(burnt.ctx, one, _firing())
    assert first["job"] == "J2"
    assert "is being made already" in reverifying._refresh(burnt.ctx, one, _firing())["words"]
    assert _started(burnt).wait(2, 120) is JobState.DONE
    assert reverifying._refresh(burnt.ctx, one, _firing())["words"] == "2 other discs are sound, and 2 are wanted"


def test_what_could_not_be_refreshed_is_made_up_for(burnt: House) -> None:
    with burnt.db.begin() as session:
        session.execute(update(Disc).where(Disc.id == 1).values(checked_result="DAMAGED"))  # and then it was killed
    assert "made_up" not in reverifying.run(burnt.ctx, _firing())
    (told,) = reverifying.run(burnt.ctx, _firing(refresh=True))["made_up"]
    assert (told["disc"], told["refresh"]["job"]) == ("D1", "J2")
    assert "made_up" not in reverifying.run(burnt.ctx, _firing(refresh=True)), "it is being made"


def _all_due(house: House) -> list[duediscs.DueDisc]:
    with house.db.read() as session:
        return duediscs.due(session, now() + timedelta(seconds=1))


def test_a_stop_leaves_the_rest(burnt: House) -> None:
    _age(burnt.db, D1=400, D2=400)
    firing = Firing("again", {}, {}, None, now(), cancelled=lambda: True)
    assert reverifying.run(burnt.ctx, firing)["read"] == 0


def test_which_discs_are_due(database: Database) -> None:
    with database.begin() as session:
        made = [add_disc(session, [add_instance(session, f"1.{number}")]) for number in range(6)]
        at = now() - timedelta(days=100)
        for disc in made:
            disc.verified_at = at
        made[0].verified_at = at - timedelta(days=1)
        made[1].purpose = "handout"
        made[2].purpose, made[2].pool = "backup", "nightly"
        session.flush()
        shelves.mark(session, made[3].id, "LOST", reason="")
        rereading.record_check(session, made[4].id, good=True, how="image", detail={})
        add_disc(session, [add_instance(session, "1.9")], state="FAILED").verified_at = at
    before = now() - timedelta(days=30)
    with database.read() as session:
        assert [one.disc_id for one in duediscs.due(session, before)] == [1, 3, 6]
        assert [one.disc_id for one in duediscs.due(session, before, pool="nightly")] == [3]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"months": 0}, "months is 0"),
        ({"months": True}, "months is True"),
        ({"at_most": "many"}, "at_most is 'many'"),
        ({"refresh": 1}, "refresh is 1"),
        ({"mouths": 3}, "unknown option mouths"),
    ],
)
def test_options_that_make_no_sense(house: House, options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionsError, match=told):
        schedules.kind_of("reverify").values_of(house.settings, {}, options, None)


def test_a_purge_as_a_schedule(burnt: House) -> None:
    kind = schedules.kind_of("purge")
    assert kind.values_of(burnt.settings, {}, {"min_copies": 2}, None) == ({}, {"min_copies": 2})
    for rules, options, pool, told in (
        ({"modality": ["CT"]}, {}, None, "neither rules"),
        ({}, {}, "vault", "nor a pool"),
        ({}, {"min_copies": 0}, None, "min_copies is 0"),
        ({}, {"to_low_mark": True}, None, "there is none"),
        ({}, {"to_low_mark": "yes"}, None, "to_low_mark is 'yes'"),
        ({}, {"x": 1}, None, "unknown option x"),
    ):
        with pytest.raises(OptionsError, match=told):
            kind.values_of(burnt.settings, rules, options, pool)
    firing = Firing("nightly", {}, {"min_copies": 2}, None, now())
    assert kind.preview(burnt.ctx, firing)["instances"] == 2
    done = kind.run(burnt.ctx, firing)
    assert (done["instances"], done["studies"]) == (2, 1)
    assert kind.run(burnt.ctx, firing)["instances"] == 0


def test_above_the_high_mark_the_clock_purges_to_the_low_one(make_house: Any, caplog: Any) -> None:
    house = make_house(spool={"max_bytes": 10_000_000}, retention={"high_percent": 1e-6, "low_percent": 1e-6})
    house.receive(2)
    told: list[str] = []
    with caplog.at_level("WARNING", logger="burnish.jobs"):
        assert retaining.tick(house.ctx)["instances"] == 0  # nothing is on a disc
        retaining.tick(house.ctx)
        told = [record.getMessage() for record in caplog.records if record.name == "burnish.jobs"]
    assert len(told) == 1 and "nothing more of it may be purged" in told[0]
    engine = house.engine()
    engine.start()
    assert engine.wait(house.order(profile="STD-GEN-DVD-JPEG"), 120) is JobState.DONE
    assert retaining.tick(house.ctx)["instances"] == 2


def test_without_a_mark_the_clock_purges_nothing(house: House) -> None:
    assert retaining.tick(house.ctx) is None
