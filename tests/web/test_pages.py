"""Every page in both widths and themes: no fault that axe-core knows, nothing wider than the screen."""

from __future__ import annotations

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
    dark = browser.driver.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    browser.click("[data-language-choice=de]")
    browser.one("h1", "Studien")
    assert browser.driver.execute_script("return document.documentElement.lang") == "de"
    assert browser.driver.execute_script("return getComputedStyle(document.documentElement).backgroundColor") == dark
    assert dark == "rgb(15, 20, 27)"
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
        "/archive/schedules",
        "/archive/discs/D1",
        "/nodes",
    ):
        browser.go(path)
        browser.one("main")
        acting = browser.all(
            "main [hx-post]:not(#search-form):not(#search-form *):not(#received):not(.more *), main [data-study]"
        )
        assert [one.get_attribute("outerHTML")[:200] for one in acting] == [], path
    for path in ("/make?study=1", "/system/settings", "/system/audit", "/nodes/ourselves"):
        browser.go(path)
        browser.one("main", "this needs the right")
        browser.one("main", "Ask an administrator")


def test_the_keyboard_alone_is_enough(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.go("/studies")
    active = browser.driver.switch_to.active_element
    active.send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.get_attribute("class") == "skip"
    reached: list[str] = []
    for _ in range(40):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        element = browser.driver.switch_to.active_element
        if element.tag_name == "body":  # once around
            break
        outline = element.value_of_css_property("outline-style")
        assert outline != "none", element.get_attribute("outerHTML")[:200]
        reached.append(element.get_attribute("id") or element.get_attribute("data-study") or element.text)
    assert "search-text" in reached
    assert str(STUDIES) in reached  # the tick of a study
    box = browser.one(f"[data-study='{STUDIES}']")
    box.send_keys(Keys.SPACE)
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
    browser.one("#notices .notice.bad", "there is a node 'ourselves' already")
    browser.one("#notices .notice.bad", "try again")
    browser.click("#notices [data-dismiss]")
    browser.gone("#notices .notice")


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
        field = browser.one("#search-text")
        field.clear()
        field.send_keys(typed)
        browser.wait(lambda count=count: len(browser.all("#found .study")) == count, f"{count} of {typed}")
        browser.one("#found", name)
        assert typed not in browser.driver.current_url
    field.clear()
    field.send_keys("nobody at all")
    browser.one("#found .empty", "Nothing matches")


def test_looking_at_images(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.go("/studies/1")
    browser.one("#over-image", "Image 3 of 5")
    browser.one("#over-window", "C 50 W 350")
    picture = "return document.getElementById('canvas').toDataURL()"
    before = browser.driver.execute_script(picture)
    stage = browser.one("#stage")
    stage.send_keys(Keys.ARROW_DOWN)
    browser.one("#over-image", "Image 4 of 5")
    browser.wait(lambda: browser.driver.execute_script(picture) != before, "the next slice")
    before = browser.driver.execute_script(picture)
    browser.click("#preset option[value='-600,1500']")
    browser.one("#over-window", "C -600 W 1500")
    browser.wait(lambda: browser.driver.execute_script(picture) != before, "another window")
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser.driver).click_and_hold(stage).move_by_offset(60, 30).release().perform()
    browser.wait(lambda: "C -600 W 1500" not in browser.text("#over-window"), "a window by dragging")
    stage.send_keys("r")
    browser.one("#over-window", "C 50 W 350")
    browser.go("/studies/2")
    browser.one("#over-frame", "of 6")
    first = browser.text("#over-frame")
    browser.click("#play")
    browser.wait(lambda: browser.text("#over-frame") != first, "the frames to run")
    browser.click("#play")
    assert browser.errors() == []
