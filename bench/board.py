"""The board with 500 jobs and 5,000 discs, beside a plain FastAPI "hello" in the same run.

    python -m bench.board [--jobs 500] [--discs 10] [--runs 30] [--database URL]

Goal: the whole page in under 150 ms of the server's time. Both are asked over one kept connection on loopback, in
turns. ``first`` is the first answer of a fresh service, which reads the patients of every job once; ``CPU`` is what the
process works for an answer, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import http.client
import secrets
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import insert

from config.settings import load
from service import opening
from service.api.application import build
from service.http import HttpServer
from service.operations import StoreOperations
from service.shutdown import Stopping
from store.models_base import now
from store.models_jobs import Disc, Job, Plan, Request, RequestInstance, Volume
from store.models_nodes import Event
from tests.rows import add_instance

STATES = ("WAITING", "BURNING", "BURNING", "READY", "FAILED", "DONE", "DONE", "DONE", "DONE", "DONE")
_OF_DISCS = {"WAITING": "BURNING", "READY": "PLANNED", "FAILED": "FAILED", "DONE": "VERIFIED", "BURNING": "BURNING"}
_STUDIES, _INSTANCES = 50, 20


def fill(operations: StoreOperations, jobs: int, discs: int) -> None:
    """Jobs of every kind, each with so many discs, half of them second copies."""
    at = now()
    with operations.context.db.begin() as session:
        instances = [
            [
                add_instance(
                    session,
                    f"1.2.{study}.{number}",
                    patient_id=f"P{study}",
                    patient_name=f"Family{study}^Given",
                    study=f"1.2.{study}",
                    series=f"1.2.{study}.1",
                ).id
                for number in range(_INSTANCES)
            ]
            for study in range(_STUDIES)
        ]
        keys = range(1, jobs + 1)
        times = {"created_at": at - timedelta(minutes=5), "updated_at": at}
        options = {"profile": "STD-GEN-CD", "medium": "CD-R-80"}
        session.execute(
            insert(Request),
            [{"id": k, "created_at": at, "source": "api", "selection": {}, "options": options} for k in keys],
        )
        rows = [(k, i) for k in keys for i in instances[k % _STUDIES]]
        session.execute(insert(RequestInstance), [{"request_id": k, "instance_id": i} for k, i in rows])
        plan = {"created_at": at, "profile": "STD-GEN-CD", "medium": "CD-R-80", "capacity_sectors": 1, "report": {}}
        session.execute(insert(Plan), [{"id": k, "request_id": k, **plan} for k in keys])
        made: list[dict[str, Any]] = []
        for k in keys:
            state = STATES[k % len(STATES)]
            waiting = {"waiting": {f"D{k}": "out of ink: change the cartridge"}} if state == "WAITING" else {}
            ended = {"finished_at": at if state in ("DONE", "FAILED") else None}
            error = "D1: the disc does not compare with the image" if state == "FAILED" else None
            made.append(
                {"id": k, "request_id": k, "plan_id": k, "state": state, "priority": 2, "burner": "iso", "copies": 2}
                | {"attempt": 1, "cancel_requested": False, "progress": waiting, "error": error, **times, **ended}
            )
        session.execute(insert(Job), made)
        volumes, copies, events = [], [], []
        for k in keys:
            state = _OF_DISCS[STATES[k % len(STATES)]]
            for number in range(1, discs // 2 + 1):
                key = len(volumes) + 1
                names = {"file_set_id": f"BENCH_{key:07}", "file_set_uid": f"1.2.3.{key}"}
                volumes.append(
                    {"id": key, "plan_id": k, "number": number, "of": discs // 2, "created_at": at, **names}
                    | {"sectors": 300_000, "capacity_sectors": 350_000, "readme": b""}
                )
                for copy in (1, 2):
                    disc = {"id": len(copies) + 1, "job_id": k, "volume_id": key, "copy": copy, "attempt": 1}
                    copies.append(disc | {"state": state, "burner": "iso", "progress": 0.4, **times})
                    events.append(
                        {"at": at, "kind": "disc", "job_id": k, "disc_id": disc["id"]} | {"new": state, "detail": {}}
                    )
        session.execute(insert(Volume), volumes)
        session.execute(insert(Disc), copies)
        session.execute(insert(Event), events)


def hello() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def say() -> dict[str, str]:
        return {"hello": "world"}

    return app


class Asked:
    """A server in a thread, and one connection to it."""

    def __init__(self, app: Any, headers: dict[str, str]) -> None:
        self._server = HttpServer("127.0.0.1", 0)
        self._server.start(app)
        self._connection = http.client.HTTPConnection("127.0.0.1", self._server.port)
        self._headers = headers
        self.bytes = 0

    def ask(self, path: str) -> float:
        """Seconds that an answer takes."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        self.bytes = len(answer.read())
        passed = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{path}: status {answer.status}")
        return passed

    def stop(self) -> None:
        self._connection.close()
        self._server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--discs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--database", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = load(data=Path(folder) / "data", overrides={"database": {"url": given.database}})
        context = opening.open_context(settings)
        operations = StoreOperations(context, source="api")
        fill(operations, given.jobs, given.discs)
        token = secrets.token_urlsafe(16)
        board = Asked(
            build(operations, token=token, hosts=("127.0.0.1",), stopping=Stopping()),
            {"Authorization": f"Bearer {token}"},
        )
        plain = Asked(hello(), {})
        first = board.ask("/")
        pairs = [(plain.ask("/"), board.ask("/")) for _ in range(given.runs)]
        greeting, page = (statistics.median(times) for times in zip(*pairs, strict=True))
        size = board.bytes
        began = time.process_time()
        part = statistics.median(board.ask("/board/part") for _ in range(given.runs))
        work = (time.process_time() - began) / given.runs
        for one in (board, plain):
            one.stop()
        opening.close_context(context)
    print(f"{given.jobs} jobs, {given.jobs * given.discs} discs; medians of {given.runs}")
    print(f"hello        {1000 * greeting:7.2f} ms")
    print(f"board        {1000 * page:7.2f} ms = {page / greeting:5.1f} x hello ({size} bytes)")
    print(f"its first    {1000 * first:7.2f} ms")
    print(f"its refresh  {1000 * part:7.2f} ms = {part / greeting:5.1f} x hello; CPU {1000 * work:.1f} ms")
    print(f"goal: under 150 ms: {'met' if page < 0.150 else 'MISSED'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
