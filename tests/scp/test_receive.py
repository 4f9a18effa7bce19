"""C-STORE from the first byte to the row, by a scripted sender and by pynetdicom's."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, sop_class

from media.header import read_header
from media.part10 import locate
from media.problems import MediaError
from tests.makers import DEFLATED, EXPLICIT_BE, JPEG_BASELINE, KINDS, PATIENTS, Made, make, study
from tests.scp.conftest import Receiver, Start
from tests.scp.scu import (
    CT,
    EXPLICIT_LE,
    IMPLICIT_LE,
    VERIFICATION,
    Aborted,
    Scu,
    command,
    context_of,
    pdata,
    pdv,
    store_command,
)
from tests.waiting import until


def scu_for(receiver: Receiver, *made: Made, **options: object) -> Scu:
    return Scu(receiver.port, [(m.sop_class_uid, (m.transfer_syntax_uid,)) for m in made], **options)  # type: ignore[arg-type]


def test_what_is_answered_with_success_is_there(receiver: Receiver) -> None:
    made = make("CT", seed=1)
    with scu_for(receiver, made, calling="MODALITY1", called="ANYTHING") as scu:
        response = scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded, message_id=77)
        (row,) = receiver.instances(made.sop_instance_uid)
        scu.release()
    assert (response.status, response.comment, response.message_id) == (0, "", 77)
    assert response.sop_instance_uid == made.sop_instance_uid
    data = receiver.bytes_of(row)
    assert data[128:132] == b"DICM" and data.endswith(made.encoded)
    assert row.digest == hashlib.sha256(made.encoded).hexdigest()
    assert row.file_sha256 == hashlib.sha256(data).hexdigest()
    assert (row.calling_ae, row.called_ae, row.source) == ("MODALITY1", "ANYTHING", "127.0.0.1")
    assert row.transfer_syntax_uid == EXPLICIT_LE
    receiver.idle()
    assert receiver.unfinished() == []


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, DEFLATED])
def test_native_syntaxes_are_stored_as_received(receiver: Receiver, syntax: str) -> None:
    made = make("MR", seed=len(syntax) * 100 + int(syntax[-1]), patient=PATIENTS["german"], transfer_syntax_uid=syntax)
    with scu_for(receiver, made) as scu:
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
    (row,) = receiver.instances(made.sop_instance_uid)
    assert row.transfer_syntax_uid == syntax
    assert receiver.bytes_of(row).endswith(made.encoded)


@pytest.mark.parametrize("kind", [*KINDS, "SC_JPEG"])
def test_every_kind_is_taken(receiver: Receiver, kind: str) -> None:
    syntax = JPEG_BASELINE if kind == "SC_JPEG" else EXPLICIT_LE
    made = make(kind, seed=3, transfer_syntax_uid=syntax)
    with scu_for(receiver, made) as scu:
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
    assert receiver.instances(made.sop_instance_uid)


def packaged() -> list[Path]:
    """Every file in pydicom's wheel that is an instance; one for each SOP Instance UID."""
    found: dict[str, Path] = {}
    root = Path(pydicom.data.__file__).parent
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            located = locate(path)
        except MediaError:
            continue
        if located.sop_class_uid and located.sop_instance_uid:
            found.setdefault(located.sop_instance_uid, path)
    return list(found.values())


def test_packaged_files_arrive_byte_for_byte(receiver: Receiver) -> None:
    """In their own transfer syntaxes; refused is exactly what cannot be read or belongs nowhere."""
    stored, refused = 0, 0
    of_no_patient = sop_class._NON_PATIENT_OBJECT_CLASSES.values()
    for path in packaged():
        class_uid, sop_instance, syntax, data = context_of(path)
        try:
            header = read_header(path)
            good = bool(header.study_instance_uid and header.series_instance_uid) or class_uid in of_no_patient
            good = good and (header.sop_class_uid, header.sop_instance_uid) == (class_uid, sop_instance)
        except MediaError:
            good = False
        with Scu(receiver.port, [(class_uid, (syntax,))]) as scu:
            if not scu.accepted:
                assert not class_uid.startswith("1.2.840.10008.5.1.4.1.1"), path
                continue
            response = scu.store(class_uid, sop_instance, data, fragment=100_000)
        digest = hashlib.sha256(data).hexdigest()
        rows = [row for row in receiver.instances(sop_instance) if row.digest == digest]
        if good:
            assert response.status == 0, (path, response)
            assert rows and all(receiver.bytes_of(row).endswith(data) for row in rows), path
            stored += 1
        else:
            assert response.status & 0xF000 in (0xA000, 0xC000), (path, response)
            assert not rows
            refused += 1
    assert stored > 70
    assert refused < 20, "these have no UIDs, others than their file meta information, or are cut off"


