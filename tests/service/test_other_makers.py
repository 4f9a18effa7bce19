"""File-set Reader: media of other makers are imported whole, checked by a profile, and judged by its words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from media.verify import verify_path
from service.operations import StoreOperations
from tests.service.test_importing import imported

pytestmark = pytest.mark.shared_data


@pytest.mark.parametrize(("name", "instances"), [("pydicom_tiny_alpha", 50), ("pydicom_dicomdirtests", 31)])
def test_media_of_other_makers_are_imported(
    shared_data: Path, opened: Callable[[], StoreOperations], name: str, instances: int
) -> None:
    operations = opened()
    done = imported(operations, shared_data / "filesets" / name)
    assert (done["imported"], done["duplicates"], done["conflicts"]) == (instances, 0, 0)
    assert all("DICOMDIR" in one["reason"] or "text file" in one["reason"] for one in done["refused"])
    checked = operations.check({"all": True}, {"profile": "auto", "medium": "CD-R-80"})
    assert checked["instances"] == instances
    assert checked["iod"]["checked"] == checked["fit"] + checked["conform"]
    assert len(checked["iod"]["lines"]) <= 11


def test_a_profile_that_they_do_not_claim_is_said_to_be_broken(shared_data: Path) -> None:
    report = verify_path(shared_data / "filesets" / "pydicom_tiny_alpha", profile="STD-CTMR-CD")
    kinds = {problem.kind for problem in report.problems}
    assert kinds == {"KEY", "PROFILE"}
    assert all("PS3.11" in problem.detail for problem in report.problems)
    general = verify_path(shared_data / "filesets" / "pydicom_tiny_alpha", profile="STD-GEN-CD")
    assert general.problems == ()
