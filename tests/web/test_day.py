"""The operator's day: a study comes over DICOM, is planned, burnt on a robot that runs out of ink, found, recalled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE

from tests.web import phantoms
from tests.web.site import Browser, Site, browsing, noon

pytestmark = pytest.mark.peer("chromium", "chromedriver")
PATIENT = {"id": "DAY-1", "name": "Morgenstern^Paula", "date": "20261121"}


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Site]:
    site = Site(
        tmp_path,
        robots={"publisher": {"make": "epson", "faults": ["out-of-ink"], "speed": 60.0}},
        more="[retention]\ncount_robots = true\n",
        zone=noon(),
    )
    # Nobody fills up the ink before the test does.
    site.robots["publisher"].robot.refill_seconds = 1e9  # type: ignore[misc]
    yield site
    site.close()


def send(site: Site, folder: Path) -> None:
    """As a modality does."""
    entity = AE("CT_ROOM_1")
    entity.add_requested_context(phantoms.CT, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", site.ready["dicom"]["port"], ae_title="BURNISH")
    assert association.is_established
    for path in phantoms.write(folder, phantoms.ct(7, PATIENT, count=4, size=96)):
        assert association.send_c_store(path).Status == 0x0000
    association.release()


def test_the_operators_day(day: Site, tmp_path: Path) -> None:
    secret = day.user("olga", "operator")
    with browsing(day) as browser:
        browser.sign_in_by_cookie(secret)
        arrives(day, browser, tmp_path)
        is_planned_and_ordered(browser)
        runs_out_of_ink(day, browser)
        is_found_in_the_archive(day, browser)
        is_recalled(day, browser)
        assert browser.errors() == []


def arrives(site: Site, browser: Browser, folder: Path) -> None:
    browser.go("/studies")
    browser.one(".empty", "Nothing was received yet")
    send(site, folder / "sent")
    browser.one(".study", "Morgenstern, Paula")  # without reloading
    picture = "return (document.querySelector('.study img') || {}).naturalWidth"
    browser.wait(lambda: (browser.driver.execute_script(picture) or 0) > 50, "the thumbnail")
    browser.one(".study .badge", "Not on disc")


def is_planned_and_ordered(browser: Browser) -> None:
    browser.click("[data-study]")
    browser.one("#selection", "1 study chosen")
    browser.click("#selection button.primary")
    browser.one("#plan", "1 disc is needed")
    browser.one("#plan", "DAY-1")
    label = "return (document.querySelector('.label-picture img') || {}).naturalWidth"
    browser.wait(lambda: (browser.driver.execute_script(label) or 0) > 100, "the label")
    first = browser.text("#plan .disc-plan .mono")
    browser.click("#profile option[value='STD-CTMR-CD']")  # planned anew, without a button
    browser.one("#plan", "STD-CTMR-CD")
    assert browser.text("#plan .disc-plan .mono") != first
    browser.click("#burner option[value='publisher']")
    browser.click("#burn")
    browser.one("h1", "Morgenstern, Paula")
    assert "/jobs/J1" in browser.driver.current_url


def runs_out_of_ink(site: Site, browser: Browser) -> None:
    robot = site.robots["publisher"].robot
    browser.go("/")
    browser.one("article.job", "Morgenstern, Paula")
    browser.one("article.job progress.bar")
    browser.one("#needs .wants")
    browser.one(".tally .needs.some", "1")
    browser.wait(lambda: browser.driver.execute_script("return document.body.dataset.lastAttention || ''"), "the call")
    browser.one("aside .burner", "publisher")
    assert robot.ink == 0
    robot.ink = 100
    browser.one("#done", "Morgenstern, Paula")
    browser.one("#done .badge.ok", "1 verified")
    browser.gone("#needs")


def is_found_in_the_archive(site: Site, browser: Browser) -> None:
    browser.go("/archive/discs")
    browser.click("table a", "D1")
    browser.one("#disc", "Morgenstern, Paula")
    browser.type("#new-shelf", "A/3-12")
    browser.click("form[hx-post$=move] button")
    browser.one("#disc dd", "A/3-12")
    browser.go("/studies")
    browser.one(".study .badge.ok", "On disc")
    freed = site.operations.purge(min_copies=1, dry_run=False)
    assert freed["instances"] == 4, freed


def is_recalled(site: Site, browser: Browser) -> None:
    browser.go("/studies")
    browser.one(".study .badge", "Only on disc")
    browser.click(".study .name a")
    browser.click("#recall-study")
    browser.one("#notices", "Recall C1 has begun")
    browser.go("/")
    browser.one("#needs .wants", "A/3-12")
    disc = site.robots["publisher"].discs()[0]
    browser.type("#needs input[name=path]", str(disc))
    browser.click("#needs form button.primary")
    browser.gone("#needs")
    browser.go("/archive/recalls")
    browser.one("table .badge.ok", "Done")
    browser.one("table", "4 of 4 instances here")
    browser.go("/studies/1")
    browser.one("#over-image", "Image 2 of 4")
