"""Sound goes on without a hole and without an echo when its packets change."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.handover import SoundHandover
from mixer.media import FRAME_SAMPLES, EncodedAudio


class Outputs:
    """The bridge's side: each output gives a packet whenever one of its length is full."""

    def __init__(self) -> None:
        self.sent: list[EncodedAudio] = []
        self.over: list[int] = []
        self.handover = SoundHandover(self.sent.append, self._over)
        self._running: dict[int, int] = {}
        self._tick = 0

    def _over(self, output: int) -> None:
        self.over.append(output)
        del self._running[output]

    def begin(self, frames: int) -> None:
        self._running[self.handover.begin()] = frames

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self._tick += 1
            for output, frames in list(self._running.items()):
                if output in self._running and self._tick % frames == 0:
                    pts = (self._tick - frames) * FRAME_SAMPLES
                    self.handover.take(
                        output, EncodedAudio("opus", b"%d" % output, pts, frames * FRAME_SAMPLES)
                    )

    def assert_seamless(self) -> None:
        for before, after in itertools.pairwise(self.sent):
            assert after.pts == before.pts + before.samples


@pytest.mark.parametrize("start", range(6))
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (1, 1), (3, 3), (2, 3), (1, 2)])
def test_any_length_follows_any_other_at_any_moment(before: int, after: int, start: int) -> None:
    outputs = Outputs()
    outputs.begin(before)
    outputs.run(30 + start)
    outputs.begin(after)
    outputs.run(30)
    outputs.assert_seamless()
    assert outputs.over == [1]
    assert outputs.handover.outputs == [2]
    first = next(frame for frame in outputs.sent if frame.data == b"2")
    assert first.pts / FRAME_SAMPLES - 30 - start <= 12  # within a quarter of a second


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(0, 20)), min_size=1, max_size=20))
def test_however_often_it_changes(changes: list[tuple[int, int]]) -> None:
    outputs = Outputs()
    for frames, ticks in changes:
        outputs.begin(frames)
        outputs.run(ticks)
    outputs.run(30)
    outputs.assert_seamless()
    assert outputs.handover.outputs == [len(changes)]
    assert sorted(outputs.over) == list(range(1, len(changes)))


def test_ticks_that_were_left_out_delay_the_change_and_break_nothing() -> None:
    outputs = Outputs()
    outputs.begin(1)
    outputs.run(10)
    outputs.begin(3)
    outputs.run(2)
    outputs._tick += 7
    outputs.run(20)
    ends = [frame.pts for frame in outputs.sent]
    assert ends == sorted(set(ends))
    assert outputs.over == [1]
