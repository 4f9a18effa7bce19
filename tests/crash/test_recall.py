"""kill -9 while discs are read back: what was entered stays, the rest follows, nothing comes twice."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from jobs.context import Context
from jobs.recalls import begin, document
from store.models import Derived, Instance
from store.models_archive import RecallInstance
from store.models_jobs import VolumeInstance
from store.selection import Selection
from tests import soak
from tests.crash.harness import Site
from tests.discs import burn, purge, put_online
from tests.waiting import wait_for

pytestmark = pytest.mark.crash

KILLS = soak.size(1, 20)
COUNT = 10
SIZE = 1 << 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.close()


def back(site: Site, number: int) -> int:
    """How many instances of a recall are back."""
    query = select(func.count()).where(RecallInstance.recall_id == number, RecallInstance.state == "RESTORED")
    return site.look(lambda session: session.scalar(query)) or 0


def half_done(site: Site) -> int:
    """Files that were brought back and are in no row yet."""
    return sum(1 for _ in (site.spool.root / "incoming").rglob("*-*/*")) + sum(
        1 for _ in site.settings.derived_dir.rglob("*.disc.*")
    )


def kill_while_reading(site: Site, number: int, dice: random.Random) -> list[int]:
    """Kill services that serve a recall; how many instances were back each time."""
    struck = []
    for _ in range(KILLS):
        wanted = half_done(site) + dice.randrange(1, COUNT // 2)
        service = site.start()
        wait_for(
            lambda wanted=wanted: half_done(site) >= wanted or back(site, number) == 2 * COUNT,  # type: ignore[misc]
            "the recall to go on",
        )
        service.kill()
        struck.append(back(site, number))
    return struck


def test_killed_while_discs_are_read(site: Site, tmp_path: Path) -> None:
    dice = random.Random(soak.SEED)
    site.settings.derived_dir.mkdir(parents=True, exist_ok=True)
    ctx = Context(site.settings, site.db, site.spool)
    plain, conformed = site.receive(1, COUNT, size=SIZE), site.receive(2, COUNT, size=SIZE)
    for study, given in ((plain, {}), (conformed, {"profile": "STD-GEN-DVD-JPEG", "compress": "lossless"})):
        for disc in burn(ctx, tmp_path / "vault", Selection(study=(study,)), **given):
            put_online(ctx, disc)
    with site.db.read() as session:
        ids = list(session.scalars(select(Instance.id)))
    for _ in range(10):  # where the machine is so busy that all is back before anybody looks, it is begun anew
        purge(ctx)
        number = begin(ctx, ids, source="cli", by="test", selection={})
        struck = kill_while_reading(site, number, dice)
        service = site.start()
        wait_for(lambda number=number: document(ctx, number)["state"] == "DONE", "the recall")  # type: ignore[misc]
        service.ready()
        if struck[0] < 2 * COUNT:
            break
        service.kill()
    assert struck[0] < 2 * COUNT, "no kill came in the middle"
    wait_for(lambda: not list((site.spool.root / "incoming").rglob("*-*/*")), "what was half done to be swept")
    service.kill()
    with site.db.read() as session:
        rows = list(
            session.execute(
                select(Instance.spool_path, Instance.file_sha256, VolumeInstance.sha256, Derived.path, Derived.sha256)
                .join(VolumeInstance, VolumeInstance.instance_id == Instance.id)
                .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
            )
        )
    named = set()
    for spool_path, file_sha256, on_disc, derived_path, derived_sha256 in rows:
        path = ctx.derived_path(derived_path) if derived_path else site.spool.path_of(spool_path)
        named.add(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == on_disc == (derived_sha256 or file_sha256)
        assert bool(derived_path) != bool(spool_path)
    assert len(named) == 2 * COUNT
    published = [path for path in site.spool.root.rglob("*.dcm") if "incoming" not in path.parts]
    assert Counter(published) == Counter(
        named - {path for path in named if path.is_relative_to(ctx.settings.derived_dir)}
    )
    soak.told("kills while recalling", f"{KILLS} kills, {2 * COUNT} instances; back at each kill {struck}")
