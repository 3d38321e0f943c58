"""Legs that are not decoded: who sleeps, who wakes, what is heard of it, and what a lie costs."""

from __future__ import annotations

import numpy as np
import pytest

from mixer.audio.bridge import AudioBridge
from mixer.audio.codec import OpusDecoder, make_encoder
from mixer.audio.contributors import csrc_of
from mixer.audio.loudest import PLACES
from mixer.audio.speaker import level_dbov
from tests.mixer.audio.signals import level_db, noise, tone, voiced


class Talker:
    """Sends a sound with its level in each header; ``lie`` turns a true level into the one that is told."""

    def __init__(
        self, bridge: AudioBridge, name: str, sound: np.ndarray, *, codec="opus", lie=lambda level: level
    ):
        self.bridge, self.name, self.sound, self.codec, self.lie = bridge, name, sound, codec, lie
        self._encoder = make_encoder(codec, frames=1, bitrate_bps=32_000)
        bridge.add_input(name, codec)

    def send(self, n: int) -> None:
        pcm = self.sound[n * 960 : n * 960 + 960]
        self.bridge.push(
            self.name,
            sequence=(65_000 + n) & 0xFFFF,
            timestamp=(2**32 - 9_000 + n * (960 if self.codec == "opus" else 160)) & 0xFFFFFFFF,
            payload=self._encoder.encode(pcm),
            codec=self.codec,
            now=n * 0.02,
            ssrc=7,
            level=self.lie(level_dbov(pcm)) if self.codec == "opus" else None,
        )


class Room:
    def __init__(self):
        self.bridge = AudioBridge()
        self.talkers: list[Talker] = []
        self.mix: list[np.ndarray] = []
        self.bridge.set_recorder(lambda pcm, pts: self.mix.append(pcm.copy()))

    def talk(self, name: str, sound: np.ndarray, **options) -> Talker:
        self.talkers.append(Talker(self.bridge, name, sound, **options))
        return self.talkers[-1]

    def run(self, ticks: range) -> None:
        for n in ticks:
            for talker in self.talkers:
                talker.send(n)
            self.bridge.tick(n, n * 0.02 + 0.005)

    def heard(self, ticks: slice = slice(None)) -> np.ndarray:
        return np.concatenate(self.mix[ticks])

    def input(self, name: str) -> dict:
        return self.bridge.stats()["inputs"][name]


@pytest.fixture
def decodes(monkeypatch) -> list[int]:
    """How many packets were decoded: one entry each."""
    made: list[int] = []
    original = OpusDecoder.decode

    def counting(self, payload):
        made.append(len(payload))
        return original(self, payload)

    monkeypatch.setattr(OpusDecoder, "decode", counting)
    return made


def test_the_silent_are_not_decoded_once_their_levels_have_proved_right(decodes):
    room = Room()
    for n in range(10):
        room.talk(f"s{n}", noise(10.0, 2e-4, seed=n))
    room.run(range(100))
    assert len(decodes) >= 10 * 50, "a second of probation each"
    decodes.clear()
    room.run(range(100, 500))
    # but for the one that is being checked: 0.4 s of each 0.5 s
    assert len(decodes) <= 400
    assert room.bridge.stats()["awake"] <= 2


def test_without_levels_everyone_is_decoded(decodes):
    room = Room()
    room.talk("s", noise(4.0, 2e-4), lie=lambda level: None)
    room.run(range(200))
    assert len(decodes) >= 195


@pytest.mark.parametrize("codec", ["opus", "PCMU", "PCMA"])
def test_a_sleepers_first_word_is_whole_on_time_and_does_not_click(codec):
    sound = np.concatenate((noise(4.0, 1e-4), voiced(2.0)))
    rooms = []
    for wakeful in (False, True):
        room = Room()
        talker = room.talk("ann", sound, codec=codec)
        room.run(range(100))
        if wakeful:  # the same leg, kept awake: what it would sound like
            room.bridge._legs["ann"].checked_until = 1e9
        room.run(range(100, 290))
        assert talker is room.talkers[0]
        rooms.append(room)
    slept, awake = rooms
    assert slept.input("ann")["slept"] > 50
    assert awake.input("ann")["slept"] < 100
    word = slice(200, 285)
    ours, reference = slept.heard(word), awake.heard(word)
    # a decoder that had heard other things before makes slightly other samples; what is compared is the sound
    for at in range(0, len(ours), 4_800):
        difference = ours[at : at + 4_800] - reference[at : at + 4_800]
        assert np.abs(difference).max() < 0.02
    assert np.abs(np.diff(ours)).max() < 1.3 * np.abs(np.diff(reference)).max()


