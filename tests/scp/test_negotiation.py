"""Who may come in, and what is agreed."""

from __future__ import annotations

import os
import re
import time

import pytest
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import sop_class

from scp.storage import choose_syntax, storage_classes, transfer_syntaxes
from tests.makers import make
from tests.scp.conftest import Receiver, Start
from tests.scp.scu import CT, EXPLICIT_LE, IMPLICIT_LE, VERIFICATION, Rejected, Scu, store_command
from tests.waiting import until

BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
PRIVATE = "1.2.276.0.99.1.1"


def test_every_storage_class_is_accepted(receiver: Receiver) -> None:
    wanted = sorted({*sop_class._STORAGE_CLASSES.values(), *sop_class._NON_PATIENT_OBJECT_CLASSES.values()})
    for at in range(0, len(wanted), 128):
        with Scu(receiver.port, [(uid, (EXPLICIT_LE,)) for uid in wanted[at : at + 128]]) as scu:
            assert set(scu.results.values()) == {0}
    retired = "1.2.840.10008.5.1.4.1.1.6"
    assert retired in storage_classes()


def test_every_transfer_syntax_is_accepted(receiver: Receiver) -> None:
    with Scu(receiver.port, [(CT, (uid,)) for uid in AllTransferSyntaxes]) as scu:
        assert list(scu.accepted.values()) == list(map(str, AllTransferSyntaxes))


def test_what_is_not_supported_is_refused_by_context(receiver: Receiver) -> None:
    contexts = [
        (PRIVATE, (EXPLICIT_LE,)),
        (CT, ("1.2.3.4",)),
        (CT, ("1.2.3.4", IMPLICIT_LE)),
        ("1.2.840.10008.1.3.10", (EXPLICIT_LE,)),
        ("1.2.840.10008.5.1.4.31", (EXPLICIT_LE,)),  # Modality Worklist
    ]
    with Scu(receiver.port, contexts) as scu:
        assert scu.results == {1: 3, 3: 4, 5: 0, 7: 3, 9: 3}
        assert scu.accepted == {5: IMPLICIT_LE}


def test_the_choice_is_made_for_each_context_alone(receiver: Receiver) -> None:
    contexts = [
        (CT, (JPEG, EXPLICIT_LE)),
        (CT, (EXPLICIT_LE, JPEG)),
        (CT, (IMPLICIT_LE, JPEG, EXPLICIT_LE)),
        (CT, (BIG_ENDIAN, IMPLICIT_LE)),
        (VERIFICATION, (IMPLICIT_LE,)),
    ]
    with Scu(receiver.port, contexts) as scu:
        assert list(scu.accepted.values()) == [JPEG, EXPLICIT_LE, EXPLICIT_LE, BIG_ENDIAN, IMPLICIT_LE]


def test_choice() -> None:
    assert choose_syntax([]) is None
    assert choose_syntax(["1.2.3"]) is None
    assert choose_syntax(["1.2.3", BIG_ENDIAN]) == BIG_ENDIAN
    assert choose_syntax([BIG_ENDIAN, EXPLICIT_LE]) == EXPLICIT_LE
    assert all(re.fullmatch(r"[0-9.]+", uid) for uid in transfer_syntaxes() | storage_classes())


def test_the_pdu_size_is_told(receiver: Receiver) -> None:
    with Scu(receiver.port) as scu:
        assert scu.max_pdu == 131072


def test_private_classes_by_setting(start: Start) -> None:
    receiver = start(private_sop_classes=[PRIVATE], max_pdu=16384)
    made = make("CT", SOPClassUID=PRIVATE)
    with Scu(receiver.port, [(PRIVATE, (EXPLICIT_LE,))]) as scu:
        assert scu.max_pdu == 16384
        assert scu.store(PRIVATE, made.sop_instance_uid, made.encoded, fragment=16378).status == 0
    assert receiver.instances()[0].sop_class_uid == PRIVATE


def test_ae_titles(start: Start) -> None:
    receiver = start(called_ae_titles=["BURNISH", "CD BURN"], calling_ae_titles=["CT1", "MR1"])
    for called, calling in (("BURNISH", "CT1"), ("CD BURN", "MR1")):
        with Scu(receiver.port, called=called, calling=calling) as scu:
            scu.release()
    with pytest.raises(Rejected) as rejected:
        Scu(receiver.port, called="burnish", calling="CT1")
    assert rejected.value.args == (1, 1, 7)
    with pytest.raises(Rejected) as rejected:
        Scu(receiver.port, called="BURNISH", calling="CT2")
    assert rejected.value.args == (1, 1, 3)
    receiver.idle()


def test_the_limit_counts_over_all_acceptors(start: Start) -> None:
    receiver = start(acceptors=2, max_associations=3)
    held = [Scu(receiver.port) for _ in range(3)]
    assert receiver.server.associations == 3
    for _ in range(3):
        with pytest.raises(Rejected) as rejected:
            Scu(receiver.port)
        assert rejected.value.args == (2, 3, 2)
    held.pop().sock.close()

    def again() -> Scu | None:
        try:
            return Scu(receiver.port)
        except Rejected:
            return None

    held.append(until(again))
    for scu in held:
        scu.sock.close()
    receiver.idle()


def test_acceptors_share_the_associations(start: Start) -> None:
    from scp.seats import Seats

    receiver = start(acceptors=2)
    seats = Seats(receiver.server._seats_fd, 2, own=0, limit=64)
    held: list[Scu] = []

    def shared() -> bool:
        held.append(Scu(receiver.port))
        return min(seats._counts()) >= 2

    until(shared)  # which of the two is faster on a busy machine nobody knows
    seats.close()
    for scu in held:
        scu.sock.close()


def test_the_busiest_lets_others_be_first() -> None:
    from scp.seats import Seats

    fd = Seats.create(2)
    one, other = (Seats(fd, 2, own=own, limit=9) for own in (0, 1))
    assert not one.is_busiest() and one.enter()
    assert one.is_busiest() and not other.is_busiest()
    assert other.enter() and not one.is_busiest()
    os.close(fd)


@pytest.mark.parametrize("stage", ["connected", "half-request", "idle", "half-pdu", "half-data-set"])
def test_a_peer_that_falls_silent_is_let_go(start: Start, stage: str) -> None:
    import socket

    from tests.scp.scu import associate_request, pdata, pdv

    # The times of the other stages are long: however slow this machine is, it is the silence that ends it.
    short = "acse_timeout" if stage in ("connected", "half-request") else "dimse_timeout"
    short = "network_timeout" if stage == "idle" else short
    receiver = start(**{"acse_timeout": 600.0, "dimse_timeout": 600.0, "network_timeout": 600.0, short: 0.5})
    request = associate_request([(CT, (EXPLICIT_LE,))])
    began = time.monotonic()
    if stage in ("connected", "half-request"):
        sock = socket.create_connection(("127.0.0.1", receiver.port), timeout=60)
        sock.sendall(b"" if stage == "connected" else request[:50])
    else:
        scu = Scu(receiver.port)
        sock = scu.sock
        if stage != "idle":
            data_set = pdata(pdv(1, 0, bytes(1000)))[: 500 if stage == "half-pdu" else None]
            scu.send(pdata(pdv(1, 3, store_command(CT, "1.2.3"))) + data_set)
    with sock:
        data = b"x"
        while data:
            data = sock.recv(4096)
    assert time.monotonic() - began > 0.4
    receiver.idle()
    assert receiver.unfinished() == []
