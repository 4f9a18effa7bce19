"""Who may connect: TLS, certificates, addresses, limits for one address, user identities."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from scp import identity, tls
from scp.peers import Peers, is_allowed, networks
from scp.server import ServerFailed
from scp.tls import TlsError, TlsFiles
from store import remotes
from store.remotes import Remote
from tests.authority import Authority, Pair
from tests.makers import study
from tests.scp.conftest import Start
from tests.waiting import until

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@pytest.fixture
def settings(authority: Authority) -> dict[str, Any]:
    ours = authority.issue("ours")
    return {
        "enabled": True,
        "port": 0,
        "certificate": str(ours.certificate),
        "key": str(ours.key),
        "ca": str(authority.file),
    }


def client(authority: Path, pair: Pair | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def associate(
    port: int,
    context: ssl.SSLContext | None = None,
    *,
    title: str = "CT1",
    user: tuple[int, bytes, bytes] | None = None,
) -> Association:
    ae = AE(title)
    ae.add_requested_context(VERIFICATION)
    ae.add_requested_context(CT)
    ae.acse_timeout = ae.dimse_timeout = 120
    items = []
    if user is not None:
        item = UserIdentityNegotiation()
        item.user_identity_type, item.primary_field, item.secondary_field = user
        item.positive_response_requested = True
        items.append(item)
    return ae.associate(
        "127.0.0.1", port, tls_args=(context, "localhost") if context is not None else None, ext_neg=items
    )


def echoes(association: Association) -> bool:
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status.get("Status") == 0)


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_instances_come_over_tls(
    start: Start, settings: dict[str, Any], authority: Authority, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    receiver = start(tls=settings)
    association = associate(receiver.server.tls_port, client(authority.file, authority.issue("ct1"), version))
    assert association.is_established
    made = list(study("CT", 4, size=300_000))
    for number, one in enumerate(made):
        assert association.send_c_store(one.write(tmp_path / f"{number}.dcm")).Status == 0
    association.release()
    assert {one.sop_instance_uid for one in receiver.instances()} == {str(one.dataset.SOPInstanceUID) for one in made}
    assert echoes(associate(receiver.port)), "the port without TLS stays"
    receiver.idle()


def test_who_has_no_certificate_of_ours_stays_outside(
    start: Start, settings: dict[str, Any], authority: Authority, tmp_path: Path
) -> None:
    receiver = start(tls=settings)
    port = receiver.server.tls_port
    strangers = Authority(tmp_path / "strangers", "Strangers")
    for pair in (None, strangers.issue("stranger"), authority.issue("old", days=-1)):
        assert not echoes(associate(port, client(authority.file, pair)))
    assert not echoes(associate(port)), "no TLS at all"
    assert echoes(associate(port, client(authority.file, authority.issue("ct1"))))
    receiver.idle()


@pytest.mark.parametrize(("mode", "without"), [("optional", True), ("none", True), ("required", False)])
def test_client_certificates_as_set(
    start: Start, settings: dict[str, Any], authority: Authority, mode: str, without: bool
) -> None:
    receiver = start(tls=settings | {"client_certificates": mode})
    assert echoes(associate(receiver.server.tls_port, client(authority.file, None))) is without


def test_old_versions_and_weak_ciphers_are_refused(
    start: Start, settings: dict[str, Any], authority: Authority
) -> None:
    receiver = start(tls=settings | {"client_certificates": "none"})
    for options in ({"maximum": ssl.TLSVersion.TLSv1_1}, {"ciphers": "AES128-SHA:@SECLEVEL=0"}):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if "ciphers" in options:
            context.set_ciphers(str(options["ciphers"]))
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        else:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", receiver.server.tls_port), timeout=20) as sock,
            pytest.raises(OSError),
        ):
            context.wrap_socket(sock).recv(1)
    receiver.idle()


def test_a_handshake_that_never_comes_ends(start: Start, settings: dict[str, Any]) -> None:
    receiver = start(tls=settings, acse_timeout=0.5)
    with socket.create_connection(("127.0.0.1", receiver.server.tls_port), timeout=20) as sock:
        assert sock.recv(1) == b""
    receiver.idle()


def test_only_tls(start: Start, settings: dict[str, Any], authority: Authority) -> None:
    receiver = start(tls=settings | {"only": True})
    assert receiver.port == 0
    assert echoes(associate(receiver.server.tls_port, client(authority.file, authority.issue("ct1"))))


def test_a_node_that_is_to_come_over_tls(start: Start, settings: dict[str, Any], authority: Authority) -> None:
    receiver = start(tls=settings)
    with receiver.db.begin() as session:
        remotes.add(session, Remote("ct", "CT1", "127.0.0.1", 104, tls=True))
    assert not echoes(associate(receiver.port))
    assert echoes(associate(receiver.port, title="CT2"))
    assert echoes(associate(receiver.server.tls_port, client(authority.file, authority.issue("ct1"))))


def test_a_key_that_others_may_read_stops_the_start(start: Start, settings: dict[str, Any]) -> None:
    Path(settings["key"]).chmod(0o640)
    with pytest.raises(ServerFailed, match="may be read by others"):
        start(tls=settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"certificate": ""}, "tls.certificate is not set"),
        ({"ca": ""}, "tls.ca is not set"),
        ({"certificate": "/no/such.pem"}, "No such file"),
    ],
)
def test_what_is_missing_stops_the_start(
    start: Start, settings: dict[str, Any], change: dict[str, str], words: str
) -> None:
    with pytest.raises(ServerFailed, match=words):
        start(tls=settings | change)


def test_a_client_trusts_none_without_authorities() -> None:
    with pytest.raises(TlsError, match=r"tls\.ca"):
        tls.client_context(TlsFiles("", "", ""), check_host=True)


def test_bytes_pass_both_ways_at_any_pace(authority: Authority) -> None:
    """A megabyte each way at the same time, one side slow, through both of our ends."""
    ours, theirs = authority.issue("server"), authority.issue("client")
    files = TlsFiles(str(ours.certificate), str(ours.key), str(authority.file))
    their_files = TlsFiles(str(theirs.certificate), str(theirs.key), str(authority.file))
    left, right = socket.socketpair()
    server = tls.ended(left, tls.server_context(files, client_certificates="required"), peer="a", timeout=20)
    user = tls.ended(
        right, tls.client_context(their_files, check_host=True), peer="b", timeout=20, server_hostname="localhost"
    )
    data = {side: os.urandom(1 << 20) for side in ("there", "back")}
    got = {"there": bytearray(), "back": bytearray()}

    def read(sock: socket.socket, side: str, piece: int) -> None:
        while len(got[side]) < len(data[side]) and (found := sock.recv(piece)):
            got[side] += found

    threads = [
        threading.Thread(target=user.sendall, args=(data["there"],)),
        threading.Thread(target=server.sendall, args=(data["back"],)),
        threading.Thread(target=read, args=(server, "there", 1000)),
        threading.Thread(target=read, args=(user, "back", 1 << 16)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {side: bytes(found) for side, found in got.items()} == data
    user.close()
    assert server.recv(1) == b""
    server.close()


# -- addresses and limits ----------------------------------------------------------------------------------------------


def test_addresses() -> None:
    allowed = networks(["10.1.0.0/16", "192.168.1.5", "fd00::/8"])
    assert is_allowed("10.1.200.3", allowed) and is_allowed("::ffff:10.1.0.1", allowed)
    assert is_allowed("fd12::1%eth0", allowed) and is_allowed("192.168.1.5", allowed)
    assert not is_allowed("10.2.0.1", allowed) and not is_allowed("no address", allowed)
    assert is_allowed("8.8.8.8", networks([]))


def test_an_address_that_is_not_allowed(start: Start) -> None:
    assert not echoes(associate(start(allowed_addresses=["10.0.0.0/8"]).port))


def test_an_address_that_is_allowed(start: Start) -> None:
    assert echoes(associate(start(allowed_addresses=["127.0.0.0/8"]).port))


def test_so_many_at_the_same_time(start: Start) -> None:
    receiver = start(acceptors=2, associations_per_address=3)
    held = [associate(receiver.port) for _ in range(3)]
    assert all(one.is_established for one in held)
    assert not associate(receiver.port).is_established
    held.pop().release()
    until(lambda: echoes(associate(receiver.port)))
    for one in held:
        one.release()
    receiver.idle()


def test_so_many_a_minute(start: Start) -> None:
    receiver = start(connections_per_minute=3)
    assert [echoes(associate(receiver.port)) for _ in range(5)] == [True, True, True, False, False]


def test_a_dead_process_counts_no_more() -> None:
    fd = Peers.create(2)
    first, second = (Peers(fd, 2, own=own, at_once=2, per_minute=0) for own in (0, 1))
    assert not first.enter("a") and not second.enter("a")
    assert "at the same time" in first.enter("a")
    assert not first.enter("b")
    second.clear(1)
    assert not first.enter("a")
    first.leave("a")
    first.leave("a")
    first.leave("a")
    assert not second.enter("a")
    os.close(fd)


def test_many_addresses_come_and_go() -> None:
    fd = Peers.create(1)
    peers = Peers(fd, 1, own=0, at_once=1, per_minute=0)
    for number in range(5000):
        assert not peers.enter(f"10.0.{number >> 8}.{number & 255}")
        peers.leave(f"10.0.{number >> 8}.{number & 255}")
    os.close(fd)


# -- user identity -----------------------------------------------------------------------------------------------------


@pytest.fixture
def users(tmp_path: Path) -> str:
    path = tmp_path / "users.toml"
    path.write_text(f'"ct-1" = "{identity.digest("secret")}"\n')
    return str(path)


@pytest.mark.parametrize(
    ("policy", "answers"),
    [
        (
            "required",
            [
                ((2, b"ct-1", b"secret"), True),
                ((2, b"ct-1", b"wrong"), False),
                ((2, b"nobody", b"secret"), False),
                ((2, b"\xff", b"secret"), False),
                ((1, b"ct-1", b""), False),
                ((3, b"ticket", b""), False),
                (None, False),
            ],
        ),
        ("optional", [(None, True), ((2, b"ct-1", b"wrong"), False), ((2, b"ct-1", b"secret"), True)]),
        ("ignore", [((2, b"ct-1", b"wrong"), True)]),
    ],
)
def test_user_identity(start: Start, users: str, policy: str, answers: list[Any]) -> None:
    receiver = start(user_identity=policy, users_file=users)
    for user, welcome in answers:
        association = associate(receiver.port, user=user)
        assert association.is_established is welcome, user
        if welcome:
            answered = association.acceptor.user_identity is not None
            assert answered is (policy != "ignore" and user is not None)
            association.release()
        else:
            assert association.is_rejected


def test_a_file_of_users_that_is_none(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="No such file"):
        start(user_identity="required", users_file=str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text('"a" = "secret"\n')
    with pytest.raises(ServerFailed, match="not made by"):
        start(user_identity="required", users_file=str(tmp_path / "bad.toml"))
