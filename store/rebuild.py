"""Enters in the catalogue what was read from a disc (``media.discread``)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Table, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from media import readme, signing
from media.discread import DiscFound, FileFound
from media.encoding import split
from media.items import Header
from media.setcatalogue import SetStudy
from media.setcatalogue_read import received_keys
from media.verify_meta import is_uid
from store import copies, entering
from store.bulk import insert_rows
from store.checks import UNKNOWN
from store.db import Database
from store.discs import record
from store.entering import Arrived, Made, NewSet
from store.models_base import now
from store.models_jobs import Disc, Plan, Request, Volume, VolumeInstance
from store.models_nodes import Event
from store.rebuild_better import is_better, take_back, worse_rows
from store.rebuild_sets import number_of, set_names
from store.registration import BadIdentity, Provenance, check_identity, patient_identity
from store.rereading import record_check
from store.states import DiscState

_CHUNK = 1000
_TRIES = 4
_BLANK_ID = re.compile(r"[^A-Z0-9_ ]")

_FILES: Table = VolumeInstance.__table__  # type: ignore[assignment]

OptionsOf = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Makes complete options of a request (``jobs.options``) of what is known of them."""


@dataclass(slots=True)
class Entered:
    """What became of one medium."""

    known: bool = False
    """Whether the catalogue had this volume before."""
    disc: str = ""
    purpose: str = ""
    """Of the disc: ``unknown`` where it does not tell, and the catalogue did not know."""
    new_disc: bool = False
    instances: int = 0
    """That are on it and in the catalogue now ..."""
    new_instances: int = 0
    """... and how many of them it had not."""
    lost: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    file_set_id: str = ""
    file_set_uid: str = ""
    notes: list[str] = field(default_factory=list)
    volume_id: int | None = None


@dataclass(slots=True)
class Run:
    """One rebuilding over many media: which discs were already seen in it."""

    options_of: OptionsOf
    another_copy: bool = False
    """Whether a medium is a further copy where it might also be one whose place cannot be seen from here."""
    dry_run: bool = False
    """Whether nothing stays of what is entered."""
    by: str = "cli"
    """Who has it done."""
    discs: set[int] = field(default_factory=set)
    volumes: set[int] = field(default_factory=set)


def enter(db: Database, found: DiscFound, run: Run) -> Entered:
    """Enter one medium in one transaction; doing it again changes nothing but that it was read once more."""
    for attempt in range(_TRIES):
        try:
            with db.begin() as session:
                entered = _Entry(session, found, run).run()
                if run.dry_run:
                    session.rollback()
                    return entered
                disc = int(entered.disc[1:]) if entered.disc else None
        except IntegrityError:  # somebody else entered a part of it at this moment
            if attempt == _TRIES - 1:
                raise
            continue
        if disc is not None:
            run.discs.add(disc)
        if entered.volume_id is not None:
            run.volumes.add(entered.volume_id)
        return entered
    raise AssertionError("unreachable")


