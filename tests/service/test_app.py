"""The service as a process: ready line, lock, tokens, the CLI over its API, stopping and being killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.makers import make, study
from tests.ports import own_port
from tests.service.conftest import write
from tests.service.test_cli import burnish
from tests.waiting import wait_for

Serve = Callable[..., "Served"]


class Served:
    """A `burnish serve` of our own, with what it said when it was ready."""

    def __init__(self, data: Path, *arguments: str, config: Path | None = None) -> None:
        options = ["--config", str(config)] if config else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve", "--data", str(data), "--json", *options, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"BURNISH_DICOM__ACCEPTORS": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.ready: dict[str, Any] = json.loads(line)
        self.dicom_port: int = self.ready["dicom"]["port"]
        self.http_port = int(self.ready["http"]["url"].rpartition(":")[2])

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=120)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit status and log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=120)
        return self.process.returncode, log


@pytest.fixture
def serve(data: Path) -> Iterator[Serve]:
    started: list[Served] = []

    def start(*arguments: str, ports: tuple[int, int] = (0, 0), **options: Any) -> Served:
        dicom, web = map(str, ports)
        served = Served(data, "--dicom-port", dicom, "--http-port", web, *arguments, **options)
        started.append(served)
        return served

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.communicate()


def refused(*arguments: object) -> str:
    """What `burnish serve` says when it does not start, in this process, whose signals stay its own."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return str(burnish("serve", *arguments, status=1))
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_ready_token_lock_and_an_orderly_end(serve: Serve, data: Path) -> None:
    served = serve()
    assert served.ready["event"] == "ready"
    assert set(served.ready["dicom"]) == {"host", "port", "ae_title"} and served.ready["dicom"]["ae_title"] == "BURNISH"
    assert served.ready["http"]["url"].startswith("http://127.0.0.1:")
    assert served.ready["setup"]["code"] == (data / "setup-code").read_text().strip()
    assert stat.S_IMODE((data / "setup-code").stat().st_mode) == 0o600
    token = (data / "cli.token").read_text().strip()
    assert stat.S_IMODE((data / "cli.token").stat().st_mode) == 0o600
    assert stat.S_IMODE((data / "engine.db").stat().st_mode) == 0o600
    assert json.loads((data / "service.json").read_text())["pid"] == served.process.pid

    assert served.get("/healthz")[0] == 200
    assert served.get("/api/v1/studies")[0] == 401
    assert served.get("/api/v1/studies", Authorization=f"Bearer {token}") == (200, b'{"items":[],"next":null}')
    assert served.get("/healthz", Host="evil.example")[0] == 421

    refusal = refused("--data", data, "--dicom-port", "0", "--http-port", "0")
    assert f"in use by burnish serve (process {served.process.pid})" in refusal
    assert burnish("doctor", "--data", data, "--json")["state"]["service"].startswith("runs")

    status, log = served.stop()
    assert status == 0 and "stopped" in log and "Traceback" not in log
    assert not (data / "service.json").exists() and not (data / "cli.token").exists()


def test_the_commands_work_over_the_api_as_without_a_service(serve: Serve, data: Path, made: Path) -> None:
    served = serve()
    at = ("--data", data, "--json")
    (made / "notes.txt").write_text("some text")
    told = burnish("import", made, *at)
    assert (told["imported"], told["duplicates"]) == (5, 0)
    assert told["refused"] == [{"path": str(made / "notes.txt"), "reason": "the file is a text file, not DICOM"}]
    assert len(burnish("studies", *at)) == 2
    plan = burnish("plan", "--all", *at)
    done = burnish("burn", "--plan", plan["plan"], "--wait", *at)
    assert done["state"] == "DONE" and [disc["state"] for disc in done["discs"]] == ["VERIFIED"] * 2
    assert burnish("job", done["job"], *at)["discs"] == done["discs"]
    assert burnish("jobs", *at)[0]["job"] == done["job"]
    assert burnish("verify", *(disc["image"] for disc in done["discs"]), "--json")["ok"]
    assert len(burnish("find", "--patient-name", "DOE*", *at)) == 1
    told = burnish("label", "D1", "--png", data / "a.png", "--svg", data / "a.svg", "--printer", "generic-8cm", *at)
    assert (told["disc"], told["printer"]) == ("D1", "generic-8cm")
    assert (data / "a.png").read_bytes().startswith(b"\x89PNG") and "<svg" in (data / "a.svg").read_text()
    burnish("label", "D1", "--png", data / "b.png", "--dpi", "7", *at, status=2)
    burnish("label", "D99", *at, status=2)
    burnish("plan", "--study", "1.2.3", *at, status=2)
    burnish("plan", "--all", "--medium", "BD-25", *at, status=2)
    burnish("job", "J77", *at, status=2)
    assert burnish("retry", done["job"], *at, status=1)["error"]["code"] == "NOT_FAILED"
    assert burnish("purge", *at)["instances"] == 5
    again = make("CT", seed=77).write(data.parent / "late.dcm")
    burnish("import", again, *at)
    assert burnish("delete", "--not-on-disc", "--yes", *at)["instances"] == 1
    assert served.stop(signal.SIGINT)[0] == 0
    assert len(burnish("studies", *at)) == 2


