"""``burnish doctor``: settings in force, how everything is, what is wrong and how to mend it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burners import registry
from config.settings import Settings
from media.mounts import Place
from media.problems import MediaError
from media.signing import SiteKey
from service import checks
from service.contract import Document
from service.errors import Refusal, as_refusal
from service.lock import holder_of, running_service

if TYPE_CHECKING:
    from burners.registry import Burners
    from store.db import Database
    from store.spool import Spool

_DECODERS = {
    "numpy": "pixel data of any kind",
    "openjpeg": "JPEG 2000 and HTJ2K (pylibjpeg-openjpeg)",
    "libjpeg": "JPEG and JPEG-LS (pylibjpeg-libjpeg)",
    "rle": "RLE (pylibjpeg-rle)",
    "jpeg_ls": "JPEG-LS (pyjpegls)",
}
_LOW_BYTES = 1 << 30


@dataclass(slots=True)
class _Findings:
    state: dict[str, str] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)

    def wrong(self, what: str, mend: str) -> None:
        self.problems.append({"what": what, "mend": mend})


def report(settings: Settings) -> Document:
    """The report for the CLI: the running service's own, or what can be seen from here without changing anything."""
    try:
        running = running_service(settings.data)
    except Refusal as error:
        return examine(settings, service=str(error), trouble=str(error))
    if running is not None:
        from service.client import ServiceOperations

        operations = ServiceOperations(running)
        try:
            document = operations.doctor()
            document["state"]["service"] = f"runs, process {running.pid}, {running.url}"
            return document
        except Refusal as error:
            return examine(settings, service=f"process {running.pid} does not answer", trouble=str(error))
        finally:
            operations.close()
    holder = holder_of(settings.data)
    service = "not running" if holder is None else f"not running; burnish {holder.get('what', '')} is at work"
    return examine(settings, service=service)


def examine(
    settings: Settings,
    *,
    db: Database | None = None,
    spool: Spool | None = None,
    burners: Burners | None = None,
    service: str = "not running",
    trouble: str = "",
) -> Document:
    """Look at everything; ``db`` None opens the database for a look. Changes nothing."""
    found = _Findings()
    found.state["service"] = service
    if trouble:
        found.wrong(f"service: {trouble}", "look at its log; stop that process and start `burnish serve` again")
    for line in checks.foreign_packages():
        found.wrong(line, "install Burnish in a virtual environment of its own")
    for line in checks.wrong_settings(settings):
        found.wrong(line, "change the settings file; `burnish serve` does not start with it")
    _database(settings, db, found)
    _folders(settings, found)
    _leftovers(settings, spool, found)
    _decoders(found)
    _protection(settings, found)
    _signing(settings, found)
    statuses = _burners(settings, burners, found)
    return {
        "ok": not found.problems,
        "settings": flat(settings),
        "state": found.state,
        "burners": statuses,
        "problems": found.problems,
    }