def test_one_more_speak_than_there_are_places_and_the_quietest_is_neither_heard_nor_decoded():
    room = Room()
    hz = [300 + 137 * n for n in range(PLACES + 1)]
    loud = [0.02] + [0.06] * PLACES
    for n, (pitch, amplitude) in enumerate(zip(hz, loud, strict=True)):
        room.talk(f"t{n}", tone(pitch, 8.0, amplitude))
    room.run(range(300))
    heard = room.heard(slice(200, 300))
    assert level_db(heard, hz[0]) < -70
    for pitch in hz[1:]:
        assert level_db(heard, pitch) == pytest.approx(20 * np.log10(0.06), abs=1.5)
    assert room.input("t0")["passed_by"] > 150
    assert "t0" in room.bridge.speaking(), "its levels still tell that it speaks"


def test_in_a_room_of_eight_and_of_nine_everybody_is_heard_at_once():
    assert PLACES >= 9, "a whole 3×3 grid"
    room = Room()
    for n in range(9):
        room.talk(f"t{n}", tone(300 + 137 * n, 3.0, 0.06 - 0.005 * n))
    room.run(range(120))
    heard = room.heard(slice(60, 120))
    for n in range(9):
        assert level_db(heard, 300 + 137 * n) == pytest.approx(20 * np.log10(0.06 - 0.005 * n), abs=1.5)
    assert room.bridge.stats()["place_swaps"] == 0
    assert sum(room.input(f"t{n}")["passed_by"] for n in range(9)) == 0


def test_who_is_not_mixed_can_take_the_floor_and_then_is_mixed_without_a_click():
    room = Room()
    for n in range(PLACES):
        room.talk(f"t{n}", tone(300 + 137 * n, 10.0, 0.01))
    crowd = noise(2.0, 1e-4)
    room.talk("late", np.concatenate((crowd, tone(2_000, 8.0, 0.005)[: 2 * 48_000], tone(2_000, 6.0, 0.2))))
    room.run(range(400))
    heard = room.heard()
    before, after = heard[3 * 48_000 : 4 * 48_000 - 9_600], heard[5 * 48_000 :]
    assert level_db(before, 2_000) < -70
    assert level_db(after, 2_000) == pytest.approx(-14, abs=1)
    assert room.bridge.stats()["place_swaps"] == 1
    quarters = np.abs(heard[4 * 48_000 :]).reshape(-1, 240).max(axis=1)  # of a frame, 5 ms
    first = int(np.flatnonzero(quarters > 0.14)[0]) // 4 * 4  # of the frame in which it gets its place
    assert quarters[first] < 0.7 * quarters[first + 3], "it fades in, over the whole frame"
    assert room.bridge.speaker() == "late"


def test_speakers_are_found_by_their_levels_alone():
    room = Room()
    for n in range(PLACES):
        room.talk(f"t{n}", tone(300 + 137 * n, 8.0, 0.3))
    room.talk("quiet", np.concatenate((noise(2.0, 1e-4), tone(2_000, 1.0, 0.1), noise(5.0, 1e-4))))
    room.run(range(100))
    assert "quiet" not in room.bridge.speaking()
    room.run(range(100, 140))
    assert "quiet" in room.bridge.speaking()
    room.run(range(140, 250))
    assert "quiet" not in room.bridge.speaking()
    assert room.input("quiet")["passed_by"] > 40


@pytest.mark.parametrize("told", [127, 90])
def test_who_says_silent_and_speaks_is_heard_all_the_same(told):
    room = Room()
    room.talk("liar", tone(440, 6.0), lie=lambda level: told)
    room.run(range(250))
    assert room.input("liar")["level_lies"] == 1
    assert level_db(room.heard(slice(50, 250)), 440) == pytest.approx(-14, abs=1)


