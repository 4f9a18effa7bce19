"""Recalls by command line and API, without a service and with one; what is sent on, and what is recalled in advance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from config.settings import Settings, load
from service.app import Service
from service.operations import StoreOperations
from tests.discs import burn, in_spool, purge, put_online
from tests.makers import study
from tests.service.conftest import write
from tests.service.test_cli import burnish
from tests.service.test_exchange import Node, add, node
from tests.waiting import wait_for

__all__ = ["node"]


@contextmanager
def serving(settings: Settings) -> Iterator[None]:
    service = Service(settings)
    service.start()
    try:
        yield
    finally:
        service.stop()


@pytest.fixture
def archive(opened: Callable[[], StoreOperations], tmp_path: Path) -> StoreOperations:
    """Three CT and two MR in the spool."""
    ops = opened()
    for path in write(tmp_path / "in", [*study("CT", 3, seed=1), *study("MR", 2, seed=2)]):
        with path.open("rb") as stream:
            ops.ingest_stream(stream)
    return ops


def test_by_command_without_a_service(archive: StoreOperations, data: Path, tmp_path: Path) -> None:
    ctx = archive.context
    (burnt,) = burn(ctx, tmp_path / "vault", patients_per_disc="many")
    purge(ctx)
    at = ("--data", data, "--json")
    begun = burnish("recall", "--modality", "CT", *at)
    assert (begun["recall"], begun["state"], begun["instances"]) == ("C1", "WAITING", 3)
    assert begun["asks"][0]["words"] == f"please insert {burnt.file_set_id}, shelf 1-1"
    assert "no service runs" in burnish("recall", "--modality", "MR", "--wait", "--data", data, status=1)
    told = burnish("recalls", *at)
    assert [one["recall"] for one in told["recalls"]] == ["C2", "C1"]
    assert told["asks"][0]["recalls"] == ["C1", "C2"]
    words = burnish("recalls", "--data", data)
    assert "C1" in words and "WAITING" in words and f"please insert {burnt.file_set_id}" in words
    assert f"please insert {burnt.file_set_id}" in burnish("recalls", "C1", "--data", data), "it is what was asked for"

    assert "is not an ISO 9660 image" in burnish("insert", tmp_path / "in" / "CT-1.dcm", "--data", data, status=1)
    done = burnish("insert", burnt.image, "--place", "drive 1", *at)
    assert (done["result"], done["restored"]) == ("READ", 5)
    assert [one["state"] for one in done["recalls"]] == ["DONE", "DONE"]
    assert in_spool(ctx) == 5
    assert "no recall needs it" in burnish("insert", burnt.image, "--data", data, status=1)
    assert burnish("recalls", "C1", *at)["volumes"][0]["answer"] == "5 restored from drive 1"
    assert len(burnish("recalls", "--every", *at)["recalls"]) == 2


def test_a_refusal_by_command(archive: StoreOperations, data: Path, tmp_path: Path) -> None:
    burn(archive.context, tmp_path / "vault", patients_per_disc="many")
    purge(archive.context)
    at = ("--data", data, "--json")
    burnish("recall", "--all", *at)
    done = burnish("refuse", "C1", "--reason", "lent", *at)
    assert (done["state"], done["error"]) == ("REFUSED", "refused by cli: lent")
    assert burnish("refuse", "C1", *at, status=1)["error"]["detail"] == "recall C1 has ended already"
    assert "there is no recall C7" in burnish("recalls", "C7", "--data", data, status=2)
    assert "no node" in burnish("recall", "--all", "--to", "nowhere", "--data", data, status=2)
    assert burnish("recall", "--study", "1.2.3", *at, status=1)["error"]["detail"].startswith("nothing that is")


def test_an_online_image_is_read_at_once_and_sent_on(
    archive: StoreOperations, data: Path, tmp_path: Path, node: Callable[..., Node]
) -> None:
    target = node([ExplicitVRLittleEndian])
    add(archive, target.port)
    (burnt,) = burn(archive.context, tmp_path / "vault", patients_per_disc="many")
    put_online(archive.context, burnt)
    purge(archive.context)
    done = burnish("recall", "--all", "--to", "archive", "--data", data, "--json")
    assert (done["state"], done["restored"], done["destination"]) == ("DONE", 5, "archive")
    assert len(target.kept) == 5


def test_conformed_files_are_sent_on(
    archive: StoreOperations, data: Path, tmp_path: Path, node: Callable[..., Node]
) -> None:
    """Compressed on the disc; the node takes them uncompressed alone."""
    target = node([ExplicitVRLittleEndian])
    add(archive, target.port)
    given: dict[str, Any] = {"compress": "lossless", "profile": "STD-GEN-DVD-JPEG", "medium": "DVD-R"}
    (burnt,) = burn(archive.context, tmp_path / "vault", patients_per_disc="many", **given)
    put_online(archive.context, burnt)
    purge(archive.context)
    done = burnish("recall", "--all", "--to", "archive", "--data", data, "--json")
    assert (done["state"], in_spool(archive.context)) == ("DONE", 0)
    assert set(target.kept.values()) == {str(ExplicitVRLittleEndian)} and len(target.kept) == 5


def test_the_running_service_does_the_work(
    archive: StoreOperations, settings: Settings, data: Path, tmp_path: Path, node: Callable[..., Node]
) -> None:
    target = node([ExplicitVRLittleEndian])
    add(archive, target.port)
    online, away = (
        burn(archive.context, tmp_path / "vault", selection)[0] for selection in (_modality("CT"), _modality("MR"))
    )
    put_online(archive.context, online)
    purge(archive.context)
    with serving(settings):
        done = burnish("recall", "--modality", "CT", "--to", "archive", "--wait", "--data", data, "--json")
        assert (done["state"], len(target.kept)) == ("DONE", 3)
        burnish("recall", "--modality", "MR", "--to", "archive", "--data", data, "--json")
        assert burnish("insert", away.image, "--data", data, "--json")["restored"] == 2
        wait_for(lambda: len(target.kept) == 5, "the instances at the node")


def _modality(name: str) -> Any:
    from store.selection import Selection

    return Selection(modality=(name,))


def test_prefetch_in_the_running_service(archive: StoreOperations, data: Path, tmp_path: Path) -> None:
    ctx = archive.context
    (burnt,) = burn(ctx, tmp_path / "vault", _modality("CT"))
    put_online(ctx, burnt)
    purge(ctx)
    settings = load(
        data=data,
        overrides={
            "dicom": {"port": 0, "acceptors": 1},
            "http": {"port": 0},
            "prefetch": [{"name": "all"}],  # type: ignore[dict-item]
        },
    )
    with serving(settings):
        wait_for(lambda: _mark(archive), "the rule's mark")
        (new,) = write(tmp_path / "new", [next(iter(study("CT", 1, seed=77)))])
        with new.open("rb") as stream:
            archive.ingest_stream(stream)
        wait_for(lambda: in_spool(ctx) == 4, "the earlier study")

        def ended() -> list[str]:
            (recall,) = burnish("recalls", "--every", "--data", data, "--json")["recalls"]
            assert recall["source"] == "prefetch:all"
            return [recall["state"]] if recall["state"] not in ("WAITING", "RESTORED", "SENDING") else []

        assert wait_for(ended, "the recall", every=0.2) == ["DONE"]


def _mark(ops: StoreOperations) -> bool:
    from store.models_nodes import Counter

    with ops.context.db.read() as session:
        return session.get(Counter, "prefetch:all") is not None
