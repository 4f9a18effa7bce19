"""Makes the pictures of docs/pictures/page: every page in both widths and themes, of a hospital that does not exist.

python -m tests.web.pictures [--only board,studies] [--folder /srv/burnish]
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image
from selenium.webdriver.common.keys import Keys

from jobs import pools as pool_work
from jobs import schedules as schedule_work
from service.errors import Refusal
from store import holds, pools, schedules, shelves, waiting
from store.models import Instance
from store.selection import Selection, selecting
from tests.makers import uid
from tests.waiting import wait_for
from tests.web import phantoms
from tests.web.site import THEMES, WIDTHS, Browser, Site, browsing

PEOPLE = [
    {"id": "NH-10442", "name": "Äneas^Rüdiger", "sex": "M", "born": "19500101"},
    {"id": "NH-20011", "name": "Yamada^Tarou=山田^太郎=やまだ^たろう", "sex": "M", "born": "19700101"},
    {"id": "NH-30417", "name": "Doe^Jane^Alexandra"},
    {"id": "NH-41002", "name": "Чехов^Антон^Павлович", "sex": "M", "born": "18600129"},
    {"id": "NH-50233", "name": "قباني^لنزار", "sex": "M", "born": "19230321"},
    {"id": "NH-60078", "name": "O'Neill^Maeve", "born": "19880909"},
]
PAGES = {
    "board": "/",
    "studies": "/studies",
    "study": "/studies/1",
    "make": "/make?study=1&study=2",
    "jobs": "/jobs",
    "job": "/jobs/J1",
    "archive": "/archive",
    "pools": "/archive/pools",
    "pool": "/archive/pools/long-term",
    "schedule": "/archive/new-schedule",
    "schedules": "/archive/schedules",
    "discs": "/archive/discs",
    "disc": "/archive/discs/D1",
    "recalls": "/archive/recalls",
    "nodes": "/nodes",
    "node": "/nodes/archive-pacs",
    "storage": "/system",
    "health": "/system/health",
    "settings": "/system/settings",
    "audit": "/system/audit",
}
_LOADED = (
    "return [...document.images].every(one => one.complete || !one.getClientRects().length"
    " || one.getBoundingClientRect().top > innerHeight)"
)
ROBOTS: dict[str, dict[str, Any]] = {
    "publisher": {"make": "epson", "faults": ["out-of-ink"], "speed": 200.0},
    "tower": {"make": "primera", "speed": 0.6},
    "old-robot": {"make": "rimage", "faults": ["bad-disc"], "speed": 400.0},
}


def fill(site: Site) -> None:
    """Studies, jobs of every kind, an archive."""
    days = ["20261121", "20261121", "20261120", "20261119", "20261012", "20251003"]
    ages = [0, 0, 1, 2, 12, 29]
    makers = [phantoms.ct, phantoms.mr, phantoms.dx, phantoms.us, phantoms.mr, phantoms.ct]
    for number, (make, person, day) in enumerate(zip(makers, [PEOPLE[0], *PEOPLE[:5]], days, strict=True), 1):
        site.ingest(phantoms.write(site.folder / "made", make(number, person | {"date": day})))
    operations, context, settings = site.operations, site.operations.context, site.settings
    with site.db.begin() as session:  # as if it had come over weeks
        at = datetime.now(UTC)
        for number, instance in enumerate(session.query(Instance).order_by(Instance.id)):
            instance.received_at = at - timedelta(days=ages[number % len(ages)], minutes=number)
    port = site.ready["dicom"]["port"]
    for name, ae, where, retrieve in (
        ("archive-pacs", "BURNISH", port, "get"),
        ("workstation-2", "READING2", 11, "move"),
    ):
        operations.add_node(
            {"name": name, "ae_title": ae, "host": "127.0.0.1", "port": where, "retrieve": retrieve, "tls": False}
        )
        with suppress(Refusal):
            operations.echo_node(name)
    wanted: dict[str, Any] = {"kind": "archive", "copies": 2, "required_copies": 2, "min_fill": 80, "latest_days": 7}
    with site.db.begin() as session:
        values = wanted | {"shelves": ["A/3", "vault"], "options": {"profile": "STD-GEN-CD", "capacity_sectors": 4000}}
        pool = pools.add(session, "long-term", pool_work.values_of(settings, values))
        session.flush()
        waiting.put(session, pool, selecting(Selection(study=(uid("study", 6),))))
        nightly = {"trigger": {"cron": "0 22 * * *"}, "pool": "long-term", "rules": {"modality": ["CT", "MR"]}}
        given = schedule_work.values_of(session, settings, nightly | {"timezone": "Europe/Berlin"})
        schedules.add(session, "nightly", given)
    orders = [
        ([1], {"burner": "iso", "copies": 2}, ("DONE",)),
        ([5], {"burner": "iso"}, ("DONE",)),
        ([2], {"burner": "publisher"}, ("WAITING",)),
        ([4], {"burner": "old-robot"}, ("FAILED",)),
        ([3], {"burner": "tower", "copies": 2}, ("BURNING",)),
        ([4, 6], {"burner": "iso", "profile": "STD-CTMR-CD"}, ("FAILED",)),
    ]
    for studies, options, states in orders:
        chosen = {"study": [uid("study", number) for number in studies]}
        job = operations.burn(selection=chosen, plan=None, options=options)["job"]
        site.wait_for_job(job, *states)
    with site.db.begin() as session:
        shelves.move(session, 1, "A/3-12")
        shelves.check_out(session, 2, "Dr. Quincy")
        shelves.move(session, 3, "B/1-02")
        holds.keep(session, [uid("study", 1)], reason="second opinion is awaited", by="maria")
    operations.purge(min_copies=1, dry_run=False)
    recall(site, context, [uid("study", 5)])
    with site.db.begin() as session:
        shelves.mark(session, 2, "LOST", reason="not brought back")


def recall(site: Site, context: Any, studies: list[str]) -> None:
    """Somebody wants a study back whose disc is on a shelf."""
    from jobs import recalls
    from store.models_jobs import Disc
    from store.selection import instance_ids

    selection = {"study": studies}
    with site.db.begin() as session:
        disc = session.get_one(Disc, 3)
        image, disc.image, disc.location = Path(disc.image or ""), None, None
    image.rename(site.folder / "on-the-shelf.iso")
    with site.db.read() as session:
        ids = instance_ids(session, Selection.from_json(selection), anywhere=True)
    recalls.begin(context, ids, source="api", by="maria", selection=selection)


def take(browser: Browser, path: Path, width: int) -> None:
    """A screenshot of the page, as far down as it is interesting, with few colours."""
    raw = io.BytesIO()
    height = int(browser.driver.execute_script("return document.documentElement.scrollHeight"))
    browser.resize(width, max(700, min(height, 1500)))
    time.sleep(0.4)
    target = path.with_suffix(".raw.png")
    browser.picture(target)
    with Image.open(target) as found:
        found.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(raw, "PNG", optimize=True)
    target.unlink()
    path.write_bytes(raw.getvalue())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path, help="where the service lives; the pages show it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs/pictures/page")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(PAGES)
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ.pop("BURNISH_DATA", None)
    with tempfile.TemporaryDirectory(prefix="burnish-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        site = Site(folder, robots=ROBOTS)
        site.robots["publisher"].robot.refill_seconds = 1e9  # type: ignore[misc]
        try:
            fill(site)
            secret = site.user("maria", "administrator")
            with browsing(site) as browser:
                browser.sign_in_by_cookie(secret)
                for theme in THEMES:
                    browser.theme(theme)
                    for width, pixels in WIDTHS.items():
                        for name in names:
                            browser.resize(pixels, 860)
                            browser.go(PAGES[name])
                            if name == "make":
                                browser.one("#burn")
                            if name == "schedule":
                                browser.type("#f-name", "weekly")
                                browser.type("#try-it", Keys.ENTER)  # a bar at the foot of narrow screens lies over it
                                browser.one("#schedule-preview", "would")
                            wait_for(lambda: browser.driver.execute_script(_LOADED), "the pictures")
                            time.sleep(0.6)
                            take(browser, given.out / f"{name}-{width}-{theme}.png", pixels)
        finally:
            site.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
