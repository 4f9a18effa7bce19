"""A service with robots and a browser in front of it, as the browser tests and the pictures of the docs use it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from burners import registry
from config.settings import load
from service import passwords
from service.app import Service
from service.auth import SESSION_COOKIE
from service.operations import StoreOperations
from store import sessions, users
from tests.burners.robots import Running
from tests.waiting import wait_for

WIDTHS = {"wide": 1280, "narrow": 390}
THEMES = ("light", "dark")
PASSWORD = "correct horse battery 9"
AXE = Path(__file__).parent / "vendor/axe.min.js"
_NOTICES_STAY = """
const later = window.setTimeout;
window.setTimeout = (act, ms, ...more) => later(act, ms === 6000 ? 600000 : ms, ...more);
"""
"""A good notice goes after six seconds; where the machine is busy nobody would have seen it."""


class Site:
    """A running service in this process, with an ISO burner and, by name, simulated robots."""

    def __init__(
        self,
        folder: Path,
        *,
        robots: dict[str, dict[str, Any]] | None = None,
        more: str = "",
        zone: str = "Europe/Berlin",
    ) -> None:
        """``robots``: burner's name -> ``make`` (a driver's name), and what ``Running.on`` takes."""
        self.folder = folder
        self._stack = ExitStack()
        self.robots: dict[str, Running] = {}
        lines = f'[burners.iso]\ndriver = "iso"\nfolder = {json.dumps(str(folder / "discs"))}\n'
        for name, wanted in (robots or {}).items():
            given = dict(wanted)
            make = given.pop("make")
            where = folder / "robots" / name
            options = registry.drivers()[make].load().example(where)
            self.robots[name] = self._stack.enter_context(Running.on(make, where, options, **given))
            settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
            lines += f"[burners.{name}]\ndriver = {json.dumps(make)}\n{settings}"
        config = folder / "burnish.toml"
        config.write_text(
            f'[site]\ninstitution = "Northside Hospital"\ntimezone = "{zone}"\n'
            "[dicom]\nport = 0\nacceptors = 1\n[http]\nport = 0\n"
            f'media_folders = [{json.dumps(str(folder))}]\n[log]\nlevel = "error"\n' + lines + more
        )
        self.settings = load(config=config, data=folder / "data")
        self.service = Service(self.settings)
        try:
            self.ready = self.service.start()
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(self.service.stop)
        self.url: str = self.ready["http"]["url"]

    @property
    def operations(self) -> StoreOperations:
        return self.service.operations

    @property
    def db(self) -> Any:
        return self.operations.context.db

    def close(self) -> None:
        self._stack.close()

    def ingest(self, paths: Sequence[Path]) -> None:
        for path in paths:
            with path.open("rb") as stream:
                self.operations.ingest_stream(stream)

    def user(self, name: str, role: str) -> str:
        """A user of this role; returns the secret of a session."""
        with self.db.begin() as session:
            made = users.add(session, name, role, by="test", password=passwords.hashed(PASSWORD))
            return sessions.begin(session, made, how="password", address="127.0.0.1", lasts=timedelta(hours=1))

    def wait_for_job(self, job: str, *states: str) -> dict[str, Any]:
        def ended() -> bool:
            return self.operations.job(job)["state"] in states

        wait_for(ended, f"{job} to be {states}")
        return self.operations.job(job)


def noon() -> str:
    """A time zone in which it is about noon: today does not end before the test does."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-ahead:+d}"  # the sign is the other way round there


