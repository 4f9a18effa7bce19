"""Reads VOLUMES.TXT of any disc, and believes nothing that has not the form it must have (``media.setcatalogue``)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from media.items import Header
from media.problems import MediaError
from media.setcatalogue import (
    FILE_NAME,
    FORMAT,
    STUDY_FIELDS,
    VERSION,
    Before,
    Entry,
    Protected,
    Sender,
    SetFacts,
    SetStudy,
    SetVolume,
    lines_of,
)

LIMIT = 512 << 20
"""Bytes of a whole file: more are not read. Two million instances take so many."""
_LINE_LIMIT = 1 << 20
_TEXT_LIMIT = 1 << 16
_SHARED_LIMIT = 100_000
"""Lists of changes and senders."""
_VOLUMES = 9999
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"[0-9][0-9.]{0,63}")
_FILE_SET_ID = re.compile(r"[A-Z0-9_ ]{0,16}")
_RECIPE = re.compile(r"[A-Za-z0-9._/+-]{1,64}")
_PATH = re.compile(r"[A-Z0-9_]{1,8}(/[A-Z0-9_]{1,8}){0,7}")
_KEY = re.compile(r"[0-9A-Fa-f]{8}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
_HEADER = {one.name: str(one.type) for one in fields(Header) if one.name not in ("directory_keys", "dataset_bytes")}


@dataclass(slots=True)
class SetCatalogue:
    """What a disc says of its set, and of the instances on it."""

    facts: SetFacts
    volume: SetVolume
    of: int
    instances: int
    """How many instances the volume has."""
    sectors: int
    """Of its file system."""
    protection: Protected | None
    volumes: dict[int, SetVolume] = field(default_factory=dict)
    studies: list[SetStudy] = field(default_factory=list)
    senders: list[Sender] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    """By File ID, joined by slashes; ``changes`` of a list that is shared are in ``before``."""


class _Wrong(Exception):
    """A line is not as it must be; the text says why."""


def parse(data: bytes) -> SetCatalogue:
    """Read a volume set's catalogue strictly. Raises MediaError that names the first line that is wrong."""
    if len(data) > LIMIT:
        raise MediaError(f"{FILE_NAME} has {len(data)} bytes; more than {LIMIT} are not read.")
    found: SetCatalogue | None = None
    shared: dict[int, list[dict[str, str]]] = {}
    number = 0
    try:
        for line in lines_of(data):
            number += 1
            document = _document(line)
            if found is None:
                found = _head(document)
            elif "file" in document:
                path, entry = _entry(document, len(found.senders), shared)
                if path in found.entries:
                    raise _Wrong(f"{path} stands there twice")
                found.entries[path] = entry
            elif "study" in document:
                found.studies.append(_study(document, found.of))
            elif "volume" in document:
                volume = _volume(document, found.of)
                if volume.number in found.volumes:
                    raise _Wrong(f"volume {volume.number} stands there twice")
                found.volumes[volume.number] = volume
            elif "sender" in document:
                found.senders.append(_sender(document, len(found.senders)))
            elif "changes" in document:
                shared[_whole(document, "changes", 0, _SHARED_LIMIT)] = _changes(document.get("list"))
            # Lines of other kinds are those of a later version that this one need not understand.
    except _Wrong as error:
        raise MediaError(f"{FILE_NAME}, line {number}: {error}.") from None
    if found is None:
        raise MediaError(f"{FILE_NAME} is empty.")
    _complete(found)
    return found


def _complete(found: SetCatalogue) -> None:
    if len(found.entries) != found.instances:
        raise MediaError(f"{FILE_NAME} lists {len(found.entries)} instances; its first line says {found.instances}.")
    if sorted(found.volumes) != list(range(1, found.of + 1)):
        raise MediaError(f"{FILE_NAME} does not list each of the volumes 1 to {found.of}.")
    if found.volumes[found.volume.number] != found.volume:
        raise MediaError(f"{FILE_NAME}: volume {found.volume.number} is not the one of its first line.")
    uids = {volume.file_set_uid for volume in found.volumes.values()}
    if len(uids) != len(found.volumes):
        raise MediaError(f"{FILE_NAME}: two volumes have one File-set UID.")


