"""What comes in: forged requests, foreign hosts, paths and headers that are attacks; who may what on every route."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from config import roles
from config.settings import load
from service import checks
from service.api.access import Actor
from service.auth import MAX_BODY, PUBLIC_FOLDER, PUBLIC_PATHS, Guard
from service.http import fingerprint
from service.web.account import next_page
from store.models_users import User
from tests.authority import Authority
from tests.makers import Patient, study
from tests.service.door import LOCAL, PASSWORD, Door, Way, ways

# --- Rights on every route --------------------------------------------------------------------------------------------

_DESCRIPTION = "/api/v1/openapi.json"
"""Made by FastAPI itself; public."""


def all_ways(door: Door) -> list[Way]:
    return [way for way in ways(door.application) if way.path != _DESCRIPTION]


def test_every_route_and_page_names_its_right_or_is_for_everybody(door: Door) -> None:
    found = all_ways(door)
    assert len(found) > 80
    bare = [f"{way.method} {way.path}" for way in found if not way.rights and not way.public]
    assert bare == [], 'say dependencies=[needs("...")], or for_everybody'
    both = [f"{way.method} {way.path}" for way in found if way.rights and way.public]
    assert both == []


def test_what_is_for_everybody_is_what_the_guard_lets_pass(door: Door) -> None:
    public = {way.path for way in all_ways(door) if way.public}
    static = {path for path in public if path.startswith(PUBLIC_FOLDER)}
    assert public - static == PUBLIC_PATHS - {_DESCRIPTION}
    assert static == {"/static/{name:path}"}


def test_nobody_gets_anywhere_without_signing_in(door: Door) -> None:
    anybody = door.program("")
    for way in all_ways(door):
        if not way.public:
            status = anybody.request(way.method, way.filled).status_code
            assert status == 401, (way, status)


def test_each_role_is_refused_what_it_has_no_right_to(door: Door) -> None:
    """By a token with all that the role may, on each route and page; and by one that may nothing but say who it is."""
    programs = {}
    for role in roles.roles():
        door.user(role, role)
        programs[role] = door.program(door.token(role, role))
    nothing = door.program(door.token("administrator", "account.own"))
    refused = 0
    for way in all_ways(door):
        for role, program in programs.items():
            actor = Actor(role, role, "token", 1, (role,))
            may = all(actor.may(right) for right in way.rights)
            assert may == all(roles.has(role, right) for right in way.rights)
            if not may:
                refused += 1
                status = program.request(way.method, way.filled).status_code
                assert status == 403, (role, way, status)
        if way.rights and way.rights != ("account.own",):
            assert nothing.request(way.method, way.filled).status_code == 403, way
    assert refused > 80


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("viewer", ["GET /api/v1/studies", "GET /api/v1/jobs"], ["POST /api/v1/plans", "GET /api/v1/labels/P1"]),
        ("operator", ["POST /api/v1/plans", "POST /api/v1/jobs"], ["POST /api/v1/spool/purge", "POST /api/v1/nodes"]),
        ("archivist", ["POST /api/v1/spool/purge", "POST /api/v1/spool/delete"], ["GET /api/v1/users"]),
        ("administrator", ["GET /api/v1/users", "GET /api/v1/doctor", "POST /api/v1/nodes"], []),
    ],
)
def test_what_the_roles_are_for(door: Door, role: str, may: list[str], may_not: list[str]) -> None:
    door.user("x", role)
    browser = door.browser()
    browser.sign_in("x")
    headers = {"X-CSRF-Token": browser.csrf, "Accept": "application/json"}
    for one, refused in [(one, False) for one in may] + [(one, True) for one in may_not]:
        method, _, path = one.partition(" ")
        answer = browser.client.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert (answer.status_code == 403) is refused, (one, answer.text)
        assert answer.status_code != 401
        if refused:
            assert answer.json()["code"] == "NOT_ALLOWED" and f"x is {role}" in answer.json()["detail"]


# --- Forged requests --------------------------------------------------------------------------------------------------

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


FORGED: list[tuple[dict[str, str], int]] = [
    ({"X-CSRF-Token": "right"}, 422),
    ({"X-CSRF-Token": "right", "Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}, 422),
    ({}, 403),
    ({"X-CSRF-Token": ""}, 403),
    ({"X-CSRF-Token": "0" * 64}, 403),
    ({"X-CSRF-Token": "another session's"}, 403),
    ({"X-CSRF-Token": "right", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"X-CSRF-Token": "right", "Sec-Fetch-Site": "same-site"}, 403),
    ({"X-CSRF-Token": "right", "Sec-Fetch-Site": "none"}, 403),
    ({"X-CSRF-Token": "right", "Origin": "http://evil.example"}, 403),
    ({"X-CSRF-Token": "right", "Origin": "http://127.0.0.1.evil.example"}, 403),
    ({"X-CSRF-Token": "right", "Origin": "http://127.0.0.1:8080"}, 403),
    ({"X-CSRF-Token": "right", "Origin": "null"}, 403),
    ({"X-CSRF-Token": "right", "Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"X-CSRF-Token": "right", "Origin": "null", "Sec-Fetch-Site": "same-origin"}, 422),
    ({"X-CSRF-Token": "right", "Origin": ""}, 403),
    ({"X-CSRF-Token": "right", "Origin": "http://[evil"}, 403),
]


def test_what_a_session_changes_must_come_from_our_page(door: Door) -> None:
    for name in ("ann", "ben"):
        door.user(name, "administrator")
    browser, other = door.browser(), door.browser()
    browser.sign_in("ann")
    other.sign_in("ben")
    known = {"right": browser.csrf, "another session's": other.csrf}
    for headers, status in FORGED:
        given = {name: known.get(value, value) for name, value in headers.items()}
        answer = browser.client.post("/api/v1/users", json={}, headers={"Accept": JSON, **given})
        assert answer.status_code == status, (headers, answer.text)
        for method in ("PUT", "PATCH", "DELETE") if status == 403 else ():
            assert browser.client.request(method, "/api/v1/users/ben", headers=given).status_code == 403, headers
    assert len(door.program().get("/api/v1/users").json()["items"]) == 2


FORMS = [
    ("csrf=RIGHT&user=eve&role=viewer", FORM, 303),
    ("user=eve&role=viewer", FORM, 403),
    ("csrf=&user=eve&role=viewer", FORM, 403),
    ("csrf=wrong&csrf=RIGHT&user=eve&role=viewer", FORM, 403),
    ("csrf=RIGHT&user=eve&role=viewer", "text/plain", 403),
    ("csrf=RIGHT&user=eve&role=viewer", "multipart/form-data; boundary=csrf", 403),
    ("csrf=RIGHT&user=eve&role=viewer", "", 403),
    ("csrf=\xff\xfe&user=eve", FORM, 403),
    ("csrf=RIGHT" + "&a=b" * 2000, FORM, 403),
    ("csrf=RIGHT&user=" + "x" * MAX_BODY, FORM, 413),
]


def test_a_form_of_the_page_bears_the_sessions_token(door: Door) -> None:
    door.user("ann", "administrator")
    browser = door.browser()
    browser.sign_in("ann")
    for content, kind, status in reversed(FORMS):
        with door.context.db.read() as session:
            assert list(session.scalars(select(User.name))) == ["ann"]
        body = content.replace("RIGHT", browser.csrf).encode("latin-1")
        answer = browser.client.post("/users", content=body, headers={"Content-Type": kind} if kind else {})
        assert answer.status_code == status, (content[:60], kind)
    with door.context.db.read() as session:
        assert sorted(session.scalars(select(User.name))) == ["ann", "eve"]


def test_people_are_told_so_that_they_can_go_on(door: Door) -> None:
    """A form of a page that was open when the session ended, or when somebody signed in anew in another window."""
    door.user("ann", "viewer")
    browser = door.browser()
    browser.sign_in("ann")
    stale = browser.post("/logout", {"csrf": "0" * 64})
    assert stale.status_code == 403 and "load the page anew" in stale.text and 'href="/"' in stale.text
    assert browser.post("/logout", {"csrf": ""}, HX_Request="true").headers["hx-refresh"] == "true"
    browser.post("/logout")
    ended = browser.post("/account/password", {"old": "x"})
    assert (ended.status_code, ended.headers["location"]) == (303, "/login")
    part = browser.client.get("/board/part", headers={"HX-Request": "true", "HX-Current-URL": "http://x/jobs?a=b"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login?next=/jobs")
    odd = browser.client.get("/board/part", headers={"HX-Request": "true", "HX-Current-URL": "http://[::x"})
    assert odd.headers["hx-redirect"] == "/login"
    assert browser.client.post("/api/v1/jobs", json={}).json()["status"] == 401


def test_programs_need_no_such_token(door: Door) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "http://elsewhere.example"}
    body = {"user": "ris", "role": "operator"}
    assert door.program().post("/api/v1/users", json=body, headers=headers).status_code == 201
    no_token = door.program("").post("/api/v1/setup", json={}, headers=headers)
    assert no_token.status_code == 403 and no_token.json()["code"] == "FOREIGN_ORIGIN"


def test_uploads_by_a_session_bear_the_token_in_a_header(door: Door) -> None:
    door.user("ann", "operator")
    browser = door.browser()
    browser.sign_in("ann")
    assert browser.client.post("/api/v1/instances", content=b"no DICOM").status_code == 403
    answer = browser.client.post("/api/v1/instances", content=b"no DICOM", headers={"X-CSRF-Token": browser.csrf})
    assert answer.status_code in (409, 422) and answer.json()["code"] != "CSRF"


def test_reading_takes_no_token_and_links_from_elsewhere_lead_in(door: Door) -> None:
    """SameSite=Strict keeps the cookie back where another site's link leads here; a page of ours asks again."""
    door.user("ann", "viewer")
    browser = door.browser()
    browser.sign_in("ann")
    fresh = door.browser()
    answer = fresh.client.get("/account", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert answer.status_code == 200 and 'content="0; url=/account"' in answer.text
    assert fresh.client.get("/account", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
    hostile = fresh.client.get('/"><script>alert(1)</script>', headers={"Sec-Fetch-Site": "cross-site"})
    assert "<script" not in hostile.text
    for path in ("//evil.example/x", "/\\evil.example"):
        _, _, body = raw(door.app, path, accept="text/html", extra=[(b"sec-fetch-site", b"cross-site")])
        assert b'content="0; url=/evil.example' in body, "never another site"


# --- Headers, hosts, paths --------------------------------------------------------------------------------------------


def test_every_answer_tells_browsers_what_they_may(door: Door) -> None:
    for path in ("/login", "/healthz", "/api/v1/studies", "/static/page.css", "/nowhere", "/setup"):
        for token in ("", LOCAL):
            _is_hardened(door.program(token).get(path))


def _is_hardened(answer: Any) -> None:
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == policy["connect-src"] == "'self'"
    assert not any("unsafe" in value or "*" in value or "http" in value for value in policy.values())
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == answer.headers["cross-origin-opener-policy"]
    assert answer.headers["cache-control"] and "server" not in answer.headers
    assert "strict-transport-security" not in answer.headers and "access-control-allow-origin" not in answer.headers


def test_pages_have_no_inline_script_or_style(door: Door) -> None:
    import re

    door.user("ann", "administrator")
    browser = door.browser()
    pages = [browser.get("/login").text]
    browser.sign_in("ann")
    pages += [browser.get(path).text for path in ("/account", "/users")]
    for text in pages:
        assert "<style" not in text and not re.search(r"<[^>]*\s(style|on[a-z]+)\s*=", text)
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
        assert not re.search(r"""(src|href|action)=["'](https?:)?//""", text)


def test_static_files_are_those_that_there_are(door: Door) -> None:
    """As raw as they come: no client of ours may tidy the path up."""
    for name in (
        "../pages.py", "..%2fpages.py", "%2e%2e/pages.py", "....//pages.py", "/etc/passwd", "%2fetc%2fpasswd",
        "..\\pages.py", "page.css%00.py", "vendor/../../pages.py", "",
    ):  # fmt: skip
        status, _, body = raw(door.app, f"/static/{name}")
        assert status in (404, 303, 401, 405), name
        assert b"import" not in body and b"root:" not in body, name


def test_paths_that_are_attacks_find_nothing(door: Door) -> None:
    for path in (
        "/api/v1/labels/..%2f..%2fetc%2fpasswd",
        "/api/v1/jobs/..%2f..%2fsetup-code",
        "/api/v1/labels/J1/..%2fcli.token",
        "/api/v1/plans/%00",
        "/api/v1/users/..%2fcli.token",
        "/api/v1/nodes/x%0d%0aX-Injected:%201/echo",
        "/api/v1/tokens/1%20OR%201=1",
        "/api/v1/users/x'%20OR%20'1'='1",
    ):
        status, headers, body = raw(door.app, path, token=LOCAL)
        assert 400 <= status < 500 and b"Traceback" not in body, path
        assert b"x-injected" not in headers, path
    assert (door.context.settings.data / "burnish.db").exists()


def test_no_header_is_made_of_what_was_asked(door: Door) -> None:
    for path in ("/x%0d%0aSet-Cookie:%20a=b", "/%0aLocation:%20//evil", "/\u2028x", "//evil.example"):
        status, headers, _ = raw(door.app, path, accept="text/html")
        assert status == 303 and b"set-cookie" not in headers, path
        location = headers[b"location"].decode("ascii")
        assert location.startswith("/login?next=/") and not set(location) & set("\r\n"), path
    assert next_page("//evil.example") == "/"


def raw(
    app: Guard, path: str, *, token: str = "", accept: str = "*/*", client: str = "10.0.0.9", extra: Any = ()
) -> tuple[int, dict[bytes, bytes], bytes]:
    """A GET as a server would hand it over, its path only decoded."""
    from urllib.parse import unquote

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"accept", accept.encode()), *extra]
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": unquote(path, errors="replace"), "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": headers, "client": (client, 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


