"""Records of an exported catalogue (``store.exchange``) entered in a database: what is there already stays as it is.

Records may be anybody's: each value is checked against its column before it gets near the database.
"""

from __future__ import annotations

import re
from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from store import copies, entering
from store.checks import PURPOSES, UNKNOWN
from store.exchange_values import BadRecord, Record, moment_of, require, sound, text_of, values_of, whole_of
from store.models import Derived, Instance, Patient, Series, Study
from store.models_archive import DiscCheck, Pool
from store.models_base import Base
from store.models_jobs import Disc, Job, Plan, Volume, VolumeInstance
from store.search import folded, further_groups
from store.states import DISC_FINAL

_UID = re.compile(r"[0-9][0-9.]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_ID = re.compile(r"[^\x00-\x1f\x7f/\\]+(/[^\x00-\x1f\x7f/\\]+)*")
_ORIGINS = ("own", "rebuilt", "foreign")


Options = Callable[[Mapping[str, Any]], dict[str, Any]]


def enter(session: Session, records: Sequence[Record], options_of: Options) -> dict[str, dict[str, int]]:
    """Enter some records of any tables, in their order; by table how many were ``new`` and how many ``known``.

    Raises BadRecord, naming the record by its place among these, from 1; then nothing of them must be kept.
    """
    counts: dict[str, Counts[str]] = {}
    entry = _Entering(session, options_of)
    start = 0
    while start < len(records):
        table = records[start].get("record")
        end = start
        while end < len(records) and records[end].get("record") == table:
            end += 1
        method = entry.methods.get(table) if isinstance(table, str) else None
        if method is None:
            raise BadRecord(f"record {start + 1} is of no table that there is")
        try:
            told = counts.setdefault(str(table), Counts())
            new = method(_numbered(records[start:end], start))
            told["new"] += new
            told["known"] += end - start - new
        except BadRecord as error:
            raise BadRecord(f"table {table}: {error}") from None
        except RecursionError:
            raise BadRecord(f"table {table}: a value is nested too deeply") from None
        start = end
    entry.finish()
    return {table: {"new": told["new"], "known": told["known"]} for table, told in counts.items()}


def _numbered(records: Sequence[Record], start: int) -> list[tuple[int, Record]]:
    return [(start + offset + 1, record) for offset, record in enumerate(records)]


_Rows = list[tuple[int, Record]]


class _Entering:
    """Enters runs of records of one table."""

    def __init__(self, session: Session, options_of: Options) -> None:
        self._session = session
        self._options_of = options_of
        self._recount: set[int] = set()
        self.methods: Mapping[str, Callable[[_Rows], int]] = {
            "pool": self._pools,
            "patient": self._patients,
            "study": self._studies,
            "series": self._series,
            "instance": self._instances,
            "derived": self._derived,
            "volume": self._volumes,
            "file": self._files,
            "disc": self._discs,
            "check": self._checks,
        }

    def finish(self) -> None:
        for volume_id in sorted(self._recount):
            copies.recount(self._session, volume_id)

    def _add(self, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> int:
        if rows:
            self._session.execute(insert(model), list(rows))
        return len(rows)

    def _pools(self, rows: _Rows) -> int:
        own = {"look_at": None, "seen_instance": 0}
        values = [{**values_of(Pool, number, record, *own), **own} for number, record in rows]
        names = {one["name"] for one in values}
        known = set(self._session.scalars(select(Pool.name).where(Pool.name.in_(names))))
        for one in values:
            if one["kind"] not in ("archive", "backup"):
                raise BadRecord(f"pool {one['name'][:40]!r} has a kind that is none")
            if not (1 <= one["copies"] <= 99 and 0 <= one["required_copies"] <= one["copies"]):
                raise BadRecord(f"pool {one['name'][:40]!r} has copies or required_copies that make no sense")
            if not (1 <= one["min_fill"] <= 100 and one["keep_days"] >= 0 and one["quiet_minutes"] >= 0):
                raise BadRecord(
                    f"pool {one['name'][:40]!r} has min_fill, keep_days or quiet_minutes that make no sense"
                )
        return self._add(Pool, _first(values, lambda one: one["name"], known))

    def _patients(self, rows: _Rows) -> int:
        values = []
        for number, record in rows:
            one = values_of(Patient, number, record, "name_search", "name_search_2", "name_search_3")
            require(one["identity"], _DIGEST, number, "identity")
            search = folded(one["patient_name"])[:600]
            second, third = further_groups(search)
            values.append({**one, "name_search": search, "name_search_2": second, "name_search_3": third})
        known = self._patient_ids({one["identity"] for one in values}).keys()
        return self._add(Patient, _first(values, lambda one: one["identity"], known))

    def _patient_ids(self, identities: set[str]) -> dict[str, int]:
        rows = self._session.execute(select(Patient.identity, Patient.id).where(Patient.identity.in_(identities)))
        return dict(rows.tuples().all())

    def _studies(self, rows: _Rows) -> int:
        patients = self._patient_ids({text_of(record, "patient", number) for number, record in rows})
        values = []
        for number, record in rows:
            patient = patients.get(record["patient"])
            if patient is None:
                raise BadRecord(f"record {number} names a patient that is not there")
            one = values_of(Study, number, record, "patient_id")
            require(one["study_instance_uid"], _UID, number, "study_instance_uid")
            values.append({**one, "patient_id": patient})
        found = self._session.execute(
            select(Study.patient_id, Study.study_instance_uid).where(
                Study.study_instance_uid.in_({one["study_instance_uid"] for one in values})
            )
        )
        known = {tuple(row) for row in found}
        return self._add(Study, _first(values, lambda one: (one["patient_id"], one["study_instance_uid"]), known))

    def _study_ids(self, rows: _Rows) -> dict[tuple[str, str], int]:
        uids = {text_of(record, "study", number) for number, record in rows if record.get("study") is not None}
        found = self._session.execute(
            select(Patient.identity, Study.study_instance_uid, Study.id)
            .join(Study, Study.patient_id == Patient.id)
            .where(Study.study_instance_uid.in_(uids))
        )
        return {(identity, uid): row_id for identity, uid, row_id in found}

    def _series(self, rows: _Rows) -> int:
        studies = self._study_ids(rows)
        values = []
        for number, record in rows:
            study = studies.get((text_of(record, "patient", number), text_of(record, "study", number)))
            if study is None:
                raise BadRecord(f"record {number} names a study that is not there")
            one = values_of(Series, number, record, "study_id")
            require(one["series_instance_uid"], _UID, number, "series_instance_uid")
            values.append({**one, "study_id": study})
        found = self._session.execute(
            select(Series.study_id, Series.series_instance_uid).where(
                Series.series_instance_uid.in_({one["series_instance_uid"] for one in values})
            )
        )
        known = {tuple(row) for row in found}
        return self._add(Series, _first(values, lambda one: (one["study_id"], one["series_instance_uid"]), known))

    def _instances(self, rows: _Rows) -> int:
        uids = {text_of(record, "series", number) for number, record in rows if record.get("series") is not None}
        found = self._session.execute(
            select(Patient.identity, Study.study_instance_uid, Series.series_instance_uid, Series.id)
            .join(Study, Study.patient_id == Patient.id)
            .join(Series, Series.study_id == Study.id)
            .where(Series.series_instance_uid.in_(uids))
        )
        series = {(identity, study, uid): row_id for identity, study, uid, row_id in found}
        values = []
        for number, record in rows:
            place = None
            if record.get("series") is not None:
                key = tuple(text_of(record, name, number) for name in ("patient", "study", "series"))
                place = series.get(key)  # type: ignore[arg-type]
                if place is None:
                    raise BadRecord(f"record {number} names a series that is not there")
            one = values_of(Instance, number, record, "series_id", "spool_path", "conflict_of")
            require(one["sop_instance_uid"], _UID, number, "sop_instance_uid")
            require(one["digest"], _DIGEST, number, "digest")
            values.append({**one, "series_id": place, "spool_path": None, "conflict_of": None})
        sops = {one["sop_instance_uid"] for one in values}
        known = self._instance_ids(sops).keys()
        new = _first(values, lambda one: (one["sop_instance_uid"], one["digest"]), known)
        self._add(Instance, new)
        if new:
            entering.settle_conflicts(self._session, {one["sop_instance_uid"] for one in new})
        return len(new)

    def _instance_ids(self, uids: set[str]) -> dict[tuple[str, str], int]:
        found = self._session.execute(
            select(Instance.sop_instance_uid, Instance.digest, Instance.id).where(Instance.sop_instance_uid.in_(uids))
        )
        return {(uid, digest): row_id for uid, digest, row_id in found}

    def _derived(self, rows: _Rows) -> int:
        values = []
        for number, record in rows:
            one = values_of(Derived, number, record, "path", "restored_at")
            require(one["source_digest"], _DIGEST, number, "source_digest")
            facts = one["facts"]
            if facts is not None and not isinstance(facts, dict):
                raise BadRecord(f"record {number}: facts is no object")
            if facts and isinstance(facts.get("patient_name"), str):
                one["facts"] = {**facts, "name_search": folded(facts["patient_name"])}
            path = entering.absent_path(one["source_digest"], re.sub(r"[^A-Za-z0-9._-]", "-", one["recipe"]))
            values.append({**one, "path": path, "restored_at": None})
        known = self._derived_ids({one["source_digest"] for one in values}).keys()
        new = _first(values, lambda one: (one["source_digest"], one["sop_instance_uid"], one["recipe"]), known)
        return self._add(Derived, new)

    def _derived_ids(self, digests: set[str]) -> dict[tuple[str, str, str], int]:
        found = self._session.execute(
            select(Derived.source_digest, Derived.sop_instance_uid, Derived.recipe, Derived.id).where(
                Derived.source_digest.in_(digests)
            )
        )
        return {(digest, uid, recipe): row_id for digest, uid, recipe, row_id in found}

    def _volumes(self, rows: _Rows) -> int:
        new = 0
        for number, record in rows:
            one = values_of(Volume, number, record, "plan_id", "good_copies", "wanted_copies")
            require(one["file_set_uid"], _UID, number, "file_set_uid")
            if one["origin"] not in _ORIGINS or not 1 <= one["number"] <= one["of"]:
                raise BadRecord(f"record {number}: origin, number or of makes no sense")
            if entering.volume_by_uid(self._session, one["file_set_uid"]) is not None:
                continue
            taken = select(Volume.id).where(Volume.file_set_id == one["file_set_id"], Volume.origin == "own")
            if one["origin"] == "own" and self._session.scalars(taken).first() is not None:
                one["origin"] = "rebuilt"  # since then a disc was made here that has this File-set ID
            plan = self._plan(number, record, one)
            self._session.add(Volume(**one, plan_id=plan.id, good_copies=0, wanted_copies=0))
            self._session.flush()
            new += 1
        return new

    def _plan(self, number: int, record: Record, volume: Mapping[str, Any]) -> Plan:
        given = record.get("set")
        if not isinstance(given, dict) or not isinstance(given.get("options"), dict):
            raise BadRecord(f"record {number}: set is no object with options")
        uids = given.get("volumes")
        if (
            not isinstance(uids, list)
            or len(uids) > 10_000
            or not all(isinstance(uid, str) and _UID.fullmatch(uid) for uid in uids)
        ):
            raise BadRecord(f"record {number}: set has no list of volumes")
        for sibling in self._session.scalars(select(Volume).where(Volume.file_set_uid.in_(uids))):
            free = select(Volume.id).where(Volume.plan_id == sibling.plan_id, Volume.number == volume["number"])
            if self._session.scalars(free).first() is None:
                return self._session.get_one(Plan, sibling.plan_id)
        copies_ = whole_of(given, "copies", number, 1, 99)
        return entering.enter_set(
            self._session,
            entering.NewSet(
                profile=text_of(given, "profile", number, 64),
                medium=text_of(given, "medium", number, 64),
                capacity_sectors=whole_of(given, "capacity_sectors", number, 0, 1 << 40),
                created_at=moment_of(given.get("created_at"), number, "created_at"),
                options=self._options_of(sound(given["options"])),
                pool=text_of(given, "pool", number, 32) if given.get("pool") is not None else None,
                copies=copies_,
            ),
        )

    def _files(self, rows: _Rows) -> int:
        volumes = self._volume_ids(rows)
        instances = self._instance_ids({text_of(record, "instance", number) for number, record in rows})
        derived = self._derived_ids({text_of(record, "digest", number) for number, record in rows})
        values = []
        for number, record in rows:
            volume = volumes.get(record["volume"])
            key = (record["instance"], record["digest"])
            if volume is None or key not in instances:
                raise BadRecord(f"record {number} names a volume or an instance that is not there")
            one = values_of(VolumeInstance, number, record, "volume_id", "instance_id", "derived_id")
            require(one["file_id"], _FILE_ID, number, "file_id")
            if ".." in one["file_id"].split("/") or not isinstance(one["supplied"], list):
                raise BadRecord(f"record {number}: file_id or supplied makes no sense")
            made = None
            if record.get("recipe") is not None:
                made = derived.get((record["digest"], record["instance"], text_of(record, "recipe", number)))
                if made is None:
                    raise BadRecord(f"record {number} names a derived file that is not there")
            values.append({**one, "volume_id": volume, "instance_id": instances[key], "derived_id": made})
        places = {(one["volume_id"], one["position"]) for one in values}
        found = self._session.execute(
            select(VolumeInstance.volume_id, VolumeInstance.position).where(
                VolumeInstance.volume_id.in_({volume for volume, _ in places}),
                VolumeInstance.position.in_({position for _, position in places}),
            )
        )
        known = {tuple(row) for row in found}
        new = _first(values, lambda one: (one["volume_id"], one["position"]), known)
        self._add(VolumeInstance, new)
        plans = self._session.execute(
            select(Volume.id, Plan.request_id)
            .join(Plan, Plan.id == Volume.plan_id)
            .where(Volume.id.in_({one["volume_id"] for one in new}))
        )
        for volume_id, request_id in plans:
            ids = [one["instance_id"] for one in new if one["volume_id"] == volume_id]
            entering.add_requested(self._session, request_id, ids)
        return len(new)

    def _volume_ids(self, rows: _Rows) -> dict[str, int]:
        uids = {text_of(record, "volume", number) for number, record in rows}
        found = self._session.execute(select(Volume.file_set_uid, Volume.id).where(Volume.file_set_uid.in_(uids)))
        return dict(found.tuples().all())

    def _discs(self, rows: _Rows) -> int:
        volumes = self._volume_ids(rows)
        found = self._session.execute(
            select(Volume.id, Job.id)
            .join(Job, Job.plan_id == Volume.plan_id)
            .where(Volume.id.in_(set(volumes.values())))
        )
        jobs = dict(found.tuples().all())
        values = []
        for number, record in rows:
            volume = volumes.get(record["volume"])
            if volume is None or volume not in jobs:
                raise BadRecord(f"record {number} names a volume that is not there")
            one = values_of(Disc, number, record, "job_id", "volume_id", "ticket", "node", "epoch", "progress")
            if one["state"] not in DISC_FINAL or one["purpose"] not in (*PURPOSES, UNKNOWN):
                raise BadRecord(f"record {number}: state or purpose is none that a disc may have")
            own = {"volume_id": volume, "job_id": jobs[volume], "ticket": None, "node": None, "epoch": None}
            values.append({**one, **own, "progress": 1.0})
        known = set(self._disc_ids({one["volume_id"] for one in values}))
        new = _first(values, lambda one: (one["volume_id"], one["copy"], one["attempt"]), known)
        self._recount |= {one["volume_id"] for one in new}
        return self._add(Disc, new)

    def _disc_ids(self, volumes: set[int]) -> dict[tuple[int, int, int], int]:
        found = self._session.execute(
            select(Disc.volume_id, Disc.copy, Disc.attempt, Disc.id).where(Disc.volume_id.in_(volumes))
        )
        return {(volume, copy, attempt): row_id for volume, copy, attempt, row_id in found}

    def _checks(self, rows: _Rows) -> int:
        volumes = self._volume_ids(rows)
        discs = self._disc_ids(set(volumes.values()))
        values = []
        for number, record in rows:
            key = (
                volumes.get(record["volume"], -1),
                whole_of(record, "copy", number, 1, 1 << 30),
                whole_of(record, "attempt", number, 1, 1 << 30),
            )
            if key not in discs:
                raise BadRecord(f"record {number} names a disc that is not there")
            values.append({**values_of(DiscCheck, number, record, "disc_id"), "disc_id": discs[key]})
        found = self._session.execute(
            select(DiscCheck.disc_id, DiscCheck.at).where(DiscCheck.disc_id.in_({one["disc_id"] for one in values}))
        )
        known = {tuple(row) for row in found}
        return self._add(DiscCheck, _first(values, lambda one: (one["disc_id"], one["at"]), known))


def _first(values: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any], known: Any) -> list[dict[str, Any]]:
    """Those that are not known, each once."""
    found: dict[Any, dict[str, Any]] = {}
    for one in values:
        if key(one) not in known:
            found.setdefault(key(one), one)
    return list(found.values())