def _document(line: bytes) -> dict[str, Any]:
    if len(line) > _LINE_LIMIT:
        raise _Wrong(f"it has {len(line)} bytes")
    try:
        document = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _Wrong("it is no JSON document in UTF-8") from None
    if not isinstance(document, dict):
        raise _Wrong("it is no JSON object")
    return document


def _head(document: dict[str, Any]) -> SetCatalogue:
    if document.get("format") != FORMAT:
        raise _Wrong(f"it does not say that this is a {FORMAT}")
    version = _whole(document, "version", 1, 1 << 30)
    if version > VERSION:
        raise _Wrong(f"it is of version {version}; this Burnish reads up to {VERSION}")
    of = _whole(document, "of", 1, _VOLUMES)
    options = document.get("options", {})
    if not isinstance(options, dict):
        raise _Wrong("options is no object")
    facts = SetFacts(
        software=_text(document, "software"),
        site=_text(document, "site"),
        profile=_text(document, "profile", 64),
        medium=_text(document, "medium", 64),
        capacity_sectors=_whole(document, "capacity_sectors", 0, 1 << 40),
        created=_time(document, "created"),
        purpose=_text(document, "purpose", 8),
        pool=_text(document, "pool", 32),
        options={_sound(name): _sound(value) if isinstance(value, str) else value for name, value in options.items()},
        private=document.get("all_studies") is False,
    )
    return SetCatalogue(
        facts,
        _volume(document, of),
        of,
        _whole(document, "instances", 0, 1 << 30),
        _whole(document, "sectors", 0, 1 << 40),
        _protected(document.get("protection")),
    )


def _protected(document: Any) -> Protected | None:
    if document is None:
        return None
    if not isinstance(document, dict) or document.get("method") not in ("rs02", "rs03"):
        raise _Wrong("protection is none that is known")
    return Protected(document["method"], _whole(document, "roots", 1, 254), _whole(document, "sectors", 0, 1 << 40))


def _volume(document: Mapping[str, Any], of: int) -> SetVolume:
    return SetVolume(
        _whole(document, "volume", 1, of),
        _matching(document, "file_set_id", _FILE_SET_ID),
        _matching(document, "file_set_uid", _UID),
    )


def _study(document: dict[str, Any], of: int) -> SetStudy:
    document["study_instance_uid"] = document.pop("study")
    _matching(document, "study_instance_uid", _UID)
    counts = document.get("instances")
    if not isinstance(counts, dict) or not counts:
        raise _Wrong("instances says on no volume how many there are")
    volumes = {}
    for number, count in counts.items():
        if not (number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= of and type(count) is int):
            raise _Wrong("instances names a volume that the set has not")
        volumes[int(number)] = count
    received = document.get("received", {})
    if not isinstance(received, dict) or not received.keys() <= set(STUDY_FIELDS):
        raise _Wrong("received is no object with attributes of a study")
    return SetStudy(
        {name: _text(document, name) for name in STUDY_FIELDS},
        volumes,
        {name: _text(received, name) for name in received},
    )


def _sender(document: Mapping[str, Any], expected: int) -> Sender:
    if _whole(document, "sender", 0, _SHARED_LIMIT) != expected:
        raise _Wrong("senders are not numbered from 0 on")
    return Sender(_text(document, "calling_ae", 16), _text(document, "called_ae", 16), _text(document, "source", 255))


def _entry(document: Mapping[str, Any], senders: int, shared: Mapping[int, list[dict[str, str]]]) -> tuple[str, Entry]:
    path = _matching(document, "file", _PATH)
    supplied = document.get("supplied", [])
    if not isinstance(supplied, list) or not all(
        isinstance(key, list) and len(key) == 4 and all(isinstance(part, str) for part in key) for key in supplied
    ):
        raise _Wrong("supplied is no list of keys")
    entry = Entry(
        digest=_matching(document, "digest", _DIGEST),
        received=_time(document, "received"),
        sender=_whole(document, "sender", 0, senders - 1),
        supplied=[[_sound(part) for part in key] for key in supplied],
        before=_before(document["before"], document.get("changes", []), shared) if "before" in document else None,
    )
    return path, entry


