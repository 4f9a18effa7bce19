"""One service and one browser for the tests of the page; each test makes what it needs by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web import phantoms
from tests.web.site import Browser, Site

HOSTILE = "<script>document.title</script><b>"
PEOPLE = [
    {"id": "NH-10442", "name": "Äneas^Rüdiger"},
    {"id": "NH-20011", "name": "Yamada^Tarou=山田^太郎=やまだ^たろう", "sex": "M", "date": "20261118"},
    {"id": "NH-6<b>", "name": f"Doe{HOSTILE}^Jane", "date": "20261117"},
]
STUDIES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    """A service in this process, where one engine can run: gone before tests of other files come."""
    robots = {"publisher": {"make": "epson", "faults": ["out-of-ink"], "speed": 150.0}}
    made = Site(folder, robots=robots)
    studies = [
        phantoms.ct(1, PEOPLE[0], count=5, size=96),
        phantoms.us(2, PEOPLE[0], frames=6, size=64),
        phantoms.dx(3, PEOPLE[1], size=96),
        phantoms.mr(4, PEOPLE[2], count=2, size=64),
    ]
    for datasets in studies:
        made.ingest(phantoms.write(folder / "made", datasets))
    yield made
    made.close()


@pytest.fixture(scope="module")
def secrets(site: Site) -> dict[str, str]:
    """Sessions of users, by their roles."""
    return {role: site.user(role, role) for role in ("viewer", "operator", "archivist", "administrator")}


@pytest.fixture(scope="module")
def chromium(site: Site) -> Iterator[Browser]:
    browser = Browser(site)
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser, secrets: dict[str, str]) -> Browser:
    """Signed in as administrator, 1280 pixels wide, light."""
    chromium.driver.delete_all_cookies()
    chromium.resize(1280)
    chromium.theme("light")
    chromium.sign_in_by_cookie(secrets["administrator"])
    chromium.errors()
    return chromium
