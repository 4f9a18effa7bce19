"""``burnish catalogue rebuild``: the catalogue from the discs alone, medium by medium, in whatever order they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from config.settings import Settings
from jobs.context import Context
from jobs.options import RequestOptions
from media.discread import DiscFound, read_disc
from media.problems import MediaError
from media.verify_read import VerifyCancelled
from service.bulk import media_in
from service.contract import Document, OnProgress
from service.errors import NotDone, UsageError
from store import rebuild, shelves
from store.checks import UNKNOWN
from store.rebuild import Entered, Run
from store.rebuild_sets import Sighted, missing_volumes

_LOST_TOLD = 1000
"""Files that one medium's document names; it counts the others."""


def options_of(settings: Settings) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Completes what a disc tells of its request's options; what makes no sense is left out."""
    defaults = RequestOptions.from_settings(settings, {}).to_json()
    names = {one.name for one in fields(RequestOptions)}

    def complete(given: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(defaults) | {"coerce": [], "pull_from": ""}
        for name, value in given.items():
            if name in names and (value is None or type(value) in (type(values[name]), int, float, str, bool)):
                values[name] = value
        return values

    return complete


def run(
    ctx: Context,
    paths: Sequence[str],
    *,
    dry_run: bool = False,
    another_copy: bool = False,
    by: str = "cli",
    progress: OnProgress = lambda _progress: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Document:
    """Read every medium at the paths and enter it. Each is entered by itself: what was done stays done.

    ``another_copy``: see ``store.rebuild.Run``. Progress is ``{"path", "done", "total"}`` in bytes, and ``{"disc"}``
    when one is done. Raises UsageError for a path that is not there, NotDone when cancelled.
    """
    places = [Path(path) for path in paths]
    absent = [str(path) for path in places if not path.is_absolute() or not path.exists()]
    if absent:
        raise UsageError(f"there is no {', '.join(absent)} (paths are absolute)")
    order = Run(options_of(ctx.settings), another_copy=another_copy, dry_run=dry_run, by=by)
    sighted = Sighted()
    discs: list[Document] = []
    for path in _once(media for place in places for media in media_in(place)):
        if cancelled():
            raise NotDone("the rebuild was cancelled; what had been entered stays", "CANCELLED")
        document = _one(ctx, path, order, sighted, progress, cancelled)
        discs.append(document)
        progress({"disc": document})
    if not dry_run:
        _question_backups(ctx, order, discs)
    with ctx.db.read() as session:
        missing = sighted.missing(session) if dry_run else missing_volumes(session, order.volumes)
    return {"dry_run": dry_run, "discs": discs, "missing": missing, "summary": summary(discs, missing)}


def _question_backups(ctx: Context, order: Run, discs: Iterable[Document]) -> None:
    """Backups of which no disc of the archive was found may be all that is left of it: a person is to say."""
    with ctx.db.begin() as session:
        found = {f"D{disc_id}" for disc_id in shelves.question(session, order.volumes, by=order.by)}
    for document in discs:
        if document["disc"] in found:
            document["purpose"] = UNKNOWN
            document["notes"].append(
                "It was made as a backup, and something on it is on no disc of the archive that was found: somebody is "
                "to say what it is for."
            )


def _once(paths: Iterable[Path]) -> Iterable[Path]:
    seen: set[Path] = set()
    for path in paths:
        if (real := path.resolve()) not in seen:
            seen.add(real)
            yield path


def _one(
    ctx: Context,
    path: Path,
    order: Run,
    sighted: Sighted,
    progress: OnProgress,
    cancelled: Callable[[], bool],
) -> Document:
    try:
        found = read_disc(
            path,
            scratch=ctx.settings.derived_dir,
            progress=lambda done, total: progress({"path": str(path), "done": done, "total": total}),
            cancelled=cancelled,
        )
    except VerifyCancelled:
        raise NotDone("the rebuild was cancelled; what had been entered stays", "CANCELLED") from None
    except MediaError as error:
        return {"path": str(path), "result": "NO DISC", "reason": str(error), **_NOTHING}
    try:
        sighted.see(found)
        entered = rebuild.enter(ctx.db, found, order)
        return _document(found, entered)
    finally:
        found.close()


_NOTHING: Mapping[str, Any] = {
    "disc": None,
    "new_disc": False,
    "purpose": "",
    "file_set_id": "",
    "file_set_uid": "",
    "volume": None,
    "of": None,
    "origin": "",
    "maker": "",
    "instances": 0,
    "new_instances": 0,
    "lost": [],
    "lost_count": 0,
    "problems": [],
    "notes": [],
}


def _document(found: DiscFound, entered: Entered) -> Document:
    lost = [{"file": name, "reason": reason} for name, reason in sorted(entered.lost.items())]
    damaged = bool(lost) or found.damaged
    if entered.volume_id is None:
        result = "NOT ENTERED"
    elif damaged:
        result = "DAMAGED"
    else:
        result = "ENTERED" if entered.new_instances or entered.new_disc else "KNOWN"
    return {
        "path": str(found.path),
        "result": result,
        "reason": "",
        "disc": entered.disc or None,
        "new_disc": entered.new_disc,
        "purpose": entered.purpose,
        "file_set_id": entered.file_set_id,
        "file_set_uid": entered.file_set_uid,
        "volume": found.number,
        "of": found.of,
        "origin": entered.origin,
        "maker": "Burnish" if found.identity.ours else found.identity.maker,
        "instances": entered.instances,
        "new_instances": entered.new_instances,
        "lost": lost[:_LOST_TOLD],
        "lost_count": len(lost),
        "problems": [problem.as_json() for problem in found.problems],
        "notes": entered.notes[:_LOST_TOLD],
    }


def summary(discs: Sequence[Document], missing: Sequence[Document]) -> Document:
    """Numbers over all media."""
    results = [disc["result"] for disc in discs]
    return {
        "media": len(discs),
        "entered": results.count("ENTERED"),
        "known": results.count("KNOWN"),
        "damaged": results.count("DAMAGED"),
        "not_entered": results.count("NOT ENTERED") + results.count("NO DISC"),
        "new_discs": sum(disc["new_disc"] for disc in discs),
        "purpose_unknown": sum(disc["purpose"] == UNKNOWN for disc in discs),
        "instances": sum(disc["instances"] for disc in discs),
        "new_instances": sum(disc["new_instances"] for disc in discs),
        "lost": sum(disc["lost_count"] for disc in discs),
        "missing_volumes": sum(len(one["missing"]) for one in missing),
    }
