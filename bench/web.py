"""The HTTP side, beside a plain FastAPI application that says hello, in turns in one run.

    python -m bench.web [--studies 100000] [--runs 40]

Both are served by uvicorn and asked over one connection that stays open. Searches are asked of a catalogue of that many
studies (a page of 50, with all counts): by the beginning of a name, a name in the middle of which nothing is known, a
Patient ID, an accession number, a day, and none at all; QIDO-RS asks for the same by name. Goal: a search takes at most
10 times as long as the hello. QIDO-RS enters each search in the audit trail, which a disk must take in: it is shown
without a goal.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI

from bench.catalogue import FAMILY_SIZE, family, fill
from config.settings import load
from service import opening
from service.api.application import build
from service.http import HttpServer
from service.operations import StoreOperations
from service.shutdown import Stopping

TOKEN = "sesame"
WARM_UP = 5


class Asker:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status not in (200, 204):
            raise RuntimeError(f"{path}: {answer.status} {data[:200]!r}")
        return data


@contextmanager
def hello() -> Iterator[Asker]:
    """A plain FastAPI application."""
    app = FastAPI()

    @app.get("/hello")
    def say() -> dict[str, str]:
        return {"hello": "world"}

    server = HttpServer("127.0.0.1", 0)
    server.start(app)
    yield Asker(server.port)
    server.stop()


@contextmanager
def burnish(data: Path, studies: int) -> Iterator[Asker]:
    """Our application over a made-up catalogue."""
    context = opening.open_context(load(data=data))
    begun = time.monotonic()
    fill(context.db, studies)
    print(f"filled with {studies:,} studies in {time.monotonic() - begun:.0f} s", flush=True)
    server = HttpServer("127.0.0.1", 0)
    stopping = Stopping()
    server.start(build(StoreOperations(context, source="api"), token=TOKEN, hosts=(), stopping=stopping))
    yield Asker(server.port)
    stopping.begin()
    server.stop()
    opening.close_context(context)


def questions(studies: int) -> dict[str, Callable[[Asker, int], bytes]]:
    """What is asked, by its name; ``run`` varies it, so that no cache answers."""
    names = max(1, studies // FAMILY_SIZE)

    def search(asker: Asker, **body: object) -> bytes:
        return asker.ask("POST", "/api/v1/studies/search", {"limit": 50, "cursor": None, **body})

    return {
        "by the beginning of a name": lambda a, run: search(a, text=family(run % names)),
        "by a name's pattern": lambda a, run: search(a, patient_name=f"{family(run % names)}*"),
        "by Patient ID": lambda a, run: search(a, patient_id=f"PID{run % studies:08}"),
        "by accession number": lambda a, run: search(a, accession=f"ACC{run % studies:08}"),
        "by day": lambda a, run: search(a, date_range=f"202{run % 5}0{run % 9 + 1}15"),
        "the newest 50": lambda a, run: a.ask("GET", "/api/v1/studies?limit=50"),
        "QIDO-RS by a name's pattern": lambda a, run: a.ask(
            "GET", f"/dicomweb/studies?limit=50&PatientName={family(run % names)}*"
        ),
    }


def milliseconds(ask: Callable[[int], object], runs: int) -> list[float]:
    for run in range(WARM_UP):
        ask(run)
    found = []
    for run in range(runs):
        begun = time.perf_counter()
        ask(run + WARM_UP)
        found.append((time.perf_counter() - begun) * 1000)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="The HTTP API beside a plain FastAPI application")
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="burnish-bench-") as folder,
        hello() as plain,
        burnish(Path(folder) / "data", options.studies) as ours,
    ):
        base = statistics.median(milliseconds(lambda _run: plain.ask("GET", "/hello"), options.runs))
        print(f"plain FastAPI hello: {base:.2f} ms")
        for name, question in questions(options.studies).items():
            times = milliseconds(lambda run, question=question: question(ours, run), options.runs)  # type: ignore[misc]
            again = statistics.median(milliseconds(lambda _run: plain.ask("GET", "/hello"), options.runs))
            size = len(question(ours, 3))
            middle = statistics.median(times)
            print(f"{name}: {middle:.2f} ms (max {max(times):.1f}), {middle / again:.1f} x hello; {size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
