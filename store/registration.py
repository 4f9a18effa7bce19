"""Registering a group of received instances in one transaction: a few statements, however many instances are held."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Literal

from sqlalchemy import Connection, Table, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from media.edits import Original
from media.items import Change, Header
from media.records import ROOT_RECORDS, record_type
from store.models import Instance, Patient, Series, Study
from store.models_base import now
from store.models_nodes import Event
from store.owncopies import OwnCopy
from store.owncopies import enter as enter_own
from store.search import folded, further_groups
from store.spool import Received, Spool

Kind = Literal["stored", "duplicate", "conflict"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an instance came from."""

    calling_ae: str
    called_ae: str
    source: str
    """The peer's address, or ``import``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a received instance; ``instance_id`` is the row that now stands for it."""

    kind: Kind
    instance_id: int
    sop_instance_uid: str
    changes: tuple[Change, ...] = ()
    """What was changed in it on its way in."""
    conformed: bool = False
    """It is a file that we made of that instance for a disc (``store.owncopies``): a duplicate."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What the site's rules changed in an instance before it was registered."""

    rules: str
    """Digest of the rule set; see ``store.reconcile``."""
    changes: tuple[Change, ...]
    digest: str
    """SHA-256 of the data set as it came."""
    original: Original | None = None
    """How the former values are kept in the instance; None: they are not."""


@dataclass(frozen=True, slots=True)
class Rival:
    """An instance held under the same SOP Instance UID with other bytes."""

    instance_id: int
    spool_path: str | None
    digest: str


@dataclass(slots=True, eq=False)
class Arrival:
    """A received instance that is to be registered."""

    header: Header
    received: Received
    provenance: Provenance
    received_at: datetime
    spool_path: str
    """Where it is published."""
    reconciled: Reconciled | None = None
    """What was changed in it on its way in."""
    verdicts: dict[int, bool] = field(default_factory=dict)
    """For each rival that was compared: whether it has equal content."""
    own: OwnCopy | None = None
    """It is a file that we made ourselves ..."""
    own_kept: bool = False
    """... and the transaction made its row name where it was placed."""
    kept: bool = False
    """Whether the transaction made a row name ``spool_path``."""


class BadIdentity(Exception):
    """A UID that says what the instance is or where it belongs is missing or no UID; ``tag`` says which."""

    def __init__(self, reason: str, tag: int) -> None:
        super().__init__(reason)
        self.tag = tag


_UIDS = (
    ("SOP Class UID", 0x00080016, "sop_class_uid"),
    ("SOP Instance UID", 0x00080018, "sop_instance_uid"),
    ("Study Instance UID", 0x0020000D, "study_instance_uid"),
    ("Series Instance UID", 0x0020000E, "series_instance_uid"),
)
_UID = re.compile(r"[0-9][0-9.]{0,63}")


def check_identity(header: Header) -> None:
    """Raise BadIdentity for an instance that could not be registered."""
    for keyword, tag, name in _UIDS[:2] if is_patientless(header) else _UIDS:
        uid: str = getattr(header, name)
        if not uid:
            raise BadIdentity(f"the instance has no {keyword}", tag)
        if not _UID.fullmatch(uid):
            raise BadIdentity(f"the {keyword} is no UID (at most 64 digits and dots)", tag)


@cache
def _is_root(sop_class_uid: str) -> bool | None:
    kind = record_type(sop_class_uid)
    return None if kind is None else kind in ROOT_RECORDS


def is_patientless(header: Header) -> bool:
    """Whether this object belongs to no patient (hanging protocols, palettes, implant templates, protocols)."""
    root = _is_root(header.sop_class_uid)
    return not header.study_instance_uid and not header.patient_id if root is None else root


def patient_identity(header: Header) -> str:
    """Digest of what makes a patient different from others, in lower-case hex.

    Patient ID, issuer, name and birth date; where there is no Patient ID also the study. Names are the same without
    regard to case, blanks and trailing empty components.
    """
    return _identity(
        header.patient_id,
        header.issuer_of_patient_id,
        header.patient_name,
        header.patient_birth_date,
        "" if header.patient_id.strip() else header.study_instance_uid,
    )


