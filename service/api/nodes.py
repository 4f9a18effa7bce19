"""Routes: nodes of others, what is fetched from them and sent to them."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Annotated, Any

from fastapi import Path, Request
from fastapi.responses import Response

from service.api import answers
from service.api.access import Ctx, Ops, needs
from service.api.conditional import IfMatch, Versioned, require_match, version_of
from service.api.documents import Echoed, NodeDoc, NodeList, Pulled, Sent
from service.api.models import NodeBody, PullBody, SendBody
from service.api.streaming import answer, told
from store import remotes
from store.remotes import Remote

router = answers.router()
Name = Annotated[str, Path(max_length=64)]


@router.get("/nodes", summary="The remote nodes", dependencies=[needs("nodes.read")], **answers.returns(NodeList))
def nodes(ops: Ops) -> dict[str, Any]:
    return answers.listing(ops.nodes())


@router.post(
    "/nodes",
    summary="Enter a remote node",
    dependencies=[needs("nodes.manage")],
    **answers.returns(NodeDoc, 201, 409),
)
def add(ops: Ops, body: NodeBody) -> dict[str, Any]:
    return ops.add_node(body.model_dump())


@router.get(
    "/nodes/{name}",
    summary="A remote node",
    dependencies=[needs("nodes.read")],
    **answers.returns(NodeDoc, 200, 404),
)
def node(ctx: Ctx, name: Name) -> Versioned:
    with ctx.db.read() as session:
        remote = remotes.by_name(session, name)
    return Versioned(asdict(remote), _version(remote))


@router.delete(
    "/nodes/{name}",
    summary="Forget a remote node",
    dependencies=[needs("nodes.manage")],
    **answers.returns(NodeDoc, 200, 404, 409),
)
def remove(ops: Ops, name: Name, if_match: IfMatch = None) -> dict[str, Any]:
    def require(remote: Remote) -> None:
        require_match(if_match, _version(remote), lambda: asdict(remote))

    return ops.remove_node(name, require)


def _version(remote: Remote) -> str:
    return version_of(remote, [one.name for one in fields(Remote)])


@router.post(
    "/nodes/{name}/echo",
    summary="Ask a remote node for a sign of life (C-ECHO)",
    dependencies=[needs("nodes.use")],
    **answers.returns(Echoed, 200, 404, 409),
)
def echo(ops: Ops, name: Name) -> dict[str, Any]:
    return ops.echo_node(name)


@router.post(
    "/nodes/{name}/pull",
    summary="Fetch studies from a remote node",
    **told(Pulled, 200, 404, 409),
    dependencies=[needs("nodes.use")],
)
def pull(ops: Ops, name: Name, body: PullBody, request: Request) -> dict[str, Any] | Response:
    """What came, by study; with ``Accept: application/x-ndjson`` progress line by line, at last ``{"pull": ...}``."""
    criteria = body.model_dump(exclude={"by"})
    return answer(
        request, "pull", lambda progress, cancelled: ops.pull(name, criteria, progress, cancelled, by=body.by)
    )


@router.post(
    "/nodes/{name}/send",
    summary="Send instances to a remote node",
    **told(Sent, 200, 404, 409),
    dependencies=[needs("nodes.use")],
)
def send(ops: Ops, name: Name, body: SendBody, request: Request) -> dict[str, Any] | Response:
    """What was not taken, by instance; progress as for pull, at last ``{"send": ...}``."""
    selection = body.selection.given()
    return answer(
        request,
        "send",
        lambda progress, cancelled: ops.send(name, selection, progress, cancelled, commit=body.commit),
    )
