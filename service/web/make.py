"""Making discs: what is chosen, how, the plan that comes of it as it is changed, and the order to burn exactly that."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Form, Query
from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import Response

from config.worded import words_of
from jobs.context import Context
from media import mediatypes, profiles
from service.api.access import Actor, Ctx, Ops, needs
from service.contract import Document, number
from service.errors import NotFound, as_refusal
from service.logs import logger
from service.web.pages import language_of, page
from service.web.routes import router, where
from service.web.texts import Texts, texts_of
from store import seriesview, studylist
from store.models import Study

routes = router()
_MAY_PLAN = needs("plans.make")
_SECTOR = 2048
_KEPT_SECONDS = 1800
_MOST = 64
_STUDIES = 500
AUTO = "auto"
StudyIds = Annotated[list[int], Query(max_length=_STUDIES)]
Word = Annotated[str, Form(max_length=64)]


# -- planning in the background ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Planning:
    """A plan that is being made for somebody who looks on."""

    token: str
    progress: Document = field(default_factory=dict)
    plan: Document | None = None
    trouble: tuple[str, str] | None = None
    """Code and text, perhaps ``Worded``."""
    given_up: bool = False
    at: float = field(default_factory=time.monotonic)

    @property
    def fraction(self) -> float:
        total = self.progress.get("total") or 0
        return min(1.0, self.progress.get("done", 0) / total) if total else 0.0


def trouble_of(texts: Texts, planning: Planning) -> dict[str, Any]:
    """What a page says of a planning that went wrong: ``trouble`` and ``advice``, empty where nothing did."""
    trouble = planning.trouble  # once: it goes on while the page is made
    if trouble is None:
        return {"trouble": "", "advice": ""}
    code, text = trouble
    return {
        "trouble": texts.worded(text) or texts("trouble.unexpected"),
        "advice": texts.known(f"advice.{code}", texts("advice.other")),
    }


class Plannings:
    """Those of all pages that are open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Planning] = {}

    def begin(self, work: Callable[[Planning], Document], instead_of: str) -> Planning:
        """Start one; the one before it, of the same page, is given up."""
        made = Planning(secrets.token_urlsafe(12))
        with self._lock:
            if (before := self._known.pop(instead_of, None)) is not None:
                before.given_up = True
            old = [one for one in self._known.values() if time.monotonic() - one.at > _KEPT_SECONDS]
            if len(self._known) >= _MOST:
                old.append(min(self._known.values(), key=lambda one: one.at))
            for one in old:
                one.given_up = True
                self._known.pop(one.token, None)
            self._known[made.token] = made

        def run() -> None:
            try:
                made.plan = work(made)
            except Exception as error:  # noqa: BLE001 - it is told to the person who waits for the plan
                refusal = as_refusal(error)
                if refusal is None:
                    logger("service.web").error("planning failed", error=type(error).__name__, where=where(error))
                made.trouble = (refusal.code, words_of(refusal)) if refusal is not None else ("UNEXPECTED", "")

        begun = copy_context()  # the work goes on in a thread of its own, for the same user
        threading.Thread(target=begun.run, args=(run,), name="planning", daemon=True).start()
        return made

    def get(self, token: str) -> Planning:
        with self._lock:
            found = self._known.get(token)
        if found is None:
            raise NotFound("this plan is not being made any more", "PLAN_GONE")
        return found


# -- pages -------------------------------------------------------------------------------------------------------------


@routes.get("/make")
def make(
    request: Request,
    ctx: Ctx,
    _actor: Annotated[Actor, _MAY_PLAN],
    study: StudyIds = [],  # noqa: B006
) -> Response:
    with ctx.db.read() as session:
        chosen = studylist.some(session, study)
    settings = ctx.settings
    wanted = settings.plan.profile
    values: dict[str, Any] = {
        "studies": chosen,
        "bytes": sum(one.bytes for one in chosen),
        "profiles": [one for one in profiles.profiles().values() if one.status == "ready"],
        "profile": wanted,
        "media": _media(wanted),
        "medium": settings.plan.medium or (profiles.profile(wanted).default_medium if wanted != AUTO else ""),
        "settings": settings,
        "burner_names": list(settings.burners),
    }
    return page(request, "make.html", **values)


