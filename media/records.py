"""Directory records: types, keys, hierarchy and what may be supplied, from config/records.toml (PS3.3 Annex F)."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import config
from media import charsets
from media.encoding import encode, split, tag_of, tag_text, value_of
from media.items import Header, Supplied
from media.problems import InstanceRefused
from media.profile_keys import AddedKey, KeySet, is_added

SPECIFIC_CHARACTER_SET = 0x00080005
_IMAGE_TYPE = 0x00080008
_CHARACTER_SET_VRS = frozenset((b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT", b"SQ"))
"""VRs whose text depends on Specific Character Set (PS3.5 6.1.2.3); a sequence may hold some."""
LEVELS = ("PATIENT", "STUDY", "SERIES")
"""The records above every record that is not directly under the root."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a record type; see the head of config/records.toml for the meaning of each field."""

    tag: int
    keyword: str
    vr: bytes
    type: str
    supply: str
    derived: str
    shared: bool
    items: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class RecordType:
    """A directory record type (PS3.3 F.5)."""

    name: str
    section: str
    parent: str
    prefix: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class DateSource:
    """Where a missing date and time may come from: a pair of elements, or one DateTime."""

    date: int
    time: int
    datetime: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """Values for keys that an instance lacks, chosen by the planner so that they are unique where they must be."""

    patient_id: str
    """``NOID_<n>``"""
    study_id: str
    series_number: str
    instance_number: str


def _key(row: Mapping[str, Any]) -> Key:
    return Key(
        tag=int(row["tag"], 16),
        keyword=row["keyword"],
        vr=row["vr"].encode("ascii"),
        type=row["type"],
        supply=row.get("supply", ""),
        derived=row.get("from", ""),
        shared=row.get("shared", False),
        items=frozenset(int(tag, 16) for tag in row["items"]) if "items" in row else None,
    )


_TABLE = tomllib.loads(Path(config.__file__).with_name("records.toml").read_text(encoding="utf-8"))
TYPES: Mapping[str, RecordType] = {
    name: RecordType(name, row["section"], row["parent"], row["prefix"], tuple(_key(key) for key in row["keys"]))
    for name, row in _TABLE["record"].items()
}
"""Every record type of the current Annex F by its Directory Record Type (0004,1430)."""
ROOT_RECORDS = frozenset(name for name, row in TYPES.items() if not row.parent and name != "PATIENT")
"""Types that reference an instance and stand directly under the root directory entity."""
DATE_SOURCES = tuple(
    DateSource(*(int(row.get(part, "0"), 16) for part in ("date", "time", "datetime")))
    for row in _TABLE["dates"]["sources"]
)
QUERY_ONLY = "Q"
"""``Key.type`` of what is kept for queries and is in no directory record."""
QUERY_KEYS = tuple(
    _key({**row, "type": QUERY_ONLY})
    for rows in tomllib.loads(Path(config.__file__).with_name("query.toml").read_text(encoding="utf-8")).values()
    for row in rows
    if row["source"] == "first"
)
"""What queries need of an instance beside the keys of its directory records (config/query.toml)."""
WITHOUT_RECORD: Mapping[str, str] = _TABLE["without_record"]
"""Names of the standard SOP classes that no directory record can reference, by UID."""
_BY_SOP_CLASS = {uid: name for name, uids in _TABLE["sop_classes"].items() for uid in uids}


def record_type(sop_class_uid: str) -> str | None:
    """The type of the directory record that references instances of a SOP class.

    None where Annex F has none: a standard SOP class in ``WITHOUT_RECORD``, or one that is private or unknown, whose
    record type is for a setting to decide.
    """
    return _BY_SOP_CLASS.get(sop_class_uid)


def levels(record_type_name: str) -> tuple[str, ...]:
    """The record types from the root down to the one given."""
    return (record_type_name,) if record_type_name in ROOT_RECORDS else (*LEVELS, record_type_name)