@pytest.mark.parametrize(
    ("client", "headers", "address", "scheme"),
    [
        ("10.0.0.2", {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}, "203.0.113.9", "https"),
        ("10.0.0.2", {"x-forwarded-for": "6.6.6.6, 203.0.113.9"}, "203.0.113.9", "http"),
        ("10.0.0.2", {"x-forwarded-for": "203.0.113.9, 10.0.0.3"}, "203.0.113.9", "http"),
        ("10.0.0.2", {"x-forwarded-for": "nonsense, 203.0.113.9, unknown"}, "10.0.0.2", "http"),
        ("10.0.0.2", {"x-forwarded-proto": "gopher"}, "10.0.0.2", "http"),
        ("192.0.2.1", {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}, "192.0.2.1", "http"),
        ("192.0.2.1", {"forwarded": "for=203.0.113.9"}, "192.0.2.1", "http"),
    ],
)
def test_only_a_proxy_of_ours_says_for_whom_it_asks(
    client: str, headers: dict[str, str], address: str, scheme: str
) -> None:
    seen: list[tuple[str, str]] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.append((scope["client"][0], scope["scheme"]))
        assert scope["state"]["actor"].address == address
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = Guard(app, token=LOCAL, hosts=(), proxies=["10.0.0.2", "10.0.0.3"])
    extra = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw(guard, "/x", token=LOCAL, client=client, extra=extra)
    assert seen == [(address, scheme)]


