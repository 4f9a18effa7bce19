"""What a plan changes, grouped for people."""

from __future__ import annotations

from jobs.changes import change_groups, compression_groups

EXPLICIT_LE = "1.2.840.10008.1.2.1"


def change(uid: int, tag: str, old: str, new: str) -> dict[str, str]:
    return {"sop_instance_uid": str(uid), "tag": tag, "old": old, "new": new}


def test_what_is_alike_is_one_group() -> None:
    changes = [change(n, "(0008,1010)", "A", "B: rule r") for n in range(500)]
    changes += [change(n, "(0008,0018)", f"1.{n}", f"2.{n}") for n in range(600)]
    changes += [change(n, "(0008,0060)", "CT" if n % 2 else "MR", "OT") for n in range(10)]
    changes += [change(n, "(0008,0080)", f"old {n}", "new") for n in range(5)]
    follow = "2.5: the reference follows the new SOP Instance UID"
    changes += [change(n, "(0008,1155)", f"1.{m}", follow) for n in range(3) for m in range(4)]
    changes += [change(1, "(0099,1001)", "", "x")]
    groups = change_groups(changes)
    assert [(one["tag"], one["old"], one["new"], one["instances"], one["changes"]) for one in groups] == [
        ("(0008,1010)", "A", "B: rule r", 500, 500),
        ("(0008,0018)", "", "", 600, 600),
        ("(0008,0060)", "MR", "OT", 5, 5),
        ("(0008,0060)", "CT", "OT", 5, 5),
        ("(0008,0080)", "", "new", 5, 5),
        ("(0008,1155)", "", "the reference follows the new SOP Instance UID", 3, 12),
        ("(0099,1001)", "", "x", 1, 1),
    ]
    assert [one["name"] for one in groups[:2]] == ["Station Name", "SOP Instance UID"]
    assert change_groups([]) == []


def test_compression_by_what_is_done_and_why() -> None:
    found = compression_groups(
        [("j2k-lossy-r8/1", "1.2.840.10008.1.2.4.91", "")] * 3
        + [("", EXPLICIT_LE, "")] * 2
        + [("", EXPLICIT_LE, "once is enough"), ("explicit-le/1", EXPLICIT_LE, "")]
    )
    assert found == [
        {"what": "lossy, JPEG 2000 (1.2.840.10008.1.2.4.91)", "note": "", "instances": 3},
        {"what": f"Explicit VR Little Endian ({EXPLICIT_LE})", "note": "", "instances": 1},
        {
            "what": f"as received, Explicit VR Little Endian ({EXPLICIT_LE})",
            "note": "once is enough",
            "instances": 1,
        },
    ]
