"""Media creation over the network (PS3.4 Annex S), asked for by pynetdicom's SCU of a service in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association

from config.settings import Settings, load
from service.app import Service
from store.creations import (
    CLASS_INSTANCE_CONFLICT,
    NO_SUCH_INSTANCE,
    PROFILE_INSTANCE_CONFLICT,
    PROFILE_UNSUPPORTED,
    PROFILES_CONFLICT,
)
from store.models_jobs import Job, MediaCreation, Request
from store.models_nodes import Event
from tests.makers import Made, make, study
from tests.service.conftest import write

MCM = "1.2.840.10008.5.1.1.33"


class Scu:
    """A media creation SCU; each call gives the status and what came with it."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.port = port

    def associate(self) -> Association:
        ae = AE("RIS")
        ae.add_requested_context(MCM)
        association = ae.associate("127.0.0.1", self.port)
        assert association.is_established
        return association

    def __call__(self, name: str, *arguments: Any) -> tuple[int, Dataset | None]:
        association = self.associate()
        try:
            status, answer = getattr(association, f"send_n_{name}")(*arguments)
        finally:
            association.release()
        return int(status.Status), answer

    def create(self, made: list[Made], uid: str | None = None, **attributes: Any) -> str:
        uid = uid or generate_uid()
        status, _ = self("create", wanted(made, **attributes), UID(MCM), uid)
        assert status == 0
        return uid

    def initiate(self, uid: str, **arguments: Any) -> int:
        information = Dataset() if arguments else None  # pynetdicom never ends the message of an empty data set
        for keyword, value in arguments.items():
            setattr(information, keyword, value)
        return self("action", information, 1, UID(MCM), uid)[0]

    def cancel(self, uid: str) -> int:
        return self("action", None, 2, UID(MCM), uid)[0]

    def get(self, uid: str, tags: list[int] | None = None) -> Dataset:
        status, answer = self("get", tags or [], UID(MCM), uid)
        assert status == 0 and answer is not None
        return answer

    def until_ended(self, uid: str) -> Dataset:
        deadline = time.monotonic() + 120
        while (answer := self.get(uid)).ExecutionStatus not in ("DONE", "FAILURE"):
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        return answer


def wanted(made: list[Made], profile: str = "", **attributes: Any) -> Dataset:
    found = Dataset()
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    found.ReferencedSOPSequence = []
    for one in made:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.dataset.SOPClassUID, one.dataset.SOPInstanceUID
        if profile:
            item.RequestedMediaApplicationProfile = profile
        found.ReferencedSOPSequence.append(item)
    return found


Start = Callable[[], Scu]


class Shared:
    """One service for the tests that do not mind what others asked of it; it makes way for a test's own."""

    def __init__(self, data: Path) -> None:
        self._settings = load(data=data, overrides={"dicom": {"port": 0, "acceptors": 1}, "http": {"port": 0}})
        self._scu: Scu | None = None

    def scu(self) -> Scu:
        if self._scu is None:
            service = Service(self._settings)
            self._scu = Scu(service, service.start()["dicom"]["port"])
        return self._scu

    def stop(self) -> None:
        if self._scu is not None:
            self._scu.service.stop()
        self._scu = None


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BURNISH_DATA", raising=False)
        made = Shared(tmp_path_factory.mktemp("creation") / "data")
        yield made
        made.stop()


@pytest.fixture
def start(shared: Shared, settings: Settings) -> Iterator[Start]:
    shared.stop()
    running: list[Service] = []

    def begin() -> Scu:
        for service in running:
            service.stop()
        running[:] = [Service(settings)]
        document = running[0].start()
        return Scu(running[0], document["dicom"]["port"])

    yield begin
    for service in running:
        service.stop()


@pytest.fixture
def scu(shared: Shared) -> Scu:
    return shared.scu()


def hold(scu: Scu, folder: Path, made: list[Made]) -> list[Made]:
    """Have the service receive instances."""
    for path in write(folder, made):
        with path.open("rb") as stream:
            scu.service.operations.ingest_stream(stream)
    return made