def _media(profile: str) -> list[mediatypes.MediaType]:
    """The media that a profile may have; all there are where it is still to be chosen."""
    if profile == AUTO:
        return list(mediatypes.media_types().values())
    return [mediatypes.media_type(name) for name in profiles.profile(profile).media]


@routes.get("/make/media")
def media(request: Request, _actor: Annotated[Actor, _MAY_PLAN], profile: str) -> Response:
    """The choice of media for another profile."""
    default = "" if profile == AUTO else profiles.profile(profile).default_medium
    return page(request, "parts/media.html", media=_media(profile), medium=default, profile=profile)


@routes.post("/make/plan")
def plan(
    request: Request,
    ctx: Ctx,
    ops: Ops,
    _actor: Annotated[Actor, _MAY_PLAN],
    study: Annotated[list[int], Form(max_length=_STUDIES)] = [],  # noqa: B006
    profile: Word = "",
    medium: Word = "",
    patients_per_disc: Word = "",
    protect: Word = "",
    compress: Word = "",
    conflicts: Word = "",
    purpose: Word = "",
    label_text: Annotated[str, Form(max_length=1000)] = "",
    token: Word = "",
) -> Response:
    """Begin to plan; the answer asks for itself again until the plan is there."""
    options = {
        "profile": profile,
        "medium": medium,
        "patients_per_disc": patients_per_disc,
        "protect": protect,
        "compress": compress,
        "conflicts": conflicts,
        "purpose": purpose,
        "label_text": label_text.strip(),
    }
    given = {key: value for key, value in options.items() if value}
    selection = selection_of(ctx, study)

    def work(planning: Planning) -> Document:
        return ops.plan(selection, given, lambda told: _note(planning, told), lambda: planning.given_up)

    plannings: Plannings = request.app.state.plannings
    return _told(request, ctx, plannings.begin(work, token))


def _note(planning: Planning, progress: Document) -> None:
    planning.progress = progress


def selection_of(ctx: Context, studies: list[int]) -> dict[str, Any]:
    """The studies as a selection: by their UIDs, and by their instances where two patients share such a UID."""
    with ctx.db.read() as session:
        uids = {row.id: row.study_instance_uid for row in studylist.some(session, studies)}
        if not uids:
            raise NotFound("none of these studies is there any more")
        shared = session.scalars(
            select(Study.study_instance_uid)
            .where(Study.study_instance_uid.in_(set(uids.values())))
            .group_by(Study.study_instance_uid)
            .having(func.count() > 1)
        ).all()
        if not shared:
            return {"study": sorted(set(uids.values()))}
        return {"instance": [key for study in uids for key in seriesview.instance_ids(session, study)]}


@routes.get("/make/plan/{token}")
def planned(request: Request, ctx: Ctx, _actor: Annotated[Actor, _MAY_PLAN], token: str) -> Response:
    plannings: Plannings = request.app.state.plannings
    return _told(request, ctx, plannings.get(token))


def _told(request: Request, ctx: Context, planning: Planning) -> Response:
    texts = texts_of(language_of(request))
    values: dict[str, Any] = {"planning": planning, "plan": planning.plan, "sector": _SECTOR}
    values |= {"burner_names": list(ctx.settings.burners), "settings": ctx.settings}
    return page(request, "parts/plan.html", **values, **trouble_of(texts, planning))


@routes.post("/make/burn")
def burn(
    request: Request,
    ops: Ops,
    _actor: Annotated[Actor, needs("jobs.make")],
    plan: Word,
    burner: Word,
    priority: Word = "med",
    copies: Annotated[int, Form(ge=1, le=99)] = 1,
    skip_refused: Annotated[bool, Form()] = False,
) -> Response:
    """Burn exactly the plan that was shown."""
    options = {"burner": burner, "copies": copies, "priority": priority, "skip_refused": skip_refused}
    document = ops.burn(selection=None, plan=plan, options=options)
    return Response(status_code=204, headers={"HX-Redirect": f"/jobs/{document['job']}"})


@routes.get("/labels/{of}/label.png", dependencies=[needs("labels.read")])
def label(ops: Ops, of: str, volume: Annotated[int | None, Query(ge=1, le=9999)] = None) -> Response:
    """The label of a plan's, job's or disc's volume, to be looked at in the page."""
    letter = of[:1].upper()
    number(letter if letter in "PJD" else "P", of)
    content = ops.label_picture(of, "png", volume=volume, printer="", dpi=None, guides=False)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type="image/png", headers=headers)
