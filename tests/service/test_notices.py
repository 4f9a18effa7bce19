"""Webhooks, e-mail, figures, readiness: who is told what, once, however often the target was away."""

from __future__ import annotations

import contextlib
import email
import email.policy
import hmac
import http.server
import json
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from config.settings import Settings, load
from service import doctor, notifying, notifying_ways
from service.api.application import build
from service.notifying import Notifying
from service.notifying_limit import Limit
from service.notifying_ways import NotTold
from service.operations import StoreOperations
from service.shutdown import Stopping
from store import notices
from store.models_audit import Notice
from store.models_base import now
from store.models_nodes import Counter, Event
from tests.waiting import wait_for

SECRET = "s3cret"


class Target:
    """A web server that takes what it is sent, or refuses."""

    def __init__(self) -> None:
        self.status = 200
        self.nonsense = False
        self.requests: list[tuple[dict[str, str], bytes]] = []
        target = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                target.requests.append((dict(self.headers), body))
                if target.nonsense:
                    self.wfile.write(b"220 welcome\r\n")
                    return
                self.send_response(target.status)
                if target.status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?key=1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def target() -> Iterator[Target]:
    running = Target()
    yield running
    running.stop()


class Postbox(socketserver.ThreadingTCPServer):
    """An SMTP server that keeps what it gets."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Smtp)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Smtp(socketserver.StreamRequestHandler):
    server: Postbox

    def handle(self) -> None:
        self.wfile.write(b"220 postbox\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                content = b""
                while (line := self.rfile.readline()) != b".\r\n":
                    content += line
                self.server.messages.append(content)
            elif word == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 well\r\n")


@pytest.fixture
def postbox() -> Iterator[Postbox]:
    running = Postbox()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def told_settings(data: Path, target: Target, postbox: Postbox, tmp_path: Path) -> Settings:
    file = tmp_path / "burnish.toml"
    file.write_text(f"""
        [mail]
        host = "127.0.0.1"
        port = {postbox.port}
        security = "none"
        sender = "Burnish <burnish@clinic.example>"
        password = "hunter2"
        [[webhooks]]
        name = "ris"
        url = "{target.url}"
        events = ["done", "failed"]
        secret = "{SECRET}"
        [[mails]]
        name = "admins"
        to = ["a@clinic.example", "b@clinic.example"]
    """)
    return load(config=file, data=data, overrides={"dicom": {"port": 0, "acceptors": 1}, "http": {"port": 0}})


@pytest.fixture
def settings(told_settings: Settings) -> Settings:
    return told_settings


@pytest.fixture
def operations(opened: Callable[[], StoreOperations]) -> StoreOperations:
    return opened()


def happen(operations: StoreOperations, *states: str, kind: str = "job") -> None:
    with operations.context.db.begin() as session:
        for state in states:
            detail = {"recall": "C3"} if kind == "recall" else {"error": "DOE^JANE is not on it"}
            session.add(Event(at=now(), kind=kind, job_id=None, old="", new=state, detail=detail))


def due_now(operations: StoreOperations) -> None:
    with operations.context.db.begin() as session:
        for notice in session.query(Notice).filter(Notice.next_at.is_not(None)):
            notice.next_at = now()


def test_a_new_target_hears_of_what_happens_from_now_on_once(operations: StoreOperations, target: Target) -> None:
    notifying_ = Notifying(operations.context)
    happen(operations, "DONE")
    notifying_.tick(wait=60)
    assert target.requests == []
    happen(operations, "BURNING", "DONE", "WAITING", "FAILED")
    for _ in range(3):
        notifying_.tick(wait=60)
    assert [json.loads(body)["event"] for _, body in target.requests] == ["done", "failed"]


def test_what_is_told_is_signed_and_names_no_patient(operations: StoreOperations, target: Target) -> None:
    notifying_ = Notifying(operations.context)
    notifying_.tick(wait=60)
    happen(operations, "FAILED")
    notifying_.tick(wait=60)
    ((headers, body),) = target.requests
    assert b"DOE" not in body
    at, given = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers["Burnish-Signature"]).groups()
    assert hmac.compare_digest(given, hmac.new(SECRET.encode(), f"{at}.".encode() + body, sha256).hexdigest())
    document = json.loads(body)
    assert (document["event"], document["state"], headers["Idempotency-Key"]) == (
        "failed",
        "FAILED",
        document["notice"],
    )


def test_people_are_told_by_e_mail(operations: StoreOperations, postbox: Postbox) -> None:
    notifying_ = Notifying(operations.context)
    notifying_.tick(wait=60)
    happen(operations, "DONE", "WAITING")
    happen(operations, "asked", kind="recall")
    notifying_.tick(wait=60)
    messages = [email.message_from_bytes(one, policy=email.policy.default) for one in postbox.messages]
    assert [one["Subject"] for one in messages] == ["Burnish: Burnish needs a person", "Burnish: C3 needs a person"]
    assert messages[0]["To"] == "a@clinic.example, b@clinic.example"
    assert "state: WAITING" in messages[0].get_content()


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_target_that_is_away_is_told_later(
    operations: StoreOperations, target: Target, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_FIRST_PAUSE", timedelta(hours=1))
    notifying_ = Notifying(operations.context)
    notifying_.tick(wait=60)
    target.status = status
    happen(operations, "DONE")
    notifying_.tick(wait=60)
    notifying_.tick(wait=60)
    assert len(target.requests) == 1, "it is tried again only after a pause"
    with operations.context.db.read() as session:
        (document,) = notices.documents(session)
    assert document["told_at"] is None and document["next_at"] and str(status) in document["error"]
    assert "key=1" not in document["error"]
    target.status = 200
    due_now(operations)
    notifying_.tick(wait=60)
    due_now(operations)
    notifying_.tick(wait=60)
    assert len(target.requests) == 2
    assert {headers["Idempotency-Key"] for headers, _ in target.requests} == {document["notice"]}


def test_a_target_that_talks_nonsense_keeps_nobody_from_being_told(
    operations: StoreOperations, target: Target, postbox: Postbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifying_ = Notifying(operations.context)
    notifying_.tick(wait=60)
    happen(operations, "FAILED", "FAILED")
    target.nonsense = True
    notifying_.tick(wait=60)
    assert len(postbox.messages) == 2
    with operations.context.db.read() as session:
        waiting = session.query(Notice).filter(Notice.target == "ris", Notice.next_at.is_not(None)).all()
    assert ["no answer of HTTP" in (one.error or "") for one in waiting] == [True, True]

    def cannot(*_: object) -> None:
        raise UnicodeEncodeError("ascii", "h\u00fcnter2", 1, 2, "ordinal not in range")

    monkeypatch.setattr("smtplib.SMTP.send_message", cannot)
    with pytest.raises(NotTold, match=r"in mail.user, mail.password or an address"):
        notifying_.tell("admins", {"notice": "N0", "event": "test"})


def test_a_target_that_does_not_answer_is_asked_once_a_round(
    operations: StoreOperations, target: Target, postbox: Postbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifying_ = Notifying(operations.context)
    notifying_.tick(wait=60)
    happen(operations, "FAILED", "FAILED", "FAILED")
    asked = []

    def away(hook: object, *_: object, **__: object) -> None:
        asked.append(hook)
        raise notifying_ways.Away("no route to host")

    monkeypatch.setattr(notifying, "post", away)
    notifying_.tick(wait=60)
    assert (len(asked), len(postbox.messages)) == (1, 3)


def test_it_is_given_up_at_last_and_can_be_tried_again(operations: StoreOperations, target: Target) -> None:
    notifying_ = Notifying(operations.context)
    notifying_.tick(wait=60)
    target.status = 500
    happen(operations, "DONE")
    with operations.context.db.begin() as session:
        for event in session.query(Event):
            event.at = now() - timedelta(days=365)
    notifying_.tick(wait=60)
    with operations.context.db.begin() as session:
        (document,) = notices.documents(session)
        assert document["next_at"] is None and document["told_at"] is None
        assert notices.again(session, int(document["notice"][1:]))
    target.status = 200
    notifying_.tick(wait=60)
    assert len(target.requests) == 2
    with operations.context.db.begin() as session:
        assert not notices.again(session, int(document["notice"][1:])), "it was told"


def test_the_mark_moves_on_and_an_event_that_commits_late_is_told(operations: StoreOperations, target: Target) -> None:
    notifying_ = Notifying(operations.context)
    notifying_.tick(wait=60)
    db = operations.context.db
    with db.begin() as session:
        session.add(Event(id=500, at=now(), kind="job", new="DONE", detail={}))
    notifying_.tick(wait=60)
    with db.begin() as session:
        session.add(Event(id=400, at=now(), kind="job", new="FAILED", detail={}))
    notifying_.tick(wait=60)
    assert [json.loads(body)["event"] for _, body in target.requests] == ["done", "failed"]
    with db.begin() as session:
        for event in session.query(Event):
            event.at = now() - timedelta(days=365)
    notifying_.tick(wait=60)
    with db.read() as session:
        assert session.get_one(Counter, "notice:ris").value == 500
    assert len(target.requests) == 2


def test_nobody_listens(operations: StoreOperations, target: Target) -> None:
    target.stop()
    with pytest.raises(NotTold, match=r"^http://127.0.0.1: "):
        Notifying(operations.context).tell("ris", {"notice": "N0", "event": "test"})


def test_wrong_settings_are_found(told_settings: Settings) -> None:
    hook = told_settings.webhooks[0]
    wrong = told_settings.model_copy(
        update={
            "webhooks": (hook.model_copy(update={"url": "file:///etc/passwd", "name": "admins"}),),
            "mail": told_settings.mail.model_copy(update={"host": ""}),
        }
    )
    found = "\n".join(notifying.problems(wrong))
    assert "two of the name 'admins'" in found and "file:///etc/passwd" in found and "mail.host" in found
    assert notifying.problems(told_settings) == []


def test_secrets_are_not_shown(told_settings: Settings) -> None:
    shown = doctor.flat(told_settings)
    assert shown["webhooks.ris.secret"] == shown["mail.password"] == "(set, not shown)"
    assert shown["oidc.client_secret"] == ""


@pytest.fixture
def client(operations: StoreOperations) -> TestClient:
    app = build(operations, token="sesame", hosts=(), stopping=Stopping())
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


SESAME = {"Authorization": "Bearer sesame"}


def test_figures_are_there_for_those_who_may(client: TestClient) -> None:
    assert client.get("/metrics").status_code == 401
    answer = client.get("/metrics", headers=SESAME)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        "burnish_info{",
        "burnish_spool_bytes 0.0",
        'burnish_burner_state{burner="iso",driver="iso",state="',
        "process_cpu_seconds_total",
    ):
        assert line in answer.text, line


def test_ready_says_no_more_than_that(client: TestClient, operations: StoreOperations) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503 and answer.json()["status"] == "not ready"
    operations.receiving, operations.healthy = True, lambda: True
    assert client.get("/readyz").json() == {
        "status": "ready",
        "checks": {"database": True, "spool": True, "engine": True, "dicom": True},
    }
    root = operations.context.spool.root
    root.rename(root.with_name("gone"))
    root.write_text("a file where the folder was")
    assert client.get("/readyz").json()["checks"]["spool"] is False


def test_a_target_can_be_tried(client: TestClient, target: Target) -> None:
    assert client.post("/api/v1/notices/targets/ris/test", headers=SESAME).json() == {"target": "ris", "told": True}
    assert json.loads(target.requests[0][1])["event"] == "test"
    assert client.post("/api/v1/notices/targets/none/test", headers=SESAME).status_code == 404
    target.status = 500
    answer = client.post("/api/v1/notices/targets/ris/test", headers=SESAME)
    assert answer.status_code == 409 and answer.json()["code"] == "NOT_TOLD"
    assert client.get("/api/v1/notices", headers=SESAME).json()["items"] == []
    assert client.post("/api/v1/notices/N9/retry", headers=SESAME).status_code == 404


class Dripping(socketserver.ThreadingTCPServer):
    """A receiver that says something all the time, and never ends."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.start = b"HTTP/1.1 200 Fine\r\nX-Drip: "
        self.enough = threading.Event()
        self.asked = threading.Event()
        super().__init__(("127.0.0.1", 0), _Drip)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Drip(socketserver.BaseRequestHandler):
    server: Dripping

    def handle(self) -> None:
        self.server.asked.set()
        with contextlib.suppress(OSError):
            self.request.sendall(self.server.start)
            while not self.server.enough.wait(0.02):
                self.request.sendall(b"x")


