"""The archive at two sizes: find, which discs, what is on too few copies, a purge plan; the times and their ratio.

    python -m bench.archive [--studies 20000] [--only sqlite|postgresql] [--database URL]

BURNISH_BENCH=full: 1,000,000 studies (50,000,000 instances, some 45 GB) on PostgreSQL, 100,000 on SQLite. Both sizes
have answers of equal size, so a ratio near 1 says that time grows with the answer and not with the table. Goal: each
ratio at most 2 where the tables are ten times as large (of what takes more than 20 ms).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.archivefill import INSTANCES, SPOOLED, STUDIES, Archive
from store import atrisk, catalogue, migrate, purging
from store.db import Database
from store.purging import Policy
from store.spool import Spool

FULL = os.environ.get("BURNISH_BENCH") == "full"
_TENTH = 10
_TO_FREE = 20_000_000_000


def questions(archive: Archive, folder: Path) -> dict[str, Callable[[int], int]]:
    """What is asked; each takes a number that is another at each call and returns the size of its answer."""
    db = archive.db
    old = archive.studies - 2 * SPOOLED

    def study(number: int) -> int:
        return number * 7919 % old + 1

    def find(**criteria: Any) -> int:
        with db.read() as session:
            found = catalogue.find(session, **criteria)
        return sum(len(one["instances"]) for one in found)

    def short(_: int) -> int:
        with db.read() as session:
            return len(atrisk.volumes(session))

    def at_risk(_: int) -> int:
        with db.read() as session:
            return len(atrisk.instances(session))

    def plan(_: int) -> int:
        spool = Spool(folder / "spool", node="bench")
        policy = Policy(min_copies=2, to_free=_TO_FREE)
        return int(purging.purge(db, spool, folder / "derived", policy, dry_run=True)["instances"])

    return {
        "find by patient": lambda n: find(patient_id=f"PID{(study(n) - 1) // 4 + 1:08}"),
        "find by study": lambda n: find(study=f"1.2.276.0.99.1.{study(n)}"),
        "find by accession": lambda n: find(accession=f"ACC{study(n):08}"),
        "find by corrected accession": lambda n: find(accession=f"RIGHT{n % (old // 100) + 1:08}"),
        "find by instance": lambda n: find(sop=f"1.2.276.0.99.3.{study(n) * INSTANCES}"),
        "volumes on too few discs": short,
        "instances at risk": at_risk,
        "purge plan, 20 GB": plan,
    }


def measured(archive: Archive, folder: Path, runs: int) -> dict[str, tuple[float, int]]:
    """Seconds (the best of all runs: others may be at work here) and size of the answer, by question."""
    found = {}
    for name, ask in questions(archive, folder).items():
        sizes, times = [], []
        for run in range(runs + 1):
            begun = time.perf_counter()
            sizes.append(ask(run + 1))
            if run:  # the first is for the caches
                times.append(time.perf_counter() - begun)
        found[name] = (min(times), max(sizes))
    return found


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL of our own, without regard to power cuts."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    if programs is None:
        raise SystemExit("PostgreSQL is not installed")
    home = folder / "postgresql"
    home.mkdir()
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(home, "postgres", "postgres")
        folder.chmod(0o755)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def run(*command: str | Path) -> None:
        subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")

    run(programs / "initdb", "-D", home / "db", "-U", "burnish", "-A", "trust", "-N", "-E", "UTF8")
    options = (
        f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off -c full_page_writes=off "
        "-c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=4GB -c shared_buffers=1GB -c autovacuum=off"
    )
    control = [programs / "pg_ctl", "-D", home / "db", "-w", "-t", "600", "-l", home / "log"]
    run(*control, "-o", options, "start")
    try:
        yield f"postgresql+psycopg://burnish@/postgres?host={home}"
    finally:
        run(*control, "-m", "immediate", "stop")


def compare(name: str, db: Database, studies: int, folder: Path, runs: int) -> bool:
    """Print both sizes and the ratio; whether all is well."""
    migrate.upgrade(db)
    archive = Archive(db)
    results = []
    sizes = [max(studies // _TENTH, 4 * SPOOLED) // STUDIES * STUDIES, studies // STUDIES * STUDIES]
    for size in sizes:
        begun = time.perf_counter()
        archive.grow(size)
        print(
            f"  {name}: {size:,} studies, {size * INSTANCES:,} instances in {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
        results.append(measured(archive, folder, runs))
    well = True
    print(f"  {'':30} {sizes[0]:>12,} {sizes[1]:>12,}  ratio  (tables: {sizes[1] / sizes[0]:.1f})   answer")
    for question, (small, count) in results[0].items():
        large, again = results[1][question]
        ratio = large / small
        good = ratio <= 2 or large < 0.02
        well &= good
        print(
            f"  {question:30} {small * 1000:9.1f} ms {large * 1000:9.1f} ms  {ratio:5.2f}  {count:,} and {again:,}"
            f"{'' if good else '   too slow'}",
            flush=True,
        )
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=0, help="studies of the larger archive")
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--database", help="URL of an empty database to use")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where databases are made (default: the temporary folder)")
    arguments = parser.parse_args()
    well = True
    with tempfile.TemporaryDirectory(prefix="burnish-archive-", dir=arguments.folder) as temporary:
        folder = Path(temporary)
        if arguments.database:
            db = Database(arguments.database)
            return 0 if compare("database", db, arguments.studies or 64_000, folder, arguments.runs) else 1
        if arguments.only != "postgresql":
            db = Database(f"sqlite:///{folder / 'burnish.db'}")
            well &= compare("SQLite", db, arguments.studies or (100_000 if FULL else 64_000), folder, arguments.runs)
            db.close()
            (folder / "burnish.db").unlink()
        if arguments.only != "sqlite":
            with postgresql(folder) as url:
                db = Database(url)
                well &= compare(
                    "PostgreSQL", db, arguments.studies or (1_000_000 if FULL else 64_000), folder, arguments.runs
                )
                db.close()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