def record_elements(
    record_type_name: str,
    elements: Mapping[int, bytes],
    supplied: tuple[Supplied, ...] = (),
    keys: KeySet | None = None,
    sop_class_uid: str = "",
    icon: bytes = b"",
) -> bytes:
    """The encoded keys of one record, Specific Character Set first, ready to stand behind its group 0004 elements.

    ``elements`` are the instance's ``directory_keys`` after ``encoding.split``; ``keys`` are those that the profile
    adds, None: those that any profile does. A type 1 key that is neither there nor supplied is left out: ``supply``
    has refused such an instance before. ``icon``: the whole Icon Image Sequence; b"": none.
    """
    made = _made(supplied).get(record_type_name, {}) if supplied else {}
    parts = []
    for tag, empty, added in _layout(record_type_name, keys):
        if added is not None and not added.holds(sop_class_uid, _value(elements, _IMAGE_TYPE)):
            continue
        element = made.get(tag) or elements.get(tag) or empty
        if element:
            parts.append(element)
    head = elements.get(SPECIFIC_CHARACTER_SET) or _undeclared_character_set(parts)
    return head + b"".join(parts) + icon  # (0088,0200) stands behind all keys of an IMAGE record


@functools.cache
def _layout(record_type_name: str, keys: KeySet | None) -> tuple[tuple[int, bytes, AddedKey | None], ...]:
    """Tags of the keys in order, what stands in the record where there is no value, and a condition if it has one."""
    added = keys.keys.get(record_type_name, {}) if keys is not None else {}
    rows = []
    for key in TYPES[record_type_name].keys:
        own = added.get(key.tag)
        optional = key.type in ("1C", "3")
        if keys is not None and own is None and optional and is_added(record_type_name, key.tag):
            continue  # another profile's
        kind = own.type if own is not None and optional else key.type
        empty = encode(key.tag, key.vr, b"") if kind == "2" else b""
        rows.append((key.tag, empty, own if own is not None and own.conditional and optional else None))
    return tuple(rows)


def _undeclared_character_set(record: list[bytes]) -> bytes:
    """A record with other than ASCII text must say in which character set, even if the instance forgot to.

    It says what ``charsets.decode`` takes such text for.
    """
    text = b"".join(value_of(element) for element in record if element[4:6] in _CHARACTER_SET_VRS)
    if text.isascii():
        return b""
    return encode(SPECIFIC_CHARACTER_SET, b"CS", charsets.UNDECLARED.encode("ascii"))


@functools.lru_cache(maxsize=1024)
def _made(supplied: tuple[Supplied, ...]) -> dict[str, dict[int, bytes]]:
    """Encoded supplied keys by record type and tag."""
    found: dict[str, dict[int, bytes]] = {}
    for key in supplied:
        tag = tag_of(key.tag)
        element = encode(tag, key.vr.encode("ascii"), key.value.encode("utf-8"))
        found.setdefault(key.record_type, {})[tag] = element
    return found


def missing_added(
    elements: Mapping[int, bytes], record_type_name: str, keys: KeySet, sop_class_uid: str
) -> tuple[tuple[str, AddedKey], ...]:
    """The keys with their record types that a profile demands and that an instance lacks: types 1 and, where their
    condition holds, 1C (PS3.11 X.3.3)."""
    return tuple(
        (name, key)
        for name, key in _demanded(record_type_name, keys)
        if key.tag not in elements and key.holds(sop_class_uid, _value(elements, _IMAGE_TYPE))
    )


@functools.cache
def _demanded(record_type_name: str, keys: KeySet) -> tuple[tuple[str, AddedKey], ...]:
    return tuple(
        (name, key)
        for name in levels(record_type_name)
        for key in keys.keys.get(name, {}).values()
        if key.type == "1" or (key.type == "1C" and key.conditional)
    )


def require_added(elements: Mapping[int, bytes], record_type_name: str, keys: KeySet, sop_class_uid: str) -> None:
    """InstanceRefused (INST_AP_CONFLICT) names each key of ``missing_added`` and the clause that demands it."""
    missing = missing_added(elements, record_type_name, keys, sop_class_uid)
    if missing:
        words = ", ".join(f"{tag_text(key.tag)} {key.keyword} of its {name} record" for name, key in missing)
        reason = f"the directory needs {words}, which the instance lacks (PS3.11 {keys.clause})"
        raise InstanceRefused("INST_AP_CONFLICT", reason)


