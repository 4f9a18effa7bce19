"""Peers that break the rules while they ask or fetch: the others are served on, nothing is left behind."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bench.catalogue import fill
from media.attributes import Attribute, Attributes, encode
from media.encoding import EXPLICIT_LE as EXPLICIT
from media.encoding import IMPLICIT_LE as IMPLICIT
from scp.commands import C_CANCEL_RQ, C_FIND_RQ, C_GET_RQ, C_STORE_RSP, command_set
from tests import soak
from tests.scp.conftest import Receiver
from tests.scp.scu import CT, EXPLICIT_LE, IMPLICIT_LE, Aborted, Scu, pdata, pdv
from tests.waiting import until

FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"
CONTEXTS = [(FIND, (EXPLICIT_LE,)), (GET, (EXPLICIT_LE,)), (CT, (EXPLICIT_LE,)), (FIND, (IMPLICIT_LE,))]
UID = "1.2.276.0.99.1."
EVERYTHING: Attributes = {0x00080052: Attribute(b"CS", "STUDY"), 0x00100010: Attribute(b"PN", "")}


def find_command(field: int = C_FIND_RQ, *, message_id: int = 1, sop_class: str = FIND, has_data: bool = True) -> bytes:
    return command_set(
        {0x0002: sop_class, 0x0100: field, 0x0110: message_id, 0x0700: 0, 0x0800: 1 if has_data else 257}
    )


def question(data: bytes, *, context_id: int = 1, message_id: int = 1) -> bytes:
    return pdata(pdv(context_id, 3, find_command(message_id=message_id))) + pdata(pdv(context_id, 2, data))


def statuses(scu: Scu) -> tuple[int, int]:
    """How many pending responses, and the last status."""
    count = 0
    while True:
        body = scu.pdu(0x04)
        at = 0
        while at < len(body):
            size = int.from_bytes(body[at : at + 4], "big")
            if body[at + 5] & 1:
                status = int.from_bytes(_element(body[at + 6 : at + 4 + size], 0x0900), "little")
                if status not in (0xFF00, 0xFF01):
                    return count, status
                count += 1
            at += 4 + size


def _element(command: bytes, wanted: int) -> bytes:
    at = 0
    while at < len(command):
        _, tag, length = struct.unpack_from("<HHI", command, at)
        if tag == wanted:
            return command[at + 8 : at + 8 + length]
        at += 8 + length
    raise AssertionError(f"no (0000,{wanted:04X})")


@pytest.fixture(scope="module")
def filled(receiver: Receiver) -> Iterator[Receiver]:
    fill(receiver.db, 3000)
    yield receiver


def serves(receiver: Receiver) -> None:
    """Another association gets its answer."""
    with Scu(receiver.port, CONTEXTS) as scu:
        keys = {**EVERYTHING, 0x0020000D: Attribute(b"UI", UID + "77")}
        scu.send(question(encode(keys, EXPLICIT, "")))
        assert statuses(scu) == (1, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08",
        b"\x08\x00\x52\x00CS\xff\xff",
        b"\x08\x00\x52\x00CS\x06\x00STUDY ",
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
        b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff" * 200,
        b"\x08\x00\x52\x00CS\x06\x00STUDY \x10\x00\x10\x00PN\x02\x00\xff\xfe",
        b"\x08\x00\x05\x00CS\x08\x00NONSENSE\x08\x00\x52\x00CS\x06\x00STUDY \x20\x00\x0d\x00UI\x04\x002.5\x00",
    ],
)
def test_identifiers_that_are_none(filled: Receiver, data: bytes) -> None:
    with Scu(filled.port, CONTEXTS) as scu:
        scu.send(question(data))
        count, status = statuses(scu)
        assert status in (0x0000, 0xA900, 0xC000) and (status == 0 or not count)
        scu.send(question(encode({**EVERYTHING, 0x0020000D: Attribute(b"UI", UID + "5")}, EXPLICIT, "")))
        assert statuses(scu) == (1, 0)


def test_an_identifier_without_end_is_cut_off(filled: Receiver) -> None:
    with Scu(filled.port, CONTEXTS) as scu:
        scu.send(pdata(pdv(1, 3, find_command())))
        with pytest.raises((Aborted, ConnectionError)):
            for _ in range(200):
                scu.send(pdata(pdv(1, 0, bytes(60000))))
            scu.pdu(0x04)
    serves(filled)


def test_a_question_without_identifier(filled: Receiver) -> None:
    with Scu(filled.port, CONTEXTS) as scu:
        scu.send(pdata(pdv(1, 3, find_command(has_data=False))))
        assert statuses(scu) == (0, 0xA900)


def test_a_key_of_very_many_values(filled: Receiver) -> None:
    with Scu(filled.port, CONTEXTS) as scu:
        keys = {**EVERYTHING, 0x0020000D: Attribute(b"UI", "\\".join(map(str, range(20000))))}
        data = encode(keys, IMPLICIT, "")
        scu.send(pdata(pdv(7, 3, find_command())))
        for at in range(0, len(data), 60000):
            scu.send(pdata(pdv(7, 2 if at + 60000 >= len(data) else 0, data[at : at + 60000])))
        assert statuses(scu) == (0, 0xC004)


def test_another_question_before_the_answer(filled: Receiver) -> None:
    with Scu(filled.port, CONTEXTS) as scu:
        data = encode(EVERYTHING, EXPLICIT, "")
        scu.send(question(data) + question(data, message_id=2))
        with pytest.raises((Aborted, ConnectionError)):
            statuses(scu)
    serves(filled)


def test_cancels_and_answers_that_nobody_asked_for(filled: Receiver) -> None:
    cancel = command_set({0x0100: C_CANCEL_RQ, 0x0120: 9, 0x0800: 257})
    with Scu(filled.port, CONTEXTS) as scu:
        scu.send(pdata(pdv(1, 3, cancel)))
        scu.send(question(encode({**EVERYTHING, 0x0020000D: Attribute(b"UI", UID + "5")}, EXPLICIT, "")))
        assert statuses(scu) == (1, 0)
        scu.send(pdata(pdv(1, 3, command_set({0x0100: C_STORE_RSP, 0x0120: 9, 0x0800: 257, 0x0900: 0}))))
        with pytest.raises((Aborted, ConnectionError)):
            scu.pdu(0x04)
    serves(filled)


def test_a_cancel_ends_the_matches(filled: Receiver) -> None:
    with Scu(filled.port, CONTEXTS) as scu:
        cancel = pdata(pdv(1, 3, command_set({0x0100: C_CANCEL_RQ, 0x0120: 5, 0x0800: 257})))
        scu.send(question(encode(EVERYTHING, EXPLICIT, ""), message_id=5) + cancel)  # in one piece: none is first
        count, status = statuses(scu)
        assert status == 0xFE00 and count < 3000


def test_who_goes_away_in_the_middle(filled: Receiver) -> None:
    for goodbye in (b"\x07\0\0\0\0\x04\0\0\0\0", b"\x05\0\0\0\0\x04\0\0\0\0", b""):
        with Scu(filled.port, CONTEXTS) as scu:
            scu.send(question(encode(EVERYTHING, EXPLICIT, "")))
            scu.pdu(0x04)
            scu.send(goodbye)
            if not goodbye:
                scu.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    filled.idle()
    serves(filled)


def test_a_fetch_whose_receiver_goes_away(filled: Receiver) -> None:
    with Scu(filled.port, CONTEXTS) as scu:
        keys = {**EVERYTHING, 0x0020000D: Attribute(b"UI", UID + "5")}
        scu.send(pdata(pdv(3, 3, find_command(C_GET_RQ, sop_class=GET))))
        scu.send(pdata(pdv(3, 2, encode(keys, EXPLICIT, ""))))
        # Its file does not exist, so this is over at once: nothing may hang.
        assert statuses(scu) == (0, 0xA702)
    until(lambda: filled.server.associations == 0)


@pytest.mark.soak
def test_mutated_questions(filled: Receiver) -> None:
    dice = random.Random(soak.SEED)
    good = encode({**EVERYTHING, 0x0020000D: Attribute(b"UI", UID + "5")}, IMPLICIT, "")
    rounds = soak.size(60, 5000)
    for _ in range(rounds):
        data = bytearray(question(good, context_id=7))
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with Scu(filled.port, CONTEXTS) as scu:
            scu.send(bytes(data))
            with suppress(OSError):  # it may have hung up already
                scu.sock.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while scu.sock.recv(1 << 16):
                    pass
    filled.idle()
    serves(filled)
    soak.told("mutated questions", f"{rounds} associations, it serves")
