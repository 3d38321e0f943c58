"""The bridge from RTP payloads to RTP payloads: who hears what, measured in the sound that comes out."""

from __future__ import annotations

import numpy as np
import pytest

from mixer.audio.bridge import AudioBridge
from mixer.audio.codec import make_decoder, make_encoder
from mixer.errors import Conflict, NotFound
from mixer.media import EncodedAudio
from tests.mixer.audio.signals import level_db, tone, voiced

HZ = {"ann": 440.0, "bob": 1_000.0, "eve": 1_700.0}


class Caller:
    """Sends a sound in packets of 20 ms and keeps what comes back."""

    def __init__(self, bridge: AudioBridge, name: str, sound: np.ndarray | None, codec: str = "opus") -> None:
        self.bridge, self.name, self.sound, self.codec = bridge, name, sound, codec
        self.received: list[EncodedAudio] = []
        self._encoder = make_encoder(codec, frames=1, bitrate_bps=32_000)
        if sound is not None:
            bridge.add_input(name, codec)

    def listen(self, **options) -> Caller:
        self.bridge.add_output(
            self.name, self.received.append, **{"codec": self.codec, "minus": self.name, **options}
        )
        return self

    def send(self, n: int, now: float) -> None:
        if self.sound is None:
            return
        pcm = self.sound[n * 960 : n * 960 + 960]
        step = 960 if self.codec == "opus" else 160
        self.bridge.push(
            self.name,
            sequence=(65_500 + n) & 0xFFFF,
            timestamp=(2**32 - 9_000 + n * step) & 0xFFFFFFFF,
            payload=self._encoder.encode(pcm),
            codec=self.codec,
            now=now,
            ssrc=7,
        )

    def heard(self) -> np.ndarray:
        decoder = make_decoder(self.received[0].codec)
        return np.concatenate([decoder.decode(packet.data) for packet in self.received])


def run(bridge: AudioBridge, callers: list[Caller], ticks: range) -> None:
    for n in ticks:
        for caller in callers:
            caller.send(n, n * 0.02)
        bridge.tick(n, n * 0.02 + 0.005)


def three(codec: str = "opus", seconds: float = 3.0, **options) -> tuple[AudioBridge, dict[str, Caller]]:
    bridge = AudioBridge()
    callers = {
        name: Caller(bridge, name, tone(hz, seconds), codec).listen(**options) for name, hz in HZ.items()
    }
    callers["viewer"] = Caller(bridge, "viewer", None, codec).listen(**{**options, "minus": None})
    return bridge, callers


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("opus", {}),
        ("opus", {"ptime_ms": 60, "bitrate_bps": 16_000}),
        ("PCMU", {}),
        ("PCMA", {}),
        ("G722", {}),
    ],
)
def test_everyone_hears_the_others_and_nobody_themselves(codec, options):
    bridge, callers = three(codec, 4.0, **options)
    run(bridge, list(callers.values()), range(200))
    for name, caller in callers.items():
        sound = caller.heard()[96_000:]  # Opus with FEC takes a second or two to get used to three tones
        for other, hz in HZ.items():
            sent = level_db(tone(hz, 1.0), hz)
            if other == name:
                assert level_db(sound, hz) < sent - 40
            elif options:  # 16 kbit/s is meant for one voice, three tones are a strain
                assert level_db(sound, hz) == pytest.approx(sent, abs=4.0)
            else:
                assert level_db(sound, hz) == pytest.approx(sent, abs=1.0)


def test_telephones_and_browsers_hear_each_other():
    bridge = AudioBridge()
    ann = Caller(bridge, "ann", tone(440, 2), "opus").listen()
    bob = Caller(bridge, "bob", tone(1_000, 2), "PCMA").listen()
    run(bridge, [ann, bob], range(100))
    assert level_db(ann.heard()[48_000:], 1_000) == pytest.approx(-14, abs=1)
    assert level_db(bob.heard()[48_000:], 440) == pytest.approx(-14, abs=1)
    assert level_db(bob.heard()[48_000:], 1_000) < -60


