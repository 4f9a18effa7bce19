"""A simulated year of an archive: the real store and jobs code, one step at a time, under a clock of its own.

The world below the code is made up: people who send studies, a burner that spoils discs, a shelf from which discs
vanish, an operator, a database that is lost, and a power switch that goes off at any commit. What is on each disc is
read from its image by this file alone, so the model knows what must still be retrievable whatever the catalogue says.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

import jobs.conforming
import jobs.planning
import store.models_base
import store.spool
from burners.base import BurnOrder, BurnRefused, BurnReport, Ticket
from burners.iso_export import IsoExport
from burners.registry import Burners
from config.settings import load
from jobs import pools, reburning, recalls, retaining, reverifying, schedules, workflow
from jobs.conform_pool import Conformed, Task
from jobs.context import Context
from jobs.filling import Filler
from jobs.leases import Abandoned, LeaseKeeper
from jobs.options import RequestOptions
from jobs.planning import create_request
from jobs.work import RealRooms, Work
from media.conform import conform
from media.edits import NO_EDITS
from media.problems import MediaError
from media.trees import open_tree
from service import rebuilding
from store import atrisk, holds, instances, migrate, retention, shelves, slots
from store import jobs as store_jobs
from store import pools as store_pools
from store import schedules as store_schedules
from store.checks import counts, is_unconfirmed
from store.db import Database
from store.discs import latest_discs
from store.instances import Provenance, Registrar, ingest_file
from store.models import Derived, Instance, Study
from store.models_jobs import Disc, Job, Volume, VolumeInstance
from store.reburns import ReburnError
from store.selection import Selection
from store.spool import Spool
from store.states import DISC_FINAL, JOB_FINAL, JOB_PREPARING, DiscState, JobState
from tests.makers import EXPLICIT_LE, IMPLICIT_LE, Patient, make

REQUIRED = 2
"""Discs of the pool that must hold what is not in the spool any more."""
_STARTED = datetime(2030, 1, 1, 8, tzinfo=UTC)
_HANDOUT = "handout"


class Killed(BaseException):
    """The power went off."""


class Clock:
    """What the code takes for now."""

    def __init__(self) -> None:
        self.at = _STARTED

    def install(self, patch: pytest.MonkeyPatch) -> None:
        clock = self

        class Simulated(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                clock.at += timedelta(milliseconds=1)  # two things never happen at the same time
                return clock.at.astimezone(tz)

        for module in (store.models_base, store.spool, jobs.planning):
            patch.setattr(module, "datetime", Simulated)


class Spoiling(IsoExport):
    """A burner that refuses an order now and then, and spoils a disc so that nobody knows before it is read back."""

    dice = random.Random()
    spoils = True

    def prepare(self, order: BurnOrder) -> Ticket:
        if self.spoils and self.dice.random() < 0.04:
            raise BurnRefused("the tray is open")
        return super().prepare(order)

    def _write(self, order: BurnOrder, ticket: Ticket, writer: Any) -> BurnReport:
        report = super()._write(order, ticket, writer)
        if self.spoils and report.image is not None and self.dice.random() < 0.05:
            damage(report.image, self.dice)
        return report


def damage(image: Path, dice: random.Random) -> None:
    """Change some bytes in the files of an image."""
    size = image.stat().st_size - 150 * 2048
    with image.open("r+b") as file:
        for _ in range(3):
            file.seek(dice.randrange(30 * 2048, max(size, 31 * 2048)))
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 0xFF]))


@dataclass
class Shelved:
    """A disc as it really is, whatever the catalogue believes."""

    path: Path
    holds: dict[str, str]
    """Digest of the data set by SOP Instance UID, as it was when the disc was verified."""
    archive: bool
    """The catalogue knows that it is for the archive."""
    made_for_it: bool
    sound: bool = True
    """Physically there and unharmed."""
    known: bool = True
    """The catalogue counts on it: nobody has said that it is lost or damaged."""


@dataclass
class Acknowledged:
    """An instance that somebody was told we have."""

    uid: str
    digest: str
    """Of its data set."""
    on_disc: str
    """Of the same as it is conformed for a disc."""
    study: str
    instance_id: int
    received: str = ""
    """Its digest when it was acknowledged: ``digest`` is ``on_disc`` while the catalogue knows nothing better."""

    def __post_init__(self) -> None:
        self.received = self.received or self.digest


@dataclass
class Year:
    """The world and its model."""

    folder: Path
    clock: Clock
    dice: random.Random
    held: dict[str, Acknowledged] = field(default_factory=dict)
    """By the digest of the data set: two may have one UID."""
    shelf: dict[int, Shelved] = field(default_factory=dict)
    keeps: dict[str, datetime] = field(default_factory=dict)
    """Studies that are held in the spool, and until when."""
    happened: Counter[str] = field(default_factory=Counter)
    studies: int = 0

    def __post_init__(self) -> None:
        Spoiling.dice, Spoiling.spoils = self.dice, True
        self._until_kill = 0
        self.settings = load(
            data=self.folder / "data",
            overrides={"recall": {"keep_hours": 24.0, "timeout_hours": 240.0}, "node": {"name": "n1"}},
        )
        self.settings.derived_dir.mkdir(parents=True, exist_ok=True)
        self.vault = self.folder / "vault"
        self.vault.mkdir()
        self._open()
        self._order_the_archive()

    # -- the house ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Start, as the service does, on what lies there."""
        self.db = Database(f"sqlite:///{self.folder / 'burnish.db'}")
        event.listen(self.db.engine, "connect", _in_haste)
        migrate.upgrade(self.db)
        self._begin = self.db.begin
        self.db.begin = self._dangerous  # type: ignore[method-assign]
        self.ctx = Context(self.settings, self.db, Spool(self.settings.spool_dir, node="n1"))
        burner = Spoiling("iso", {"folder": "discs"}, data=self.folder / "data")
        self.leases = LeaseKeeper(self.db, "n1", 3600.0, on_fatal=self._fatal)
        self.leases.start()
        self.work = Work(
            self.ctx,
            Burners({"iso": burner}),
            self.leases,
            RealRooms(),
            step=lambda _name, do: do(),
            wake=lambda: None,
        )
        with self._begin() as session:
            slots.ensure(session, "iso", slots.EVERY_NODE if burner.shared else "n1", 1)
        self.scheduler = schedules.Scheduler(self.ctx, in_threads=False)
        instances.sweep(self.db, self.ctx.spool)
        retention.sweep(self.db, self.ctx.spool, self.settings.derived_dir)

    def _fatal(self, reason: str) -> None:
        raise AssertionError(reason)

    def close(self) -> None:
        self._until_kill = 0
        self.work.burners.close()
        self.leases.release()
        self.db.close()

    def restart(self) -> None:
        """After a kill: nothing that was in memory is left."""
        self.close()
        self._open()

    @contextmanager
    def _dangerous(self) -> Iterator[Session]:
        """A transaction after which, or in which, the power may go off."""
        last = False
        if self._until_kill:
            self._until_kill -= 1
            last = self._until_kill == 0
        before = last and self.dice.random() < 0.5
        with self._begin() as session:
            yield session
            if before:
                raise Killed
        if last:
            raise Killed

    def _order_the_archive(self) -> None:
        given = {
            "copies": REQUIRED,
            "min_fill": 50,
            "latest_days": 20,
            "quiet_minutes": 60,
            "options": {"capacity_sectors": 500},
            "shelves": ["A/1", "vault"],
        }
        with self.db.begin() as session:
            store_pools.add(session, "arch", pools.values_of(self.settings, given))
        daily = {"kind": "archive", "trigger": {"cron": "0 3 * * *"}, "timezone": "UTC", "pool": "arch"}
        with self.db.begin() as session:
            store_schedules.add(session, "daily", schedules.values_of(session, self.settings, daily))

    # -- steps -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Something happens; the power may go off in it."""
        what = self.dice.choices(
            [self.arrive, self.late, self.days, self.archive, self.handout, self.purge, self.lose, self.damage_silently,
             self.find_again, self.put_on_shelf, self.reread, self.recall, self.reburn, self.retry, self.keep,
             self.lend, self.lose_database],
            [16, 5, 12, 16, 2, 8, 3, 2, 2, 5, 4, 9, 6, 6, 2, 2, 1],
        )[0]  # fmt: skip
        name = what.__name__
        if self.dice.random() < 0.2:
            self._until_kill = self.dice.randint(1, 12)
        self.happened[name] += 1
        try:
            what()
        except (Killed, Abandoned):
            self.happened["kill"] += 1
            self.restart()
        self._until_kill = 0
        self._look_at_discs()
        self.check(name)

    def arrive(self) -> None:
        """A study comes in."""
        self.studies += 1
        self._receive(self.studies, 1, self.dice.randint(1, 4))

    def late(self) -> None:
        """More of a study that came before, or the same again; seldom another content under a known UID."""
        if self.studies:
            number = self.dice.randint(1, self.studies)
            other = {"StationName": f"CT{self.dice.randint(2, 9)}"} if self.dice.random() < 0.1 else {}
            self._receive(number, self.dice.randint(1 if other else 4, 9), 1, **other)

    def _receive(self, study: int, first: int, count: int, **values: Any) -> None:
        patient = Patient(f"P{study % 7}", f"Patient^{study % 7}")
        syntax = IMPLICIT_LE if study % 3 == 0 else EXPLICIT_LE
        folder = self.folder / "incoming"
        folder.mkdir(exist_ok=True)
        registrar = Registrar(self.db, self.ctx.spool)
        for number in range(first, first + count):
            values |= {"seed": study, "patient": patient, "study": study, "number": number, "size": 45_000}
            made = make("CT", transfer_syntax_uid=syntax, **values)
            path = made.write(folder)
            outcome = ingest_file(registrar, path, provenance=Provenance("CT_1", "BURNISH", "test"))
            digest = hashlib.sha256(made.encoded).hexdigest()
            plain = digest if syntax == EXPLICIT_LE else hashlib.sha256(make("CT", **values).encoded).hexdigest()
            uid = made.sop_instance_uid
            # From here on it is acknowledged.
            self.held[digest] = Acknowledged(uid, digest, plain, made.study_instance_uid, outcome.instance_id)

    def days(self) -> None:
        """Time passes."""
        self.clock.at += timedelta(days=self.dice.randint(1, 12), hours=self.dice.randint(0, 23))

    def archive(self) -> None:
        """Schedules fire, pools are filled, jobs run."""
        self.clock.at += timedelta(hours=self.dice.randint(2, 30))
        self.scheduler.tick()
        Filler(self.ctx).tick()
        self._run_jobs()

    def handout(self) -> None:
        """Somebody gets a disc of a study, or it goes to a safe: no place of the archive."""
        studies = sorted({one.study for one in self.held.values()})
        if studies:
            purpose = self.dice.choice((_HANDOUT, "backup"))
            options = RequestOptions.from_settings(self.settings, {"purpose": purpose, "skip_refused": True})
            with self.db.begin() as session:
                selection = Selection(study=(self.dice.choice(studies),))
                request = create_request(session, selection=selection, options=options, source="test")
                store_jobs.create_job(session, request, None, options)
            self._run_jobs()

    def _run_jobs(self) -> None:
        """What the engine does: every job that is not ended is planned, every disc made and read back."""
        while True:
            self._free_slots()
            with self.db.read() as session:
                to_plan = list(session.scalars(select(Job.id).where(Job.state.in_(JOB_PREPARING)).order_by(Job.id)))
                open_ = session.execute(select(Disc.id, Disc.ticket).where(Disc.state.not_in(DISC_FINAL)))
                to_make = [row[0] for row in sorted(open_, key=lambda row: (row[1] is None, row[0]))]
            if not to_plan and not to_make:
                break
            for job_id in to_plan:
                try:
                    workflow.prepare_job(self.work, job_id)
                except store_jobs.JobError as error:  # the engine's answer to what nobody foresaw
                    workflow.give_up_job(self.work, job_id, error)
            for disc_id in to_make:
                workflow.make_disc(self.work, disc_id)
            if not to_plan and to_make:
                with self.db.read() as session:
                    left = list(session.scalars(select(Disc.id).where(Disc.state.not_in(DISC_FINAL))))
                assert set(left) - set(to_make) or not left, f"discs that nobody can bring to an end: {left}"

    def _free_slots(self) -> None:
        """As the reconciler does: a disc that came to a bad end keeps its slot until the device is free."""
        lease = self.leases.current()
        with self.db.read() as session:
            found = slots.leftovers(session, lease)
        for leftover in found:
            burner = self.work.burners.get(leftover.burner)
            if burner is None or leftover.ticket is None or burner.poll(leftover.ticket).device_free:
                with self.db.begin() as session:
                    slots.release(session, leftover.disc_id)

    def retry(self) -> None:
        """An operator has what failed made again."""
        with self.db.read() as session:
            failed = list(session.scalars(select(Job.id).where(Job.state == JobState.FAILED).order_by(Job.id)))
        for job_id in failed[-3:]:
            with suppress(store_jobs.JobError), self.db.begin() as session:
                store_jobs.retry(session, job_id)
        self._run_jobs()

    def purge(self) -> None:
        """The spool is freed of what is on enough discs; nothing else may go."""
        before = self._in_spool()
        try:
            retaining.purge(self.ctx, retaining.policy(self.ctx, min_copies=1), dry_run=False)
        finally:
            for digest in before - self._in_spool():
                one, copies = self.held[digest], self.copies(digest)
                assert copies >= REQUIRED, f"{one.uid} was purged and is on {copies} discs"
                assert self.keeps.get(one.study, _STARTED) <= self.clock.at, f"{one.uid} was purged and is held"
                self.happened["purged"] += 1

    def lose(self) -> None:
        """A disc is missing at stocktaking, or broken; somebody says so."""
        if disc_id := self._pick(known=True):
            what = self.dice.choice(["LOST", "DAMAGED"])
            with self.db.begin() as session:
                shelves.mark(session, disc_id, what, reason="stocktaking")
            self.shelf[disc_id].known = False
            if self.dice.random() < 0.8:
                self._ruin(disc_id)

    def damage_silently(self) -> None:
        """A disc rots, and nobody knows."""
        if disc_id := self._pick(known=True):
            self._ruin(disc_id)

    def find_again(self) -> None:
        """A disc that was marked turns up whole."""
        if disc_id := self._pick(known=False, sound=True):
            try:
                with suppress(shelves.DiscError), self.db.begin() as session:
                    shelves.found(session, disc_id)
            finally:
                with self.db.read() as session:
                    self.shelf[disc_id].known = session.get_one(Disc, disc_id).marked is None

    def put_on_shelf(self) -> None:
        """An image is burnt and its file removed: the disc is no longer online."""
        with self.db.read() as session:
            online = [
                disc for disc in session.scalars(select(Disc).where(Disc.image.is_not(None))) if disc.id in self.shelf
            ]
        if online:
            disc = self.dice.choice(online)
            place = self.vault / f"{self.happened['put_on_shelf']}.iso"
            with self.db.begin() as session:
                session.execute(update(Disc).where(Disc.id == disc.id).values(image=None, location=None))
            one = self.shelf[disc.id]
            if one.path.exists():
                one.path.rename(place)
            one.path = place

    def reread(self) -> None:
        """A disc is read again after some time."""
        if disc_id := self._pick(known=True):
            one = self.shelf[disc_id]
            if not one.path.exists():
                return
            told = reverifying.check(self.ctx, disc_id, one.path)
            if not one.sound:
                assert told["checked_result"] == "DAMAGED", told
                one.known = False
            else:
                assert told["checked_result"] == "GOOD", told

    def keep(self) -> None:
        """Somebody wants a study to stay in the spool for a while."""
        if self.held:
            study = self.dice.choice(sorted({one.study for one in self.held.values()}))
            until = self.clock.at + timedelta(days=self.dice.randint(1, 60))
            with self.db.begin() as session:
                holds.keep(session, [study], reason="second opinion", until=until)
            self.keeps[study] = max(until, self.keeps.get(study, until))

    def lend(self) -> None:
        """A disc is lent, or comes back: it counts all the time."""
        if disc_id := self._pick(known=True):
            with suppress(shelves.DiscError), self.db.begin() as session:
                if session.get_one(Disc, disc_id).checked_out_to:
                    shelves.check_in(session, disc_id)
                else:
                    shelves.check_out(session, disc_id, "the court")

    def lose_database(self) -> None:
        """The database is lost: the catalogue is read from the discs that there are, the spool is taken in anew."""
        if not self.held:
            return
        self.close()
        old = self.folder / f"spool-{self.happened['lose_database']}"
        self.settings.spool_dir.rename(old)
        for path in self.folder.glob("burnish.db*"):
            path.unlink()
        until, self._until_kill = self._until_kill, 0
        self._open()
        self._order_the_archive()
        discs = {str(one.path): one for one in self.shelf.values() if one.path.exists()}
        paths = sorted(discs)
        self.dice.shuffle(paths)
        self._until_kill = until
        document = self._again(lambda: rebuilding.run(self.ctx, paths)) if paths else {"discs": []}
        self._again(lambda: self._take_in(old))
        self._until_kill = 0
        self.shelf = {}
        for told in document["discs"]:
            one = discs[told["path"]]
            assert (told["result"] in ("ENTERED", "KNOWN")) is one.sound, told
            if told["disc"]:
                counts_now = told["purpose"] == "archive"
                assert counts_now is one.made_for_it or (one.made_for_it and not one.sound), told
                one.archive = counts_now
                one.known = one.sound
                self.shelf[int(told["disc"][1:])] = one
        self.keeps.clear()
        self._forget_what_is_gone()

    def _again(self, task: Callable[[], Any]) -> Any:
        """A task that is begun anew after a kill."""
        while True:
            try:
                return task()
            except Killed:
                self.happened["kill"] += 1
                self.restart()

    def _take_in(self, folder: Path) -> None:
        registrar = Registrar(self.db, self.ctx.spool)
        for path in sorted(folder.rglob("*.dcm")):
            ingest_file(registrar, path, provenance=Provenance("", "", "import"))

    def _forget_what_is_gone(self) -> None:
        """What was neither in the spool nor is on a disc that can be read was at risk, and is lost. Numbers are new."""
        with self.db.read() as session:
            numbers = dict(session.execute(select(Instance.digest, Instance.id)).tuples().all())
        before, self.held = self.held, {}
        for one in before.values():
            # Only a disc that was handed out has it, or a damaged one that cannot tell how it was received; when the
            # catalogue is rebuilt once more, another disc may tell.
            one.digest = next(
                (digest for digest in (one.digest, one.received, one.on_disc) if digest in numbers), one.digest
            )
            self.held[one.digest] = one
            if one.digest in numbers:
                one.instance_id = numbers[one.digest]
                continue
            assert not self.copies(one.digest, sound=True), f"{one.uid} is on a disc, and not in the rebuilt catalogue"
            del self.held[one.digest]
            self.happened["lost for good"] += 1
        here = self._in_spool()
        with self.db.read() as session:
            query = select(VolumeInstance.instance_id).join(Disc, Disc.volume_id == VolumeInstance.volume_id)
            unsure = set(session.scalars(query.where(is_unconfirmed())))
        for digest, one in list(self.held.items()):
            of_the_archive = any(disc.archive and one.uid in disc.holds for disc in self.shelf.values())
            if digest not in here and not of_the_archive:  # a backup has it, or a disc that went away
                assert one.instance_id in unsure, f"{one.uid} is on no disc of the archive, and nobody is told"
                del self.held[digest]
                self.happened["only away"] += 1

    def reburn(self) -> None:
        """What is on too few discs is made anew, from the spool or from another copy."""
        with self.db.read() as session:
            short = atrisk.volumes(session, in_spool_too=True)
        for volume in short[:2]:
            with suppress(ReburnError, MediaError):
                paths = [one.path for number, one in self.shelf.items() if one.path.exists() and one.sound
                         and f"D{number}" in [disc["disc"] for disc in volume["discs"]]]  # fmt: skip
                reburning.order(self.ctx, volume["file_set_uid"], path=paths[0] if paths else None)
        self._run_jobs()

    def recall(self) -> None:
        """A study is wanted back; an operator brings what is asked for, and sometimes another disc."""
        studies = sorted({one.study for one in self.held.values()})
        if not studies:
            return
        study = self.dice.choice(studies)
        self._bring_back(study, honest=False)

    def _bring_back(self, study: str, *, honest: bool) -> None:
        """Recall a study: what a sound disc holds must come, byte for byte."""
        wanted = {digest: one for digest, one in self.held.items() if one.study == study}
        here = self._here()
        possible = [digest for digest in wanted if digest in here or self.copies(digest, sound=True)]
        numbers = [one.instance_id for one in wanted.values()]
        with suppress(recalls.recalls.RecallError):
            number = recalls.begin(self.ctx, numbers, source="cli", by="test", selection={"study": [study]})
            self._serve(number, honest=honest)
            here = self._here()
            for digest in possible:
                assert digest in here, (
                    f"{wanted[digest].uid} could be had from a disc, and did not come: "
                    f"{recalls.document(self.ctx, number)}"
                )

    def _serve(self, number: int, *, honest: bool) -> None:
        """An operator with patience."""
        work = recalls.RecallWork(self.ctx, lambda *_: [])
        for _ in range(12):
            work.once()
            document = recalls.document(self.ctx, number)
            if document["state"] not in ("WAITING", "RESTORED", "SENDING"):
                return
            asks = [ask for ask in recalls.listing(self.ctx)["asks"] if f"C{number}" in ask["recalls"]]
            if not asks:
                continue
            disc_id = int(asks[0]["disc"][1:])
            if not honest and self.dice.random() < 0.2:
                disc_id = self.dice.choice(sorted(self.shelf))
            if self.shelf[disc_id].path.exists():
                told = recalls.offer(self.ctx, self.shelf[disc_id].path, "drive 1", disc_id=self._asked(disc_id, asks))
                if told["result"] == recalls.READ and told["failed"]:
                    self._notice()
            else:
                with self.db.begin() as session:
                    shelves.mark(session, disc_id, "LOST", reason="not on its shelf")
                self.shelf[disc_id].known = False
        if recalls.document(self.ctx, number)["state"] == "WAITING":
            recalls.refuse(self.ctx, number, reason="the operator gives up", by="test")

    @staticmethod
    def _asked(disc_id: int, asks: list[dict[str, Any]]) -> int | None:
        return disc_id if f"D{disc_id}" in [ask["disc"] for ask in asks] else None

    # -- the model ---------------------------------------------------------------------------------------------------

    def _pick(self, *, known: bool, sound: bool | None = None) -> int | None:
        found = [number for number, one in self.shelf.items() if one.known is known and sound in (None, one.sound)]
        return self.dice.choice(sorted(found)) if found else None

    def _ruin(self, disc_id: int) -> None:
        one = self.shelf[disc_id]
        one.sound = False
        if not one.path.exists():
            return
        if self.dice.random() < 0.5:
            one.path.unlink()
            one.path = self.folder / "nowhere"  # after a rebuild another disc may get its name
        else:
            damage(one.path, self.dice)

    def _notice(self) -> None:
        """A reading that failed flags its disc: the model believes what the catalogue says of damage, not of health."""
        with self.db.read() as session:
            rows = session.execute(select(Disc.id, Disc.checked_result, Disc.marked))
            for number, result, marked in rows:
                if number in self.shelf and (result == "DAMAGED" or marked):
                    assert not self.shelf[number].sound or marked, f"D{number} is whole and called damaged"
                    self.shelf[number].known = False

    def _look_at_discs(self) -> None:
        """Read what is really on each disc that was newly verified."""
        with self.db.read() as session:
            rows = session.execute(
                select(Disc.id, Disc.image, Disc.purpose).where(Disc.state == DiscState.VERIFIED).order_by(Disc.id)
            )
            new = [row for row in rows if row[0] not in self.shelf]
        for number, image, purpose in new:
            path = Path(image)
            self.shelf[number] = Shelved(path, contents(path), purpose == "archive", purpose == "archive")
            self.happened["disc"] += 1
        self._notice()

    def copies(self, digest: str, *, sound: bool = False) -> int:
        """Discs of the archive that hold an instance with the right bytes and that the catalogue may count on."""
        wanted = self.held[digest]
        return sum(
            one.archive
            and one.known
            and (one.sound or not sound)
            and one.holds.get(wanted.uid) in (digest, wanted.on_disc)
            for one in self.shelf.values()
        )

    def _in_spool(self) -> set[str]:
        """Acknowledged instances, by digest, that are in the spool: with the very bytes that were received."""
        found = set()
        by_id = {one.instance_id: one for one in self.held.values()}
        with self.db.read() as session:
            rows = list(
                session.execute(select(Instance.id, Instance.spool_path).where(Instance.spool_path.is_not(None)))
            )
        for number, path in rows:
            if (one := by_id.get(number)) is not None:
                digest = digest_of(self.ctx.spool.path_of(path).read_bytes())
                assert digest == one.digest, f"{one.uid} is in the spool as something else"
                found.add(digest)
        return found

    def _here(self) -> set[str]:
        """The same, and those that are back from a disc as they were conformed for it."""
        found = self._in_spool()
        with self.db.read() as session:
            rows = session.execute(select(Derived.source_digest, Derived.path).where(Derived.restored_at.is_not(None)))
            for digest, path in rows:
                if (one := self.held.get(digest)) is not None:
                    back = digest_of(self.ctx.derived_path(path).read_bytes())
                    assert back == one.on_disc, f"{one.uid} is back as something else"
                    found.add(digest)
        return found

    def check(self, after: str) -> None:
        """Everything acknowledged is in the spool, or on the required number of counted discs, or told as at risk."""
        here = self._in_spool()
        with self.db.read() as session:
            told = set(atrisk.instances(session))
            counted: Counter[int] = Counter()
            rows = session.execute(
                select(VolumeInstance.instance_id, Disc.id)
                .join(Disc, Disc.volume_id == VolumeInstance.volume_id)
                .where(counts())
            )
            counted.update(row[0] for row in rows)
            rows = session.execute(select(Volume.id, Volume.good_copies, Volume.wanted_copies))
            assert all(good >= 0 and wanted in (0, 1, REQUIRED) for _, good, wanted in rows)
        for digest, one in self.held.items():
            copies = self.copies(digest)
            at_risk = one.instance_id in told
            where = f"after {after}: {one.uid} (I{one.instance_id})"
            assert counted[one.instance_id] == copies, (
                f"{where}: {counted[one.instance_id]} counted, {copies} are there"
            )
            if digest not in here:
                assert copies >= REQUIRED or at_risk, (
                    f"{where} is on {copies} discs, not in the spool, and nobody says so"
                )
            assert not (at_risk and (digest in here or copies >= REQUIRED)), f"{where} is told as at risk and is not"

    def end(self) -> None:
        """At last nothing is open; what can be put on discs is on enough of them, and all comes back from them."""
        self._until_kill = 0
        Spoiling.spoils = False
        for _ in range(4):
            self.clock.at += timedelta(days=30)
            self.archive()
            self.retry()
            self.reburn()
            self._look_at_discs()
        with self.db.read() as session:
            states = Counter(session.scalars(select(Job.state)))
            assert not set(states) - set(JOB_FINAL)
            for job_id in session.scalars(select(Job.id).where(Job.state == JobState.DONE)):
                assert all(disc.state == DiscState.VERIFIED for disc in latest_discs(session, job_id))
            assert set(session.scalars(select(Study.study_instance_uid))) >= {one.study for one in self.held.values()}
        self._nothing_is_forgotten()
        self.purge()
        self.check("the last purge")
        self.happened["lose_database"] += 1
        self.lose_database()
        self.check("the last loss")
        for study in sorted({one.study for one in self.held.values()}):
            self._bring_back(study, honest=True)
        self._look_at_discs()
        self.check("the last recalls")

    def _nothing_is_forgotten(self) -> None:
        """What waits in the spool is on as many discs as wanted, or its volume is told as short, or is a conflict."""
        with self.db.read() as session:
            told = {
                number
                for volume in atrisk.volumes(session, in_spool_too=True)
                for number in session.scalars(
                    select(VolumeInstance.instance_id).where(VolumeInstance.volume_id == volume["volume_id"])
                )
            }
            two = select(Instance.sop_instance_uid).group_by(Instance.sop_instance_uid).having(func.count() > 1)
            told.update(session.scalars(select(Instance.id).where(Instance.sop_instance_uid.in_(two))))
        for digest in self._in_spool():
            one = self.held[digest]
            assert self.copies(digest) >= REQUIRED or one.instance_id in told, f"{one.uid} is on no disc, and waits"


