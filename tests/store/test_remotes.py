"""Application entities of others, entered, found and removed; on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from store import remotes
from store.db import Database
from store.remotes import Remote, RemoteNodeError

PACS = Remote("pacs", "ORTHANC", "10.0.0.5", 4242)


def test_a_node_is_entered_once_found_and_removed(database: Database) -> None:
    with database.begin() as session:
        remotes.add(session, PACS)
        remotes.add(session, Remote("Er-2", "A B", "::1", 104))
    with database.begin() as session, pytest.raises(RemoteNodeError, match="already"):
        remotes.add(session, PACS)
    with database.read() as session:
        assert remotes.listed(session) == [Remote("Er-2", "A B", "::1", 104), PACS]
        assert remotes.by_name(session, "pacs") == PACS
        assert remotes.by_ae_title(session, "ORTHANC  ") == PACS
        assert remotes.by_ae_title(session, "orthanc") is None
    with database.begin() as session:
        remotes.remove(session, "pacs")
        with pytest.raises(RemoteNodeError, match="there is no node 'pacs'; there are Er-2"):
            remotes.remove(session, "pacs")


def test_of_two_who_enter_it_at_once_the_later_one_is_told(database: Database) -> None:
    begun = threading.Event()

    def add() -> str:
        with database.begin() as session:
            begun.set()
            try:
                remotes.add(session, PACS)
            except RemoteNodeError as error:
                return error.code
        return "entered"

    with ThreadPoolExecutor(1) as thread:
        with database.begin() as session:
            remotes.add(session, PACS)
            session.flush()
            later = thread.submit(add)
            if not database.is_sqlite:  # where a transaction waits for the one before it to end
                assert begun.wait(60)
        assert later.result(60) == "NODE_KNOWN"


@pytest.mark.parametrize(
    "wrong",
    [
        Remote("", "A", "h", 1),
        Remote("-x", "A", "h", 1),
        Remote("n", "", "h", 1),
        Remote("n", "SEVENTEEN_LETTERS", "h", 1),
        Remote("n", "A\\B", "h", 1),
        Remote("n", " A", "h", 1),
        Remote("n", "A", "h o", 1),
        Remote("n", "A", "h", 0),
        Remote("n", "A", "h", 1, "take"),
        Remote("n", "A", "h", 65536),
    ],
)
def test_values_that_can_be_none_are_refused(database: Database, wrong: Remote) -> None:
    with database.begin() as session, pytest.raises(RemoteNodeError):
        remotes.add(session, wrong)
