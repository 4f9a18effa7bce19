"""DICOMweb of an application that is really served, so that clients speak HTTP with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from dicomweb_client.api import DICOMwebClient

from config.settings import load
from service import opening
from service.api.application import build
from service.http import HttpServer
from service.operations import StoreOperations
from service.shutdown import Stopping

TOKEN = "sesame"


@dataclass(frozen=True)
class Web:
    url: str
    operations: StoreOperations
    session: requests.Session

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicomweb"

    @property
    def client(self) -> DICOMwebClient:
        return DICOMwebClient(self.dicomweb, session=self.session)

    def get(self, path: str, accept: str = "", **options: object) -> requests.Response:
        headers = {"Accept": accept} if accept else {}
        return self.session.get(f"{self.dicomweb}{path}", headers=headers, timeout=60, **options)  # type: ignore[arg-type]


@contextmanager
def serving(data: Path) -> Iterator[Web]:
    settings = load(data=data, overrides={"dicom": {"port": 0}, "http": {"port": 0}})
    context = opening.open_context(settings)
    operations = StoreOperations(context, source="api")
    server = HttpServer("127.0.0.1", 0)
    stopping = Stopping()
    server.start(build(operations, token=TOKEN, hosts=(), stopping=stopping))
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {TOKEN}"
    try:
        yield Web(f"http://127.0.0.1:{server.port}", operations, session)
    finally:
        stopping.begin()
        session.close()
        server.stop()
        opening.close_context(context)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.delenv("BURNISH_DATA", raising=False)
    with serving(tmp_path / "data") as served:
        yield served


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One for all tests of a file that only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BURNISH_DATA", raising=False)
        with serving(tmp_path_factory.mktemp("shared") / "data") as served:
            yield served