# --- Nothing of a patient in addresses and logs -----------------------------------------------------------------------


def test_what_was_searched_for_is_in_no_address_and_no_log(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    answer = door.browser().get("/studies?patient_name=Doe%5EJane")
    assert answer.headers["location"] == "/login?next=/studies"
    for path in ("/api/v1/studies/Doe%5EJane", "/api/v1/users/Doe%5EJane", "/login?next=/Doe%5EJane"):
        door.program().get(path)
    door.browser().sign_in("Doe^Jane", "a password 4711")
    out, err = capfd.readouterr()
    assert "Doe" not in out + err and "4711" not in out + err


def test_the_audit_trail_hears_of_it(door: Door) -> None:
    door.user("ann", "viewer")
    browser = door.browser()
    browser.sign_in("ann", "wrong")
    browser.sign_in("nobody", "wrong")
    browser.sign_in("ann")
    browser.post("/logout")
    door.program().patch("/api/v1/users/ann", json={"role": "operator"})
    found = [one for one in door.program().get("/api/v1/audit").json()["items"] if one["event"] != "used"]
    told = [(one["event"], str(one["outcome"]) == "0", one["user"]) for one in reversed(found)]
    assert told == [
        ("authentication", False, "ann"),
        ("authentication", False, "(no such user)"),
        ("authentication", True, "ann"),
        ("authentication", True, "ann"),
        ("alert", True, "cli"),
    ]
    assert PASSWORD not in json.dumps(found) and "wrong name or password" in json.dumps(found)


# --- Listening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "wrong"),
    [
        ({}, ""),
        ({"host": "::1"}, ""),
        ({"host": "localhost"}, ""),
        ({"host": "0.0.0.0"}, "http.host: 0.0.0.0 is reached from elsewhere"),
        ({"host": ""}, "http.host: every address is reached"),
        ({"host": "10.0.0.1"}, "http.behind_proxy"),
        ({"host": "burnish.example"}, "http.behind_proxy"),
        ({"host": "0.0.0.0", "behind_proxy": True}, "http.trusted_proxies"),
        ({"host": "0.0.0.0", "behind_proxy": True, "trusted_proxies": ["10.0.0.2"]}, ""),
        ({"host": "0.0.0.0", "certificate": "missing.pem"}, "missing.pem"),
        ({"host": "0.0.0.0", "certificate": "us.pem", "key": "us.key"}, ""),
        ({"host": "0.0.0.0", "certificate": "us.pem", "key": "open.key"}, "may be read by others"),
    ],
)
def test_nothing_listens_elsewhere_without_tls(data: Path, http: dict[str, Any], wrong: str) -> None:
    pair = Authority(data).issue("us")
    (data / "open.key").write_bytes(pair.key.read_bytes())
    (data / "open.key").chmod(0o644)
    found = checks.wrong_settings(load(data=data, overrides={"http": http}))
    assert (found == []) if not wrong else (len(found) == 1 and wrong in found[0])


