"""Storage commitment (PS3.4 Annex J): asked over the network, answered on the same or a new association."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from config.settings import Settings, load
from service.app import Service
from store import commitments, remotes
from store.commitments import NO_SUCH_INSTANCE, Pair
from store.models_nodes import Commitment
from store.remotes import Remote
from tests.makers import Made, make, study
from tests.service.conftest import write
from tests.waiting import until

COMMITMENT, WELL_KNOWN = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"


class Peer:
    """Who stores with us: asks, and hears the results on its own port or on the association it asked on."""

    def __init__(self, status: Callable[[], int] = lambda: 0) -> None:
        self.results: queue.Queue[tuple[int, Dataset]] = queue.Queue()
        self._status = status
        self.ae = AE("MODALITY")
        self.ae.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
        self.ae.add_requested_context(COMMITMENT)
        self.server = self.ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=self._handlers)
        self.port = int(self.server.socket.getsockname()[1])

    @property
    def _handlers(self) -> list[Any]:
        return [(evt.EVT_N_EVENT_REPORT, self._told)]

    def _told(self, event: Any) -> tuple[int, None]:
        status = self._status()
        if status == 0:
            self.results.put((event.event_type, event.event_information))
        return status, None

    def associate(self, port: int) -> Association:
        association = self.ae.associate("127.0.0.1", port, evt_handlers=self._handlers)
        assert association.is_established
        return association

    def ask(
        self,
        port: int,
        made: list[Made],
        uid: str | None = None,
        *,
        instance: str = WELL_KNOWN,
        stay_until: Callable[[], object] | None = None,
    ) -> tuple[str, int]:
        """``stay_until``: before the association is released; who releases it earlier may cut off his own responses."""
        uid = uid or generate_uid()
        association = self.associate(port)
        status, _ = association.send_n_action(wanted(uid, made), 1, COMMITMENT, instance)
        if stay_until is not None:
            until(stay_until)
        association.release()
        return uid, int(status.Status)

    def result(self) -> tuple[int, Dataset]:
        return self.results.get(timeout=120)


def wanted(uid: str, made: list[Made]) -> Dataset:
    found = Dataset()
    found.TransactionUID = uid
    found.ReferencedSOPSequence = [reference(one) for one in made]
    return found


def reference(one: Made) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.dataset.SOPClassUID, one.dataset.SOPInstanceUID
    return item


class Running:
    def __init__(self, settings: Settings) -> None:
        self.service = Service(settings)
        self.port: int = self.service.start()["dicom"]["port"]
        self.db = self.service.operations.context.db

    def hold(self, folder: Path, made: list[Made]) -> list[Made]:
        for path in write(folder, made):
            with path.open("rb") as stream:
                self.service.operations.ingest_stream(stream)
        return made

    def know(self, peer: Peer) -> None:
        with self.db.begin() as session:
            remotes.add(session, Remote("modality", "MODALITY", "127.0.0.1", peer.port))

    def row(self, uid: str) -> Commitment:
        with self.db.read() as session:
            return session.query(Commitment).filter_by(transaction_uid=uid).one()


@pytest.fixture
def running(settings: Settings) -> Iterator[Running]:
    made = Running(settings)
    yield made
    made.service.stop()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.server.shutdown()


def test_a_known_node_is_told_over_a_new_association(running: Running, peer: Peer, tmp_path: Path) -> None:
    running.know(peer)
    made = running.hold(tmp_path / "in", list(study("CT", 2)))
    missing = make("MR", seed=9)
    uid, status = peer.ask(running.port, [*made, missing])
    assert status == 0
    event_type, information = peer.result()
    assert (event_type, information.TransactionUID) == (2, uid)
    assert {item.ReferencedSOPInstanceUID for item in information.ReferencedSOPSequence} == {
        one.dataset.SOPInstanceUID for one in made
    }
    (failed,) = information.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (missing.dataset.SOPInstanceUID, NO_SUCH_INSTANCE)
    until(lambda: running.row(uid).reported_at is not None)
    assert running.row(uid).next_at is None


def test_an_unknown_asker_is_told_on_its_own_association(running: Running, peer: Peer, tmp_path: Path) -> None:
    made = running.hold(tmp_path / "in", list(study("CT", 2)))
    uid = generate_uid()
    asked = peer.ask(running.port, made, uid, stay_until=lambda: running.row(uid).reported_at)
    assert asked == (uid, 0)
    event_type, information = peer.result()
    assert (event_type, information.TransactionUID) == (1, uid)
    assert "FailedSOPSequence" not in information


def test_what_nobody_takes_is_told_again_over_a_restart(
    running: Running, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, "_BACK_OFF", (1,))
    refusing = threading.Event()
    refusing.set()
    peer = Peer(lambda: 0x0110 if refusing.is_set() else 0)
    try:
        running.know(peer)
        made = running.hold(tmp_path / "in", list(study("CT", 1)))
        uid, _ = peer.ask(running.port, made)
        until(lambda: running.row(uid).attempts)
        assert running.row(uid).error == "answered with 0110H"
        running.service.stop()
        again = Running(settings)
        try:
            before = again.row(uid).attempts
            until(lambda: again.row(uid).attempts > before)
            refusing.clear()
            assert peer.result()[1].TransactionUID == uid
            until(lambda: again.row(uid).reported_at is not None)
        finally:
            again.service.stop()
    finally:
        peer.server.shutdown()


def test_a_result_that_nobody_takes_is_given_up_in_the_end(running: Running) -> None:
    with running.db.begin() as session:
        number = commitments.enter(session, "scp", "1.2.3", [Pair("1.2", "1.2.3")], ae_title="GONE", source="x")
        commitments.not_reported(session, number, "nobody", give_up_after=timedelta(hours=1))
        assert session.get_one(Commitment, number).next_at is not None
        commitments.not_reported(session, number, "nobody", give_up_after=timedelta(0))
        assert session.get_one(Commitment, number).next_at is None


def test_only_what_is_on_enough_verified_discs(data: Path, peer: Peer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(commitments, "_WAIT", timedelta(seconds=0.2))
    overrides = {"dicom": {"port": 0, "acceptors": 1}, "http": {"port": 0}, "commitment": {"discs": 2}}
    running = Running(load(data=data, overrides=overrides))
    try:
        running.know(peer)
        made = running.hold(tmp_path / "in", list(study("CT", 2)))
        uid, _ = peer.ask(running.port, made)
        job = running.service.operations.burn(selection={"all": True}, plan=None, options={"copies": 1})["job"]
        until(lambda: running.service.operations.job(job)["state"] == "DONE")
        time.sleep(1.5)
        assert peer.results.empty() and running.row(uid).settled_at is None
        job = running.service.operations.burn(selection={"all": True}, plan=None, options={"copies": 1})["job"]
        event_type, information = peer.result()
        assert event_type == 1
        (disc,) = running.service.operations.job(job)["discs"]
        first = information.ReferencedSOPSequence[0]
        assert first.StorageMediaFileSetID and first.StorageMediaFileSetUID
        assert disc["state"] == "VERIFIED"
        # What is not even here is not waited for.
        uid, _ = peer.ask(running.port, [*made, make("MR", seed=9)])
        event_type, information = peer.result()
        assert event_type == 2 and len(information.FailedSOPSequence) == 1
    finally:
        running.service.stop()


def test_what_is_wrong_has_its_status(running: Running, peer: Peer, tmp_path: Path) -> None:
    made = running.hold(tmp_path / "in", list(study("CT", 2)))
    uid = generate_uid()
    for _ in range(2):  # asked again, told again
        asked = peer.ask(running.port, made, uid, stay_until=lambda: running.row(uid).reported_at)
        assert asked == (uid, 0)
        peer.result()
    assert peer.ask(running.port, made[:1], uid)[1] == 0x0131
    assert peer.ask(running.port, made, instance="1.2.3")[1] == 0x0112
    assert peer.ask(running.port, [])[1] == 0x0120
    association = peer.associate(running.port)
    status, _ = association.send_n_action(wanted(generate_uid(), made), 2, COMMITMENT, WELL_KNOWN)
    assert status.Status == 0x0123
    association.release()


def test_the_answer_of_another_to_our_request(running: Running, peer: Peer) -> None:
    with running.db.begin() as session:
        commitments.enter(session, "scu", "1.2.3.4", [Pair("1.2", "1.2.5")], ae_title="MODALITY", source="")
    association = peer.ae.associate("127.0.0.1", running.port, ext_neg=[build_role(COMMITMENT, scp_role=True)])
    (context,) = association.accepted_contexts
    assert context.as_scp and not context.as_scu
    information = wanted("1.2.3.4", [])
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2", "1.2.5"
    information.ReferencedSOPSequence = [item]
    status, _ = association.send_n_event_report(information, 1, COMMITMENT, WELL_KNOWN)
    assert status.Status == 0
    information.TransactionUID = "1.2.3.9"
    status, _ = association.send_n_event_report(information, 1, COMMITMENT, WELL_KNOWN)
    assert status.Status == 0x0112
    association.release()
    assert running.row("1.2.3.4").result == {"committed": [["1.2", "1.2.5", "", ""]], "failed": []}
