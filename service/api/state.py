"""Routes: how the service is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.api.access import Ops

router = APIRouter()
health = APIRouter()


@router.get("/doctor", summary="Settings in force, state of everything, what is wrong and how to mend it")
def doctor(ops: Ops) -> dict[str, Any]:
    return ops.doctor()


@router.get("/burners", summary="The burners of the settings, and how each stands now")
def burners(ops: Ops) -> list[dict[str, Any]]:
    return ops.burners()


@health.get("/healthz", summary="Whether the service answers; needs no token")
def healthz() -> dict[str, str]:
    return {"status": "ok"}
