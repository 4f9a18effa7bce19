"""Status files of Epson's TD Bridge, written by hand."""

from __future__ import annotations

from pathlib import Path

MACHINE = {
    "NAME": "PP-100II 1",
    "STACKER1": "80",
    "STACKER2": "0",
    **{f"INK_{ink}": "70" for ink in ("C", "M", "Y", "LC", "LM", "B")},
    "PRINTER_STATUS": "1",
    "DRIVE1_STATUS": "1",
    "DRIVE1_LIFE": "12",
    "DRIVE1_PROGRESS": "0",
    "MAINTENANCE_BOX_FREE_SPACE": "90",
}
DONE = {
    "PUBLISHER": "PP-100II 1",
    "STATUS": "4",
    "PUBLICATION_NUMBER": "1",
    "COMPLETION_NUMBER": "1",
    "ERRORDISC_NUMBER": "0",
    "ERROR": "",
    "DETAIL_STATUS": "9",
}


def text(jobs: dict[str, dict[str, str]] | None = None, *, machine: dict[str, str] | None = None) -> str:
    sections = {**(jobs or {}), "PUBLISHER1": MACHINE | (machine or {}), "TDB_INFO": {"TDB_ID": "1", "VERSION": "3.20"}}
    lines = ["[ACTIVE_JOB]", "[COMPLETE_JOB]"]
    for name, keys in sections.items():
        lines += [f"[{name}]", *(f"{key}={value}" for key, value in keys.items())]
    return "".join(f"{line}\r\n" for line in lines)


def write(
    folder: Path, jobs: dict[str, dict[str, str]] | None = None, *, machine: dict[str, str] | None = None
) -> None:
    (folder / "TDBStatus.txt").write_bytes(text(jobs, machine=machine).encode("cp1252"))
