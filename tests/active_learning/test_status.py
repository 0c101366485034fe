"""How the loop stands, in lines for a person."""

from __future__ import annotations

from active_learning.status import in_words


def test_the_status_is_told_in_the_words_of_the_page_review() -> None:
    told = in_words(
        {
            "queue": {
                "pending": 3,
                "sending": 1,
                "sent": 0,
                "verified": 12,
                "parked": 2,
                "unknown": 1,
            },
            "oldest_s": {"pending": 60},
            "annotations": {"applied": 7},
            "dataset": {"id": "0123456789abcdef", "counts": {"train": {"scratches": 7}}},
            "versions": ["mill-a@89abcdef0123", "neu-det@0123456789ab"],
            "last_run": None,
            "due": {"now": False, "why": "7 of 50 newly reviewed images."},
        }
    )
    assert told == [
        "queue     5 waiting to be sent, 12 sent to Label Studio, 2 set aside",
        "reviewed  7",
        "data set  mill-a@89abcdef0123, neu-det@0123456789ab",
        "last run  none",
        "not due: 7 of 50 newly reviewed images.",
    ]


def test_before_the_first_version_the_data_set_is_the_prepared_one_whatever_was_reviewed() -> None:
    states = dict.fromkeys(["pending", "sending", "sent", "verified", "parked", "unknown"], 0)
    told = in_words(
        {
            "queue": states,
            "annotations": {"applied": 41},
            "dataset": {"id": None, "counts": {}},
            "versions": [],
            "last_run": "grace-1",
            "due": {"now": True, "why": "grace: 60 of 50 newly reviewed images."},
        }
    )
    assert told[1:] == [
        "reviewed  41",
        "data set  as prepared, no answer in it yet",
        "last run  grace-1",
        "due: grace: 60 of 50 newly reviewed images.",
    ]