def _value(elements: Mapping[int, bytes], tag: int) -> bytes:
    element = elements.get(tag)
    return value_of(element) if element else b""


def supply(keys: Header | bytes | Mapping[int, bytes], record_type_name: str, numbers: Numbers) -> tuple[Supplied, ...]:
    """The type 1 keys that an instance lacks, with values that stand in its directory records only.

    (PS3.11 D.3.3.1, note.) ``keys`` is the instance's header, its ``directory_keys``, or these after
    ``encoding.split``. InstanceRefused names each key that can be had neither from the instance nor by the rules of
    config/records.toml.
    """
    if isinstance(keys, Header):
        keys = keys.directory_keys
    elements = split(keys) if isinstance(keys, bytes) else keys
    found: list[Supplied] = []
    missing: list[str] = []
    for name in levels(record_type_name):
        for key in _required(name):
            if key.tag in elements:
                continue
            value = _value_for(key, name, elements, numbers)
            if value:
                found.append(Supplied(name, tag_text(key.tag), key.vr.decode("ascii"), value))
            else:
                missing.append(f"{tag_text(key.tag)} {key.keyword} of its {name} record")
    if missing:
        raise InstanceRefused(
            "DIR_PROC_ERR",
            "the directory needs " + ", ".join(missing) + ", which the instance lacks and which must not be invented",
        )
    return tuple(found)


@functools.cache
def _required(record_type_name: str) -> tuple[Key, ...]:
    return tuple(key for key in TYPES[record_type_name].keys if key.type == "1")


def _value_for(key: Key, record_type_name: str, elements: Mapping[int, bytes], numbers: Numbers) -> str:
    if key.supply == "date":
        return next((date for date, _ in _dates(elements) if date), "")
    if key.supply == "time":
        return _time_for(key, record_type_name, elements)
    if key.supply.startswith("="):
        return key.supply[1:]
    return str(getattr(numbers, key.supply)) if key.supply else ""


def _time_for(key: Key, record_type_name: str, elements: Mapping[int, bytes]) -> str:
    """A time of the record's own date where there is one, else the first time there is."""
    row = next(row for row in _date_rows(record_type_name) if row[1] == key.tag)
    own = _text(elements, row[0])
    pairs = list(_dates(elements))
    own = own or next((date for date, _ in pairs if date), "")
    return next((time for date, time in pairs if time and date == own), next((time for _, time in pairs if time), ""))


@functools.cache
def _date_rows(record_type_name: str) -> tuple[tuple[int, int], ...]:
    """Tags of date and time that belong together in a record: their keywords differ in the last word only."""
    dates = {key.keyword.removesuffix("Date"): key.tag for key in TYPES[record_type_name].keys if key.supply == "date"}
    return tuple(
        (dates[key.keyword.removesuffix("Time")], key.tag)
        for key in TYPES[record_type_name].keys
        if key.supply == "time"
    )


_DATE = re.compile(r"[12]\d{3}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")


def _dates(elements: Mapping[int, bytes]) -> Iterable[tuple[str, str]]:
    """Date and time of each source, empty where it has none or no valid one (PS3.5 6.2: DA, TM, DT)."""
    for source in DATE_SOURCES:
        if source.datetime:
            whole = _text(elements, source.datetime).split("-")[0].split("+")[0]
            date, time = whole[:8], whole[8:]
        else:
            date, time = _text(elements, source.date), _text(elements, source.time)
        yield date if _DATE.fullmatch(date) else "", time if _TIME.fullmatch(time) else ""


def _text(elements: Mapping[int, bytes], tag: int) -> str:
    """First value of an element in the default repertoire, without padding; empty where there is none."""
    element = elements.get(tag)
    return value_of(element).split(b"\\")[0].decode("latin_1").strip(" \0") if element else ""
