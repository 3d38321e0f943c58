"""RFC 9110 ranges and conditions as functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.http.ranges import Selection, select

TAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "outcome", "start", "end"),
    [
        ("bytes=0-0", "part", 0, 1),
        ("bytes=0-", "part", 0, 100),
        ("bytes=10-19", "part", 10, 20),
        ("bytes=90-500", "part", 90, 100),
        ("Bytes = 10 - 19", "part", 10, 20),
        ("bytes=-30", "part", 70, 100),
        ("bytes=-500", "part", 0, 100),
        ("bytes=-0", "unsatisfiable", 0, 0),
        ("bytes=100-", "unsatisfiable", 0, 0),
        ("bytes=5-4", "whole", 0, 100),
        ("bytes=500-400", "whole", 0, 100),
        ("bytes=-", "whole", 0, 100),
        ("bytes=0-1,5-6", "whole", 0, 100),
        ("bytes=a-b", "whole", 0, 100),
        ("bytes=٣-٤", "whole", 0, 100),
        ("lines=0-1", "whole", 0, 100),
        ("", "whole", 0, 100),
        ("bytes=" + "9" * 40 + "-", "whole", 0, 100),
    ],
)
def test_range(header: str, outcome: str, start: int, end: int) -> None:
    chosen = select({"Range": header}, size=100, etag=TAG)
    assert chosen.outcome == outcome
    if outcome != "unsatisfiable":
        assert (chosen.start, chosen.end) == (start, end)


def test_an_empty_file_has_no_ranges() -> None:
    assert select({"Range": "bytes=0-"}, size=0, etag=TAG).outcome == "unsatisfiable"
    assert select({"Range": "bytes=-5"}, size=0, etag=TAG).outcome == "unsatisfiable"
    assert select({}, size=0, etag=TAG) == Selection("whole", 0, 0)


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({"If-Match": TAG}, "part"),
        ({"If-Match": '"x", "abc"'}, "part"),
        ({"If-Match": "*"}, "part"),
        ({"If-Match": '"x"'}, "precondition-failed"),
        ({"If-Match": 'W/"abc"'}, "precondition-failed"),
        ({"If-None-Match": TAG}, "not-modified"),
        ({"If-None-Match": 'W/"abc"'}, "not-modified"),
        ({"If-None-Match": "*"}, "not-modified"),
        ({"If-None-Match": '"x"'}, "part"),
        ({"If-Range": TAG}, "part"),
        ({"If-Range": '"x"'}, "whole"),
        ({"If-Range": 'W/"abc"'}, "whole"),
        ({"If-Range": "Sun, 22 Nov 2026 10:00:00 GMT"}, "whole"),
        ({"If-Match": '"x"', "If-None-Match": TAG}, "precondition-failed"),
    ],
)
def test_conditions_come_before_the_range(headers: dict[str, str], outcome: str) -> None:
    assert select({**headers, "Range": "bytes=1-2"}, size=100, etag=TAG).outcome == outcome


@given(st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,20}-[0-9]{0,20}"), st.integers(0, 1 << 50))
def test_whatever_is_asked_stays_inside_the_file(header: str, size: int) -> None:
    chosen = select({"Range": header}, size=size, etag=TAG)
    assert 0 <= chosen.start <= chosen.end <= size
    assert chosen.outcome != "part" or chosen.start < chosen.end
