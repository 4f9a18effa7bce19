"""Tells the results of storage commitments to nodes that we know, over associations of our own (PS3.4 J.3.3).

One thread in the server's process; what is to be told stands in the database, so that it survives us. Several nodes on
one database share the work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.exc import DBAPIError

from scp.remote import Peer, RemoteFailed
from store import commitments, remotes
from store.commitments import Outcome
from store.db import Database
from store.models_nodes import Commitment
from store.remotes import Remote

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_TAKEN_SECONDS = 120.0


class Courier:
    """``start`` and ``stop`` once each."""

    def __init__(
        self,
        database: Database,
        peer: Callable[[Remote], Peer],
        *,
        discs: int,
        patience: timedelta,
        give_up_after: timedelta,
    ) -> None:
        """``peer`` tells how a node is reached."""
        self._database = database
        self._peer = peer
        self._discs = discs
        self._patience = patience
        self._give_up_after = give_up_after
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        failing = False
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                with self._database.read() as session:
                    waiting = commitments.due(session)
                for commitment_id in waiting:
                    if self._stopping.is_set():
                        return
                    self.deliver(commitment_id)
                failing = False
            except Exception as error:  # noqa: BLE001 - the next round may be luckier, and one line tells
                if not failing and isinstance(error, DBAPIError):
                    _log.error("results of storage commitments cannot be told now: %s", error.orig)
                elif not failing:
                    _log.exception("results of storage commitments cannot be told now")
                failing = True

    def deliver(self, commitment_id: int) -> None:
        """Settle one transaction and tell its result, or note when to try again."""
        with self._database.begin() as session:
            if not commitments.take(session, commitment_id, seconds=_TAKEN_SECONDS):
                return
            outcome = commitments.settle(session, commitment_id, discs=self._discs, patience=self._patience)
            row = session.get_one(Commitment, commitment_id)
            ae_title, transaction_uid = row.ae_title, row.transaction_uid
            remote = remotes.by_ae_title(session, ae_title)
        if outcome is None:
            return
        reason: str | None = f"no node has the AE title {ae_title}; `burnish nodes add` it"
        if remote is not None:
            reason = self._send(remote, transaction_uid, outcome)
        with self._database.begin() as session:
            if reason is None:
                commitments.reported(session, commitment_id)
            else:
                _log.warning("the storage commitment result for %s cannot be told: %s", ae_title, reason)
                commitments.not_reported(session, commitment_id, reason, give_up_after=self._give_up_after)

    def _send(self, remote: Remote, transaction_uid: str, outcome: Outcome) -> str | None:
        try:
            self._peer(remote).report(transaction_uid, outcome)
        except RemoteFailed as error:
            return str(error)
        return None
