"""The audit messages of what people and programs do with us (PS3.15 A.5.3): a function for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.auditmessage import MINOR, SERIOUS, SUCCESS, Message, Participant, Thing
from store.bulk import chunks
from store.models import Instance, Patient, Series, Study

_MOST = 100
"""Studies of one message; what is about more is told in several."""
OURSELVES = "BURNISH"


@dataclass(frozen=True, slots=True)
class Who:
    """A person or program that asks something of us."""

    name: str
    address: str = ""


def application(kind: str, launcher: str = "service") -> Message:
    """``kind``: ``start`` or ``stop`` (A.5.3.1)."""
    return Message(
        "application", "E", (Participant(OURSELVES, "application"), Participant(launcher, "launcher", True)), kind=kind
    )


def authentication(kind: str, who: Who, *, problem: str = "") -> Message:
    """``kind``: ``login`` or ``logout`` (A.5.3.14); ``problem``: why it was refused."""
    user = Participant(who.name, requestor=True, address=who.address)
    outcome = SERIOUS if problem else SUCCESS
    return Message("authentication", "E", (user, Participant(OURSELVES)), kind=kind, outcome=outcome, problem=problem)


def alert(kind: str, who: Who, what: str, *, about: str = "", problem: str = "") -> Message:
    """A change of rights, users, nodes or settings, or somebody who was refused (A.5.3.13).

    ``kind``: ``roles``, ``user``, ``security``, ``network`` or ``node``; ``what`` in words; ``about``: whose.
    """
    thing = Thing(
        "node" if kind in ("network", "node") else "user", about or who.name, about, details=(("Alert", what),)
    )
    user = Participant(who.name, requestor=True, address=who.address)
    outcome = SERIOUS if problem else SUCCESS
    return Message("alert", "E", (user, Participant(OURSELVES)), (thing,), kind=kind, outcome=outcome, problem=problem)


def configured(who: Who, kind: str, name: str, what: str) -> Message:
    """What goes on discs, when, and how long it is kept, was changed by somebody (A.5.3.13).

    ``kind``: ``pool``, ``schedule`` or ``rules``; ``what`` in words.
    """
    thing = Thing(kind if kind != "rules" else "uri", f"{kind}/{name}", name, details=(("Alert", what),))
    return _changed(who, "software", thing)


def kept(who: Who, thing: Thing, what: str) -> Message:
    """Where a disc is, who has it, whether anybody counts on it, or whether a study must stay, was changed."""
    return _changed(who, "object", replace(thing, details=(("Alert", what),)))


def _changed(who: Who, kind: str, thing: Thing) -> Message:
    user = Participant(who.name, requestor=True, address=who.address)
    return Message("alert", "E", (user, Participant(OURSELVES)), (thing,), kind=kind)


def ordered(session: Session, instances: Iterable[int], who: Who, what: str) -> list[Message]:
    """Somebody ordered that these instances be put on discs: they are utilized (A.5.3.6); that they were put there is
    an Export. ``what``: the job in words.
    """
    return [
        replace(
            one,
            things=tuple(
                replace(thing, details=(("Order", what),)) if thing.kind == "study" else thing for thing in one.things
            ),
        )
        for one in accessed(session, who, instances)
    ]


def log_used(who: Who) -> Message:
    """Somebody read the audit trail (A.5.3.2)."""
    user = Participant(who.name, requestor=True, address=who.address)
    return Message("used", "R", (user,), (Thing("uri", "audit", "Security Audit Log"),))


def query(who: Who, sop_class_uid: str, content: bytes, *, answered_by: str = OURSELVES, problem: str = "") -> Message:
    """Somebody asked what there is (A.5.3.11); ``content``: the identifier, or the parameters, as they came."""
    source = Participant(who.name, "source", True, address=who.address)
    return Message(
        "query",
        "E",
        (source, Participant(answered_by, "destination")),
        (Thing("query", sop_class_uid, query=content[:4000]),),
        outcome=MINOR if problem else SUCCESS,
        problem=problem,
    )


def accessed(session: Session, who: Who, instances: Iterable[int], *, action: str = "R") -> list[Message]:
    """Instances were looked at (R), changed (U) or removed (D) by a person (A.5.3.6)."""
    user = Participant(who.name, requestor=True, address=who.address)
    return _each(session, instances, "accessed", action, (user, Participant(OURSELVES)))


def transferred(
    session: Session, instances: Iterable[int], source: Participant, destination: Participant, *, problem: str = ""
) -> list[Message]:
    """Instances went over the network (A.5.3.7)."""
    received = destination.user_id == OURSELVES
    return _each(session, instances, "transferred", "C" if received else "R", (source, destination), problem=problem)


def imported(session: Session, instances: Iterable[int], who: Who, source: Participant) -> list[Message]:
    """Instances came from a medium or a file (A.5.3.5)."""
    user = Participant(who.name, "destination", True, address=who.address)
    return _each(session, instances, "import", "C", (user, source))


def exported(
    session: Session, instances: Iterable[int], who: Who, destination: Participant, *, problem: str = ""
) -> list[Message]:
    """Instances, or a label with a patient's name, left us on a medium, as a file or on paper (A.5.3.4)."""
    user = Participant(who.name, "source", True, address=who.address)
    return _each(session, instances, "export", "R", (user, destination), problem=problem)


