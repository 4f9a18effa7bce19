"""What a run of a workflow has at hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import select

from burners.registry import Burners
from jobs.context import Context
from jobs.fetching import Fetch
from jobs.leases import Abandoned, LeaseKeeper
from store import discs
from store.discs import DiscFacts
from store.models_jobs import Job
from store.nodes import Lease
from store.states import DISC_FINAL, DiscState

if TYPE_CHECKING:
    from burners.base import ImageSource

_LOOK_SECONDS = 0.3
_TELL_SECONDS = 0.7


class Rooms(Protocol):
    """The parts of other rooms that workflows call; tests put their own in."""

    def make_plan(
        self,
        ctx: Context,
        request_id: int,
        *,
        progress: Callable[[str, int, int, str], None],
        cancelled: Callable[[], bool],
        on_phase: Callable[[str], None],
    ) -> int: ...

    def check_plan(self, ctx: Context, plan_id: int) -> None: ...

    def volume_image(self, ctx: Context, volume_id: int) -> ImageSource: ...


class RealRooms:
    """The rooms of the house, imported when first needed."""

    def make_plan(self, ctx: Context, request_id: int, **hooks: Any) -> int:
        from jobs import planning

        return planning.make_plan(ctx, request_id, **hooks)

    def check_plan(self, ctx: Context, plan_id: int) -> None:
        from jobs import planning

        planning.check_plan(ctx, plan_id)

    def volume_image(self, ctx: Context, volume_id: int) -> ImageSource:
        from jobs import reburning

        return reburning.volume_image(ctx, volume_id)


@dataclass(frozen=True)
class Work:
    """Handed to every workflow; ``step`` runs a function once and remembers its result beyond a crash."""

    ctx: Context
    burners: Burners
    leases: LeaseKeeper
    rooms: Rooms
    step: Callable[[str, Callable[[], str]], str] = field(repr=False)
    wake: Callable[[], None] = field(repr=False)
    """Have the reconciler look for new work now."""
    pull: Fetch | None = field(default=None, repr=False)
    """Fetches studies from remote nodes; None where this process cannot."""

    def claim(self, disc_id: int) -> tuple[Lease, DiscFacts] | None:
        """Take a disc under this node's lease; None when it has ended. Raises Abandoned when a living node has it."""
        lease = self.leases.current()
        with self.ctx.db.begin() as session:
            claimed = discs.claim_disc(session, disc_id, lease)
            facts = discs.facts_of(session, disc_id)
        if claimed:
            return lease, facts
        if DiscState(facts.disc.state) in DISC_FINAL:
            return None
        raise Abandoned(f"disc D{disc_id} is in the hands of node {facts.disc.node}")


class Wish:
    """Whether somebody wants the job cancelled: asks the database, but not all the time."""

    def __init__(self, work: Work, job_id: int, lease: Lease) -> None:
        self._work = work
        self._job_id = job_id
        self._lease = lease
        self._next = 0.0
        self._cancelled = False

    def cancelled(self) -> bool:
        """Raises Abandoned when the work must not go on at all."""
        self._work.leases.check(self._lease)
        at = time.monotonic()
        if not self._cancelled and at >= self._next:
            with self._work.ctx.db.read() as session:
                self._cancelled = bool(
                    session.execute(select(Job.cancel_requested).where(Job.id == self._job_id)).scalar_one()
                )
            self._next = time.monotonic() + _LOOK_SECONDS
        return self._cancelled


class Teller:
    """Passes progress on, but not all the time."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._next = 0.0

    def __call__(self, *progress: Any, now: bool = False) -> None:
        at = time.monotonic()
        if now or at >= self._next:
            self._tell(*progress)
            self._next = time.monotonic() + _TELL_SECONDS
