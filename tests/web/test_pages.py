"""Every page in both widths and themes: no fault that axe-core knows, nothing wider than the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.conftest import STUDIES
from tests.web.site import PASSWORD, THEMES, WIDTHS, Browser, Site

pytestmark = pytest.mark.peer("chromium", "chromedriver")

PAGES = {
    "board": "/",
    "jobs": "/jobs",
    "job": "/jobs/J1",
    "studies": "/studies",
    "study": "/studies/1",
    "make": "/make?study=1&study=4",
    "archive": "/archive",
    "pools": "/archive/pools",
    "pool": "/archive/pools/long-term",
    "schedule": "/archive/new-schedule",
    "schedules": "/archive/schedules",
    "discs": "/archive/discs",
    "disc": "/archive/discs/D1",
    "recalls": "/archive/recalls",
    "nodes": "/nodes",
    "node": "/nodes/ourselves",
    "system": "/system",
    "health": "/system/health",
    "settings": "/system/settings",
    "audit": "/system/audit",
    "missing": "/archive/discs/D999",
}


@pytest.fixture(scope="module", autouse=True)
def filled(site: Site) -> None:
    """A job that is done, a node, a pool and a schedule."""
    from jobs import pools as pool_work
    from jobs import schedules as schedule_work
    from store import pools, schedules
    from tests.makers import uid

    operations, settings = site.operations, site.settings
    port = site.ready["dicom"]["port"]
    operations.add_node(
        {"name": "ourselves", "ae_title": "BURNISH", "host": "127.0.0.1", "port": port, "retrieve": "get", "tls": False}
    )
    job = operations.burn(selection={"study": [uid("study", 1)]}, plan=None, options={"burner": "iso"})
    with site.db.begin() as session:
        pools.add(session, "long-term", pool_work.values_of(settings, {"kind": "archive", "shelves": ["A/3"]}))
        given = {"trigger": {"cron": "0 22 * * *"}, "pool": "long-term", "timezone": "Europe/Berlin"}
        schedules.add(session, "nightly", schedule_work.values_of(session, settings, given))
    site.wait_for_job(job["job"], "DONE")


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_fit_for_all(browser: Browser, name: str) -> None:
    browser.go(PAGES[name])
    if name == "make":
        browser.one("#burn")
    if name == "study":
        browser.one("#over-image", "5")
    found: dict[str, object] = {}
    for theme in THEMES:
        browser.theme(theme)
        for width, pixels in WIDTHS.items():
            browser.resize(pixels)
            # Themes differ in colours alone; widths in what is shown where.
            if faults := browser.axe(*(["color-contrast"] if theme == "dark" else [])):
                found[f"{theme} {width}"] = faults
            if (wider := browser.overflow()) > 0:
                found[f"{theme} {width} wider"] = wider
    assert found == {}
    expected = ["404"] if name == "missing" else []
    assert [one for one in browser.errors() if not any(word in one for word in expected)] == []


def test_a_theme_and_a_language_can_be_chosen_and_stay(browser: Browser) -> None:
    browser.go("/studies")
    browser.click("#own-menu summary")
    browser.click("[data-theme-choice=dark]")

    def is_dark() -> bool:
        ground = "return getComputedStyle(document.documentElement).backgroundColor"
        return bool(browser.script(ground) == "rgb(15, 20, 27)")

    browser.wait(is_dark, "the dark theme")
    browser.click("[data-language-choice=de]")
    browser.one("h1", "Studien")
    browser.wait(lambda: browser.script("return document.documentElement.lang") == "de", "German")
    browser.wait(is_dark, "the dark theme again")
    browser.driver.delete_cookie("burnish_language")
    browser.driver.delete_cookie("burnish_theme")


def test_what_a_patient_is_called_is_only_text(browser: Browser) -> None:
    for path in ("/studies", "/studies/4", "/make?study=4"):
        browser.go(path)
        browser.one("main", "<script>document.title</script>")
        assert browser.all("main script, main b") == []


def test_viewers_see_no_button_that_acts(browser: Browser, secrets: dict[str, str]) -> None:
    browser.driver.delete_all_cookies()
    browser.sign_in_by_cookie(secrets["viewer"])
    for path in (
        "/",
        "/jobs/J1",
        "/studies",
        "/studies/1",
        "/archive",
        "/archive/pools",
        "/archive/schedules",
        "/archive/discs/D1",
        "/nodes",
    ):
        browser.go(path)
        browser.one("main")
        acting = "main [hx-post]:not(#search-form):not(#search-form *):not(#received):not(.more *), main [data-study]"
        assert browser.script(f"return [...document.querySelectorAll('{acting}')].map(one => one.outerHTML)") == [], (
            path
        )
    for path in ("/make?study=1", "/system/settings", "/system/audit", "/nodes/ourselves", "/archive/new-pool"):
        browser.go(path)
        browser.one("main", "this needs the right")
        browser.one("main", "Ask an administrator")


def test_the_keyboard_alone_is_enough(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.go("/studies")
    active = (
        "const it = document.activeElement; return [it.tagName, it.className, getComputedStyle(it).outlineStyle,"
        " it.id || it.dataset.study || it.innerText, it.outerHTML.slice(0, 200)]"
    )
    browser.press(Keys.TAB)
    assert browser.script(active)[1] == "skip"
    reached: list[str] = []
    for _ in range(120):
        browser.press(Keys.TAB)
        tag, _classes, outline, name, shown = browser.script(active)
        if tag == "BODY":  # once around
            break
        assert outline != "none", shown
        reached.append(name)
    assert "search-text" in reached
    assert str(STUDIES) in reached  # the tick of a study
    browser.type(f"[data-study='{STUDIES}']", Keys.SPACE)
    browser.one("#chosen-count", "1 study chosen")
    browser.type("#selection button.primary", Keys.ENTER)
    browser.one("#burn")


def test_signing_in_by_the_page(browser: Browser) -> None:
    browser.driver.delete_all_cookies()
    browser.go("/studies")
    browser.one("form input[name=password]")
    assert browser.axe() == []
    browser.type("input[name=user]", "operator")
    browser.type("input[name=password]", PASSWORD)
    browser.click("form button.primary")
    browser.one("h1", "Studies")


def test_an_error_says_what_to_do(browser: Browser) -> None:
    browser.go("/nodes")
    browser.click("[data-open-dialog=add-node]")
    for field, value in (("node-name", "ourselves"), ("node-ae", "X"), ("node-host", "127.0.0.1")):
        browser.type(f"#{field}", value)
    browser.click("#add-node button.primary")
    browser.one("#add-node .notice.bad", "There is a node “ourselves” already")  # beside the form, which stays as it is
    browser.one("#add-node .notice.bad", "try again")
    assert browser.value("#node-host") == "127.0.0.1"
    browser.click("#add-node .notice [data-dismiss]")
    browser.gone("#add-node .notice")
    browser.click("#add-node [data-close-dialog]")


def test_a_pool_and_a_schedule_are_made_by_their_forms(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.go("/archive/new-pool")
    browser.type("#f-copies", Keys.ARROW_UP)
    browser.type("#f-shelves", "A/3\nvault\nroof")
    browser.type("#f-name", "yearly.1", Keys.ENTER)
    browser.one("[role=alert]", "more shelves than copies: at most 2")  # beside the form, with all that was typed
    browser.clear("#f-shelves")
    browser.type("#f-name", Keys.ENTER)
    browser.one("[id='pool-yearly.1']", "2 made, 2 must be good")
    browser.go("/archive/new-schedule")
    browser.type("#f-name", "weekly.1")
    browser.click("#f-pool option[value='yearly.1']")
    browser.click("#try-it")
    browser.one("#schedule-preview", "It would fire next")
    browser.click("#schedule-form button.primary")
    browser.click("[id='preview-weekly.1']")
    browser.one("[id='preview-of-weekly.1']", "If it ran now")
    browser.click("[id='switch-weekly.1']")
    browser.one("[id='schedule-weekly.1'] .badge.wait", "Off")
    browser.one("[id='preview-of-weekly.1']", "If it ran now")  # it is as open as before
    assert [one for one in browser.errors() if "422" not in one] == []


def test_a_node_is_asked_and_studies_are_fetched(browser: Browser) -> None:
    browser.go("/nodes")
    browser.click("button[id^=echo]")
    browser.one("#notices", "ourselves answered in")
    browser.one(".badge.ok", "Answers")
    browser.go("/nodes/ourselves")
    browser.type("#q-name", "yamada*")
    browser.click("form button.primary")
    browser.one("#matches", "NH-20011")
    browser.click("#matches input[name=study]")
    browser.click("#matches button.primary")
    browser.one("#pulled .badge.ok", "1 instance is here")


def test_search_as_you_type(browser: Browser) -> None:
    browser.go("/studies")
    for typed, name, count in (
        ("山田", "Yamada", 1),
        ("äneas", "Äneas", 2),
        ("NH-2", "Yamada", 1),
        ("acc000004", "Jane", 1),
    ):
        browser.clear("#search-text")
        browser.type("#search-text", typed)
        browser.wait(lambda count=count: len(browser.all("#found .study")) == count, f"{count} of {typed}")
        browser.one("#found", name)
        assert typed not in browser.driver.current_url
    browser.clear("#search-text")
    browser.type("#search-text", "nobody at all")
    browser.one("#found .empty", "Nothing matches")


def test_looking_at_images(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.go("/studies/1")
    browser.one("#over-image", "Image 3 of 5")
    browser.one("#over-window", "C 50 W 350")
    picture = "return document.getElementById('canvas').toDataURL()"
    before = browser.driver.execute_script(picture)
    browser.type("#stage", Keys.ARROW_DOWN)
    browser.one("#over-image", "Image 4 of 5")
    browser.wait(lambda: browser.driver.execute_script(picture) != before, "the next slice")
    before = browser.driver.execute_script(picture)
    browser.click("#preset option[value='-600,1500']")
    browser.one("#over-window", "C -600 W 1500")
    browser.wait(lambda: browser.driver.execute_script(picture) != before, "another window")
    browser.drag("#stage", 60, 30)
    browser.wait(lambda: "C -600 W 1500" not in browser.text("#over-window"), "a window by dragging")
    browser.type("#stage", "r")
    browser.one("#over-window", "C 50 W 350")
    browser.go("/studies/2")
    browser.one("#over-frame", "of 6")
    first = browser.text("#over-frame")
    browser.click("#play")
    browser.wait(lambda: browser.text("#over-frame") != first, "the frames to run")
    browser.click("#play")
    assert browser.errors() == []


# -- a page that stays open --------------------------------------------------------------------------------------------

_STUB = """
window.asked = 0; window.notes = [];
window.Notification = class {
  constructor(title, options) { window.notes.push(title + ': ' + options.body); }
  addEventListener() {}
  static permission = 'default';
  static async requestPermission() { window.asked += 1; this.permission = 'granted'; return 'granted'; }
};
"""


def script(browser: Browser, text: str) -> Any:
    return browser.driver.execute_script(text)


def add_job(site: Site, key: str, error: str) -> int:
    """A job that has just failed."""
    from store.models_base import now
    from store.models_jobs import Job, RequestInstance
    from store.models_nodes import Event
    from tests.rows import add_disc, add_instance

    with site.db.begin() as session:
        instance = add_instance(session, f"1.9.{key}", study=f"1.9.{key}", patient_name=f"Live{key}^L")
        disc = add_disc(session, [instance], state="FAILED")
        job = session.get_one(Job, disc.job_id)
        job.state, job.finished_at, job.error, job.reason = "FAILED", now(), error, "MCD_FAILURE"
        session.add(RequestInstance(request_id=job.request_id, instance_id=instance.id))
        session.add(Event(at=now(), kind="job", job_id=job.id, old=None, new="FAILED", detail={}))
        return job.id


def dismissed(site: Site, *jobs: int) -> None:
    from jobs import mending

    for job in jobs:
        mending.dismiss(site.operations.context, job, by="test")


@pytest.fixture
def stubbed(browser: Browser) -> Iterator[Browser]:
    """With something that looks like the browser's notifications."""
    known = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _STUB})
    yield browser
    browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", known)
    script(browser, "localStorage.clear()")


