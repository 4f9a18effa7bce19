"""A receiving Burnish for tests: its port, its database and its spool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from config.settings import Settings, load
from scp.server import StorageServer
from store import migrate
from store.db import Database
from store.instances import sweep
from store.models import Instance
from store.spool import INCOMING, Spool
from tests.waiting import until


@dataclass
class Receiver:
    """A storage server and what it has received."""

    server: StorageServer
    port: int
    db: Database
    spool: Spool
    settings: Settings

    def instances(self, sop_instance_uid: str = "") -> list[Instance]:
        with self.db.read() as session:
            query = select(Instance).order_by(Instance.id)
            if sop_instance_uid:
                query = query.where(Instance.sop_instance_uid == sop_instance_uid)
            return list(session.execute(query).scalars())

    def bytes_of(self, instance: Instance) -> bytes:
        assert instance.spool_path is not None
        return self.spool.path_of(instance.spool_path).read_bytes()

    def unfinished(self) -> list[Path]:
        """Files on their way in."""
        return [path for path in (self.spool.root / INCOMING).rglob("*") if path.is_file()]

    def published(self) -> list[Path]:
        return [path for path in self.spool.root.rglob("*.dcm") if path.is_file()]

    def idle(self) -> None:
        """Wait until no association is left."""
        until(lambda: self.server.associations == 0)


Start = Callable[..., Receiver]


def _start(
    folder: Path,
    *,
    url: str = "",
    spool: dict[str, Any] | None = None,
    tls: dict[str, Any] | None = None,
    convert: bool = True,
    recall: dict[str, Any] | None = None,
    **dicom: Any,
) -> Receiver:
    overrides = {
        "dicom": {"port": 0, "acceptors": 1, **dicom},
        "spool": spool or {},
        "database": {"url": url},
        "tls": tls or {},
        "recall": recall or {},
    }
    settings = load(data=folder, overrides=overrides)
    db = Database(settings.database_url)
    migrate.upgrade(db)
    spool_of = Spool(settings.spool_dir, node="test")
    sweep(db, spool_of)
    server = StorageServer(
        settings.dicom,
        settings.spool,
        spool_dir=settings.spool_dir,
        database_url=settings.database_url,
        node="test",
        commitment=settings.commitment,
        tls=settings.tls,
        data=settings.data,
        convert=convert,
        derived_dir=settings.derived_dir,
        recall=settings.recall if recall is not None else None,
    )
    _, port = server.start()
    return Receiver(server, port, db, spool_of, settings)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts receivers with settings of the test's own; by default in the test's folder, one acceptor."""
    started: list[Receiver] = []

    def begin(folder: Path | None = None, **options: Any) -> Receiver:
        receiver = _start(folder or tmp_path, **options)
        started.append(receiver)
        return receiver

    yield begin
    for receiver in started:
        receiver.server.stop()
        receiver.db.close()


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One receiver with default settings and two acceptors for all tests of a module."""
    receiver = _start(tmp_path_factory.mktemp("receiver"), acceptors=2)
    yield receiver
    receiver.server.stop()
    receiver.db.close()