def _before(document: Any, changes: Any, shared: Mapping[int, list[dict[str, str]]]) -> Before:
    if not isinstance(document, dict):
        raise _Wrong("before is no object")
    if type(changes) is int:
        if changes not in shared:
            raise _Wrong("changes names a list that is not there")
        found = shared[changes]
    else:
        found = _changes(changes)
    return Before(
        recipe=_matching(document, "recipe", _RECIPE),
        sop_instance_uid=_matching(document, "sop_instance_uid", _UID),
        transfer_syntax_uid=_matching(document, "transfer_syntax_uid", _UID),
        dataset_bytes=_whole(document, "dataset_bytes", 0, 1 << 50),
        file_sha256=_matching(document, "file_sha256", _DIGEST),
        file_bytes=_whole(document, "file_bytes", 0, 1 << 50),
        changes=found,
        attributes=_attributes(document.get("attributes", {})),
        keys=_keys(document["keys"]) if "keys" in document else None,
    )


def _attributes(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise _Wrong("attributes is no object")
    for name, value in values.items():
        kind = _HEADER.get(name)
        if kind is None:
            raise _Wrong(f"there is no attribute {name[:40]!r}")
        good = (
            isinstance(value, bool)
            if kind == "bool"
            else (value is None or type(value) is int)
            if kind.startswith("int")
            else isinstance(value, str) and len(value) <= _TEXT_LIMIT
        )
        if not good:
            raise _Wrong(f"attribute {name} is of another type")
    return {name: _sound(value) if isinstance(value, str) else value for name, value in values.items()}


def _keys(values: Any) -> dict[str, str | None]:
    if not isinstance(values, dict):
        raise _Wrong("keys is no object")
    for tag, element in values.items():
        if not _KEY.fullmatch(tag):
            raise _Wrong("keys has a tag that is none")
        if element is None:
            continue
        try:
            if not isinstance(element, str):
                raise ValueError
            binary = base64.b64decode(element, validate=True)
        except (ValueError, binascii.Error):
            raise _Wrong("keys has an element that is not in base64") from None
        if (
            len(binary) < 8
            or binary[:4] != int(tag, 16).to_bytes(4, "big")[1::-1] + int(tag, 16).to_bytes(4, "big")[:1:-1]
        ):
            raise _Wrong("keys has an element of another tag")
    return values


def _changes(values: Any) -> list[dict[str, str]]:
    if not isinstance(values, list) or not all(
        isinstance(each, dict)
        and each.keys() == {"tag", "old", "new"}
        and all(isinstance(text, str) for text in each.values())
        for each in values
    ):
        raise _Wrong("changes is no list of changes")
    return [{name: _sound(text) for name, text in each.items()} for each in values]


def _whole(document: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = document.get(name)
    if type(value) is not int or not least <= value <= most:
        raise _Wrong(f"{name} is no number from {least} to {most}")
    return value


def _text(document: Mapping[str, Any], name: str, longest: int = _TEXT_LIMIT) -> str:
    value = document.get(name)
    if not isinstance(value, str) or len(value) > longest:
        raise _Wrong(f"{name} is no text of at most {longest} characters")
    return _sound(value)


def _sound(text: str) -> str:
    """Without NUL and lone surrogates, which no database takes."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _matching(document: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _Wrong(f"{name} is not what it must be")
    return value


def _time(document: Mapping[str, Any], name: str) -> datetime:
    value = document.get(name)
    try:
        if not isinstance(value, str) or not _TIME.fullmatch(value):
            raise ValueError
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Wrong(f"{name} is no time in UTC") from None


def before_keys(own: Mapping[int, bytes], received: Mapping[int, bytes]) -> dict[str, str | None]:
    """``Before.keys``: what makes the elements of a file's directory keys those of the instance as received."""
    found: dict[str, str | None] = {}
    for tag in sorted(own.keys() | received.keys()):
        if own.get(tag) != received.get(tag):
            element = received.get(tag)
            found[f"{tag:08x}"] = None if element is None else base64.b64encode(element).decode("ascii")
    return found


def received_keys(own: Mapping[int, bytes], keys: Mapping[str, str | None]) -> bytes:
    """The directory keys as received."""
    all_keys = dict(own)
    for tag, element in keys.items():
        if element is None:
            all_keys.pop(int(tag, 16), None)
        else:
            all_keys[int(tag, 16)] = base64.b64decode(element)
    return b"".join(all_keys[tag] for tag in sorted(all_keys))
