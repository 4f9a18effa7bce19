"""What the API's own description allows, asked of it at random: no answer is a 5xx or one that is not described."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.api.application import build
from service.operations import StoreOperations
from service.shutdown import Stopping
from tests.service.test_importing import imported
from tests.soak import size, told

CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)
EXAMPLES = int(os.environ.get("BURNISH_EXAMPLES", size(4, 300)))
SECONDS = float(os.environ.get("BURNISH_SECONDS", size(14, 1200)))
SEED = int(os.environ.get("BURNISH_SEED", "20261121"))
HEADERS = {"Authorization": "Bearer sesame", "Host": "localhost"}


@schemathesis.serializer("application/dicom", "multipart/related")
def serialize(_context: Any, value: Any) -> bytes:
    """Bodies that no description can make: most are no DICOM."""
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture
def asked(opened: Callable[[], StoreOperations], made: Path) -> Iterator[tuple[Any, dict[str, list[Any]]]]:
    """The description, and IDs of what there is, by the names of parameters."""
    operations = opened()
    imported(operations, made)
    plan = operations.plan({"all": True}, {}, lambda _: None)["plan"]
    operations.burn(selection=None, plan=plan, options={})
    operations.burn(selection={"all": True}, plan=None, options={})
    study = operations.studies()[0]["study_instance_uid"]
    with operations.context.db.read() as session:
        from sqlalchemy import select

        from store.models import Instance, Series, Study

        uids = session.execute(
            select(Series.series_instance_uid, Instance.sop_instance_uid)
            .join(Instance, Instance.series_id == Series.id)
            .join(Study, Study.id == Series.study_id)
            .where(Study.study_instance_uid == study)
        ).first()
    assert uids is not None
    known = {
        "study": [study],
        "series": [uids[0]],
        "instance": [uids[1]],
        "job_id": ["J1", "J2"],
        "plan_id": [plan],
        "of": [plan, "J1"],
        "numbers": ["1"],
        "number": [1],
        "where": ["7FE00010"],
    }
    app = build(operations, token="sesame", hosts=(), stopping=Stopping())
    yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=HEADERS), known


@pytest.mark.timeout(size(300, 7200))
@pytest.mark.soak
def test_no_surprises(asked: tuple[Any, dict[str, list[Any]]]) -> None:
    schema, known = asked
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 60
    failures: list[str] = []
    answers: Counter[int] = Counter()
    begun = time.monotonic()
    for at, operation in enumerate(operations):
        left = (SECONDS - (time.monotonic() - begun)) / (len(operations) - at)
        failures += surprises(operation, known, answers, seconds=max(0.05, 2 * left))
    assert not failures, "\n\n".join(failures)
    took = time.monotonic() - begun
    told(
        "the API asked at random",
        f"{len(operations)} operations, {answers.total()} requests, {took:.0f} s, answers "
        + ", ".join(f"{status}: {count}" for status, count in sorted(answers.items())),
        seed=SEED,
    )


def _has_input(operation: Any) -> bool:
    return bool(operation.body or operation.query or operation.path_parameters)


def surprises(operation: Any, known: dict[str, list[Any]], answers: Counter[int], *, seconds: float) -> list[str]:
    """What is wrong with an operation, told once."""
    found: list[str] = []
    end = time.monotonic() + seconds
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) if _has_input(operation) else right
    strategy = right | wrong
    count = 0

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def ask(case: Any) -> None:
        nonlocal count
        count += 1
        if found or (count > 1 and time.monotonic() > end):
            return
        if count % 2:  # every other time of something that there is
            for name in case.path_parameters or {}:
                if name in known:
                    case.path_parameters[name] = known[name][count // 2 % len(known[name])]
        try:
            response = case.call(headers=HEADERS)
        except Exception as error:
            found.append(f"{operation.method.upper()} {operation.path}: {type(error).__name__}: {str(error)[:1000]}")
            return
        answers[response.status_code] += 1
        if response.status_code >= 500 and response.status_code != 503:  # 503 is described: try again later
            found.append(f"{operation.method.upper()} {operation.path}: {response.status_code} {response.text[:500]}")
        try:
            case.validate_response(response, checks=CHECKS)
        except BaseException as error:
            text = re.sub(r"\s+", " ", str(error))[:1500]
            found.append(f"{operation.method.upper()} {operation.path}: {response.status_code} {text}")

    ask()
    assert count, operation.path
    return found
