"""C-MOVE and C-GET over the network: what arrives, counts, failures, cancel, discs."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.filereader import read_dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelGet as PatientGet,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as StudyGet,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as StudyMove,
)
from sqlalchemy import select, update

from media.part10 import locate
from store import remotes
from store.models import Instance
from store.models_jobs import Disc, Volume, VolumeInstance
from tests import makers
from tests.makers import EXPLICIT_LE, IMPLICIT_LE, Made
from tests.rows import add_disc
from tests.scp.conftest import Receiver, Start
from tests.scp.scu import CT, Scu
from tests.scp.test_query import Asker, identifier


@dataclass
class Arrivals:
    """What a destination got."""

    port: int = 0
    data: dict[str, bytes] = field(default_factory=dict)
    originators: list[tuple[str, int]] = field(default_factory=list)
    status: Callable[[str], int] = lambda _: 0


@pytest.fixture
def destination() -> Iterator[Arrivals]:
    """A storage SCP named DEST."""
    arrivals = Arrivals()

    def store(event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        arrivals.data[uid] = event.request.DataSet.getvalue()
        request = event.request
        arrivals.originators.append(
            (str(request.MoveOriginatorApplicationEntityTitle), request.MoveOriginatorMessageID)
        )
        return arrivals.status(uid)

    ae = AE("DEST")
    ae.add_supported_context(CT, [EXPLICIT_LE])
    ae.add_supported_context("1.2.840.10008.5.1.4.1.1.4", [EXPLICIT_LE])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    arrivals.port = server.socket.getsockname()[1]
    yield arrivals
    server.shutdown()


def study(count: int, **options: Any) -> list[Made]:
    return list(makers.study("CT", count, **options))


def fill(receiver: Receiver, made: list[Made]) -> None:
    """Store instances with the receiver, by C-STORE."""
    for sop_class, syntax in sorted({(each.sop_class_uid, each.transfer_syntax_uid) for each in made}):
        with Scu(receiver.port, [(sop_class, (syntax,))]) as scu:
            for each in made:
                if (each.sop_class_uid, each.transfer_syntax_uid) == (sop_class, syntax):
                    assert scu.store(sop_class, each.sop_instance_uid, each.encoded).status == 0


def know(receiver: Receiver, port: int) -> None:
    """Make the destination our node."""
    with receiver.db.begin() as session:
        if remotes.by_ae_title(session, "DEST") is not None:
            remotes.remove(session, "dest")
        remotes.add(session, remotes.Remote("dest", "DEST", "127.0.0.1", port))


def move(receiver: Receiver, ds: Dataset, to: str = "DEST") -> list[tuple[Dataset, Dataset | None]]:
    assoc = AE("MOVER").associate("127.0.0.1", receiver.port, contexts=[build_context(StudyMove)])
    assert assoc.is_established
    try:
        return list(assoc.send_c_move(ds, to, StudyMove, msg_id=77))
    finally:
        assoc.release()


def get(
    receiver: Receiver, ds: Dataset, model: str = StudyGet, status: int = 0
) -> tuple[dict[str, bytes], list[tuple[Dataset, Dataset | None]]]:
    arrived: dict[str, bytes] = {}

    def store(event: Any) -> int:
        arrived[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return status

    contexts = [build_context(model), build_context(CT, EXPLICIT_LE)]
    assoc = AE("GETTER").associate(
        "127.0.0.1",
        receiver.port,
        contexts=contexts,
        ext_neg=[build_role(CT, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )
    assert assoc.is_established
    try:
        return arrived, list(assoc.send_c_get(ds, model))
    finally:
        assoc.release()


def counts(status: Dataset) -> tuple[int, int, int, int]:
    return (
        status.get("NumberOfRemainingSuboperations", 0),
        status.get("NumberOfCompletedSuboperations", 0),
        status.get("NumberOfFailedSuboperations", 0),
        status.get("NumberOfWarningSuboperations", 0),
    )


def failed(response: tuple[Dataset, Dataset | None]) -> list[str]:
    assert response[1] is not None
    found = response[1].FailedSOPInstanceUIDList
    return [found] if isinstance(found, str) else sorted(found)


def test_a_study_is_moved_as_it_is_held(receiver: Receiver, destination: Arrivals) -> None:
    made = study(5, seed=1)
    fill(receiver, made)
    know(receiver, destination.port)
    responses = move(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid))
    assert destination.data == {each.sop_instance_uid: each.encoded for each in made}
    assert set(destination.originators) == {("MOVER", 77)}
    assert [status.Status for status, _ in responses] == [0xFF00] * 4 + [0]
    assert [counts(status)[:2] for status, _ in responses[:4]] == [(4, 1), (3, 2), (2, 3), (1, 4)]
    assert counts(responses[-1][0]) == (0, 5, 0, 0)


def test_a_series_and_an_instance_are_moved(receiver: Receiver, destination: Arrivals) -> None:
    made = study(4, seed=2)
    fill(receiver, made)
    know(receiver, destination.port)
    keys = {
        "StudyInstanceUID": made[0].study_instance_uid,
        "SeriesInstanceUID": made[0].series_instance_uid,
    }
    wanted = [made[1].sop_instance_uid, made[3].sop_instance_uid]
    assert move(receiver, identifier("IMAGE", **keys, SOPInstanceUID=wanted))[-1][0].Status == 0
    assert sorted(destination.data) == sorted(wanted)
    assert move(receiver, identifier("SERIES", **keys))[-1][0].Status == 0
    assert len(destination.data) == 4


def test_get_on_the_same_association(receiver: Receiver) -> None:
    made = study(4, seed=3)
    fill(receiver, made)
    arrived, responses = get(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid))
    assert arrived == {each.sop_instance_uid: each.encoded for each in made}
    assert [status.Status for status, _ in responses] == [0xFF00] * 3 + [0]
    keys = identifier("PATIENT", PatientID=made[0].dataset.PatientID)
    assert set(get(receiver, keys, PatientGet)[0]) >= set(arrived)


@pytest.mark.parametrize(("status", "final", "expected"), [(0xB000, 0, (0, 0, 0, 3)), (0xA700, 0xA702, (0, 0, 3, 0))])
def test_what_the_other_side_answers_counts(
    receiver: Receiver, status: int, final: int, expected: tuple[int, int, int, int]
) -> None:
    made = study(3, seed=4)
    fill(receiver, made)
    _, responses = get(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid), status=status)
    assert (responses[-1][0].Status, counts(responses[-1][0])) == (final, expected)
    if final:
        assert failed(responses[-1]) == sorted(each.sop_instance_uid for each in made)


def test_some_fail(receiver: Receiver, destination: Arrivals) -> None:
    made = study(3, seed=5)
    fill(receiver, made)
    know(receiver, destination.port)
    bad = made[1].sop_instance_uid
    destination.status = lambda uid: 0xC000 if uid == bad else 0
    final = move(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid))[-1]
    assert (final[0].Status, counts(final[0]), failed(final)) == (0xB000, (0, 2, 1, 0), [bad])


def test_what_is_not_taken_as_it_is_held_goes_plain(receiver: Receiver, destination: Arrivals, tmp_path: Path) -> None:
    implicit = study(2, seed=6, transfer_syntax_uid=IMPLICIT_LE)
    rle = Path(str(get_testdata_file("MR_small_RLE.dcm")))
    part = locate(rle)
    with Scu(receiver.port, [(part.sop_class_uid, (part.transfer_syntax_uid,))]) as scu:
        data = rle.read_bytes()[part.dataset_offset :]
        assert scu.store(part.sop_class_uid, part.sop_instance_uid, data).status == 0
    fill(receiver, implicit)
    know(receiver, destination.port)
    studies = [implicit[0].study_instance_uid, str(pydicom.dcmread(rle).StudyInstanceUID)]
    assert move(receiver, identifier("STUDY", StudyInstanceUID=studies))[-1][0].Status == 0
    assert destination.data.keys() == {part.sop_instance_uid, *(each.sop_instance_uid for each in implicit)}
    for each in implicit:
        assert destination.data[each.sop_instance_uid] == makers.encode(each.dataset, EXPLICIT_LE)
    image = read_dataset(BytesIO(destination.data[part.sop_instance_uid]), is_implicit_VR=False, is_little_endian=True)
    plain = pydicom.dcmread(str(get_testdata_file("MR_small.dcm")))
    assert image.PixelData == plain.PixelData
    folder = tmp_path / "disc"
    folder.mkdir()
    purge(receiver, implicit, folder)
    arrived, responses = get(receiver, identifier("STUDY", StudyInstanceUID=studies[0]))
    assert responses[-1][0].Status == 0
    assert arrived[implicit[0].sop_instance_uid] == makers.encode(implicit[0].dataset, EXPLICIT_LE)
    assert receiver.unfinished() == []


def test_nothing_is_converted_where_that_is_not_wanted(start: Start) -> None:
    receiver = start(convert=False)
    made = study(2, seed=6, transfer_syntax_uid=IMPLICIT_LE)
    fill(receiver, made)
    arrived, responses = get(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid))
    assert (arrived, responses[-1][0].Status, counts(responses[-1][0])) == ({}, 0xA702, (0, 0, 2, 0))


def test_unknown_and_absent_destinations(receiver: Receiver, destination: Arrivals) -> None:
    made = study(2, seed=7)
    fill(receiver, made)
    wanted = identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid)
    ((status, list_of_failed),) = move(receiver, wanted, "NOBODY")
    assert status.Status == 0xA801 and not list_of_failed
    know(receiver, 1)
    ((status, _),) = move(receiver, wanted)
    assert (status.Status, counts(status)) == (0xA702, (0, 0, 2, 0))


def test_nothing_matches(receiver: Receiver) -> None:
    arrived, ((status, _),) = get(receiver, identifier("STUDY", StudyInstanceUID="1.2.3"))
    assert (arrived, status.Status, counts(status)) == ({}, 0, (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("ds", "tag"),
    [
        (identifier("STUDY"), 0x0020000D),
        (identifier("STUDY", StudyInstanceUID="*"), 0x0020000D),
        (identifier("SERIES", SeriesInstanceUID="1.2"), 0x0020000D),
        (identifier("PATIENT", PatientID="1"), 0x00080052),
    ],
)
def test_retrieves_that_name_nothing_are_refused(receiver: Receiver, ds: Dataset, tag: int) -> None:
    _, ((status, _),) = get(receiver, ds)
    assert (status.Status, status.OffendingElement) == (0xA900, tag)


def test_cancel(receiver: Receiver, destination: Arrivals) -> None:
    made = study(30, seed=8)
    fill(receiver, made)
    know(receiver, destination.port)
    third, over = threading.Event(), threading.Event()

    def status(_: str) -> int:
        if len(destination.data) >= 3:
            third.wait(60)
            over.wait(0.2)  # so that not all have gone out when the C-CANCEL comes, however late
        return 0

    destination.status = status
    assoc = AE("MOVER").associate("127.0.0.1", receiver.port, contexts=[build_context(StudyMove)])
    last = Dataset()
    keys = identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid)
    for number, (response, _) in enumerate(assoc.send_c_move(keys, "DEST", StudyMove, msg_id=5), 1):
        last = response
        if number == 2:
            assoc.send_c_cancel(5, query_model=StudyMove)
            third.set()
    over.set()
    assoc.release()
    remaining, completed, broken, _ = counts(last)
    assert last.Status == 0xFE00
    assert remaining + completed == 30 and remaining > 0 and broken == 0
    assert len(destination.data) == completed


def purge(receiver: Receiver, made: list[Made], image: Path | None) -> str:
    """They are on a verified disc only, whose File-set ID is returned; ``image`` is where its files are."""
    uids = [each.sop_instance_uid for each in made]
    with receiver.db.begin() as session:
        instances = list(
            session.scalars(select(Instance).where(Instance.sop_instance_uid.in_(uids)).order_by(Instance.id))
        )
        disc = add_disc(session, instances)
        for number, instance in enumerate(instances):
            assert instance.spool_path is not None
            data = receiver.spool.path_of(instance.spool_path).read_bytes()
            if image is not None:
                path = image / f"IM{number}"
                path.write_bytes(data)
            session.execute(
                update(VolumeInstance)
                .where(VolumeInstance.instance_id == instance.id)
                .values(file_id=f"IM{number}", sha256=instance.file_sha256, size=len(data))
            )
            instance.spool_path = None
        session.execute(update(Disc).where(Disc.id == disc.id).values(image=str(image) if image else None))
        return str(session.get_one(Volume, disc.volume_id).file_set_id)


def test_what_is_only_on_discs_is_refused_in_words(receiver: Receiver) -> None:
    made = study(2, seed=9)
    fill(receiver, made)
    file_set_id = purge(receiver, made, None)
    arrived, responses = get(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid))
    final = responses[-1]
    assert (arrived, final[0].Status, counts(final[0])) == ({}, 0xC003, (0, 0, 2, 0))
    assert final[0].ErrorComment == f"Only on discs; recall is not available: {file_set_id}"
    assert failed(final) == sorted(each.sop_instance_uid for each in made)


def test_what_is_nowhere_any_more(receiver: Receiver, destination: Arrivals) -> None:
    made = study(2, seed=14)
    fill(receiver, made)
    know(receiver, destination.port)
    uids = [each.sop_instance_uid for each in made]
    with receiver.db.begin() as session:
        session.execute(update(Instance).where(Instance.sop_instance_uid.in_(uids)).values(spool_path=None))
    final = move(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid))[-1]
    assert (final[0].Status, counts(final[0]), failed(final)) == (0xA702, (0, 0, 2, 0), sorted(uids))


def test_from_the_files_of_a_disc_within_reach(receiver: Receiver, tmp_path: Path) -> None:
    made = study(3, seed=10)
    fill(receiver, made)
    disc = tmp_path / "disc"
    disc.mkdir()
    purge(receiver, made, disc)
    (disc / "IM1").write_bytes((disc / "IM0").read_bytes())  # not what the catalogue says
    arrived, responses = get(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid))
    final = responses[-1]
    assert arrived == {each.sop_instance_uid: each.encoded for each in (made[0], made[2])}
    assert (final[0].Status, counts(final[0])) == (0xB000, (0, 2, 1, 0))
    assert failed(final) == [made[1].sop_instance_uid]


def test_from_the_image_of_a_disc(receiver: Receiver, tmp_path: Path) -> None:
    made = study(3, seed=12)
    fill(receiver, made)
    folder = tmp_path / "disc"
    folder.mkdir()
    file_set_id = purge(receiver, made, folder)
    image = makers.disc_image(tmp_path / "disc.iso", folder)
    with receiver.db.begin() as session:
        volume = session.scalars(select(Volume).where(Volume.file_set_id == file_set_id)).one()
        session.execute(update(Disc).where(Disc.volume_id == volume.id).values(image=str(image)))
    shutil.rmtree(folder)
    wanted = identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid)
    with Asker(receiver.port) as asker:
        (match,), _ = asker.ask(wanted)
    assert (match.InstanceAvailability, match.StorageMediaFileSetID) == ("NEARLINE", file_set_id)
    assert match.RetrieveAETitle == "BURNISH"
    arrived, responses = get(receiver, wanted)
    assert arrived == {each.sop_instance_uid: each.encoded for each in made}
    assert responses[-1][0].Status == 0


@pytest.mark.postgres
def test_on_postgresql(start: Start, postgres_url: str) -> None:
    receiver = start(url=postgres_url)
    made = study(3, seed=13)
    fill(receiver, made)
    with Asker(receiver.port) as asker:
        (match,), status = asker.ask(identifier("STUDY", PatientName="doe^j*", NumberOfStudyRelatedInstances=""))
        nothing, _ = asker.ask(identifier("STUDY", PatientName="roe*"))
    assert (status.Status, match.NumberOfStudyRelatedInstances, nothing) == (0, 3, [])
    arrived, responses = get(receiver, identifier("STUDY", StudyInstanceUID=match.StudyInstanceUID))
    assert len(arrived) == 3 and responses[-1][0].Status == 0


def test_a_damaged_spool_file_is_not_sent(receiver: Receiver) -> None:
    made = study(2, seed=11)
    fill(receiver, made)
    path = receiver.instances(made[0].sop_instance_uid)[0].spool_path
    assert path is not None
    receiver.spool.path_of(path).write_bytes(receiver.spool.path_of(path).read_bytes()[:-10])
    arrived, responses = get(receiver, identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid))
    assert list(arrived) == [made[1].sop_instance_uid]
    assert responses[-1][0].Status == 0xB000
