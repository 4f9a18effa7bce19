"""How remote nodes are reached: the settings' times, TLS, another attempt after a pause."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from config.settings import Settings
from jobs.context import Context
from scp.remote import Peer, RemoteFailed
from store import remotes
from store.remotes import Remote

if TYPE_CHECKING:
    import ssl


class Reaching:
    """The nodes of an open store."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def named(self, name: str) -> Peer:
        with self.context.db.read() as session:
            return self.peer(remotes.by_name(session, name))

    def peer(self, remote: Remote) -> Peer:
        """How a node is reached."""
        settings = self.context.settings
        return Peer(
            remote,
            ae_title=settings.dicom.ae_title,
            connect_timeout=settings.remote.connect_timeout,
            acse_timeout=settings.dicom.acse_timeout,
            dimse_timeout=settings.remote.answer_timeout,
            tls=partial(tls_context, settings),
        )

    def note(self, name: str, problem: str = "") -> None:
        """Keep that a node answered, or why it did not."""
        with self.context.db.begin() as session:
            remotes.note_contact(session, name, ok=not problem, words=problem)

    def retried(self, ask: Callable[[], Any], cancelled: Callable[[], bool]) -> Any:
        """What ``ask`` returns; asked again where a failure may pass. Raises RemoteFailed."""
        for attempt in range(1, self.context.settings.remote.retries + 1):
            try:
                return ask()
            except RemoteFailed as error:
                if not error.transient or cancelled():
                    raise
            pause(attempt, cancelled)
        return ask()


def tls_context(settings: Settings) -> ssl.SSLContext:
    """For associations that we open. Raises ``scp.tls.TlsError``."""
    from scp.tls import TlsFiles, client_context

    tls = settings.tls
    files = TlsFiles(settings.in_data(tls.certificate), settings.in_data(tls.key), settings.in_data(tls.ca))
    return client_context(files, check_host=tls.check_host)


def pause(attempt: int, cancelled: Callable[[], bool]) -> None:
    """Wait before another attempt, longer each time; returns early when cancelled."""
    deadline = time.monotonic() + min(2.0 ** (attempt - 1), 30.0)
    while time.monotonic() < deadline and not cancelled():
        time.sleep(0.1)
