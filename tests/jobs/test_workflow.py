"""A job from QUEUED to DONE, and everything that may come between."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from burners.base import Burner
from burners.folder import FolderTarget
from burners.iso_export import IsoExport
from burners.registry import Burners
from jobs.documents import job_document, jobs_list
from jobs.planning import make_plan
from jobs.work import RealRooms
from media.iso9660 import IsoImage
from media.verify import verify_path
from store import jobs
from store.jobs import JobError
from store.models_jobs import BurnerSlot, Disc, Job, VolumeInstance
from store.models_nodes import Node
from store.selection import Selection
from store.states import JobState
from tests.fakes import FakeRobot
from tests.jobs.conftest import House
from tests.waiting import wait_for


def document(house: House, job_id: int) -> dict[str, Any]:
    with house.db.read() as session:
        return job_document(session, job_id)


def states(house: House, job_id: int, of: str) -> list[str]:
    """The states that a job or disc went through, by its events."""
    events = document(house, job_id)["report"]["events"]
    return [event["new"] for event in events if event["of"] == of and event["old"] != event["new"]]


def free_slots(house: House) -> bool:
    with house.db.read() as session:
        return all(disc is None for disc in session.scalars(select(BurnerSlot.disc_id)))


def test_a_job_ends_done_with_verified_discs(any_house: House) -> None:
    house = any_house
    house.receive(3)
    job_id = house.order(copies=2)
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    found = document(house, job_id)
    assert [(disc["volume"], disc["copy"], disc["state"], disc["verified_by"]) for disc in found["discs"]] == [
        (1, 1, "VERIFIED", "read-back"),
        (1, 2, "VERIFIED", "read-back"),
    ]
    first, second = found["discs"]
    assert first["sha256"] == second["sha256"] and first["image"] != second["image"]
    for disc in found["discs"]:
        result = verify_path(Path(disc["image"]))
        assert result.ok and result.image_sha256 == disc["sha256"]
        assert disc["location"] == disc["image"] and disc["verified_at"]
        way = states(house, job_id, disc["disc"])
        assert [state for state in way if state != "BURNING"] == [
            "PLANNED",
            "SUBMITTED",
            "BURNT",
            "VERIFYING",
            "VERIFIED",
        ]
    assert found["progress"]["fraction"] == 1.0
    assert states(house, job_id, f"J{job_id}") == ["QUEUED", "PLANNING", "CONFORMING", "READY", "BURNING", "DONE"]
    with house.db.read() as session:
        (listed,) = jobs_list(session)
    assert (listed["job"], listed["state"], listed["discs"], listed["verified"]) == (f"J{job_id}", "DONE", 2, 2)
    assert free_slots(house)
    engine.stop()
    with house.db.read() as session:
        assert session.scalars(select(Node.lease_until)).one() is not None
    assert not engine.healthy


def test_several_volumes_and_jobs(any_house: House) -> None:
    house = any_house
    for seed in (1, 2, 3):
        house.receive(4, seed=seed)
    many = house.order(capacity_sectors=190)
    single = house.order(Selection(modality=("CT",)), priority="high")
    engine = house.engine()
    engine.start()
    assert engine.wait(many, timeout=120) is JobState.DONE
    assert engine.wait(single, timeout=120) is JobState.DONE
    found = document(house, many)
    assert len(found["discs"]) > 1
    assert [disc["volume"] for disc in found["discs"]] == list(range(1, len(found["discs"]) + 1))
    assert len({disc["image"] for disc in found["discs"] + document(house, single)["discs"]}) == len(
        found["discs"]
    ) + len(document(house, single)["discs"])
    assert [volume["fraction"] for volume in found["progress"]["volumes"]] == [1.0] * len(found["discs"])


def test_a_plan_is_burnt_exactly_or_not_at_all(house: House) -> None:
    house.receive(2)
    first = house.order()
    with house.db.begin() as session:
        request = session.get_one(Job, first).request_id
        jobs.request_cancel(session, first)
    plan_id = make_plan(house.ctx, request)
    stale_plan = make_plan(house.ctx, request)
    with house.db.begin() as session:
        job_id = jobs.create_job(session, request, plan_id, Options())
        with pytest.raises(JobError, match=f"J{job_id}"):
            jobs.create_job(session, request, plan_id, Options())
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    found = document(house, job_id)
    assert (found["plan"], found["state"]) == (f"P{plan_id}", "DONE")
    for path in house.settings.spool_dir.rglob("*.dcm"):
        path.unlink()
    with house.db.begin() as session:
        stale = jobs.create_job(session, request, stale_plan, Options())
    assert engine.wait(stale, timeout=120) is JobState.FAILED
    assert document(house, stale)["reason"] == "PLAN_STALE"


class Options:
    burner = "iso"
    copies = 1
    priority = "med"
    skip_refused = False


def test_a_request_that_cannot_be_planned_fails_with_its_reason(house: House) -> None:
    house.receive(2)
    job_id = house.order(capacity_sectors=30)
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    found = document(house, job_id)
    assert found["reason"] == "INST_OVERSIZED" and found["discs"] == []
    assert "refused" in found["error"] and len(found["report"]["refused"]) == 2
    with house.db.begin() as session:
        jobs.retry(session, job_id)
    wait_for(lambda: document(house, job_id)["attempt"] == 2 and document(house, job_id)["state"] == "FAILED", "again")


class Rooms(RealRooms):
    """The real rooms, with something in the way."""

    def __init__(self) -> None:
        self.at_plan: Callable[[], None] = lambda: None
        self.at_image: Callable[[int], None] = lambda volume_id: None
        self.planned = 0

    def make_plan(self, ctx: Any, request_id: int, **hooks: Any) -> int:
        self.planned += 1
        self.at_plan()
        return super().make_plan(ctx, request_id, **hooks)

    def volume_image(self, ctx: Any, volume_id: int) -> Any:
        self.at_image(volume_id)
        return super().volume_image(ctx, volume_id)


def test_a_fault_that_nobody_foresaw_fails_the_job(house: House) -> None:
    rooms = Rooms()

    def broken() -> None:
        raise ZeroDivisionError("nobody foresaw this")

    rooms.at_plan = broken
    house.receive(1)
    job_id = house.order()
    engine = house.engine(rooms=rooms)
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    found = document(house, job_id)
    assert (found["reason"], found["error"]) == ("PROC_FAILURE", "ZeroDivisionError: nobody foresaw this")
    rooms.at_plan = lambda: None
    with house.db.begin() as session:
        jobs.retry(session, job_id)
    assert_ends(house, job_id, JobState.DONE)


def assert_ends(house: House, job_id: int, state: JobState) -> None:
    wait_for(lambda: document(house, job_id)["state"] in ("DONE", "FAILED", "CANCELLED"), "the job to end")
    found = document(house, job_id)
    assert found["state"] == state, found["error"]


def test_a_burnt_disc_that_reads_back_wrong_fails_and_is_made_again_by_a_retry(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.receive(3)
    job_id = house.order(copies=2)
    honest = IsoExport.poll
    spoilt: list[Path] = []

    def spoil(self: IsoExport, ticket: dict[str, Any]) -> Any:
        report = honest(self, ticket)
        if report.image is not None and not spoilt and "_2" in report.image.name:
            spoilt.append(report.image)
            data = bytearray(report.image.read_bytes())
            data[len(data) // 2] ^= 1
            report.image.write_bytes(data)
        return report

    monkeypatch.setattr(IsoExport, "poll", spoil)
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    good, bad = document(house, job_id)["discs"]
    assert (good["state"], bad["state"], bad["verified_by"]) == ("VERIFIED", "FAILED", None)
    assert "DIGEST" in bad["error"] and bad["image"].endswith(".iso.bad") and Path(bad["image"]).exists()
    assert not spoilt[0].exists() and Path(good["image"]).exists()
    with house.db.begin() as session:
        jobs.retry(session, job_id)
    engine.submit(job_id)
    assert_ends(house, job_id, JobState.DONE)
    first, second = document(house, job_id)["discs"]
    assert first == good
    assert (second["attempt"], second["state"]) == (2, "VERIFIED") and second["image"].endswith("-a2.iso")
    assert free_slots(house)


def test_a_disc_with_other_instances_than_planned_is_not_verified(house: House) -> None:
    """The image is consistent in itself, but it is not what the catalogue would say."""
    house.receive(3)
    job_id = house.order()
    rooms = Rooms()

    class Fewer(Rooms):
        def volume_image(self, ctx: Any, volume_id: int) -> Any:
            image = super().volume_image(ctx, volume_id)
            with house.db.begin() as session:  # after the image was laid out, the plan gets another digest
                row = session.scalars(select(VolumeInstance).order_by(VolumeInstance.position)).first()
                row.sha256 = "0" * 64
            return image

    rooms = Fewer()
    engine = house.engine(rooms=rooms)
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    assert document(house, job_id)["discs"][0]["state"] == "FAILED"


def test_a_source_that_changed_fails_the_disc_by_name(house: House) -> None:
    house.receive(2)
    job_id = house.order()
    rooms = Rooms()

    def tamper(volume_id: int) -> None:
        for path in house.settings.spool_dir.rglob("*.dcm"):
            data = path.read_bytes()
            path.chmod(0o600)
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    rooms.at_image = tamper
    engine = house.engine(rooms=rooms)
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    (disc,) = document(house, job_id)["discs"]
    assert "has changed" in disc["error"] and "DICOM/P0000001" in disc["error"]
    assert list((house.data / "discs").iterdir()) == []
    assert free_slots(house)


def test_a_name_that_is_taken_fails_the_disc(house: House) -> None:
    house.receive(1)
    job_id = house.order()
    folder = house.data / "discs"
    folder.mkdir()
    (folder / "BURNISH_0000001_1.iso").write_text("somebody else's")
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    assert "not ours" in document(house, job_id)["discs"][0]["error"]
    assert (folder / "BURNISH_0000001_1.iso").read_text() == "somebody else's"
    assert free_slots(house)


@pytest.mark.parametrize("moment", ["QUEUED", "PLANNING", "BURNING", "VERIFYING"])
def test_cancel_at_any_moment(house: House, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = Rooms()
    reached, go = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        reached.set()
        go.wait(120)

    if moment == "PLANNING":
        rooms.at_plan = hold
    elif moment == "BURNING":
        rooms.at_image = hold
    elif moment == "VERIFYING":
        real = verify_path

        def slow(*args: Any, **more: Any) -> Any:
            hold()
            return real(*args, **more)

        monkeypatch.setattr("jobs.readback.verify_path", slow)
    house.receive(3)
    job_id = house.order(copies=2)
    engine = house.engine(rooms=rooms)
    if moment != "QUEUED":
        engine.start()
        assert reached.wait(120)
    with house.db.begin() as session:
        jobs.request_cancel(session, job_id)
    if moment == "BURNING":  # the device is still at work: its slot must not be free
        assert not free_slots(house)
    go.set()
    assert engine.wait(job_id, timeout=120) is JobState.CANCELLED
    if moment == "QUEUED":
        engine.start()
    wait_for(lambda: free_slots(house), "the slots")
    found = document(house, job_id)
    assert found["reason"] == "CANCELLED" and all(disc["state"] == "CANCELLED" for disc in found["discs"])
    folder = house.data / "discs"
    wait_for(lambda: not folder.exists() or not list(folder.iterdir()), "the folder to be empty")
    monkeypatch.undo()
    rooms.at_plan = rooms.at_image = lambda *_: None
    with house.db.begin() as session:
        jobs.retry(session, job_id)
    assert_ends(house, job_id, JobState.DONE)


def with_robot(house: House, **options: Any) -> FakeRobot:
    robot = FakeRobot("iso", {"folder": "robot", **options}, data=house.data)
    usable: dict[str, Burner] = {"iso": robot}
    house.burners = Burners(usable)
    return robot


def test_a_robot_vouches_for_its_discs(house: House) -> None:
    robot = with_robot(house)
    house.receive(2)
    job_id = house.order(copies=3)
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    discs = document(house, job_id)["discs"]
    assert {(disc["verified_by"], disc["location"], disc["image"]) for disc in discs} == {("robot", "output bin", None)}
    assert len(robot.made()) == len(set(robot.made())) == 3


def test_a_robot_without_ink_makes_the_job_wait_and_it_goes_on_by_itself(house: House) -> None:
    robot = with_robot(house, out_of_ink=True)
    house.receive(2)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    wait_for(lambda: document(house, job_id)["state"] == "WAITING", "the job to wait")
    assert document(house, job_id)["progress"]["phase"] == "waiting: out of ink"
    robot.out_of_ink = False
    assert engine.wait(job_id, timeout=120) is JobState.DONE


def test_a_spoilt_disc_is_final_and_its_siblings_go_on(any_house: House) -> None:
    house = any_house
    robot = with_robot(house, spoil=True)
    house.receive(2)
    job_id = house.order(copies=2)
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    found = document(house, job_id)
    assert [disc["error"] for disc in found["discs"]] == ["write error", "write error"]
    assert "write error" in found["error"]
    robot.spoil = False
    with house.db.begin() as session:
        jobs.retry(session, job_id)
    assert_ends(house, job_id, JobState.DONE)
    assert len(robot.made()) == 2


def test_an_engine_that_stops_in_the_middle_goes_on_at_its_next_start(any_house: House) -> None:
    house = any_house
    robot = with_robot(house, by_itself=False)
    house.receive(2)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    wait_for(lambda: document(house, job_id)["state"] == "BURNING", "the burn")
    wait_for(lambda: list((house.data / "robot").glob("*.json")), "the robot to have the order")
    engine.stop()
    assert document(house, job_id)["state"] == "BURNING" and not free_slots(house)
    robot = with_robot(house)
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    assert len(robot.made()) == 1


def test_a_driver_that_breaks_fails_the_disc_and_keeps_the_slot_until_the_device_is_free(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = with_robot(house, by_itself=False)
    honest = robot.poll
    broken = threading.Event()

    def poll(ticket: dict[str, Any]) -> Any:
        if broken.is_set():
            raise ValueError("no such status")
        return honest(ticket)

    monkeypatch.setattr(robot, "poll", poll)
    house.receive(1)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    wait_for(lambda: list((house.data / "robot").glob("*.json")), "the robot to have the order")
    broken.set()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    assert "no such status" in document(house, job_id)["error"]
    assert not free_slots(house)  # the device may be at work still
    broken.clear()
    next_job = house.order()
    wait_for(lambda: document(house, next_job)["state"] == "READY", "the next job")
    assert not free_slots(house)
    (order,) = (house.data / "robot").glob("*.json")
    ticket = {"order": order.stem}
    for _ in range(5):
        robot.work(ticket)
    robot._by_itself = True
    assert engine.wait(next_job, timeout=120) is JobState.DONE


def test_a_disc_that_has_its_slot_is_not_kept_out_by_those_that_wait_for_it(house: House) -> None:
    with_robot(house, by_itself=False)
    house.receive(1)
    low = house.order(priority="low")
    engine = house.engine()
    engine.start()
    wait_for(lambda: list((house.data / "robot").glob("*.json")), "the robot to have the order")
    engine.stop()
    high = [house.order(priority="high") for _ in range(5)]
    robot = with_robot(house)
    engine = house.engine()
    engine.start()
    for job_id in (low, *high):
        assert engine.wait(job_id, timeout=120) is JobState.DONE
    assert len(robot.made()) == 6


def test_a_burner_that_is_not_set_up_here_keeps_its_discs_waiting(house: House) -> None:
    house.receive(1)
    job_id = house.order()
    good, house.burners = house.burners, Burners({})
    engine = house.engine()
    engine.start()
    wait_for(lambda: document(house, job_id)["state"] == "READY", "the plan")
    assert "no running service" in document(house, job_id)["progress"]["note"]
    engine.stop()
    house.burners = good
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE


def test_high_priority_goes_first(house: House) -> None:
    house.receive(1)
    low = [house.order(priority="low") for _ in range(3)]
    high = house.order(priority="high")
    rooms = Rooms()
    go = threading.Event()
    rooms.at_image = lambda _: go.wait(120)  # the first disc, whosever it is, has the one slot
    engine = house.engine(rooms=rooms)
    engine.start()

    def waits_for_the_slot() -> bool:
        with house.db.read() as session:
            disc = session.scalars(select(Disc).where(Disc.job_id == high)).first()
            return disc is not None and disc.node is not None

    wait_for(waits_for_the_slot, "the disc to be next")
    go.set()
    for job_id in (*low, high):
        assert engine.wait(job_id, timeout=120) is JobState.DONE
    with house.db.read() as session:
        ended = dict(session.execute(select(Job.id, Job.finished_at)).tuples().all())
    order = sorted(ended, key=lambda job_id: ended[job_id])
    assert order.index(high) <= 1


def test_one_engine_a_process(house: House) -> None:
    first, second = house.engine(), house.engine()
    first.start()
    with pytest.raises(RuntimeError, match="already"):
        second.start()


def test_the_images_of_a_volume_must_be_equal(house: House) -> None:
    house.receive(2)
    job_id = house.order(copies=2)

    class Differing(Rooms):
        seen = 0

        def volume_image(self, ctx: Any, volume_id: int) -> Any:
            image = super().volume_image(ctx, volume_id)
            self.seen += 1
            if self.seen == 2:
                return IsoImage(image.files, image.volume_id, image.created.replace(year=1999))
            return image

    engine = house.engine(rooms=Differing())
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.FAILED
    found = sorted(disc["state"] for disc in document(house, job_id)["discs"])
    assert found == ["FAILED", "VERIFIED"]
    failed = next(disc for disc in document(house, job_id)["discs"] if disc["state"] == "FAILED")
    assert "another copy" in failed["error"]


def test_a_folder_is_verified_like_an_image(house: House) -> None:
    stick = house.data / "stick"
    stick.mkdir()
    target = FolderTarget("iso", {"folder": "stick", "root": True}, data=house.data)
    house.burners = Burners({"iso": target})
    house.receive(3)
    job_id = house.order()
    engine = house.engine()
    engine.start()
    assert engine.wait(job_id, timeout=120) is JobState.DONE
    (disc,) = document(house, job_id)["discs"]
    assert (disc["state"], disc["verified_by"], disc["location"]) == ("VERIFIED", "read-back", str(stick))
    assert disc["sha256"] == hashlib.sha256((stick / "MANIFEST.TXT").read_bytes()).hexdigest()
    assert verify_path(stick).ok