def test_twice_is_kept_once(receiver: Receiver) -> None:
    made = make("CT", seed=4)
    with scu_for(receiver, made) as scu:
        for _ in range(2):
            assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
    assert len(receiver.instances(made.sop_instance_uid)) == 1


def test_equal_content_in_another_syntax_is_kept_once(receiver: Receiver) -> None:
    """The comparison decodes, in a process of its own: the acceptor has no numpy."""
    first, second = (make("CT", seed=5, transfer_syntax_uid=syntax) for syntax in (EXPLICIT_LE, IMPLICIT_LE))
    for made in (first, second):
        with scu_for(receiver, made) as scu:
            assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
    assert len(receiver.instances(first.sop_instance_uid)) == 1


def test_a_conflict_keeps_both(receiver: Receiver) -> None:
    first, second = make("CT", seed=6), make("CT", seed=6, StudyDescription="another")
    for made in (first, second):
        with scu_for(receiver, made) as scu:
            assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
    one, two = receiver.instances(first.sop_instance_uid)
    assert (one.conflict_of, two.conflict_of) == (None, one.id)
    assert receiver.bytes_of(two).endswith(second.encoded)


@pytest.mark.parametrize(("tag", "change"), [(0x0016, "class"), (0x0018, "instance")])
def test_command_and_data_set_disagree(receiver: Receiver, tag: int, change: str) -> None:
    made, other = make("CT", seed=7), make("MR", seed=7)
    with scu_for(receiver, made, other) as scu:
        if change == "class":
            response = scu.store(other.sop_class_uid, made.sop_instance_uid, made.encoded, context_id=3)
        else:
            response = scu.store(made.sop_class_uid, "1.2.3", made.encoded)
        assert (response.status, response.offending) == (0xA900, (0x0008, tag))
        # The association lives on.
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded, message_id=2).status == 0
    assert receiver.instances("1.2.3") == []


def test_command_and_presentation_context_disagree(receiver: Receiver) -> None:
    made, other = make("CT", seed=8), make("MR", seed=8)
    with scu_for(receiver, made, other) as scu:
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded, context_id=3).status == 0x0122
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded, context_id=99).status == 0x0122
        assert scu.store(other.sop_class_uid, other.sop_instance_uid, other.encoded, context_id=3).status == 0


def test_what_cannot_be_parsed(receiver: Receiver) -> None:
    made = make("CT", seed=9)
    cut = made.encoded[: len(made.encoded) - 50]
    implicit = make("CT", seed=9, transfer_syntax_uid=IMPLICIT_LE).encoded
    rubbish = random.Random(9).randbytes(5000)
    secret = b"\x08\x00\x05\x00XX\x08\x00SECRET^NAME"
    with scu_for(receiver, made) as scu:
        for number, data in enumerate((cut, implicit, rubbish, secret, b"\0" * 100)):
            response = scu.store(made.sop_class_uid, made.sop_instance_uid, data, message_id=number)
            assert response.status & 0xF000 == 0xC000, data[:20]
            assert 0 < len(response.comment) <= 64
            assert "SECRET" not in response.comment
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, b"").status & 0xF000 == 0xC000
        scu.send(pdata(pdv(1, 3, store_command(made.sop_class_uid, made.sop_instance_uid, has_data=False))))
        assert scu.response().status & 0xF000 == 0xC000
        assert receiver.instances(made.sop_instance_uid) == []
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded).status == 0
    assert receiver.unfinished() == []


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_instance_that_belongs_nowhere(receiver: Receiver, missing: str) -> None:
    made = make("CT", seed=10, **{missing: None})
    with scu_for(receiver, made) as scu:
        response = scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded)
    assert response.status & 0xFF00 == 0xA900
    assert response.offending == (0x0020, 0x000D if missing.startswith("Study") else 0x000E)


