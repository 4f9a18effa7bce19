"""Instances taken in one by one, from files or streams: corrected by rules, registered, and what became of them."""

from __future__ import annotations

import re
import threading
from typing import BinaryIO

from jobs.context import Context
from media.coercion import RulesError
from media.problems import MediaError
from service.contract import Document, Source
from service.errors import NotDone, UsageError
from store.instances import Outcome, Provenance, Registrar, ingest_file, ingest_stream
from store.reconcile import PassedOver, Reconciler, kept_rules

IMPORT = Provenance("", "", "import")
_SPOOL_NAME = re.compile(r"(incoming/\S*/)?\b\d{10}-[0-9a-f]{20}(\.\w+)?")


class Intake:
    """The door for what does not come by DICOM. Threads may share it."""

    def __init__(self, context: Context, registrar: Registrar | None = None) -> None:
        self._context = context
        self._registrar = registrar
        self._guard = threading.Lock()
        self._reconcilers: dict[str, Reconciler] = {}

    @property
    def registrar(self) -> Registrar:
        """Made when it is first needed: most commands register nothing."""
        with self._guard:
            if self._registrar is None:
                context = self._context
                self._registrar = Registrar(context.db, context.spool, derived_dir=context.settings.derived_dir)
            return self._registrar

    def file(self, source: Source, *, reconcile: str = "", provenance: Provenance = IMPORT) -> Document:
        """See ``service.contract.Operations.ingest``."""
        if source.path is not None:
            reconciler = self._reconciler(reconcile)
            return _taken(ingest_file(self.registrar, source.path, provenance=provenance, reconciler=reconciler))
        with source.open() as stream:
            return self.stream(stream, reconcile=reconcile, provenance=provenance)

    def stream(
        self, stream: BinaryIO, *, reconcile: str | Reconciler = "", provenance: Provenance = IMPORT
    ) -> Document:
        """The same for what comes as a stream, from an upload or a disc image. PassedOver comes as it is."""
        reconciler = self._reconciler(reconcile)
        try:
            return _taken(ingest_stream(self.registrar, stream, provenance=provenance, reconciler=reconciler))
        except PassedOver:
            raise
        except MediaError as error:
            raise NotDone(self._without_spool_name(str(error)), "NOT_DICOM") from error

    def _reconciler(self, digest: str | Reconciler) -> Reconciler | None:
        if isinstance(digest, Reconciler) or not digest:
            return digest or None
        with self._guard:
            if digest not in self._reconcilers:
                try:
                    rules = kept_rules(self._context.settings.data, digest)
                except RulesError as error:
                    raise UsageError(str(error), "RULES") from error
                self._reconcilers[digest] = Reconciler(
                    self._context.db, rules, digest, system=self._context.settings.dicom.ae_title
                )
            return self._reconcilers[digest]

    def _without_spool_name(self, text: str) -> str:
        """A reason as its sender understands it: the name that the upload had in the spool tells him nothing."""
        return _SPOOL_NAME.sub("the file", text.replace(f"{self._context.spool.root}/", ""))


def _taken(outcome: Outcome) -> Document:
    """What became of an instance that came in."""
    document: Document = {
        "outcome": outcome.kind,
        "sop_instance_uid": outcome.sop_instance_uid,
        "instance": outcome.instance_id,
    }
    if outcome.conformed:
        document["conformed"] = True
    if outcome.changes:
        document["changes"] = [change.as_json() for change in outcome.changes]
    return document
