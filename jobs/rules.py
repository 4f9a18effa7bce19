"""Auto-burn rules: what arrives under an AE title is burnt after a quiet period.

Nothing is kept in memory: which instances a rule has requested already stands in its requests, when the last one came
stands with the instances. So a rule goes on after a restart, fires once for each arrival, and later arrivals of a study
make a new request with only what is new. What was in the store before a rule was first seen is never burnt by it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.sections import Rule
from config.settings import Settings
from jobs.context import Context
from jobs.options import OptionsError, RequestOptions
from media.coercion import read_rules
from media.problems import MediaError
from store import jobs, requested
from store.models import Instance, Series, Study
from store.models_base import now
from store.models_jobs import Request, RequestInstance, RuleStudy
from store.models_nodes import Counter, Event

_log = logging.getLogger("burnish.rules")

_SETTLED = timedelta(minutes=10)
"""After so long no transaction is open any more that could still bring an instance with a lower id."""
_ADVANCE = 500
"""The mark is moved on only when that spares looking at so many instances."""


def tick(ctx: Context, submit: Callable[[int], None] | None = None) -> int:
    """Fire every rule whose studies are quiet; returns the number of jobs made. To be called about once a second."""
    fired = 0
    for rule in ctx.settings.rules:
        try:
            options = options_of(rule, ctx.settings)
        except (OptionsError, MediaError) as error:
            _log.error("rule %s: %s", rule.name, error)
            continue
        for study_id in _quiet_studies(ctx, rule):
            try:
                job_id = _fire(ctx, rule, study_id, options)
            except IntegrityError:  # another node fired the same at the same moment
                continue
            if job_id is not None:
                fired += 1
                if submit is not None:
                    submit(job_id)
    return fired


def problems(settings: Settings) -> list[str]:
    """What is wrong with the rules of the settings, a line each."""
    found = []
    for rule in settings.rules:
        try:
            options_of(rule, settings)
        except (OptionsError, MediaError) as error:
            found.append(f"rule {rule.name}: {error}")
    return found


def options_of(rule: Rule, settings: Settings) -> RequestOptions:
    """The options of a rule's requests. Raises OptionsError and MediaError."""
    from jobs.preparing import require_pair

    given = {
        "profile": rule.profile or None,
        "medium": rule.medium or None,
        "burner": rule.burner or None,
        "copies": rule.copies,
        "priority": rule.priority,
        "patients_per_disc": rule.patients_per_disc,
        "protect": rule.protect or None,
        "compress": rule.compress or None,
        "allow_lossy": rule.allow_lossy,
        "coerce": read_rules(settings.data / rule.coerce) if rule.coerce else None,
    }
    options = RequestOptions.from_settings(settings, given)
    require_pair(options)
    return options


def _source(rule: Rule) -> str:
    return f"rule:{rule.name}"


def _mark_name(rule: Rule) -> str:
    name = _source(rule)
    return name if len(name) <= 32 else f"rule:{hashlib.sha256(name.encode()).hexdigest()[:27]}"


def _waiting(rule: Rule, mark: int) -> ColumnElement[bool]:
    """SQL condition: this instance is one for the rule, and the rule has not requested it yet."""
    requested = exists().where(
        RequestInstance.instance_id == Instance.id,
        Request.id == RequestInstance.request_id,
        Request.source == _source(rule),
    )
    condition = and_(Instance.id > mark, Instance.conflict_of.is_(None), Instance.spool_path.is_not(None), ~requested)
    if rule.calling_ae:
        condition = and_(condition, Instance.calling_ae == rule.calling_ae)
    if rule.called_ae:
        condition = and_(condition, Instance.called_ae == rule.called_ae)
    return condition


def _quiet_studies(ctx: Context, rule: Rule) -> list[int]:
    """Studies with instances that wait for this rule, and to which nothing was added for the quiet period."""
    with ctx.db.read() as session:
        mark = session.scalar(select(Counter.value).where(Counter.name == _mark_name(rule)))
        if mark is not None:
            studies = session.scalars(
                select(Series.study_id)
                .join(Instance, Instance.series_id == Series.id)
                .where(_waiting(rule, mark))
                .distinct()
            ).all()
            quiet = [study_id for study_id in studies if _is_quiet(session, rule, study_id)]
            settled = session.scalar(select(func.max(Instance.id)).where(Instance.received_at < now() - _SETTLED)) or 0
    if mark is None:
        _set_mark(ctx, rule, None)
        return []
    if not studies and settled - mark > _ADVANCE:
        _set_mark(ctx, rule, settled)
    return quiet


def _is_quiet(session: Session, rule: Rule, study_id: int) -> bool:
    last = session.scalar(
        select(func.max(Instance.received_at))
        .join(Series, Instance.series_id == Series.id)
        .where(Series.study_id == study_id)
    )
    return last is not None and last <= now() - timedelta(seconds=rule.quiet_seconds)


def _set_mark(ctx: Context, rule: Rule, mark: int | None) -> None:
    """Instances up to the mark are of no concern to the rule; None: a new rule begins with what comes from now on."""
    try:
        with ctx.db.begin() as session:
            if mark is None:
                mark = session.scalar(select(func.max(Instance.id))) or 0
            session.merge(Counter(name=_mark_name(rule), value=mark))
    except IntegrityError:  # another node began with the rule at the same moment
        _log.debug("rule %s has its mark already", rule.name)


def _fire(ctx: Context, rule: Rule, study_id: int, options: RequestOptions) -> int | None:
    """Make request and job for what waits; None when another node has just done so."""
    with ctx.db.begin() as session:
        # Firings of one rule come one after the other, on all nodes.
        mark = (
            session.execute(select(Counter).where(Counter.name == _mark_name(rule)).with_for_update())
            .scalar_one()
            .value
        )
        ids = list(
            session.scalars(
                select(Instance.id)
                .join(Series, Instance.series_id == Series.id)
                .where(_waiting(rule, mark), Series.study_id == study_id)
                .order_by(Instance.id)
            )
        )
        if not ids or not _is_quiet(session, rule, study_id):
            return None
        study_uid = session.get_one(Study, study_id).study_instance_uid
        before = session.get(RuleStudy, (rule.name, study_id))
        selection = {"study": [study_uid]}
        request_id = requested.add_request(
            session,
            ids,
            selection=selection | ({"after_instance": before.last_instance_id} if before is not None else {}),
            options=options.to_json(),
            source=_source(rule),
            idempotency_key=f"{_source(rule)}:{study_id}:{ids[-1]}",
        )
        job_id = jobs.create_job(session, request_id, None, options)
        session.merge(RuleStudy(rule=rule.name, study_id=study_id, last_instance_id=ids[-1], request_id=request_id))
        detail = {"rule": rule.name, "study_instance_uid": study_uid, "instances": len(ids)}
        session.add(Event(at=now(), kind="rule", job_id=job_id, new="fired", detail=detail))
    _log.info("rule %s: job J%d for %d instances", rule.name, job_id, len(ids))
    return job_id
