"""How routes come to the operations of the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from service.operations import StoreOperations


def _operations(request: Request) -> StoreOperations:
    operations: StoreOperations = request.app.state.operations
    return operations


Ops = Annotated[StoreOperations, Depends(_operations)]
