"""Routes: labels of discs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path, Query
from fastapi.responses import Response

from service.api import answers
from service.api.access import Ops, needs
from service.api.documents import LabelDoc

router = answers.router()
_MEDIA_TYPES = {"png": "image/png", "pdf": "application/pdf", "svg": "image/svg+xml"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
Of = Annotated[str, Path(pattern=r"^[PJDpjd]?[0-9]{1,18}$", description="ID of a plan, job or disc: P12, J12, D12")]
Volume = Annotated[int | None, Query(ge=1, lt=10_000)]
Printer = Annotated[str, Query(max_length=64)]


@router.get(
    "/labels/{of}",
    summary="What stands on the label of a plan's, job's or disc's volume",
    dependencies=[needs("labels.read")],
    **answers.returns(LabelDoc, 200, 404, 409),
)
def label(ops: Ops, of: Of, volume: Volume = None, printer: Printer = "") -> dict[str, Any]:
    return ops.label(of, volume=volume, printer=printer)


@router.get(
    "/labels/{of}/{kind}",
    summary="The label as a picture",
    response_class=Response,
    responses={
        200: {"description": "OK", "content": dict.fromkeys(_MEDIA_TYPES.values(), _BINARY)},
        **answers.problems(404, 409),
    },
    dependencies=[needs("labels.read")],
)
def picture(
    ops: Ops,
    of: Of,
    kind: Literal["png", "pdf", "svg"],
    volume: Volume = None,
    printer: Printer = "",
    dpi: Annotated[int | None, Query(ge=72, le=1200)] = None,
    guides: bool = False,
) -> Response:
    content = ops.label_picture(of, kind, volume=volume, printer=printer, dpi=dpi, guides=guides)
    # A picture of another origin's page must not become a document of ours.
    headers = {"Content-Disposition": f'attachment; filename="label.{kind}"', "Cache-Control": "no-store"}
    return Response(content, media_type=_MEDIA_TYPES[kind], headers=headers)
