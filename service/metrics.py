"""Figures for Prometheus: read from the database when they are asked for, so that several nodes tell the same."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.context import Context
from store import atrisk
from store.models import Instance
from store.models_archive import Recall
from store.models_audit import AuditRecord, Notice
from store.models_jobs import Disc, Job, Volume
from store.models_nodes import Event

if TYPE_CHECKING:
    from service.operations import StoreOperations

_KEPT_SECONDS = 10.0
"""Counting what the spool holds takes its time; who asks more often is told the same."""


class Metrics:
    """The figures of one service."""

    def __init__(self, operations: StoreOperations) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_Figures(operations))

    def text(self) -> bytes:
        """All of them, in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


class _Figures(Collector):
    def __init__(self, operations: StoreOperations) -> None:
        self._operations = operations
        self._guard = threading.Lock()
        self._spool: tuple[float, int, int] | None = None

    def describe(self) -> list[Metric]:
        return []  # nothing is read when it is registered

    def collect(self) -> Iterator[Metric]:
        context = self._operations.context
        yield InfoMetricFamily("burnish", "This program", {"version": version("burnish"), "node": context.spool.node})
        with context.db.read() as session:
            yield _by_state(session, "burnish_jobs", "Jobs by state", Job)
            yield _by_state(session, "burnish_discs", "Discs by state", Disc)
            yield _by_state(session, "burnish_recalls", "Recalls by state", Recall)
            yield _gauge(
                "burnish_volumes_short",
                "Volumes with fewer good copies than wanted",
                session.scalar(select(func.count()).where(Volume.good_copies < Volume.wanted_copies)),
            )
            yield _gauge(
                "burnish_discs_purpose_unknown",
                "Discs of which nobody said what they are for",
                atrisk.unconfirmed_discs(session),
            )
            yield _gauge(
                "burnish_instances_received",
                "Highest number of an instance: what was received, deleted ones included",
                session.scalar(select(func.max(Instance.id))),
            )
            yield _gauge(
                "burnish_audit_unsent",
                "Audit messages that wait for their receiver",
                session.scalar(select(func.count()).where(AuditRecord.sent_at.is_(None)))
                if context.settings.audit.syslog
                else 0,
            )
            yield _gauge(
                "burnish_notices_waiting",
                "Notices that are not told yet",
                session.scalar(select(func.count()).where(Notice.next_at.is_not(None))),
            )
            last = session.scalar(select(func.max(Event.id)))
            yield _gauge("burnish_events", "Highest number of an event", last)
        yield from self._spool_figures(context)
        yield from self._burner_figures()

    def _spool_figures(self, context: Context) -> Iterator[Metric]:
        with self._guard:
            if self._spool is None or time.monotonic() - self._spool[0] > _KEPT_SECONDS:
                with context.db.read() as session:
                    count, size = session.execute(
                        select(func.count(), func.coalesce(func.sum(Instance.file_bytes), 0)).where(
                            Instance.spool_path.is_not(None)
                        )
                    ).one()
                self._spool = (time.monotonic(), count, int(size))
            _, count, size = self._spool
        yield _gauge("burnish_spool_instances", "Instances in the spool", count)
        yield _gauge("burnish_spool_bytes", "Bytes of the instances in the spool", size)
        root = context.spool.root
        usage = shutil.disk_usage(root if root.is_dir() else context.settings.data)
        yield _gauge("burnish_spool_filesystem_bytes", "Size of the spool's file system", usage.total)
        yield _gauge("burnish_spool_filesystem_free_bytes", "Free bytes of the spool's file system", usage.free)

    def _burner_figures(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "burnish_burner_state", "1 for the state that a burner is in", labels=["burner", "driver", "state"]
        )
        supplies = GaugeMetricFamily(
            "burnish_burner_supply", "Ink, blanks and bins, as the device counts them", labels=["burner", "supply"]
        )
        for burner in self._operations.burners():
            state.add_metric([burner["name"], burner["driver"], str(burner["state"])], 1)
            for name, amount in (burner.get("supplies") or {}).items():
                if isinstance(amount, int | float):
                    supplies.add_metric([burner["name"], str(name)], amount)
        yield state
        yield supplies


def _by_state(session: Session, name: str, text: str, model: type[Job] | type[Disc] | type[Recall]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["state"])
    for state, count in session.execute(select(model.state, func.count()).group_by(model.state)):
        family.add_metric([state], count)
    return family


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value or 0))
