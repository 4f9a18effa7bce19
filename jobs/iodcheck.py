"""The IOD check of what a plan puts on discs: grouped for the report, and at level ``strict`` a reason to refuse.

Reading an instance takes some 0.7 ms, so few are read here and many by helper processes, which leave this one free.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.checking import Candidate, Checked, Refusal
from jobs.conform_pool import Cancelled, Task, conform_all
from media.bounds import Bounds, keep_within
from media.iod import Finding, IodReport, Level, check_instance
from media.iodsummary import group
from media.problems import NotDicom

CODE = "IOD_CONFLICT"
"""A term of ours; PS3.3 C.22.2 has none for an instance that its IOD does not allow."""
LEVELS = tuple(level.value for level in Level)
_HERE = 256
"""Instances up to which no helper processes are started: that takes as long as some hundred instances do."""
_NAMED = 3
"""Findings that a refusal names; the report has them all, grouped."""
_TOLD_EVERY = 20
_HELPER = (sys.executable, "-m", "jobs.iodcheck")


def check_iods(
    checked: Checked,
    level: str,
    *,
    path_of: Callable[[Candidate], Path],
    processes: int,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
) -> dict[str, Any] | None:
    """What the instances lack of what their IODs demand, as they were received; None at level ``off``.

    The document has ``level``, the counts and groups of ``IodSummary``, and ``lines`` for people. At level ``strict``
    those with an error, and those whose data set cannot be followed, move to the refused. Raises ``Cancelled``.
    """
    if level == Level.OFF:
        return None
    candidates = checked.candidates
    unfit: dict[int, str] = {}

    def reports() -> Iterator[IodReport]:
        tasks = [
            Task(number, candidate.row.sop_instance_uid, path_of(candidate), Path(), level)
            for number, candidate in enumerate(candidates)
        ]
        done = _here(tasks, cancelled) if len(tasks) <= _HERE else _pooled(tasks, processes, cancelled)
        for count, (number, report, unreadable) in enumerate(done):
            if count % _TOLD_EVERY == 0:
                progress(count, len(tasks))
            row = candidates[number].row
            if level == Level.STRICT and unreadable:
                unfit[row.id] = f"its IOD cannot be checked: {unreadable}"
            elif report.refused:
                unfit[row.id] = _reason(report)
            yield report
        progress(len(tasks), len(tasks))

    summary = group(reports())
    if unfit:
        for candidate in candidates:
            if candidate.row.id in unfit:
                checked.refused.append(Refusal(candidate.row, CODE, unfit[candidate.row.id]))
        checked.candidates = [candidate for candidate in candidates if candidate.row.id not in unfit]
    return {"level": level, **summary.as_json(), "refused": len(unfit), "lines": summary.lines()}


def _reason(report: IodReport) -> str:
    """An instance's errors for one line."""
    texts = [finding.text for finding in report.errors]
    more = f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return f"{report.iod}: {'; '.join(texts[:_NAMED])}{more}"


def _look(path: Path, uid: str, level: str) -> tuple[IodReport, str]:
    """The report, and why there is none."""
    try:
        return check_instance(path, level), ""
    except NotDicom as error:
        # The spool's name of a file tells nobody anything.
        why = str(error).replace(str(path), "the data set")
        return IodReport(Level(level), "", uid, None, (), (why,)), why


def _here(tasks: list[Task], cancelled: Callable[[], bool]) -> Iterator[tuple[int, IodReport, str]]:
    for task in tasks:
        if cancelled():
            raise Cancelled
        yield task.key, *_look(task.source, task.sop_instance_uid, task.recipe)


def _pooled(tasks: list[Task], processes: int, cancelled: Callable[[], bool]) -> Iterator[tuple[int, IodReport, str]]:
    """The same by helpers, in the order of the tasks, so that a report is the same whoever was faster."""
    waiting: dict[int, tuple[IodReport, str]] = {}
    following = 0
    for result in conform_all(tasks, processes=processes, cancelled=cancelled, helper=_HELPER):
        task = result.task
        if result.document is not None:
            found = _report(result.document), str(result.document["unreadable"])
        else:
            why = result.refused[1] if result.refused else "no answer"
            found = IodReport(Level(task.recipe), "", task.sop_instance_uid, None, (), (why,)), why
        waiting[task.key] = found
        while following in waiting:
            yield following, *waiting.pop(following)
            following += 1


def _report(document: dict[str, Any]) -> IodReport:
    values = dict(document["report"])
    findings = tuple(
        Finding(**{**one, "tags": tuple(one["tags"]), "asked_by": tuple(one["asked_by"])})
        for one in values.pop("findings")
    )
    level, notes = Level(values.pop("level")), tuple(values.pop("notes"))
    return IodReport(level=level, findings=findings, notes=notes, **values)


def _serve() -> None:
    """A helper's own main: one order a line in, one answer a line out, until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        order = json.loads(line)
        try:
            keep_within(Bounds(*order["bounds"]))
            report, why = _look(Path(order["source"]), "", order["recipe"])
            answer: dict[str, Any] = {"document": {"report": asdict(report), "unreadable": why}}
        except MemoryError:
            answer = {"beyond": True}
        except Exception as error:  # noqa: BLE001 - hostile bytes: whatever it is, it is this instance's only
            answer = {"refused": ["PROC_FAILURE", f"{type(error).__name__}: {error}"[:500]]}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
