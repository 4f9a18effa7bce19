"""Command sets and presentation data values, byte by byte: read by pydicom, fed with chance."""

from __future__ import annotations

import random
from io import BytesIO
from typing import Any

import pytest
from pydicom.filereader import read_dataset

from scp.commands import ProtocolError, StoreRequest, command_pdus, parse_command, store_request, store_response
from scp.receive import MessageDecoder
from scp.statuses import SUCCESS, Answer
from scp.storage import Reception
from tests.scp.scu import CT, pdata, pdv, store_command

REQUEST = StoreRequest(5, 4711, CT, "1.2.3")


class Fake(Reception):
    """Takes a data set and keeps it."""

    def __init__(self) -> None:
        self.data = b""
        self.discarded = False

    def write(self, data: memoryview) -> None:
        self.data += data

    def finish(self) -> Answer:
        return SUCCESS

    def discard(self) -> None:
        self.discarded = True


class Peer:
    """A decoder and what came of it."""

    def __init__(self) -> None:
        self.begun: list[tuple[StoreRequest, Fake]] = []
        self.replies: list[StoreRequest] = []
        self.others: list[tuple[int, bytes]] = []
        self.decoder = MessageDecoder(
            self._begin,
            lambda request, _: self.replies.append(request),
            lambda context, value: self.others.append((context, value)),
        )

    def _begin(self, request: StoreRequest) -> Fake:
        fake = Fake()
        self.begun.append((request, fake))
        return fake

    def feed(self, pdu: bytes) -> None:
        self.decoder.feed(memoryview(pdu)[6:])


def test_response_is_what_pydicom_reads() -> None:
    data = store_response(REQUEST, 0xA900, comment="x" * 80, offending=0x00080018)
    command: Any = read_dataset(BytesIO(data), is_implicit_VR=True, is_little_endian=True)
    assert command.CommandGroupLength == len(data) - 12
    assert (command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (CT, "1.2.3")
    assert (command.CommandField, command.MessageIDBeingRespondedTo, command.CommandDataSetType) == (
        0x8001,
        4711,
        0x0101,
    )
    assert (command.Status, command.OffendingElement) == (0xA900, 0x00080018)
    assert command.ErrorComment == "x" * 64
    assert [element.tag for element in command] == sorted(element.tag for element in command)


@pytest.mark.parametrize("max_pdu", [0, 8, 50, 4096])
def test_response_in_pdus(max_pdu: int) -> None:
    data = store_response(REQUEST, 0)
    pdus = list(command_pdus(5, data, max_pdu))
    assert all(len(pdu) - 6 <= max_pdu for pdu in pdus) or not max_pdu
    assert b"".join(pdu[12:] for pdu in pdus) == data
    assert [pdu[11] for pdu in pdus] == [1] * (len(pdus) - 1) + [3]


def test_request() -> None:
    command = parse_command(store_command(CT, "1.2.3", message_id=9))
    assert store_request(7, command) == StoreRequest(7, 9, CT, "1.2.3")


def test_a_store_goes_to_its_reception() -> None:
    peer = Peer()
    peer.feed(pdata(pdv(1, 3, store_command(CT, "1.2.3")), pdv(1, 0, b"ab")))
    assert peer.decoder.busy
    peer.feed(pdata(pdv(1, 2, b"cd")))
    ((request, fake),) = peer.begun
    assert (request.sop_instance_uid, fake.data) == ("1.2.3", b"abcd")
    assert peer.replies == [request]
    assert not peer.decoder.busy


def test_discard_reaches_the_reception() -> None:
    peer = Peer()
    peer.feed(pdata(pdv(1, 3, store_command(CT, "1.2.3")), pdv(1, 0, b"ab")))
    peer.decoder.discard()
    assert peer.begun[0][1].discarded
    assert not peer.decoder.busy


def test_other_messages_pass_and_have_a_limit() -> None:
    from tests.scp.scu import command

    peer = Peer()
    find = command(e0002=b"1.2", e0100=b"\x20\x00", e0110=b"\x01\x00", e0800=b"\x00\x00")
    peer.feed(pdata(pdv(3, 3, find), pdv(3, 0, b"abc"), pdv(3, 2, b"d")))
    assert peer.others == [(3, b"\x03" + find), (3, b"\x00abc"), (3, b"\x00d"), (3, b"\x02")]
    peer.feed(pdata(pdv(3, 3, find)))
    with pytest.raises(ProtocolError):
        for _ in range(20):
            peer.feed(pdata(pdv(3, 0, bytes(1 << 20))))


def test_chance_is_a_protocol_error_at_worst() -> None:
    dice = random.Random(7)
    good = [
        pdata(pdv(1, 3, store_command(CT, "1.2.3"))),
        pdata(pdv(1, 0, b"abcdefgh")),
        pdata(pdv(1, 2, b"abcdefgh")),
    ]
    errors = 0
    for _ in range(3000):
        peer = Peer()
        try:
            for pdu in good:
                changed = bytearray(pdu)
                for _ in range(dice.choice((0, 1, 1, 3))):
                    changed[dice.randrange(6, len(changed))] = dice.randrange(256)
                peer.feed(bytes(changed[: dice.choice((len(changed), dice.randrange(6, len(changed) + 1)))]))
        except ProtocolError:
            errors += 1
    assert errors > 500