def test_a_certificate_is_known_by_its_digest(data: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    pair = Authority(data).issue("us")
    both = data / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    both.chmod(0o600)
    expected = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    assert fingerprint(load(data=data, overrides={"http": {"certificate": "both.pem"}})) == expected
    assert fingerprint(load(data=data)) == ""


# --- What is read on the service's own machine ------------------------------------------------------------------------


def test_only_media_are_read_for_people_and_programs(door: Door, tmp_path: Path) -> None:
    """A path that somebody names over the network tells nothing of what else lies there, and brings none in."""
    door.user("ann", "administrator")
    token = door.program(door.token("ann", "administrator"))
    discs = door.context.settings.data / "discs"
    discs.mkdir()
    (discs / "way-out").symlink_to(tmp_path)
    (tmp_path / "secret").mkdir()
    for path, status in (
        ("/etc/passwd", 403), ("/etc/nothing-here", 403), (str(tmp_path / "secret"), 403), ("/dev/zero", 403),
        ("/dev/../etc/passwd", 403), (f"{discs}/../burnish.db", 403), (f"{discs}/way-out/secret", 403),
        ("/dev/stdin", 403), ("/", 403), ("/mediaeval/x", 403), ("relative", 422), ("/media/\0", 422),
    ):  # fmt: skip
        answer = token.post("/api/v1/recalls/insert", json={"path": path})
        assert answer.status_code == status, (path, answer.text)
        assert token.post("/api/v1/catalogue/rebuild", json={"paths": [path]}).status_code == status, path
    for path in (str(discs), f"{discs}/none.iso", "/media/none"):
        assert token.post("/api/v1/recalls/insert", json={"path": path}).status_code not in (403, 500), path
    local = door.program().post("/api/v1/recalls/insert", json={"path": str(tmp_path / "secret")})
    assert local.status_code not in (403, 500), "the command line reads anywhere"


# --- What comes in by DICOM -------------------------------------------------------------------------------------------


def test_hostile_text_of_instances_is_text_on_every_page(door: Door) -> None:
    """Names and descriptions that are HTML, SQL, templates and paths: shown as they are, done nothing of."""
    html, sql = '"><script>alert(1)</script><img src=x>', "'; DROP TABLE user_account;--"
    patient = Patient(patient_id=f"../../etc/{sql}"[:60], name=f"{html}^{{{{7*7}}}}")
    for one in study("CT", 2, seed=1, patient=patient, StudyDescription=html, SeriesDescription=html, StudyID=sql[:16]):
        assert door.program().post("/api/v1/instances", content=one.part10()).status_code == 200
    job = door.program().post("/api/v1/jobs", json={"selection": {"all": True}, "options": {"label_text": html}})
    assert job.status_code == 201, job.text
    door.user("ann", "administrator")
    browser = door.browser()
    browser.sign_in("ann")
    shown = 0
    for way in all_ways(door):
        if way.method != "GET" or way.path in ("/live", "/api/v1/events") or way.path.startswith(PUBLIC_FOLDER):
            continue
        answer = browser.client.get(way.filled, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code < 500 or answer.status_code == 503, way
        kind = answer.headers.get("content-type", "")
        if "html" in kind or not kind:
            assert "<script>alert" not in answer.text and "<img src=x" not in answer.text, way
            shown += "&lt;script&gt;alert(1)" in answer.text
    found = browser.client.post(
        "/studies/found", data={"csrf": browser.csrf, "text": sql}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert found.status_code < 500 and "<script>alert" not in found.text
    assert shown >= 3 and browser.who() == "ann"
