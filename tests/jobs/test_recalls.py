"""Recalls: which disc is read or asked for, what comes back, what is told where it does not."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from jobs import recalls as work
from jobs import recallwork
from jobs.recalls import RecallWork, begin, document, listing, offer, refuse
from media import isoread
from media.trees import open_tree
from store import recalls
from store.models import Derived, Instance
from store.models_archive import Recall, RecallInstance
from store.models_base import now
from store.models_jobs import Disc, VolumeInstance
from store.models_nodes import Event
from store.presence import is_here
from store.recalls import RecallError, RecallState
from store.selection import Selection
from store.spool import SpoolFull
from tests.discs import Burnt, burn, in_spool, purge, put_online
from tests.faulty import FaultyDrive
from tests.jobs.conftest import House
from tests.waiting import wait_for


def ids(house: House, study: str | None = None) -> list[int]:
    with house.db.read() as session:
        query = select(Instance.id).order_by(Instance.id)
        if study is not None:
            from store.selection import instance_ids

            return instance_ids(session, Selection(study=(study,)))
        return list(session.scalars(query))


def start(house: House, study: str | None = None, **more: Any) -> int:
    given: dict[str, Any] = {"source": "cli", "by": "test", "selection": {}} | more
    return begin(house.ctx, ids(house, study), **given)


def state(house: House, number: int) -> str:
    return str(document(house.ctx, number)["state"])


def digests(house: House) -> dict[int, str]:
    """What is in the spool, by instance."""
    with house.db.read() as session:
        rows = list(session.execute(select(Instance.id, Instance.spool_path)))
    return {
        number: hashlib.sha256(house.ctx.spool.path_of(path).read_bytes()).hexdigest() for number, path in rows if path
    }


def nobody(_name: str, _ids: Sequence[int], _cancelled: Callable[[], bool]) -> list[str]:
    raise AssertionError("nothing is to be sent")


def test_an_online_image_is_read_by_itself(any_house: House, tmp_path: Path) -> None:
    house = any_house
    house.receive(3)
    before = digests(house)
    (burnt,) = burn(house.ctx, tmp_path / "vault")
    put_online(house.ctx, burnt)
    purge(house.ctx)
    number = start(house)
    assert state(house, number) == "WAITING"
    assert document(house.ctx, number)["volumes"][0]["state"] == "ONLINE"
    assert not listing(house.ctx)["asks"]
    running = RecallWork(house.ctx, nobody)
    try:
        running.tick()
        wait_for(lambda: state(house, number) == "DONE", "the recall")
    finally:
        running.stop()
    assert digests(house) == before
    with house.db.read() as session:
        assert session.scalar(select(Disc.times_read)) == 1
        told = session.scalars(select(Event).where(Event.kind == "recall").order_by(Event.id))
        kinds = [event.new for event in told]
    assert kinds == ["WAITING", "read", "DONE"]


def test_people_are_asked_for_the_disc_and_it_is_known_whatever_is_inserted(house: House, tmp_path: Path) -> None:
    study, other = house.receive(3), house.receive(2, modality="MR", seed=9)
    (burnt,) = burn(house.ctx, tmp_path / "vault", Selection(study=(study,)))
    (wrong,) = burn(house.ctx, tmp_path / "vault", Selection(study=(other,)))
    purge(house.ctx)
    number = start(house, study)
    (ask,) = listing(house.ctx)["asks"]
    assert ask["words"] == f"please insert {burnt.file_set_id}, shelf 1-1"
    assert (ask["recalls"], ask["instances"], ask["disc"]) == ([f"C{number}"], 3, f"D{burnt.disc_id}")

    told = offer(house.ctx, wrong.image, "drive 1")
    assert told["result"] == work.NOT_WANTED
    assert wrong.file_set_id in told["words"] and burnt.file_set_id in told["words"]
    (tmp_path / "letter").write_text("Dear Sir")
    assert offer(house.ctx, tmp_path / "letter")["result"] == work.NOT_A_DISC
    assert (state(house, number), in_spool(house.ctx)) == ("WAITING", 0)

    told = offer(house.ctx, burnt.image, "drive 1")
    assert (told["result"], told["restored"], told["failed"]) == (work.READ, 3, 0)
    assert [one["state"] for one in told["recalls"]] == ["DONE"]
    assert (in_spool(house.ctx), listing(house.ctx)["asks"]) == (3, [])
    with house.db.read() as session:
        said = session.scalars(select(Event).where(Event.new == "wrong disc")).one()
        assert wrong.file_set_id in said.detail["words"]


def test_a_disc_that_the_catalogue_does_not_know(house: House, tmp_path: Path) -> None:
    from tests import makers

    house.receive(1)
    burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    start(house)
    foreign = makers.our_disc(tmp_path / "foreign.iso", makers.study("CT", 1, seed=5), file_set_id="OTHER_SITE")
    told = offer(house.ctx, foreign)
    assert told["result"] == work.UNKNOWN
    assert told["words"].startswith("the disc OTHER_SITE, volume 1 of 1")
    assert "please insert" in told["words"]


def test_one_insertion_serves_all_recalls(house: House, tmp_path: Path) -> None:
    first, second = house.receive(2), house.receive(2, modality="MR", seed=4)
    (burnt,) = burn(house.ctx, tmp_path / "vault", patients_per_disc="many")
    purge(house.ctx)
    one, two, three = start(house, first), start(house, second), start(house, first)
    (ask,) = listing(house.ctx)["asks"]
    assert ask["recalls"] == [f"C{one}", f"C{two}", f"C{three}"]
    assert offer(house.ctx, burnt.image)["restored"] == 4
    assert [state(house, number) for number in (one, two, three)] == ["DONE"] * 3


def test_the_best_copy(house: House, tmp_path: Path) -> None:
    house.receive(2)
    discs = burn(house.ctx, tmp_path / "vault", discs=5)
    purge(house.ctx)
    first, second, third, fourth, fifth = (one.disc_id for one in discs)

    def put(disc: int, **values: Any) -> None:
        with house.db.begin() as session:
            session.execute(update(Disc).where(Disc.id == disc).values(**values))

    def asked() -> str:
        number = start(house)
        (row,) = document(house.ctx, number)["volumes"]
        refuse(house.ctx, number, reason="", by="test")
        return f"{row['disc']} {row['state']}"

    put(first, times_read=4)
    assert asked() == f"D{second} ASKED"
    put(second, times_read=5)
    put(third, times_read=5)
    put(fourth, times_read=5)
    put(fifth, times_read=5)
    assert asked() == f"D{first} ASKED"
    put(first, checked_out_to="Dr Who")
    assert asked() == f"D{second} ASKED"
    put(second, marked="LOST")
    put(third, checked_result="DAMAGED")
    put(fourth, purpose="backup")
    assert asked() == f"D{fifth} ASKED"
    put(fifth, marked="LOST")
    assert asked() == f"D{first} ASKED"
    put(first, marked="LOST")
    assert asked() == f"D{fourth} ASKED"
    put(fourth, purpose="unknown", shelf="A/1")
    number = start(house)
    (ask,) = document(house.ctx, number)["asks"]
    assert (ask["disc"], "if it is kept here" in ask["words"]) == (f"D{fourth}", True)
    refuse(house.ctx, number, reason="", by="test")
    put(first, marked=None, checked_out_to="Dr Who")
    assert asked() == f"D{first} ASKED"
    put(first, marked="LOST")
    put(fourth, purpose="handout")
    assert asked() == f"D{third} ASKED"
    put(third, image=str(discs[2].image))
    assert asked() == f"D{third} ONLINE"
    put(third, marked="LOST")
    number = start(house)
    found = document(house.ctx, number)
    assert found["state"] == "FAILED"
    assert found["missing"][0]["reason"] == f"{discs[0].file_set_id} is lost"


def test_the_nearest_shelf(make_house: Callable[..., House], tmp_path: Path) -> None:
    house = make_house(recall={"nearest": ["robot", "shelf 1-2"], "drive": "drive 1"})
    house.receive(1)
    discs = burn(house.ctx, tmp_path / "vault", discs=3)
    purge(house.ctx)
    start(house)
    (ask,) = listing(house.ctx)["asks"]
    assert ask["words"] == f"please insert {discs[1].file_set_id} (copy 2), shelf 1-2, drive 1"
    with house.db.begin() as session:
        session.execute(update(Disc).where(Disc.id == discs[2].disc_id).values(shelf="Robot bin 4"))
    start(house)
    assert {ask["disc"] for ask in listing(house.ctx)["asks"]} == {f"D{discs[1].disc_id}", f"D{discs[2].disc_id}"}


def hurt(monkeypatch: pytest.MonkeyPatch, burnt: Burnt, files: Sequence[str]) -> None:
    """A drive that cannot read the first sector of these files of a disc."""
    with open_tree(burnt.image) as tree:
        bad = [tree.extents(name)[0][0] // 2048 for name in files]  # type: ignore[union-attr]
    monkeypatch.setattr(isoread, "Device", lambda path: FaultyDrive(path, bad))


def files_of(house: House, burnt: Burnt) -> list[tuple[int, str]]:
    with house.db.read() as session:
        return [
            (row[0], row[1])
            for row in session.execute(
                select(VolumeInstance.instance_id, VolumeInstance.file_id)
                .where(VolumeInstance.volume_id == burnt.volume_id)
                .order_by(VolumeInstance.position)
            )
        ]


def test_what_cannot_be_read_is_tried_from_the_other_copy(
    any_house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = any_house
    house.receive(4)
    first, second = burn(house.ctx, tmp_path / "vault", discs=2)
    purge(house.ctx)
    number = start(house)
    with monkeypatch.context() as patch:
        hurt(patch, first, [files_of(house, first)[1][1]])
        told = offer(house.ctx, first.image, "drive 1")
    assert (told["result"], told["restored"], told["failed"]) == (work.READ, 3, 1)
    assert told["words"].endswith(f"; D{first.disc_id} is damaged: nobody counts on it any more")
    assert told["too_few"] is None
    (ask,) = told["asks"]
    assert (ask["disc"], ask["instances"]) == (f"D{second.disc_id}", 1)
    with house.db.read() as session:
        assert session.get_one(Disc, first.disc_id).checked_result == "DAMAGED"
    assert state(house, number) == "WAITING"
    assert offer(house.ctx, second.image)["restored"] == 1
    assert (state(house, number), in_spool(house.ctx)) == ("DONE", 4)


def test_an_image_that_the_catalogue_knows_is_taken_for_no_other_copy(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.receive(2)
    first, second = burn(house.ctx, tmp_path / "vault", discs=2)
    put_online(house.ctx, first)
    purge(house.ctx)
    number = start(house)
    with monkeypatch.context() as patch:
        hurt(patch, first, [files_of(house, first)[1][1]])
        RecallWork(house.ctx, nobody).once()
        assert [ask["disc"] for ask in document(house.ctx, number)["asks"]] == [f"D{second.disc_id}"]
        assert offer(house.ctx, first.image)["disc"] == f"D{first.disc_id}"
    assert [ask["disc"] for ask in document(house.ctx, number)["asks"]] == [f"D{second.disc_id}"]


def test_what_no_copy_gives_is_listed_by_instance(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.receive(4)
    first, second = burn(house.ctx, tmp_path / "vault", discs=2)
    purge(house.ctx)
    number = start(house)
    lost, name = files_of(house, first)[2]
    hurt(monkeypatch, first, [name])
    offer(house.ctx, first.image)
    told = offer(house.ctx, second.image)["too_few"]
    assert (told["good_copies"], told["at_risk"], told["studies"][0]["at_risk"]) == (0, True, 1)
    found = document(house.ctx, number)
    assert (found["state"], found["restored"], found["failed"]) == ("PARTIAL", 3, 1)
    with house.db.read() as session:
        uid = session.get_one(Instance, lost).sop_instance_uid
    (missing,) = found["missing"]
    assert missing["sop_instance_uid"] == uid
    assert missing["reason"].count("cannot be read: Input/output error") == 2
    assert f"D{first.disc_id}" in missing["reason"] and f"D{second.disc_id}" in missing["reason"]


def test_a_changed_file_is_not_taken(house: House, tmp_path: Path) -> None:
    house.receive(2)
    (burnt,) = burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    number = start(house)
    with open_tree(burnt.image) as tree:
        offset = tree.extents(files_of(house, burnt)[0][1])[0][0]  # type: ignore[union-attr]
    with burnt.image.open("r+b") as image:
        image.seek(offset + 1000)
        image.write(b"\xff\x00\xff")
    offer(house.ctx, burnt.image)
    found = document(house.ctx, number)
    assert (found["state"], found["restored"]) == ("PARTIAL", 1)
    assert "differs from the catalogue's digest" in found["missing"][0]["reason"]


def test_a_disc_that_is_taken_out_is_asked_for_again(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.receive(6)
    (burnt,) = burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    number = start(house)

    class Ejected(FaultyDrive):
        out = False

        def _check(self, offset: int, length: int) -> None:
            Ejected.out = Ejected.out or (in_spool(house.ctx) >= 0 and offset >= cut)
            if Ejected.out:
                raise OSError(5, "Input/output error")

    with open_tree(burnt.image) as tree:
        cut = tree.extents(files_of(house, burnt)[2][1])[0][0]  # type: ignore[union-attr]
    with monkeypatch.context() as patch:
        patch.setattr(isoread, "Device", Ejected)
        told = offer(house.ctx, burnt.image)
    assert told["result"] == work.TAKEN_OUT
    assert (state(house, number), in_spool(house.ctx)) == ("WAITING", 2)
    with house.db.read() as session:
        assert session.get_one(Disc, burnt.disc_id).checked_result is None
    assert offer(house.ctx, burnt.image)["restored"] == 4
    assert state(house, number) == "DONE"


def test_what_was_conformed_comes_back_as_it_is_on_the_disc(any_house: House, tmp_path: Path) -> None:
    house = any_house
    house.receive(2)
    (burnt,) = burn(house.ctx, tmp_path / "vault", compress="lossless", profile="STD-GEN-DVD-JPEG", medium="DVD-R")
    with house.db.read() as session:
        rows = list(session.scalars(select(Derived)))
    assert len(rows) == 2
    purge(house.ctx)
    number = start(house)
    assert offer(house.ctx, burnt.image)["restored"] == 2
    assert state(house, number) == "DONE"
    assert in_spool(house.ctx) == 0
    with house.db.read() as session:
        for row in session.scalars(select(Derived)):
            data = house.ctx.derived_path(row.path).read_bytes()
            assert row.restored_at is not None
            assert hashlib.sha256(data).hexdigest() == row.sha256
        assert session.scalar(select(func.count()).where(is_here(), Instance.id > 0)) == 2


def test_what_is_here_already_is_held_and_not_asked_for(house: House, tmp_path: Path) -> None:
    house.receive(3)
    burn(house.ctx, tmp_path / "vault")
    number = start(house)
    found = document(house.ctx, number)
    assert (found["state"], found["here"], found["wanted"]) == ("DONE", 3, 0)
    with house.db.read() as session:
        held = session.scalar(select(func.count(Instance.id)).where(recalls.needed(now() - timedelta(hours=1))))
        later = session.scalar(select(func.count(Instance.id)).where(recalls.needed(now())))
    assert (held, later) == (3, 0)


def test_what_comes_anew_need_not_be_recalled(house: House, tmp_path: Path) -> None:
    house.receive(3)
    burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    number = start(house)
    house.receive(3)
    RecallWork(house.ctx, nobody).once()
    assert state(house, number) == "DONE"
    assert not listing(house.ctx)["asks"]


def test_a_refusal_a_time_out_and_a_requester_who_is_gone(house: House, tmp_path: Path) -> None:
    house.receive(1)
    (burnt,) = burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    refused, late, gone = start(house), start(house), start(house, source="c-move:WS1")
    told = refuse(house.ctx, refused, reason="it is at the court", by="ann")
    assert (told["state"], told["error"]) == ("REFUSED", "refused by ann: it is at the court")
    assert told["missing"][0]["reason"] == "refused by ann: it is at the court"
    with pytest.raises(RecallError, match="ended already"):
        refuse(house.ctx, refused, reason="", by="ann")
    with house.db.begin() as session:
        session.execute(update(Recall).where(Recall.id == late).values(deadline=now()))
        session.execute(update(Recall).where(Recall.id == gone).values(updated_at=now() - timedelta(minutes=5)))
    RecallWork(house.ctx, nobody).once()
    assert document(house.ctx, late)["error"] == f"timed out: {burnt.file_set_id} was not inserted"
    assert (state(house, late), state(house, gone)) == ("TIMED_OUT", "CANCELLED")
    assert not listing(house.ctx)["asks"]
    assert offer(house.ctx, burnt.image)["result"] == work.NOT_WANTED


def test_it_is_sent_on_and_what_the_node_does_not_take_is_told(house: House, tmp_path: Path) -> None:
    house.receive(2)
    (burnt,) = burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    number = start(house, destination="ws")
    offer(house.ctx, burnt.image)
    assert state(house, number) == "RESTORED"
    calls: list[tuple[str, Sequence[int]]] = []

    def away(name: str, _ids: Sequence[int], _cancelled: Callable[[], bool]) -> list[str]:
        raise ConnectionError(f"{name} is away")

    def taken(name: str, sent: Sequence[int], _cancelled: Callable[[], bool]) -> list[str]:
        calls.append((name, list(sent)))
        return ["1.2: A700H"]

    RecallWork(house.ctx, away).once()
    found = document(house.ctx, number)
    assert (found["state"], found["error"]) == ("RESTORED", "ws: ws is away")
    RecallWork(house.ctx, taken).once()
    assert calls == [("ws", ids(house))]
    found = document(house.ctx, number)
    assert (found["state"], found["error"]) == ("PARTIAL", "ws did not take 1: 1.2: A700H")


def test_a_full_spool_puts_it_off(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house.receive(2)
    (burnt,) = burn(house.ctx, tmp_path / "vault")
    put_online(house.ctx, burnt)
    purge(house.ctx)
    number = start(house)
    monkeypatch.setattr(type(house.ctx.spool), "is_full", lambda _self: True)
    with pytest.raises(SpoolFull):
        offer(house.ctx, burnt.image)
    RecallWork(house.ctx, nobody).once()
    found = document(house.ctx, number)
    assert found["state"] == "WAITING" and "high-water" in found["error"]
    monkeypatch.undo()
    RecallWork(house.ctx, nobody).once()
    assert state(house, number) == "DONE"


def test_a_broken_image_that_is_online_gives_way_to_people(house: House, tmp_path: Path) -> None:
    house.receive(2)
    first, second = burn(house.ctx, tmp_path / "vault", discs=2)
    broken = tmp_path / "broken.iso"
    shutil.copy(first.image, broken)
    with broken.open("r+b") as out:
        out.truncate(26 * 2048)
    put_online(house.ctx, first, broken)
    purge(house.ctx)
    number = start(house)
    RecallWork(house.ctx, nobody).once()
    (ask,) = listing(house.ctx)["asks"]
    assert ask["disc"] == f"D{second.disc_id}"
    offer(house.ctx, second.image)
    assert state(house, number) == "DONE"


def test_several_volumes(house: House, tmp_path: Path) -> None:
    house.receive(6)
    discs = burn(house.ctx, tmp_path / "vault", capacity_sectors=184, medium="CD-R-80")
    assert len(discs) > 1
    purge(house.ctx)
    number = start(house)
    assert len(listing(house.ctx)["asks"]) == len(discs)
    for left, burnt in enumerate(reversed(discs), start=1 - len(discs)):
        assert state(house, number) == "WAITING"
        offer(house.ctx, burnt.image)
        assert len(listing(house.ctx)["asks"]) == -left
    assert (state(house, number), in_spool(house.ctx)) == ("DONE", 6)


def test_the_same_key_is_the_same_recall_while_it_is_open(house: House, tmp_path: Path) -> None:
    house.receive(1)
    burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    one = start(house, key="k")
    assert start(house, key="k") == one
    refuse(house.ctx, one, reason="", by="x")
    assert start(house, key="k") != one


def test_rows_of_a_recall_never_go_back(house: House, tmp_path: Path) -> None:
    house.receive(1)
    burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    number = start(house)
    with house.db.begin() as session:
        assert recalls.end(session, number, RecallState.CANCELLED, error="x")
    with house.db.begin() as session:
        assert not recalls.end(session, number, RecallState.CANCELLED, error="y")
        with pytest.raises(RecallError):
            recalls.move(session, recalls.get(session, number), RecallState.DONE)
        recalls.mark_restored(session, 1, ids(house))
        assert session.scalars(select(RecallInstance.state)).all() == ["FAILED"]


def test_what_came_back_conformed_goes_on_other_discs(house: House, tmp_path: Path) -> None:
    """As it is where the profile allows it, else made of that; and both discs give back what they hold."""
    from tests.makers import IMPLICIT_LE

    study_uid = house.receive(2, transfer_syntax_uid=IMPLICIT_LE)
    chosen = Selection(study=(study_uid,))
    (first,) = burn(house.ctx, tmp_path / "vault", chosen)
    purge(house.ctx)
    start(house)
    assert offer(house.ctx, first.image)["restored"] == 2
    with house.db.read() as session:
        before = {row.id: row.sha256 for row in session.scalars(select(Derived))}
    (same,) = burn(house.ctx, tmp_path / "vault", chosen)
    packed = {"profile": "STD-GEN-DVD-JPEG", "medium": "DVD-R", "compress": "lossless"}
    (other,) = burn(house.ctx, tmp_path / "vault", chosen, **packed)
    with house.db.read() as session:
        sums = {
            burnt.volume_id: session.scalars(
                select(VolumeInstance.sha256)
                .where(VolumeInstance.volume_id == burnt.volume_id)
                .order_by(VolumeInstance.position)
            ).all()
            for burnt in (first, same, other)
        }
        assert {row.id: row.sha256 for row in session.scalars(select(Derived)) if row.id in before} == before
    assert sums[first.volume_id] == sums[same.volume_id] != sums[other.volume_id]
    for burnt in (same, other):
        purge(house.ctx)
        number = start(house)
        assert offer(house.ctx, burnt.image)["restored"] == 2
        assert state(house, number) == "DONE"


def test_another_instance_is_not_given_out_for_the_one_received(house: House, tmp_path: Path) -> None:
    """What was compressed lossily has a UID of its own: there is no way back to what was received."""
    house.receive(1)
    given = {"profile": "STD-GEN-DVD-JPEG", "medium": "DVD-R", "compress": "lossless"}
    (burnt,) = burn(house.ctx, tmp_path / "vault", **given)
    with house.db.begin() as session:
        session.execute(update(Derived).values(new_sop_instance_uid="1.2.3"))
    purge(house.ctx)
    found = document(house.ctx, start(house))
    assert found["state"] == "FAILED"
    assert found["missing"][0]["reason"].startswith(f"{burnt.file_set_id} holds it only as another instance")
    assert offer(house.ctx, burnt.image)["result"] == work.NOT_WANTED


def test_requesters_of_before_the_start_are_gone(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house.receive(1)
    burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    number = start(house, source="c-get:WS1")
    RecallWork(house.ctx, nobody).once()
    assert state(house, number) == "WAITING"
    monkeypatch.setattr(recallwork, "_STARTED", now())
    RecallWork(house.ctx, nobody).once()
    assert state(house, number) == "CANCELLED"


def test_another_volume_with_the_same_will_do(house: House, tmp_path: Path) -> None:
    first, second = house.receive(2), house.receive(1, modality="MR", seed=8)
    (alone,) = burn(house.ctx, tmp_path / "vault", Selection(study=(first,)))
    (both,) = burn(house.ctx, tmp_path / "vault", Selection(study=(first, second)), patients_per_disc="many")
    purge(house.ctx)
    with house.db.begin() as session:
        session.execute(update(Disc).where(Disc.id == both.disc_id).values(checked_out_to="x"))
    number = start(house, first)
    assert [ask["disc"] for ask in listing(house.ctx)["asks"]] == [f"D{alone.disc_id}"]
    assert offer(house.ctx, both.image)["restored"] == 2
    found = document(house.ctx, number)
    assert found["state"] == "DONE"
    assert {(one["disc"], one["state"]) for one in found["volumes"]} == {
        (f"D{both.disc_id}", "READ"),
        (f"D{alone.disc_id}", "SKIPPED"),
    }


def test_two_discs_read_at_once(any_house: House, tmp_path: Path) -> None:
    house = any_house
    studies = [house.receive(3, seed=seed) for seed in (1, 2, 3, 4)]
    discs = [burn(house.ctx, tmp_path / "vault", Selection(study=(one,)))[0] for one in studies]
    purge(house.ctx)
    numbers = [start(house, one) for one in reversed(studies)] + [start(house)]
    told: list[dict[str, Any]] = []
    readers = [threading.Thread(target=lambda disc=disc: told.append(offer(house.ctx, disc.image))) for disc in discs]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(one["restored"] for one in told) == [3, 3, 3, 3]
    assert [state(house, number) for number in numbers] == ["DONE"] * 5
    assert in_spool(house.ctx) == 12
