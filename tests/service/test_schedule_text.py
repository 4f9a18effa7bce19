"""What people are told of a schedule."""

from service.commands.schedule_text import outcome


def test_an_empty_list_is_told_as_none() -> None:
    assert outcome({"read": 0, "flagged": [], "insert": ["D1", "D2"]}) == "read 0, flagged none, insert D1, D2"
