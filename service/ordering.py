"""What is asked for becomes a request, and a job of it or of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs import planning, preparing
from jobs.context import Context
from jobs.options import OptionsError, RequestOptions
from media.problems import MediaError
from service import acting
from service.errors import NotFound, UsageError
from store import jobs as store_jobs
from store import remotes, requested
from store.models_jobs import Plan, Request
from store.selection import Selection, SelectionError, instance_ids


def make_request(context: Context, selection: Mapping[str, Any], options: Mapping[str, Any], *, source: str) -> int:
    """A request of instances that are there, for a plan; its number."""
    settled = settle(context, options)
    require_instances(context, selection)
    with context.db.begin() as session:
        return planning.create_request(
            session,
            selection=Selection.from_json(selection),
            options=settled,
            source=acting.source(source),
            idempotency_key=None,
        )


def job_of_selection(
    context: Context,
    selection: Mapping[str, Any],
    options: Mapping[str, Any],
    idempotency_key: str | None,
    *,
    source: str,
) -> int:
    """The number of a new request's job, or of the one with this idempotency key; UsageError where that was another."""
    settled = settle(context, options)
    given = {key: settled.to_json()[key] for key, value in options.items() if value is not None}
    if idempotency_key is not None:
        with context.db.read() as session:
            known = _made_before(session, idempotency_key, Selection.from_json(selection), given)
        if known is not None:
            return known
    if settled.pull_from:
        with context.db.read() as session:
            remotes.by_name(session, settled.pull_from)
    else:
        require_instances(context, selection)
    with context.db.begin() as session:
        if idempotency_key is not None:  # another may have brought it since
            requested.key_is_ours(session)
            known = _made_before(session, idempotency_key, Selection.from_json(selection), given)
            if known is not None:
                return known
        request_id = planning.create_request(
            session,
            selection=Selection.from_json(selection),
            options=settled,
            source=acting.source(source),
            idempotency_key=idempotency_key,
        )
        existing = store_jobs.job_of_request(session, request_id)
        return existing or store_jobs.create_job(session, request_id, None, settled)


def job_of_plan(context: Context, plan_id: int, options: Mapping[str, Any], idempotency_key: str | None) -> int:
    """The number of a job that makes the discs of a plan, with a burner, copies and priority of its own."""
    allowed = {"burner", "copies", "priority", "skip_refused"}
    with context.db.begin() as session:
        if idempotency_key is not None:
            requested.key_is_ours(session)
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
        settled = RequestOptions.from_settings(context.settings, merged)
        request.options = settled.to_json()
        request.source = acting.source(request.source)  # who has it made answers for it, not who planned
        return store_jobs.create_job(session, plan.request_id, plan_id, settled)


def require_instances(context: Context, selection: Mapping[str, Any]) -> list[int]:
    """The instances that are meant; an empty selection is wrong usage."""
    chosen = Selection.from_json(selection)
    with context.db.read() as session:
        ids = instance_ids(session, chosen)
    if not ids:
        raise SelectionError("the selection is empty: no instance matches (see `burnish studies`)")
    return ids


def settle(context: Context, options: Mapping[str, Any]) -> RequestOptions:
    """Every option with a value. A medium or profile that does not exist or fit is wrong usage."""
    settled = RequestOptions.from_settings(context.settings, options)
    try:
        preparing.require_pair(settled)
    except MediaError as error:
        raise UsageError(str(error), "PROFILE") from error
    return settled


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
