"""What the agent beside Rimage's server tells us: one status document for each order, and one of the machine.

An order's document is the server's own ``ProductionOrderStatus`` as the agent received it. The machine's document,
``RimageAgent``, is ours (``docs/burners/rimage.md`` has it): bins, printers and recorders by the attribute names that
the server's replies use, and a counter by which we see that the agent lives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from burners.rimage_xml import Element, XmlRefused, parse

STATES = ("IN_PROCESS", "COMPLETED", "CANCELLED", "FAILED")
_NUMBER = re.compile(r"[0-9]{1,9}")
_CONTROL = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]+")
_TEXT_LIMIT = 200
_ROWS = 32


@dataclass(frozen=True, slots=True)
class OrderStatus:
    """``Status`` of an order. None and ``""``: not told."""

    state: str
    """One of ``STATES``; ``""`` for any other word."""
    percent: int | None
    stage: str
    operation: str
    error: str
    good: int | None
    """Discs, where the agent counts them (our addition to Rimage's attributes)."""
    bad: int | None


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """How the machine stands."""

    beat: str
    connected: bool
    alert: str
    """What a person must do, in the server's words; ``""``: nothing."""
    bins: Mapping[str, int] = field(default_factory=dict)
    printers: Mapping[str, Mapping[str, int | str]] = field(default_factory=dict)
    drives: tuple[Mapping[str, str], ...] = ()


def order_status(data: bytes, order_id: str) -> OrderStatus | None:
    """The order's status; None where the document cannot be understood or is that of another order."""
    try:
        root = parse(data)
    except XmlRefused:
        return None
    if root.name != "ProductionOrderStatus" or root.attributes.get("OrderId") != order_id:
        return None
    found = [child for child in root.children if child.name == "Status"]
    if len(found) != 1:
        return None
    told = found[0].attributes
    state = told.get("State", "")
    return OrderStatus(
        state=state if state in STATES else "",
        percent=number(told.get("PercentCompleted"), 100),
        stage=text(told.get("Stage", "")),
        operation=text(told.get("CurrentOperation", "")),
        error=text(told.get("ErrorMessage", "")),
        good=number(told.get("GoodDiscs"), 10_000),
        bad=number(told.get("BadDiscs"), 100_000),
    )


def agent_status(data: bytes) -> AgentStatus | None:
    """The machine's status; None where the document cannot be understood."""
    try:
        root = parse(data)
    except XmlRefused:
        return None
    if root.name != "RimageAgent" or root.attributes.get("Version") != "1":
        return None
    alerts = [text(each.attributes.get("Message", "")) for each in root.all("Alert")]
    offline = [row(each) for each in root.all("Printer") if each.attributes.get("Offline") == "true"]
    return AgentStatus(
        beat=text(root.attributes.get("Beat", "")),
        connected=root.attributes.get("Connected") == "true",
        alert="; ".join([*(alert for alert in alerts if alert), *(f"printer {each} is offline" for each in offline)]),
        bins=_bins(root),
        printers={row(each): _printer(each) for each in root.all("Printer")[:_ROWS]},
        drives=tuple(_drive(each) for each in root.all("Recorder")[:_ROWS]),
    )


def number(value: str | None, highest: int) -> int | None:
    """A plain decimal number from 0 to ``highest``; None for anything else."""
    if value is None or not _NUMBER.fullmatch(value) or int(value) > highest:
        return None
    return int(value)


def text(value: str) -> str:
    """One short line for a person."""
    return _CONTROL.sub(" ", value).strip()[:_TEXT_LIMIT]


def row(each: Element) -> str:
    """The number of a bin, printer or recorder."""
    return text(each.attributes.get("Number", ""))[:8]


def _bins(root: Element) -> dict[str, int]:
    found = {}
    for each in root.all("Bin")[:_ROWS]:
        discs = number(each.attributes.get("DiscsRemaining"), 100_000)
        if discs is not None:
            found[row(each)] = discs
    return found


def _printer(each: Element) -> dict[str, int | str]:
    found: dict[str, int | str] = {"state": "offline" if each.attributes.get("Offline") == "true" else "online"}
    for key, name in (("LabelsRemaining", "labels"), ("RibbonPanelSetsRemaining", "ribbon")):
        value = number(each.attributes.get(key), 100_000)
        if value is not None:
            found[name] = value
    return found


def _drive(each: Element) -> dict[str, str]:
    return {"name": f"recorder {row(each)}", "state": text(each.attributes.get("State", "")), "medium": ""}
