"""Optical drives of this machine, as the kernel lists them: nothing is opened, so nothing that burns is disturbed."""

from __future__ import annotations

from pathlib import Path

from burners.drive_tools import Drive

_BLOCK = Path("/sys/class/block")


def system_drives(block: Path = _BLOCK) -> list[Drive]:
    """Every ``/dev/sr*``, with its maker's names; [] where there is none."""
    found = []
    for entry in sorted(block.glob("sr[0-9]*")):
        words = [_text(entry / "device" / name) for name in ("vendor", "model")]
        found.append(Drive(f"/dev/{entry.name}", " ".join(word for word in words if word)))
    return found


def _text(path: Path) -> str:
    try:
        text = path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
    return "".join(letter for letter in text if letter.isprintable())
