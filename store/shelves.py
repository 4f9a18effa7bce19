"""Discs as things that people keep: where one is, who has it, whether it is lost or damaged.

A disc that is lost or damaged keeps its state, which says how it was made; nobody counts on it any more, until it is
found again. Each change has its Event in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from config.worded import Worded, state
from store import atrisk, copies
from store.bulk import chunks
from store.checks import DAMAGED, PURPOSES, UNKNOWN, is_unconfirmed
from store.guard import rows_changed
from store.models_base import now
from store.models_jobs import Disc, Volume
from store.models_nodes import Event
from store.rereading import NoSuchDisc
from store.states import DiscState

LOST = "LOST"
MARKS = (LOST, DAMAGED)
_LONGEST = 255


class DiscError(Exception):
    """What was asked of a disc cannot be done as it is; ``code`` is for scripts."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class BadPlace(Exception):
    """A place, name or reason that cannot be kept; the text says why."""


def move(session: Session, disc_id: int, shelf: str, *, by: str = "cli") -> Disc:
    """Note where a disc is kept: room, shelf and slot as the site names them, or a robot's bin; ``""``: nowhere named.

    Raises NoSuchDisc, BadPlace, and DiscError for a disc that was never made, or is marked as lost (LOST).
    """
    disc = _made(session, disc_id)
    shelf = _text("the shelf", shelf, may_be_empty=True)
    if (disc.shelf or "") == shelf:
        return disc
    if shelf:
        _require_there(disc)
    return _change(session, disc, "shelf", disc.shelf, shelf or None, {"by": by}, shelf=shelf or None)


def check_out(session: Session, disc_id: int, to: str, *, by: str = "cli") -> Disc:
    """Note that somebody has a disc. Raises as above, and DiscError (CHECKED_OUT) where another has it."""
    disc = _made(session, disc_id)
    to = _text("who takes it", to)
    _require_there(disc)
    if disc.checked_out_to is not None:
        at = disc.checked_out_at
        since = Worded("since", " since {at} UTC", at=f"{at:%Y-%m-%d %H:%M}") if at else ""
        raise DiscError(
            "CHECKED_OUT",
            Worded(
                "checked_out",
                "D{disc} is with {who}{since}; `burnish discs return` comes first",
                disc=disc_id,
                who=disc.checked_out_to,
                since=since,
            ),
        )
    detail = {"by": by, "action": "check-out", "shelf": disc.shelf}
    return _change(session, disc, "shelf", disc.shelf, to, detail, checked_out_to=to, checked_out_at=now())


def check_in(session: Session, disc_id: int, shelf: str | None = None, *, by: str = "cli") -> Disc:
    """Note that a disc is back, where it was or on another shelf. One that is marked as lost stays so, until somebody
    says that it was found. Raises as above, and DiscError (NOT_CHECKED_OUT)."""
    disc = _made(session, disc_id)
    if disc.checked_out_to is None:
        raise DiscError(
            "NOT_CHECKED_OUT",
            Worded("not_checked_out", "nobody has D{disc}: it is {where}", disc=disc_id, where=_where(disc)),
        )
    place = disc.shelf if shelf is None else _text("the shelf", shelf, may_be_empty=True) or None
    detail = {"by": by, "action": "return"}
    values = {"checked_out_to": None, "checked_out_at": None, "shelf": place}
    return _change(session, disc, "shelf", disc.checked_out_to, place, detail, **values)


def mark(session: Session, disc_id: int, what: str, *, reason: str, by: str = "cli") -> Disc:
    """Nobody counts on a disc any more: it is ``LOST`` or ``DAMAGED``, as a person says.

    Waits for a purge that counts on it at this moment. Raises as above. Marked so before: the reason is kept anew.
    """
    if what not in MARKS:
        raise BadPlace(f"{what!r} is no mark of a disc; there are {', '.join(MARKS)}")
    disc = _made(session, disc_id)
    reason = _text("the reason", reason, may_be_empty=True, longest=2000)
    values = {"marked": what, "marked_at": now(), "marked_reason": reason or None}
    disc = _change(session, disc, "mark", disc.marked, what, {"by": by, "reason": reason}, **values)
    copies.recount(session, disc.volume_id)
    return disc


def found(session: Session, disc_id: int, *, reason: str = "", by: str = "cli") -> Disc:
    """A marked disc is there again, and sound. Raises as above, and DiscError (NOT_MARKED)."""
    disc = _made(session, disc_id)
    reason = _text("the reason", reason, may_be_empty=True, longest=2000)
    if disc.marked is None:
        raise DiscError("NOT_MARKED", Worded("not_marked", "D{disc} is not marked as lost or damaged", disc=disc_id))
    values = {"marked": None, "marked_at": None, "marked_reason": None}
    disc = _change(session, disc, "mark", disc.marked, None, {"by": by, "reason": reason}, **values)
    copies.recount(session, disc.volume_id)
    return disc


def dedicate(session: Session, disc_id: int, purpose: str, *, by: str = "cli") -> Disc:
    """A disc is for something else from now on: one of the archive was handed out, say. Raises as above."""
    _require_purpose(purpose)
    disc = _made(session, disc_id)
    before = disc.purpose
    if before == purpose:
        return disc
    disc = _change(session, disc, "mark", before, purpose, {"by": by, "action": "purpose"}, purpose=purpose)
    copies.recount(session, disc.volume_id)
    # With its last disc of the archive a volume wants no copies any more, so nobody would be told what it alone holds.
    # (Nobody counted on a disc of unknown purpose: what is said of it is the truth, whatever it alone holds.)
    last = before != UNKNOWN and copies.wanted_of(session, disc.volume_id) == 0
    if last and (left := atrisk.on_nothing(session, disc.volume_id)):
        raise DiscError(
            "LAST_DISC",
            Worded(
                "last_disc",
                "{n} instances are on D{disc} alone; `burnish reburn D{disc}` makes another disc of them",
                n=left,
                disc=disc_id,
            ),
        )
    return disc


