"""Which simulcast layer is decoded, and when it changes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from mixer.media import EncodedVideo
from mixer.video.demand import Demand, demands
from mixer.video.layout import Fit, Tile
from mixer.video.rendition import RENDITIONS
from mixer.webrtc.incoming import IncomingTrack
from mixer.webrtc.layers import ASK_AGAIN_S, ENOUGH, SILENT_S, Layers
from tests.mixer.webrtc.test_incoming import DELTA, keyframe, packet, router
from tests.mixer.webrtc.test_offer import SIMULCAST

SIZES = {"q": (320, 180), "h": (640, 360), "f": (1280, 720)}
SMALL, MIDDLE, LARGE = (Demand(h * 16 // 9, h, 30, 1) for h in (180, 360, 720))


class Sender:
    """Three layers; a keyframe only where one was asked for, as browsers do."""

    def __init__(self, sizes: Mapping[str, tuple[int, int]] = MappingProxyType(SIZES)) -> None:
        self.routes = router(SIMULCAST)
        self.layers = Layers(self.routes.tracks)
        self.sends = dict(sizes)
        self.sequence = 0

    def picture(self, now: float, *, keyframes: tuple[str, ...] = ()) -> list[tuple[str, bool]]:
        """Each layer sends one picture; which of them were passed on, and whether they were keyframes."""
        self.sequence += 1
        self.layers.choose(now)
        passed = []
        for rid, size in self.sends.items():
            incoming = next(t for t in self.routes.tracks if t.rid == rid)
            asked = incoming.keyframe_due(now)
            coded = keyframe(size[1], size[0]) if asked or rid in keyframes else DELTA
            routed = self.routes.route(
                packet(sum(size), sequence=self.sequence, mid="0", rid=rid, coded=coded), now
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


UPRIGHT = {"q": (180, 320), "h": (360, 640), "f": (720, 1280)}
LYING = {"q": (320, 180), "h": (640, 360), "f": (1280, 720)}


@pytest.mark.parametrize(
    ("layers", "tile", "fit", "rid"),
    [
        (LYING, (426, 240), "cover", "h"),
        (LYING, (426, 240), "contain", "h"),
        (LYING, (320, 180), "cover", "q"),
        (LYING, (240, 426), "cover", "h"),
        (LYING, (240, 426), "contain", "q"),
        (UPRIGHT, (426, 240), "cover", "h"),  # 180×320 would be scaled up 2.4 times
        (UPRIGHT, (426, 240), "contain", "q"),
        (UPRIGHT, (640, 360), "cover", "f"),
        (UPRIGHT, (640, 360), "contain", "q"),
        (UPRIGHT, (1280, 720), "contain", "h"),
        (UPRIGHT, (1280, 720), "cover", "f"),
    ],
)
def test_the_layer_fills_its_tile_whichever_way_a_camera_is_held(
    layers: dict[str, tuple[int, int]], tile: tuple[int, int], fit: Fit, rid: str
) -> None:
    """With the loop closed: what has been decoded last is the shape that is asked for next."""
    sender, shown = Sender(layers), {}
    for step in range(90):
        place = [Tile("t", "a", 0, 0, *tile, 0, fit, "", "participant")]
        wanted = demands(place, (1280, 720, 30), [RENDITIONS["high"]], "#screen", shown)["a"]
        sender.layers.want(wanted, step / 30)
        for name, _ in sender.picture(step / 30, keyframes=() if step else ("q", "h", "f")):
            shown = {"a": layers[name]}
    assert shown == {"a": layers[rid]}
    scales = [edge / of_layer for edge, of_layer in zip(tile, layers[rid], strict=True)]
    assert rid == "f" or (max(scales) if fit == "cover" else min(scales)) <= 1 / ENOUGH


def test_a_layer_must_fill_both_edges_of_what_is_asked_for() -> None:
    """Before the shape is known to who asks: 180×320 is higher than a tile of 426×240, and less than half as wide."""
    sender = Sender(UPRIGHT)
    sender.layers.want(Demand(426, 240, 30, 1), 0.0)
    sender.picture(0.0, keyframes=("q", "h", "f"))
    assert {name for name, _ in run(sender, 0.1, 30)[-5:]} == {"h"}


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
    sender.sends["f"] = SIZES["f"]
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