def test_all_who_are_silent_share_one_encoder():
    bridge = AudioBridge()
    silence = np.zeros(96_000, np.float32)
    talker = Caller(bridge, "ann", tone(440, 2)).listen()
    silent = [Caller(bridge, f"s{n}", silence).listen() for n in range(5)]
    viewer = Caller(bridge, "viewer", None).listen(minus=None)
    run(bridge, [talker, *silent, viewer], range(100))
    packets = [[packet.data for packet in listener.received] for listener in (*silent, viewer)]
    assert all(got == packets[0] for got in packets)
    stats = bridge.stats()
    assert stats["shared_packets"] == 100
    assert 90 <= stats["personal_packets"] <= 100  # the talker's alone


def test_a_muted_or_turned_down_talker_costs_no_encoder():
    bridge, callers = three()
    run(bridge, list(callers.values()), range(20))
    bridge.set_input("ann", muted=True)
    run(bridge, list(callers.values()), range(20, 60))
    before = bridge.stats()["personal_packets"]
    run(bridge, list(callers.values()), range(60, 100))
    assert bridge.stats()["personal_packets"] - before == 80  # bob's and eve's


@pytest.mark.parametrize("ptime_ms", [20, 60])
def test_who_begins_in_mid_packet_and_stops_hears_no_bit_of_themselves(ptime_ms):
    bridge = AudioBridge()
    bursts = tone(440, 6.0)
    for start in range(0, 300, 100):  # half a second of sound, one and a half of silence, at odd ticks
        bursts[(start + 26) * 960 : (start + 101) * 960] = 0
    ann = Caller(bridge, "ann", bursts).listen(ptime_ms=ptime_ms)
    viewer = Caller(bridge, "viewer", None).listen(minus=None, ptime_ms=ptime_ms)
    run(bridge, [ann, viewer], range(300))
    assert level_db(viewer.heard()[:24_000], 440) > -20
    own = ann.heard()
    assert max(np.abs(own[at : at + 960]).max() for at in range(0, len(own), 960)) < 0.2 * 10 ** (-30 / 20)
    assert {packet.samples for packet in ann.received} == {ptime_ms * 48}


def test_switching_between_shared_and_own_mix_does_not_click():
    """Bob talks on and on; Ann puts in words. What Ann hears of Bob must have no joints."""
    bridge = AudioBridge()
    words = tone(440, 8.0)
    for start in range(0, 400, 100):
        words[start * 960 : (start + 80) * 960] = 0
    hum = voiced(8.0)
    bob = Caller(bridge, "bob", hum).listen()
    ann = Caller(bridge, "ann", words).listen()
    viewer = Caller(bridge, "viewer", None).listen(minus=None)
    run(bridge, [bob, ann, viewer], range(400))
    jumps = np.abs(np.diff(ann.heard()[48_000:]))
    assert 60 < bridge.stats()["personal_packets"] - 400 < 330  # Ann did change over, more than once
    assert jumps.max() < 1.3 * np.abs(np.diff(hum)).max()


def test_muting_takes_effect_at_the_next_tick_and_nothing_old_comes_out_later():
    bridge, callers = three()
    everyone = list(callers.values())
    run(bridge, everyone, range(60))
    bridge.set_input("bob", muted=True)
    run(bridge, everyone, range(60, 80))
    assert "bob" not in bridge.speaking()
    assert bridge.stats()["inputs"]["bob"]["dropped_muted"] == 19
    callers["viewer"].received.clear()
    bridge.set_input("bob", muted=False)
    callers["bob"].sound = np.zeros(200_000, np.float32)
    run(bridge, everyone, range(80, 120))
    assert level_db(callers["viewer"].heard()[4_800:], 1_000) < -50
    assert level_db(callers["viewer"].heard()[4_800:], 440) > -16


def test_volume_is_a_factor():
    bridge, callers = three("PCMU")
    bridge.set_input("ann", volume=0.25)
    run(bridge, list(callers.values()), range(100))
    assert level_db(callers["viewer"].heard()[48_000:], 440) == pytest.approx(-14 - 12, abs=1)


