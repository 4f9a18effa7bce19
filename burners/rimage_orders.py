"""Rimage disc publishers by ``ProductionOrder`` XML, handed to Rimage's messaging server by an agent.

The server has no folder of its own: its orders travel by its messaging service, for which Rimage has libraries for
Windows and Java. So we keep to a folder and a small program beside the server, the agent, carries orders in and status
out (its contract is in ``docs/burners/rimage.md``). Elements, attributes and states are those of Rimage's XML 8.2.

An order's file goes ``.xml`` -> ``.inp`` (the agent has it) -> ``.don`` or ``.err``. A disc is good only if the
server's own ``ProductionOrderStatus`` says ``COMPLETED`` and no bad disc was counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from burners.base import BurnRefused
from burners.hotfolder import HotFolder
from burners.hotfolder_dialect import (
    Dialect,
    Phase,
    RobotJob,
    RobotOrder,
    RobotState,
    RobotStatus,
    StatusFolder,
    TextFile,
)
from burners.hotfolder_merge import MERGE_FILE, merge_file, merge_names
from burners.hotfolder_text import clean
from burners.rimage import OnDemand
from burners.rimage_status import AgentStatus, OrderStatus, agent_status, order_status
from burners.rimage_xml import element, escaped, render

AGENT = "status/agent.xml"
_CLIENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LIFE = (".ERR", ".DON", ".INP", ".XML")
_LAYER_SECTORS = {"DVD": 2_298_496, "BD": 12_219_392}
"""What is larger needs two layers."""
_MEDIA = {"CD": "CDR", "DVD": "DVDR", "DVD-DL": "DVDR-DL"}
_TEXTS = {"client_id": "Burnish", "server": "ANY", "line": "ANY", "input_bin": "", "dtd": ""}
_WAITING_STAGES = ("Suspending", "Suspended")
_UNTOLD = "the agent has no status of it that can be understood"


class RimageXmlDialect:
    """The language of Rimage's orders. Options: ``client_id``, ``server``, ``line``, ``input_bin``, ``dtd``, ``media``
    (the server's words for kinds of media) and ``merge``."""

    name: ClassVar[str] = "rimage-xml"
    option_names: ClassVar[tuple[str, ...]] = (*_TEXTS, "media", "merge")
    order_suffix: ClassVar[str] = ".xml"
    template: ClassVar[str] = """\
<?xml version="1.0"?>
<!DOCTYPE ProductionOrder SYSTEM "{dtd}">
<ProductionOrder OrderId="{job_id}" ClientId="{client_id}" Copies="1">
  <Media Type="{media}"/>
  <Target Server="{server}" Line="{line}"/>
  <InOut InputBin="{input_bin}"/>
  <Action><Record><WriteTrack Filename="{image}" DeleteAfterRecording="false"><Data Type="Mode1"/></WriteTrack></Record></Action>
  <Action><Record><Fixate Type="SAO" Final="true"/></Record></Action>
  <Action><Label Filename="{picture}"/></Action>
  <Action><Label Filename="{design}"/></Action>
  <Action><Label Filename="{merged_design}"><BTW Merge_Filename="{merge_file}" DeleteMergeFileOnCompletion="false"/></Label></Action>
</ProductionOrder>
"""  # noqa: E501 - one element a line
    line_end: ClassVar[str] = "\r\n"
    code_page: ClassVar[str] = "utf-8"
    forbidden: ClassVar[str] = ',"'
    example: ClassVar[Mapping[str, Any]] = {}
    label_suffix: ClassVar[str] = ".pdf"
    cancel_answers: ClassVar[tuple[str, ...]] = ()
    withdraws: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any], faults: list[str]) -> None:
        self._texts = {key: options.get(key, default) for key, default in _TEXTS.items()}
        for key, value in self._texts.items():
            if not isinstance(value, str) or clean(value) != value or any(each in value for each in "\"'<>&"):
                faults.append(f"{key}: {value!r} is no plain text")
        if not _CLIENT.fullmatch(str(self._texts["client_id"])):
            faults.append("client_id: not 1 to 64 of A-Z a-z 0-9 _ . -")
        words = options.get("media", {})
        if not isinstance(words, dict) or not all(isinstance(word, str) and word for word in words.values()):
            faults.append('media: not a table of words, such as { BD = "..." }')
            words = {}
        faults += [f"media: unknown kind {kind!r}" for kind in words if kind not in (*_MEDIA, "BD", "BD-DL")]
        self._media: Mapping[str, str] = {**_MEDIA, **words}
        self._merge = merge_names(options, faults)

    def companions(self, order: RobotOrder) -> Sequence[TextFile]:
        return merge_file(order, self._merge)

    def adapt_label(self, drawn: Path) -> Path:
        return drawn

    def fields(self, order: RobotOrder) -> Mapping[str, str | Sequence[str]]:
        merge = order.files.get(MERGE_FILE, "")
        return {
            **self._texts,
            "job_id": order.job_id,
            "image": order.image,
            "media": self._word(order),
            "merge_file": merge,
            "picture": "" if order.label_is_design else order.label,
            "design": order.label if order.label_is_design and not merge else "",
            "merged_design": order.label if order.label_is_design and merge else "",
        }

    def _word(self, order: RobotOrder) -> str:
        layer = _LAYER_SECTORS.get(order.family, order.sectors)
        kind = order.family if order.sectors <= layer else f"{order.family}-DL"
        if kind not in self._media:
            raise BurnRefused(
                f'the option media does not say what the server calls {kind}: media = {{ {kind} = "..." }}'
            )
        return self._media[kind]

    def escape(self, value: str) -> str:
        return escaped(value)

    def cancellation(self, job_id: str) -> TextFile | None:
        wish = {
            "OrderId": job_id,
            "ClientId": str(self._texts["client_id"]),
            "TargetCluster": "DefaultProductionCluster",
        }
        return TextFile(f"{job_id}.can", render(element("CancelOrder", wish)))

    def status(self, folder: StatusFolder) -> RobotStatus:
        def document(job_id: str) -> Mapping[str, str] | None:
            told = folder.read(f"status/{job_id}.xml")
            return {"document": told.data.decode("latin-1")} if told is not None else None

        jobs = OnDemand(document)
        found = folder.read(AGENT)
        if found is None:
            return RobotStatus(RobotState.OFFLINE, f"there is no {AGENT}: the agent does not run", jobs=jobs)
        agent = agent_status(found.data)
        if agent is None:
            why = f"{AGENT} cannot be understood"
            return RobotStatus(RobotState.UNKNOWN, why, beat=found.beat, age=found.age, jobs=jobs)
        state, reason = _stands(agent)
        supplies: dict[str, Any] = {}
        if agent.bins:
            supplies["bins"] = dict(agent.bins)
        if agent.printers:
            supplies["printers"] = {name: dict(printer) for name, printer in agent.printers.items()}
        return RobotStatus(
            state, reason, supplies, agent.drives, beat=agent.beat or found.beat, age=found.age, jobs=jobs
        )

    def judge(self, job_id: str, suffixes: frozenset[str], status: RobotStatus) -> RobotJob:
        document = status.jobs.get(job_id, {}).get("document")
        told = order_status(document.encode("latin-1"), job_id) if document is not None else None
        file = next((suffix for suffix in _LIFE if suffix in suffixes), "")
        end = _end(told) if told is not None else None
        if file == ".ERR" and end is not None and end.state is Phase.GOOD:
            return RobotJob(
                Phase.BAD, end.discs_good, end.discs_bad, "the agent's file says error, the status says good"
            )
        if file in (".ERR", ".DON"):
            return end or RobotJob(Phase.ENDED, message=f"the order's file is {file}; {_UNTOLD}", progress=1.0)
        if file == ".XML":
            return RobotJob(Phase.OFFERED)
        if file == "":
            # Removed by the agent, or by somebody; the server's last word may still be there.
            return end or (_running(told) if told is not None else RobotJob(Phase.ABSENT))
        if end is not None:
            return RobotJob(Phase.WORKING, end.discs_good, end.discs_bad, "finishing", 1.0)
        return _running(told) if told is not None else RobotJob(Phase.WORKING, message=_UNTOLD)