def in_haste(patch: pytest.MonkeyPatch) -> None:
    """The power only goes off in the model: nothing need be waited for, and conforming needs no process of its own."""
    for name in ("fsync", "fdatasync"):
        patch.setattr(os, name, lambda _descriptor: None)
    patch.setattr(jobs.conforming, "conform_all", _conform_here)


def _in_haste(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def _conform_here(tasks: Sequence[Task], **_: Any) -> Iterator[Conformed]:
    for task in tasks:
        made = conform(task.source, task.target, task.recipe, edits=None if task.edits == NO_EDITS else task.edits)
        yield Conformed(
            task, made.size, made.sha256, made.transfer_syntax_uid, tuple(made.changes), made.directory_keys,
            made.new_sop_instance_uid, made.facts,
        )  # fmt: skip


def contents(image: Path) -> dict[str, str]:
    """Digest of each data set on a disc, by the SOP Instance UID that its file meta information has."""
    found = {}
    with open_tree(image) as tree:
        for name in tree.files:
            if name.startswith("DICOM/"):
                with tree.open(name) as file:
                    data = file.read()
                found[uid_of(data)] = digest_of(data)
    return found


def _meta_end(data: bytes) -> int:
    assert data[128:132] == b"DICM"
    return 144 + int.from_bytes(data[140:144], "little")


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data[_meta_end(data) :]).hexdigest()


def uid_of(data: bytes) -> str:
    """Media Storage SOP Instance UID (0002,0003)."""
    at = data.index(b"\x02\x00\x03\x00UI", 132)
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    return data[at + 8 : at + 8 + length].decode("ascii").strip("\0 ")
