"""Running text of commands: a patient of whom nothing is known is still called something."""

from __future__ import annotations

from service.commands.common import patient_words, study_words
from service.commands.receive import in_spool_words


def test_a_patient_without_name_and_number() -> None:
    study = {"study_instance_uid": "1.2", "patient_id": "", "patient_name": "", "study_date": ""}
    assert study_words(study) == "study 1.2 of (no Patient ID) (no name), no date"
    assert patient_words("P\x1b1", "Doe^Jane") == "P\N{REPLACEMENT CHARACTER}1 Doe^Jane"


def test_how_much_of_a_study_is_in_the_spool() -> None:
    told = [in_spool_words({"instances": 5, "in_spool": here}) for here in (5, 3, 0)]
    assert told == ["all", "3", "none"]
    assert in_spool_words({"instances": 5, "in_spool": 0, "back": 5}) == "none, 5 back"
