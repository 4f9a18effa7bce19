"""The audit trail of a running service: what is recorded, what goes to a receiver of syslog over TLS, the commands."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from pydicom.dataset import Dataset
from pynetdicom import AE
from sqlalchemy import text
from typer.testing import CliRunner

from config.settings import Settings, load
from service import telling
from service.app import Service
from service.auditing import Auditing, anchor_of
from service.cli import app
from service.operations import StoreOperations
from service.syslog import Sender, SyslogError, receiver_of
from store import audit, auditevents, auditwhat
from store.auditwhat import Who
from store.models import Instance
from store.models_jobs import Job, Request
from tests.authority import Authority
from tests.ports import own_port
from tests.service.door import Door
from tests.service.test_importing import imported
from tests.store.test_audit import SCHEMA, unguard
from tests.waiting import until

FIND = "1.2.840.10008.5.1.4.1.2.2.1"


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    running = Service(settings)
    running.document = running.start()  # type: ignore[attr-defined]
    yield running
    running.stop()


def told(service: Service, event: str) -> list[etree._Element]:
    with service.operations.context.db.read() as session:
        rows = audit.records(session, limit=1000, event=event, newest_first=False)
    found = [etree.fromstring(row.message) for row in rows]
    for one in found:
        assert SCHEMA.validate(one), SCHEMA.error_log
    return found


def test_receipt_query_and_rejection_are_told(service: Service, made: Path) -> None:
    imported(service.operations, made)
    port = service.document["dicom"]["port"]  # type: ignore[attr-defined]
    entity = AE("ASKER")
    entity.add_requested_context(FIND)
    association = entity.associate("127.0.0.1", port, ae_title="BURNISH")
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientName, query.StudyInstanceUID = "STUDY", "D*", ""
    assert [status.Status for status, _ in association.send_c_find(query, FIND)][-1] == 0
    association.release()

    (asked,) = until(lambda: told(service, "query"))
    assert asked.find("ActiveParticipant").get("UserID") == "ASKER"
    assert asked.find("ActiveParticipant").get("NetworkAccessPointID") == "127.0.0.1"
    content = asked.find("ParticipantObjectIdentification/ParticipantObjectQuery").text
    assert b"D*" in base64.b64decode(content)

    def brought() -> set[str]:
        """Studies: the clock may tell of each by itself."""
        things = [one for each in told(service, "import") for one in each.iter("ParticipantObjectIdentification")]
        studies = [one for one in things if one.find("ParticipantObjectIDTypeCode").get("csd-code") == "110180"]
        return {one.get("ParticipantObjectID") for one in studies}

    until(lambda: len(brought()) == 2)
    assert [one.find(".//EventTypeCode").get("csd-code") for one in told(service, "application")] == ["110120"]


def test_a_disc_is_an_export_with_its_medium(service: Service, made: Path) -> None:
    imported(service.operations, made)
    job = service.operations.burn(
        selection={"all": True},
        plan=None,
        options={"patients_per_disc": "many", "medium": "DVD-R", "profile": "STD-GEN-DVD-JPEG", "copies": 2},
    )
    until(lambda: service.operations.job(job["job"])["state"] in ("DONE", "FAILED"))
    document = service.operations.job(job["job"])
    assert document["state"] == "DONE", document
    until(lambda: len(told(service, "export")) == 2)
    exports = told(service, "export")
    (uid,) = {disc["file_set_uid"] for disc in document["discs"]}
    for one in exports:
        user, medium = one.findall("ActiveParticipant")
        assert (user.get("UserID"), medium.get("UserID")) == ("api", uid)
        assert medium.find("MediaIdentifier/MediaType").get("csd-code") == "110033"
        assert medium.find("RoleIDCode").get("csd-code") == "110154"
        codes = [kind.get("csd-code") for kind in one.iter("ParticipantObjectIDTypeCode")]
        assert sorted(codes) == ["110180", "110180", "2", "2"]


class SyslogReceiver:
    """Takes messages of RFC 5425, and can be sent away."""

    def __init__(self, authority: Authority, port: int) -> None:
        pair = authority.issue("localhost")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.messages: list[bytes] = []
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
                connection = self._context.wrap_socket(plain, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._read, args=(connection.makefile("rb"),), daemon=True).start()

    def _read(self, stream: Any) -> None:
        try:
            while digits := stream.read(1):
                while (one := stream.read(1)) != b" ":
                    digits += one
                self.messages.append(stream.read(int(digits)))
        except (OSError, ValueError):
            return

    def leave(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends accept(), too
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def test_messages_reach_a_receiver_of_syslog_over_tls_and_wait_while_it_is_away(tmp_path: Path, data: Path) -> None:
    authority = Authority(tmp_path / "ca")
    receiver = SyslogReceiver(authority, own_port())
    settings = load(
        data=data,
        overrides={
            "dicom": {"port": 0, "acceptors": 1},
            "http": {"port": 0},
            "audit": {"syslog": f"tls://localhost:{receiver.port}", "ca": str(authority.file)},
        },
    )
    service = Service(settings)
    service.start()
    try:
        first, *_ = until(lambda: receiver.messages)
        head, _, xml = first.partition(b"\xef\xbb\xbf")
        assert re.fullmatch(rb"<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [!-~]+ burnish \d+ DICOM\+RFC3881 - ", head)
        assert SCHEMA.validate(etree.fromstring(xml.decode()))
        receiver.leave()
        context = service.operations.context
        with context.db.begin() as session:
            for number in range(3):
                context.audit.record(session, auditwhat.authentication("login", Who(f"u{number}")))
        until(lambda: _waiting(service) == 3)
        receiver = SyslogReceiver(authority, receiver.port)
        until(lambda: _waiting(service) == 0)
        until(lambda: _users(receiver)[-3:] == ["u0", "u1", "u2"])
    finally:
        service.stop()
        receiver.leave()


def test_what_a_receiver_had_not_read_when_it_died_is_sent_again(opened: Callable[[], StoreOperations]) -> None:
    context = opened().context
    with context.db.begin() as session:
        for number in range(4):
            context.audit.record(session, auditwhat.authentication("login", Who(f"u{number}")))
    with context.db.read() as session:
        rows = list(audit.unsent(session, context.spool.node))
    listener = socket.create_server(("127.0.0.1", 0))
    sender = Sender(receiver_of(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
    sender.send(rows[:2])
    assert not sender.has_doubts
    connection, _ = listener.accept()
    connection.close()  # without having read anything
    until(lambda: sender.has_doubts)
    sender.send(rows[2:3])
    connection, _ = listener.accept()
    sender.send(rows[3:])
    sender.close()
    with connection.makefile("rb") as stream:
        assert re.findall(rb'UserID="(u\d)"', stream.read()) == [b"u0", b"u1", b"u2", b"u3"]
    connection.close()
    listener.close()


def _users(receiver: SyslogReceiver) -> list[str]:
    texts = [etree.fromstring(one.partition(b"\xef\xbb\xbf")[2]) for one in receiver.messages]
    return [one.find("ActiveParticipant").get("UserID") for one in texts]


def _waiting(service: Service) -> int:
    with service.operations.context.db.read() as session:
        return audit.waiting(session)


@pytest.mark.parametrize(
    "url", ["syslog://host", "tls://", "tls://host:99999", "tls://host/path", "host:6514", "udp://h"]
)
def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(SyslogError, match=re.escape(url)):
        receiver_of(url)


def test_the_default_port_is_that_of_syslog_over_tls() -> None:
    assert receiver_of("tls://audit.example").port == 6514


def test_the_command_finds_what_was_removed(service: Service, data: Path) -> None:
    context = service.operations.context
    with context.db.begin() as session:
        for number in range(3):
            context.audit.record(session, auditwhat.authentication("login", Who(f"u{number}")))
    run = CliRunner().invoke
    listed = run(app, ["audit", "list", "--event", "authentication", "--data", str(data)])
    assert listed.exit_code == 0 and "User Authentication" in listed.stdout and "u2" in listed.stdout
    assert run(app, ["audit", "verify", "--data", str(data)]).exit_code == 0
    unguard(context.db)
    with context.db.begin() as session:
        session.execute(text("DELETE FROM audit_record WHERE number = 2"))
    found = run(app, ["audit", "verify", "--json", "--data", str(data)])
    assert found.exit_code == 1 and "record 2 was removed" in found.stdout


def test_where_there_is_no_anchor_that_is_said(data: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["users", "add", "ann", "--role", "viewer", "--no-password", "--data", str(data)]).exit_code == 0
    said = run(app, ["audit", "verify", "--data", str(data)])
    assert (said.exit_code, "there is no anchor" in said.stderr) == (0, True)


def test_the_trail_names_who_asked(opened: Callable[[], StoreOperations], made: Path) -> None:
    operations = opened()
    imported(operations, made)
    door = Door(operations)
    door.user("erika", "administrator")
    erika = door.program(door.token("erika", "administrator"), address="10.0.0.8")
    node = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    assert erika.post("/api/v1/nodes", json=node).status_code == 201
    (study, *_) = erika.get("/api/v1/studies").json()["items"]
    selection = {"study": [study["study_instance_uid"]]}
    assert erika.post("/api/v1/jobs", json={"selection": selection}).status_code == 201
    with operations.context.db.read() as session:
        assert [request.source for request in session.query(Request)] == ["user:erika"]
        (job,) = session.query(Job)
        end_job(operations, job.id)
    assert erika.post("/api/v1/spool/delete", json={"selection": selection}).status_code == 200
    with operations.context.db.read() as session:
        rows = [row for row in audit.records(session, limit=100) if row.user == "erika"]
        told_of = {row.event: etree.fromstring(row.message) for row in rows}
    assert {"alert", "deleted"} <= told_of.keys()
    for one in told_of.values():
        assert SCHEMA.validate(one), SCHEMA.error_log
    things = told_of["deleted"].findall("ParticipantObjectIdentification")
    assert things[0].get("ParticipantObjectID") == study["study_instance_uid"]
    assert things[1].get("ParticipantObjectID") == study["patient_id"]
    assert told_of["deleted"].find("ActiveParticipant").get("NetworkAccessPointID") == "10.0.0.8"


def test_an_anchor_that_the_chain_does_not_fit_to_stays(opened: Callable[[], StoreOperations]) -> None:
    """A service that runs, or is started anew, must not write over the proof that records were removed."""
    context = opened().context
    auditing = Auditing(context)

    def fill(count: int) -> None:
        with context.db.begin() as session:
            for _ in range(count):
                context.audit.record(session, auditwhat.authentication("login", Who("erika")))

    fill(5)
    auditing.tick()
    kept = audit.read_anchor(anchor_of(context.settings))
    assert kept is not None
    assert kept[0] == 5
    unguard(context.db)
    with context.db.begin() as session:
        session.execute(text("DELETE FROM audit_record WHERE number > 3"))
    for service in (auditing, Auditing(context)):
        service.tick()
        assert audit.read_anchor(anchor_of(context.settings)) == kept
        fill(2)
        service.tick()
        assert audit.read_anchor(anchor_of(context.settings)) == kept
    with context.db.read() as session:
        assert "5 is another than it was" in audit.verify(session, kept)["problems"][0]


def end_job(operations: StoreOperations, job_id: int) -> None:
    """End a job that no engine has taken."""
    with operations.context.db.begin() as session:
        session.execute(text("UPDATE job SET state = 'CANCELLED' WHERE id = :id"), {"id": job_id})


def told_of(operations: StoreOperations, event: str) -> list[tuple[str, etree._Element]]:
    """Who asked, and the message, in their order."""
    telling.finish(operations.context.db)
    with operations.context.db.read() as session:
        rows = audit.records(session, event=event, limit=100, newest_first=False)
    found = [(row.user, etree.fromstring(row.message)) for row in rows]
    for _, message in found:
        assert SCHEMA.validate(message), SCHEMA.error_log
    return found


def test_a_label_that_is_shown_or_downloaded_is_an_export_to_paper(door: Door, made: Path) -> None:
    imported(door.operations, made)
    door.user("olga", "operator")
    olga = door.program(door.token("olga", "operator"))
    (study, *_) = olga.get("/api/v1/studies").json()["items"]
    plan = olga.post("/api/v1/plans", json={"selection": {"study": [study["study_instance_uid"]]}}).json()["plan"]
    for path in (f"/api/v1/labels/{plan}/pdf", f"/labels/{plan}/label.png"):
        before = len(told_of(door.operations, "export"))
        assert olga.get(path).status_code == 200
        exports = told_of(door.operations, "export")
        assert len(exports) == before + 1
        user, message = exports[-1]
        assert user == "olga"
        assert message.find(".//MediaType").get("csd-code") == "110038"
        assert study["patient_id"] in {
            one.get("ParticipantObjectID") for one in message.findall("ParticipantObjectIdentification")
        }


def test_a_download_is_an_export_to_a_uri(door: Door, made: Path) -> None:
    imported(door.operations, made)
    with door.context.db.read() as session:
        uid = session.query(Instance).first().sop_instance_uid
    assert door.program().get(f"/api/v1/instances/{uid}/file").status_code == 200
    ((_, message),) = told_of(door.operations, "export")
    assert message.find(".//MediaType").get("csd-code") == "110037"


def test_what_is_typed_into_the_pages_search_is_told_once(door: Door, made: Path) -> None:
    imported(door.operations, made)
    door.user("vera", "viewer")
    browser = door.browser()
    browser.sign_in("vera")
    for trigger in ("search-text", "search-text", "received"):
        assert browser.post("/studies/found", {"text": "Doe"}, hx_trigger=trigger).status_code == 200
    queries = [
        base64.b64decode(message.findtext(".//ParticipantObjectQuery") or "")
        for user, message in told_of(door.operations, "query")
        if user == "vera"
    ]
    assert len(queries) == 1 and b"Doe" in queries[0]


def test_an_image_that_is_asked_for_by_its_address_was_looked_at(door: Door, made: Path) -> None:
    imported(door.operations, made)
    with door.context.db.read() as session:
        instance = session.query(Instance).first()
    program = door.program()
    program.get(f"/images/{instance.id}.png")
    assert len(told_of(door.operations, "accessed")) == 1
    program.get(f"/api/v1/instances/{instance.sop_instance_uid}/thumbnail")
    assert len(told_of(door.operations, "accessed")) == 1  # the same study, a moment later


def test_who_has_discs_made_of_anothers_plan_answers_for_them(door: Door, made: Path) -> None:
    imported(door.operations, made)
    for name in ("ann", "bob"):
        door.user(name, "operator")
    ann, bob = (door.program(door.token(name, "operator")) for name in ("ann", "bob"))
    plan = ann.post("/api/v1/plans", json={"selection": {"all": True}}).json()["plan"]
    assert bob.post("/api/v1/jobs", json={"plan": plan}).status_code == 201
    with door.context.db.read() as session:
        assert [request.source for request in session.query(Request)] == ["user:bob"]


def test_a_plan_of_the_page_is_of_whoever_made_it(door: Door, made: Path) -> None:
    imported(door.operations, made)
    door.user("olga", "operator")
    olga = door.program(door.token("olga", "operator"))
    assert olga.post("/make/plan", data={"study": "1"}).status_code == 200

    def sources() -> list[str]:
        with door.context.db.read() as session:
            return [request.source for request in session.query(Request)]

    assert until(sources) == ["user:olga"]


def test_what_a_remote_node_is_asked_for_people_is_told(door: Door) -> None:
    door.user("olga", "operator")
    olga = door.program(door.token("olga", "operator"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    node = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
    assert door.program().post("/api/v1/nodes", json=node).status_code == 201
    olga.post("/nodes/pacs/query", data={"patient_name": "Doe*"})
    ((user, message),) = told_of(door.operations, "query")
    assert user == "olga"
    assert b"Doe*" in base64.b64decode(message.findtext(".//ParticipantObjectQuery") or "")


def test_an_export_of_the_catalogue_is_told_by_table(door: Door) -> None:
    door.user("arno", "archivist")
    arno = door.program(door.token("arno", "archivist"))
    assert arno.get("/api/v1/catalogue/export/study").status_code == 200
    ((user, message),) = told_of(door.operations, "export")
    assert user == "arno"
    assert message.find("ParticipantObjectIdentification").get("ParticipantObjectID") == "catalogue/study"


def test_an_upload_names_who_sent_it(door: Door, made: Path) -> None:
    door.user("olga", "operator")
    olga = door.program(door.token("olga", "operator"))
    file = next(path for path in sorted(made.rglob("*")) if path.is_file())
    assert olga.post("/api/v1/instances", content=file.read_bytes()).status_code == 200
    auditevents.tick(door.context.db, door.context.audit)
    ((_, message),) = told_of(door.operations, "import")
    people = {one.get("UserID"): one.get("UserIsRequestor") for one in message.findall("ActiveParticipant")}
    assert people == {"olga": "true", "upload": "false"}
