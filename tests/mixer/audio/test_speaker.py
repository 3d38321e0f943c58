import numpy as np
import pytest

from mixer.audio.speaker import Gate, Speakers, level_dbov
from tests.mixer.audio.signals import noise, tone

TICK = 0.02


@pytest.mark.parametrize(
    ("pcm", "level"),
    [
        (np.ones(960, np.float32), 0),  # a full-scale square wave is 0 dBov
        (tone(1_000, 0.02, 1.0), 3),
        (tone(1_000, 0.02, 0.1), 23),
        (np.zeros(960, np.float32), 127),
        (np.full(960, 8.0, np.float32), 0),
        (np.full(960, np.nan, np.float32), 127),
        (np.empty(0, np.float32), 127),
    ],
)
def test_levels_of_rfc_6464(pcm, level):
    assert level_dbov(pcm) == level


class Room:
    """Feeds levels to ``Speakers`` tick by tick."""

    def __init__(self, start: float = 0.0) -> None:
        self.speakers = Speakers()
        self.now = start

    def pass_s(self, seconds: float, **levels: int) -> None:
        for _ in range(round(seconds / TICK)):
            self.speakers.update(levels, self.now)
            self.now += TICK


def test_speaking_is_held_for_800_ms():
    room = Room()
    room.pass_s(0.2, ann=20)
    room.pass_s(0.76, ann=127)
    assert room.speakers.speaking() == ("ann",)
    room.pass_s(0.1, ann=127)
    assert room.speakers.speaking() == ()


def test_steady_noise_is_not_speech_but_a_steady_tone_is():
    room = Room()
    room.pass_s(60, fan=47, tone=23)
    assert room.speakers.speaking() == ("tone",)


def test_a_quiet_voice_over_a_quiet_room_is_speech():
    room = Room()
    room.pass_s(2, ann=70)
    room.pass_s(0.1, ann=52)
    assert room.speakers.speaking() == ("ann",)


def test_nobody_has_the_floor_before_anyone_spoke():
    room = Room()
    room.pass_s(1, ann=127, bob=80)
    assert room.speakers.active() is None


@pytest.mark.parametrize("start", [0.0, 1e6])
def test_the_floor_goes_to_the_first_and_stays_for_two_seconds(start):
    room = Room(start)
    room.pass_s(0.5, ann=25)
    assert room.speakers.active() == "ann"
    room.pass_s(1.8, ann=127, bob=20)
    assert room.speakers.active() == "ann"
    room.pass_s(0.3, ann=127, bob=20)
    assert room.speakers.active() == "bob"


def test_two_alternating_voices_change_the_floor_at_most_every_two_seconds():
    room = Room()
    changes, holder = 0, None
    for _ in range(40):  # 20 s of half a second each
        for name in ("ann", "bob"):
            room.pass_s(0.25, **{name: 20})
            if room.speakers.active() != holder:
                holder = room.speakers.active()
                changes += 1
    assert 1 <= changes <= 10


def test_a_cough_does_not_take_the_floor():
    room = Room()
    room.pass_s(3, ann=25)
    room.pass_s(0.3, ann=25, bob=10)
    room.pass_s(3, ann=25)
    assert room.speakers.active() == "ann"


def test_who_speaks_on_is_only_displaced_by_someone_louder():
    room = Room()
    room.pass_s(3, ann=25)
    room.pass_s(3, ann=25, bob=24)
    assert room.speakers.active() == "ann"
    room.pass_s(3, ann=25, bob=15)
    assert room.speakers.active() == "bob"


def test_who_leaves_gives_up_the_floor_at_once():
    room = Room()
    room.pass_s(1, ann=20, bob=30)
    room.speakers.remove("ann")
    assert room.speakers.active() is None
    room.pass_s(TICK, bob=30)
    assert room.speakers.active() == "bob"


def test_the_gate_opens_at_once_and_closes_after_800_ms():
    gate = Gate()
    assert not gate.update(90, 0.0)
    assert gate.update(60, 0.02)
    assert gate.update(90, 0.8)
    assert not gate.update(90, 0.84)


def test_noise_has_the_level_of_its_rms():
    assert level_dbov(noise(1.0, 0.01)) == 40