class RimageXml(HotFolder):
    """The driver ``rimage-xml``."""

    dialect: ClassVar[type[Dialect]] = RimageXmlDialect


def _stands(agent: AgentStatus) -> tuple[RobotState, str]:
    if not agent.connected:
        return RobotState.OFFLINE, "the agent has no connection to Rimage's messaging server"
    return (RobotState.WAITING, agent.alert) if agent.alert else (RobotState.READY, "")


def _running(told: OrderStatus) -> RobotJob:
    progress = (told.percent or 0) / 100
    words = told.operation or told.stage
    if told.stage in _WAITING_STAGES:
        return RobotJob(Phase.PAUSED, told.good, told.bad, words, progress)
    if told.stage == "Waiting":
        return RobotJob(Phase.QUEUED, told.good, told.bad, words, progress)
    return RobotJob(Phase.WORKING, told.good, told.bad, words, progress)


def _end(told: OrderStatus) -> RobotJob | None:
    """How the order ended; None while it has not."""
    counted = f"{told.good} good, {told.bad} bad discs" if told.good is not None and told.bad is not None else ""
    why = "; ".join(part for part in (told.error, counted) if part)
    if told.state == "CANCELLED" and not told.good:
        return RobotJob(Phase.CANCELLED, told.good, told.bad, why)
    if told.state in ("FAILED", "CANCELLED"):
        return RobotJob(Phase.BAD, told.good, told.bad, why or told.state)
    if told.state != "COMPLETED":
        return None
    if told.bad or told.good not in (None, 1) or told.error:
        return RobotJob(Phase.BAD, told.good, told.bad, why)
    return RobotJob(Phase.GOOD, told.good, told.bad, "", 1.0)
