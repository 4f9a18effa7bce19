"""What a recall brings back is an import of that medium in the audit trail (discs: tests/service/test_audit.py)."""

from __future__ import annotations

from pathlib import Path

from lxml import etree
from sqlalchemy import select

from jobs.recalls import begin, offer
from store import audit, auditevents
from store.models import Instance
from store.models_jobs import Volume
from tests.discs import burn, purge
from tests.jobs.conftest import House
from tests.store.test_audit import SCHEMA


def told(house: House, event: str) -> list[etree._Element]:
    while auditevents.tick(house.db, house.ctx.audit):
        pass
    with house.db.read() as session:
        found = [etree.fromstring(row.message) for row in audit.records(session, event=event, newest_first=False)]
    for one in found:
        assert SCHEMA.validate(one), SCHEMA.error_log
    return found


def media(message: etree._Element) -> tuple[str, str]:
    (one,) = [one for one in message.findall("ActiveParticipant") if one.find("MediaIdentifier") is not None]
    return one.get("UserID"), one.find("RoleIDCode").get("originalText")


def test_what_is_recalled_comes_in(any_house: House, tmp_path: Path) -> None:
    house = any_house
    house.receive(3)
    (burnt,) = burn(house.ctx, tmp_path / "vault")
    purge(house.ctx)
    with house.db.read() as session:
        ids = list(session.scalars(select(Instance.id)))
    before = len(told(house, "import"))
    begin(house.ctx, ids, source="cli", by="test", selection={})
    assert offer(house.ctx, burnt.image, "drive 1")["result"] == "READ"
    (back,) = told(house, "import")[before:]
    with house.db.read() as session:
        uid = session.get_one(Volume, burnt.volume_id).file_set_uid
    assert media(back) == (uid, "Source Media")
    counts = [int(one.get("NumberOfInstances")) for one in back.iter("SOPClass")]
    assert sum(counts) == 3
    assert told(house, "import")[before:][1:] == []
