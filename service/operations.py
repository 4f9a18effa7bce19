"""What each operation does on an open store; its answer is the JSON document of the CLI's contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from burners import registry
from burners.registry import Burners
from config.settings import Settings
from jobs import documents, labelling, mending, plandocument, planning, retaining
from jobs.context import Context
from jobs.fitness import fitness
from service import acting, ordering
from service import labelling as service_labelling
from service.contract import Document, OnProgress, Source, number
from service.errors import NotFound, UsageError
from service.intake import IMPORT, Intake
from store import auditwhat, catalogue, checks, rereading, retention
from store import jobs as store_jobs
from store.auditmessage import Message as AuditMessage
from store.auditmessage import Participant
from store.instances import Provenance, Registrar
from store.models_jobs import Job, Plan, VolumeInstance
from store.reconcile import Reconciler
from store.remotes import Remote
from store.selection import Selection, parse_date_range

if TYPE_CHECKING:
    from service.exchange import Exchange

FIND_CRITERIA = ("patient_id", "patient_name", "study", "accession", "series", "sop", "modality", "date_range")


class StoreOperations:
    """``service.contract.Operations`` on an open store.

    ``submit`` hands a queued job to the engine; None where no engine runs here (the job waits for one).
    """

    def __init__(
        self,
        context: Context,
        *,
        source: str,
        submit: Callable[[int], None] | None = None,
        registrar: Registrar | None = None,
        doctor: Callable[[], Document] | None = None,
        burners: Burners | None = None,
    ) -> None:
        self.context = context
        self._source = source
        self._submit = submit
        self._doctor = doctor
        self._burners = burners
        self.intake = Intake(context, registrar)
        self.watches: Callable[[], list[Document]] = list
        """How the watched places of this process stand."""
        self.receiving = False
        """Our own storage SCP runs, so that others can send to it what we ask for."""
        self.healthy: Callable[[], bool] = lambda: False
        """Whether an engine works here."""

    def submit(self, job_id: int) -> None:
        """Hand a queued job to the engine; where none runs here, it waits for one."""
        if self._submit is not None:
            self._submit(job_id)

    def studies(self) -> list[Document]:
        with self.context.db.read() as session:
            return catalogue.studies(session)

    def ingest(self, source: Source, *, reconcile: str = "", provenance: Provenance = IMPORT) -> Document:
        return self.intake.file(source, reconcile=reconcile, provenance=provenance)

    def ingest_stream(
        self, stream: BinaryIO, *, reconcile: str | Reconciler = "", provenance: Provenance = IMPORT
    ) -> Document:
        """The same for what comes as a stream, from an upload or a disc image."""
        return self.intake.stream(stream, reconcile=reconcile, provenance=provenance)

    def plan(
        self,
        selection: Mapping[str, Any],
        options: Mapping[str, Any],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Document:
        request_id = ordering.make_request(self.context, selection, options, source=self._source)

        def told(phase: str, done: int, total: int, unit: str) -> None:
            progress({"phase": phase, "done": done, "total": total, "unit": unit})

        plan_id = planning.make_plan(
            self.context, request_id, progress=told, cancelled=cancelled, on_phase=lambda phase: told(phase, 0, 0, "")
        )
        with self.context.db.read() as session:
            return labelling.with_labels(session, self.context.settings, plandocument.plan_document(session, plan_id))

    def check(self, selection: Mapping[str, Any], options: Mapping[str, Any]) -> Document:
        settled = ordering.settle(self.context, options)
        ordering.require_instances(self.context, selection)
        return fitness(self.context, Selection.from_json(selection), settled)

    def plan_document(self, plan: str) -> Document:
        plan_id = number("P", plan)
        with self.context.db.read() as session:
            if session.get(Plan, plan_id) is None:
                raise NotFound(f"there is no plan P{plan_id}")
            return labelling.with_labels(session, self.context.settings, plandocument.plan_document(session, plan_id))

    def burn(
        self,
        *,
        selection: Mapping[str, Any] | None,
        plan: str | None,
        options: Mapping[str, Any],
        idempotency_key: str | None = None,
    ) -> Document:
        if (plan is None) == (not selection):
            raise UsageError("say what to burn: either SELECT options (--study, --all ...) or --plan ID")
        if plan is not None:
            job_id = ordering.job_of_plan(self.context, number("P", plan), options, idempotency_key)
        else:
            job_id = ordering.job_of_selection(
                self.context, selection or {}, options, idempotency_key, source=self._source
            )
        self.submit(job_id)
        return self._job_document(job_id)

    def job(self, job: str) -> Document:
        return self._job_document(number("J", job))

    def jobs(self) -> list[Document]:
        with self.context.db.read() as session:
            return documents.jobs_list(session)

    def cancel(self, job: str) -> Document:
        job_id = number("J", job)
        with self.context.db.begin() as session:
            self._known(session, job_id)
            store_jobs.request_cancel(session, job_id)
        return self._job_document(job_id)

    def retry(self, job: str, *, burner: str = "", skip_refused: bool = False) -> Document:
        job_id = number("J", job)
        with self.context.db.read() as session:
            self._known(session, job_id)
        mending.retry(self.context, job_id, burner=burner, skip_refused=skip_refused)
        self.submit(job_id)
        return self._job_document(job_id)

    def find(self, criteria: Mapping[str, str]) -> list[Document]:
        unknown = set(criteria) - set(FIND_CRITERIA)
        if unknown:
            raise UsageError(f"unknown criterion {', '.join(sorted(unknown))}")
        given: dict[str, Any] = {key: value for key, value in criteria.items() if value}
        if "date_range" in given:
            given["date_range"] = parse_date_range(given["date_range"])
        with self.context.db.read() as session:
            return catalogue.find(session, **given)

    def medium(self, *, file_set_uid: str, file_set_id: str) -> Document:
        with self.context.db.read() as session:
            found = checks.volume_document(session, file_set_uid=file_set_uid, file_set_id=file_set_id)
        return {"known": found is not None, **(found or {})}

    def record_check(self, disc: str, *, good: bool, how: str, detail: Document) -> Document:
        disc_id = number("D", disc)
        with self.context.db.begin() as session:
            try:
                return rereading.record_check(
                    session,
                    disc_id,
                    good=good,
                    how=how,
                    detail=detail,
                    sectors=_count(detail, "sectors"),
                    unreadable=_count(detail, "unreadable_sectors"),
                    seconds=float(seconds) if isinstance(seconds := detail.get("seconds"), int | float) else None,
                )
            except rereading.NoSuchDisc as error:
                raise NotFound(str(error)) from error

    def purge(self, *, min_copies: int, dry_run: bool) -> Document:
        return retaining.purge(self.context, retaining.policy(self.context, min_copies=min_copies), dry_run=dry_run)

    def delete(self, selection: Mapping[str, Any]) -> Document:
        chosen = ordering.require_instances(self.context, selection)
        return retention.delete(
            self.context.db,
            self.context.spool,
            self.context.settings.derived_dir,
            chosen,
            trail=self.context.audit,
            by=acting.who(),
        )

    def label(self, of: str, *, volume: int | None, printer: str) -> Document:
        with self.context.db.read() as session:
            return service_labelling.document(session, self.context.settings, of, volume=volume, printer=printer)

    def label_picture(
        self, of: str, kind: str, *, volume: int | None, printer: str, dpi: int | None, guides: bool
    ) -> bytes:
        """The audit trail has it as an export to paper: it is there to be printed, and names patients."""
        with self.context.db.read() as session:
            content, volume_id = service_labelling.picture(
                session, self.context.settings, of, kind, volume=volume, printer=printer, dpi=dpi, guides=guides
            )
            held = list(
                session.scalars(select(VolumeInstance.instance_id).where(VolumeInstance.volume_id == volume_id))
            )
        paper = Participant("label", "destination_media", media="PAPER")
        with self.context.db.begin() as session:
            for message in auditwhat.exported(session, held, acting.who(), paper):
                self.context.audit.record(session, message)
        return content

    def burners(self) -> list[Document]:
        return burner_documents(self.context.settings, self._burners)

    def doctor(self) -> Document:
        from service import doctor

        if self._doctor is not None:
            return self._doctor()
        return doctor.examine(self.context.settings, db=self.context.db, spool=self.context.spool)

    @property
    def exchange(self) -> Exchange:
        from service.exchange import Exchange

        return Exchange(self.context, lambda: self.intake.registrar, receiving=self.receiving)

    def nodes(self) -> list[Document]:
        return self.exchange.nodes()

    def add_node(self, values: Mapping[str, Any]) -> Document:
        document = self.exchange.add_node(values)
        self._tell(auditwhat.alert("network", acting.who(), "a remote node was entered", about=str(document["name"])))
        return document

    def remove_node(self, name: str, require: Callable[[Remote], None] = lambda _remote: None) -> Document:
        document = self.exchange.remove_node(name, require)
        self._tell(auditwhat.alert("network", acting.who(), "a remote node was removed", about=name))
        return document

    def echo_node(self, name: str) -> Document:
        return self.exchange.echo_node(name)

    def pull(
        self,
        name: str,
        criteria: Mapping[str, Any],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        by: str | None = None,
    ) -> Document:
        return self.exchange.pull(name, criteria, progress, cancelled, by=by)

    def send(
        self,
        name: str,
        selection: Mapping[str, Any],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        commit: bool = False,
    ) -> Document:
        ids = ordering.require_instances(self.context, selection)
        document = self.exchange.send(name, ids, progress, cancelled, commit=commit)
        problem = f"{len(document['failed'])} instances were not taken" if document["failed"] else ""
        destination = Participant(name, "destination")
        with self.context.db.begin() as session:
            asks = acting.who()
            user = Participant(asks.name, "source", requestor=True, address=asks.address)
            for message in auditwhat.transferred(session, ids, user, destination, problem=problem):
                self.context.audit.record(session, message)
        return document

    def _tell(self, message: AuditMessage) -> None:
        """Have something recorded in the audit trail."""
        with self.context.db.begin() as session:
            self.context.audit.record(session, message)

    def close(self) -> None:
        """Nothing of ours stays open: the store belongs to who opened it."""

    @staticmethod
    def _known(session: Session, job_id: int) -> None:
        if session.get(Job, job_id) is None:
            raise NotFound(f"there is no job J{job_id}")

    def _job_document(self, job_id: int) -> Document:
        with self.context.db.read() as session:
            self._known(session, job_id)
            return documents.job_document(session, job_id)


def _count(detail: Mapping[str, Any], name: str) -> int | None:
    value = detail.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else None


def burner_documents(settings: Settings, burners: Burners | None = None) -> list[Document]:
    """How each burner of the settings stands; ``burners`` None makes them for a look, and asks their devices."""
    loaded = burners or registry.load(settings.burners, data=settings.data)
    try:
        return [status.as_json() for status in loaded.statuses()]
    finally:
        if burners is None:
            loaded.close()
