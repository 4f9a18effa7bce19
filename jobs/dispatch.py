"""Getting a disc made: claim a slot of its burner, store the ticket, submit, poll until the device has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import select

from burners.base import Burner, BurnOrder, BurnRefused, BurnReport, BurnState, Outcome, Ticket
from burners.registry import DISCS
from jobs.labelling import label_of_disc
from jobs.leases import Abandoned
from jobs.protecting import takes_images, unsuitable
from jobs.work import Teller, Wish, Work
from store import discs, jobs, slots
from store.discs import ClaimLost, DiscFacts
from store.models_jobs import Plan
from store.nodes import Lease
from store.states import DISC_FINAL, DiscState

if TYPE_CHECKING:
    from burners.base import ImageSource

_FIRST_POLL_SECONDS = 0.02
_POLL_SECONDS = 0.5
_SLOT_SECONDS = 0.1
_SUBMITS = 20
"""A driver that forgets an order so often has a fault."""


def burn(work: Work, disc_id: int) -> str:
    """Bring a disc to BURNT, or to its end. Returns its state."""
    claimed = work.claim(disc_id)
    if claimed is not None:
        lease, facts = claimed
        if DiscState(facts.disc.state) in (DiscState.PLANNED, DiscState.SUBMITTED, DiscState.BURNING):
            try:
                _burn(work, facts, lease)
            except ClaimLost:
                _after_lost_claim(work, disc_id)
    with work.ctx.db.read() as session:
        return discs.facts_of(session, disc_id).disc.state


def _burn(work: Work, facts: DiscFacts, lease: Lease) -> None:
    disc = facts.disc
    burner = work.burners.get(disc.burner)
    if burner is None:
        why = f"burner {disc.burner}: {work.burners.why_not(disc.burner)}"
        _end(work, disc.id, lease, DiscState.FAILED, error=why, free=disc.ticket is None)
        return
    if facts.volume.protection and not takes_images(frozenset(getattr(burner, "families", DISCS))):
        why = unsuitable(disc.burner)
        _end(work, disc.id, lease, DiscState.FAILED, error=why, free=disc.ticket is None)
        return
    wish = Wish(work, disc.job_id, lease)
    order = order_of(work, facts, lease)
    _take_slot(work, burner, disc.id, lease)
    ticket = disc.ticket
    if ticket is None:
        try:
            ticket = burner.prepare(order)
        except BurnRefused as error:
            _end(work, disc.id, lease, DiscState.FAILED, error=str(error))
            return
        _store_ticket(work, disc.id, ticket, lease)
    _see_through(work, burner, order, ticket, facts, lease, wish)


def order_of(work: Work, facts: DiscFacts, lease: Lease) -> BurnOrder:
    """The order for a disc, under a lease."""
    disc, volume = facts.disc, facts.volume

    def open_image() -> ImageSource:
        return work.rooms.volume_image(work.ctx, volume.id)

    label = label_of_disc(work.ctx, disc, volume)
    with work.ctx.db.read() as session:
        medium = session.execute(select(Plan.medium).where(Plan.id == volume.plan_id)).scalar_one()

    return BurnOrder(
        disc=f"D{disc.id}",
        job=f"J{disc.job_id}",
        file_set_id=volume.file_set_id,
        file_set_uid=volume.file_set_uid,
        volume=volume.number,
        volumes=volume.of,
        copy=disc.copy,
        attempt=disc.attempt,
        sectors=volume.sectors,
        epoch=lease.epoch,
        open_image=open_image,
        may_publish=_publication_guard(work, disc.id, volume.id, lease),
        medium=medium,
        label=label.fields,
        write_label=label.write,
    )


def _publication_guard(work: Work, disc_id: int, volume_id: int, lease: Lease) -> Callable[[str | None], bool]:
    def may_publish(sha256: str | None) -> bool:
        if not work.leases.valid(lease):
            return False
        with work.ctx.db.begin() as session:
            if not discs.still_claimed(session, disc_id, lease):
                return False
            kept = discs.note_image_digest(session, volume_id, sha256) if sha256 else sha256
        if kept != sha256:
            raise BurnRefused(f"the image became {sha256}, but another copy of this volume is {kept}")
        return work.leases.valid(lease)

    return may_publish


def _take_slot(work: Work, burner: Burner, disc_id: int, lease: Lease) -> None:
    """Wait for a slot of the burner. Raises ClaimLost when the disc was cancelled meanwhile."""
    host = slots.EVERY_NODE if burner.shared else lease.node
    while True:
        with work.ctx.db.begin() as session:
            if not discs.still_claimed(session, disc_id, lease):
                raise ClaimLost(f"disc D{disc_id}")
            facts = discs.facts_of(session, disc_id)
            if DiscState(facts.disc.state) in DISC_FINAL:
                raise ClaimLost(f"disc D{disc_id}")
            begun = facts.disc.ticket is not None
            if (begun or discs.is_next(session, facts)) and slots.claim(
                session, burner.name, host, disc_id
            ) is not None:
                return
        work.leases.sleep(_SLOT_SECONDS, lease)


def _store_ticket(work: Work, disc_id: int, ticket: Ticket, lease: Lease) -> None:
    """Durable before the device hears anything."""
    with work.ctx.db.begin() as session:
        disc = discs.facts_of(session, disc_id).disc
        job = jobs.lock(session, disc.job_id)
        discs.move_disc(session, disc, DiscState.SUBMITTED, lease=lease, ticket=ticket)
        jobs.settle(session, job)
    work.wake()  # the next disc may come nearer


def _see_through(
    work: Work, burner: Burner, order: BurnOrder, ticket: Ticket, facts: DiscFacts, lease: Lease, wish: Wish
) -> None:
    """Poll the driver until the device has ended; submit when it knows nothing of the ticket."""
    disc_id = facts.disc.id
    pause = _FIRST_POLL_SECONDS
    submits = 0
    told_to_cancel = False

    def tell(progress: float) -> None:
        with work.ctx.db.begin() as session:
            discs.note_disc_progress(session, disc_id, lease, progress)

    teller = Teller(tell)
    shown: tuple[BurnState, str] = (BurnState.UNKNOWN, "")
    while True:
        work.leases.check(lease)
        report = burner.poll(ticket)
        cancelled = wish.cancelled()
        if report.state is BurnState.UNKNOWN:
            if cancelled:
                _finish_cancelled(work, burner, ticket, disc_id, lease)
                return
            submits += 1
            if submits > _SUBMITS:
                _end(work, disc_id, lease, DiscState.FAILED, error=f"the burner forgot the order: {report.message}")
                return
            try:
                burner.submit(order, ticket)
            except BurnRefused as error:
                _end(work, disc_id, lease, DiscState.FAILED, error=str(error))
                return
        elif not report.state.ended:
            if cancelled and not told_to_cancel:
                burner.cancel(ticket)
                told_to_cancel = True
            seen = (report.state, report.message if report.state is BurnState.WAITING else "")
            if seen != shown:
                _show(work, disc_id, lease, report)
                shown = seen
            teller(report.progress)
        elif report.state is BurnState.BURNT:
            if cancelled:
                _finish_cancelled(work, burner, ticket, disc_id, lease)
            else:
                _burnt(work, disc_id, lease, report)
            return
        elif report.device_free:
            burner.finish(ticket, Outcome.CANCELLED if report.state is BurnState.CANCELLED else Outcome.BAD)
            state = DiscState.CANCELLED if report.state is BurnState.CANCELLED else DiscState.FAILED
            why = None if cancelled else report.message or report.state.value
            _end(work, disc_id, lease, state, error=why, undecided=report.undecided)
            return
        work.leases.sleep(pause, lease)
        pause = min(_POLL_SECONDS, pause * 1.6)


def _show(work: Work, disc_id: int, lease: Lease, report: BurnReport) -> None:
    """Let disc and job show what the device does: it works, or it waits for a person."""
    with work.ctx.db.begin() as session:
        disc = discs.facts_of(session, disc_id).disc
        job = jobs.lock(session, disc.job_id)
        if disc.state == DiscState.SUBMITTED and report.state is not BurnState.QUEUED:
            discs.move_disc(session, disc, DiscState.BURNING, lease=lease)
        wish = (report.message or "the burner waits for a person") if report.state is BurnState.WAITING else None
        jobs.note_waiting(session, job, disc_id, wish)
        jobs.settle(session, job)


def _burnt(work: Work, disc_id: int, lease: Lease, report: BurnReport) -> None:
    with work.ctx.db.begin() as session:
        disc = discs.facts_of(session, disc_id).disc
        job = jobs.lock(session, disc.job_id)
        image = str(report.image) if report.image else None
        discs.move_disc(session, disc, DiscState.BURNT, lease=lease, image=image, progress=1.0)
        jobs.note_waiting(session, job, disc_id, None)
        if report.device_free:
            slots.release(session, disc_id)
        jobs.settle(session, job)


def _finish_cancelled(work: Work, burner: Burner, ticket: Ticket, disc_id: int, lease: Lease) -> None:
    where = burner.finish(ticket, Outcome.CANCELLED)
    wait_until_free(work, burner, ticket, lease)
    late = f"made before the cancellation came: the disc is in {where}" if where else None
    _end(work, disc_id, lease, DiscState.CANCELLED, error=late)


def wait_until_free(work: Work, burner: Burner, ticket: Ticket, lease: Lease) -> None:
    """Until the driver says that the device can take another disc."""
    while not burner.poll(ticket).device_free:
        work.leases.sleep(_SLOT_SECONDS, lease)


def _end(
    work: Work,
    disc_id: int,
    lease: Lease,
    state: DiscState,
    *,
    error: str | None,
    free: bool = True,
    undecided: bool = False,
) -> None:
    with work.ctx.db.begin() as session:
        disc = discs.facts_of(session, disc_id).disc
        jobs.end_disc(session, disc, state, lease, free=free, undecided=undecided, error=error, image=None)


def _after_lost_claim(work: Work, disc_id: int) -> None:
    """Cancelled before it began: its slot is free. Else another claim has come, and this run is over."""
    with work.ctx.db.begin() as session:
        disc = discs.facts_of(session, disc_id).disc
        if DiscState(disc.state) not in DISC_FINAL:
            raise Abandoned(f"disc D{disc_id} was claimed by another")
        if disc.ticket is None:
            slots.release(session, disc_id)
