"""Helpers conform in parallel; one that dies takes one instance with it and nothing else."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from jobs import conform_pool
from jobs.conform_pool import Cancelled, ConformFailed, Task, conform_all
from media import bounds
from media.recipes import EXPLICIT_LE_RECIPE


def _task(key: int, source: Path, folder: Path) -> Task:
    return Task(key, f"1.2.{key}", source, folder / f"{key}.dcm", EXPLICIT_LE_RECIPE)


def _packaged(name: str) -> Path:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path)


# A real helper but for what its "decoder" does with sources of these names.
_SCRIPT = """
import os, signal, time
import media.conform
real = media.conform.conform
def conform(source, target, recipe, **options):
    if source.name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if source.name == "hang":
        time.sleep(600)
    if source.name == "swell":
        bytearray(1 << 40)
    while source.name == "spin":
        pass
    return real(source, target, recipe, **options)
media.conform.conform = conform
from jobs.conform_pool import _serve_orders
_serve_orders()
"""
_BAD_HELPER = (sys.executable, "-c", _SCRIPT)


def test_all_are_conformed(tmp_path: Path) -> None:
    names = ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm"]
    tasks = [_task(key, _packaged(name), tmp_path) for key, name in enumerate(names)]
    results = list(conform_all(tasks, processes=2, cancelled=lambda: False))
    assert sorted(result.task.key for result in results) == [0, 1, 2, 3]
    for result in results:
        assert result.refused is None
        assert result.task.target.stat().st_size == result.size
        assert dcmread(result.task.target).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert all(change.sop_instance_uid == result.task.sop_instance_uid for change in result.changes)


def test_what_cannot_be_read_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(_packaged("JPEG2000.dcm").read_bytes()[:-5000])
    tasks = [_task(0, broken, tmp_path), _task(1, _packaged("MR_small_implicit.dcm"), tmp_path)]
    results = {r.task.key: r for r in conform_all(tasks, processes=1, cancelled=lambda: False)}
    assert results[0].refused is not None and results[1].refused is None
    assert not tasks[0].target.exists()


def test_a_crashed_helper_refuses_one_instance_by_name(tmp_path: Path) -> None:
    tasks = [
        _task(key, source, tmp_path)
        for key, source in enumerate(
            [_packaged("MR_small_implicit.dcm"), tmp_path / "crash", _packaged("MR_small_bigendian.dcm")]
        )
    ]
    results = {r.task.key: r for r in conform_all(tasks, processes=1, cancelled=lambda: False, helper=_BAD_HELPER)}
    refused = results[1].refused
    assert refused is not None and refused[0] == "PROC_FAILURE" and "SIGSEGV" in refused[1]
    assert results[0].refused is None and results[2].refused is None


def test_cancel_ends_a_stuck_helper(tmp_path: Path) -> None:
    flag = threading.Event()
    threading.Timer(1.0, flag.set).start()
    with pytest.raises(Cancelled):
        tasks = [_task(0, tmp_path / "hang", tmp_path)]
        list(conform_all(tasks, processes=1, cancelled=flag.is_set, helper=_BAD_HELPER))


def test_a_target_that_cannot_be_written_fails_the_batch_not_the_instance(tmp_path: Path) -> None:
    task = _task(0, _packaged("MR_small_implicit.dcm"), tmp_path / "gone")
    with pytest.raises(ConformFailed):
        list(conform_all([task], processes=1, cancelled=lambda: False))


def test_what_needs_too_much_ends_its_helper_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bounds_of(size: int, **_: int) -> bounds.Bounds:  # what works has time, however slow the machine is
        return bounds.Bounds(1500 << 20, 300 if size else 1)

    monkeypatch.setattr(conform_pool, "bounds_of", bounds_of)
    sources = [tmp_path / "swell", tmp_path / "spin", _packaged("MR_small_implicit.dcm")]
    tasks = [_task(key, source, tmp_path) for key, source in enumerate(sources)]
    found = conform_all(tasks, processes=1, cancelled=lambda: False, megabytes=1500, helper=_BAD_HELPER)
    results = {result.task.key: result.refused for result in found}
    assert results == {
        0: ("PROC_FAILURE", "cannot be re-encoded: it needs more than 1500 MB of memory (jobs.conform_memory_mb)"),
        1: ("PROC_FAILURE", "cannot be re-encoded: its decoder did not end within 1 s of processor time"),
        2: None,
    }


def test_bounds_go_by_the_instance_and_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_memory", lambda: 64 << 30)
    assert bounds.bounds_of(0, helpers=4).memory == 4 << 30
    assert bounds.bounds_of(256 << 20, helpers=4) == bounds.Bounds(8 << 30, 300 + 4 * 256)
    assert bounds.bounds_of(2 << 30, helpers=4).memory == 12 << 30, "three quarters of the machine, for four"
    monkeypatch.setattr(bounds, "_memory", lambda: 2 << 30)
    assert bounds.bounds_of(2 << 30, helpers=4).memory == 1 << 30
    assert bounds.bounds_of(2 << 30, helpers=4, megabytes=3).memory == 3 << 20
