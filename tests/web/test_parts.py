"""The page without a browser: values as people read them, errors, addresses without patients, streams, static files."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import anyio
import pytest
from starlette.testclient import TestClient

from config.settings import load
from jobs import pools as pool_work
from jobs import schedules as schedule_work
from service import opening
from service.api.application import build
from service.operations import StoreOperations
from service.shutdown import Stopping
from service.web import live, supplies
from service.web.live import MAX_STREAMS, Mark, Seen, _words
from service.web.make import Planning, Plannings, selection_of
from service.web.pages import environment
from service.web.routes import where
from service.web.shown import Shown, zone_of
from service.web.supplies import BurnerWatch, gauges
from service.web.texts import texts_of
from store import board, holds, pools, recalls, schedules
from store.board import Alarm
from store.models import Study
from store.models_archive import DiscCheck, PoolInstance, RecallInstance, ScheduleRun
from store.models_base import now
from store.models_jobs import Job, RequestInstance, Volume
from store.models_nodes import Event
from store.states import JOB_FINAL, JOB_PREPARING, DiscState, JobState
from tests.rows import add_disc, add_instance
from tests.waiting import wait_for

SETTLED = (JobState.BURNING, JobState.WAITING)
THIN = "\N{NARROW NO-BREAK SPACE}"
ENGLISH = Shown(texts_of("en"), ZoneInfo("Europe/Berlin"))
GERMAN = Shown(texts_of("de"), ZoneInfo("Europe/Berlin"))


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreOperations]:
    folder = tmp_path_factory.mktemp("parts")
    context = opening.open_context(load(data=folder / "data"))
    with context.db.begin() as session:
        add_instance(session, "1.1.1", patient_name="Secret^Sally", patient_id="SECRET-1", study="1.1", series="1.1.0")
        add_instance(session, "1.1.2", patient_name="Other^Otto", patient_id="OTHER-2", study="1.1", series="1.1.9")
        add_instance(session, "1.2.1", patient_name="Third^Theo", patient_id="THIRD-3", study="1.2", series="1.2.0")
    yield StoreOperations(context, source="api")
    opening.close_context(context)


@pytest.fixture(scope="module")
def client(operations: StoreOperations) -> TestClient:
    app = build(operations, token="sesame", hosts=("testserver",), stopping=Stopping())
    return TestClient(app, headers={"Authorization": "Bearer sesame"}, raise_server_exceptions=False)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (682_000_000, "682 MB"), (25e9, "25.0 GB")]
)
def test_sizes(count: float, text: str) -> None:
    assert ENGLISH.size(count).replace(THIN, " ") == text
    assert GERMAN.size(count).replace(THIN, " ") == text.replace(".", ",")


@pytest.mark.parametrize(
    ("name", "shown", "others"),
    [
        ("Doe^Jane^Alexandra^Dr.^", "Doe, Jane Alexandra", ""),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou", "山田 太郎 やまだ たろう"),
        ("=山田^太郎", "山田, 太郎", ""),
        ("^^^", "No name", ""),
        ("", "No name", ""),
    ],
)
def test_names(name: str, shown: str, others: str) -> None:
    assert ENGLISH.person(name) == shown
    assert ENGLISH.other_scripts(name) == others


def test_times_are_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(2025, 7, 1, 22, 30, tzinfo=UTC)
    assert ENGLISH.moment(at) == "2025-07-02 00:30"
    assert GERMAN.moment(at.isoformat()) == "02.07.2025 00:30"
    assert ENGLISH.iso(at) == "2025-07-02T00:30:00+02:00"
    assert ENGLISH.moment(datetime.now(UTC)).count(":") == 1
    assert ENGLISH.ago(datetime.now(UTC) - timedelta(minutes=3)) == "3 min ago"
    assert zone_of("No/Where") is UTC
    assert (ENGLISH.moment(None), ENGLISH.ago("")) == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (200, "3 min"), (3599, "1 h 0 min"), (7300, "2 h 2 min"), (400_000, "5 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert ENGLISH.duration(seconds) == text


def test_dates_of_dicom_are_shown_as_they_are_where_they_are_none() -> None:
    assert ENGLISH.dicom_date("20260131") == "2026-01-31"
    for text in ("20261399", "2026", "<b>", ""):
        assert ENGLISH.dicom_date(text) == text


def test_supplies_of_every_make() -> None:
    supplies = {
        "ink_percent": {"cyan": 70, "black": 3, "yellow": 0},
        "stackers": {"1": 0, "2": 40},
        "blanks": 3,
        "free_bytes": 5e9,
        "free_mb": 100,
        "printers": {"Everest": {"ribbon": "12 %"}},
        "maintenance_box_free": 90,
        "codes": ["HST3001"],
        "something_new": "yes",
    }
    found = {one.label: one for one in gauges(supplies, texts_of("en"), ENGLISH)}
    assert found["Ink cyan"].fraction == 0.7
    assert [found[name].kind for name in ("Ink cyan", "Ink black", "Ink yellow")] == ["", "warn", "bad"]
    assert found["Stacker 2"].text == "40"
    assert found["Everest"].text == "ribbon 12 %"
    assert found["something new"].text == "yes"


def test_devices_are_not_asked_while_a_page_waits() -> None:
    asked: list[int] = []

    def ask() -> list[dict[str, object]]:
        asked.append(1)
        return [{"name": f"b{len(asked)}"}]

    watch = BurnerWatch(ask)
    assert watch.now() == watch.now() == [{"name": "b1"}]
    watch._at -= 60
    assert watch.now() == [{"name": "b1"}]  # what was known; the devices are asked meanwhile
    wait_for(lambda: watch.now() == [{"name": "b2"}], "the devices to be asked")


def test_devices_that_hang_keep_no_page_waiting_and_are_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supplies, "_FIRST_SECONDS", 0.05)
    free = threading.Event()

    def ask() -> list[dict[str, object]]:
        free.wait(30)
        return []

    watch = BurnerWatch(ask)
    state = client.app.app.state  # type: ignore[attr-defined]
    before, state.burner_watch = state.burner_watch, watch
    try:
        assert "The burners have not answered for" in client.get("/", headers={"Accept-Language": "en"}).text
        free.set()
        wait_for(lambda: watch.silent() is None, "the devices to answer")
        assert "There is no burner" in client.get("/", headers={"Accept-Language": "en"}).text
    finally:
        state.burner_watch = before


def news(looks: list[Seen], count: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """So many pieces of a stream, each with what there was on the board; it looks ten times a second, and the last look
    is as all later ones.
    """
    time = Time()
    monkeypatch.setattr(live, "_SLEEP_SECONDS", 0.1)
    monkeypatch.setattr(live, "asyncio", SimpleNamespace(sleep=time.sleep))
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: time.now, time=lambda: time.now))
    begun = Mark.of(looks.pop(0))
    pulse = SimpleNamespace(look=lambda: looks.pop(0) if len(looks) > 1 else looks[0], alarms=lambda _after: [])
    state = SimpleNamespace(stopping=lambda: False)
    request = SimpleNamespace(app=SimpleNamespace(state=state), is_disconnected=not_gone)

    async def told() -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        async for piece in live._news(request, pulse, texts_of("en"), begun):  # type: ignore[arg-type]
            found.append((piece.partition("\n")[0], looks[0].board))
            if len(found) == count:
                break
        return found

    return anyio.run(told)


class Time:
    """Passes while somebody sleeps."""

    now = 1000.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_what_changed_between_a_page_and_its_stream_is_told(client: TestClient, operations: StoreOperations) -> None:
    asked = re.search(r'sse-connect="/live\?since=([^"]+)"', client.get("/jobs", headers={"Accept": "text/html"}).text)
    assert asked is not None
    mark = asked[1]
    before = Mark.of(client.app.app.state.pulse.look())  # type: ignore[attr-defined]
    assert live._place(mark, before, 60.0) in (before, replace(before, burners=mark.split(".")[2]))
    with operations.context.db.begin() as session:
        session.add(Event(at=now(), kind="job", new="DONE", detail={}))
    with operations.context.db.read() as session:
        event = board.last_event(session)
    stands = replace(before, board="0" * 12, event=event)
    assert live._place(mark, stands, 60.0) == replace(before, burners=mark.split(".")[2])  # so it is told of both
    assert live._place(mark, stands, -1.0) == replace(before, burners=mark.split(".")[2], event=event)  # calls no more
    for wrong in ("", "x", mark + "0" * 20, mark.replace(".", ",")):
        assert live._place(wrong, stands, 60.0) is None


def test_the_last_of_many_changes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_APART", {"board": 0.35, "received": 0.35, "burners": 0.35, "event": 0.35})
    looks = [Seen(0, 0, "", 1), Seen(1, 1, "", 1), Seen(2, 1, "", 1), Seen(3, 1, "", 1)]
    first, *others = news(looks, 4, monkeypatch)
    assert first[0] == "retry: 3000"
    assert sorted(name for name, _ in others) == ["event: board", "event: board", "event: received"]
    assert others[-1] == ("event: board", 3)  # those between were not told one by one, the last was


async def not_gone() -> bool:
    return False


def test_the_call_is_in_words() -> None:
    told = _words(Alarm(1, 7, "WAITING", "", "the ink is used up"), texts_of("en"))
    assert told == {"text": "J7 needs you. the ink is used up", "tag": "J7", "link": "/jobs/J7"}
    assert _words(Alarm(1, 7, "FAILED", "SPOILT", ""), texts_of("de"))["text"] == "J7 ist fehlgeschlagen. SPOILT"


def test_a_plan_that_is_begun_anew_gives_up_the_one_before() -> None:
    plannings = Plannings()
    given_up: list[bool] = []

    def work(planning: Planning) -> dict[str, object]:
        wait_for(lambda: planning.given_up, "it to be given up")
        given_up.append(True)
        return {}

    first = plannings.begin(work, "")
    second = plannings.begin(lambda _planning: {"plan": "P2"}, first.token)
    wait_for(lambda: given_up and second.plan == {"plan": "P2"}, "both to end")
    assert plannings.get(second.token) is second


def test_a_study_is_not_mixed_up_with_another_patients_of_the_same_uid(operations: StoreOperations) -> None:
    with operations.context.db.read() as session:
        keys = {row.patient_id: row.id for row in session.query(Study).filter_by(study_instance_uid="1.1")}
        first, third = next(iter(keys.values())), session.query(Study).filter_by(study_instance_uid="1.2").one().id
    found = selection_of(operations.context, [first])
    assert list(found) == ["instance"]
    assert len(found["instance"]) == 1
    assert selection_of(operations.context, [third]) == {"study": ["1.2"]}


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(operations: StoreOperations) -> None:
    """A job in every state, a disc in every condition, something at risk, a hold."""
    with operations.context.db.begin() as session:
        for number, state in enumerate(JobState, 1):
            instance = add_instance(session, f"1.7.{number}", study="1.7", series="1.7.1", in_spool=False)
            disc_state = list(DiscState)[number % len(DiscState)]
            disc = add_disc(session, [instance], state=disc_state if state in SETTLED else "VERIFIED")
            job = session.get_one(Job, disc.job_id)
            job.state, job.reason, job.error = state, "MCD_FAILURE" if state == "FAILED" else None, f"why {number}"
            job.finished_at = now() if state in JOB_FINAL else None
            session.add(RequestInstance(request_id=job.request_id, instance_id=instance.id))
            disc.checked_result, disc.checked_at = (None, "GOOD", "WORN", "DAMAGED")[number % 4], now()
            session.add(
                DiscCheck(
                    disc_id=disc.id,
                    at=now(),
                    result="WORN",
                    how="read",
                    sectors=9,
                    unreadable=2,
                    seconds=1.0,
                    detail={},
                )
            )
            volume = session.get_one(Volume, disc.volume_id)
            volume.good_copies, volume.wanted_copies = 0, 2
            if state in JOB_PREPARING:
                session.delete(disc)
        instance = add_instance(session, "1.7.99", study="1.7", series="1.7.1", in_spool=False)
        lost = add_disc(session, [instance])
        lost.marked, lost.marked_at, lost.checked_out_to, lost.checked_out_at = "LOST", now(), "Dr. Who", now()
        session.get_one(Volume, lost.volume_id).wanted_copies = 2
        holds.keep(session, ["1.7"], reason="<i>wanted</i>", by="maria")
        recall = recalls.add(session, [instance.id], source="cli", by="maria", selection={})
        session.query(RecallInstance).filter_by(recall_id=recall).update(
            {"state": "FAILED", "reason": "<i>scratched</i>"}
        )
        pool = pools.add(session, "long-term", pool_work.values_of(operations.context.settings, {}))
        session.flush()
        refused = {"added_at": now(), "schedule": None, "request_id": None, "refused": "<i>too large</i>"}
        session.add(PoolInstance(pool=pool.name, instance_id=instance.id, **refused))
        for number, (kind, result) in enumerate(RESULTS.items()):
            given = {"kind": kind, "trigger": {"cron": "0 22 * * *"}}
            row = schedules.add(
                session, f"a-{kind}", schedule_work.values_of(session, operations.context.settings, given), by="maria"
            )
            session.flush()
            at = {"fire_at": now(), "started_at": now(), "finished_at": now() + timedelta(seconds=number)}
            session.add(ScheduleRun(schedule=row.name, node="", result=result, **at))


@pytest.mark.parametrize("language", ["en", "de"])
def test_whatever_state_things_are_in_pages_show_it(client: TestClient, everything: None, language: str) -> None:
    paths = ["/", "/board/part", "/jobs", "/archive", "/archive/discs", "/archive/discs?show_only=flagged", "/studies"]
    paths += [f"/jobs/J{number}" for number in range(1, len(JobState) + 2)]
    paths += re.findall(r'href="(/archive/discs/D\d+)"', client.get("/archive/discs").text)
    paths += [
        "/archive/pools",
        "/archive/schedules",
        "/archive/recalls",
        "/nodes",
        "/system",
        "/system/health",
        "/system/audit",
    ]
    for path in paths:
        answer = client.get(path, headers={"Accept-Language": language})
        assert answer.status_code == 200, (path, answer.text[-600:])
        assert "<i>wanted</i>" not in answer.text
    archive = client.get("/archive", headers={"Accept-Language": "en"}).text
    assert "0 of 2 good copies" in archive
    assert "is on no good disc" in archive
    told = client.get("/archive/recalls", headers={"Accept-Language": "en"}).text
    assert "&lt;i&gt;scratched&lt;/i&gt;" in told  # which did not come, and why
    assert re.search(r'href="/studies/\d+"', told)  # of what it is
    assert "&lt;i&gt;too large&lt;/i&gt;" in client.get("/archive/pools").text
    told = client.get("/archive/schedules", headers={"Accept-Language": "de"}).text
    for words in ("2 Scheiben wurden gelesen", "1 abgenutzt oder beschädigt", "haben den Speicher verlassen", "J1</a>"):
        assert words in told


RESULTS = {
    "archive": {"instances": 7, "job": "J1"},
    "purge": {"instances": 2, "derived": 0, "bytes": 5_000_000, "kept": 1, "min_copies": 1, "studies": 1},
    "reverify": {"read": 2, "good": 1, "flagged": [{"disc": "D1"}], "insert": [{"disc": "D2"}], "due": 1},
}
"""What runs of schedules came to, by their kind."""


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("READ", "A_1: 3 instances are back. 1 could not be read"),
        ("NOT WANTED", "No recall needs it"),
        ("UNKNOWN", "The catalogue does not know it"),
        ("NOT A DISC", "cannot be read as a disc"),
        ("TAKEN OUT", "A_1 was taken out"),
    ],
)
def test_what_was_inserted_is_said_in_words(result: str, words: str) -> None:
    disc = {"file_set_id": "A_1", "says": "the disc A_1", "patients": [["<b>1", "Doe, Jane"]]}
    offer = {"result": result, "recognised": disc, "file_set_id": "A_1", "disc": "D1", "restored": 3, "failed": 1}
    offer |= {"too_few": {"file_set_id": "A_1"}, "asks": [{"words": "please insert B_2"}]}
    for language in ("en", "de"):
        told = environment().get_template("parts/inserted.html").render(t=texts_of(language), offer=offer)
        assert language == "de" or words in re.sub(r"\s+", " ", told)
        assert "<b>1" not in told


def test_what_a_purge_would_do_is_said_in_words(client: TestClient) -> None:
    given = {"name": "", "kind": "purge", "trigger": "every", "every": "1d", "timezone": "UTC", "enabled": "true"}
    told = client.post("/archive/schedule-preview", data=given, headers={"Accept-Language": "en"})
    assert told.status_code == 200
    assert "leave the spool" in told.text
    assert "dry_run" not in told.text


def test_static_files_are_what_the_package_has(client: TestClient) -> None:
    for path in ("/static/page.css", "/static/vendor/htmx.min.js", "/static/vendor/htmx.LICENSE.txt"):
        assert client.get(path).status_code == 200
    for path in ("/static/../pages.py", "/static/%2e%2e/pages.py", "/static//etc/passwd", "/static/none.css"):
        assert client.get(path).status_code == 404
    assert "immutable" in client.get("/static/page.css?v=x").headers["cache-control"]


def test_no_page_is_kept_and_none_names_a_patient_in_an_address(client: TestClient) -> None:
    answer = client.post("/studies/found", data={"text": "secret"})
    assert answer.status_code == 200
    assert "Secret, Sally" in answer.text
    assert "Otto" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    addresses = re.findall(r'(?:href|src|hx-get|hx-post|action)="([^"]*)"', client.get("/studies").text)
    assert [one for one in addresses if "secret" in one.lower()] == []


@pytest.mark.parametrize("path", ["/jobs/J999", "/jobs/<script>", "/studies/999", "/archive/discs/D999", "/nodes/none"])
def test_what_is_not_there_is_told_on_a_page(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert "That did not work" in answer.text
    assert "<script>" not in answer.text.replace("<script src", "")


def test_an_error_of_a_button_is_a_notice_with_advice(client: TestClient) -> None:
    answer = client.post("/nodes/none/echo", headers={"HX-Request": "true"})
    assert answer.status_code == 404
    assert answer.headers["hx-retarget"] == "#notices"
    assert "there is no node" in answer.text
    assert "choose again" in answer.text
    answer = client.post("/make/burn", headers={"HX-Request": "true"}, data={"plan": "P1"})
    assert answer.status_code == 422
    assert "burner" in answer.text


def test_german_is_spoken_to_germans(client: TestClient) -> None:
    answer = client.get("/jobs/J999", headers={"Accept-Language": "de-DE"})
    assert '<html lang="de"' in answer.text
    assert "Das hat nicht geklappt" in answer.text
    assert '<html lang="en"' in client.get("/jobs", headers={"Accept-Language": "fr"}).text


def test_pictures_that_cannot_be_are_no_errors_of_the_page(client: TestClient) -> None:
    assert client.get("/studies/1/thumbnail.png").status_code == 204
    answer = client.get("/images/1.png")
    assert answer.status_code == 404
    assert "is not in the spool" in answer.text
    assert client.get("/images/999.png").status_code == 404
    assert client.get("/images/1.png?frame=x").status_code == 422


def test_secrets_of_settings_are_not_shown(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.web.system import _plain

    assert _plain("oidc.client_secret", "hunter2") == "********"
    assert _plain("mail.password", "hunter2") == "********"
    assert _plain("http.host", "127.0.0.1") == "127.0.0.1"
    assert client.get("/system/settings").status_code == 200


def test_the_log_says_where_and_not_what(tmp_path: Path) -> None:
    try:
        raise ValueError("Secret^Sally")
    except ValueError as error:
        found = where(error)
    assert found.startswith(__file__)
    assert "Secret" not in found


def test_no_more_pages_listen_than_can_be_served(client: TestClient) -> None:
    pulse = client.app.app.state.pulse  # type: ignore[attr-defined]
    pulse.streams = MAX_STREAMS
    try:
        assert client.get("/live").status_code == 503
    finally:
        pulse.streams = 0


@pytest.mark.parametrize("path", ["/studies/{}", "/images/{}.png", "/archive/discs?after={}", "/jobs?before={}"])
def test_a_number_that_nothing_has_is_not_there(client: TestClient, path: str) -> None:
    assert client.get(path.format("9" * 25)).status_code == 404


@pytest.mark.parametrize("path", ["/make/plan/T", "/nodes/pacs/pull/T"])
def test_what_fails_while_its_page_is_made_is_told_by_the_next(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(Planning):
        """Its work fails after it was looked at."""

        looks = 0

        @property  # type: ignore[override]
        def trouble(self) -> tuple[str, str] | None:
            self.looks += 1
            return None if self.looks == 1 else ("REMOTE", "the node does not answer")

        @trouble.setter
        def trouble(self, value: object) -> None:
            pass

    planning = Fails("T")
    monkeypatch.setattr(Plannings, "get", lambda *_: planning)
    assert client.get(path).status_code == 200
    assert "the node does not answer" in client.get(path).text
