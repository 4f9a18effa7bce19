"""C-MOVE and C-GET of what is only on discs: the client waits, people insert discs, instances go out as they come."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, build_context
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as StudyMove,
)
from sqlalchemy import select

from jobs.context import Context
from jobs.recalls import RecallWork, listing, offer, refuse
from media import isoread
from media.trees import open_tree
from store.models import Instance
from store.models_archive import Recall
from store.models_jobs import VolumeInstance
from store.query_facts import OFFLINE, ONLINE
from tests.discs import Burnt, burn, in_spool, purge, put_online
from tests.faulty import FaultyDrive
from tests.scp.conftest import Receiver, Start
from tests.scp.test_query import Asker, identifier
from tests.scp.test_retrieve import Arrivals, counts, destination, failed, fill, get, know, move, study
from tests.waiting import until

__all__ = ["destination"]
WAIT = {"network": "wait", "network_seconds": 600.0, "pending_seconds": 0.1}


def context(receiver: Receiver) -> Context:
    receiver.settings.derived_dir.mkdir(parents=True, exist_ok=True)
    return Context(receiver.settings, receiver.db, receiver.spool)


def archived(receiver: Receiver, tmp_path: Path, count: int, **options: Any) -> tuple[Context, str, Burnt]:
    """A study that is only on a disc; its UID."""
    made = study(count)
    fill(receiver, made)
    ctx = context(receiver)
    (burnt,) = burn(ctx, tmp_path / "vault", **options)
    purge(ctx)
    return ctx, made[0].study_instance_uid, burnt


class Mover(threading.Thread):
    """A C-MOVE that goes on in its own thread."""

    def __init__(self, receiver: Receiver, study_uid: str) -> None:
        super().__init__(daemon=True)
        self.responses: list[tuple[Dataset, Dataset | None]] = []
        self.assoc = AE("MOVER").associate("127.0.0.1", receiver.port, contexts=[build_context(StudyMove)])
        assert self.assoc.is_established
        self._study = study_uid
        self.start()

    def run(self) -> None:
        for response in self.assoc.send_c_move(
            identifier("STUDY", StudyInstanceUID=self._study), "DEST", StudyMove, 77
        ):
            self.responses.append(response)

    def final(self) -> tuple[Dataset, Dataset | None]:
        self.join(120)
        assert not self.is_alive()
        self.assoc.release()
        return self.responses[-1]


def asked(ctx: Context) -> dict[str, Any]:
    (ask,) = until(lambda: listing(ctx)["asks"])
    return dict(ask)


def states(receiver: Receiver) -> list[str]:
    with receiver.db.read() as session:
        return list(session.scalars(select(Recall.state).order_by(Recall.id)))


def errors(receiver: Receiver) -> list[str | None]:
    with receiver.db.read() as session:
        return list(session.scalars(select(Recall.error).order_by(Recall.id)))


def availability(receiver: Receiver, uid: str) -> str:
    with Asker(receiver.port) as asker:
        ((found,), _) = asker.ask(identifier("STUDY", StudyInstanceUID=uid, InstanceAvailability=""))
    return str(found.InstanceAvailability)


def test_a_move_waits_for_the_disc(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT)
    know(receiver, destination.port)
    ctx, uid, burnt = archived(receiver, tmp_path, 3)
    assert availability(receiver, uid) == OFFLINE
    mover = Mover(receiver, uid)
    ask = asked(ctx)
    assert ask["file_set_id"] == burnt.file_set_id and ask["recalls"] == ["C1"]
    until(lambda: len(mover.responses) >= 2)
    assert {(status.Status, counts(status)) for status, _ in mover.responses} == {(0xFF00, (3, 0, 0, 0))}
    assert offer(ctx, burnt.image)["restored"] == 3
    status, _ = mover.final()
    assert (status.Status, counts(status)) == (0x0000, (0, 3, 0, 0))
    assert len(destination.data) == 3
    assert set(destination.originators) == {("MOVER", 77)}
    assert states(receiver) == ["DONE"]
    assert (in_spool(ctx), availability(receiver, uid)) == (3, ONLINE)


def test_what_is_here_goes_out_at_once(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT)
    know(receiver, destination.port)
    ctx, uid, burnt = archived(receiver, tmp_path, 2)
    late = study(4)[2:]
    assert late[0].study_instance_uid == uid
    fill(receiver, late)
    mover = Mover(receiver, uid)
    until(lambda: len(destination.data) == 2)
    until(lambda: mover.responses and counts(mover.responses[-1][0]) == (2, 2, 0, 0))
    offer(ctx, burnt.image)
    status, _ = mover.final()
    assert (status.Status, counts(status)) == (0x0000, (0, 4, 0, 0))


def test_a_get_waits_as_well(start: Start, tmp_path: Path) -> None:
    receiver = start(recall=WAIT)
    ctx, uid, burnt = archived(receiver, tmp_path, 2)

    def bring() -> None:
        asked(ctx)
        offer(ctx, burnt.image)

    helper = threading.Thread(target=bring)
    helper.start()
    arrived, responses = get(receiver, identifier("STUDY", StudyInstanceUID=uid))
    helper.join()
    assert responses[-1][0].Status == 0x0000
    assert len(arrived) == 2
    assert states(receiver) == ["DONE"]


def test_conformed_files_are_served_where_they_came_back(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT)
    know(receiver, destination.port)
    ctx, uid, burnt = archived(receiver, tmp_path, 2, compress="lossless", profile="STD-GEN-DVD-JPEG", medium="DVD-R")
    mover = Mover(receiver, uid)
    asked(ctx)
    offer(ctx, burnt.image)
    status, _ = mover.final()
    # The destination takes Explicit VR Little Endian alone: they are decoded for it.
    assert (status.Status, counts(status)) == (0x0000, (0, 2, 0, 0))
    assert (len(destination.data), in_spool(ctx), availability(receiver, uid)) == (2, 0, ONLINE)
    status, _ = move(receiver, identifier("STUDY", StudyInstanceUID=uid))[-1]
    assert (status.Status, states(receiver)) == (0x0000, ["DONE"])


def test_a_time_out_ends_it_clearly(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT | {"network_seconds": 0.5})
    know(receiver, destination.port)
    _, uid, burnt = archived(receiver, tmp_path, 2)
    status, ds = Mover(receiver, uid).final()
    assert (status.Status, counts(status)) == (0xA702, (0, 0, 2, 0))
    assert status.ErrorComment == "Recall C1 timed out"
    assert len(failed((status, ds))) == 2
    assert errors(receiver) == [f"timed out: {burnt.file_set_id} was not inserted"]


def test_a_refusal_ends_it_clearly(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT)
    know(receiver, destination.port)
    ctx, uid, _ = archived(receiver, tmp_path, 2)
    mover = Mover(receiver, uid)
    ask = asked(ctx)
    refuse(ctx, int(ask["recalls"][0][1:]), reason="it is away", by="ann")
    status, _ = mover.final()
    assert (status.Status, status.ErrorComment) == (0xA702, "Recall C1 was refused by the operator")
    assert errors(receiver) == ["refused by ann: it is away"]


def test_a_cancel_ends_the_recall(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT)
    know(receiver, destination.port)
    ctx, uid, _ = archived(receiver, tmp_path, 2)
    mover = Mover(receiver, uid)
    asked(ctx)
    mover.assoc.send_c_cancel(77, query_model=StudyMove)
    status, _ = mover.final()
    assert (status.Status, counts(status)) == (0xFE00, (2, 0, 0, 0))
    assert states(receiver) == ["CANCELLED"]
    assert not listing(ctx)["asks"]


def test_a_requester_who_leaves_is_not_waited_for(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT)
    know(receiver, destination.port)
    ctx, uid, _ = archived(receiver, tmp_path, 2)
    mover = Mover(receiver, uid)
    asked(ctx)
    mover.assoc.abort()
    until(lambda: states(receiver) == ["CANCELLED"])
    assert not listing(ctx)["asks"]


def test_a_recall_can_be_begun_without_waiting(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT | {"network": "start"})
    know(receiver, destination.port)
    ctx, uid, burnt = archived(receiver, tmp_path, 2)
    for _ in range(2):
        status, _ = move(receiver, identifier("STUDY", StudyInstanceUID=uid))[-1]
        assert (status.Status, status.ErrorComment) == (0xA702, "Recall C1 has begun; ask again later")
    offer(ctx, burnt.image)
    assert states(receiver) == ["DONE"]
    assert move(receiver, identifier("STUDY", StudyInstanceUID=uid))[-1][0].Status == 0x0000


def test_without_recall_it_fails_at_once(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    receiver = start(recall=WAIT | {"network": "no"})
    know(receiver, destination.port)
    _, uid, burnt = archived(receiver, tmp_path, 2)
    status, _ = move(receiver, identifier("STUDY", StudyInstanceUID=uid))[-1]
    assert status.Status == 0xC003 and burnt.file_set_id in status.ErrorComment
    assert states(receiver) == []


def test_what_a_disc_does_not_give_is_named(
    start: Start, tmp_path: Path, destination: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = start(recall=WAIT)
    know(receiver, destination.port)
    ctx, uid, burnt = archived(receiver, tmp_path, 3)
    with receiver.db.read() as session:
        name, lost = session.execute(
            select(VolumeInstance.file_id, Instance.sop_instance_uid)
            .join(Instance, Instance.id == VolumeInstance.instance_id)
            .where(VolumeInstance.position == 2)
        ).one()
    with open_tree(burnt.image) as tree:
        bad = tree.extents(name)[0][0] // 2048  # type: ignore[union-attr]
    mover = Mover(receiver, uid)
    asked(ctx)
    monkeypatch.setattr(isoread, "Device", lambda path: FaultyDrive(path, [bad]))
    offer(ctx, burnt.image)
    status, ds = mover.final()
    assert (status.Status, counts(status)) == (0xB000, (0, 2, 1, 0))
    assert status.ErrorComment == "Recall C1 could not restore 1 instances"
    assert failed((status, ds)) == [lost]
    assert states(receiver) == ["PARTIAL"]


def test_an_online_image_that_is_broken_is_no_end(start: Start, tmp_path: Path, destination: Arrivals) -> None:
    """What is NEARLINE is served from the image; where that is bad, people are asked for the other copy."""
    receiver = start(recall=WAIT)
    know(receiver, destination.port)
    made = study(2)
    fill(receiver, made)
    ctx = context(receiver)
    first, second = burn(ctx, tmp_path / "vault", discs=2)
    broken = tmp_path / "broken.iso"
    broken.write_bytes(first.image.read_bytes()[: 26 * 2048])
    put_online(ctx, first, broken)
    purge(ctx)
    mover = Mover(receiver, made[0].study_instance_uid)
    until(lambda: states(receiver) == ["WAITING"])
    RecallWork(ctx, lambda *_: []).once()  # the service finds that the image is broken
    assert asked(ctx)["disc"] == f"D{second.disc_id}"
    offer(ctx, second.image)
    assert mover.final()[0].Status == 0x0000
    assert len(destination.data) == 2
