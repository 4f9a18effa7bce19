"""Routes: how the service is."""

from __future__ import annotations

from typing import Any

from service.api import answers
from service.api.access import Ops, for_everybody, needs
from service.api.documents import BurnerList, DoctorDoc, Health

router = answers.router()
health = answers.router()


@router.get(
    "/doctor",
    summary="Settings in force, state of everything, what is wrong and how to mend it",
    dependencies=[needs("settings.read")],
    **answers.returns(DoctorDoc),
)
def doctor(ops: Ops) -> dict[str, Any]:
    return ops.doctor()


@router.get(
    "/burners",
    summary="The burners of the settings, and how each stands now",
    dependencies=[needs("status.read")],
    **answers.returns(BurnerList),
)
def burners(ops: Ops) -> dict[str, Any]:
    return answers.listing(ops.burners())


@health.get(
    "/healthz",
    summary="Whether the service answers; needs no token",
    dependencies=[for_everybody],
    **answers.returns(Health),
)
def healthz() -> dict[str, str]:
    return {"status": "ok"}
