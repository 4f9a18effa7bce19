"""DCMTK's movescu and getscu wait while a disc is fetched."""

from __future__ import annotations

import threading
from pathlib import Path

import pydicom
import pytest

from jobs.recalls import listing, offer
from store import remotes
from tests.discs import Burnt
from tests.peers.test_query_peers import storescp
from tests.peers.test_storage_peers import run
from tests.scp.conftest import Start, start
from tests.scp.test_recall import WAIT, archived
from tests.waiting import until

__all__ = ["start", "storescp"]


class Bringing:
    """Somebody who brings the disc once it is asked for."""

    def __init__(self, ctx: object, burnt: Burnt) -> None:
        def bring() -> None:
            until(lambda: listing(ctx)["asks"])  # type: ignore[arg-type]
            offer(ctx, burnt.image)  # type: ignore[arg-type]

        self._thread = threading.Thread(target=bring)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()


@pytest.mark.peer("getscu")
def test_getscu(start: Start, tmp_path: Path) -> None:
    receiver = start(recall=WAIT)
    ctx, uid, burnt = archived(receiver, tmp_path, 3)
    came = tmp_path / "came"
    came.mkdir()
    with Bringing(ctx, burnt):
        done = run(
            *("getscu", "-v", "-S", "+B", "-od", came, "-aec", "BURNISH"),
            *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}", "127.0.0.1", receiver.port),
        )
    assert done.returncode == 0, done.stderr
    assert "Pending" in done.stdout + done.stderr
    assert len({str(pydicom.dcmread(path).SOPInstanceUID) for path in came.iterdir()}) == 3


@pytest.mark.peer("movescu", "storescp", "echoscu")
def test_movescu(start: Start, tmp_path: Path, storescp: tuple[int, Path]) -> None:
    receiver = start(recall=WAIT)
    ctx, uid, burnt = archived(receiver, tmp_path, 3)
    port, folder = storescp
    with receiver.db.begin() as session:
        remotes.add(session, remotes.Remote("storescp", "STORESCP", "127.0.0.1", port))
    words = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}", "127.0.0.1", receiver.port)
    with Bringing(ctx, burnt):
        done = run(*("movescu", "-v", "-S", "-aem", "STORESCP", "-aec", "BURNISH"), *words)
    assert done.returncode == 0, done.stderr
    assert "Pending" in done.stdout + done.stderr and "Success" in done.stdout + done.stderr
    assert len(list(folder.iterdir())) == 3


@pytest.mark.peer("movescu")
def test_movescu_cancels(start: Start, tmp_path: Path, storescp: tuple[int, Path]) -> None:
    receiver = start(recall=WAIT)
    ctx, uid, _ = archived(receiver, tmp_path, 3)
    with receiver.db.begin() as session:
        remotes.add(session, remotes.Remote("storescp", "STORESCP", "127.0.0.1", storescp[0]))
    done = run(
        *("movescu", "-v", "-S", "--cancel", "2", "-aem", "STORESCP", "-aec", "BURNISH"),
        *("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}", "127.0.0.1", receiver.port),
    )
    assert "Cancel" in done.stdout + done.stderr
    until(lambda: not listing(ctx)["asks"])
