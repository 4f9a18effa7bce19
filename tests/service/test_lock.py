from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.lock import DataLock, InUse, holder_of, running_service, write_private

_HOLD = """
import sys
from pathlib import Path
from service.lock import DataLock
lock = DataLock(Path(sys.argv[1]))
lock.acquire(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def hold(data: Path, what: str) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(data), what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_only_one_has_the_lock_and_others_hear_who(tmp_path: Path) -> None:
    process = hold(tmp_path, "burn")
    try:
        assert holder_of(tmp_path) == {"what": "burn", "pid": process.pid}
        with pytest.raises(InUse, match=f"in use by burnish burn \\(process {process.pid}\\)"):
            DataLock(tmp_path).acquire("serve")
        assert running_service(tmp_path) is None
    finally:
        process.kill()
        process.wait()
    assert holder_of(tmp_path) is None
    lock = DataLock(tmp_path)
    lock.acquire("serve")
    lock.release()


def test_it_waits_as_patiently_as_it_is_told(tmp_path: Path) -> None:
    process = hold(tmp_path, "purge")
    told: list[object] = []

    def patience(holder: dict[str, object]) -> float:
        told.append(holder["what"])
        if len(told) == 2:
            assert process.stdin is not None
            process.stdin.close()
        return 60

    lock = DataLock(tmp_path)
    lock.acquire("plan", patience=patience)
    assert told[:2] == ["purge", "purge"]
    assert holder_of(tmp_path) == {"what": "plan", "pid": os.getpid()}
    lock.release()
    process.wait()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    lock.acquire("serve")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        lock.release()
        DataLock(tmp_path).acquire("serve")
    finally:
        child.communicate(b"\n")


def test_a_running_service_is_found_by_its_own_words_only(tmp_path: Path) -> None:
    process = hold(tmp_path, "serve")
    try:
        write_private(tmp_path / "cli.token", "secret\n")
        write_private(tmp_path / "service.json", json.dumps({"url": "http://127.0.0.1:1", "pid": process.pid}))
        found = running_service(tmp_path)
        assert found is not None
        assert (found.url, found.pid, found.token) == ("http://127.0.0.1:1", process.pid, "secret")
    finally:
        process.kill()
        process.wait()
    assert running_service(tmp_path) is None, "what a killed service left behind is not believed"


def test_a_service_that_does_not_come_up_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lock._SETTLE_SECONDS", 0.2)
    process = hold(tmp_path, "serve")
    try:
        (tmp_path / "service.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1}')
        with pytest.raises(InUse):
            running_service(tmp_path)
    finally:
        process.kill()
        process.wait()
