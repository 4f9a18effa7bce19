"""Sending instances to a remote node (C-STORE), converted where it takes no other, and committed by it where asked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.conform_pool import Task, conform_all
from jobs.context import Context
from media.recipes import EXPLICIT_LE_RECIPE
from scp import commitment
from scp.remote import EXPLICIT_LE, Outgoing, Peer, RemoteFailed, Sent
from service import reaching
from service.contract import Document, OnProgress
from service.reaching import Reaching
from store import commitments
from store.bulk import chunks
from store.commitments import Pair
from store.retrieval import held

if TYPE_CHECKING:
    from pydicom import Dataset

_LISTEN_SECONDS = 2.0


class Sending:
    """Sends from an open store."""

    def __init__(self, context: Context, nodes: Reaching, *, receiving: bool) -> None:
        """``receiving``: our own SCP runs, so that a result of storage commitment can arrive later."""
        self._context = context
        self._nodes = nodes
        self._receiving = receiving

    def send(
        self,
        name: str,
        ids: Sequence[int],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        commit: bool = False,
    ) -> Document:
        """Send instances; tells by instance what was not taken. With ``commit`` the node is asked to commit them."""
        peer = self._nodes.named(name)
        waiting, failed = self._outgoing(ids)
        total = len(waiting) + len(failed)
        pairs = {one.sop_instance_uid: Pair(one.sop_class_uid, one.sop_instance_uid) for one in waiting.values()}
        sent: dict[str, Sent] = {}

        def on_sent(one: Sent) -> None:
            if one.ok:
                sent[one.sop_instance_uid] = one
                progress({"phase": "send", "done": len(sent), "total": total, "unit": "instances"})

        attempt, reason = 0, "cancelled"
        with tempfile.TemporaryDirectory(prefix="sending-", dir=self._context.settings.data) as folder:
            while waiting and not cancelled():
                try:
                    results = peer.store(list(waiting.values()), on_sent=on_sent)
                except RemoteFailed as error:
                    reason = str(error)
                    if not error.transient:
                        break
                    results = []
                plain: list[Outgoing] = []
                for one in results:
                    if one.ok:
                        waiting.pop(one.sop_instance_uid)
                    elif one.transient:
                        reason = one.reason
                    else:
                        outgoing = waiting.pop(one.sop_instance_uid)
                        if one.unaccepted and self._convertible(outgoing):
                            plain.append(outgoing)
                        else:
                            failed.append(one)
                again = bool(waiting)
                converted, refused = self._converted(plain, Path(folder), cancelled)
                waiting |= {one.sop_instance_uid: one for one in converted}
                failed += refused
                if again:
                    attempt += 1
                    if attempt > self._context.settings.remote.retries:
                        break
                    reaching.pause(attempt, cancelled)
        failed += [Sent(uid, -1, reason) for uid in waiting if uid not in sent]
        document: Document = {
            "node": name,
            "instances": total,
            "sent": len(sent),
            "warnings": [_line(one) for one in sent.values() if one.status],
            "failed": [_line(one) for one in failed],
            "commitment": None,
        }
        if commit and sent:
            document["commitment"] = self._commit(peer, [pairs[uid] for uid in sent], progress, cancelled)
        return document

    def _outgoing(self, ids: Sequence[int]) -> tuple[dict[str, Outgoing], list[Sent]]:
        """What can be sent, by UID, and what is no longer here; of several with one UID the first is sent."""
        found: dict[str, Outgoing] = {}
        gone: dict[str, Sent] = {}
        with self._context.db.read() as session:
            for chunk in chunks(ids):
                for one in held(session, sorted(chunk)):
                    uid, syntax = one.sop_instance_uid, one.transfer_syntax_uid
                    if one.spool_path is not None:
                        path = self._context.spool.path_of(one.spool_path)
                    elif one.restored is not None:
                        path = self._context.derived_path(one.restored.path)
                        syntax = one.restored.transfer_syntax_uid
                    elif one.only_renamed:
                        words = "it is there only under another patient's name or number (docs/archive-recall.md)"
                        gone[uid] = Sent(uid, -1, words)
                    else:
                        gone[uid] = Sent(uid, -1, "it is no longer in the spool; `burnish recall` brings it back")
                        continue
                    found.setdefault(uid, Outgoing(one.sop_class_uid, uid, syntax, path))
        return found, [one for uid, one in gone.items() if uid not in found]

    def _convertible(self, one: Outgoing) -> bool:
        return self._context.settings.remote.convert and one.transfer_syntax_uid != EXPLICIT_LE

    def _converted(
        self, instances: Sequence[Outgoing], folder: Path, cancelled: Callable[[], bool]
    ) -> tuple[list[Outgoing], list[Sent]]:
        """Explicit VR Little Endian copies, decoded in helper processes, and what cannot be decoded."""
        tasks = [
            Task(number, one.sop_instance_uid, one.path, folder / f"{number}.dcm", EXPLICIT_LE_RECIPE)
            for number, one in enumerate(instances)
        ]
        made, refused = [], []
        jobs = self._context.settings.jobs
        for result in conform_all(
            tasks, processes=jobs.conform_processes, megabytes=jobs.conform_memory_mb, cancelled=cancelled
        ):
            one = instances[result.task.key]
            if result.refused is not None:
                refused.append(Sent(one.sop_instance_uid, -1, f"it cannot be converted: {result.refused[1]}"))
            else:
                made.append(replace(one, transfer_syntax_uid=EXPLICIT_LE, path=result.task.target))
        return made, refused

    def _commit(
        self, peer: Peer, pairs: Sequence[Pair], progress: OnProgress, cancelled: Callable[[], bool]
    ) -> Document:
        """Ask the node to commit what it took, and wait for its result, on this association or one of its own."""
        from media.uids import new_uid

        uid, db = new_uid(), self._context.db
        with db.begin() as session:
            number = commitments.enter(
                session, "scu", uid, pairs, ae_title=peer.remote.ae_title, source=peer.remote.host
            )
        progress({"phase": "commit", "done": 0, "total": len(pairs), "unit": "instances"})

        def on_result(information: Dataset) -> None:
            with db.begin() as session:
                commitments.answered(session, uid, peer.remote.ae_title, commitment.told(information))

        try:
            peer.commit(uid, pairs, listen=_LISTEN_SECONDS, on_result=on_result)
        except RemoteFailed as error:
            return {"transaction_uid": uid, "state": "failed", "reason": str(error), "committed": 0, "failed": []}
        deadline = time.monotonic() + (self._context.settings.remote.commit_timeout if self._receiving else 0)
        while True:
            with db.read() as session:
                outcome = commitments.result_of(session, number)
            if outcome is not None or cancelled() or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if outcome is None:
            reason = f"{peer.remote.name} has not told its result yet"
            return {"transaction_uid": uid, "state": "pending", "reason": reason, "committed": 0, "failed": []}
        return {
            "transaction_uid": uid,
            "state": "committed" if not outcome.failed else "failed",
            "reason": "",
            "committed": len(outcome.committed),
            "failed": [
                {"sop_instance_uid": each.sop_instance_uid, "reason": f"Failure Reason {each.reason:04X}H"}
                for each in outcome.failed
            ],
        }


def _line(one: Sent) -> Document:
    return {"sop_instance_uid": one.sop_instance_uid, "reason": one.reason}
