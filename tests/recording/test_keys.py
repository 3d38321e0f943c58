"""One gate for all names."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.errors import UnsafePath
from recording.keys import from_rfc3339, package_key, recording_id, rfc3339, safe_key
from recording.store_contract import UNSAFE_KEYS

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.parametrize("key", UNSAFE_KEYS)
def test_unsafe(key: str) -> None:
    with pytest.raises(UnsafePath):
        safe_key(key)


@given(st.text(max_size=300))
def test_what_passes_stays_inside(text: str) -> None:
    try:
        key = safe_key(text)
    except UnsafePath:
        return
    assert not key.startswith("/")
    assert all(part not in {"", ".", ".."} and not part.startswith(".") for part in key.split("/"))
    assert "\0" not in key
    assert key.isascii()


def test_package_key() -> None:
    late = datetime.fromisoformat("2026-11-03T00:30:00+02:00")
    assert package_key("salon-1", late, ULID) == f"salon-1/2026/11/02/{ULID}/"
    for room in ("", "Salon", "../x", "a/b", "x" * 64):
        with pytest.raises(UnsafePath):
            package_key(room, datetime.now(UTC), ULID)


def test_ids() -> None:
    assert recording_id(ULID.lower()) == ULID
    for text in ("", "x", ULID + "0", "../../../../../etc/passwd1", "é" * 26, "U" * 26):
        with pytest.raises(UnsafePath):
            recording_id(text)


@given(st.integers(0, 4_000_000_000_000))
def test_times_round_trip(milliseconds: int) -> None:
    text = rfc3339(milliseconds / 1000)
    assert text.endswith("Z")
    assert round(from_rfc3339(text) * 1000) == milliseconds