def test_twenty_shouting_callers_stay_in_range_and_the_recorder_too():
    bridge = AudioBridge()
    callers = [Caller(bridge, f"c{n}", tone(200 + 50 * n, 1, 0.9), "PCMU") for n in range(20)]
    peaks: list[float] = []
    bridge.set_recorder(lambda pcm, pts: peaks.append(float(np.abs(pcm).max())))
    run(bridge, callers, range(50))
    assert 0.9 < max(peaks) <= 1.0


def test_who_is_left_out_of_the_recording_is_heard_by_all_but_it():
    bridge, callers = three(seconds=4.0)
    taken: list[np.ndarray] = []
    bridge.set_recorder(lambda pcm, pts: taken.append(pcm.copy()))
    run(bridge, list(callers.values()), range(100))
    bridge.leave_out_of_recording(frozenset({"bob"}))
    run(bridge, list(callers.values()), range(100, 200))
    before, after = np.concatenate(taken[50:100]), np.concatenate(taken[100:])
    sent = level_db(tone(HZ["bob"], 1.0), HZ["bob"])
    assert level_db(before, HZ["bob"]) == pytest.approx(sent, abs=1.5)
    assert level_db(after, HZ["bob"]) < sent - 60
    for name in ("ann", "eve"):
        assert level_db(after, HZ[name]) == pytest.approx(level_db(before, HZ[name]), abs=0.5)
    assert level_db(callers["viewer"].heard()[-96_000:], HZ["bob"]) == pytest.approx(sent, abs=1.5)


def test_the_recorder_sees_every_tick_even_those_that_were_left_out():
    bridge, callers = three()
    times: list[int] = []
    bridge.set_recorder(lambda pcm, pts: times.append(pts) if pcm.shape == (960,) else None)
    for n in range(60):
        for caller in callers.values():
            caller.send(n, n * 0.02)
        if n not in (30, 31, 45):
            bridge.tick(n, n * 0.02 + 0.005)
    assert times == [960 * n for n in range(60)]
    assert bridge.stats()["skipped"] == 3


def test_left_out_ticks_do_not_add_delay():
    bridge, callers = three()
    for n in range(100):
        for caller in callers.values():
            caller.send(n, n * 0.02)
        if not 40 <= n < 50:
            bridge.tick(n, n * 0.02 + 0.005)
    for inbound in bridge.stats()["inputs"].values():
        assert inbound["delay_ms"] < 60
    times = [packet.pts for packet in callers["viewer"].received]
    assert times == [960 * n for n in range(100) if not 40 <= n < 50]


@pytest.mark.parametrize("left_out", [{31}, {32}, {33}, {31, 32, 33}, {32, 33}, set(range(30, 44))])
def test_long_packets_keep_their_times_when_ticks_are_left_out(left_out):
    bridge, callers = three(ptime_ms=60)
    for n in range(90):
        for caller in callers.values():
            caller.send(n, n * 0.02)
        if n not in left_out:
            bridge.tick(n, n * 0.02 + 0.005)
    for caller in callers.values():
        times = [packet.pts for packet in caller.received]
        assert times == sorted(set(times))
        assert all(pts % 2_880 == 0 for pts in times)
        assert len(times) >= 30 - len(left_out) // 3 - 2


def test_one_legs_broken_packets_cost_only_its_own_voice():
    bridge, callers = three()
    rng = np.random.default_rng(1)
    for n in range(100):
        for caller in callers.values():
            if caller.name != "eve":
                caller.send(n, n * 0.02)
        junk = bytes([0xFF]) + rng.bytes(int(rng.integers(0, 50)))  # code 3, mostly with impossible lengths
        bridge.push("eve", sequence=n, timestamp=n * 960, payload=junk, codec="opus", now=n * 0.02)
        bridge.tick(n, n * 0.02 + 0.005)
    stats = bridge.stats()["inputs"]["eve"]
    assert stats["decode_errors"] + stats["malformed"] > 50
    assert level_db(callers["ann"].heard()[48_000:], 1_000) == pytest.approx(-14, abs=1)


