"""Pools: discs are filled as studies come, by real sizes; each instance is put on them once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from jobs import filling, pools
from jobs.filling import Filler
from jobs.options import OptionsError
from media.problems import MediaError
from store import catalogue, waiting
from store import pools as store_pools
from store.archiving import ArchiveRules, meant
from store.instances import Provenance, Registrar, ingest_file
from store.models import Instance
from store.models_archive import PoolInstance
from store.models_base import now
from store.models_jobs import Disc, Job, Request, RequestInstance
from store.models_nodes import Event
from store.states import JobState
from tests.jobs.conftest import House
from tests.makers import Patient, study

SECTORS = 712
"""Room for six studies of four instances, as ``receive`` makes them, beside what every volume has."""


def receive(house: House, number: int, *, size: int = 40_000, count: int = 4, first: int = 1, **more: Any) -> str:
    """A study of a patient of its own, about ``count * size`` bytes; returns its UID."""
    registrar = Registrar(house.db, house.ctx.spool)
    folder = house.data / "incoming-test"
    folder.mkdir(exist_ok=True, parents=True)
    patient = Patient(f"P{number:03}", f"Patient^{number}")
    made = list(study("CT", first + count - 1, seed=number, patient=patient, size=size, **more))[first - 1 :]
    for one in made:
        ingest_file(registrar, one.write(folder), provenance=Provenance("CT_1", "BURNISH", "test"))
    return str(made[0].dataset.StudyInstanceUID)


def make_pool(house: House, name: str = "arch", **given: Any) -> None:
    options = {"capacity_sectors": SECTORS, **given.pop("options", {})}
    values = pools.values_of(house.settings, {"options": options, "min_fill": 90, "quiet_minutes": 0, **given})
    with house.db.begin() as session:
        store_pools.add(session, name, values)


def put_all(house: House, name: str = "arch") -> int:
    with house.db.begin() as session:
        pool = store_pools.get(session, name, lock=True)
        return waiting.put(session, pool, meant(ArchiveRules(), now()))


def tick(house: House) -> int:
    return Filler(house.ctx).tick()


def requests(house: House) -> list[list[int]]:
    with house.db.read() as session:
        found = session.scalars(select(Request.id).where(Request.pool.is_not(None)).order_by(Request.id)).all()
        of = select(RequestInstance.instance_id).order_by(RequestInstance.instance_id)
        return [list(session.scalars(of.where(RequestInstance.request_id == one))) for one in found]


def still_waiting(house: House, name: str = "arch") -> int:
    with house.db.read() as session:
        return waiting.summary(session, name).instances


def age(house: House, days: float, instances: Sequence[int] | None = None) -> None:
    """Let what waits have come so much earlier."""
    with house.db.begin() as session:
        for row in session.scalars(select(PoolInstance)):
            if instances is None or row.instance_id in instances:
                row.added_at -= timedelta(days=days)


def test_what_waits_is_burnt_when_it_fills_a_medium(any_house: House) -> None:
    house = any_house
    make_pool(house, copies=2, shelves=["A/1", "vault"])
    for number in range(1, 4):
        receive(house, number)
        put_all(house)
        assert tick(house) == 0, "three studies of 80 sectors do not fill it"
    assert still_waiting(house) == 12
    for number in range(4, 7):
        receive(house, number)
        put_all(house)
    assert tick(house) == 1
    (taken,) = requests(house)
    assert taken[:4] == [1, 2, 3, 4], "the longest waiting study is on it"
    assert len(taken) % 4 == 0 and len(taken) + still_waiting(house) == 24, "studies stay whole, the rest waits"
    assert tick(house) == 0
    with house.db.read() as session:
        request = session.scalars(select(Request)).one()
        assert (request.source, request.pool) == ("pool:arch", "arch")
        assert (request.options["purpose"], request.options["patients_per_disc"]) == ("archive", "many")
        event = session.scalars(select(Event).where(Event.kind == "pool", Event.new == "filled")).one()
        assert event.detail["why"] == "full" and event.detail["fill"] >= 0.9


def test_the_job_makes_one_full_volume_with_a_disc_for_each_shelf(house: House) -> None:
    make_pool(house, copies=2, shelves=["A/1", "vault"], options={"file_set_prefix": "ARC_"})
    uids = [receive(house, number) for number in range(1, 7)]
    put_all(house)
    assert tick(house) == 1
    engine = house.engine()
    engine.start()
    assert engine.wait(1, timeout=120) is JobState.DONE
    with house.db.read() as session:
        discs = session.scalars(select(Disc).order_by(Disc.copy)).all()
        assert [(disc.pool, disc.purpose, disc.shelf) for disc in discs] == [
            ("arch", "archive", "A/1"),
            ("arch", "archive", "vault"),
        ]
        found = catalogue.find(session, study=uids[0])
        assert len(found) == 2 and found[0]["file_set_id"].startswith("ARC_") and found[0]["of"] == 1
        document = pools.full_document(house.ctx, session, store_pools.get(session, "arch"))
    assert document["discs"] == {"made": 2, "verified": 2, "failed": 0, "open": 0}
    assert document["open_jobs"] == [] and document["waiting"]["fill"] < 90


def test_discs_of_a_backup_pool_are_no_place_of_the_catalogue(house: House) -> None:
    make_pool(house, "safe", kind="backup")
    uid = receive(house, 1)
    put_all(house, "safe")
    with house.db.read() as session:
        assert store_pools.get(session, "safe").required_copies == 0
    (job,) = filling.fill(house.ctx, "safe", everything=True)
    engine = house.engine()
    engine.start()
    assert engine.wait(job, timeout=120) is JobState.DONE
    with house.db.read() as session:
        disc = session.scalars(select(Disc)).one()
        assert (disc.state, disc.purpose, disc.pool) == ("VERIFIED", "backup", "safe")
        assert catalogue.find(session, study=uid) == []


def test_late_arrivals_become_a_supplement_and_the_study_is_on_both(house: House) -> None:
    make_pool(house)
    uid = receive(house, 1, count=2)
    put_all(house)
    first = filling.fill(house.ctx, "arch", everything=True)
    engine = house.engine()
    engine.start()
    assert engine.wait(first[0], timeout=120) is JobState.DONE
    receive(house, 1, count=3)  # two of these are known
    receive(house, 2)  # no study of the pool's
    assert tick(house) == 0
    assert still_waiting(house) == 1, "only what is new, and no schedule was needed"
    (second,) = filling.fill(house.ctx, "arch", everything=True)
    assert engine.wait(second, timeout=120) is JobState.DONE
    assert requests(house) == [[1, 2], [3]]
    with house.db.read() as session:
        found = catalogue.find(session, study=uid)
        assert [len(disc["instances"]) for disc in found] == [2, 1]
        assert len({disc["file_set_id"] for disc in found}) == 2
        beside = catalogue.find(session, patient_id="P001")
        assert beside == found, "what came later of the patient stands beside what was there"


def test_late_arrivals_of_a_study_that_still_waits_join_it(any_house: House) -> None:
    make_pool(any_house)
    receive(any_house, 1, count=2)
    put_all(any_house)
    receive(any_house, 1, count=4)
    tick(any_house)
    tick(any_house)
    assert still_waiting(any_house) == 4
    with any_house.db.read() as session:
        assert waiting.summary(session, "arch").studies == 1


def test_what_has_waited_long_enough_is_burnt_however_little(house: House) -> None:
    make_pool(house, latest_days=14)
    receive(house, 1)
    put_all(house)
    age(house, 13.9)
    assert tick(house) == 0
    age(house, 0.2)
    assert tick(house) == 1
    assert requests(house) == [[1, 2, 3, 4]]
    with house.db.read() as session:
        event = session.scalars(select(Event).where(Event.new == "filled")).one()
        assert event.detail["why"] == "due"


def test_with_what_is_due_goes_whatever_else_fits_and_the_rest_waits(any_house: House) -> None:
    house = any_house
    make_pool(house, latest_days=14, min_fill=99)
    for number in range(1, 9):
        receive(house, number)
    put_all(house)
    age(house, 14, instances=[17, 18, 19, 20])  # the fifth study
    with house.db.begin() as session:
        store_pools.get(session, "arch").look_at = 10**12  # not worth a look for its size
    assert tick(house) == 1
    (taken,) = requests(house)
    assert {17, 18, 19, 20} <= set(taken) and len(taken) > 8
    assert 0 < still_waiting(house) == 32 - len(taken)


def test_a_study_that_still_comes_in_is_left_waiting(house: House) -> None:
    make_pool(house, quiet_minutes=10)
    for number in range(1, 8):
        receive(house, number)
    put_all(house)
    assert tick(house) == 0
    with house.db.begin() as session:
        for instance in session.scalars(select(Instance).where(Instance.id > 4)):
            instance.received_at -= timedelta(minutes=11)
    assert tick(house) == 1
    assert requests(house) == [list(range(5, 29))], "the first study had something lately"
    assert filling.fill(house.ctx, "arch", everything=True), "who says so has it burnt all the same"


def test_a_study_larger_than_a_medium_takes_several_together(house: House) -> None:
    make_pool(house, min_fill=75)
    receive(house, 1, count=30, size=60_000)
    put_all(house)
    assert tick(house) == 1
    assert requests(house) == [list(range(1, 31))], "one job for all of it"
    engine = house.engine()
    engine.start()
    assert engine.wait(1, timeout=120) is JobState.DONE
    with house.db.read() as session:
        assert session.scalar(select(func.count()).select_from(Disc)) == 2


def test_what_the_discs_cannot_hold_is_set_aside_and_holds_up_nothing(any_house: House) -> None:
    house = any_house
    make_pool(house)
    receive(house, 1, count=1, size=2_000_000)  # larger than the medium
    gone = receive(house, 2)
    receive(house, 3)
    with house.db.begin() as session:
        instance = session.get_one(Instance, 2)
        house.ctx.spool.path_of(str(instance.spool_path)).unlink()
    put_all(house)
    assert filling.fill(house.ctx, "arch", everything=True)
    assert requests(house) == [[3, 4, 5, 6, 7, 8, 9]]
    assert filling.fill(house.ctx, "arch", everything=True) == []
    with house.db.read() as session:
        document = pools.full_document(house.ctx, session, store_pools.get(session, "arch"))
    reasons = [one["reason"] for one in document["refused"]["items"]]
    assert document["refused"]["instances"] == 2 and document["waiting"]["instances"] == 0
    assert reasons[0].startswith("INST_OVERSIZED") and "no longer in the spool" in reasons[1] and gone
    with house.db.begin() as session:
        before = store_pools.get(session, "arch", lock=True)
        values = pools.values_of(house.settings, {"options": {"capacity_sectors": 5000}}, before)
        store_pools.edit(session, "arch", values)
    assert still_waiting(house) == 2, "a changed pool tries again"
    assert filling.fill(house.ctx, "arch", everything=True)
    assert requests(house)[1] == [1]


def test_two_nodes_take_each_instance_once(any_house: House) -> None:
    house = any_house
    make_pool(house)
    for number in range(1, 7):
        receive(house, number)
    put_all(house)
    threads = [threading.Thread(target=tick, args=(house,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [one for request in requests(house) for one in request]
    assert len(taken) == len(set(taken)) > 0
    with house.db.read() as session:
        jobs = session.scalar(select(func.count()).select_from(Job))
        assert jobs == len(requests(house)), "a request that took nothing is not there"


def test_a_crash_before_the_transaction_leaves_everything_waiting(
    any_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = any_house
    make_pool(house)
    receive(house, 1)
    put_all(house)

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> int:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(filling.jobs, "create_job", kill)
        with pytest.raises(Killed):
            filling.fill(house.ctx, "arch", everything=True)
    assert requests(house) == [] and still_waiting(house) == 4
    assert len(filling.fill(house.ctx, "arch", everything=True)) == 1


def test_a_pool_that_is_not_full_is_not_prepared_again_and_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pool(house, min_fill=100)
    for number in range(1, 6):
        receive(house, number)
    put_all(house)
    looks = 0
    prepare = filling.prepare

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal looks
        looks += 1
        return prepare(*arguments, **named)

    monkeypatch.setattr(filling, "prepare", counted)
    for _ in range(3):
        tick(house)
    assert looks == 1


def test_one_instance_of_a_conflict_is_set_aside(house: House) -> None:
    make_pool(house)
    receive(house, 1, count=1)
    receive(house, 1, count=1, PatientComments="other")
    with house.db.begin() as session:
        assert session.get_one(Instance, 2).conflict_of == 1
        pool = store_pools.get(session, "arch", lock=True)
        assert waiting.put(session, pool, select(Instance.id)) == 2
    assert filling.fill(house.ctx, "arch", everything=True)
    assert requests(house) == [[1]]
    with house.db.read() as session:
        assert waiting.refused(session, "arch", limit=5)[1][0]["reason"].startswith("DUPL_REF_INST")


def test_a_blackout_of_a_schedule_that_fills_it_holds_the_pool(house: House) -> None:
    from store import schedules

    make_pool(house, latest_days=1)
    receive(house, 1)
    put_all(house)
    age(house, 2)
    at = now()
    window = {"from": f"{at - timedelta(hours=1):%H:%M}", "to": f"{at + timedelta(hours=1):%H:%M}"}
    values = {"kind": "archive", "enabled": True, "trigger": {"every_seconds": 3600}, "timezone": "UTC"}
    values |= {"blackouts": [window], "rules": {}, "options": {}, "pool": "arch"}
    with house.db.begin() as session:
        schedules.add(session, "nightly", values)
    assert tick(house) == 0
    with house.db.begin() as session:
        schedules.edit(session, "nightly", {"blackouts": []})
    assert tick(house) == 1


# --- Deciding about pools ---------------------------------------------------------------------------------------------


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"kind": "both"}, "kind is 'both'"),
    ({"copies": 0}, "copies is 0"),
    ({"copies": True}, "copies is True"),
    ({"required_copies": 3, "copies": 2}, "required_copies is 3"),
    ({"kind": "backup", "required_copies": 1}, "backup discs are no places"),
    ({"min_fill": 0}, "min_fill is 0"),
    ({"min_fill": float("nan")}, "min_fill is nan"),
    ({"latest_days": 0}, "latest_days is 0"),
    ({"shelves": ["a", "b", "c"], "copies": 2}, "2 copies"),
    ({"shelves": ["a\nb"]}, "printable"),
    ({"options": {"copies": 2}}, "copies: the pool has values of its own"),
    ({"options": {"profile": "auto"}}, "profile of its own"),
    ({"options": {"burner": "none"}}, "there is no burner 'none'"),
    ({"options": {"file_set_prefix": "TOO_LONG_PREFIX"}}, "file_set_prefix"),
    ({"colour": "red"}, "unknown value colour"),
]


def test_values_that_make_no_sense(house: House) -> None:
    for given, says in SENSELESS:
        with pytest.raises(OptionsError, match=says):
            pools.values_of(house.settings, given)
    with pytest.raises(MediaError):
        pools.values_of(house.settings, {"options": {"profile": "STD-GEN-CD", "medium": "BD-25"}})


def test_a_pool_with_discs_is_closed_and_one_without_is_removed(any_house: House) -> None:
    house = any_house
    make_pool(house)
    make_pool(house, "other")
    receive(house, 1)
    put_all(house)
    with house.db.begin() as session:
        assert store_pools.remove(session, "other") is True
        with pytest.raises(store_pools.PoolError, match="wait for discs of pool arch"):
            store_pools.remove(session, "arch")
        with pytest.raises(store_pools.NoSuchPool):
            store_pools.get(session, "other")
    assert filling.fill(house.ctx, "arch", everything=True)
    with house.db.begin() as session:
        assert store_pools.remove(session, "arch") is False
        assert store_pools.every(session) == [] and len(store_pools.every(session, closed=True)) == 1
        with pytest.raises(store_pools.PoolError, match="takes nothing any more"):
            store_pools.edit(session, "arch", {"copies": 2})
        with pytest.raises(store_pools.PoolError, match="there is a pool arch already"):
            store_pools.add(session, "arch", {})


def test_a_study_that_still_comes_in_does_not_have_the_pool_looked_at_all_the_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pool(house, quiet_minutes=10, latest_days=1)
    for number in range(1, 7):
        receive(house, number)
    put_all(house)
    age(house, 2)  # all of it is due, and lively
    monkeypatch.setattr(filling, "prepare", lambda *_, **__: pytest.fail("nothing can be burnt yet"))
    assert tick(house) == 0


def test_what_was_being_registered_when_the_pool_took_the_study_is_not_lost(any_house: House) -> None:
    """A transaction that was still open may have had it; what came long before was left out on purpose."""
    house = any_house
    receive(house, 1, count=3)
    make_pool(house)
    with house.db.begin() as session:
        session.get_one(Instance, 1).received_at -= timedelta(minutes=2)
        pool = store_pools.get(session, "arch", lock=True)
        assert waiting.put(session, pool, select(Instance.id).where(Instance.id == 3)) == 1
    tick(house)
    with house.db.read() as session:
        assert session.scalars(select(PoolInstance.instance_id).order_by(PoolInstance.instance_id)).all() == [2, 3]
