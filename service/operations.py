"""What each operation does on an open store; its answer is the JSON document of the CLI's contract."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from burners import registry
from burners.registry import Burners
from config.settings import Settings
from jobs import documents, labelling, mending, plandocument, planning, preparing, retaining
from jobs.context import Context
from jobs.fitness import fitness
from jobs.options import OptionsError, RequestOptions
from media.coercion import RulesError
from media.problems import MediaError
from service import acting
from service import labelling as service_labelling
from service.contract import Document, OnProgress, Source, number
from service.errors import NotDone, NotFound, UsageError
from store import auditwhat, catalogue, checks, remotes, rereading, retention
from store import jobs as store_jobs
from store.auditmessage import Message as AuditMessage
from store.auditmessage import Participant
from store.instances import Outcome, Provenance, Registrar, ingest_file, ingest_stream
from store.models_jobs import Job, Plan, Request, VolumeInstance
from store.reconcile import PassedOver, Reconciler, kept_rules
from store.remotes import Remote
from store.selection import Selection, SelectionError, instance_ids, parse_date_range

if TYPE_CHECKING:
    from service.exchange import Exchange

_IMPORT = Provenance("", "", "import")
_SPOOL_NAME = re.compile(r"(incoming/\S*/)?\b\d{10}-[0-9a-f]{20}(\.\w+)?")
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
        self._registrar = registrar
        self._guard = threading.Lock()
        self._reconcilers: dict[str, Reconciler] = {}
        self.watches: Callable[[], list[Document]] = list
        """How the watched places of this process stand."""
        self.receiving = False
        """Our own storage SCP runs, so that others can send to it what we ask for."""
        self.healthy: Callable[[], bool] = lambda: False
        """Whether an engine works here."""

    @property
    def registrar(self) -> Registrar:
        """Made when it is first needed: most commands register nothing."""
        with self._guard:
            if self._registrar is None:
                context = self.context
                self._registrar = Registrar(context.db, context.spool, derived_dir=context.settings.derived_dir)
            return self._registrar

    def submit(self, job_id: int) -> None:
        """Hand a queued job to the engine; where none runs here, it waits for one."""
        if self._submit is not None:
            self._submit(job_id)

    def studies(self) -> list[Document]:
        with self.context.db.read() as session:
            return catalogue.studies(session)

    def ingest(self, source: Source, *, reconcile: str = "", provenance: Provenance = _IMPORT) -> Document:
        if source.path is not None:
            reconciler = self._reconciler(reconcile)
            return _taken(ingest_file(self.registrar, source.path, provenance=provenance, reconciler=reconciler))
        with source.open() as stream:
            return self.ingest_stream(stream, reconcile=reconcile, provenance=provenance)

    def ingest_stream(
        self, stream: BinaryIO, *, reconcile: str | Reconciler = "", provenance: Provenance = _IMPORT
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
                    rules = kept_rules(self.context.settings.data, digest)
                except RulesError as error:
                    raise UsageError(str(error), "RULES") from error
                self._reconcilers[digest] = Reconciler(
                    self.context.db, rules, digest, system=self.context.settings.dicom.ae_title
                )
            return self._reconcilers[digest]

    def _without_spool_name(self, text: str) -> str:
        """A reason as its sender understands it: the name that the upload had in the spool tells him nothing."""
        return _SPOOL_NAME.sub("the file", text.replace(f"{self.context.spool.root}/", ""))

    def plan(
        self,
        selection: Mapping[str, Any],
        options: Mapping[str, Any],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Document:
        request_id = self._request(selection, options, None)

        def told(phase: str, done: int, total: int, unit: str) -> None:
            progress({"phase": phase, "done": done, "total": total, "unit": unit})

        plan_id = planning.make_plan(
            self.context, request_id, progress=told, cancelled=cancelled, on_phase=lambda phase: told(phase, 0, 0, "")
        )
        with self.context.db.read() as session:
            return labelling.with_labels(session, self.context.settings, plandocument.plan_document(session, plan_id))

    def check(self, selection: Mapping[str, Any], options: Mapping[str, Any]) -> Document:
        settled = self._settled(options)
        self._selected(selection)
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
            job_id = self._job_of_plan(number("P", plan), options, idempotency_key)
        else:
            job_id = self._job_of_selection(selection or {}, options, idempotency_key)
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
        chosen = self._selected(selection)
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

        return Exchange(self.context, lambda: self.registrar, receiving=self.receiving)

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
        ids = self._selected(selection)
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

    def _selected(self, selection: Mapping[str, Any]) -> list[int]:
        """The instances that are meant; an empty selection is wrong usage."""
        chosen = Selection.from_json(selection)
        with self.context.db.read() as session:
            ids = instance_ids(session, chosen)
        if not ids:
            raise SelectionError("the selection is empty: no instance matches (see `burnish studies`)")
        return ids

    def _settled(self, options: Mapping[str, Any]) -> RequestOptions:
        """Every option with a value. A medium or profile that does not exist or fit is wrong usage."""
        settled = RequestOptions.from_settings(self.context.settings, options)
        try:
            preparing.require_pair(settled)
        except MediaError as error:
            raise UsageError(str(error), "PROFILE") from error
        return settled

    def _request(self, selection: Mapping[str, Any], options: Mapping[str, Any], idempotency_key: str | None) -> int:
        settled = self._settled(options)
        self._selected(selection)
        with self.context.db.begin() as session:
            return planning.create_request(
                session,
                selection=Selection.from_json(selection),
                options=settled,
                source=acting.source(self._source),
                idempotency_key=idempotency_key,
            )

    def _job_of_selection(
        self, selection: Mapping[str, Any], options: Mapping[str, Any], idempotency_key: str | None
    ) -> int:
        settled = self._settled(options)
        if idempotency_key is not None:
            given = {key: settled.to_json()[key] for key, value in options.items() if value is not None}
            with self.context.db.read() as session:
                known = _made_before(session, idempotency_key, Selection.from_json(selection), given)
            if known is not None:
                return known
        if settled.pull_from:
            with self.context.db.read() as session:
                remotes.by_name(session, settled.pull_from)
        else:
            self._selected(selection)
        with self.context.db.begin() as session:
            request_id = planning.create_request(
                session,
                selection=Selection.from_json(selection),
                options=settled,
                source=acting.source(self._source),
                idempotency_key=idempotency_key,
            )
            existing = store_jobs.job_of_request(session, request_id)
            return existing or store_jobs.create_job(session, request_id, None, settled)

    def _job_of_plan(self, plan_id: int, options: Mapping[str, Any], idempotency_key: str | None) -> int:
        allowed = {"burner", "copies", "priority", "skip_refused"}
        with self.context.db.begin() as session:
            plan = session.get(Plan, plan_id)
            if plan is None:
                raise NotFound(f"there is no plan P{plan_id}")
            request = session.get_one(Request, plan.request_id)
            if idempotency_key is not None:
                used_by = session.scalar(select(Request.id).where(Request.idempotency_key == idempotency_key))
                same = all(request.options.get(key) == value for key, value in options.items() if value is not None)
                job_id = store_jobs.job_of_request(session, request.id)
                if used_by == request.id and same and job_id is not None:
                    return job_id
                if used_by is not None:
                    raise _key_used()
                request.idempotency_key = request.idempotency_key or idempotency_key
            others = {key: value for key, value in options.items() if value is not None and key not in allowed}
            fixed = sorted(key for key, value in others.items() if request.options.get(key) != value)
            if fixed:
                raise OptionsError(f"{', '.join(fixed)}: a plan fixes this already; leave it out or make another plan")
            merged = request.options | {key: value for key, value in options.items() if value is not None}
            settled = RequestOptions.from_settings(self.context.settings, merged)
            request.options = settled.to_json()
            request.source = acting.source(request.source)  # who has it made answers for it, not who planned
            return store_jobs.create_job(session, plan.request_id, plan_id, settled)

    @staticmethod
    def _known(session: Session, job_id: int) -> None:
        if session.get(Job, job_id) is None:
            raise NotFound(f"there is no job J{job_id}")

    def _job_document(self, job_id: int) -> Document:
        with self.context.db.read() as session:
            self._known(session, job_id)
            return documents.job_document(session, job_id)


def _made_before(session: Session, key: str, selection: Selection, options: Mapping[str, Any]) -> int | None:
    """The job that this request made when it came first. UsageError where another request had the key."""
    request = session.scalar(select(Request).where(Request.idempotency_key == key))
    if request is None:
        return None
    if request.selection != selection.to_json() or any(request.options.get(k) != v for k, v in options.items()):
        raise _key_used()
    return store_jobs.job_of_request(session, request.id)


def _key_used() -> UsageError:
    return UsageError("this idempotency key was used for another request before", "KEY_USED")


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
