"""Picture and voice of one sender over two lines that have nothing in common: what is mixed at one moment."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from mixer.audio.playout import Playout
from mixer.avsync import MAX_HOLD_S, LipSync
from mixer.rtp.packet import RtpPacket
from mixer.rtp.reception import ReceptionStats
from mixer.rtp.rtcp import SenderReport
from mixer.video.mailbox import MAX_HELD, Mailbox
from tests.fakes.netem import Netem

NTP_S = 3_900_000_000.0  # the sender's clock when ours says zero
PERIOD = 400  # samples that the stretcher takes out or puts in


@dataclass
class Sender:
    """A camera of 30 pictures and a voice of 50 packets a second; reports each second, half a second apart."""

    sound: Netem[int]
    picture: Netem[int]
    report_error_s: float = 0.0  # how wrong the reports of the pictures are
    reports: bool = True
    seconds: float = 20.0
    skews_ms: list[float] = field(default_factory=list)
    holds_ms: list[float] = field(default_factory=list)
    sound_waits_ms: list[float] = field(default_factory=list)

    def run(self) -> Sender:
        self.playout = Playout(clock_hz=48_000, fec=True)
        self.lips = LipSync()
        self.mailbox = Mailbox()
        self.voice, self.camera = ReceptionStats(48_000), ReceptionStats(90_000)
        self.heard: float | None = None
        self.waiting = np.empty(0)
        for ms in range(round(self.seconds * 1000)):
            now = ms / 1000
            if ms % 20 == 0:
                self.sound.send(ms // 20, now)
            if ms * 30 // 1000 != (ms - 1) * 30 // 1000:
                self.picture.send(ms * 30 // 1000, now)
            if self.reports and ms % 1000 == 500:
                self.voice.sender_report(self.report(1, 48_000, now, 0.0), now)
            if self.reports and ms % 1000 == 0:
                self.camera.sender_report(self.report(2, 90_000, now, self.report_error_s), now)
            for number in self.sound.receive(now):
                self.voice.receive(RtpPacket(111, False, number, number * 960 + 777, 1, b""), now)
                self.playout.push(number, number * 960 + 777, b"", samples=960, now=now)
            for number in self.picture.receive(now):
                self.arrived(number, now)
            if ms % 20 == 7:
                self.tick(now)
            if ms * 30 // 1000 != (ms - 1) * 30 // 1000:
                self.show(now)
        return self

    def report(self, ssrc: int, clock_hz: int, now: float, error_s: float) -> SenderReport:
        ntp = round((NTP_S + now + error_s) * 2**32)
        first = 777 if ssrc == 1 else 0
        return SenderReport(ssrc, ntp, (round(now * clock_hz) + first) & 0xFFFFFFFF, 0, 0)

    def arrived(self, number: int, now: float) -> None:
        self.camera.receive(RtpPacket(96, True, number, number * 3_000, 2, b""), now)
        heard = self.playout.playhead(now)
        hold_s = self.lips.hold(
            taken_s=self.camera.sender_time(number * 3_000),
            said_s=self.voice.sender_time(heard) if heard is not None else None,
            waits_s=self.playout.waits_ms / 1000 if heard is not None else None,
            now=now,
        )
        self.holds_ms.append(hold_s * 1000)
        self.playout.floor_ms = self.lips.floor_s * 1000
        picture: Any = number
        self.mailbox.put(picture, now, due=now + hold_s)

    def tick(self, now: float) -> None:
        """The voice: which sample is heard first in this tick, by what the playout says is to be done."""
        plan = self.playout.pop(now, buffered=len(self.waiting))
        positions = [self.waiting]
        for step in plan.steps:
            if step.kind == "packet":
                at = self.playout._next - step.samples  # type: ignore[operator]
                positions.append(np.arange(at, at + step.samples, dtype=float))
            else:
                positions.append(np.full(step.samples, np.nan))
        sound = np.concatenate(positions)
        if plan.shape == "shorten":
            sound = np.concatenate((sound[:960], sound[960 + PERIOD :]))
        elif plan.shape == "lengthen":
            sound = np.concatenate((sound[:960], sound[960 - PERIOD :]))
        self.heard = (sound[0] - 777) / 48_000 - now  # said so much before now
        self.waiting = sound[960:]
        self.sound_waits_ms.append(self.playout.waits_ms)

    def show(self, now: float) -> None:
        shown: Any = self.mailbox.take(now + 1 / 60)
        if shown is not None and self.heard is not None and not np.isnan(self.heard):
            taken = shown / 30
            self.skews_ms.append((now + self.heard - taken) * 1000)  # + when the picture is late

    @property
    def skew_ms(self) -> float:
        """The median of the last half."""
        return float(np.median(self.skews_ms[len(self.skews_ms) // 2 :]))

    @property
    def off_share(self) -> float:
        """How many of the last half's pictures are more than 40 ms off."""
        late = np.abs(self.skews_ms[len(self.skews_ms) // 2 :])
        return float(np.mean(late > 40))


def line(delay_ms: float = 10, jitter_ms: float = 0, seed: int = 1) -> Netem[int]:
    return Netem(seed=seed, delay_s=delay_ms / 1000, jitter_s=jitter_ms / 1000)


@pytest.mark.parametrize(
    ("sound", "picture"),
    [
        ((10, 0), (10, 0)),
        ((10, 0), (60, 0)),
        ((10, 0), (120, 0)),
        ((10, 0), (10, 60)),
        ((10, 0), (100, 40)),
        ((110, 0), (10, 0)),
        ((160, 0), (10, 0)),
        ((10, 60), (10, 0)),
        ((60, 80), (10, 0)),
        ((40, 60), (40, 60)),
    ],
    ids=str,
)
def test_what_was_taken_and_said_together_is_mixed_together(
    sound: tuple[int, int], picture: tuple[int, int]
) -> None:
    sender = Sender(line(*sound), line(*picture, seed=2)).run()
    assert abs(sender.skew_ms) < 25
    assert sender.off_share < 0.05


def test_on_a_good_line_neither_waits_longer_than_the_jitter_buffer_makes_it() -> None:
    sender = Sender(line(), line()).run()
    assert max(sender.holds_ms[100:]) < 55
    assert max(sender.sound_waits_ms[100:]) < 55


def test_without_reports_the_picture_waits_as_long_as_its_sound() -> None:
    sender = Sender(line(30), line(30), reports=False).run()
    assert abs(sender.skew_ms) < 25


@pytest.mark.parametrize("error_s", [3_600.0, -3_600.0, 5.0, -1e9])
def test_reports_that_cannot_be_are_not_believed(error_s: float) -> None:
    sender = Sender(line(), line(), report_error_s=error_s).run()
    assert max(sender.holds_ms) < 60
    assert max(sender.sound_waits_ms) < 60
    assert abs(sender.skew_ms) < 25
    assert sender.lips.nonsense > 500


@pytest.mark.parametrize("error_s", [0.9, -0.9])
def test_however_wrong_nothing_waits_longer_than_a_fifth_of_a_second(error_s: float) -> None:
    sender = Sender(line(), line(), report_error_s=error_s).run()
    assert max(sender.holds_ms) <= MAX_HOLD_S * 1000
    assert max(sender.sound_waits_ms) <= MAX_HOLD_S * 1000 + 25
    assert sender.mailbox.held <= MAX_HELD


def test_a_sound_that_waits_for_its_picture_waits_no_longer_when_that_is_quick_again() -> None:
    sender = Sender(line(), line(100))
    sender.seconds = 40.0
    original = sender.picture.receive

    def receive(now: float) -> list[int]:
        if now > 15:
            sender.picture.delay_s = 0.01
        return original(now)

    sender.picture.receive = receive  # type: ignore[method-assign]
    sender.run()
    assert max(sender.sound_waits_ms[500:700]) > 80
    assert max(sender.sound_waits_ms[-250:]) < 70
    assert abs(sender.skew_ms) < 25


def test_pictures_without_a_voice_do_not_wait() -> None:
    lips = LipSync()
    assert lips.hold(taken_s=5.0, said_s=None, waits_s=None, now=1.0) == 0.0
    assert lips.floor_s == 0.0


def test_a_full_box_shows_the_oldest_early_and_never_stands_still() -> None:
    box = Mailbox()
    shown = []
    for number in range(60):
        picture: Any = number
        box.put(picture, number / 60, due=number / 60 + 0.2)  # 60 fps: twelve would have to wait
        taken = box.take(number / 60)
        if taken is not None:
            shown.append(taken)
    assert shown == list(range(60 - MAX_HELD))
    assert box.held == MAX_HELD


def test_of_two_pictures_that_are_due_the_newer_is_shown() -> None:
    box = Mailbox()
    pictures: list[Any] = [1, 2, 3]
    for picture, due in zip(pictures, (1.0, 1.1, 1.5), strict=True):
        box.put(picture, 0.9, due=due)
    assert box.take(0.95) is None
    assert box.take(1.2) == 2
    assert box.overwritten == 1
    assert box.take(1.3) is None
    assert box.take(1.6) == 3


def test_whatever_the_reports_say_a_hold_is_bounded() -> None:
    rng = random.Random(5)
    lips = LipSync()
    for n in range(2_000):
        now = n / 30
        hold = lips.hold(
            taken_s=rng.choice([None, rng.uniform(-1e10, 1e10), now + rng.uniform(-3, 3)]),
            said_s=rng.choice([None, rng.uniform(-1e10, 1e10), now + rng.uniform(-3, 3)]),
            waits_s=rng.choice([None, 0.0, 0.04, 0.5]),
            now=now,
        )
        assert 0.0 <= hold <= MAX_HOLD_S
        assert 0.0 <= lips.floor_s <= MAX_HOLD_S
