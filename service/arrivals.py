"""What is done with a disc, image or folder that came to a watched place: recalls, verification, import, sending on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from config.sections import Watch
from jobs import recalls
from media.coercion import read_rules
from media.problems import MediaError, NotDicom
from media.recognise import FILE_SET, NOTHING, recognise
from media.resting import Unit, is_image
from media.trees import canonical_path
from media.verify import VerifyCancelled
from service.contract import Document, Source
from service.forwarding import send_on
from service.importing import Found, bring_in, survey
from service.operations import StoreOperations
from service.verification import Examined, examine
from store import recall_plan
from store.instances import Provenance
from store.recalls import RecallError
from store.reconcile import PassedOver, Reconciler, keep_rules
from store.watches import uids_of

Progress = Callable[[str, int, int], None]
"""Hears what is done, how much of it, of how much."""
_SHOWN = 20
_LOST = ("absent", "cannot be read", "when the disc was made", "since it was verified")
"""Words of a refusal that tells of something which should be there."""
_WHOSE = "PROC_FAILURE"
"""Begins a refusal by a rule that could not say whose an instance is."""


class Stopped(Exception):
    """The service stops; what was begun is done again at its next start."""


def offer(
    watch: Watch, operations: StoreOperations, unit: Unit, stopped: Callable[[], bool], *, disc_id: int | None
) -> Document:
    """What a unit does for open recalls, in a few words; ``disc_id``: the copy that it was taken for before."""
    place, by = watch.name, f"watch:{watch.name}"
    try:
        answer = recalls.offer(operations.context, unit.path, place, disc_id=disc_id, by=by, cancelled=stopped)
    except RecallError:  # that copy is marked as lost meanwhile
        answer = recalls.offer(operations.context, unit.path, place, by=by, cancelled=stopped)
    told = {key: answer[key] for key in ("result", "words", "disc", "restored", "failed")}
    return told | {"served": [one["recall"] for one in answer["recalls"]]}


class Arrival:
    """One unit at a watched place, dealt with from recognition to sending on."""

    def __init__(
        self,
        watch: Watch,
        operations: StoreOperations,
        unit: Unit,
        progress: Progress,
        stopped: Callable[[], bool],
        offer: Callable[[], Document],
    ) -> None:
        """``offer`` offers it to open recalls."""
        self._watch, self._ops, self._unit = watch, operations, unit
        self._progress, self._stopped, self._offer = progress, stopped, offer

    def deal(self) -> Document:
        """The result, as ``store.watches`` keeps it. Raises SpoolFull and what stops the service; nothing else."""
        unit, watch = self._unit, self._watch
        found = recognise(unit.path) if unit.kind != "file" else None
        result: Document = {"medium": unit.kind, "bytes": unit.bytes, "complete": True}
        if found is not None:
            result |= {"says": found.says, "file_set_id": found.file_set_id, "file_set_uid": found.file_set_uid}
            result["maker"] = "Burnish" if found.ours else found.maker
        if watch.recalls and unit.kind != "file":
            result["recall"] = self._offer()
        if found is not None and found.kind == NOTHING and unit.kind != "folder":
            return result | {"error": found.says, "complete": False}
        known = bool(found and found.file_set_uid) and self._known(found.file_set_uid if found else "")
        result["known"] = known
        examined = None
        if watch.verify != "off" and found is not None and found.kind == FILE_SET:
            examined = self._examine()
            result |= _of(examined)
        if watch.take == "none" or (watch.take == "foreign" and known):
            return result
        if watch.verify == "require" and examined is not None and examined.state == "DAMAGED":
            return result | {"error": "it is damaged; nothing was taken in", "complete": False}
        return result | self._take(examined, bool(result["complete"]))

    def _known(self, file_set_uid: str) -> bool:
        with self._ops.context.db.read() as session:
            return recall_plan.volume_of(session, file_set_uid=file_set_uid, file_set_id="") is not None

    def _examine(self) -> Examined:
        def told(done: int, total: int) -> None:
            if self._stopped():
                raise VerifyCancelled
            self._progress("verify", done, total)

        try:
            return examine(self._unit.path, self._ops, progress=told)
        except VerifyCancelled:
            raise Stopped from None

    def _take(self, examined: Examined | None, complete: bool) -> Document:
        with ExitStack() as stack:
            found = survey([self._unit.path], stack)
            if self._unit.kind == "folder":  # images in it are units of their own
                found.sources = [one for one in found.sources if one.path is None or not is_image(one.path)]
            if examined is not None:
                _only_what_is_sound(found, examined)
            door = _Door(self._ops, self._watch)
            total, done = found.bytes, 0

            def told(size: int) -> None:
                nonlocal done
                done += size
                if self._stopped():
                    raise Stopped
                self._progress("import", done, total)

            taken: list[int] = []
            document = bring_in(cast(Any, door), found, progress=told, reconcile=door.digest, taken=taken)
        passed, refused = list[Document](), list[Document]()
        for one in document["refused"]:
            is_passed = one["reason"].startswith("passed over") or found.is_no_instance(one)
            (passed if is_passed else refused).append(one)
        missing = [one for one in refused if _is_lost(one["reason"])]
        result: Document = {
            **{key: document[key] for key in ("imported", "duplicates", "conflicts", "conformed") if key in document},
            "passed_over": len(passed),
            "refused": len(refused),
            "first_refused": (missing + [one for one in refused if one not in missing])[:_SHOWN],
            "complete": complete and not missing,
        }
        if door.digest:
            result |= {"reconciled": document["reconciled"], "rules": door.digest}
        if self._watch.to and taken:
            result["unsent"] = taken
        return result


def _is_lost(reason: str) -> bool:
    """Whether it is no answer to be content with: the instance is wanted, and could not be taken in."""
    return reason.startswith(_WHOSE) or any(words in reason for words in _LOST)


def forward(
    operations: StoreOperations, watch: Watch, numbers: list[int], progress: Progress, stopped: Callable[[], bool]
) -> Document:
    """Send on what a place brought: ``{"sent_on", "unsent"}``, with the numbers of those that the node did not take."""

    def send(part: list[int]) -> Document:
        return operations.send(
            watch.to,
            {"instance": part},
            lambda one: progress("send", one["done"], one["total"]),
            stopped,
        )

    try:
        document = send_on(numbers, send)
    except Exception as error:  # noqa: BLE001 - a node that is not there now may be there later
        return {"sent_on": {"node": watch.to, "error": str(error)}, "unsent": numbers}
    failed = {one["sop_instance_uid"] for one in document["failed"]}
    with operations.context.db.read() as session:
        left = [number for number, uid in uids_of(session, numbers) if uid in failed]
    return {"sent_on": {**document, "failed": document["failed"][:_SHOWN], "warnings": []}, "unsent": left}


class _Door:
    """Through which a watched place's instances come in (what ``bring_in`` needs of the operations)."""

    def __init__(self, operations: StoreOperations, watch: Watch) -> None:
        context = operations.context
        self._ops = operations
        self._from = Provenance(watch.calling_ae, "", f"watch:{watch.name}")
        rules = read_rules(context.settings.data / watch.reconcile) if watch.reconcile else []
        self.digest = keep_rules(context.settings.data, rules) if rules else ""
        system = context.settings.dicom.ae_title
        made = partial(Reconciler, context.db, rules, self.digest, when=watch.when, system=system)
        self._rules = made() if rules or watch.when else None

    def ingest(self, source: Source, *, reconcile: str = "") -> Document:
        del reconcile
        with source.open() as stream:
            try:
                return self._ops.ingest_stream(stream, reconcile=self._rules or "", provenance=self._from)
            except PassedOver as reason:
                raise MediaError(str(reason)) from None