def catalogue_exported(who: Who, table: str) -> Message:
    """A table of the catalogue was given to somebody: of all patients there are (A.5.3.4)."""
    user = Participant(who.name, "source", True, address=who.address)
    to = Participant("catalogue", "destination_media", media="URI")
    return Message("export", "R", (user, to), (Thing("uri", f"catalogue/{table}", f"catalogue: {table}"),))


def deleted(session: Session, instances: Iterable[int], who: Who) -> list[Message]:
    """Instances are removed for good (A.5.3.8); to be asked while their rows are there."""
    user = Participant(who.name, requestor=True, address=who.address)
    return _each(session, instances, "deleted", "D", (user, Participant(OURSELVES)))


def _each(
    session: Session,
    instances: Iterable[int],
    event: str,
    action: str,
    participants: tuple[Participant, ...],
    *,
    problem: str = "",
) -> list[Message]:
    """A message for each hundred studies, with their patients."""
    studies = things_of(session, list(instances))
    outcome = MINOR if problem else SUCCESS
    return [
        Message(event, action, participants, _flat(studies[at : at + _MOST]), outcome=outcome, problem=problem)
        for at in range(0, len(studies), _MOST)
    ]


def _flat(studies: Sequence[tuple[Thing, Thing]]) -> tuple[Thing, ...]:
    patients = {patient.identifier + "\0" + patient.name: patient for _, patient in studies}
    return (*(study for study, _ in studies), *patients.values())


def things_of(session: Session, instances: Sequence[int]) -> list[tuple[Thing, Thing]]:
    """Study and patient of these instances (primary keys), a pair for each study."""
    counts: dict[int, dict[str, int]] = {}
    facts: dict[int, tuple[str, str, str, str]] = {}
    for chunk in chunks(instances):
        rows = session.execute(
            select(
                Study.id,
                Study.study_instance_uid,
                Study.accession_number,
                Patient.patient_id,
                Patient.patient_name,
                Instance.sop_class_uid,
                func.count(),
            )
            .join(Series, Series.study_id == Study.id)
            .join(Instance, Instance.series_id == Series.id)
            .join(Patient, Patient.id == Study.patient_id)
            .where(Instance.id.in_(chunk))
            .group_by(Study.id, Patient.id, Instance.sop_class_uid)
        )
        for study_id, uid, accession, patient_id, name, sop_class, count in rows:
            facts[study_id] = (uid, accession, patient_id, name)
            classes = counts.setdefault(study_id, {})
            classes[sop_class] = classes.get(sop_class, 0) + count
    found = []
    for study_id, (uid, accession, patient_id, name) in sorted(facts.items()):
        study = Thing(
            "study",
            uid,
            accessions=(accession,) if accession.strip() else (),
            sop_classes=tuple(sorted(counts[study_id].items())),
        )
        found.append((study, Thing("patient", patient_id or "unknown", name)))
    return found