def dedicate_unknown(session: Session, purpose: str, *, file_set_id: str = "", by: str = "cli") -> list[int]:
    """Every disc of which nobody said what it is for is for this from now on, but those that are marked as lost or
    damaged; returns their ids.

    ``file_set_id``: of these only, ``*`` and ``?`` stand for any characters, and for one. Raises BadPlace.
    """
    _require_purpose(purpose)
    wanted = select(Disc.id).where(is_unconfirmed())
    if file_set_id:
        wanted = wanted.join(Volume, Volume.id == Disc.volume_id)
        wanted = wanted.where(Volume.file_set_id.like(_pattern(file_set_id.strip().upper()), escape="\\"))
    found: list[int] = []
    rows = session.execute(
        select(Disc.id, Disc.job_id, Disc.volume_id).where(Disc.id.in_(wanted)).order_by(Disc.id).with_for_update()
    ).all()
    detail = {"by": by, "action": "purpose", "old": UNKNOWN, "new": purpose}
    for chunk in chunks(rows):
        at = now()
        ids = [row.id for row in chunk]
        statement = update(Disc).where(Disc.id.in_(ids), Disc.purpose == UNKNOWN)
        rows_changed(session, statement.values(purpose=purpose, updated_at=at))
        session.execute(
            insert(Event),
            [
                {
                    "at": at,
                    "kind": "mark",
                    "job_id": row.job_id,
                    "disc_id": row.id,
                    "old": UNKNOWN,
                    "new": purpose,
                    "detail": detail,
                }
                for row in chunk
            ],
        )
        found += ids
    copies.recount_many(session, {row.volume_id for row in rows})
    return found


def question(session: Session, volume_ids: Iterable[int], *, by: str = "cli") -> list[int]:
    """Backups that nothing of the archive is left beside (``atrisk.backups_alone``) are of unknown purpose from now on:
    what they hold is found and told of, until a person says what they are for; returns the discs' ids."""
    found = atrisk.backups_alone(session, volume_ids)
    for disc_id in found:
        disc = _made(session, disc_id)
        _change(session, disc, "mark", disc.purpose, UNKNOWN, {"by": by, "action": "purpose"}, purpose=UNKNOWN)
        copies.recount(session, disc.volume_id)
    return found


def _require_purpose(purpose: str) -> None:
    if purpose not in PURPOSES:
        raise BadPlace(f"{purpose!r} is no purpose of a disc; there are {', '.join(PURPOSES)}")


def _pattern(text: str) -> str:
    """A text with ``*`` and ``?`` as LIKE takes it."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return text.replace("*", "%").replace("?", "_")


def _made(session: Session, disc_id: int) -> Disc:
    """A disc that exists as a thing, locked until the end of the transaction."""
    disc = session.get(Disc, disc_id, with_for_update=True, populate_existing=True)
    if disc is None:
        raise NoSuchDisc(Worded("no_disc", "there is no disc D{disc}", disc=disc_id))
    if DiscState(disc.state) is not DiscState.VERIFIED:
        raise DiscError(
            "NOT_VERIFIED",
            Worded(
                "not_verified",
                "D{disc} is {state}; only a verified disc is kept",
                disc=disc_id,
                state=state(disc.state),
            ),
        )
    return disc


def _require_there(disc: Disc) -> None:
    """DiscError (LOST): nobody can take or put away what is lost; whoever has it in hand has found it."""
    if disc.marked == LOST:
        at = disc.marked_at
        since = Worded("since_day", " since {day}", day=f"{at:%Y-%m-%d}") if at else ""
        raise DiscError(
            "LOST",
            Worded(
                "marked_lost",
                "D{disc} is marked as lost{since}; if you have it, `burnish discs found D{disc}` comes first",
                disc=disc.id,
                since=since,
            ),
        )


def _change(
    session: Session, disc: Disc, kind: str, old: str | None, new: str | None, detail: dict[str, Any], **values: Any
) -> Disc:
    at = now()
    statement = update(Disc).where(Disc.id == disc.id).values(values | {"updated_at": at})
    rows_changed(session, statement)
    full = detail | {"old": old, "new": new}
    short = {name: value[:64] if value is not None else None for name, value in (("old", old), ("new", new))}
    session.add(Event(at=at, kind=kind, job_id=disc.job_id, disc_id=disc.id, detail=full, **short))
    session.flush()
    session.refresh(disc)
    return disc


def _where(disc: Disc) -> str:
    if disc.shelf:
        return Worded("on_shelf", "on shelf {shelf}", shelf=disc.shelf)
    return Worded("no_shelf", "where its shelf is, which nobody has named")


def _text(what: str, given: str, *, may_be_empty: bool = False, longest: int = _LONGEST) -> str:
    given, name = given.strip(), Worded(f"text.{what.replace(' ', '_')}", what)
    if not given and not may_be_empty:
        raise BadPlace(Worded("empty", "{what} is empty", what=name))
    if len(given) > longest:
        raise BadPlace(
            Worded("too_long", "{what} has {n} characters; it may have {most}", what=name, n=len(given), most=longest)
        )
    if not given.isprintable():
        raise BadPlace(Worded("unprintable", "{what} has characters that cannot be printed", what=name))
    return given
