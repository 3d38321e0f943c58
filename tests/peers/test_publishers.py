"""ffmpeg 8 and GStreamer publish into one room: their colours are in their tiles, their tones in the right ears."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.peers import canvas, publishers
from tests.peers.spare import with_time_to_spare
from tests.peers.watcher import watching
from tests.serving import Server

ORANGE, TEAL = (220, 120, 30), (20, 150, 140)
FFMPEG_HZ, GST_HZ = 523, 811
ABSENT_DB = 30.0  # the issue: one's own tone is absent by at least this


@pytest.mark.peer("ffmpeg8", "gstreamer")
@with_time_to_spare
async def test_colours_in_their_tiles_and_tones_in_the_right_ears(server: Server, tmp_path: Path) -> None:
    room = server.room("publishers")
    first, second = server.enter(room, name="ffmpeg"), server.enter(room, name="GStreamer")
    guest = server.enter(room, "viewer")
    whip = f"{server.url}/whip/{room}"
    # `auto` may send a smaller picture, and the tiles are elsewhere in that
    whep = f"{server.url}/whep/{room}?rendition=high"
    with (
        publishers.ffmpeg(whip, first["token"], tmp_path / "ffmpeg.log", rgb=ORANGE, tone_hz=FFMPEG_HZ) as ff,
        publishers.gstreamer(whip, second["token"], tmp_path / "gst.log", rgb=TEAL, tone_hz=GST_HZ) as gst,
    ):
        try:
            await asyncio.to_thread(canvas.await_colour, server, room, first["sub"], ORANGE)
            await asyncio.to_thread(canvas.await_colour, server, room, second["sub"], TEAL)
        except AssertionError as error:
            pytest.fail(f"{error}\nffmpeg: {ff.output()}\nGStreamer: {gst.output()}")
        names = {one["id"]: one["name"] for one in server.call("GET", f"/v1/rooms/{room}/participants")}
        assert names == {first["sub"]: "ffmpeg", second["sub"]: "GStreamer"}

        async with (
            watching(whep, guest["token"]) as anybody,
            watching(whep, first["token"]) as ears_of_ffmpeg,
            watching(whep, second["token"]) as ears_of_gst,
        ):
            places = canvas.tiles(server, room)
            shown = await anybody.picture(after=15)
            assert canvas.near(canvas.colour(shown, places[first["sub"]]), ORANGE)
            assert canvas.near(canvas.colour(shown, places[second["sub"]]), TEAL)
            assert shown.shape == (720, 1280, 3)

            both = [await anybody.level_db(hz) for hz in (FFMPEG_HZ, GST_HZ)]
            assert min(both) > -45, f"a guest hears both: {both}"
            for watcher, own, other in (
                (ears_of_ffmpeg, FFMPEG_HZ, GST_HZ),
                (ears_of_gst, GST_HZ, FFMPEG_HZ),
            ):
                heard_own, heard_other = await asyncio.gather(watcher.level_db(own), watcher.level_db(other))
                assert heard_other > -45
                assert heard_other - heard_own >= ABSENT_DB, (
                    f"own {heard_own:.1f}, other {heard_other:.1f} dB"
                )

            before = anybody.frames
            first_look = await anybody.picture()
            second_look = await anybody.picture(after=before + 30)
            assert np.abs(first_look.astype(int) - second_look).max() > 60, "the clock in the picture runs"
