"""Publishes by GStreamer's webrtcbin over WHIP. Run by the system's Python, which has the bindings:

    /usr/bin/python3 gst_whip.py URL TOKEN COLOUR(0xAARRGGBB) TONE_HZ

Nothing of ours is imported. webrtcbin of GStreamer 1.22 makes an RSA certificate for DTLS, which is what the
test is about. Runs until it is ended; prints ``connected`` when ICE is.
"""

import sys
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstWebRTC  # noqa: E402 - versions come first
from gst_signalling import signal  # noqa: E402 - beside this script

PIPELINE = """
webrtcbin name=peer bundle-policy=max-bundle
videotestsrc is-live=true pattern=solid-color foreground-color={colour}
  ! video/x-raw,width=640,height=360,framerate=30/1 ! timeoverlay font-desc="Sans 40" ! videoconvert
  ! vp8enc deadline=1 cpu-used=8 target-bitrate=800000 keyframe-max-dist=60
  ! rtpvp8pay picture-id-mode=15-bit ! application/x-rtp,media=video,encoding-name=VP8,payload=96 ! peer.
audiotestsrc is-live=true wave=sine volume=0.1 freq={tone_hz} samplesperbuffer=960
  ! audio/x-raw,rate=48000,channels=1 ! audioconvert ! opusenc bitrate=32000
  ! rtpopuspay ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer.
"""


def main() -> None:
    url, token, colour, tone_hz = sys.argv[1:5]
    Gst.init(None)
    pipeline = Gst.parse_launch(PIPELINE.format(colour=int(colour, 16), tone_hz=tone_hz))
    peer = pipeline.get_by_name("peer")
    kept = signal(peer, url, token)  # noqa: F841 - see there
    for index in range(2):
        transceiver = peer.emit("get-transceiver", index)
        transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
    loop = GLib.MainLoop()

    def changed(element: Any, _: Any) -> None:
        state = element.get_property("connection-state").value_nick
        print(state, flush=True)
        if state == "failed":
            loop.quit()

    def message(_: Any, note: Any) -> None:
        if note.type in (Gst.MessageType.ERROR, Gst.MessageType.EOS):
            print(note.parse_error() if note.type == Gst.MessageType.ERROR else "eos", flush=True)
            loop.quit()

    peer.connect("notify::connection-state", changed)
    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", message)
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)


main()
