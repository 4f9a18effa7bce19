"""Patient ID reconciliation on the way in: rules of the site applied to what comes from media of others.

The rules are those of ``media.coercion``. A reconciled instance keeps every UID, so references to it and from it hold;
what was changed stands in an Event of the instance (kind ``reconcile``), written in the transaction that registers it.
A rule set is kept under its digest in the data folder, so that an Event says for good by which rules it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from media.coercion import Rule, RulesError, condition_of, corrections, looked_at, rules_of
from media.editing import SOP_INSTANCE, top_values
from media.edits import Edit, Original
from media.problems import InstanceRefused, MediaError
from store.db import Database
from store.models import Instance, Series, Study
from store.models_base import now
from store.models_nodes import Event
from store.people import people_with
from store.registration import plain_name

PATIENT_ID, ISSUER, NAME, BIRTH_DATE = 0x00100020, 0x00100021, 0x00100010, 0x00100030
_WHO = (("PatientName", NAME), ("PatientBirthDate", BIRTH_DATE), ("IssuerOfPatientID", ISSUER))
_FOLDER = "reconcile"
_REMEMBERED = 10_000
_MOST_SETS = 10_000
"""Each is a file of up to a MiB, and what came in by it refers to it for good."""
_DIGITS = frozenset("0123456789abcdef")


def keep_rules(data: Path, documents: Sequence[Mapping[str, Any]]) -> str:
    """Keep a rule set in the data folder and return its digest (64 hex digits). RulesError for a wrong one."""
    if not rules_of(documents):
        raise RulesError("there is no rule to reconcile by")
    text = json.dumps(list(documents), sort_keys=True, ensure_ascii=False, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    file = data / _FOLDER / f"{digest}.json"
    if not file.exists():
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if sum(1 for _ in file.parent.iterdir()) >= _MOST_SETS:
            raise RulesError(f"{_MOST_SETS} rule sets are kept here already, each for good; use one of them")
        temporary = file.with_name(f".{digest}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(file)
    return digest


def kept_rules(data: Path, digest: str) -> list[dict[str, Any]]:
    """The rule set of a digest. RulesError where it is not kept here."""
    if len(digest) != 64 or set(digest) - _DIGITS:
        raise RulesError(f"{digest[:80]!r} is no digest of a rule set")
    try:
        documents: list[dict[str, Any]] = json.loads((data / _FOLDER / f"{digest}.json").read_text())
    except (OSError, ValueError) as error:
        raise RulesError(f"the rule set {digest} is not kept here") from error
    return documents


class PassedOver(MediaError):
    """An instance that is not wanted: the condition on what comes in does not hold for it."""


class Reconciler:
    """A rule set at work. Safe for threads."""

    def __init__(
        self,
        db: Database,
        documents: Sequence[Mapping[str, Any]],
        digest: str,
        *,
        when: Mapping[str, Any] | None = None,
        system: str = "",
    ) -> None:
        """``when``: only instances for which this holds are let in, as the ``when`` of a rule. RulesError.

        ``system``: our name where instances keep what was changed in them.
        """
        self.digest = digest
        self._system = system.strip() if system.strip().isascii() else ""
        self._originals: OrderedDict[str, Original | None] = OrderedDict()
        self._lock = threading.Lock()
        self._db = db
        self._rules = rules_of(documents)
        self._when = condition_of("when", when) if when else None
        asked = (*self._rules, self._when) if self._when is not None else self._rules
        self._tags = looked_at(asked) | {PATIENT_ID, ISSUER, NAME, BIRTH_DATE}

    def edits(self, path: Path) -> tuple[Edit, ...]:
        """What the rules change in the instance of a file; none: it stays as it is.

        NotDicom for a file that cannot be followed; InstanceRefused where a rule takes its patient from the catalogue,
        and that has no such person, or several, or one that the instance would still differ from; PassedOver.
        """
        values = top_values(path, self._tags)
        if self._when is not None and not self._when.holds(values):
            raise PassedOver("passed over: it is none of those that are taken in here")
        found = corrections(self._rules, values, {}, everything=False)
        asking = [rule for rule in self._rules if rule.from_catalogue and rule.holds(values)]
        if asking:
            with self._db.read() as session:
                for rule in asking:
                    _take_person(session, rule, values, found)
        return tuple(found[tag] for tag in sorted(found))

    def original(self, path: Path, digest: str) -> Original | None:
        """How former values are kept in the instance of a file, whose data set has this SHA-256.

        What came before gets the same again, so that it is found to be the same; also where it got nothing.
        """
        with self._lock:
            if digest not in self._originals:
                self._originals[digest] = self._before(path, digest)
                if len(self._originals) > _REMEMBERED:
                    self._originals.popitem(last=False)
            return self._originals[digest]

    def _before(self, path: Path, digest: str) -> Original | None:
        uid = top_values(path, frozenset((SOP_INSTANCE,))).get(SOP_INSTANCE, "")
        with self._db.read() as session:
            details = session.scalars(
                select(Event.detail)
                .join(Instance, Instance.id == Event.instance_id)
                .where(Instance.sop_instance_uid == uid, Event.kind == "reconcile")
                .order_by(Event.id)
            )
            for detail in details:
                if (detail.get("rules"), detail.get("digest")) == (self.digest, digest):
                    return Original(**detail["original"]) if detail.get("original") else None
        return Original(now().strftime("%Y%m%d%H%M%S+0000"), self._system or "BURNISH")


def _take_person(session: Session, rule: Rule, values: Mapping[int, str], edits: dict[int, Edit]) -> None:
    def value(tag: int) -> str:
        return (edits[tag].value or "") if tag in edits else values.get(tag, "")

    people = people_with(session, value(PATIENT_ID), value(ISSUER))
    who = f"{value(PATIENT_ID)!r}" + (f" of {value(ISSUER)!r}" if value(ISSUER) else "")
    if len(people) != 1:
        known = f"{len(people)} people" if people else "nobody"
        raise InstanceRefused(
            "PROC_FAILURE", f"rule {rule.name} takes the patient from the catalogue, which knows {known} under {who}"
        )
    (person,) = people
    for attribute in rule.from_catalogue:
        known = person.get(attribute.keyword, "")
        if known and known != value(attribute.tag):
            edits[attribute.tag] = Edit(attribute.tag, attribute.vr, known, f"rule {rule.name}, as in the catalogue")
    for keyword, tag in _WHO:  # else there would be two people under one number, and the next instance be refused
        same = plain_name if tag == NAME else str.strip
        if same(value(tag)) != same(person.get(keyword, "")):
            raise InstanceRefused(
                "PROC_FAILURE",
                f"by rule {rule.name} it would belong to the patient {who}, but its {keyword} is not that of the "
                "catalogue; the rule must set it, or take it from there",
            )


def changes_of(
    session: Session, study: str, *, after: int = 0, limit: int | None = None
) -> list[tuple[int, dict[str, Any]]]:
    """What was changed in the instances of a study on their way in: when, by which rules, tag by tag; each with the
    number behind which the next ones are."""
    rows = session.execute(
        select(Event.id, Event.at, Instance.sop_instance_uid, Event.detail)
        .join(Instance, Instance.id == Event.instance_id)
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Series.study_id)
        .where(Study.study_instance_uid == study, Event.kind == "reconcile", Event.id > after)
        .order_by(Event.id)
        .limit(limit)
    )
    return [(key, {"at": at.isoformat(), "sop_instance_uid": uid, **detail}) for key, at, uid, detail in rows]