def row(scu: Scu, uid: str) -> MediaCreation:
    with scu.service.operations.context.db.read() as session:
        return session.query(MediaCreation).filter_by(sop_instance_uid=uid).one()


def everything(scu: Scu, what: type[MediaCreation | Job]) -> set[int]:
    """The IDs of all there are."""
    with scu.service.operations.context.db.read() as session:
        return {one.id for one in session.query(what)}


def test_a_request_becomes_verified_discs(scu: Scu, tmp_path: Path) -> None:
    made = hold(scu, tmp_path / "in", list(study("CT", 3, seed=4)))
    uid = scu.create(
        made, StorageMediaFileSetID="ERPT", MediaDisposition="Dr. Müller", SpecificCharacterSet="ISO_IR 192"
    )
    before = scu.get(uid)
    assert (before.ExecutionStatus, before.ExecutionStatusInfo) == ("IDLE", "NORMAL")
    assert scu.initiate(uid, NumberOfCopies="2", RequestPriority="HIGH") == 0
    after = scu.until_ended(uid)
    assert (after.ExecutionStatus, after.ExecutionStatusInfo) == ("DONE", "NORMAL")
    assert after.TotalNumberOfPiecesOfMediaCreated == 2
    (media,) = after.ReferencedStorageMediaSequence
    assert media.StorageMediaFileSetID.startswith("ERPT") and media.StorageMediaFileSetUID
    assert "FailedSOPSequence" not in after
    assert after.MediaDisposition == "Dr. Müller"
    assert len(after.ReferencedSOPSequence) == 3
    creation = row(scu, uid)
    with scu.service.operations.context.db.read() as session:
        job, request = session.get_one(Job, creation.job_id), session.get_one(Request, creation.request_id)
        assert (job.copies, job.priority, request.source) == (2, 1, "dicom:RIS")
        first = session.query(Event).filter_by(job_id=job.id).order_by(Event.id).all()
        assert any(event.detail.get("media_disposition") == "Dr. Müller" for event in first)


@pytest.mark.parametrize(("symbology", "printed"), [("CODE_39", "MCR-7"), ("HIEROGLYPHS", "")])
def test_what_is_asked_of_the_label_stands_on_it(scu: Scu, tmp_path: Path, symbology: str, printed: str) -> None:
    made = hold(scu, tmp_path / "in", list(study("CT", 1, seed=5)))
    uid = scu.create(
        made,
        LabelUsingInformationExtractedFromInstances="NO",
        LabelText="For the tumour board",
        MediaDisposition="Dr. Miller",
        BarcodeValue="MCR-7",
        BarcodeSymbology=symbology,
    )
    assert scu.initiate(uid) == 0
    scu.until_ended(uid)
    creation = row(scu, uid)
    told = scu.service.operations.label(f"J{creation.job_id}", volume=None, printer="")
    assert "For the tumour board" in told["lines"] and "Dr. Miller" in told["lines"]
    assert (told["fields"]["barcode_value"], told["fields"]["patient_name"]) == (printed, "")
    with scu.service.operations.context.db.read() as session:
        events = session.query(Event).filter_by(job_id=creation.job_id).all()
        assert any("BarcodeSymbology" in event.detail.get("not_offered", ()) for event in events) is not bool(printed)


def test_only_what_is_asked_for_is_told(scu: Scu, tmp_path: Path) -> None:
    uid = scu.create(hold(scu, tmp_path / "in", list(study("CT", 1))))
    answer = scu.get(uid, [0x21000020, 0x00880130])
    assert [element.keyword for element in answer] == ["ExecutionStatus"]


