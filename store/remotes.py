"""Application entities of others: whom we send to, ask and fetch from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from config.worded import Worded
from store.db import enter
from store.models import Instance
from store.models_base import now
from store.models_nodes import RemoteNode

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_AE_TITLE = re.compile(r"[\x21-\x5B\x5D-\x7E]([\x20-\x5B\x5D-\x7E]{0,14}[\x21-\x5B\x5D-\x7E])?")
"""PS3.5 6.2: at most 16 characters of the default repertoire, no backslash, no blanks at the ends."""
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,255}")


RETRIEVE = ("move", "get")


class RemoteNodeError(Exception):
    """A node cannot be entered or is not known; the text says why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class BadRemoteNode(RemoteNodeError):
    """A value can be none."""


class UnknownRemoteNode(RemoteNodeError):
    """There is no such node."""


@dataclass(frozen=True, slots=True)
class Remote:
    """An application entity of others."""

    name: str
    """As commands name it."""
    ae_title: str
    host: str
    port: int
    retrieve: str = "move"
    """``move``: C-MOVE, it must know us as a destination; ``get``: C-GET, over our own association."""
    tls: bool = False
    """Associations with it are over TLS."""


def add(session: Session, remote: Remote) -> None:
    """Enter a node. Raises RemoteNodeError for a name that is taken, BadRemoteNode for values."""
    wrong = [
        text
        for fits, text in (
            (
                _NAME.fullmatch(remote.name),
                Worded(
                    "node_name",
                    "the name {given!r} may have letters, digits and . _ -, at most 32",
                    given=remote.name,
                ),
            ),
            (
                _AE_TITLE.fullmatch(remote.ae_title),
                Worded("ae_title", "{given!r} is no AE title: 1 to 16 characters, no \\", given=remote.ae_title),
            ),
            (
                _HOST.fullmatch(remote.host),
                Worded("host", "{given!r} is no host name or address", given=remote.host),
            ),
            (1 <= remote.port <= 65535, Worded("port", "{given} is no port: 1 to 65535", given=remote.port)),
            (remote.retrieve in RETRIEVE, f"retrieve is {remote.retrieve!r}; it may be {' or '.join(RETRIEVE)}"),
        )
        if not fits
    ]
    if wrong:
        raise BadRemoteNode("NODE", wrong[0] if len(wrong) == 1 else "; ".join(wrong))
    taken = RemoteNodeError(
        "NODE_KNOWN", Worded("node_known", "there is a node {node!r} already; remove it first", node=remote.name)
    )
    if session.get(RemoteNode, remote.name) is not None:
        raise taken
    row = RemoteNode(
        name=remote.name,
        ae_title=remote.ae_title,
        host=remote.host,
        port=remote.port,
        retrieve=remote.retrieve,
        tls=remote.tls,
        created_at=now(),
    )
    if not enter(session, row):
        raise taken


def remove(session: Session, name: str) -> None:
    """Raises UnknownRemoteNode."""
    by_name(session, name)
    session.execute(delete(RemoteNode).where(RemoteNode.name == name))


def listed(session: Session) -> list[Remote]:
    """All of them, by name."""
    return [_remote(row) for row in session.scalars(select(RemoteNode).order_by(RemoteNode.name))]


def note_contact(session: Session, name: str, *, ok: bool, words: str) -> None:
    """Keep what came of asking a node something; one that is not there any more is let be."""
    values = {"contact_at": now(), "contact_ok": ok, "contact_words": words[:1000]}
    session.execute(update(RemoteNode).where(RemoteNode.name == name).values(values))


def with_contact(session: Session) -> list[dict[str, Any]]:
    """All of them by name, each with when we last asked it something, and when it last sent us an instance."""
    found = []
    for row in session.scalars(select(RemoteNode).order_by(RemoteNode.name)).all():
        sent = session.execute(select(func.max(Instance.received_at)).where(Instance.calling_ae == row.ae_title))
        found.append(
            {
                "name": row.name,
                "ae_title": row.ae_title,
                "host": row.host,
                "port": row.port,
                "retrieve": row.retrieve,
                "tls": row.tls,
                "contact_at": row.contact_at,
                "contact_ok": row.contact_ok,
                "contact_words": row.contact_words,
                "received_at": sent.scalar_one(),
            }
        )
    return found


def by_name(session: Session, name: str, *, lock: bool = False) -> Remote:
    """``lock``: nobody else removes it until the end of the transaction.

    Raises UnknownRemoteNode that tells which there are.
    """
    row = session.get(RemoteNode, name, with_for_update=lock or None)
    if row is None:
        known = ", ".join(session.scalars(select(RemoteNode.name).order_by(RemoteNode.name)))
        raise UnknownRemoteNode(
            "NOT_FOUND", f"there is no node {name!r}; " + (f"there are {known}" if known else "none")
        )
    return _remote(row)


def by_ae_title(session: Session, ae_title: str) -> Remote | None:
    """The first of that AE title by name; None where no node has it (a C-MOVE to it is refused)."""
    row = session.scalars(
        select(RemoteNode).where(RemoteNode.ae_title == ae_title.strip()).order_by(RemoteNode.name).limit(1)
    ).first()
    return _remote(row) if row is not None else None


def _remote(row: RemoteNode) -> Remote:
    return Remote(row.name, row.ae_title, row.host, row.port, row.retrieve, row.tls)