class _Entry:
    """One medium on its way into the catalogue."""

    def __init__(self, session: Session, found: DiscFound, run: Run) -> None:
        self._session = session
        self._found = found
        self._run = run
        self._result = Entered(lost=dict(found.lost), file_set_id=found.identity.file_set_id)
        self._created = found.created or now().replace(microsecond=0)
        senders = found.set_catalogue.senders if found.set_catalogue is not None else []
        self._provenances = [Provenance(one.calling_ae, one.called_ae, one.source) for one in senders]
        self._by_study: dict[tuple[str, str], Header] | None = None

    def run(self) -> Entered:
        found, result = self._found, self._result
        ours = found.identity.ours
        uid = found.identity.file_set_uid
        volume = entering.volume_by_uid(self._session, uid) if uid else None
        if not ours and (not is_uid(uid) or (volume is not None and not self._is_it(volume))):
            # Others give one UID to several media, or none at all.
            uid = _uid_by_content(found.files)
            volume = entering.volume_by_uid(self._session, uid)
            result.notes.append("its File-set UID is none, or that of another medium: it has one by its content here")
        result.file_set_uid = uid
        result.known = volume is not None
        if volume is None:
            if not uid or (ours and not is_uid(uid)):
                result.notes.append("it does not say which File-set it is: nothing was entered")
                return result
            if not found.files:
                result.notes.append("nothing of it could be read: nothing was entered")
                return result
            volume = self._new_volume(uid, ours=ours)
        result.origin, result.volume_id, result.file_set_id = volume.origin, volume.id, volume.file_set_id
        better = result.known and is_better(self._session, volume, found)
        worse = worse_rows(volume, found, self._kept(volume.id)) if better else []
        self._complete(volume, better=better)
        take_back(self._session, volume, worse)
        self._enter_files(volume)
        self._note_image(volume)
        if ours:
            self._take_numbers()
        self._enter_disc(volume)
        return result

    def _is_it(self, volume: Volume) -> bool:
        """Whether a volume that the catalogue has holds what this medium holds."""
        kept = self._kept(volume.id)
        same = sum(kept[one.name][0] == one.sha256 for one in self._found.files if one.name in kept)
        return bool(same) and all(one.name in kept for one in self._found.files)

    def _kept(self, volume_id: int) -> dict[str, tuple[str, int]]:
        rows = self._session.execute(
            select(VolumeInstance.file_id, VolumeInstance.sha256, VolumeInstance.position).where(
                VolumeInstance.volume_id == volume_id
            )
        )
        return {file_id: (sha256, position) for file_id, sha256, position in rows}

    # ------------------------------------------------------------------ the volume and its set

    def _new_volume(self, uid: str, *, ours: bool) -> Volume:
        found = self._found
        plan = self._plan(ours=ours)
        of = found.of if ours else 1
        number = found.number if ours else 1
        capacity = plan.capacity_sectors
        other = self._session.scalars(
            select(Volume.file_set_uid).where(
                Volume.file_set_id == found.identity.file_set_id, Volume.origin != "foreign"
            )
        ).first()
        if ours and other is not None:
            self._result.notes.append(f"another disc ({other}) bears the same File-set ID")
        volume = Volume(
            plan_id=plan.id,
            number=number,
            of=of,
            file_set_id=_BLANK_ID.sub("_", found.identity.file_set_id.upper())[:16],
            file_set_uid=uid,
            created_at=self._created,
            sectors=found.sectors,
            capacity_sectors=capacity,
            readme=found.readme,
            image_sha256=None,
            signing_key=found.signing_key,
            signature=found.signature,
            protection=found.protection.method if found.protection else None,
            protection_roots=found.protection.roots if found.protection else None,
            iso_sectors=found.protection.iso_sectors if found.protection else None,
            set_catalogue=found.set_bytes,
            site=found.site,
            origin="rebuilt" if ours else "foreign",
            good_copies=0,
            wanted_copies=0,
        )
        self._session.add(volume)
        self._session.flush()
        return volume

    def _plan(self, *, ours: bool) -> Plan:
        """The plan of the set, where another of its volumes is in the catalogue; else a new one."""
        found = self._found
        siblings = self._siblings() if ours else []
        for sibling in siblings:
            taken = self._session.scalars(
                select(Volume.id).where(Volume.plan_id == sibling.plan_id, Volume.number == found.number)
            ).first()
            if taken is None:
                plan = self._session.get_one(Plan, sibling.plan_id)
                entering.enter_job(self._session, plan, 1)
                return plan
        return entering.enter_set(self._session, self._set())

    def _set(self) -> NewSet:
        """What this disc tells of the request that its set was made for."""
        found = self._found
        facts = found.set_catalogue.facts if found.set_catalogue is not None else None
        given: dict[str, Any] = dict(facts.options) if facts is not None else {}
        profile, medium = found.profile, found.medium
        if facts is None:
            given = {"profile": profile, "medium": medium, "purpose": self._purpose()}
        copies_ = given.get("copies")
        return NewSet(
            profile=profile[:64],
            medium=medium[:64],
            capacity_sectors=facts.capacity_sectors if facts is not None else 0,
            created_at=self._created,
            options=self._run.options_of(given),
            pool=self._pool(),
            copies=copies_ if type(copies_) is int and 1 <= copies_ <= 99 else 1,
        )

    def _siblings(self) -> list[Volume]:
        found = self._found
        if found.of == 1:
            return []
        if found.set_catalogue is not None:
            uids = [volume.file_set_uid for volume in found.set_catalogue.volumes.values()]
            return list(self._session.scalars(select(Volume).where(Volume.file_set_uid.in_(uids)).order_by(Volume.id)))
        # Volumes of one plan have File-set IDs that follow each other.
        names = set_names(found.identity.file_set_id, found.number, found.of)
        return list(
            self._session.scalars(
                select(Volume)
                .where(Volume.file_set_id.in_(names), Volume.of == found.of, Volume.origin != "foreign")
                .order_by(Volume.id)
            )
        )

    def _purpose(self) -> str:
        facts = self._found.set_catalogue.facts if self._found.set_catalogue is not None else None
        return facts.purpose if facts is not None and facts.purpose in ("archive", "backup") else UNKNOWN

    def _pool(self) -> str | None:
        facts = self._found.set_catalogue.facts if self._found.set_catalogue is not None else None
        return facts.pool or None if facts is not None else None

    def _complete(self, volume: Volume, *, better: bool) -> None:
        """What an earlier, damaged copy could not tell; where this one is ``better``, also what that told otherwise."""
        found = self._found
        if volume.origin != "rebuilt":
            return
        if volume.set_catalogue is None and found.set_catalogue is not None:
            self._complete_set(volume)
        volume.set_catalogue = volume.set_catalogue or found.set_bytes
        volume.sectors = volume.sectors or found.sectors
        broken = {problem.file for problem in found.problems}
        for name, column, here in (
            (readme.FILE_NAME, "readme", found.readme),
            (signing.KEY_FILE, "signing_key", found.signing_key),
            (signing.SIGNATURE_FILE, "signature", found.signature),
        ):
            if here and (not getattr(volume, column) or (better and name not in broken)):
                setattr(volume, column, here)

    def _complete_set(self, volume: Volume) -> None:
        """What the set was made for, where no disc of it told that until now."""
        session = self._session
        volume.number, volume.of, volume.created_at = self._found.number, self._found.of, self._created
        plan = session.get_one(Plan, volume.plan_id)
        told = select(Volume.id).where(Volume.plan_id == plan.id, Volume.set_catalogue.is_not(None)).limit(1)
        ours = session.get_one(Request, plan.request_id).source == entering.SOURCE
        if ours and session.scalars(told).first() is None:
            entering.tell_set(session, plan, self._set())
            session.execute(
                update(Volume).where(Volume.plan_id == plan.id).values(capacity_sectors=plan.capacity_sectors)
            )
        session.execute(
            update(Disc)
            .where(Disc.volume_id == volume.id, Disc.burner == entering.BURNER, Disc.purpose == UNKNOWN)
            .values(purpose=self._purpose(), pool=self._pool())
        )

    def _note_image(self, volume: Volume) -> None:
        found = self._found
        whole = found.image_sha256 is not None and found.sound and volume.origin == "rebuilt"
        if whole and volume.image_sha256 is None:
            volume.image_sha256 = found.image_sha256
        elif found.image_sha256 is not None and volume.image_sha256 not in (None, found.image_sha256):
            self._result.notes.append("its image is not the one that was made, bit by bit")

    def _take_numbers(self) -> None:
        """No new disc gets a File-set ID that one of these has."""
        found = self._found
        volumes = found.set_catalogue.volumes.values() if found.set_catalogue is not None else ()
        names = [found.identity.file_set_id, *(volume.file_set_id for volume in volumes)]
        numbers = [number for name in names if (number := number_of(name)) is not None]
        if numbers:
            entering.raise_number(self._session, "file_set", max(numbers))

    # ------------------------------------------------------------------ instances

    def _enter_files(self, volume: Volume) -> None:
        kept = self._kept(volume.id)
        result = self._result
        todo: list[FileFound] = []
        for one in self._found.files:
            if one.name not in kept:
                todo.append(one)
            elif kept[one.name][0] != one.sha256:
                result.lost[one.name] = f"Its SHA-256 is {one.sha256}; the catalogue says {kept[one.name][0]}."
            else:
                result.instances += 1
        here = {one.name for one in self._found.files}
        for name in kept.keys() - here - result.lost.keys():
            result.lost[name] = "It is not there; the catalogue has it on this disc."
        if volume.origin == "own":
            for one in todo:
                result.notes.append(f"{one.name} is not what was planned for this disc: it was not entered")
            return
        plan = self._session.get_one(Plan, volume.plan_id)
        taken = {position for _, position in kept.values()}
        for chunk in self._chunks([one for one in todo if one.position not in taken]):
            self._enter_chunk(volume, plan, chunk)

    def _chunks(self, files: Sequence[FileFound]) -> Iterator[Sequence[FileFound]]:
        """In the order in which they were received once: rows of series are made of the first."""
        catalogue = self._found.set_catalogue
        if catalogue is not None:
            entries = catalogue.entries
            files = sorted(files, key=lambda one: (entries[one.name].received, one.position))
        for start in range(0, len(files), _CHUNK):
            yield files[start : start + _CHUNK]

    def _enter_chunk(self, volume: Volume, plan: Plan, files: Sequence[FileFound]) -> None:
        good: list[tuple[FileFound, Arrived, Made | None]] = []
        for one in files:
            arrived, made = self._arrived(one)
            try:
                check_identity(arrived.header)
            except BadIdentity as error:
                self._result.lost[one.name] = f"It cannot be entered: {error}."
                continue
            good.append((one, arrived, made))
        ids, new = entering.enter_instances(self._session, [arrived for _, arrived, _ in good], self._studies())
        keys = {
            one.name: (arrived.digest, arrived.header.sop_instance_uid, made.recipe)
            for one, arrived, made in good
            if made is not None
        }
        derived = (
            entering.enter_made(self._session, {keys[one.name]: made for one, _, made in good if made is not None})
            if keys
            else {}
        )
        entries = self._found.set_catalogue.entries if self._found.set_catalogue is not None else {}
        rows = [
            {
                "volume_id": volume.id,
                "position": one.position,
                "instance_id": row_id,
                "derived_id": derived[keys[one.name]] if one.name in keys else None,
                "file_id": one.name,
                "size": one.size,
                "sha256": one.sha256,
                "supplied": [list(key) for key in entries[one.name].supplied] if one.name in entries else [],
            }
            for (one, _, _), row_id in zip(good, ids, strict=True)
        ]
        if rows:
            insert_rows(self._session.connection(), _FILES, rows)
            entering.add_requested(self._session, plan.request_id, ids)
        self._result.instances += len(rows)
        self._result.new_instances += new

    def _studies(self) -> Mapping[tuple[str, str], Header]:
        catalogue = self._found.set_catalogue
        if catalogue is None:
            return {}
        if self._by_study is None:
            here = [one for one in catalogue.studies if catalogue.volume.number in one.volumes]
            headers = [_study_header(study) for study in here]
            self._by_study = {(patient_identity(one), one.study_instance_uid): one for one in headers}
        return self._by_study

    def _arrived(self, one: FileFound) -> tuple[Arrived, Made | None]:
        """An instance as it was received, and what was made of it for the disc."""
        found = self._found
        header = found.header_of(one)
        catalogue = found.set_catalogue
        if catalogue is None:
            return (
                Arrived(header, one.digest, one.sha256, one.size, self._created, Provenance("", "", entering.SOURCE)),
                None,
            )
        entry = catalogue.entries[one.name]
        provenance = self._provenances[entry.sender]
        before = entry.before
        if before is None:
            return Arrived(header, entry.digest, one.sha256, one.size, entry.received, provenance), None
        keys = header.directory_keys
        received = replace(
            header,
            sop_instance_uid=before.sop_instance_uid,
            transfer_syntax_uid=before.transfer_syntax_uid,
            dataset_bytes=before.dataset_bytes,
            directory_keys=keys if not before.keys else received_keys(split(keys), before.keys),
            **{name: value for name, value in before.attributes.items() if name not in _SET_APART},
        )
        edited = before.keys is not None
        kept = before.sop_instance_uid == header.sop_instance_uid
        made = Made(
            recipe=before.recipe,
            size=one.size,
            sha256=one.sha256,
            transfer_syntax_uid=header.transfer_syntax_uid,
            changes=before.changes,
            new_sop_instance_uid=None if kept else header.sop_instance_uid,
            directory_keys=keys if edited else None,
            facts={name: getattr(header, name) for name in before.attributes} if edited else None,
            created_at=self._created,
        )
        arrived = Arrived(received, entry.digest, before.file_sha256, before.file_bytes, entry.received, provenance)
        return arrived, made

    # ------------------------------------------------------------------ the disc

    def _enter_disc(self, volume: Volume) -> None:
        found, result = self._found, self._result
        place = found.path.resolve()
        lasting = found.kind != "drive" and not place.is_mount()
        disc = self._disc_here(volume, place if lasting else None)
        if disc is None:
            disc = self._new_disc(volume, place if lasting else None)
            result.new_disc = True
        elif lasting and (disc.image is None or not Path(disc.image).exists()):
            disc.image = str(place)
            if disc.location is None or disc.location.startswith("/"):
                disc.location = str(place)
        if disc.purpose == UNKNOWN:  # an earlier reading may not have got so far as to know
            disc.purpose = self._purpose()
            disc.pool = self._pool()
        if disc.sha256 is None and disc.burner == entering.BURNER and not found.damaged:
            disc.sha256 = found.image_sha256
        result.disc, result.purpose = f"D{disc.id}", disc.purpose
        self._session.flush()
        damaged = bool(result.lost) or found.damaged
        self._session.add(
            Event(
                at=now(),
                kind="rebuild",
                job_id=disc.job_id,
                disc_id=disc.id,
                new="known" if result.known else "entered",
                detail={"by": self._run.by, "path": str(found.path), "instances": result.new_instances},
            )
        )
        detail = {
            "problems": len(found.problems),
            "lost": len(result.lost),
            "first": [problem.as_json() for problem in found.problems[:5]],
        }
        record_check(
            self._session,
            disc.id,
            good=not damaged,
            how=f"{found.kind} {found.path}",
            detail=detail,
            sectors=found.sectors or None,
            unreadable=found.sectors_unreadable if found.kind != "folder" else None,
            seconds=found.seconds,
        )
        copies.recount(self._session, volume.id)

    def _disc_here(self, volume: Volume, place: Path | None) -> Disc | None:
        """The disc of the catalogue that this medium is, as far as that can be told."""
        discs = list(
            self._session.scalars(
                select(Disc).where(Disc.volume_id == volume.id, Disc.state == DiscState.VERIFIED).order_by(Disc.id)
            )
        )
        if place is not None:
            for disc in discs:
                if str(place) in (disc.image, disc.location):
                    return disc
        if self._run.another_copy:
            return None
        for disc in discs:
            # One that was seen at another place in this same run is another one.
            if disc.id not in self._run.discs and not (disc.image is not None and Path(disc.image).exists()):
                return disc
        return None

    def _new_disc(self, volume: Volume, place: Path | None) -> Disc:
        plan = self._session.get_one(Plan, volume.plan_id)
        job = entering.enter_job(self._session, plan, 1)
        taken = self._session.scalars(select(Disc.copy).where(Disc.volume_id == volume.id)).all()
        facts = self._found.set_catalogue.facts if self._found.set_catalogue is not None else None
        # What was ordered here is known, though its disc does not say so.
        asked = self._session.get_one(Request, plan.request_id).options if volume.origin != "foreign" else {}
        ordered = str(asked.get("purpose") or self._purpose())
        at = now()
        disc = Disc(
            job_id=job.id,
            volume_id=volume.id,
            copy=max(taken, default=0) + 1,
            attempt=1,
            state=DiscState.VERIFIED,
            burner=entering.BURNER,
            ticket=None,
            node=None,
            epoch=None,
            progress=1.0,
            image=str(place) if place is not None else None,
            sha256=None if self._found.damaged else self._found.image_sha256,
            location=str(place) if place is not None else None,
            verified_by="read-back",
            verified_at=at,
            purpose=ordered if facts is None else self._purpose(),
            pool=self._pool(),
            times_read=0,
            error=None,
            created_at=self._created,
            updated_at=at,
        )
        self._session.add(disc)
        self._session.flush()
        record(self._session, job.id, disc.id, None, DiscState.VERIFIED, how=entering.SOURCE, image=disc.image)
        return disc


_SET_APART = frozenset(("sop_instance_uid", "transfer_syntax_uid"))


def _study_header(study: SetStudy) -> Header:
    """Of the study as it was received."""
    attributes: dict[str, Any] = {**study.attributes, **study.received}
    return Header("", "", "", **attributes)


def _uid_by_content(files: Sequence[FileFound]) -> str:
    """A UID for a medium that has none: the same for the same files."""
    digest = hashlib.sha256("".join(f"{one.sha256} {one.name}\n" for one in files).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