def test_a_request_without_uid_is_given_one(scu: Scu, tmp_path: Path) -> None:
    made = hold(scu, tmp_path / "in", list(study("CT", 1)))
    before = everything(scu, MediaCreation)
    association = scu.associate()
    status, _ = association.send_n_create(wanted(made), UID(MCM), None)
    association.release()
    assert status.Status == 0
    (new,) = everything(scu, MediaCreation) - before
    with scu.service.operations.context.db.read() as session:
        creation = session.get_one(MediaCreation, new)
    assert scu.get(creation.sop_instance_uid).ExecutionStatus == "IDLE"


def test_instances_that_have_not_come_fail_it_by_name(scu: Scu, tmp_path: Path) -> None:
    here, missing = study("CT", 2, seed=1), list(study("MR", 1, seed=2))
    made = hold(scu, tmp_path / "in", list(here))
    before = everything(scu, Job)
    wrong = wanted(made + missing)
    wrong.ReferencedSOPSequence[0].ReferencedSOPClassUID = missing[0].dataset.SOPClassUID
    uid = generate_uid()
    assert scu("create", wrong, UID(MCM), uid)[0] == 0
    assert scu.initiate(uid) == 0
    answer = scu.get(uid)
    assert (answer.ExecutionStatus, answer.ExecutionStatusInfo) == ("FAILURE", "NO_INSTANCE")
    assert {(item.ReferencedSOPInstanceUID, item.FailureReason) for item in answer.FailedSOPSequence} == {
        (made[0].dataset.SOPInstanceUID, CLASS_INSTANCE_CONFLICT),
        (missing[0].dataset.SOPInstanceUID, NO_SUCH_INSTANCE),
    }
    assert everything(scu, Job) == before


@pytest.mark.parametrize(
    ("profiles", "info", "reason"),
    [
        (("STD-GEN-CD", "STD-GEN-DVD-JPEG"), "INST_AP_CONFLICT", PROFILES_CONFLICT),
        (("STD-NO-SUCH", "STD-NO-SUCH"), "NOT_SUPPORTED", PROFILE_UNSUPPORTED),
        (("STD-GEN-SEC-CD", "STD-GEN-SEC-CD"), "NOT_SUPPORTED", PROFILE_UNSUPPORTED),
    ],
)
def test_profiles_that_cannot_be_written(
    scu: Scu, tmp_path: Path, profiles: tuple[str, str], info: str, reason: int
) -> None:
    asked = wanted(hold(scu, tmp_path / "in", list(study("CT", 2))))
    for item, profile in zip(asked.ReferencedSOPSequence, profiles, strict=True):
        item.RequestedMediaApplicationProfile = profile
    uid = generate_uid()
    assert scu("create", asked, UID(MCM), uid)[0] == 0
    assert scu.initiate(uid) == 0
    answer = scu.get(uid)
    assert (answer.ExecutionStatus, answer.ExecutionStatusInfo) == ("FAILURE", info)
    assert {item.FailureReason for item in answer.FailedSOPSequence} == {reason}


def test_what_a_profile_refuses_stands_in_the_failed_sequence(scu: Scu, tmp_path: Path) -> None:
    made = hold(scu, tmp_path / "in", [make("CT"), make("MR", seed=5)])
    uid = scu.create([made[0]], profile="STD-XABC-CD")
    assert scu.initiate(uid) == 0
    answer = scu.until_ended(uid)
    assert (answer.ExecutionStatus, answer.ExecutionStatusInfo) == ("FAILURE", "INST_AP_CONFLICT")
    (item,) = answer.FailedSOPSequence
    assert (item.ReferencedSOPInstanceUID, item.FailureReason) == (
        made[0].dataset.SOPInstanceUID,
        PROFILE_INSTANCE_CONFLICT,
    )
    assert item.ReferencedSOPClassUID == made[0].dataset.SOPClassUID


