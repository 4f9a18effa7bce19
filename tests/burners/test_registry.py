"""Burners come by entry points; one that cannot be made is shown with its reason and stops nobody."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from burners import registry
from burners.base import DriverState
from burners.iso_export import IsoExport
from config.sections import Burner


def test_the_bundled_driver_comes_through_the_same_door() -> None:
    assert registry.drivers()["iso"].load() is IsoExport


def test_what_cannot_be_made_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_module:Driver", registry.GROUP)
    known = registry.drivers()
    monkeypatch.setattr(registry, "drivers", lambda: {**known, "broken": broken})
    sections = {
        "good": Burner(driver="iso", folder="discs"),
        "typo": Burner(driver="iso", folder="discs", slot=2),
        "unknown": Burner(driver="laser"),
        "broken": Burner(driver="broken"),
    }
    loaded = registry.load(sections, data=tmp_path)
    assert list(loaded.usable) == ["good"]
    shown = {status.name: (status.state, status.reason) for status in loaded.statuses()}
    assert shown["good"][0] is DriverState.READY
    assert "'slot'" in shown["typo"][1]
    assert "'laser'" in shown["unknown"][1] and "iso" in shown["unknown"][1]
    assert "no_such_module" in shown["broken"][1]
    assert all(shown[name][0] is DriverState.UNUSABLE for name in ("typo", "unknown", "broken"))
    assert loaded.get("typo") is None and "'slot'" in loaded.why_not("typo")
    assert "[burners.x]" in loaded.why_not("x")
    loaded.close()


def test_a_driver_that_fails_when_asked_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = registry.load({"iso": Burner(driver="iso", folder="discs")}, data=tmp_path)

    def fails(self: IsoExport) -> None:
        raise RuntimeError("no answer")

    monkeypatch.setattr(IsoExport, "probe", fails)
    (status,) = loaded.statuses()
    assert (status.state, status.reason) == (DriverState.OFFLINE, "RuntimeError: no answer")