@lru_cache(256)
def _identity(patient_id: str, issuer: str, name: str, birth_date: str, study: str) -> str:
    parts = [patient_id.strip(), issuer.strip(), plain_name(name), birth_date.strip()]
    if not parts[0]:
        parts.append(study)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def plain_name(patient_name: str) -> str:
    """A name as two of them are compared: without regard to case, blanks and trailing empty components."""
    groups = [_plain("^".join(map(_plain, group.rstrip("^ ").split("^")))) for group in patient_name.split("=")]
    return "=".join(groups).rstrip("=")


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def register_group(connection: Connection, spool: Spool, arrivals: Sequence[Arrival]) -> list[Outcome | list[Rival]]:
    """Register instances whose SOP Instance UIDs differ from each other; what became of each, in their order.

    Where an instance has rivals that its verdicts do not speak of, nothing is done with it: they are returned, and the
    caller compares and comes again. IntegrityError where another process was faster: come again as well.
    """
    uids = [arrival.header.sop_instance_uid for arrival in arrivals]
    if connection.dialect.name == "postgresql":
        # Two nodes that receive one UID at the same moment follow one another; the order of keys prevents deadlocks.
        keys = sorted(int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big", signed=True) for uid in uids)
        connection.execute(text("SELECT pg_advisory_xact_lock(k) FROM unnest(CAST(:k AS bigint[])) AS k"), {"k": keys})
    held: dict[str, list[tuple[int, str, str | None]]] = {}
    columns = (Instance.sop_instance_uid, Instance.id, Instance.digest, Instance.spool_path)
    for uid, row_id, digest, path in connection.execute(
        select(*columns).where(Instance.sop_instance_uid.in_(uids)).order_by(Instance.id)
    ):
        held.setdefault(uid, []).append((row_id, digest, path))

    results: dict[int, Outcome | list[Rival]] = {}
    fresh: list[tuple[Arrival, int | None]] = []
    for arrival in arrivals:
        arrival.kept = arrival.own_kept = False
        uid, rows = arrival.header.sop_instance_uid, held.get(arrival.header.sop_instance_uid, [])
        same = next((row for row in rows if row[1] == arrival.received.digest), None)
        if same is not None:
            results[id(arrival)] = _again(connection, spool, arrival, same[0], same[2])
            continue
        if arrival.own is not None:
            if _is_kept_as_own(connection, spool, arrival, arrival.own, rows):
                results[id(arrival)] = Outcome("duplicate", arrival.own.instance_id, uid, conformed=True)
            else:  # something has changed since it was recognised
                results[id(arrival)] = [Rival(row_id, path, digest) for row_id, digest, path in rows]
            continue
        unknown = [Rival(row_id, path, digest) for row_id, digest, path in rows if row_id not in arrival.verdicts]
        equal = next((row_id for row_id, _, _ in rows if arrival.verdicts.get(row_id)), None)
        if equal is not None:
            results[id(arrival)] = Outcome("duplicate", equal, uid)
        elif unknown:
            results[id(arrival)] = unknown
        else:
            fresh.append((arrival, rows[0][0] if rows else None))
    if fresh:
        series = _series_ids(connection, [arrival.header for arrival, _ in fresh])
        values = [
            _instance_row(arrival, first, series.get(_series_key(arrival.header), None)) for arrival, first in fresh
        ]
        # One row after the other keeps the ids in the order of receipt.
        table: Table = Instance.__table__  # type: ignore[assignment]
        statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
        ids = connection.execute(statement, values).scalars().all()
        for (arrival, first), row_id in zip(fresh, ids, strict=True):
            kind: Kind = "stored" if first is None else "conflict"
            arrival.kept = True
            results[id(arrival)] = Outcome(kind, row_id, arrival.header.sop_instance_uid)
        _note_received(connection, ids)
        _note_conflicts(connection, [(first, row_id) for (_, first), row_id in zip(fresh, ids, strict=True) if first])
        _note_changes(connection, [(one, row_id) for (one, _), row_id in zip(fresh, ids, strict=True)])
    return [results[id(arrival)] for arrival in arrivals]


def _again(connection: Connection, spool: Spool, arrival: Arrival, row_id: int, path: str | None) -> Outcome:
    """The same bytes once more: kept once, unless the spool no longer has them."""
    arrival.kept = path == arrival.spool_path
    if not arrival.kept and (path is None or not spool.path_of(path).exists()):
        arrival.kept = True
        connection.execute(
            update(Instance)
            .where(Instance.id == row_id)
            .values(
                spool_path=arrival.spool_path,
                file_sha256=arrival.received.file_sha256,
                file_bytes=arrival.received.file_bytes,
                transfer_syntax_uid=arrival.header.transfer_syntax_uid,
            )
        )
    # Our own path means that an earlier try was committed although its answer was lost.
    kind: Kind = "stored" if path == arrival.spool_path else "duplicate"
    return Outcome(kind, row_id, arrival.header.sop_instance_uid)


def _is_kept_as_own(
    connection: Connection,
    spool: Spool,
    arrival: Arrival,
    own: OwnCopy,
    rows: Sequence[tuple[int, str, str | None]],
) -> bool:
    """Whether what a file that we made ourselves was made of is in the spool, or else the file itself stands for it."""
    received = next((path for row_id, _, path in rows if row_id == own.instance_id), None)
    if received is not None and spool.path_of(received).exists():
        return True
    come = arrival.provenance
    entered = enter_own(connection, own, calling_ae=come.calling_ae, source=come.source)
    arrival.own_kept = entered and own.placed is not None
    return entered


def _note_received(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(insert(Event).values(at=now(), kind="received", detail={"instances": list(ids)}))


def _note_conflicts(connection: Connection, pairs: Iterable[tuple[int, int]]) -> None:
    events = [
        {"at": now(), "kind": "conflict", "instance_id": row_id, "detail": {"conflict_of": first}}
        for first, row_id in pairs
    ]
    if events:
        connection.execute(insert(Event), events)


def _note_changes(connection: Connection, pairs: Iterable[tuple[Arrival, int]]) -> None:
    events = []
    for arrival, row_id in pairs:
        if arrival.reconciled is not None:
            changes = [{"tag": one.tag, "old": one.old, "new": one.new} for one in arrival.reconciled.changes]
            detail: dict[str, Any] = {"rules": arrival.reconciled.rules, "digest": arrival.reconciled.digest}
            detail |= {"changes": changes, "source": arrival.provenance.source}
            if arrival.reconciled.original is not None:
                detail["original"] = asdict(arrival.reconciled.original)
            events.append({"at": now(), "kind": "reconcile", "instance_id": row_id, "detail": detail})
    if events:
        connection.execute(insert(Event), events)


# --- Patient, Study, Series -------------------------------------------------------------------------------------------

_SeriesKey = tuple[str, str, str]


def _series_key(header: Header) -> _SeriesKey | None:
    if is_patientless(header):
        return None
    return patient_identity(header), header.study_instance_uid, header.series_instance_uid


def _series_ids(connection: Connection, headers: Sequence[Header]) -> dict[_SeriesKey | None, int]:
    """The Series of each header, made where it is new. Always asked for, never remembered: rows may be deleted."""
    wanted = {key: header for header in reversed(headers) if (key := _series_key(header)) is not None}
    found: dict[_SeriesKey | None, int] = {}
    if not wanted:
        return found
    rows = connection.execute(
        select(Patient.identity, Study.study_instance_uid, Series.series_instance_uid, Series.id)
        .join(Study, Series.study_id == Study.id)
        .join(Patient, Study.patient_id == Patient.id)
        .where(Series.series_instance_uid.in_({key[2] for key in wanted}))
    )
    found.update({(identity, study, series): row_id for identity, study, series, row_id in rows})
    new = sorted(key for key in wanted if key not in found)  # everybody makes rows in one order: no deadlocks
    if not new:
        return found
    patients = {
        identity: _get_or_make(connection, Patient, {"identity": identity}, _patient_row(header))
        for identity, header in {key[0]: wanted[key] for key in reversed(new)}.items()
    }
    studies = {
        (identity, uid): _get_or_make(
            connection, Study, {"study_instance_uid": uid, "patient_id": patients[identity]}, _study_row(header)
        )
        for (identity, uid), header in {key[:2]: wanted[key] for key in reversed(new)}.items()
    }
    for key in new:
        identity = {"series_instance_uid": key[2], "study_id": studies[key[:2]]}
        found[key] = _get_or_make(connection, Series, identity, _series_row(wanted[key]))
    return found


def series_of(connection: Connection, headers: Sequence[Header]) -> list[int | None]:
    """The Series of each header (None: it belongs to no patient), made, with what is above, where it is new.

    What is made is as the first header says that belongs to it.
    """
    found = _series_ids(connection, headers)
    return [found.get(_series_key(header)) for header in headers]


def enter_study(connection: Connection, header: Header) -> int:
    """The Study, and Patient, that a header tells of; made where it is new."""
    patient = _get_or_make(connection, Patient, {"identity": patient_identity(header)}, _patient_row(header))
    identity = {"study_instance_uid": header.study_instance_uid, "patient_id": patient}
    return _get_or_make(connection, Study, identity, _study_row(header))


def _get_or_make(
    connection: Connection,
    model: type[Patient | Study | Series],
    identity: Mapping[str, Any],
    values: Mapping[str, Any],
) -> int:
    """The id of the row with this unique identity; another process may make it at the same moment."""
    where = [getattr(model, name) == value for name, value in identity.items()]
    query = select(model.id).where(*where)
    row_id = connection.execute(query).scalar_one_or_none()
    if row_id is None:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(model).values(**identity, **values)
        connection.execute(statement.on_conflict_do_nothing(index_elements=list(identity)))
        row_id = connection.execute(query).scalar_one()
    return row_id


def _fit(text: str, limit: int = 65535) -> str:
    """Text as both databases take it: bounded, without NUL and lone surrogates. The file keeps what was sent."""
    if not text.isprintable():
        text = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return text[:limit]


def _number(value: int | None, bits: int = 64) -> int | None:
    return value if value is not None and abs(value) < 1 << (bits - 1) else None


def _patient_row(header: Header) -> dict[str, Any]:
    name = _fit(header.patient_name, 512)
    name_search = folded(name)[:600]  # PostgreSQL indexes at most some 2,700 bytes
    second, third = further_groups(name_search)
    return {
        "patient_id": _fit(header.patient_id, 255),
        "issuer_of_patient_id": _fit(header.issuer_of_patient_id, 255),
        "patient_name": name,
        "name_search": name_search,
        "name_search_2": second,
        "name_search_3": third,
        "patient_birth_date": _fit(header.patient_birth_date, 64),
        "patient_sex": _fit(header.patient_sex, 64),
    }


def _study_row(header: Header) -> dict[str, Any]:
    return {
        "study_date": _fit(header.study_date, 64),
        "study_time": _fit(header.study_time, 64),
        "study_id": _fit(header.study_id, 255),
        "study_description": _fit(header.study_description),
        "accession_number": _fit(header.accession_number, 255),
        "referring_physician_name": _fit(header.referring_physician_name),
        "institution_name": _fit(header.institution_name),
    }


def _series_row(header: Header) -> dict[str, Any]:
    return {
        "modality": _fit(header.modality, 64),
        "series_number": _number(header.series_number),
        "series_description": _fit(header.series_description),
        "body_part_examined": _fit(header.body_part_examined, 255),
        "station_name": _fit(header.station_name, 255),
        "manufacturer": _fit(header.manufacturer),
    }


def header_columns(header: Header) -> dict[str, Any]:
    """The columns of an Instance that come from its header."""
    return {
        "sop_class_uid": header.sop_class_uid,
        "sop_instance_uid": header.sop_instance_uid,
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "instance_number": _number(header.instance_number),
        "rows": _number(header.rows, 32),
        "columns": _number(header.columns, 32),
        "number_of_frames": _number(header.number_of_frames, 32),
        "photometric_interpretation": _fit(header.photometric_interpretation, 64),
        "has_pixel_data": header.has_pixel_data,
        "directory_keys": header.directory_keys,
    }


def provenance_columns(provenance: Provenance) -> dict[str, Any]:
    """Those that tell where it came from."""
    return {
        "calling_ae": _fit(provenance.calling_ae, 16),
        "called_ae": _fit(provenance.called_ae, 16),
        "source": _fit(provenance.source, 255),
    }


def _instance_row(arrival: Arrival, first: int | None, series_id: int | None) -> dict[str, Any]:
    received = arrival.received
    return {
        **header_columns(arrival.header),
        **provenance_columns(arrival.provenance),
        "series_id": series_id,
        "digest": received.digest,
        "dataset_bytes": received.dataset_bytes,
        "file_sha256": received.file_sha256,
        "file_bytes": received.file_bytes,
        "spool_path": arrival.spool_path,
        "conflict_of": first,
        "received_at": arrival.received_at,
    }
