"""Watched folders and drives: a thread for each looks what came, and deals with each disc once.

What was dealt with stands in ``watch_seen``, so a restart begins nothing anew; what a crash cut short is done again,
which takes nothing in twice. Nothing that lies at a place, however broken, ends the watching.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burners import drive_tray
from config.sections import Watch
from jobs import recalls
from media.coercion import RulesError
from media.problems import MediaError
from media.resting import Unit, Unreadable, identity_of, identity_of_file, units, why_not_yet
from media.trees import open_tree
from service.arrivals import Arrival, Stopped, forward, free_name, offer
from service.contract import Document
from service.errors import as_refusal
from service.logs import logger
from service.operations import StoreOperations
from store import recall_plan, watches

DONE, FAILED = "done", "failed"
"""Folders at a watched place that ``after = "move"`` puts things into; they are not watched."""
_PATIENCE = 30
"""An image that is shorter than its volume says is given so many times the time to settle, and a minute at least."""
_TRIES = 48
"""Times that sending on is tried: two days, mostly once an hour."""
_AGAIN_SECONDS = (30.0, 60.0, 300.0, 900.0, 3600.0)


@dataclass(slots=True)
class _Lying:
    """What is known of something at the place."""

    signature: str
    since: float
    """When it was first seen like this."""
    again: float = 0.0
    """Not before this."""
    tries: int = 0
    why: str = ""
    """Why it waits, in words."""
    handled: bool = False
    moved: bool = False
    disc: int | None = None
    """Which copy of its volume it was taken for when a recall read it: it is no other one as long as it lies there."""
    served: set[str] = field(default_factory=set)
    """Recalls that have read it. What it did not give them it would not give them the next time."""

    def note(self, answer: Mapping[str, Any]) -> None:
        """Keep in mind what an offer to recalls came to."""
        if answer.get("result") == recalls.READ:
            self.disc = int(answer["disc"][1:]) if answer["disc"] else None
            self.served.update(answer["served"])


@dataclass(slots=True)
class _Status:
    """How a watch stands now, for people."""

    state: str = "starting"
    detail: str = ""
    busy: str = ""
    phase: dict[str, Any] = field(default_factory=dict)


class Watcher:
    """One watched place. ``look`` is called by one thread."""

    def __init__(
        self,
        watch: Watch,
        operations: StoreOperations,
        *,
        clock: Callable[[], float] = time.monotonic,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.watch = watch
        self.place = operations.context.settings.data / watch.path
        self._ops, self._clock, self._stopped = operations, clock, stopped
        self._node = operations.context.spool.node
        self._log = logger("service.watching")
        self._lying: dict[Path, _Lying] = {}
        self._sending: dict[int, tuple[float, int]] = {}
        self._status = _Status()
        self._begun = False
        self._looked = False

    def look(self) -> int:
        """See what lies there and deal with what has come to rest; returns how many were dealt with."""
        if not self._begun:
            self._begun = True
            with self._ops.context.db.read() as session:
                self._sending = {row.id: (0.0, 0) for row in watches.unsent(session, self.watch.name)}
        count, first = 0, not self._looked
        try:
            found = list(units(self.place, (DONE, FAILED) if self.watch.after == "move" else ()))
        except Unreadable as error:
            self._tell("failing", str(error))
            return 0
        there = self.place.exists()
        self._tell("watching" if there else "absent", "" if there else f"there is no {self.place}")
        self._notice(found, first=first)
        self._looked = True
        for unit in found:
            if self._stopped():
                break
            count += self._consider(unit)
        self._send_on()
        return count

    def document(self) -> Document:
        """How it stands, for people."""
        status, watch = self._status, self.watch
        return {
            "name": watch.name,
            "path": str(self.place),
            "state": status.state,
            "detail": status.detail,
            "busy": status.busy or None,
            "progress": dict(status.phase) or None,
            "waiting": [
                {"path": str(path), "why": one.why} for path, one in list(self._lying.items()) if not one.handled
            ],
            "to_send": len(self._sending),
        }

    def _tell(self, state: str, detail: str) -> None:
        if (state, detail) != (self._status.state, self._status.detail):
            level = self._log.info if state == "watching" else self._log.warning
            level("a watched place", watch=self.watch.name, state=state)
        self._status.state, self._status.detail = state, detail

    def _notice(self, found: list[Unit], *, first: bool) -> None:
        """Keep in mind since when each is as it is. What is gone is forgotten: it is new when it comes again.

        ``first``: what lies there lay there when the service ended, also in a drive.
        """
        now = self._clock()
        here = {unit.path for unit in found}
        for path in [path for path in self._lying if path not in here]:
            del self._lying[path]
        fresh = [unit for unit in found if unit.path not in self._lying]
        if fresh:
            with self._ops.context.db.read() as session:
                known = watches.at_paths(session, self.watch.name, [_text(unit.path) for unit in fresh])
        for unit in found:
            lying = self._lying.get(unit.path)
            if lying is None:
                lying = self._lying[unit.path] = _Lying(unit.signature, now)
                result = known.get(_text(unit.path), {})
                lying.handled = result.get("signature") == unit.signature
                if lying.handled and (first or unit.kind != "drive"):
                    lying.note(result.get("recall") or {})
            elif lying.signature != unit.signature:
                self._lying[unit.path] = _Lying(unit.signature, now, why="it is still being written")

    def _consider(self, unit: Unit) -> int:
        lying, now = self._lying[unit.path], self._clock()
        if lying.handled:
            self._serve_recalls(unit)
            if self.watch.after == "move" and not lying.moved and now >= lying.again:
                self._after(unit, lying, failed=False, number=None)
            return 0
        if now < lying.again:
            return 0
        if unit.kind != "drive":
            settle = self.watch.settle_seconds
            if now - lying.since < settle:
                lying.why = lying.why or "it has just come"
                return 0
            if (why := why_not_yet(unit)) and now - lying.since < max(60.0, _PATIENCE * settle):
                lying.why = why
                return 0
        try:
            return int(self._deal(unit, lying))
        except Stopped:
            return 0
        except Exception as error:  # noqa: BLE001 - it must not keep the others from being dealt with
            lying.tries += 1
            lying.again = now + _AGAIN_SECONDS[min(lying.tries, len(_AGAIN_SECONDS)) - 1]
            refusal = as_refusal(error)
            lying.why = str(refusal) if refusal is not None else f"unexpected {type(error).__name__}: {error}"
            self._log.error(
                "an arrival could not be dealt with yet", watch=self.watch.name, error=type(error).__name__,
                exc_info=error if refusal is None else None,
            )  # fmt: skip
            return 0
        finally:
            self._status.busy, self._status.phase = "", {}

    def _deal(self, unit: Unit, lying: _Lying) -> bool:
        """False: another node is dealing with it."""
        db, name = self._ops.context.db, self.watch.name
        self._status.busy = _text(unit.path)
        identity = _identity(unit)
        claimed = watches.claim(db, name, identity, _text(unit.path), self._node)
        if claimed.by:
            lying.why, lying.again = f"node {claimed.by} is dealing with it", self._clock() + _AGAIN_SECONDS[0]
            return False
        try:
            result = self._result(unit, claimed)
            number = watches.keep(db, name, identity, _text(unit.path), result)
        except BaseException:
            watches.release(db, name, identity, self._node)
            raise
        lying.handled, lying.why = True, ""
        if result.get("unsent"):
            self._sending[number] = (0.0, 0)
        words = {
            key: result[key] for key in ("verified", "imported", "duplicates", "conflicts", "error") if key in result
        }
        self._log.info("an arrival was dealt with", watch=name, seen=number, complete=result["complete"], **words)
        self._after(unit, lying, failed=not result["complete"], number=number)
        return True

    def _result(self, unit: Unit, claimed: watches.Claimed) -> Document:
        """What comes of a unit that is ours alone now."""
        before = claimed.result
        if before.get("complete"):
            result = dict(before)
            same = (before.get("signature"), claimed.path) == (unit.signature, _text(unit.path))
            if same and unit.kind != "drive":
                return result  # another node has dealt with it while this one waited
            result["again"] = int(before.get("again", 0)) + 1
            if self.watch.recalls and unit.kind != "file":
                result["recall"] = self._offer(unit)
        else:
            result = self._outcome(
                Arrival(self.watch, self._ops, unit, self._progress, self._stopped, lambda: self._offer(unit))
            )
            if before.get("unsent"):
                result["unsent"] = sorted({*before["unsent"], *result.get("unsent", ())})
        return result | {"signature": unit.signature}

    def _outcome(self, arrival: Arrival) -> Document:
        """What comes of it; for what it is itself to blame for, a result that says so."""
        try:
            return arrival.deal()
        except RulesError:
            raise  # our own file of rules is wrong, not what came
        except MediaError as error:
            return {"error": str(error), "complete": False}

    def _progress(self, phase: str, done: int, total: int) -> None:
        self._status.phase = {"phase": phase, "done": done, "total": total}

    def _offer(self, unit: Unit) -> Document:
        """What it does for open recalls; that it is the copy that it was taken for once."""
        lying = self._lying[unit.path]
        answer = offer(self.watch, self._ops, unit, self._stopped, disc_id=lying.disc)
        lying.note(answer)
        return answer

    def _serve_recalls(self, unit: Unit) -> None:
        """What lies there all the time serves a recall that came later."""
        if not self.watch.recalls or unit.kind == "file":
            return
        db, name, path = self._ops.context.db, self.watch.name, _text(unit.path)
        lying = self._lying[unit.path]
        with db.read() as session:
            row = watches.at_path(session, name, path)
            uid = row.result.get("file_set_uid") if row is not None else ""
            volume = recall_plan.volume_of(session, file_set_uid=uid, file_set_id="") if uid else None
            wanted = recall_plan.wanted_of_volume(session, volume.id) if volume is not None else {}
        if row is None or self._clock() < lying.again or {f"C{number}" for number in wanted} <= lying.served:
            return
        lying.again = self._clock() + _AGAIN_SECONDS[0]
        answer = self._offer(unit)
        if answer["result"] == recalls.READ:
            watches.keep(db, name, row.identity, row.path, {**row.result, "recall": answer})
        self._log.info("a disc serves a recall", watch=name, restored=answer["restored"], failed=answer["failed"])

    # -- afterwards --------------------------------------------------------------------------------------------------

    def _after(self, unit: Unit, lying: _Lying, *, failed: bool, number: int | None) -> None:
        """Move or eject what was dealt with; if that fails it is tried again, and said."""
        trouble = ""
        if self.watch.after == "move" and unit.kind != "drive" and unit.path != self.place:
            if number is None:
                with self._ops.context.db.read() as session:
                    kept = watches.at_paths(session, self.watch.name, [_text(unit.path)])
                failed = not kept.get(_text(unit.path), {}).get("complete")
            target = self.place / (FAILED if failed else DONE)
            try:
                target.mkdir(exist_ok=True)
                unit.path.rename(free_name(target, unit.path.name))
                lying.moved = True
            except FileNotFoundError:
                lying.moved = True  # by another node that looks here
            except OSError as error:
                trouble = f"{unit.path.name} cannot be moved: {error.strerror or error}"
        elif self.watch.after == "eject" and unit.kind == "drive":
            trouble = drive_tray.eject(str(unit.path))
        if trouble:
            lying.again = self._clock() + _AGAIN_SECONDS[1]
            self._tell("failing", trouble)

    def _send_on(self) -> None:
        """Send what is still to be sent, whether its disc is still there or not."""
        db = self._ops.context.db
        for number, (at, tries) in list(self._sending.items()):
            if self._stopped() or self._clock() < at:
                continue
            with db.read() as session:
                row = watches.by_number(session, number)
            if row is None or not row.result.get("unsent"):
                del self._sending[number]
                continue
            claimed = watches.claim(db, self.watch.name, row.identity, row.path, self._node)
            if claimed.by:
                self._sending[number] = (self._clock() + _AGAIN_SECONDS[0], tries)
                continue
            before = claimed.result
            if not before.get("unsent"):  # another node has sent it meanwhile
                watches.release(db, self.watch.name, row.identity, self._node)
                del self._sending[number]
                continue
            self._status.busy = row.path
            told = forward(self._ops, self.watch, before["unsent"], self._progress, self._stopped)
            self._status.busy, self._status.phase = "", {}
            result = {**before, **told, "tries": int(before.get("tries", 0)) + 1}
            if told["unsent"] and result["tries"] >= _TRIES and not self._stopped():
                # It is said, and can be mended by `burnish send`; it shall not go on for ever.
                result |= {"unsent": [], "complete": False, "error": f"{len(told['unsent'])} could not be sent on"}
            watches.keep(db, self.watch.name, row.identity, row.path, result)
            if result["unsent"]:
                wait = _AGAIN_SECONDS[min(tries, len(_AGAIN_SECONDS) - 1)]
                self._sending[number] = (self._clock() + wait, tries + 1)
                self._log.warning("not all could be sent on; it is tried again", watch=self.watch.name, seen=number)
            else:
                del self._sending[number]


class Watching:
    """All watched places of this service."""

    def __init__(self, operations: StoreOperations) -> None:
        self._stopping = threading.Event()
        self.watchers = [
            Watcher(watch, operations, stopped=self._stopping.is_set) for watch in operations.context.settings.watch
        ]
        self._threads: list[threading.Thread] = []

    def documents(self) -> list[Document]:
        """How each stands."""
        return [watcher.document() for watcher in self.watchers]

    def start(self) -> None:
        for watcher in self.watchers:
            thread = threading.Thread(
                target=self._run, args=(watcher,), name=f"watch-{watcher.watch.name}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Begin nothing more, and wait for what runs; what is broken off is done again at the next start."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, watcher: Watcher) -> None:
        failing = ""
        pause = max(0.2, min(5.0, watcher.watch.settle_seconds / 2))
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                watcher.look()
                failing = ""
            except Exception as error:  # noqa: BLE001 - the next look tries again, and one line tells
                if failing != repr(error):
                    logger("service.watching").error(
                        "a look at a watched place failed", watch=watcher.watch.name, exc_info=error
                    )
                failing = repr(error)
            # Looking at very many files must not become the machine's main work.
            self._stopping.wait(max(pause, 5 * (time.monotonic() - begun)))


def _identity(unit: Unit) -> str:
    try:
        if unit.kind == "file":
            return f"file:{identity_of_file(unit.path)}"
        with open_tree(unit.path) as tree:
            return identity_of(tree)
    except (MediaError, OSError):
        return f"unreadable:{unit.signature[:64]}"


def _text(path: Path) -> str:
    """A path as the database takes it: names may hold bytes that are no UTF-8."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "")