@pytest.mark.parametrize("fragment", [1, 7, 4096])
def test_fragments_of_any_size(receiver: Receiver, fragment: int) -> None:
    made = make("RTPLAN", seed=fragment)
    with scu_for(receiver, made) as scu:
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded, fragment=fragment).status == 0
    assert receiver.bytes_of(receiver.instances(made.sop_instance_uid)[0]).endswith(made.encoded)


def test_many_values_in_one_pdu_and_a_command_in_pieces(receiver: Receiver) -> None:
    made = make("RTPLAN", seed=11)
    text = store_command(made.sop_class_uid, made.sop_instance_uid)
    half = len(made.encoded) // 2
    with scu_for(receiver, made) as scu:
        scu.send(
            pdata(pdv(1, 1, text[:10]), pdv(1, 1, b""))
            + pdata(
                pdv(1, 3, text[10:]), pdv(1, 0, made.encoded[:half]), pdv(1, 0, b""), pdv(1, 0, made.encoded[half:])
            )
            + pdata(pdv(1, 2, b""))
        )
        assert scu.response().status == 0
    assert receiver.bytes_of(receiver.instances(made.sop_instance_uid)[0]).endswith(made.encoded)


def test_requests_sent_ahead_are_answered_in_order(receiver: Receiver) -> None:
    instances = list(study("CT", 5, seed=12))
    with scu_for(receiver, instances[0]) as scu:
        scu.send(
            b"".join(
                pdata(
                    pdv(1, 3, store_command(m.sop_class_uid, m.sop_instance_uid, message_id=number)),
                    pdv(1, 2, m.encoded),
                )
                for number, m in enumerate(instances)
            )
        )
        answers = [scu.response() for _ in instances]
    assert [(a.status, a.message_id) for a in answers] == [(0, number) for number in range(5)]


def test_responses_fit_the_sender(receiver: Receiver) -> None:
    made = make("CT", seed=13)
    with scu_for(receiver, made, max_pdu=50) as scu:
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, b"rubbish").comment


@pytest.mark.parametrize("how", ["close", "abort", "reset"])
def test_an_association_that_ends_in_the_middle_leaves_nothing(receiver: Receiver, how: str) -> None:
    made = make("CT", seed=14, size=20_000)
    with scu_for(receiver, made) as scu:
        scu.begin(made.sop_class_uid, made.sop_instance_uid)
        scu.send(pdata(pdv(1, 0, made.encoded[:5000])))
        until(lambda: [path for path in receiver.unfinished() if path.stat().st_size > 5000])
        if how == "abort":
            scu.abort()
        elif how == "reset":
            scu.sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: close with RST
    receiver.idle()
    assert receiver.unfinished() == []
    assert receiver.instances(made.sop_instance_uid) == []


@pytest.mark.parametrize(
    "wrong",
    [
        pdata(pdv(1, 2, b"data without a command")),
        pdata(pdv(1, 3, b"no command set at all")),
        pdata(pdv(1, 3, command(e0100=b"\x01\x00"))),
        struct.pack(">BBI", 4, 0, 3) + b"abc",
        struct.pack(">BBIIBB", 4, 0, 6, 1000, 1, 3),
        struct.pack(">BBI", 4, 0, 1 << 30),
        struct.pack(">BBI", 9, 0, 4) + b"abcd",
        pdata(pdv(1, 1, bytes(70_000))),
        pdata(pdv(1, 3, store_command(CT, "1.2.3")), pdv(3, 0, b"in another context")),
        pdata(pdv(1, 3, store_command(CT, "1.2.3")), pdv(1, 3, store_command(CT, "1.2.4"))),
    ],
)
def test_what_is_no_dicom_is_aborted(receiver: Receiver, wrong: bytes) -> None:
    with Scu(receiver.port) as scu:
        scu.send(wrong)
        with pytest.raises(Aborted):
            scu.response()
    receiver.idle()
    assert receiver.unfinished() == []