class Browser:
    """Debian's Chromium, headless, with what tests ask of a page.

    A page may change at any moment, so elements are looked for anew for each thing that is done or asked; tests keep
    none.
    """

    def __init__(self, site: Site, *, width: int = 1280, height: int = 900) -> None:
        options = ChromeOptions()
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en"):
            options.add_argument(flag)
        options.add_argument("--disable-dev-shm-usage")  # a container has little of it, and a page that lacks it dies
        options.add_argument("--force-color-profile=srgb")
        options.binary_location = "/usr/bin/chromium"
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.site = site
        self.driver = Chrome(options=options, service=Driver("/usr/bin/chromedriver"))
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _NOTICES_STAY})
        self.resize(width, height)

    def close(self) -> None:
        self.driver.quit()

    def resize(self, width: int, height: int = 900) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )

    def theme(self, theme: str) -> None:
        """As the system would have it."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def sign_in_by_cookie(self, secret: str) -> None:
        """With a session that was begun without the login page."""
        self.driver.execute_cdp_cmd(
            "Network.setCookie",
            {"name": SESSION_COOKIE, "value": secret, "url": self.site.url, "httpOnly": True, "sameSite": "Lax"},
        )

    def go(self, path: str) -> None:
        self.driver.get(self.site.url + path)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str, text: str = "") -> WebElement:
        """The first shown element of a selector with this text in it, once it is there."""
        found: list[WebElement] = []

        def there() -> bool:
            try:
                found[:] = [one for one in self.all(selector) if one.is_displayed() and text in one.text]
            except WebDriverException:  # the page changed, or another came, while it was looked at
                return False
            return bool(found)

        wait_for(there, f"{selector} {text!r} on {self.driver.current_url}")
        return found[0]

    def _act(self, act: Callable[[WebElement], Any], selector: str, text: str = "") -> Any:
        """Do it to the element; to its successor where the page put another in its place just now."""
        done: list[Any] = []

        def tried() -> bool:
            try:
                done.append(act(self.one(selector, text)))
            except WebDriverException:
                return False
            return True

        wait_for(tried, f"{selector} {text!r} to take it")
        return done[0]

    def click(self, selector: str, text: str = "") -> None:
        self._act(lambda element: element.click(), selector, text)

    def type(self, selector: str, *keys: str) -> None:
        self._act(lambda element: element.send_keys(*keys), selector)

    def clear(self, selector: str) -> None:
        self._act(lambda element: element.clear(), selector)

    def drag(self, selector: str, x: int, y: int) -> None:
        def dragged(element: WebElement) -> None:
            ActionChains(self.driver).click_and_hold(element).move_by_offset(x, y).release().perform()

        self._act(dragged, selector)

    def press(self, key: str) -> None:
        """A key, for whatever has the keyboard."""
        ActionChains(self.driver).send_keys(key).perform()

    def value(self, selector: str) -> str:
        """What stands in a field."""
        return str(self._act(lambda element: element.get_property("value"), selector))

    def script(self, text: str) -> Any:
        """What a script says of the page, in one moment of it."""
        return self.driver.execute_script(text)

    def gone(self, selector: str) -> None:
        self.wait(lambda: not self.all(selector), f"{selector} to go")

    def text(self, selector: str = "body") -> str:
        return str(self._act(lambda element: element.text, selector))

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        def holds() -> bool:
            try:
                return bool(condition())
            except WebDriverException:  # the page changed, or another came, while it was looked at
                return False

        wait_for(holds, what)

    def errors(self) -> list[str]:
        """What the browser complains of: blocked by the Content-Security-Policy, scripts that fail, missing files."""
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.driver.execute_script(script))

    def axe(self, *rules: str) -> list[str]:
        """What axe-core finds against WCAG 2.x A and AA, or these rules of it."""
        if not self.driver.execute_script("return Boolean(window.axe)"):
            self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text()})
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
        chosen = {"type": "rule", "values": list(rules)} if rules else {"type": "tag", "values": tags}
        answer = self.driver.execute_cdp_cmd(
            "Runtime.evaluate",
            {
                "expression": f"axe.run(document, {{runOnly: {json.dumps(chosen)}, resultTypes: ['violations']}})"
                ".then(found => JSON.stringify(found.violations.map(one => one.id + ': ' + one.help + ' at ' +"
                " one.nodes.slice(0, 4).map(node => node.target.join(' ') + ' ' + (node.any[0] ? node.any[0].message"
                " : '')).join(' | '))))",
                "awaitPromise": True,
                "returnByValue": True,
            },
        )
        return list(json.loads(answer["result"]["value"]))

    def picture(self, path: Path, *, full: bool = False) -> None:
        """A screenshot of the window, or of the whole page."""
        options: dict[str, Any] = {"format": "png"}
        if full:
            metrics = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": metrics["width"], "height": min(metrics["height"], 2400), "scale": 1}
            options |= {"captureBeyondViewport": True, "clip": clip}
        answer = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browsing(site: Site, **size: int) -> Iterator[Browser]:
    browser = Browser(site, **size)
    try:
        yield browser
    finally:
        browser.close()
