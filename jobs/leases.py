"""Keeping this node's lease alive, and telling work when it must not go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError, IntegrityError

from store import nodes
from store.db import Database
from store.nodes import Lease

_log = logging.getLogger("burnish.engine")


class Abandoned(BaseException):
    """This run of a workflow may not go on: the service stops, or another claim on its work has come.

    Not an ``Exception``: the engine then records nothing, as after a crash, and the work is continued by another run.
    """


class LeaseKeeper:
    """Holds a node's lease by a thread of its own.

    A lease is trusted until a tenth of its time before the database would let another node have it. After a take-over
    the node joins again under a new lease; work begun under the old one finds ``check`` raising ``Abandoned``.
    """

    def __init__(self, db: Database, node: str, seconds: float, *, on_fatal: Callable[[str], None]) -> None:
        self.node = node
        self._db = db
        self._seconds = seconds
        self._on_fatal = on_fatal
        self._lease: Lease | None = None
        self._trusted_until = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        self._acquire()
        self._thread.start()

    def stop(self) -> None:
        """From here on ``check`` raises for all work; the lease itself is kept until ``release``."""
        self._stopping.set()

    def release(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                with self._db.begin() as session:
                    nodes.release(session, lease)
            except DBAPIError as error:
                _log.warning("the lease could not be given back: %s", error)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def current(self) -> Lease:
        """The lease to begin work under. Raises Abandoned where there is none."""
        lease = self._lease
        if lease is None or not self.valid(lease):
            raise Abandoned("this node has no lease")
        return lease

    def valid(self, lease: Lease) -> bool:
        """Whether work under this lease may go on. SQLite's only process needs no trust in clocks."""
        if self._stopping.is_set() or lease != self._lease:
            return False
        return self._db.is_sqlite or _clock() < self._trusted_until

    def check(self, lease: Lease) -> None:
        if not self.valid(lease):
            raise Abandoned(f"node {lease.node} does not hold lease {lease.epoch} any more, or stops")

    def sleep(self, seconds: float, lease: Lease) -> None:
        """Wait, but not longer than work may go on."""
        self._stopping.wait(seconds)
        self.check(lease)

    def _acquire(self) -> None:
        for attempt in range(20):
            began = _clock()
            try:
                with self._db.begin() as session:
                    lease = nodes.acquire(session, self.node, self._seconds)
            except IntegrityError:  # two nodes wrote the first row of a table at once
                if attempt == 19:
                    raise
                time.sleep(0.05 * (attempt + 1))
                continue
            self._trusted_until = began + self._seconds * 0.9
            self._lease = lease
            return

    def _run(self) -> None:
        failing = False
        while not self._stopping.wait(self._seconds / 3):
            try:
                if not self._renew():
                    return
                if failing:
                    _log.info("the lease is renewed again")
                failing = False
            except DBAPIError as error:
                if not failing:
                    _log.warning("the lease could not be renewed: %s", error.orig)
                failing = True

    def _renew(self) -> bool:
        """False when this node must end for good."""
        lease = self._lease
        assert lease is not None
        began = _clock()
        with self._db.begin() as session:
            held = nodes.renew(session, lease, self._seconds)
            owner = None if held else nodes.owner_of(session, self.node)
        if held:
            self._trusted_until = began + self._seconds * 0.9
            return True
        self._lease = None
        if owner is None:
            self._on_fatal(f"another process runs as node {self.node!r}; node.name must differ on each")
            return False
        _log.warning("node %s was taken over by %s while it could not be heard; it joins again", self.node, owner)
        self._acquire()
        return True


def _clock() -> float:
    """Seconds that pass while the machine sleeps, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