def test_a_decoder_that_raises_anything_costs_only_its_own_voice(monkeypatch):
    bridge, callers = three()

    class Broken:
        fec = False

        def decode(self, payload):
            raise RuntimeError("cannot be")

        conceal = recover = decode

        def reset(self):
            pass

    monkeypatch.setattr(bridge._legs["eve"], "_decoder", Broken())
    run(bridge, list(callers.values()), range(100))
    assert bridge.stats()["inputs"]["eve"]["decode_errors"] > 90
    assert level_db(callers["ann"].heard()[48_000:], 1_000) == pytest.approx(-14, abs=1)


def test_a_sink_that_raises_is_counted_and_the_others_go_on():
    bridge, callers = three()

    def broken(*_args) -> None:
        raise ConnectionError("gone")

    bridge.add_output("broken", broken, codec="opus", minus=None)
    bridge.set_recorder(broken)
    run(bridge, list(callers.values()), range(20))
    assert bridge.stats()["outputs"]["broken"]["sink_errors"] == 20
    assert bridge.stats()["recorder_errors"] == 20
    assert len(callers["viewer"].received) == 20


def test_a_sink_may_remove_its_own_output():
    bridge, callers = three()
    bridge.add_output("once", lambda packet: bridge.remove_output("once"), codec="opus", minus=None)
    run(bridge, list(callers.values()), range(5))
    assert "once" not in bridge.stats()["outputs"]
    assert len(callers["viewer"].received) == 5


def test_encoders_go_with_their_last_listener():
    bridge, _ = three()
    bridge.add_output("low", lambda packet: None, codec="opus", minus=None, ptime_ms=60, bitrate_bps=16_000)
    assert bridge.stats()["shared_encoders"] == 2
    bridge.remove_output("low")
    assert bridge.stats()["shared_encoders"] == 1
    bridge.remove_output("nobody")


def test_who_speaks_and_who_has_the_floor():
    bridge = AudioBridge()
    quiet = np.zeros(480_000, np.float32)
    ann, bob = Caller(bridge, "ann", tone(440, 10)), Caller(bridge, "bob", quiet)
    run(bridge, [ann, bob], range(50))
    assert bridge.speaking() == ("ann",)
    assert bridge.speaker() == "ann"
    bridge.remove_input("ann")
    assert bridge.speaking() == ()
    assert bridge.speaker() is None


def test_a_leg_may_change_its_codec():
    bridge, callers = three("PCMU")
    run(bridge, list(callers.values()), range(50))
    other = Caller(AudioBridge(), "ann", tone(440, 3), "opus")
    other.bridge = bridge
    callers["ann"] = other
    callers["viewer"].received.clear()
    run(bridge, list(callers.values()), range(50, 120))
    assert level_db(callers["viewer"].heard()[24_000:], 440) == pytest.approx(-14, abs=1)


def test_levels_travel_with_the_packets():
    bridge, callers = three()
    run(bridge, list(callers.values()), range(50))
    assert callers["viewer"].received[0].level_dbov == 127
    assert callers["viewer"].received[-1].level_dbov == pytest.approx(12, abs=1)  # three sines of -17 dBov


def test_what_cannot_be_is_refused():
    bridge, _ = three()
    with pytest.raises(Conflict):
        bridge.add_input("ann", "opus")
    with pytest.raises(Conflict):
        bridge.add_output("ann", print, codec="opus", minus=None)
    with pytest.raises(NotFound):
        bridge.set_input("nobody", muted=True)
    with pytest.raises(ValueError, match="30"):
        bridge.add_output("x", print, codec="opus", minus=None, ptime_ms=30)
    bridge.tick(5, 0.1)
    with pytest.raises(ValueError, match="tick 5"):
        bridge.tick(5, 0.1)
    bridge.push("nobody", sequence=1, timestamp=1, payload=b"x", codec="opus", now=0.1)
    assert bridge.stats()["unknown_leg"] == 1


