"""What judges the machine beside the server: strict on a machine that has time."""

from __future__ import annotations

import pytest

from tests.peers import spare
from tests.peers.scheduling import uncovered_s
from tests.peers.spare import Machine, with_time_to_spare


@pytest.mark.parametrize(("used", "tries"), [(0.5, 1), (0.95, 3)])
async def test_a_miss_counts_at_once_where_there_was_time(
    used: float, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "used", lambda _: used)
    monkeypatch.setattr(spare, "REST_S", 0.0)
    made = 0

    @with_time_to_spare
    async def missed() -> None:
        nonlocal made
        made += 1
        raise AssertionError("31 ms")

    with pytest.raises(AssertionError, match="31 ms"):
        await missed()
    assert made == tries


def test_of_a_hole_what_others_took_is_left_out_once() -> None:
    assert uncovered_s((1.0, 2.0), []) == 1.0
    others = [(1.5, 1.7), (0.0, 1.1), (1.6, 1.8), (1.9, 5.0)]
    assert uncovered_s((1.0, 2.0), others) == pytest.approx(0.5)
    assert uncovered_s((1.0, 2.0), [(0.0, 3.0)]) == 0.0