def _of(examined: Examined) -> Document:
    return {
        "verified": examined.state,
        "problems": len(examined.problems),
        "first_problems": [problem.as_json() for problem in examined.problems[:_SHOWN]],
        "lost": len(examined.lost),
        "complete": not examined.lost,
    }


def _only_what_is_sound(found: Found, examined: Examined) -> None:
    """Leave out what was damaged on the medium, and hold the rest against what was read when it was verified."""
    lost = {one.file: one.kind for one in examined.lost}
    label = str(examined.path)
    sources = []
    for source in found.sources:
        name = canonical_path(source.shown[len(label) :].lstrip("/"))
        if name in lost:
            found.refuse(source.shown, f"it is not as it was when the disc was made ({lost[name]})")
        else:
            digest = examined.result.digests.get(name)
            sources.append(replace(source, open=partial(_checked, source, digest), path=None) if digest else source)
    found.sources = sources


def _checked(source: Source, sha256: str) -> BinaryIO:
    return cast(BinaryIO, _Checked(source.open(), sha256))


class _Checked(RawIOBase):
    """A file whose bytes must be those that were verified; told at its end, before anything is registered."""

    def __init__(self, stream: BinaryIO, sha256: str) -> None:
        super().__init__()
        self._stream, self._sha256, self._digest = stream, sha256, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        if not data and self._digest.hexdigest() != self._sha256:
            raise NotDicom("it was read otherwise since it was verified: the medium is not sound")
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()


def free_name(folder: Path, name: str) -> Path:
    """A path in a folder where nothing lies yet."""
    path, number = folder / name, 1
    while path.exists() or path.is_symlink():
        number += 1
        stem, dot, suffix = name.rpartition(".")
        path = folder / (f"{stem} ({number}).{suffix}" if dot and stem else f"{name} ({number})")
    return path
