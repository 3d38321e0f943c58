"""What counts as healthy, and how it is told."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from mixer.probe.report import LIMITS, Figures, as_json, as_table, faults, spread

GOOD = Figures(
    callers=4,
    viewers=1,
    seconds=15.0,
    seen=4,
    heard=3,
    video_p50_ms=70.0,
    video_p95_ms=110.0,
    audio_p50_ms=60.0,
    audio_p95_ms=85.0,
    skew_ms=-12.0,
    loss_percent=0.0,
    frozen_percent=0.1,
    echo_db=-71.3,
    join_p50_ms=150.0,
    join_p95_ms=210.0,
    fps=29.9,
)


def changed(name: str, value: float) -> Figures:
    fields: dict[str, Any] = {name: value}
    return dataclasses.replace(GOOD, **fields)


def test_a_good_room_is_healthy() -> None:
    assert faults(GOOD, expect_video=True) == []
    text = as_table(GOOD, [])
    assert text.endswith("\nhealthy")
    assert "70 / 110 ms" in text
    assert "MISS" not in text


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_each_limit_is_held(name: str) -> None:
    at = changed(name, LIMITS[name].most)
    beyond = changed(name, LIMITS[name].most + 0.2)
    assert faults(at, expect_video=True) == []
    (problem,) = faults(beyond, expect_video=True)
    assert name in problem
    assert "MISS" in as_table(beyond, [problem])


def test_skew_counts_both_ways() -> None:
    assert faults(dataclasses.replace(GOOD, skew_ms=-81.0), expect_video=True)


def test_who_is_missing_is_told() -> None:
    lonely = dataclasses.replace(GOOD, seen=3, heard=1, lost_sessions=("viewer 2: gone",))
    found = " ".join(faults(lonely, expect_video=True))
    assert "1 of 4 callers were never seen" in found
    assert "2 of 3 other callers were never heard" in found
    assert "viewer 2: gone" in found
    assert "NOT healthy" in as_table(lonely, faults(lonely, expect_video=True))
    assert not any("seen" in line for line in faults(lonely, expect_video=False))


def test_one_caller_alone_hears_nobody_and_that_is_fine() -> None:
    alone = dataclasses.replace(GOOD, callers=1, seen=1, heard=0, audio_p50_ms=None, audio_p95_ms=None)
    assert faults(alone, expect_video=True) == []
    assert "–" in as_table(alone, [])


def test_json_is_json() -> None:
    report = json.loads(json.dumps(as_json(GOOD, ["x"])))
    assert report["healthy"] is False
    assert report["faults"] == ["x"]
    assert report["echo_db"] == -71.3


def test_spread_is_in_milliseconds() -> None:
    assert spread([]) == (None, None)
    middle, high = spread([0.1, 0.2, 0.3])
    assert middle == pytest.approx(200.0)
    assert high == pytest.approx(290.0)
