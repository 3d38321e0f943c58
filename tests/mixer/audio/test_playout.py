"""The jitter buffer against a simulated sender and network; no sound is decoded, no time passes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.audio.playout import MAX_PACKETS, Plan, Playout

FRAME = 960
WITH_FEC, WITHOUT_FEC = b"\x48\xc0", b"\x48\x80"  # SILK, wideband, 20 ms; active, with and without LBRR


@dataclass
class Network:
    """A sender and a network in simulated time; ``run`` ticks the playout and notes what it was told to do.

    ``delay_s(n)`` is the transit time of packet n, or None if it is lost. ``ppm``: the sender's clock is so
    much faster than ours. Correcting the delay takes or adds ``period`` samples, as the stretcher would.
    """

    ptime_ms: int = 20
    clock_hz: int = 48_000
    ppm: float = 0.0
    fec: bool = True
    lbrr: bool = True
    first_sequence: int = 65_500
    first_timestamp: int = 2**32 - 50_000
    period: int = 400
    quiet: bool = False
    paused: range = field(default_factory=lambda: range(0))
    playout: Playout = field(init=False)
    steps: list[tuple[str, int]] = field(default_factory=list)
    delays_ms: list[float] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    buffered: int = 0
    now: float = 1_000.0

    def __post_init__(self) -> None:
        self.playout = Playout(clock_hz=self.clock_hz, fec=self.fec)

    def run(self, packets: int, delay_s=lambda n: 0.03) -> Network:
        samples = self.ptime_ms * 48
        interval_s = self.ptime_ms / 1_000 / (1 + self.ppm * 1e-6)
        origin = self.now
        arrivals = []
        sequence = 0
        for n in range(packets):
            if n in self.paused:  # discontinuous transmission: time goes on, sequence numbers do not
                continue
            delay = delay_s(n)
            if delay is not None:
                arrivals.append((origin + (n + 1) * interval_s + delay, n, sequence))
            sequence += 1
        arrivals.sort()
        ticks = int(packets * interval_s / 0.02) + 25
        at = 0
        for tick in range(ticks):
            self.now = origin + tick * 0.02 + 0.007
            while at < len(arrivals) and arrivals[at][0] <= self.now:
                arrived, n, number = arrivals[at]
                at += 1
                self.playout.push(
                    (self.first_sequence + number) & 0xFFFF,
                    (self.first_timestamp + n * samples * self.clock_hz // 48_000) & 0xFFFFFFFF,
                    (WITH_FEC if self.lbrr else WITHOUT_FEC) + n.to_bytes(4, "big"),
                    samples=samples,
                    now=arrived,
                )
            self.tick()
        return self

    def tick(self) -> Plan:
        plan = self.playout.pop(self.now, buffered=self.buffered)
        made = self.buffered + sum(step.samples for step in plan.steps)
        if plan.shape == "shorten":
            assert made >= 2 * FRAME
            made -= FRAME if self.quiet else self.period
        elif plan.shape == "lengthen":
            made += self.period
        assert made >= FRAME
        self.buffered = made - FRAME
        assert self.buffered < 5_760 + FRAME
        for step in plan.steps:
            self.steps.append((step.kind, step.samples))
            if step.kind == "packet":
                self.heard.append(int.from_bytes(step.payload[2:], "big"))
        if self.playout.playing:
            self.delays_ms.append(self.playout.delay_ms)
        return plan

    def count(self, kind: str) -> int:
        """Samples made in that way."""
        return sum(samples for what, samples in self.steps if what == kind)


@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 40, 60])
@pytest.mark.parametrize("clock_hz", [8_000, 48_000])
def test_on_a_good_line_every_packet_is_heard_once_in_order_about_40_ms_late(ptime_ms, clock_hz):
    line = Network(ptime_ms=ptime_ms, clock_hz=clock_hz).run(200)
    assert line.heard == list(range(200))
    assert line.count("conceal") <= 5_760  # only after the last packet
    assert line.count("fec") == 0
    middle = line.delays_ms[20:-30]
    assert 25 <= min(middle) <= max(middle) <= 60
    assert line.playout.counters.lost == line.playout.counters.late == 0


def test_sequence_numbers_and_timestamps_may_wrap():
    line = Network(first_sequence=65_530, first_timestamp=2**32 - 3_000).run(100)
    assert line.heard == list(range(100))
    assert line.playout.counters.resyncs == 0


def test_a_lost_packet_is_recovered_from_the_next_one():
    line = Network().run(100, lambda n: None if n == 50 else 0.03)
    assert line.count("fec") == FRAME
    assert line.playout.counters.lost == line.playout.counters.recovered == 1
    assert line.steps[[kind for kind, _ in line.steps].index("fec") + 1][0] == "packet"


def test_of_three_lost_packets_two_are_concealed_and_the_last_recovered():
    line = Network().run(100, lambda n: None if n in (50, 51, 52) else 0.03)
    at = [kind for kind, _ in line.steps].index("packet")
    told = [kind for kind, _ in line.steps[at : at + 100]]
    assert told.count("fec") + told.count("conceal") == 3
    assert len([kind for kind in told if kind == "packet"]) == 97


@pytest.mark.parametrize("options", [{"fec": False}, {"lbrr": False}], ids=["codec", "packet"])
def test_without_fec_all_loss_is_concealed_and_none_called_recovered(options):
    line = Network(**options).run(100, lambda n: None if n == 50 else 0.03)
    assert line.count("fec") == 0
    told = [kind for kind, _ in line.steps]
    assert told[told.index("packet") : told.index("packet") + 100].count("conceal") == 1
    assert line.playout.counters.recovered == 0
    assert line.playout.counters.lost == 1


def test_of_three_lost_packets_all_are_concealed_when_the_next_has_no_fec():
    line = Network(lbrr=False).run(100, lambda n: None if n in (50, 51, 52) else 0.03)
    at = [kind for kind, _ in line.steps].index("packet")
    told = [kind for kind, _ in line.steps[at : at + 100]]
    assert told.count("conceal") == 3
    assert line.heard == [n for n in range(100) if n not in (50, 51, 52)]


def test_seeded_loss_jitter_and_reordering_keep_time():
    """5 % loss, up to 60 ms of jitter (so every third packet is overtaken), three minutes."""
    rng = random.Random(4)
    line = Network().run(9_000, lambda n: None if rng.random() < 0.05 else 0.03 + rng.random() * 0.06)
    counters = line.playout.counters
    assert line.heard == sorted(set(line.heard))
    assert len(line.heard) > 0.93 * 9_000
    assert counters.late < 0.02 * 9_000
    assert max(line.delays_ms) <= 140
    assert counters.resyncs == 0
    after_start = line.steps[10:-30]
    invented = sum(samples for kind, samples in after_start if kind in ("conceal", "fec", "fade", "silence"))
    assert invented < 0.09 * 9_000 * FRAME


def test_duplicates_are_counted_and_heard_once():
    playout = Playout(clock_hz=48_000, fec=True)
    for n in (0, 0, 1, 1, 0):
        playout.push(n, n * FRAME, b"x", samples=FRAME, now=n * 0.02)
    assert playout.counters.duplicate == 3
    assert playout.depth == 2


def test_a_packet_that_comes_after_its_turn_is_counted_late():
    line = Network().run(100, lambda n: 0.2 if n == 50 else 0.03)
    assert line.playout.counters.late == 1
    assert 50 not in line.heard


@pytest.mark.parametrize(
    ("ppm", "quiet", "packets"), [(-200, False, 30_000), (200, False, 30_000), (200, True, 9_000)]
)
def test_a_clock_200_ppm_off_does_not_let_the_delay_creep_in_ten_minutes(ppm, quiet, packets):
    line = Network(ppm=ppm, quiet=quiet).run(packets)  # ten minutes: 120 ms of drift, three times the target
    counters = line.playout.counters
    settled = line.delays_ms[500:-60]
    assert max(settled) <= 100
    assert sum(settled[-3_000:]) / 3_000 <= 70
    assert len(line.heard) == packets
    assert min(settled) >= (20 if ppm < 0 else 30)
    assert line.count("conceal") <= 5_760  # after the last packet only
    assert (counters.shortened > 0) == (ppm > 0)
    assert (counters.lengthened > 0) == (ppm < 0)


def test_drift_with_jitter_and_loss_does_not_creep_either():
    rng = random.Random(5)
    line = Network(ppm=200).run(9_000, lambda n: None if rng.random() < 0.02 else 0.03 + rng.random() * 0.03)
    assert max(line.delays_ms[500:-30]) <= 140


def test_jitter_raises_the_target_and_calm_lowers_it_again():
    rng = random.Random(6)
    line = Network().run(3_500, lambda n: 0.03 + (rng.random() * 0.09 if n < 1_000 else 0.0))
    assert max(line.delays_ms[400:1_000]) > 80
    assert line.playout.target_ms == 40
    assert max(line.delays_ms[-200:-30]) <= 80


def test_a_path_that_gets_300_ms_longer_is_followed_and_does_not_stay_late():
    line = Network().run(2_000, lambda n: 0.03 if n < 500 else 0.33)
    assert len(line.heard) >= 1_995
    assert line.playout.counters.overflow == 0
    assert line.heard[-1] == 1_999


def test_a_burst_after_a_stall_does_not_leave_its_delay_behind():
    """A Wi-Fi stall of 700 ms: everything comes at once. Most of it is skipped, the rest caught up with."""

    def delay(n: int) -> float:
        return 0.03 + max(0.0, (535 - n) * 0.02 if 500 <= n < 535 else 0.0)

    line = Network().run(1_500, delay)
    assert line.delays_ms[-40] <= 90
    assert line.playout.counters.overflow > 0
    assert line.heard == sorted(set(line.heard))


def test_a_pause_of_the_sender_is_silence_and_not_loss():
    line = Network(paused=range(100, 200)).run(300)
    counters = line.playout.counters
    assert counters.lost == counters.recovered == 0
    assert line.count("silence") > 85 * FRAME
    assert line.heard == [*range(100), *range(200, 300)]


def test_a_source_that_is_replaced_is_taken_up_with_its_second_packet():
    line = Network().run(100)
    line.first_sequence, line.first_timestamp = 7, 123_456_789
    line.heard.clear()
    line.run(100)
    assert line.heard == list(range(1, 100))
    assert line.playout.counters.resyncs == 1


def test_one_stray_packet_changes_nothing():
    line = Network()
    line.run(50)
    line.playout.push(12_345, 999, b"stray", samples=FRAME, now=line.now)
    assert line.playout.counters.strange == 1
    assert line.playout.depth == 0


def test_a_timestamp_that_jumps_backwards_in_an_unbroken_sequence_is_a_new_clock():
    playout = Playout(clock_hz=8_000, fec=False)
    now = 50.0
    for n in range(50):
        playout.push(n, 5_000_000 + n * 160, b"x", samples=FRAME, now=now)
        playout.pop(now)
        now += 0.02
    kinds = []
    for n in range(50, 100):
        playout.push(n, 1_000 + n * 160, b"y", samples=FRAME, now=now)
        kinds += [step.kind for step in playout.pop(now).steps]
        now += 0.02
    assert playout.counters.resyncs == 1
    assert kinds[10:] == ["packet"] * 40


def test_skipped_ticks_pass_over_their_sound():
    line = Network().run(100)
    playout = Playout(clock_hz=48_000, fec=True)
    for n in range(10):
        playout.push(n, n * FRAME, bytes([n]), samples=FRAME, now=n * 0.02)
    assert playout.pop(0.18).steps[0].payload == bytes([0])
    playout.skip(3 * FRAME)
    assert playout.pop(0.26).steps[0].payload == bytes([4])
    assert line.playout.counters.lost == 0


def test_a_sender_that_floods_is_bounded():
    playout = Playout(clock_hz=48_000, fec=True)
    for n in range(1_000):
        playout.push(n, n * FRAME, b"x", samples=FRAME, now=0.0)
        assert playout.depth <= MAX_PACKETS
    assert playout.depth <= 50  # a second of sound
    assert playout.counters.overflow >= 900


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 65_535) | st.integers(0, 40),
            st.integers(0, 2**32 - 1) | st.integers(0, 40).map(lambda n: n * FRAME),
            st.sampled_from([120, 480, 960, 1_920, 2_880, 5_760, 6, 48]),
            st.floats(0.0, 0.2),
        ),
        max_size=120,
    )
)
def test_whatever_comes_every_tick_gets_at_least_its_frame(packets):
    playout = Playout(clock_hz=48_000, fec=True)
    now, buffered = 10.0, 0
    for sequence, timestamp, samples, wait_s in packets:
        playout.push(sequence, timestamp, b"x", samples=samples, now=now)
        now += wait_s
        plan = playout.pop(now, buffered=buffered)
        made = buffered + sum(step.samples for step in plan.steps)
        assert made >= FRAME * (2 if plan.shape == "shorten" else 1)
        assert all(step.samples > 0 and step.skip >= 0 for step in plan.steps)
        assert len(plan.steps) <= 2 * FRAME // 6 + 2
        buffered = made - FRAME - (300 if plan.shape == "shorten" else 0)
        assert buffered < 3 * 5_760


def test_sound_waits_as_long_as_repairs_take_and_no_longer_than_they_come():
    playout = Playout(clock_hz=48_000, fec=False)
    kinds, buffered = [], 0

    def run(packets: range, lost: set[int]) -> None:
        nonlocal buffered
        repairs = {}
        for n in packets:
            now = n * 0.02
            if n in lost:
                repairs[n + 6] = n  # 120 ms later
            else:
                playout.push(n, n * 960, WITHOUT_FEC, samples=960, now=now)
            if n in repairs:
                again = repairs[n]
                playout.push(again, again * 960, WITHOUT_FEC, samples=960, now=now, repaired=True)
            plan = playout.pop(now + 0.005, buffered=buffered)
            kinds.extend((n, step.kind) for step in plan.steps)
            period = {"keep": 0, "shorten": -400, "lengthen": 400}[plan.shape]
            buffered += sum(step.samples for step in plan.steps) + period - FRAME

    run(range(500), set())
    assert playout.target_ms == 40
    run(range(500, 1_500), set(range(500, 1_500, 25)))
    assert playout.target_ms == pytest.approx(140, abs=2), "120 ms and a tick"
    assert playout.jitter_ms < 1, "a repair is no jitter"
    assert not [n for n, kind in kinds if kind == "conceal" and n > 650], "all of it is heard"
    run(range(1_500, 2_000), set())
    assert playout.target_ms == 40, "ten seconds later"


def test_repairs_that_come_too_late_for_anybody_are_not_waited_for():
    playout = Playout(clock_hz=48_000, fec=False)
    for n in range(1_000):
        if n % 25:
            playout.push(n, n * 960, WITHOUT_FEC, samples=960, now=n * 0.02)
        elif n > 25:
            again = n - 25
            playout.push(again, again * 960, WITHOUT_FEC, samples=960, now=n * 0.02, repaired=True)
        playout.pop(n * 0.02 + 0.005)
    assert playout.target_ms == 40