def flat(settings: Settings) -> dict[str, Any]:
    """Every setting in force by its dotted name; the database's password and other secrets are not shown."""
    shown: dict[str, Any] = {}

    def lay(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                lay(f"{prefix}.{key}" if prefix else key, inner)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, inner in enumerate(value, 1):
                lay(f"{prefix}.{inner.get('name', number)}", inner)
        else:
            shown[prefix] = value

    lay("", settings.model_dump(mode="json"))
    if shown.get("database.url"):
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            shown["database.url"] = make_url(str(shown["database.url"])).render_as_string(hide_password=True)
        except ArgumentError:
            shown["database.url"] = "(no URL)"
    for name, value in shown.items():
        if value and name.endswith(("secret", "password")):
            shown[name] = "(set, not shown)"
    return shown


def _database(settings: Settings, db: Database | None, found: _Findings) -> None:
    from sqlalchemy.exc import SQLAlchemyError

    from service.opening import connect, parsed_url
    from store import migrate

    own: Database | None = None
    try:
        url = parsed_url(settings)
        if db is None:
            if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
                found.state["database"] = f"{url.database} is not there yet; the first command or start makes it"
                return
            db = own = connect(settings)
        current, head = migrate.current(db), migrate.head(db)
        found.state["database"] = f"{url.render_as_string(hide_password=True)}, revision {current} (newest {head})"
        if current != head:
            found.wrong(
                f"the database has revision {current}, this version wants {head}",
                "start `burnish serve`: it migrates the database; if it cannot, a newer version made it: install that",
            )
        else:
            _contents(db, found)
    except (SQLAlchemyError, OSError, ImportError, Refusal) as error:
        refusal = as_refusal(error)
        reason = str(refusal) if refusal else f"{type(error).__name__}: {error}".splitlines()[0]
        found.state["database"] = "cannot be used"
        found.wrong(f"database: {reason}", "check database.url, that the server runs and that this user may use it")
    finally:
        if own is not None:
            own.close()


def _contents(db: Database, found: _Findings) -> None:
    from sqlalchemy import func, or_, select

    from store import atrisk, copies
    from store.checks import DAMAGED, counts
    from store.models import Instance
    from store.models_jobs import Disc, Job, Volume

    with db.read() as session:
        held, total = session.execute(
            select(func.count(), func.coalesce(func.sum(Instance.file_bytes), 0)).where(
                Instance.spool_path.is_not(None)
            )
        ).one()
        conflicts = session.scalar(select(func.count()).where(Instance.conflict_of.is_not(None))) or 0
        by_state = session.execute(select(Job.state, func.count()).group_by(Job.state))
        jobs = dict(by_state.tuples().all())
        discs = session.scalar(select(func.count()).where(counts())) or 0
        damaged = session.scalars(
            select(Disc.id).where(or_(Disc.checked_result == DAMAGED, Disc.marked.is_not(None))).order_by(Disc.id)
        ).all()
        short = session.scalar(
            select(func.count()).select_from(Volume).where(Volume.good_copies < Volume.wanted_copies)
        )
        miscounted = copies.wrong(session, limit=10)
        unsure = atrisk.unconfirmed_discs(session)
    found.state["volumes on too few discs"] = f"{short}; see `burnish at-risk --in-spool`" if short else "none"
    if miscounted:
        named = ", ".join(one["file_set_id"] for one in miscounted)
        found.wrong(
            f"the number of good or wanted copies does not agree with the discs: {named}",
            "`burnish discs recount` brings it into agreement",
        )
    found.state["spool holds"] = f"{held} instances, {_size(int(total))}"
    found.state["conflicts"] = str(conflicts)
    found.state["jobs"] = ", ".join(f"{count} {state}" for state, count in sorted(jobs.items())) or "none yet"
    found.state["verified discs"] = str(discs) + (f", and {len(damaged)} lost or damaged" if damaged else "")
    if unsure:
        found.state["discs of unknown purpose"] = f"{unsure}, not counted on: `burnish discs list --purpose unknown`"


def _folders(settings: Settings, found: _Findings) -> None:
    for name, folder in (
        ("data folder", settings.data),
        ("spool", settings.spool_dir),
        ("derived cache", settings.derived_dir),
    ):
        there = folder
        while not there.exists() and there != there.parent:
            there = there.parent
        if name != "data folder" and (trouble := Place(folder, settings.data).trouble()):
            found.wrong(f"{name} {trouble}", "mount it; what is received meanwhile is refused")
            continue
        if there != folder and name == "data folder":
            found.state[name] = f"{folder} (not there yet)"
        try:
            usage = shutil.disk_usage(there)
        except OSError as error:
            found.wrong(f"{name} {folder}: {error.strerror}", "make the folder usable for the user that runs Burnish")
            continue
        if not _writable(there):
            found.wrong(f"{name} {there} cannot be written to", "give it to the user that runs Burnish")
        used = 100 * (usage.total - usage.free) / usage.total if usage.total else 100.0
        found.state[name] = f"{folder}, {_size(usage.free)} free, {used:.0f} % used"
        if name == "spool" and used > settings.spool.high_water_percent:
            found.wrong(
                f"spool: {used:.1f} % of its disk are used, above spool.high_water_percent "
                f"{settings.spool.high_water_percent:g}: nothing is received any more",
                "free space: `burnish purge` removes what is on verified discs",
            )
        elif usage.free < _LOW_BYTES:
            found.wrong(f"{name}: only {_size(usage.free)} are free", "free space, or `burnish purge`")


def _writable(folder: Path) -> bool:
    import os

    return os.access(folder, os.W_OK | os.X_OK)


def _leftovers(settings: Settings, spool: Spool | None, found: _Findings) -> None:
    """Temporary files of processes that are dead: harmless, swept at the next start."""
    from service.opening import node_name
    from store import spool as spool_module

    if not settings.spool_dir.is_dir():
        return
    if spool is None:
        if not settings.node.name and not (settings.data / "node-id").exists():
            return
        spool = spool_module.Spool(settings.spool_dir, node=node_name(settings))
    folder = settings.spool_dir / spool_module.INCOMING
    dead = 0
    for process in folder.glob("*/*-*"):
        with suppress(FileNotFoundError):  # a service that starts sweeps it at this moment
            dead += 0 if spool_module.is_alive(process.name) else len(list(process.iterdir()))
    found.state["temporary files left behind"] = str(dead) if dead else "none"


def _protection(settings: Settings, found: _Findings) -> None:
    from media import dvdisaster

    tool = dvdisaster.installed()
    found.state["error-correction data"] = f"by {tool}" if tool else "none can be made: dvdisaster is not installed"
    if tool is None and settings.plan.protect != "none":
        what = f"plan.protect is {settings.plan.protect}, and dvdisaster is not installed here: every plan is refused"
        found.wrong(what, 'install it (Debian: apt install dvdisaster), or set plan.protect to "none"')


def _decoders(found: _Findings) -> None:
    missing = [name for name in _DECODERS if find_spec(name) is None]
    found.state["decoders"] = ", ".join(name for name in _DECODERS if name not in missing)
    for name in missing:
        found.wrong(f"the decoder {name} is not installed: {_DECODERS[name]} is refused", "install Burnish again (pip)")


def _signing(settings: Settings, found: _Findings) -> None:
    path = settings.signing_key
    if path is None:
        found.state["signing key"] = "none: discs are not signed"
    elif not path.exists():
        found.state["signing key"] = f"{path} is not there yet; the first start makes it"
    else:
        try:
            found.state["signing key"] = f"{path}, fingerprint {SiteKey.open(path).fingerprint}"
        except MediaError as error:
            found.state["signing key"] = "cannot be used"
            found.wrong(str(error), "put the right key there; without one no disc can be planned")


def _burners(settings: Settings, burners: Burners | None, found: _Findings) -> list[Document]:
    own = burners is None
    loaded = burners or registry.load(settings.burners, data=settings.data)
    try:
        statuses = loaded.statuses()
    finally:
        if own:
            loaded.close()
    for status in statuses:
        if status.state != "READY":
            found.wrong(
                f"burner {status.name} is {status.state}: {status.reason}",
                "see to the device; it goes on by itself"
                if status.state == "WAITING"
                else f"mend the section [burners.{status.name}] of the settings, or its device, and restart",
            )
    return [status.as_json() for status in statuses]


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