@pytest.fixture
def dripping() -> Iterator[Dripping]:
    running = Dripping()
    yield running
    running.enough.set()
    running.shutdown()
    running.server_close()


def test_who_answers_byte_by_byte_is_cut_off(dripping: Dripping, told_settings: Settings) -> None:
    port = int(dripping.server_address[1])
    hook = told_settings.webhooks[0].model_copy(update={"url": f"http://127.0.0.1:{port}/"})
    with pytest.raises(notifying_ways.Away, match="no whole answer within"):
        notifying_ways.post(hook, {"notice": "N1", "event": "test"}, limit=Limit(0.2))
    dripping.start = b"220-"
    mail = told_settings.mail.model_copy(update={"port": port})
    with pytest.raises(notifying_ways.Away, match="no whole answer within"):
        document = {"notice": "N1", "event": "done"}
        notifying_ways.send(mail, told_settings.mails[0], document, settings=told_settings, limit=Limit(0.2))


def test_a_slow_receiver_keeps_nobody_else_waiting(
    operations: StoreOperations, dripping: Dripping, postbox: Postbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "SECONDS", 600.0)
    hook = operations.context.settings.webhooks[0]
    slow = hook.model_copy(update={"url": f"http://127.0.0.1:{dripping.server_address[1]}/"})
    notifying_ = Notifying(operations.context)
    monkeypatch.setitem(notifying_._hooks, "ris", slow)
    notifying_.tick()
    happen(operations, "FAILED", "FAILED")
    notifying_.tick()
    wait_for(dripping.asked.is_set, "the webhook to be asked")
    happen(operations, "FAILED")

    def all_are_told() -> bool:
        notifying_.tick()
        return len(postbox.messages) == 3

    wait_for(all_are_told, "the e-mails to be sent while the webhook drips")
    notifying_.stop()
    with operations.context.db.read() as session:
        waiting = session.query(Notice).filter(Notice.target == "ris", Notice.next_at.is_not(None)).count()
    assert waiting == 3, "what was cut off is told another time"
