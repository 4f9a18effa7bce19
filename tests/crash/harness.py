"""A service that can be killed, and what must hold whatever was done to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from config.settings import Settings, load
from jobs.documents import job_document
from jobs.options import RequestOptions
from jobs.planning import create_request
from media.verify import verify_path
from store import jobs, migrate
from store.db import Database
from store.instances import Provenance, Registrar, ingest_file
from store.models_jobs import BurnerSlot, Disc, Job
from store.models_nodes import Event
from store.selection import Selection
from store.spool import Spool
from tests import soak
from tests.crash.nursery import Child, nursery, started_at
from tests.makers import make
from tests.waiting import wait_for


class Site:
    """A folder with everything in it; services on it are started, killed and started again."""

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str = "",
        lease_seconds: float = 3.0,
        acceptors: int = soak.size(1, 2),
        more_settings: str = "",
    ) -> None:
        self.folder = folder
        self._acceptors = acceptors
        self._more = more_settings
        self.discs = folder / "discs"
        self._url = database_url
        self._lease = lease_seconds
        self.services: list[Service] = []
        self.settings = self.settings_of("main")
        self.db = Database(self.settings.database_url)
        migrate.upgrade(self.db)
        self.spool = Spool(self.settings.spool_dir, node="main")

    def settings_of(self, node: str) -> Settings:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / f"{node}.toml"
        config.write_text(
            f"[database]\nurl = {json.dumps(self._url)}\n"
            f"[spool]\nfolder = {json.dumps(str(self.folder / 'spool'))}\n"
            f"derived = {json.dumps(str(self.folder / 'derived'))}\n"
            f"[node]\nname = {json.dumps(node)}\nlease_seconds = {self._lease}\n"
            f"[dicom]\nacceptors = {self._acceptors}\n"
            f"[burners.iso]\ndriver = 'iso'\nfolder = {json.dumps(str(self.discs))}\n"
            f"{self._more}"
        )
        return load(config=config, data=self.folder / "data" / node)

    def start(self, node: str = "main", **ports: int) -> Service:
        """A service process, perhaps not ready yet."""
        self.settings_of(node)
        service = Service(self, node, **ports)
        self.services.append(service)
        return service

    def receive(self, seed: int, count: int, *, size: int | None = None) -> str:
        """A study, through the door but without the network; returns its UID."""
        registrar = Registrar(self.db, self.spool)
        folder = self.folder / "made"
        folder.mkdir(exist_ok=True)
        uid = ""
        for number in range(1, count + 1):
            made = make("CT", seed=seed, number=number, size=size)
            uid = made.study_instance_uid
            path = made.write(folder)
            ingest_file(registrar, path, provenance=Provenance("SENDER", "BURNISH", "test"))
            path.unlink()
        return uid

    def order(self, study: str, **given: Any) -> int:
        """Queue a job as a command without a service does."""
        with self.db.begin() as session:
            options = RequestOptions.from_settings(self.settings, given)
            request = create_request(session, selection=Selection(study=(study,)), options=options, source="test")
            return jobs.create_job(session, request, None, options)

    def document(self, job_id: int) -> dict[str, Any]:
        with self.db.read() as session:
            return job_document(session, job_id)

    def look(self, question: Callable[[Session], Any]) -> Any:
        """Ask the database; None when it is busy just now."""
        try:
            with self.db.read() as session:
                return question(session)
        except DBAPIError:
            return None

    def disc_in(self, *states: str, node: str | None = None) -> bool:
        def question(session: Session) -> bool:
            query = select(Disc.id).where(Disc.state.in_(states))
            if node is not None:
                query = query.where(Disc.node == node)
            return session.execute(query.limit(1)).first() is not None

        return bool(self.look(question))

    def job_in(self, *states: str) -> bool:
        return bool(self.look(lambda session: session.execute(select(Job.id).where(Job.state.in_(states))).first()))

    def half_written(self) -> bool:
        return self.discs.is_dir() and any(path.name.endswith(".part") for path in self.discs.iterdir())

    def wait_done(self, job_ids: list[int], *, seconds: float = 200) -> None:
        def ended() -> bool:
            query = select(Job.id).where(Job.id.in_(job_ids), Job.finished_at.is_(None))
            return self.look(lambda session: session.execute(query).first() or "all") == "all"

        try:
            wait_for(ended, "all jobs to end", seconds=seconds)
        except AssertionError as error:
            states = {job_id: self.document(job_id)["report"]["events"][-3:] for job_id in job_ids}
            logs = "\n".join(service.log_text()[-3000:] for service in self.services[-2:])
            raise AssertionError(f"{error}: {json.dumps(states, indent=1)}\n{logs}") from error

    def check(self, job_ids: list[int]) -> int:
        """Every job is DONE, each of its discs exists, once, and is right; returns the number of discs."""
        images: list[str] = []
        for job_id in job_ids:
            found = self.document(job_id)
            assert found["state"] == "DONE", (found["error"], self.services[-1].log_text()[-4000:])
            assert len(found["discs"]) == found["copies"] * max(disc["of"] for disc in found["discs"])
            for disc in found["discs"]:
                assert (disc["state"], disc["verified_by"], disc["attempt"]) == ("VERIFIED", "read-back", 1)
                result = verify_path(Path(disc["image"]))
                assert result.ok, result.problems[:3]
                assert (result.image_sha256, result.file_set_uid) == (disc["sha256"], disc["file_set_uid"])
                images.append(disc["image"])
        assert sorted(path.name for path in self.discs.iterdir()) == sorted(Path(image).name for image in images)
        assert len(set(images)) == len(images)
        assert len({Path(image).stat().st_ino for image in images}) == len(images)
        with self.db.read() as session:
            verified = session.execute(
                select(Event.disc_id).where(Event.kind == "disc", Event.new == "VERIFIED", Event.job_id.in_(job_ids))
            )
            assert max(Counter(verified.scalars()).values()) == 1
            assert all(held is None for held in session.scalars(select(BurnerSlot.disc_id)))
        return len(images)

    def close(self) -> None:
        for service in self.services:
            service.end()
        self.db.close()


class Service:
    """One `burnish serve`."""

    def __init__(self, site: Site, node: str, *, dicom_port: int = 0, http_port: int = 0) -> None:
        self.node = node
        self._log = site.folder / f"{node}-{len(site.services)}.log"
        self._out = site.folder / f"{node}-{len(site.services)}.out"
        arguments = [
            *("serve", "--json", "--config", str(site.folder / f"{node}.toml")),
            *("--data", str(site.folder / "data" / node)),
            *("--dicom-port", str(dicom_port), "--http-port", str(http_port)),
        ]
        self.process: subprocess.Popen[bytes] | Child
        if soak.FULL:
            command = [sys.executable, "-m", "service", *arguments]
            with self._log.open("wb") as log, self._out.open("wb") as out:
                self.process = subprocess.Popen(command, stdout=out, stderr=log, cwd=Path(__file__).parents[2])
        else:
            self._out.touch()
            self._log.touch()
            self.process = nursery().start(arguments, out=self._out, log=self._log)

    def ready(self) -> dict[str, Any]:
        """The ready event, when it has come."""
        wait_for(lambda: self._ready_line() or self.process.poll() is not None, "the service to be ready")
        assert self.process.poll() is None, self.log_text()
        found: dict[str, Any] = json.loads(self._ready_line())
        return found

    def _ready_line(self) -> str:
        text = self._out.read_text()
        return text.partition("\n")[0] if "\n" in text else ""

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> float:
        """kill -9, which ends the helpers, too; returns the seconds until all of them were gone."""
        helpers = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        began = time.monotonic()
        wait_for(lambda: not any(is_alive(helper) for helper in helpers), "the helpers to die")
        return time.monotonic() - began

    def stop(self) -> None:
        """SIGSTOP, the helpers too: as when a machine sleeps."""
        for pid, _ in descendants(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        for pid, _ in descendants(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.go_on()
            self.process.kill()
            self.process.wait()


def descendants(pid: int) -> list[tuple[int, str]]:
    """Processes below one, with their start times (a number may be used again)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[tuple[int, str]] = []
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            fields = _stat(child)
            if fields:
                found.append((child, fields[19]))
                todo.append(child)
    return found


def is_alive(process: tuple[int, str]) -> bool:
    return started_at(process[0]) == process[1]


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