def test_what_is_wrong_has_its_status(scu: Scu, tmp_path: Path) -> None:
    made = hold(scu, tmp_path / "in", list(study("CT", 1)))
    uid = scu.create(made)
    assert scu("create", wanted(made), UID(MCM), uid)[0] == 0x0111
    nothing = wanted([])
    assert scu("create", nothing, UID(MCM), generate_uid())[0] == 0x0121
    del nothing.ReferencedSOPSequence
    nothing.LabelText = "x"
    assert scu("create", nothing, UID(MCM), generate_uid())[0] == 0x0120
    assert scu("create", wanted(made, AllowMediaSplitting="MAYBE"), UID(MCM), generate_uid())[0] == 0x0106
    assert scu.initiate(generate_uid()) == 0x0112
    assert scu("get", [], UID(MCM), generate_uid())[0] == 0x0112
    assert scu("action", None, 7, UID(MCM), uid)[0] == 0x0123
    for copies in ("0", "-1", "100"):
        assert scu.initiate(uid, NumberOfCopies=copies) == 0x0115
    assert scu.initiate(uid, RequestPriority="NOW") == 0x0115
    assert scu.get(uid).ExecutionStatus == "IDLE"
    assert scu.initiate(uid) == 0
    assert scu.initiate(uid) == 0xA510
    scu.until_ended(uid)
    assert scu.initiate(uid) == 0xA510
    assert scu.cancel(uid) == 0xC201


def test_a_cancelled_request_is_no_more_but_stays_as_history(scu: Scu, tmp_path: Path) -> None:
    made = hold(scu, tmp_path / "in", list(study("CT", 1)))
    uid = scu.create(made)
    assert scu.cancel(uid) == 0
    assert scu("get", [], UID(MCM), uid)[0] == 0x0112
    assert scu.initiate(uid) == 0x0112
    assert scu.cancel(uid) == 0x0112
    assert scu("create", wanted(made), UID(MCM), uid)[0] == 0x0111
    assert row(scu, uid).cancelled_at is not None


def test_what_is_not_offered_is_left_out_and_said(scu: Scu, tmp_path: Path) -> None:
    uid = scu.create(hold(scu, tmp_path / "in", list(study("CT", 1))), IncludeDisplayApplication="YES")
    assert scu.initiate(uid) == 0
    assert scu.until_ended(uid).ExecutionStatus == "DONE"
    creation = row(scu, uid)
    document = scu.service.operations.job(f"J{creation.job_id}")
    assert any(
        event.get("detail", {}).get("not_offered") == ["IncludeDisplayApplication"]
        for event in document["report"]["events"]
    )


def test_a_set_that_may_not_be_split_and_is_too_large(shared: Shared, tmp_path: Path, data: Path) -> None:
    shared.stop()
    settings = load(
        data=data,
        overrides={
            "dicom": {"port": 0, "acceptors": 1},
            "http": {"port": 0},
            "plan": {"reserve_sectors": 359_000},
        },
    )
    with_service = Service(settings)
    port = with_service.start()["dicom"]["port"]
    scu = Scu(with_service, port)
    try:
        made = hold(scu, tmp_path / "in", list(study("CT", 8, size=200_000)))
        uid = scu.create(made, AllowMediaSplitting="NO")
        assert scu.initiate(uid) == 0
        answer = scu.until_ended(uid)
        assert (answer.ExecutionStatus, answer.ExecutionStatusInfo) == ("FAILURE", "SET_OVERSIZED")
        uid = scu.create(made, AllowMediaSplitting="YES")
        assert scu.initiate(uid) == 0
        answer = scu.until_ended(uid)
        assert answer.ExecutionStatus == "DONE"
        assert answer.TotalNumberOfPiecesOfMediaCreated == len(answer.ReferencedStorageMediaSequence) > 1
    finally:
        with_service.stop()


def test_requests_survive_a_restart(start: Start, tmp_path: Path) -> None:
    scu = start()
    made = hold(scu, tmp_path / "in", list(study("CT", 2)))
    done, idle = scu.create(made), scu.create(made)
    assert scu.initiate(done) == 0
    before = scu.until_ended(done)
    scu = start()
    assert scu.get(done) == before
    assert scu.get(idle).ExecutionStatus == "IDLE"
    assert scu.initiate(idle) == 0
    assert scu.until_ended(idle).ExecutionStatus == "DONE"
