from __future__ import annotations

import pytest

from mixer.rtp.silence import CALL_BYTES, CALL_S, CALLS, DISTRUST_S, IN_A_ROW, LOSSY, OUTAGE_S, Silence

RTT_S = 0.1
STEP_S = 0.02
PER_STEP = 4  # packets that leave between two looks


class Line:
    """Calls as a peer makes them, a look each 20 ms; ``deaf``: when the peer's answers are lost, by the call's time."""

    def __init__(self, *deaf: tuple[float, float], rtt_s: float = RTT_S) -> None:
        self.silence = Silence()
        self.deaf = deaf
        self.rtt_s = rtt_s
        self.sent_at: list[float] = []
        self.found: list[tuple[float, range]] = []
        self.called_at: list[float] = []
        self._answers: list[tuple[float, int]] = []
        self._step = 0

    def run(self, until: float) -> None:
        while self._step * STEP_S < until:
            now = self._step * STEP_S
            self._step += 1
            for at, number in [answer for answer in self._answers if answer[0] <= now]:
                self._answers.remove((at, number))
                self.silence.answered(number, now)
            if self.silence.due(1_300_000, now):
                self.called_at.append(now)
                number = self.silence.called(len(self.sent_at), now)
                if not any(start <= now < end for start, end in self.deaf):
                    self._answers.append((now + self.rtt_s, number))
            for positions in self.silence.suspects(len(self.sent_at), now):
                self.found.append((now, positions))
            self.sent_at += [now] * PER_STEP

    @property
    def positions(self) -> list[int]:
        return [position for _, positions in self.found for position in positions]


def test_what_left_around_a_silence_is_suspect_once_and_soon() -> None:
    line = Line((2.0, 2.2))
    line.run(4.0)
    assert line.positions == sorted(set(line.positions))
    times = [line.sent_at[position] for position in line.positions]
    assert min(times) == pytest.approx(2.0 - 2 * STEP_S)  # from the last call that was answered
    assert max(times) == pytest.approx(2.2 - STEP_S)  # to the first one again
    assert line.positions == list(
        range(line.positions[0], line.positions[-1] + 1)
    )  # nothing between is left out
    for at, positions in line.found:  # a round trip after the second call that was lost, not after the last
        assert at - line.sent_at[positions[-1]] < RTT_S + 4 * STEP_S


def test_one_unanswered_call_tells_nothing() -> None:
    line = Line((2.0, 2.0 + STEP_S))
    line.run(4.0)
    assert IN_A_ROW == 2
    assert line.found == []


def test_before_the_first_answer_nothing_is_known() -> None:
    line = Line((0.0, 3.0))
    line.run(3.0)
    assert line.found == []


def test_an_outage_is_not_filled_with_repeats() -> None:
    line = Line((2.0, 10.0))
    line.run(12.0)
    times = [line.sent_at[position] for position in line.positions]
    assert any(2.0 <= at < 2.0 + OUTAGE_S for at in times)
    assert not any(2.0 + OUTAGE_S <= at < 10.0 - 2 * RTT_S for at in times)  # its end is heard of again


def test_a_late_answer_is_a_queue_and_mistrusted_for_a_while() -> None:
    line = Line()
    line.run(2.0)
    line.rtt_s = 0.5
    line.run(3.0)
    assert line.silence.late > 0
    count = len(line.positions)
    line.rtt_s, line.deaf = RTT_S, ((3.5, 3.7), (4.5 + DISTRUST_S, 4.7 + DISTRUST_S))
    line.run(4.4)
    assert len(line.positions) == count
    line.run(7.0 + DISTRUST_S)
    assert len(line.positions) > count
    assert line.sent_at[line.positions[-1]] > 4.0 + DISTRUST_S


def test_a_line_whose_round_trips_vary_is_given_more_time() -> None:
    line = Line()
    for step in range(1, 400):
        line.rtt_s = RTT_S + (0.06 if step % 3 == 0 else 0.0)
        line.run(step * STEP_S)
    assert line.positions == []
    assert line.silence.late == 0


def test_calls_are_a_share_of_what_is_sent() -> None:
    silence = Silence()
    silence.called(0, 1.0)
    assert not silence.due(1e9, 1.0 + CALL_S - 0.001)
    assert silence.due(1e9, 1.0 + CALL_S)
    narrow_s = CALL_BYTES * 8 / (CALLS * 90_000)
    assert narrow_s > CALL_S
    assert not silence.due(90_000, 1.0 + narrow_s - 0.001)
    assert silence.due(90_000, 1.0 + narrow_s)
    assert not silence.due(0.0, 10.0)  # nothing is sent


def test_only_a_line_that_loses_is_listened_to() -> None:
    assert not Silence().listening(LOSSY / 2)
    assert Silence().listening(LOSSY)


def test_unknown_and_double_answers_change_nothing() -> None:
    silence = Silence()
    number = silence.called(0, 0.0)
    silence.answered(number + 1, 0.1)
    silence.answered(number, 0.1)
    silence.answered(number, 0.9)
    silence.called(1, 0.2)
    silence.called(2, 0.24)
    assert silence.suspects(3, 0.6) == [range(3)]


def test_calls_of_long_ago_are_forgotten() -> None:
    silence = Silence()
    for index in range(10_000):
        silence.called(index, index * CALL_S)
    assert len(silence._calls) < 100