def test_a_queued_job_runs_when_a_service_starts(serve: Serve, data: Path, made: Path) -> None:
    at = ("--data", data, "--json")
    burnish("import", made, *at)
    job = burnish("burn", "--all", *at)["job"]
    serve()
    wait_for(lambda: burnish("job", job, *at)["state"] == "DONE", "the job", every=0.2)


def test_after_kill_9_it_starts_again_at_once_on_the_same_ports(serve: Serve, data: Path, made: Path) -> None:
    first = serve(ports=(own_port(), own_port()))
    burnish("import", made, "--data", data)
    job = burnish("burn", "--all", "--data", data, "--json")["job"]
    open_connection = http.client.HTTPConnection("127.0.0.1", first.http_port)
    open_connection.request("GET", "/healthz")
    open_connection.getresponse().read()
    first.process.kill()
    first.process.wait()
    second = serve(ports=(first.dicom_port, first.http_port))
    assert (second.dicom_port, second.http_port) == (first.dicom_port, first.http_port)
    open_connection.close()
    wait_for(lambda: burnish("job", job, "--data", data, "--json")["state"] == "DONE", "the job", every=0.2)


def test_waiting_outlives_a_service_that_is_killed_and_started_again(serve: Serve, data: Path, made: Path) -> None:
    first = serve()
    burnish("import", made, "--data", data)
    waiting = subprocess.Popen(
        [sys.executable, "-m", "service", "burn", "--all", "--wait", "--data", data, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("J1 ")
    first.process.kill()
    first.process.wait()
    serve()
    out, _ = waiting.communicate(timeout=200)
    assert waiting.returncode == 0 and json.loads(out)["state"] == "DONE"


def test_a_port_in_use_is_said_in_one_line(serve: Serve, data: Path, tmp_path: Path) -> None:
    served = serve()
    for option, port in (("--dicom-port", served.dicom_port), ("--http-port", served.http_port)):
        other = "--http-port" if option == "--dicom-port" else "--dicom-port"
        told = refused("--data", tmp_path / "other", option, port, other, "0")
        error = [line for line in told.splitlines() if line.startswith("error:")]
        assert len(error) == 1 and "in use" in error[0].lower() and str(port) in error[0]
        assert "unexpected" not in error[0]


def test_settings_that_do_not_fit_together_stop_the_start(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "burnish.toml"
    config.write_text(
        '[plan]\nmedium = "BD-25"\n[[rules]]\nname = "a"\nprofile = "NONE"\n[[rules]]\nname = "b"\nmedium = "BD-25"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--data", data, "--config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "plan.medium" in done.stderr and "rule a" in done.stderr and "rule b" in done.stderr
    assert not data.exists()


def test_an_auto_burn_rule_fires(serve: Serve, data: Path, tmp_path: Path) -> None:
    config = tmp_path / "burnish.toml"
    config.write_text('[[rules]]\nname = "all"\nquiet_seconds = 0.2\n')
    serve(config=config)
    burnish("import", *write(tmp_path / "in", study("CT", 2)), "--data", data)
    at = ("--data", data, "--json")

    def all_burnt() -> bool:
        """By one job, or by two where the second instance came later than it takes to be quiet."""
        found = [one for disc in burnish("find", *at) for one in disc["instances"]]
        return len(found) == 2 and {one["state"] for one in burnish("jobs", *at)} == {"DONE"}

    wait_for(all_burnt, "the job", every=0.2)


@pytest.mark.postgres
def test_it_works_on_postgresql_too(serve: Serve, data: Path, made: Path, postgres_url: str, tmp_path: Path) -> None:
    config = tmp_path / "burnish.toml"
    config.write_text(f"[database]\nurl = {json.dumps(postgres_url)}\n")
    at = ("--data", data, "--config", config, "--json")
    assert burnish("import", made, *at)["imported"] == 5
    served = serve(config=config)
    assert burnish("burn", "--all", "--wait", *at)["state"] == "DONE"
    assert burnish("doctor", *at)["ok"]
    assert burnish("purge", *at)["instances"] == 5
    assert served.stop()[0] == 0
    assert burnish("find", "--study", burnish("studies", *at)[0]["study_instance_uid"], *at)
    assert not (data / "burnish.db").exists()


def test_a_large_file_is_streamed_in_bounded_memory(serve: Serve, data: Path, tmp_path: Path) -> None:
    served = serve()
    path = make("CT", size=64 << 20).write(tmp_path / "large.dcm")
    assert path.stat().st_size > 60 << 20
    assert burnish("import", path, "--data", data, "--json")["imported"] == 1
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10
    baseline = 200 << 20
    assert peak < baseline + (32 << 20), f"{peak >> 20} MB at most"
    assert path.stat().st_size == burnish("studies", "--data", data, "--json")[0]["bytes"]
