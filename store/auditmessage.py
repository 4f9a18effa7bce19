"""Audit messages of PS3.15 A.5: what was done by whom to what, as XML of the schema in A.5.1.

A message is one line of XML without declaration. Text that XML cannot hold (control characters) is replaced; queries
are base64, as the schema wants them.
"""

from __future__ import annotations

import base64
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from ipaddress import ip_address
from xml.etree import ElementTree as Xml

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

SUCCESS, MINOR, SERIOUS = 0, 4, 8
"""Event Outcome Indicator."""


@dataclass(frozen=True, slots=True)
class Participant:
    """Who took part: a person, an application entity, a medium."""

    user_id: str
    """Name of a user, AE title, process, or File-set UID of a medium."""
    role: str = ""
    """A key of ``[roles]`` in config/audit.toml."""
    requestor: bool = False
    name: str = ""
    alternative: str = ""
    address: str = ""
    """IP address or host name."""
    media: str = ""
    """A key of ``[media]``: then this is a medium."""


@dataclass(frozen=True, slots=True)
class Thing:
    """What it was done to."""

    kind: str
    """``patient``, ``study``, ``query``, ``user``, ``node``, ``uri``, ``pool``, ``schedule`` or ``disc``."""
    identifier: str
    name: str = ""
    query: bytes = b""
    accessions: tuple[str, ...] = ()
    sop_classes: tuple[tuple[str, int], ...] = ()
    """SOP Class UIDs, each with its number of instances."""
    encrypted: bool | None = None
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """An event; ``xml`` makes it what is kept and sent."""

    event: str
    """A key of ``[events]``."""
    action: str
    """C, R, U, D or E."""
    participants: tuple[Participant, ...]
    things: tuple[Thing, ...] = ()
    kind: str = ""
    """A key of ``[types]``, or none."""
    outcome: int = SUCCESS
    problem: str = ""
    """Why it was no success."""

    def xml(self, *, at: datetime, node: str, site: str) -> str:
        """``at`` with zone; ``node`` and ``site`` are who tells."""
        root = Xml.Element("AuditMessage")
        event = Xml.SubElement(
            root,
            "EventIdentification",
            EventActionCode=self.action,
            EventDateTime=at.isoformat(timespec="milliseconds"),
            EventOutcomeIndicator=str(self.outcome),
        )
        _coded(event, "EventID", codes()["events"][self.event])
        if self.kind:
            _coded(event, "EventTypeCode", codes()["types"][self.kind])
        if self.problem:
            Xml.SubElement(event, "EventOutcomeDescription").text = clean(self.problem)
        for one in self.participants:
            _participant(root, one)
        source = {"AuditEnterpriseSiteID": _token(site)} if site.strip() else {}
        told_by = Xml.SubElement(root, "AuditSourceIdentification", {**source, "AuditSourceID": _token(node)})
        Xml.SubElement(told_by, "AuditSourceTypeCode", {"csd-code": "4"})
        for thing in self.things:
            _thing(root, thing)
        return Xml.tostring(root, encoding="unicode")


@cache
def codes() -> Mapping[str, Mapping[str, list[str]]]:
    """config/audit.toml."""
    return tomllib.loads(resources.files("config").joinpath("audit.toml").read_text())


def media_key(medium: str) -> str:
    """The key of ``[media]`` for a medium of config/mediatypes.toml."""
    beginnings = sorted(codes()["media"], key=len, reverse=True)
    return next((key for key in beginnings if medium.upper().startswith(key)), "OTHER")


def _participant(root: Xml.Element, one: Participant) -> None:
    attributes = {
        "UserID": clean(one.user_id) or "unknown",
        "UserIsRequestor": "true" if one.requestor else "false",
    }
    if one.alternative:
        attributes["AlternativeUserID"] = clean(one.alternative)
    if one.name:
        attributes["UserName"] = clean(one.name)
    if one.address:
        attributes |= {"NetworkAccessPointID": _token(one.address), "NetworkAccessPointTypeCode": _kind(one.address)}
    element = Xml.SubElement(root, "ActiveParticipant", attributes)
    if one.role:
        _coded(element, "RoleIDCode", codes()["roles"][one.role])
    if one.media:
        _coded(Xml.SubElement(element, "MediaIdentifier"), "MediaType", codes()["media"][one.media])


def _thing(root: Xml.Element, thing: Thing) -> None:
    # Participant Object Type Code and its role (PS3.15 A.5.1.2): a person who is a patient, an object that is ...
    kinds = {
        "patient": ("1", "1", "patient"),
        "study": ("2", "3", "study"),
        "query": ("2", "3", "sop_class"),
        "user": ("1", "6", "user"),
        "node": ("2", "13", "node"),
        "uri": ("2", "12", "uri"),
        "pool": ("2", "17", "uri"),  # a data repository
        "schedule": ("2", "18", "uri"),
        "disc": ("2", "4", "uri"),  # a resource
    }
    type_code, role, id_type = kinds[thing.kind]
    element = Xml.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_token(thing.identifier) or "unknown",
        ParticipantObjectTypeCode=type_code,
        ParticipantObjectTypeCodeRole=role,
    )
    _coded(element, "ParticipantObjectIDTypeCode", codes()["objects"][id_type])
    if thing.kind == "query":
        Xml.SubElement(element, "ParticipantObjectQuery").text = base64.b64encode(thing.query).decode()
    else:
        Xml.SubElement(element, "ParticipantObjectName").text = _token(thing.name)
    for name, value in thing.details:
        encoded = base64.b64encode(value.encode("utf-8", "replace")).decode()
        Xml.SubElement(element, "ParticipantObjectDetail", type=_token(name), value=encoded)
    if not (thing.accessions or thing.sop_classes or thing.encrypted is not None):
        return
    description = Xml.SubElement(element, "ParticipantObjectDescription")
    for number in thing.accessions:
        Xml.SubElement(description, "Accession", Number=_token(number))
    for uid, count in thing.sop_classes:
        Xml.SubElement(description, "SOPClass", UID=_token(uid), NumberOfInstances=str(count))
    if thing.encrypted is not None:
        Xml.SubElement(description, "Encrypted").text = "true" if thing.encrypted else "false"


def _coded(parent: Xml.Element, tag: str, code: list[str]) -> None:
    value, system, meaning = code
    Xml.SubElement(parent, tag, {"csd-code": value, "codeSystemName": system, "originalText": meaning})


def _kind(address: str) -> str:
    """Network Access Point Type Code: 2 an IP address, 1 a machine's name."""
    try:
        ip_address(address)
    except ValueError:
        return "1"
    return "2"


def clean(text: str) -> str:
    """Text without what neither XML nor a database can hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _token(text: str) -> str:
    """Text of XML's type token: without line breaks and blanks at its ends."""
    return " ".join(clean(text).split())
