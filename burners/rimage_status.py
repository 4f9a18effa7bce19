"""What the agent beside Rimage's server tells us: one status document for each order, and one of the machine.

An order's document is the server's own ``ProductionOrderStatus`` as the agent received it. The machine's document,
``RimageAgent``, is ours (``docs/burners/rimage.md`` has it): bins, printers and recorders by the attribute names that
the server's replies use, and a counter by which we see that the agent lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from burners.hotfolder_text import clean, number
from burners.rimage_xml import Element, XmlRefused, parse

STATES = ("IN_PROCESS", "COMPLETED", "CANCELLED", "FAILED")
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
        percent=counted(told.get("PercentCompleted"), 100),
        stage=clean(told.get("Stage", "")),
        operation=clean(told.get("CurrentOperation", "")),
        error=clean(told.get("ErrorMessage", "")),
        good=counted(told.get("GoodDiscs"), 10_000),
        bad=counted(told.get("BadDiscs"), 100_000),
    )


def agent_status(data: bytes) -> AgentStatus | None:
    """The machine's status; None where the document cannot be understood."""
    try:
        root = parse(data)
    except XmlRefused:
        return None
    if root.name != "RimageAgent" or root.attributes.get("Version") != "1":
        return None
    alerts = [clean(each.attributes.get("Message", "")) for each in root.all("Alert")]
    offline = [row(each) for each in root.all("Printer") if each.attributes.get("Offline") == "true"]
    return AgentStatus(
        beat=clean(root.attributes.get("Beat", "")),
        connected=root.attributes.get("Connected") == "true",
        alert="; ".join([*(alert for alert in alerts if alert), *(f"printer {each} is offline" for each in offline)]),
        bins=_bins(root),
        printers={row(each): _printer(each) for each in root.all("Printer")[:_ROWS]},
        drives=tuple(_drive(each) for each in root.all("Recorder")[:_ROWS]),
    )


def counted(value: str | None, highest: int) -> int | None:
    """A number from 0 to ``highest``; None for anything else."""
    found = number(value)
    return found if found is not None and 0 <= found <= highest else None


def row(each: Element) -> str:
    """The number of a bin, printer or recorder."""
    return clean(each.attributes.get("Number", ""))[:8]


def _bins(root: Element) -> dict[str, int]:
    found = {}
    for each in root.all("Bin")[:_ROWS]:
        discs = counted(each.attributes.get("DiscsRemaining"), 100_000)
        if discs is not None:
            found[row(each)] = discs
    return found


def _printer(each: Element) -> dict[str, int | str]:
    found: dict[str, int | str] = {"state": "offline" if each.attributes.get("Offline") == "true" else "online"}
    for key, name in (("LabelsRemaining", "labels"), ("RibbonPanelSetsRemaining", "ribbon")):
        value = counted(each.attributes.get(key), 100_000)
        if value is not None:
            found[name] = value
    return found


def _drive(each: Element) -> dict[str, str]:
    return {"name": f"recorder {row(each)}", "state": clean(each.attributes.get("State", "")), "medium": ""}