def test_what_was_said_just_before_muting_does_not_come_out_at_unmuting():
    """Packets wait 40 ms in the jitter buffer; Ann mutes herself before her first word has been mixed."""
    bridge = AudioBridge()
    sound = np.zeros(200 * 960, np.float32)
    sound[60 * 960 : 62 * 960] = tone(440, 0.04, 0.8)
    ann = Caller(bridge, "ann", sound)
    viewer = Caller(bridge, "viewer", None).listen(minus=None)
    run(bridge, [ann], range(60))
    ann.send(60, 1.2)
    ann.send(61, 1.22)
    bridge.set_input("ann", muted=True)
    run(bridge, [], range(60, 80))
    bridge.set_input("ann", muted=False)
    run(bridge, [], range(80, 100))
    assert np.abs(viewer.heard()).max() < 0.01


def test_the_own_encoder_outlasts_the_last_word_by_gate_and_hold():
    bridge = AudioBridge()
    sound = tone(440, 6.0)
    sound[50 * 960 :] = 0
    ann = Caller(bridge, "ann", sound).listen()
    viewer = Caller(bridge, "viewer", None).listen(minus=None)
    run(bridge, [ann, viewer], range(250))
    # 50 ticks of sound, 40 until the gate closes (0.8 s), 25 of hold (0.5 s); a few for ramps and ringing.
    assert 110 <= bridge.stats()["personal_packets"] <= 122


def test_ticks_that_were_left_out_cost_no_priming(monkeypatch):
    """A machine that was too late must not be given three times the work for it."""
    primed: list[int] = []

    class Counting:
        def encode(self, pcm):
            return b"packet"

        def prime(self, pcm):
            primed.append(len(pcm))

    monkeypatch.setattr("mixer.audio.outlet.make_encoder", lambda codec, **settings: Counting())
    bridge = AudioBridge()
    got = []
    bridge.add_output("listener", got.append, codec="opus", minus=None)
    for index in (0, 1, 2, 7, 8, 20, 21):
        bridge.tick(index, index * 0.02)
    assert [frame.pts // 960 for frame in got] == [0, 1, 2, 7, 8, 20, 21]
    assert len(primed) == 1, "at the very beginning only"


def test_packets_carry_earlier_ones_again_and_they_are_made_once():
    bridge, callers = three()
    packets: dict[str, list[EncodedAudio]] = {name: [] for name in ("one", "two", "plain")}
    for name, taken in packets.items():
        repeats = (1, 5) if name != "plain" else ()
        bridge.add_output(name, taken.append, codec="opus", minus=None, repeats=repeats)
    run(bridge, list(callers.values()), range(20))
    one = packets["one"]
    assert all(a is b for a, b in zip(one, packets["two"], strict=True)), "one packet for both"
    assert not any(packet.earlier for packet in packets["plain"])
    assert [len(packet.earlier) for packet in one[:7]] == [0, 1, 1, 1, 1, 2, 2]
    for number in range(5, 20):
        assert one[number].earlier == ((5 * 960, one[number - 5].data), (960, one[number - 1].data))


def test_what_a_speaker_is_sent_again_is_what_it_was_sent():
    """In the shared packets is its own voice, once it speaks; before, there was nothing else."""
    bridge, sent = AudioBridge(), []
    ann = Caller(bridge, "ann", np.concatenate((np.zeros(48_000, np.float32), tone(440, 1.0))))
    bob = Caller(bridge, "bob", voiced(2.0))
    bridge.add_output("ann", sent.append, codec="opus", minus="ann", repeats=(5, 1))
    bridge.add_output("eve", lambda packet: None, codec="opus", minus=None, repeats=(5, 1))
    run(bridge, [ann, bob], range(90))
    assert bridge.stats()["outputs"]["ann"]["personal"], "it has packets of its own"
    for number in range(5, 90):
        assert sent[number].earlier == ((5 * 960, sent[number - 5].data), (960, sent[number - 1].data))
