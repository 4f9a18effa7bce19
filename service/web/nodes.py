"""Nodes of others: when they were last heard of, whether they answer, and studies that are fetched from them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form
from starlette.requests import Request
from starlette.responses import Response

from service.api.access import Actor, Ctx, Ops, needs
from service.contract import Document
from service.web.board import told
from service.web.make import Planning, Plannings, trouble_of
from service.web.pages import language_of, page
from service.web.routes import router
from service.web.texts import texts_of
from store import remotes

routes = router()
_MAY_USE = needs("nodes.use")
Name = Annotated[str, Form(max_length=32)]
Text = Annotated[str, Form(max_length=255)]


@routes.get("/nodes", dependencies=[needs("nodes.read")])
def nodes(request: Request, ctx: Ctx) -> Response:
    with ctx.db.read() as session:
        found = remotes.with_contact(session)
    return page(request, "nodes.html", nodes=found, own=ctx.settings.dicom)


@routes.post("/nodes", dependencies=[needs("nodes.manage")])
def add(
    request: Request,
    ops: Ops,
    name: Name,
    ae_title: Name,
    host: Text,
    port: Annotated[int, Form(ge=1, le=65535)],
    retrieve: Name = "move",
    tls: Annotated[bool, Form()] = False,
) -> Response:
    ops.add_node({"name": name, "ae_title": ae_title, "host": host, "port": port, "retrieve": retrieve, "tls": tls})
    return told(request, "nodes.told_added", name=name, reload=True)


@routes.post("/nodes/{name}/remove", dependencies=[needs("nodes.manage")])
def remove(request: Request, ops: Ops, name: str) -> Response:
    ops.remove_node(name)
    return told(request, "nodes.told_removed", name=name, reload=True)


@routes.post("/nodes/{name}/echo", dependencies=[_MAY_USE])
def echo(request: Request, ops: Ops, name: str) -> Response:
    document = ops.echo_node(name)
    return told(request, "nodes.told_echo", name=name, seconds=str(document["seconds"]))


@routes.get("/nodes/{name}/row", dependencies=[needs("nodes.read")])
def row(request: Request, ctx: Ctx, name: str) -> Response:
    with ctx.db.read() as session:
        found = next((one for one in remotes.with_contact(session) if one["name"] == name), None)
    return page(request, "parts/contact.html", node=found)


@routes.get("/nodes/{name}", dependencies=[_MAY_USE])
def node(request: Request, ctx: Ctx, name: str) -> Response:
    with ctx.db.read() as session:
        remotes.by_name(session, name)
        found = next(one for one in remotes.with_contact(session) if one["name"] == name)
    return page(request, "node.html", node=found)


@routes.post("/nodes/{name}/query", dependencies=[_MAY_USE])
def query(
    request: Request,
    ops: Ops,
    name: str,
    patient_name: Text = "",
    patient_id: Text = "",
    accession: Text = "",
    date_from: Text = "",
    date_to: Text = "",
    modality: Text = "",
) -> Response:
    first, last = date_from.replace("-", ""), date_to.replace("-", "")
    criteria = {
        "patient_name": patient_name,
        "patient_id": patient_id,
        "accession": accession,
        "date_range": f"{first}-{last}" if first or last else "",
        "modality": modality.upper(),
    }
    found = ops.exchange.query(name, criteria)
    return page(request, "parts/remote_studies.html", studies=found, name=name)


@routes.post("/nodes/{name}/pull")
def pull(
    request: Request,
    ops: Ops,
    _actor: Annotated[Actor, _MAY_USE],
    name: str,
    study: Annotated[list[str], Form(max_length=200)] = [],  # noqa: B006
) -> Response:
    """Fetch the chosen studies; the answer asks for itself again until they are here."""

    def work(planning: Planning) -> Document:
        def note(progress: Document) -> None:
            planning.progress = progress

        return ops.pull(name, {"study": study}, note, lambda: planning.given_up)

    plannings: Plannings = request.app.state.plannings
    return _pulled(request, plannings.begin(work, ""), name)


@routes.get("/nodes/{name}/pull/{token}", dependencies=[_MAY_USE])
def pulled(request: Request, name: str, token: str) -> Response:
    plannings: Plannings = request.app.state.plannings
    return _pulled(request, plannings.get(token), name)


def _pulled(request: Request, planning: Planning, name: str) -> Response:
    texts = texts_of(language_of(request))
    values: dict[str, Any] = {"planning": planning, "name": name}
    return page(request, "parts/pulled.html", **values, **trouble_of(texts, planning))
