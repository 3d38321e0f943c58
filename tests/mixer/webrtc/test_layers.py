"""Which simulcast layer is decoded, and when it changes."""

from __future__ import annotations

from mixer.media import EncodedVideo
from mixer.video.demand import Demand
from mixer.webrtc.incoming import IncomingTrack
from mixer.webrtc.layers import ASK_AGAIN_S, SILENT_S, Layers
from tests.mixer.webrtc.test_incoming import DELTA, keyframe, packet, router
from tests.mixer.webrtc.test_offer import SIMULCAST

SMALL, MIDDLE, LARGE = (Demand(h * 16 // 9, h, 30, 1) for h in (180, 360, 720))


class Sender:
    """Three layers; a keyframe only where one was asked for, as browsers do."""

    def __init__(self) -> None:
        self.routes = router(SIMULCAST)
        self.layers = Layers(self.routes.tracks)
        self.sends = {"q": 180, "h": 360, "f": 720}
        self.sequence = 0

    def picture(self, now: float, *, keyframes: tuple[str, ...] = ()) -> list[tuple[str, bool]]:
        """Each layer sends one picture; which of them were passed on, and whether they were keyframes."""
        self.sequence += 1
        self.layers.choose(now)
        passed = []
        for rid, height in self.sends.items():
            incoming = next(t for t in self.routes.tracks if t.rid == rid)
            asked = incoming.keyframe_due(now)
            coded = keyframe(height) if asked or rid in keyframes else DELTA
            routed = self.routes.route(
                packet(height, sequence=self.sequence, mid="0", rid=rid, coded=coded), now
            )
            assert routed is not None
            frames = routed[0].frames(routed[1], now)
            passed += [(rid, frame.keyframe) for frame in self.layers.pass_on(routed[0], frames, now)]
        return passed


def run(sender: Sender, start: float, pictures: int) -> list[tuple[str, bool]]:
    return [found for n in range(pictures) for found in sender.picture(start + n / 30)]


def test_the_smallest_layer_that_fills_the_tile_is_decoded() -> None:
    for demand, rid in ((SMALL, "q"), (MIDDLE, "h"), (LARGE, "f"), (Demand(426, 240, 30, 1), "h")):
        sender = Sender()
        sender.layers.want(demand, 0.0)
        sender.picture(0.0, keyframes=("q", "h", "f"))
        run(sender, 0.1, 20)
        assert {name for name, _ in run(sender, 1.0, 5)} == {rid}, demand


def test_the_old_layer_is_shown_until_the_new_ones_keyframe() -> None:
    sender = Sender()
    sender.layers.want(SMALL, 0.0)
    sender.picture(0.0, keyframes=("q", "h", "f"))
    run(sender, 0.1, 20)
    sender.layers.want(LARGE, 1.0)
    large = next(t for t in sender.routes.tracks if t.rid == "f")
    large._keyframe_wanted = False  # the request is lost
    assert run(sender, 1.0, 10) == [("q", False)] * 10
    shown = run(sender, 1.0 + ASK_AGAIN_S, 10)  # it is asked for again
    first = next(at for at, (name, _) in enumerate(shown) if name == "f")
    assert {name for name, _ in shown[:first]} <= {"q"}
    assert shown[first] == ("f", True)
    assert shown[first + 1 :] == [("f", False)] * len(shown[first + 1 :])


def test_a_layer_that_the_sender_turns_off_is_replaced_and_taken_again() -> None:
    sender = Sender()
    sender.layers.want(LARGE, 0.0)
    sender.picture(0.0, keyframes=("q", "h", "f"))
    run(sender, 0.1, 30)
    assert sender.layers.active is not None
    assert sender.layers.active.rid == "f"
    del sender.sends["f"]  # its line is too thin for it
    shown = [found for n in range(20) for found in sender.picture(1.2 + n * SILENT_S / 10)]
    assert shown[0] == ("h", True)
    sender.sends["f"] = 720
    assert {name for name, _ in run(sender, 6.0, 30)[-5:]} == {"f"}


def test_a_layer_of_unknown_size_is_tried_when_the_others_are_too_small() -> None:
    sender = Sender()
    sender.layers.want(LARGE, 0.0)
    sender.picture(0.0, keyframes=("q",))
    assert {name for name, _ in run(sender, 0.1, 60)[-5:]} == {"f"}


def test_one_layer_is_no_simulcast() -> None:
    (incoming,) = router("video 96|a=sendonly|a=rtpmap:96 VP8/90000").tracks
    layers = Layers([incoming])
    frames = [EncodedVideo("VP8", b"x", 0, False)]
    layers.want(SMALL, 0.0)
    assert layers.pass_on(incoming, frames, 0.0) is frames
    assert layers.watched(incoming)
    assert isinstance(incoming, IncomingTrack)
    assert not incoming.keyframe_due(1.0)