def test_whoever_types_or_points_is_not_disturbed_by_a_live_update(browser: Browser, site: Site) -> None:
    from jobs import recalls
    from tests.rows import add_disc, add_instance

    with site.db.begin() as session:
        wanted = add_instance(session, "1.8.1", study="1.8.1", in_spool=False)
        disc = add_disc(session, [wanted]).id
        session.flush()
        ids = [wanted.id]
    recalls.begin(site.operations.context, ids, source="api", by="test", selection={})
    browser.go("/")
    browser.type(f"#path-D{disc}", "/srv/half a pa")
    script(
        browser,
        f"window.button = document.querySelector('#ask-D{disc} button');"
        f"getSelection().selectAllChildren(document.querySelector('#ask-D{disc} .job-facts'));"
        "window.marked = String(getSelection());"
        f"const field = document.querySelector('#path-D{disc}'); field.focus(); field.setSelectionRange(4, 6)",
    )
    job = add_job(site, "1", "the first")
    browser.one(f"#J{job}", "the first")
    assert script(browser, "return button.isConnected")
    assert script(browser, "const it = document.activeElement; return [it.id, it.value, it.selectionStart]") == [
        f"path-D{disc}",
        "/srv/half a pa",
        4,
    ]
    dismissed(site, job)
    browser.gone(f"#J{job}")
    assert script(browser, "return document.activeElement.value") == "/srv/half a pa"
    recalls.refuse(site.operations.context, 1, reason="", by="test")
    browser.gone(f"#ask-D{disc}")


