"""Queries and retrieves over TLS, both ways."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as StudyGet,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as StudyMove,
)

from store import remotes
from tests import makers
from tests.authority import Authority
from tests.makers import EXPLICIT_LE
from tests.scp.conftest import Start
from tests.scp.scu import CT
from tests.scp.test_query import identifier
from tests.scp.test_retrieve import fill


def test_fetched_over_tls_and_moved_over_tls(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")

    def tls(name: str) -> dict[str, Any]:
        pair = authority.issue(name)
        files = {"certificate": str(pair.certificate), "key": str(pair.key), "ca": str(authority.file)}
        return {"enabled": True, "port": 0, **files}

    holder = start(tmp_path / "holder", tls=tls("holder"))
    other = start(tmp_path / "other", tls=tls("other"), called_ae_titles=["OTHER"])
    made = list(makers.study("CT", 3, size=300_000))
    fill(holder, made)
    wanted = identifier("STUDY", StudyInstanceUID=made[0].study_instance_uid)

    arrived: dict[str, bytes] = {}

    def store(event: Any) -> int:
        arrived[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0

    pair = authority.issue("getter")
    context = ssl.create_default_context(cafile=str(authority.file))
    context.load_cert_chain(pair.certificate, pair.key)
    getter = AE("GETTER").associate(
        "127.0.0.1",
        holder.server.tls_port,
        contexts=[build_context(StudyGet), build_context(CT, EXPLICIT_LE)],
        ext_neg=[build_role(CT, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
        tls_args=(context, "localhost"),
    )
    assert getter.is_established
    assert [status.Status for status, _ in getter.send_c_get(wanted, StudyGet)][-1] == 0
    getter.release()
    assert arrived == {each.sop_instance_uid: each.encoded for each in made}

    with holder.db.begin() as session:
        remotes.add(session, remotes.Remote("other", "OTHER", "localhost", other.server.tls_port, tls=True))
        remotes.add(session, remotes.Remote("plain", "PLAIN", "localhost", other.port, tls=True))
    mover = AE("MOVER").associate("127.0.0.1", holder.port, contexts=[build_context(StudyMove)])
    assert [status.Status for status, _ in mover.send_c_move(wanted, "OTHER", StudyMove)][-1] == 0
    # A node that wants TLS and does not speak it gets nothing.
    assert [status.Status for status, _ in mover.send_c_move(wanted, "PLAIN", StudyMove)] == [0xA702]
    mover.release()
    assert [other.bytes_of(row).endswith(each.encoded) for row, each in zip(other.instances(), made, strict=True)]
