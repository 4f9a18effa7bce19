"""A scripted peer that breaks everything: mutated associations by the thousand, and neighbours that misbehave.

Whatever comes, the service keeps serving, no acceptor dies, nothing is half registered, memory stays flat, and what
went wrong is one line of the log with the peer's address.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import soak
from tests.makers import Made, make
from tests.scp.conftest import Receiver, Start
from tests.scp.scu import CT, EXPLICIT_LE, VERIFICATION, Scu, associate_request, command, pdata, pdv, store_command

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CREATION, COMMITMENT = "1.2.840.10008.5.1.1.33", "1.2.840.10008.1.20.1"
_RELEASE = struct.pack(">BBII", 5, 0, 4, 0)
_ABORT = struct.pack(">BBII", 7, 0, 4, 0)
_NATIVE = (EXPLICIT_LE,)
Units = list[bytes]


def script(dice: random.Random, made: Made, data: bytes) -> Units:
    """The PDUs of a good association: an instance, an echo, and a message of some other service."""
    contexts = [(CT, _NATIVE), (VERIFICATION, _NATIVE), (FIND, _NATIVE), (CREATION, _NATIVE), (COMMITMENT, _NATIVE)]
    units = [associate_request(contexts)]
    # A UID of its own: what changes then is no conflict with what came before.
    old = str(made.dataset.SOPInstanceUID)
    uid = ("2.25." + "".join(dice.choice("123456789") for _ in old))[: len(old)]
    data = data.replace(old.encode(), uid.encode())
    units.append(pdata(pdv(1, 3, store_command(CT, uid))))
    piece = dice.choice((512, 4096, 1 << 16))
    for at in range(0, len(data), piece):
        units.append(pdata(pdv(1, 2 if at + piece >= len(data) else 0, data[at : at + piece])))
    units.append(
        pdata(pdv(3, 3, command(e0002=VERIFICATION.encode(), e0100=b"\x30\0", e0110=b"\x07\0", e0800=b"\1\1")))
    )
    other = dice.choice(((5, FIND, b"\x20\0"), (7, CREATION, b"\x40\x01"), (9, COMMITMENT, b"\x30\x01")))
    body = command(
        e0002=other[1].encode(), e0003=other[1].encode(), e0100=other[2], e0110=b"\x09\0", e0800=b"\0\0", e1001=b"1.2"
    )
    query = struct.pack("<HH2sH", 8, 0x52, b"CS", 6) + b"STUDY "
    units += [pdata(pdv(other[0], 3, body)), pdata(pdv(other[0], 2, query))]
    return [*units, _RELEASE]


def flip(dice: random.Random, units: Units) -> Units:
    """Some bytes anywhere become others."""
    at = dice.randrange(len(units))
    data = bytearray(units[at])
    for _ in range(dice.choice((1, 1, 2, 8))):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return [*units[:at], bytes(data), *units[at + 1 :]]


def head(dice: random.Random, units: Units) -> Units:
    """A PDU's head, or that of its first value, says other things."""
    at = dice.randrange(len(units))
    data = bytearray(units[at])
    data[dice.randrange(min(len(data), 12))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return [*units[:at], bytes(data), *units[at + 1 :]]


def cut(dice: random.Random, units: Units) -> Units:
    """It ends in the middle of a PDU."""
    at = dice.randrange(len(units))
    return [*units[:at], units[at][: dice.randrange(len(units[at]))]]


def stop(dice: random.Random, units: Units) -> Units:
    return units[: dice.randrange(len(units))]


def abort(dice: random.Random, units: Units) -> Units:
    at = dice.randrange(1, len(units))
    return [*units[:at], _ABORT]


def shuffle(dice: random.Random, units: Units) -> Units:
    """Out of order."""
    rest = units[1:]
    dice.shuffle(rest)
    return [units[0], *rest]


def twice(dice: random.Random, units: Units) -> Units:
    at = dice.randrange(len(units))
    return [*units[: at + 1], units[at], *units[at + 1 :]]


def drop(dice: random.Random, units: Units) -> Units:
    at = dice.randrange(len(units))
    return units[:at] + units[at + 1 :]


def oversize(dice: random.Random, units: Units) -> Units:
    """A PDU that claims gigabytes."""
    at = dice.randrange(len(units))
    data = units[at][:2] + struct.pack(">I", dice.choice((0xFFFFFFFF, 0x7FFFFFFF, 1 << 28))) + units[at][6:]
    return [*units[:at], data, *units[at + 1 :]]


def context(dice: random.Random, units: Units) -> Units:
    """Values for presentation contexts that nobody negotiated."""
    at = dice.randrange(1, max(2, len(units) - 1))
    data = bytearray(units[at])
    if len(data) > 10:
        data[10] = dice.choice((0, 2, 11, 255))
    return [*units[:at], bytes(data), *units[at + 1 :]]


def endless(dice: random.Random, units: Units) -> Units:
    """A command that never ends, or a data set for a message that holds it in memory."""
    identifier = dice.choice((1, 5))
    piece = pdata(pdv(identifier, 1 if dice.random() < 0.5 else 0, bytes(1 << 16)))
    at = dice.randrange(1, len(units))
    return [*units[:at], *[piece] * dice.randrange(2, 40), *units[at:]]


def noise(dice: random.Random, units: Units) -> Units:
    return [dice.randbytes(dice.randrange(1, 300))]


MUTATIONS: tuple[Callable[[random.Random, Units], Units], ...] = (
    flip, flip, flip, head, head, cut, stop, abort, shuffle, twice, drop, oversize, context, endless, noise,
)  # fmt: skip


def play(port: int, units: Units) -> None:
    """Send it all, then take what is answered until the other side hangs up or has said enough."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        with suppress(OSError):
            for number, unit in enumerate(units):
                sock.sendall(unit)
                if number == 0:  # what comes before the answer to the request is out of order by itself
                    sock.settimeout(0.5)
                    with suppress(TimeoutError):
                        sock.recv(1 << 16)
                    sock.settimeout(20)
            sock.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while sock.recv(1 << 16):
                pass


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.soak
def test_mutated_associations(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    rounds = soak.size(300, 10_000)
    receiver = start(acceptors=2, acse_timeout=5.0, dimse_timeout=5.0, network_timeout=5.0)
    pids = receiver.server.processes
    made = make("CT", size=20_000)
    data = _data_set(made)
    before = 0

    def run(seed: int) -> None:
        dice = random.Random(seed)
        units = dice.choice(MUTATIONS)(dice, script(dice, made, data))
        play(receiver.port, units)

    with caplog.at_level(logging.INFO):
        for at in range(0, rounds, 20):
            threads = [
                threading.Thread(target=run, args=(soak.SEED + number,)) for number in range(at, min(at + 20, rounds))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(90)
                assert not thread.is_alive(), f"a peer hangs, seeds {at} to {at + 19}"
            with Scu(receiver.port, [(VERIFICATION, _NATIVE)]) as scu:
                assert scu.echo().status == 0
            if at == rounds // 4 // 20 * 20:
                before = sum(map(resident, pids))
    receiver.idle()
    assert receiver.server.processes == pids, "an acceptor died"
    grown = sum(map(resident, pids)) - before
    assert grown < 48 << 20, f"memory grew by {grown >> 20} MB in {rounds} associations"
    assert receiver.unfinished() == []
    rows = receiver.instances()
    assert rows, "no association got through: the campaign shows nothing"
    for row in rows:
        assert hashlib.sha256(receiver.bytes_of(row)).hexdigest() == row.file_sha256
    assert len(receiver.published()) == len(rows)
    _require_one_line_each(caplog.records)
    kept, lines = f"{len(rows)} instances kept", f"{len(caplog.records)} log lines"
    soak.told("mutated associations", f"{rounds}, {kept}, memory grew by {grown / (1 << 20):.1f} MB, {lines}")


def _require_one_line_each(records: list[logging.LogRecord]) -> None:
    """Every warning names a peer, nobody is warned of many times, and there is no traceback."""
    warnings = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    assert not [text for text in warnings if "Traceback" in text], warnings
    nameless = [text for text in warnings if "127.0.0.1" not in text]
    assert not nameless, nameless[:5]
    by_peer: dict[str, list[str]] = {}
    for text in warnings:
        if match := re.search(r"127\.0\.0\.1:(\d+)", text):
            by_peer.setdefault(match[1], []).append(text)
    # One association may have several refused messages, and end badly besides.
    assert max((len(lines) for lines in by_peer.values()), default=0) <= 8, max(by_peer.values(), key=len)


def _data_set(made: Made) -> bytes:
    from tests.makers import encode

    return encode(made.dataset)


def _slow(port: int, over: threading.Event, data: bytes) -> Iterator[None]:
    """One byte now and then."""
    units = associate_request([(CT, _NATIVE)]) + pdata(pdv(1, 3, store_command(CT, "1.2.3")))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock, suppress(OSError):
        for at in range(len(units)):
            sock.sendall(units[at : at + 1])
            if over.wait(0.01):
                return
        while not over.wait(0.05):
            sock.sendall(pdata(pdv(1, 0, b"\0")))
    yield


def _hanging(port: int, over: threading.Event) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock, suppress(OSError):
        sock.sendall(associate_request([(CT, _NATIVE)]) + pdata(pdv(1, 3, store_command(CT, "1.2.4"))))
        over.wait()


def _garbage(port: int, over: threading.Event) -> None:
    dice = random.Random(7)
    while not over.is_set():
        with suppress(OSError):
            play(port, [dice.randbytes(200)])


def _stores(port: int, title: str, count: int, data: bytes, uid_at: int, uid_length: int) -> None:
    """One good association with ``count`` instances, each with a UID of its own of the same length."""
    with Scu(port, [(CT, _NATIVE)], calling=title) as scu:
        for number in range(count):
            uid = f"1.2.{abs(hash((title, number))) % 10**18}".ljust(uid_length, "7")[:uid_length]
            body = data[:uid_at] + uid.encode() + data[uid_at + uid_length :]
            assert scu.store(CT, uid.rstrip("\0 "), body, fragment=1 << 17).status == 0
        scu.release()


def test_bad_neighbours_take_little_from_the_others(start: Start) -> None:
    """50 associations, one of them slow, one hanging, one sending garbage: all the others are through, and in time.

    The time is told, not compared: `python -m bench.ingest` measures it.
    """
    receiver = start(acceptors=2, max_associations=500)
    made = make("CT", size=100_000)
    data = _data_set(made)
    uid = str(made.dataset.SOPInstanceUID).encode()
    uid_at = data.index(uid)
    good = soak.size(47, 47)

    def wave(prefix: str) -> float:
        began = time.monotonic()
        threads = [
            threading.Thread(target=_stores, args=(receiver.port, f"{prefix}{number}", 4, data, uid_at, len(uid)))
            for number in range(good)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), "they were starved"
        return time.monotonic() - began

    alone = wave("A")
    over = threading.Event()
    bad = [
        threading.Thread(target=lambda: list(_slow(receiver.port, over, data))),
        threading.Thread(target=_hanging, args=(receiver.port, over)),
        threading.Thread(target=_garbage, args=(receiver.port, over)),
    ]
    for thread in bad:
        thread.start()
    try:
        beside = wave("B")
    finally:
        over.set()
        for thread in bad:
            thread.join(30)
    print(f"{good} associations alone {alone:.2f} s, beside bad neighbours {beside:.2f} s: {alone / beside:.0%}")
    assert len(receiver.instances()) == 2 * good * 4
    _idle(receiver)


def _idle(receiver: Receiver) -> None:
    receiver.idle()
    assert receiver.unfinished() == []