def test_who_begins_to_lie_in_its_sleep_is_found_out_by_a_check():
    room = Room()
    sound = np.concatenate((noise(3.0, 2e-4), tone(440, 9.0)))
    room.talk("liar", sound, lie=lambda level: max(level, 74))
    room.run(range(500))
    assert level_db(room.heard(slice(400, 500)), 440) == pytest.approx(-14, abs=1)
    assert room.input("liar")["level_lies"] == 1


def test_who_says_loud_and_is_silent_takes_nobodys_place_for_long():
    room = Room()
    for n in range(PLACES):
        room.talk(f"liar{n}", noise(6.0, 2e-4, seed=n), lie=lambda level: 5)
    room.talk("ann", np.concatenate((noise(2.0, 1e-4), tone(440, 4.0, 0.05))))
    room.run(range(290))
    assert level_db(room.heard(slice(150, 290)), 440) == pytest.approx(-26, abs=1.5)
    assert all(room.input(f"liar{n}")["level_lies"] == 1 for n in range(PLACES))


def test_muting_in_the_middle_of_a_word_puts_the_leg_to_sleep():
    room = Room()
    room.talk("ann", tone(440, 6.0))
    room.run(range(100))
    room.bridge.set_input("ann", muted=True)
    room.run(range(100, 150))
    assert room.bridge.stats()["awake"] == 0
    assert not room.bridge.speaking()
    room.bridge.set_input("ann", muted=False)
    room.run(range(150, 200))
    assert level_db(room.heard(slice(160, 200)), 440) == pytest.approx(-14, abs=1)


def test_a_pause_of_minutes_is_survived_with_a_clock_that_drifts():
    """Five minutes of silence by levels; the sender's clock is 200 ppm slow, which makes 60 ms of it."""
    room = Room()
    encoder = make_encoder("opus", frames=1, bitrate_bps=32_000)
    room.bridge.add_input("ann", "opus")
    voice, still = voiced(2.0), noise(2.0, 1e-4)
    packets = {
        loud: [encoder.encode((voice if loud else still)[n * 960 : n * 960 + 960]) for n in range(100)]
        for loud in (False, True)
    }
    speaking = 15_050
    arrived = 0
    for n in range(speaking + 100):
        now = n * 0.02
        while arrived * 0.02 * (1 + 200e-6) <= now:
            loud = arrived >= speaking - 20
            room.bridge.push(
                "ann",
                sequence=arrived & 0xFFFF,
                timestamp=arrived * 960 & 0xFFFFFFFF,
                payload=packets[loud][arrived % 100],
                codec="opus",
                now=arrived * 0.02 * (1 + 200e-6),
                ssrc=7,
                level=20 if loud else 80,
            )
            arrived += 1
        room.bridge.tick(n, now + 0.005)
    assert room.input("ann")["slept"] > 12_000
    assert room.input("ann")["delay_ms"] < 70
    assert room.input("ann")["concealed_samples"] < 960
    assert level_dbov(room.heard(slice(-50, None))) < 25


def test_packets_name_who_is_heard_in_them_but_not_the_listener():
    room = Room()
    got: dict[str, list] = {"ann": [], "viewer": []}
    room.talk("ann", tone(440, 4.0))
    room.talk("bob", tone(1_000, 4.0, 0.1))
    room.talk("mute", noise(4.0, 1e-4))
    room.bridge.add_output("ann", got["ann"].append, codec="opus", minus="ann")
    room.bridge.add_output(
        "viewer", got["viewer"].append, codec="opus", minus=None, ptime_ms=60, bitrate_bps=12_000
    )
    room.run(range(150))
    ann, bob = csrc_of("ann"), csrc_of("bob")
    assert {csrc for packet in got["viewer"] for csrc, _ in packet.contributors} == {ann, bob}
    assert {csrc for packet in got["ann"] for csrc, _ in packet.contributors} == {bob}
    last = [packet.contributors for packet in got["viewer"] if packet.contributors][-1]
    assert dict(last) == {ann: pytest.approx(17, abs=1), bob: pytest.approx(23, abs=1)}
    assert sum(bool(packet.contributors) for packet in got["ann"]) == pytest.approx(150 / 5, abs=3)
    assert sum(bool(packet.contributors) for packet in got["viewer"]) == pytest.approx(50 / 8, abs=2)
