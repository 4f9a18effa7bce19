"""Findings of the IOD check over many instances, so that a person reads ten lines, not ten thousand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from media.iod import Finding, IodReport


@dataclass(slots=True)
class FindingGroup:
    """The same finding in many instances."""

    iod: str
    finding: Finding
    """The first of them: its path and value are an example."""
    example: str
    """SOP Instance UID of the first."""
    instances: int = 0
    count: int = 0

    @property
    def text(self) -> str:
        seen = f"in {self.instances} instances" if self.instances > 1 else "in 1 instance"
        finding = self.finding
        if finding.what == "value":
            said = f"has a value that {finding.clause} does not allow, as {finding.value!r}"
        else:
            said = f"{finding.what}, type {finding.type} in {finding.module} ({finding.usage}; {finding.clause})"
        name = f"{finding.keyword} ({finding.tags[-1] >> 16:04X},{finding.tags[-1] & 0xFFFF:04X})"
        return f"{finding.severity}: {self.iod}: {name} {said} {seen}, as {self.example}"

    def as_json(self) -> dict[str, Any]:
        return {
            "iod": self.iod,
            "instances": self.instances,
            "example": self.example,
            **self.finding.as_json(),
            "count": self.count,
            "text": self.text,
        }


@dataclass(slots=True)
class IodSummary:
    """What the check found in all instances of a request."""

    checked: int = 0
    sound: int = 0
    """Instances without an error."""
    refused: int = 0
    unchecked: int = 0
    """Instances whose SOP class has no IOD that we know, or that could not be read."""
    groups: list[FindingGroup] = field(default_factory=list)
    """Errors first, then the most frequent first."""
    notes: dict[str, int] = field(default_factory=dict)
    """Why something went unchecked, and for how many instances."""

    def lines(self, limit: int = 10) -> list[str]:
        """For people: a line of totals, then at most ``limit``: a line each or, where they are more, one a module."""
        total = f"IOD check: {self.checked} instances, {self.sound} without an error"
        total += f", {self.refused} refused" if self.refused else ""
        total += f", {self.unchecked} not checked" if self.unchecked else ""
        texts = [group.text for group in self.groups]
        texts += [f"note: {note} ({count} instances)" for note, count in self.notes.items()]
        if len(texts) > limit:
            texts = _by_module(self.groups)
            texts += [f"note: {sum(self.notes.values())} instances: {next(iter(self.notes))}"] if self.notes else []
        if len(texts) > limit:
            texts = [*texts[: limit - 1], f"and {len(texts) - limit + 1} more kinds of findings"]
        return [total, *texts]

    def as_json(self) -> dict[str, Any]:
        return {
            "checked": self.checked,
            "sound": self.sound,
            "refused": self.refused,
            "unchecked": self.unchecked,
            "groups": [group.as_json() for group in self.groups],
            "notes": dict(self.notes),
        }


def _by_module(groups: Sequence[FindingGroup]) -> list[str]:
    merged: dict[tuple[str, str, str, str], list[FindingGroup]] = {}
    for group in groups:
        finding = group.finding
        merged.setdefault((finding.severity, group.iod, finding.module, finding.what), []).append(group)
    lines = []
    for (severity, iod, module, what), members in merged.items():
        if len(members) == 1:
            lines.append(members[0].text)
            continue
        names = ", ".join(member.finding.keyword for member in members[:3]) + (", ..." if len(members) > 3 else "")
        said = "with values that are not allowed" if what == "value" else what
        most = max(member.instances for member in members)
        lines.append(
            f"{severity}: {iod}: {module}: {len(members)} attributes {said} ({names}) "
            f"in up to {most} instances, as {members[0].example}"
        )
    return lines


def group(reports: Iterable[IodReport]) -> IodSummary:
    """Group the findings of many reports, which are taken one by one and not kept."""
    summary = IodSummary()
    groups: dict[tuple[str, tuple[int, ...], str, str, str], FindingGroup] = {}
    for report in reports:
        summary.checked += 1
        summary.refused += report.refused
        for note in report.notes:
            # A hostile sender must not make a line of every instance.
            if note in summary.notes or len(summary.notes) < 100:
                summary.notes[note] = summary.notes.get(note, 0) + 1
        if report.iod is None:
            summary.unchecked += 1
            continue
        summary.sound += not report.errors
        for finding in report.findings:
            key = (report.iod, finding.tags, finding.what, finding.severity, finding.type)
            known = groups.get(key)
            if known is None:
                known = groups[key] = FindingGroup(report.iod, finding, report.sop_instance_uid)
            known.instances += 1
            known.count += finding.count
    summary.groups = sorted(
        groups.values(),
        key=lambda each: (each.finding.severity != "error", -each.instances, each.iod, each.finding.tags),
    )
    return summary
