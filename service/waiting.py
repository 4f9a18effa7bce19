"""Queueing a job for the CLI and waiting for its end: by the running service, or by an engine in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from service.client import ServiceOperations
from service.commands import show
from service.commands.common import operations, quiet_logs, say, take_lock
from service.contract import TERMINAL, Document, Operations
from service.errors import NotDone, Refusal, TryLater
from service.lock import running_service

if TYPE_CHECKING:
    from config.settings import Settings

_POLL_SECONDS = 0.2
_RESTART_SECONDS = 60.0
"""How long `--wait` hopes for a service that went away."""


def run(settings: Settings, ask: Callable[[Operations], Document], *, command: str, wait: bool) -> Document:
    """The job's document: as it was queued, or at its end with ``wait``."""
    running = running_service(settings.data)
    if running is None and wait:
        lock, running = take_lock(settings, command)
        if lock is not None:
            try:
                return _run_here(settings, ask)
            finally:
                lock.release()
    if running is None:
        with operations(settings) as ops:
            document = ask(ops)
        if document["state"] not in TERMINAL:
            say(
                f"{document['job']} is queued. No service runs on {settings.data}: the job begins when one starts "
                "(`burnish serve`), or say --wait to have it done now."
            )
        return document
    with operations(settings) as ops:
        document = ask(ops)
    if not wait:
        say(f"{document['job']} is {document['state']}; `burnish job {document['job']}` tells how it goes")
        return document
    return follow(document, lambda job: _asked_again(settings, job))


def _run_here(settings: Settings, ask: Callable[[Operations], Document]) -> Document:
    """Let the engine run in this process until the job has ended."""
    from service.app import Workshop

    quiet_logs(settings)
    with Workshop(settings) as workshop:

        def look(job: str) -> Document:
            if workshop.engine.problem:
                raise NotDone(f"{job} was interrupted: {workshop.engine.problem}", "ENGINE")
            return workshop.operations.job(job)

        return follow(ask(workshop.operations), look)


def _asked_again(settings: Settings, job: str) -> Document:
    """The job's document from the service, which may have been started anew meanwhile (other port, other token)."""
    deadline = time.monotonic() + _RESTART_SECONDS
    told = False
    while True:
        try:
            running = running_service(settings.data)
            if running is not None:
                client = ServiceOperations(running)
                try:
                    return client.job(job)
                finally:
                    client.close()
        except Refusal as error:
            if error.code not in ("NO_SERVICE", "NO_TOKEN", "HTTP_401"):
                raise
        if time.monotonic() > deadline:
            raise TryLater(
                f"the service has ended; {job} goes on when one starts again (`burnish job {job}`)", "NO_SERVICE"
            )
        if not told:
            told = True
            say(f"the service does not answer; waiting for {_RESTART_SECONDS:.0f} s whether it comes back ...")
        time.sleep(_POLL_SECONDS)


def follow(document: Document, look: Callable[[str], Document]) -> Document:
    """Show a job's progress until it has ended; ``look`` fetches its document. Ctrl-C leaves the job as it is."""
    name = document["job"]
    try:
        with show.following() as told:
            told(document)
            took = 0.0
            while document["state"] not in TERMINAL:
                time.sleep(max(_POLL_SECONDS, 4 * took))  # the report of a large job takes a while to be told
                began = time.monotonic()
                document = look(name)
                took = time.monotonic() - began
                told(document)
    except KeyboardInterrupt:
        say(f"{name} was not cancelled: it goes on in the service, or when one starts (`burnish cancel {name}`)")
        raise
    return document
