"""Nodes of others: entered, echoed, sent to; what they refuse, drop or cannot take is told by instance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from config.settings import Settings
from service import reaching
from service.errors import NotDone, as_refusal
from service.operations import StoreOperations
from store.remotes import RemoteNodeError
from tests.makers import make, study
from tests.service.conftest import write

CT = "1.2.840.10008.5.1.4.1.1.2"
Answer = Callable[[Any], int]


class Node:
    """A storage SCP of another maker: keeps what it accepts, answers as it is told."""

    def __init__(self, syntaxes: list[str], answer: Answer = lambda _: 0) -> None:
        self.kept: dict[str, str] = {}
        self._answer = answer
        ae = AE("ARCHIVE")
        for uid in (CT, "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.1"):
            ae.add_supported_context(uid, syntaxes)
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.socket.getsockname()[1])

    def _store(self, event: Any) -> int:
        status = self._answer(event)
        if status == 0 or 0xB000 <= status <= 0xBFFF:
            self.kept[str(event.request.AffectedSOPInstanceUID)] = str(event.context.transfer_syntax)
            event.dataset.PatientID  # noqa: B018 - it decodes
        return status

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None


@pytest.fixture
def node() -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def start(*arguments: Any) -> Node:
        made.append(Node(*arguments))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def ops(opened: Callable[[], StoreOperations], monkeypatch: pytest.MonkeyPatch) -> StoreOperations:
    monkeypatch.setattr(reaching, "pause", lambda *_: None)
    return opened()


def hold(ops: StoreOperations, folder: Path, made: list[Any]) -> list[str]:
    for path in write(folder, made):
        with path.open("rb") as stream:
            ops.ingest_stream(stream)
    return [str(one.dataset.SOPInstanceUID) for one in made]


def add(ops: StoreOperations, port: int) -> None:
    ops.add_node({"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port})


def send(ops: StoreOperations, **options: Any) -> dict[str, Any]:
    heard: list[dict[str, Any]] = []
    document = ops.send("archive", {"all": True}, heard.append, **options)
    assert all(0 <= one["done"] <= one["total"] for one in heard)
    return document


def test_nodes_are_entered_listed_echoed_and_forgotten(ops: StoreOperations, node: Callable[..., Node]) -> None:
    add(ops, node([ExplicitVRLittleEndian]).port)
    (listed,) = ops.nodes()
    assert (listed["name"], listed["ae_title"], listed["retrieve"]) == ("archive", "ARCHIVE", "move")
    assert ops.echo_node("archive")["seconds"] >= 0
    ops.remove_node("archive")
    with pytest.raises(RemoteNodeError) as unknown:
        ops.echo_node("archive")
    refusal = as_refusal(unknown.value)
    assert refusal is not None and (refusal.exit_status, refusal.http_status) == (2, 404)


def test_a_node_that_is_not_there(ops: StoreOperations, node: Callable[..., Node], tmp_path: Path) -> None:
    gone = node([ExplicitVRLittleEndian])
    add(ops, gone.port)
    gone.close()
    with pytest.raises(NotDone, match="cannot be reached"):
        ops.echo_node("archive")
    (uid,) = hold(ops, tmp_path / "in", [make("CT")])
    document = send(ops)
    assert document["sent"] == 0
    assert document["failed"][0]["sop_instance_uid"] == uid
    assert "cannot be reached" in document["failed"][0]["reason"]


def test_instances_arrive_as_they_are(ops: StoreOperations, node: Callable[..., Node], tmp_path: Path) -> None:
    archive = node([ExplicitVRLittleEndian])
    add(ops, archive.port)
    uids = hold(ops, tmp_path / "in", list(study("CT", 3)))
    document = send(ops)
    assert (document["sent"], document["failed"]) == (3, [])
    assert archive.kept == dict.fromkeys(uids, str(ExplicitVRLittleEndian))


def test_what_is_not_accepted_as_it_is_goes_uncompressed(
    ops: StoreOperations, node: Callable[..., Node], tmp_path: Path
) -> None:
    archive = node([ExplicitVRLittleEndian])
    add(ops, archive.port)
    (uid,) = hold(ops, tmp_path / "in", [make("CT", transfer_syntax_uid=str(ImplicitVRLittleEndian))])
    document = send(ops)
    assert (document["sent"], document["failed"]) == (1, [])
    assert archive.kept == {uid: str(ExplicitVRLittleEndian)}


def test_what_a_node_cannot_take_at_all_is_named(
    ops: StoreOperations, node: Callable[..., Node], tmp_path: Path
) -> None:
    add(ops, node([ExplicitVRLittleEndian]).port)
    uids = hold(ops, tmp_path / "in", [make("CT"), make("SR", seed=3)])
    document = send(ops)
    assert document["sent"] == 1
    assert [one["sop_instance_uid"] for one in document["failed"]] == [uids[1]]


def test_out_of_resources_is_tried_again_and_refusals_are_not(
    ops: StoreOperations, node: Callable[..., Node], tmp_path: Path
) -> None:
    uids = hold(ops, tmp_path / "in", list(study("CT", 3)))
    asked: list[str] = []

    def answer(event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        asked.append(uid)
        if uid == uids[0]:
            return 0xA700 if asked.count(uid) < 3 else 0
        return 0xC123 if uid == uids[1] else 0xB000

    add(ops, node([ExplicitVRLittleEndian], answer).port)
    document = send(ops)
    assert document["sent"] == 2
    assert document["failed"] == [{"sop_instance_uid": uids[1], "reason": "answered with C123H"}]
    assert document["warnings"] == [{"sop_instance_uid": uids[2], "reason": "answered with B000H"}]
    assert [asked.count(uid) for uid in uids] == [3, 1, 1]


def test_an_association_that_breaks_is_made_again(
    ops: StoreOperations, node: Callable[..., Node], tmp_path: Path
) -> None:
    uids = hold(ops, tmp_path / "in", list(study("CT", 4)))
    broken: list[bool] = []

    def answer(event: Any) -> int:
        if str(event.request.AffectedSOPInstanceUID) == uids[1] and not broken:
            broken.append(True)
            event.assoc.abort()
        return 0

    archive = node([ExplicitVRLittleEndian], answer)
    add(ops, archive.port)
    document = send(ops)
    assert (document["sent"], document["failed"]) == (4, [])
    assert set(archive.kept) == set(uids)


def test_what_was_purged_is_named(
    ops: StoreOperations, node: Callable[..., Node], tmp_path: Path, settings: Settings
) -> None:
    add(ops, node([ExplicitVRLittleEndian]).port)
    (uid,) = hold(ops, tmp_path / "in", [make("CT")])
    from store.models import Instance

    with ops.context.db.begin() as session:
        session.query(Instance).update({"spool_path": None})
    document = ops.send("archive", {"sop": [uid]}, lambda _: None)
    reason = "it is no longer in the spool; `burnish recall` brings it back"
    assert document["failed"] == [{"sop_instance_uid": uid, "reason": reason}]


def test_pull_needs_a_way(ops: StoreOperations, node: Callable[..., Node]) -> None:
    add(ops, node([ExplicitVRLittleEndian]).port)
    with pytest.raises(NotDone, match="needs the running service"):
        ops.pull("archive", {"study": ["1.2"]}, lambda _: None)
    with pytest.raises(NotDone, match="does not offer this service"):
        ops.pull("archive", {"study": ["1.2"]}, lambda _: None, by="get")