def test_first_bytes_that_are_no_association(receiver: Receiver) -> None:
    import socket

    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", struct.pack(">BBI", 1, 0, 10) + bytes(10), b""):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=30) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    receiver.idle()


def test_verification(receiver: Receiver) -> None:
    with Scu(receiver.port, [(VERIFICATION, (IMPLICIT_LE,))]) as scu:
        for _ in range(3):
            assert scu.echo().status == 0
        scu.release()


def test_verification_between_instances(receiver: Receiver) -> None:
    made = make("CT", seed=15)
    with Scu(receiver.port, [(VERIFICATION, (IMPLICIT_LE,)), (made.sop_class_uid, (EXPLICIT_LE,))]) as scu:
        assert scu.echo().status == 0
        assert scu.store(made.sop_class_uid, made.sop_instance_uid, made.encoded, context_id=3).status == 0
        assert scu.echo().status == 0


def test_pynetdicom_as_sender(receiver: Receiver) -> None:
    made = make("CT", seed=16)
    ae = AE()
    ae.add_requested_context(made.sop_class_uid, EXPLICIT_LE)
    ae.add_requested_context(VERIFICATION)
    association = ae.associate("127.0.0.1", receiver.port)
    assert association.is_established
    made.dataset.file_meta = Dataset()  # type: ignore[assignment]
    made.dataset.file_meta.TransferSyntaxUID = EXPLICIT_LE
    assert association.send_c_echo().Status == 0
    assert association.send_c_store(made.dataset).Status == 0
    association.release()
    assert association.is_released
    assert receiver.instances(made.sop_instance_uid)


# --- Not enough room --------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_answered_and_the_association_lives_on(start: Start, tiny: Path) -> None:
    receiver = start(spool={"folder": str(tiny / "spool"), "high_water_percent": 100.0})
    large, small = make("CT", seed=1, size=6 << 20), make("CT", seed=2, size=20_000)
    with scu_for(receiver, large) as scu:
        for number in range(2):
            response = scu.store(large.sop_class_uid, large.sop_instance_uid, large.encoded, message_id=number)
            assert (response.status, response.message_id) == (0xA700, number)
            assert receiver.unfinished() == []
            good = make("CT", seed=2, number=number + 1, size=20_000)
            assert scu.store(small.sop_class_uid, good.sop_instance_uid, good.encoded).status == 0
        scu.release()
    assert len(receiver.instances()) == 2


def test_above_the_high_water_mark(start: Start) -> None:
    receiver = start(spool={"max_bytes": 100_000})
    first, second = study("CT", 2, seed=1, size=100_000)
    with scu_for(receiver, first) as scu:
        assert scu.store(first.sop_class_uid, first.sop_instance_uid, first.encoded).status == 0

        def refused() -> bool:
            return scu.store(second.sop_class_uid, second.sop_instance_uid, second.encoded).status == 0xA700

        # What is held is counted once a second.
        if not refused():
            third = make("CT", seed=2)
            until(lambda: scu.store(third.sop_class_uid, third.sop_instance_uid, third.encoded).status == 0xA700)


def test_errors_have_one_status_each() -> None:
    from media.problems import NotDicom
    from scp.statuses import TABLE, UNEXPECTED, answer_to
    from store.instances import BadIdentity
    from store.spool import SpoolFull

    assert answer_to(SpoolFull("x")).status == 0xA700
    assert answer_to(NotDicom("no value of (0010,0010) of SECRET^NAME")).offending == 0x00100010
    assert answer_to(BadIdentity("x", 0x0020000D)).offending == 0x0020000D
    assert answer_to(OSError(errno.EIO, "x")).status == 0xA702
    assert answer_to(ZeroDivisionError()) is UNEXPECTED
    for answer in (*TABLE.values(), UNEXPECTED):
        assert 0 < len(answer.comment) <= 64
        assert answer.comment.isascii()
