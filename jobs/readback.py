"""Reading a burnt disc back: every byte from the medium, compared with what the plan says; then the catalogue entry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy import func, select

from burners.base import Burner, BurnState, Outcome, Ticket
from jobs.dispatch import wait_until_free
from jobs.leases import Abandoned
from jobs.work import Teller, Wish, Work
from media.manifest import FILE_NAME as MANIFEST
from media.verify import Expected, VerifyCancelled, VerifyResult, verify_path
from store import discs, jobs
from store.discs import ClaimLost, DiscFacts
from store.models import Derived, Instance
from store.models_base import now
from store.models_jobs import Plan, Volume, VolumeInstance
from store.nodes import Lease
from store.states import DISC_FINAL, DiscState

_SECTOR = 2048
_PROBLEMS_TOLD = 5
_AWAY_SECONDS = 2.0


def verify(work: Work, disc_id: int) -> str:
    """Bring a BURNT disc to VERIFIED, or to FAILED; anything else is let be. Returns its state."""
    claimed = work.claim(disc_id)
    if claimed is not None:
        lease, facts = claimed
        if DiscState(facts.disc.state) in (DiscState.BURNT, DiscState.VERIFYING):
            try:
                _verify(work, facts, lease)
            except ClaimLost as error:
                raise Abandoned(str(error)) from error
    with work.ctx.db.read() as session:
        return discs.facts_of(session, disc_id).disc.state


def _verify(work: Work, facts: DiscFacts, lease: Lease) -> None:
    disc, ticket = facts.disc, facts.disc.ticket
    burner = work.burners.get(disc.burner)
    if burner is None or ticket is None:
        _end(work, disc.id, lease, DiscState.FAILED, error=work.burners.why_not(disc.burner))
        return
    if DiscState(disc.state) is DiscState.BURNT:
        with work.ctx.db.begin() as session:
            job = jobs.lock(session, disc.job_id)
            current = discs.facts_of(session, disc.id).disc
            discs.move_disc(session, current, DiscState.VERIFYING, lease=lease)
            jobs.settle(session, job)
    report = burner.poll(ticket)
    while report.state is BurnState.WAITING:  # what it is on cannot be reached now, which says nothing of the disc
        work.leases.sleep(_AWAY_SECONDS, lease)
        report = burner.poll(ticket)
    if report.state is not BurnState.BURNT:
        burner.finish(ticket, Outcome.BAD)
        wait_until_free(work, burner, ticket, lease)
        what = f"the disc is not there any more: {report.message or report.state.value}"
        _end(work, disc.id, lease, DiscState.FAILED, error=what)
        return
    if report.image is None:
        _good(work, burner, ticket, facts, lease, None, digest=None)
        return
    wish = Wish(work, disc.job_id, lease)
    try:
        result = read_back(work, facts, report.image, lease, wish)
    except VerifyCancelled:
        burner.finish(ticket, Outcome.CANCELLED)
        wait_until_free(work, burner, ticket, lease)
        _end(work, disc.id, lease, DiscState.CANCELLED, image=None)
        return
    if result.ok:
        _good(work, burner, ticket, facts, lease, result, digest=_digest(result, report.image))
        return
    where = burner.finish(ticket, Outcome.BAD)
    wait_until_free(work, burner, ticket, lease)
    told = "; ".join(f"{problem.kind} {problem.file}: {problem.detail}" for problem in result.problems[:_PROBLEMS_TOLD])
    more = f" (and {len(result.problems) - _PROBLEMS_TOLD} more)" if len(result.problems) > _PROBLEMS_TOLD else ""
    kept = f"; kept as {where}" if where else ""
    error = f"read back with {len(result.problems)} problems: {told}{more}{kept}"
    found = {"error": error[:4000], "image": where or None, "sha256": result.image_sha256}
    _end(work, disc.id, lease, DiscState.FAILED, undecided=report.undecided, **found)


def read_back(work: Work, facts: DiscFacts, image: Path, lease: Lease, wish: Wish) -> VerifyResult:
    """Read all of a disc, past the page cache, and compare it with the plan. Raises VerifyCancelled."""
    volume = facts.volume
    with work.ctx.db.read() as session:
        profile = session.execute(select(Plan.profile).where(Plan.id == volume.plan_id)).scalar_one()
        written = session.execute(select(Volume.image_sha256).where(Volume.id == volume.id)).scalar_one()
        rows = session.execute(
            select(func.coalesce(Derived.new_sop_instance_uid, Instance.sop_instance_uid), VolumeInstance.sha256)
            .join(Instance, Instance.id == VolumeInstance.instance_id)
            .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
            .where(VolumeInstance.volume_id == volume.id)
        )
        instances = dict(rows.tuples().all())

    def tell(done: int, total: int) -> None:
        with work.ctx.db.begin() as session:
            discs.note_disc_progress(session, facts.disc.id, lease, done / total if total else 0.0)

    return verify_path(
        image,
        profile=profile,
        expect=Expected(
            image_sha256=None if image.is_dir() else written,
            image_bytes=None if image.is_dir() else volume.sectors * _SECTOR,
            file_set_id=volume.file_set_id,
            file_set_uid=volume.file_set_uid,
            instances=instances,
        ),
        progress=Teller(tell),
        cancelled=wish.cancelled,
        drop_cache=True,
    )


def _good(
    work: Work,
    burner: Burner,
    ticket: Ticket,
    facts: DiscFacts,
    lease: Lease,
    result: VerifyResult | None,
    *,
    digest: str | None,
) -> None:
    """Into the catalogue."""
    location = burner.finish(ticket, Outcome.GOOD)
    wait_until_free(work, burner, ticket, lease)
    with work.ctx.db.begin() as session:
        disc = discs.facts_of(session, facts.disc.id).disc
        jobs.end_disc(
            session,
            disc,
            DiscState.VERIFIED,
            lease,
            free=True,
            progress=1.0,
            verified_by=burner.verified_by,
            verified_at=now(),
            sha256=digest,
            location=location or None,
        )
        if result is not None and result.image_sha256:
            discs.note_image_digest(session, facts.volume.id, result.image_sha256)


def _digest(result: VerifyResult, image: Path) -> str | None:
    """Of the image; of a folder that of its manifest, by which every other file has just been checked."""
    manifest = image / MANIFEST
    if image.is_dir() and manifest.is_file():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    return result.image_sha256


def _end(
    work: Work, disc_id: int, lease: Lease, state: DiscState, *, undecided: bool = False, **values: str | None
) -> None:
    with work.ctx.db.begin() as session:
        disc = discs.facts_of(session, disc_id).disc
        if DiscState(disc.state) not in DISC_FINAL:
            jobs.end_disc(session, disc, state, lease, free=True, undecided=undecided, **values)
