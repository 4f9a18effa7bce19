"""Registering, planning, and making the DICOMDIR from SQL: time for each instance must not grow with their number.

    python -m bench.planning [--counts 10000 100000] [--database URL]

Goal: time per instance at the larger size at most 1.3 times that at the smaller. The DICOMDIR is timed from SQL rows to
a synced file, with File IDs, manifest and the layout of the image; bench.dicomdir compares with dcmmkdir.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select

from bench.common import write_study
from config.settings import load
from jobs.assemble import volume_image
from jobs.context import Context
from jobs.options import RequestOptions
from jobs.planning import create_request, make_plan
from media.header import read_header
from media.items import Header
from media.part10 import locate
from store import migrate
from store.db import Database
from store.models_base import now
from store.models_jobs import Volume
from store.registration import Arrival, Provenance, register_group
from store.selection import Selection
from store.spool import Received, Spool

_GROUP = 64
_LINKS = 30_000
"""File systems limit the hard links of one file."""


def _arrivals(spool: Spool, template: Path, header: Header, count: int) -> list[Arrival]:
    """Instances of 200 a study, whose files are links to one file: planning looks at their sizes only."""
    size = template.stat().st_size
    source = template
    arrivals = []
    for number in range(count):
        study, series = number // 200, number // 100
        digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
        path = f"{digest[:2]}/{digest[2:4]}/{digest}.dcm"
        target = spool.path_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if number and number % _LINKS == 0:
            source = template.with_name(f"{template.name}.{number}")
            shutil.copyfile(template, source)
        target.hardlink_to(source)
        made = replace(
            header,
            patient_id=f"P{study // 3:06}",
            study_instance_uid=f"1.2.3.{study}",
            series_instance_uid=f"1.2.3.{study}.{series}",
            sop_instance_uid=f"1.2.3.{study}.{series}.{number}",
            instance_number=number % 100,
        )
        received = Received(digest, size - 300, digest, size)
        arrivals.append(Arrival(made, received, Provenance("BENCH", "BURNISH", "bench"), now(), path))
    return arrivals


def _measure(count: int, url: str | None) -> tuple[float, float, float]:
    """Microseconds for each of ``count`` instances: registering, planning, DICOMDIR."""
    folder = Path(tempfile.mkdtemp(prefix="burnish-planning-"))
    try:
        settings = load(data=folder)
        write_study(folder / "in", 1, 20_000)
        template = folder / "in" / "IM000000"
        located = locate(template)
        header = read_header(template, offset=located.dataset_offset, transfer_syntax_uid=located.transfer_syntax_uid)
        db = Database(url or settings.database_url)
        if url:
            migrate.downgrade(db, "base")
        migrate.upgrade(db)
        spool = Spool(settings.spool_dir, node="bench", high_water_percent=100.0, max_bytes=0)
        arrivals = _arrivals(spool, template, header, count)
        start = time.perf_counter()
        for first in range(0, count, _GROUP):
            with db.engine.begin() as connection:
                register_group(connection, spool, arrivals[first : first + _GROUP])
        registering = time.perf_counter() - start
        ctx = Context(settings, db, spool)
        options = RequestOptions.from_settings(
            settings, {"profile": "STD-GEN-BD", "medium": "BD-25", "patients_per_disc": "many"}
        )
        start = time.perf_counter()
        with db.begin() as session:
            request = create_request(session, selection=Selection(all=True), options=options, source="bench")
        plan = make_plan(ctx, request)
        planning = time.perf_counter() - start
        with db.read() as session:
            volumes = session.scalars(select(Volume.id).where(Volume.plan_id == plan)).all()
        start = time.perf_counter()
        for volume in volumes:
            directory = volume_image(ctx, volume).files[0]
            assert directory.path == "DICOMDIR" and isinstance(directory.source, bytes)
            with (folder / "DICOMDIR").open("wb") as out:
                out.write(directory.source)
                out.flush()
                os.fsync(out.fileno())
        directories = time.perf_counter() - start
        db.close()
        return registering / count * 1e6, planning / count * 1e6, directories / count * 1e6
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs=2, default=[10_000, 100_000])
    parser.add_argument("--database", default=None, help="an empty PostgreSQL database instead of SQLite")
    arguments = parser.parse_args()
    measured = [_measure(count, arguments.database) for count in arguments.counts]
    small, large = arguments.counts
    for what, at_small, at_large in zip(("registering", "planning", "DICOMDIR"), *measured, strict=True):
        print(
            f"{what:11} {at_small:.0f} us each at {small}, {at_large:.0f} us each at {large}: "
            f"ratio {at_large / at_small:.2f} (goal: 1.3)"
        )


if __name__ == "__main__":
    main()
