"""What people are told of a schedule."""

from service.commands.schedule_text import outcome


def test_an_empty_list_is_told_as_none() -> None:
    assert outcome({"read": 0, "flagged": [], "insert": ["D1", "D2"]}) == "read 0, flagged none, insert D1, D2"


def test_of_discs_only_what_matters_is_told() -> None:
    flagged = {"disc": "D1", "checked_result": "DAMAGED", "lost": 1, "refresh": {"job": "J9", "words": "made from D2"}}
    told = outcome({"flagged": [flagged], "insert": [{"disc": f"D{number}", "words": "x"} for number in range(2, 30)]})
    assert told.startswith("flagged D1 (DAMAGED: made from D2), insert D2, D3, ") and told.endswith("D21 and 8 more")