def test_a_call_is_made_only_where_it_was_asked_for(stubbed: Browser, site: Site) -> None:
    stubbed.go("/")
    stubbed.wait(lambda: script(stubbed, "return document.querySelector('#alerts') && window.htmx"), "the page")
    first = add_job(site, "2", "unheard")
    told = "return document.body.dataset.lastAttention || ''"
    stubbed.wait(lambda: f"J{first} has failed" in script(stubbed, told), "the call")
    assert script(stubbed, "return [asked, notes.length]") == [0, 0]
    stubbed.click("#alerts")
    stubbed.wait(lambda: script(stubbed, "return asked") == 1, "the question")
    second = add_job(site, "3", "spoilt")
    stubbed.wait(lambda: script(stubbed, "return notes.length"), "the call")
    assert script(stubbed, "return notes") == [f"Burnish: J{second} has failed. The disc could not be made"]
    dismissed(site, first, second)


def test_a_session_that_ends_is_told_and_what_is_typed_stays(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.api import access
    from store import sessions

    monkeypatch.setattr(access, "LOOK_AGAIN_SECONDS", 0.0)
    secret = site.user("leaving", "operator")
    browser.driver.delete_all_cookies()
    browser.sign_in_by_cookie(secret)
    browser.go("/nodes/ourselves")
    browser.type("#q-name", "half a na")
    with site.db.begin() as session:
        sessions.end(session, secret)
    job = add_job(site, "4", "whatever")  # the stream looks again who listens
    browser.one("#connection a", "You are signed out")
    assert browser.value("#q-name") == "half a na"
    browser.click("#connection a")
    browser.one("input[name=password]")
    assert "next=%2Fnodes%2Fourselves" in browser.driver.current_url
    dismissed(site, job)
    browser.errors()
