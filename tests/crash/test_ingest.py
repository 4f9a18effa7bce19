"""Instances keep coming over several associations while the service is killed: what was answered 0000H is there."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE
from sqlalchemy import func, select

from store.models import Instance
from tests import soak
from tests.crash.harness import Site
from tests.makers import EXPLICIT_LE, IMPLICIT_LE, Made, make
from tests.ports import own_port
from tests.waiting import wait_for

pytestmark = pytest.mark.crash

ASSOCIATIONS = 4
INSTANCES = soak.size(80, 300)
KILLS = soak.size(2, 5)
MARGIN = 10
"""How many may be answered while the next kill is late."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site", acceptors=2)
    yield made
    made.close()


class Sender(threading.Thread):
    """Sends its instances, each until it is answered 0000H, over as many associations as that takes."""

    def __init__(self, port: int, todo: list[Made], answered: set[str], most: list[int], *, pause: float) -> None:
        """``most``: how many may be answered before the next kill."""
        super().__init__(daemon=True)
        self._port = port
        self._todo = todo
        self._answered = answered
        self._most = most
        self._pause = pause
        self.refused: list[int] = []
        self.stop = threading.Event()

    def run(self) -> None:
        ae = AE(ae_title="SENDER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
        ae.connection_timeout = 1
        ae.add_requested_context(self._todo[0].sop_class_uid, [EXPLICIT_LE, IMPLICIT_LE])
        todo = list(self._todo)
        while todo and not self.stop.is_set():
            association = ae.associate("127.0.0.1", self._port)
            if not association.is_established:
                time.sleep(0.05)
                continue
            while todo and association.is_established and not self.stop.is_set():
                if len(self._answered) >= self._most[0]:
                    time.sleep(0.01)
                    continue
                if not self._send(association, todo[0]):
                    break
                todo.pop(0)
            association.abort() if todo else association.release()

    def _send(self, association: Any, made: Made) -> bool:
        try:
            status = association.send_c_store(dcmread(BytesIO(made.part10())))
        except (RuntimeError, ValueError):  # the association is gone
            return False
        if "Status" not in status:
            return False
        if status.Status != 0:
            self.refused.append(int(status.Status))
            return False
        self._answered.add(made.sop_instance_uid)
        time.sleep(self._pause)
        return True


def test_what_was_answered_is_there_and_burns(site: Site, record_property: Callable[[str, object], None]) -> None:
    dice = random.Random(soak.SEED)
    made = [make("CT", seed=4, number=number) for number in range(1, INSTANCES + 1)]
    by_uid = {one.sop_instance_uid: one for one in made}
    ports = {"dicom_port": own_port(), "http_port": own_port()}
    service = site.start(**ports)
    service.ready()
    answered: set[str] = set()
    # Slow enough that every kill comes while something is on its way.
    pause = 4.0 * KILLS * ASSOCIATIONS / INSTANCES / 4
    most = [INSTANCES // (KILLS + 1) + MARGIN]
    shares = [made[n::ASSOCIATIONS] for n in range(ASSOCIATIONS)]
    senders = [Sender(ports["dicom_port"], share, answered, most, pause=pause) for share in shares]
    for sender in senders:
        sender.start()
    at_kill: list[int] = []
    for kill in range(KILLS):
        goal = INSTANCES * (kill + 1) // (KILLS + 1)
        wait_for(lambda goal=goal: len(answered) >= goal, f"{goal} answers")
        time.sleep(dice.uniform(0, 0.05))
        at_kill.append(len(answered))
        service.kill()
        most[0] = INSTANCES if kill + 1 == KILLS else INSTANCES * (kill + 2) // (KILLS + 1) + MARGIN
        service = site.start(**ports)
        service.ready()
    for sender in senders:
        sender.join(timeout=120)
        assert not sender.is_alive() and sender.refused == []
    assert at_kill[-1] < INSTANCES and answered == set(by_uid)
    with site.db.read() as session:
        rows = session.execute(select(Instance.sop_instance_uid, Instance.spool_path)).all()
        conflicts = session.scalar(select(func.count(Instance.conflict_of)))
    assert {uid for uid, _ in rows} == answered and len(rows) == INSTANCES and conflicts == 0
    assert set(site.settings.spool_dir.rglob("*.dcm")) == {site.spool.path_of(path) for _, path in rows}
    left = site.settings.spool_dir / "incoming"
    assert [path for path in left.rglob("*") if path.is_file()] == []

    job_id = site.order(made[0].study_instance_uid)
    site.wait_done([job_id])
    assert site.check([job_id]) == 1
    same_pixels(site, by_uid)
    record_property("seed", soak.SEED)
    soak.told("kills while receiving", f"{INSTANCES} instances, killed at {at_kill} answers, all there and burnt")


def same_pixels(site: Site, sent: dict[str, Made]) -> None:
    """The disc holds the very data sets that were sent."""
    from media.trees import open_tree

    (image,) = site.discs.iterdir()
    seen: set[str] = set()
    with open_tree(image) as tree:
        for name in tree.files:
            if name.startswith("DICOM/"):
                with tree.open(name) as file:
                    found: Dataset = dcmread(BytesIO(file.read()))
                original = dcmread(BytesIO(sent[found.SOPInstanceUID].part10()))
                assert found.PixelData == original.PixelData
                assert found == original
                seen.add(str(found.SOPInstanceUID))
    assert seen == set(sent)
