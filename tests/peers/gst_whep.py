"""Watches by GStreamer's webrtcbin over WHEP. Run by the system's Python, which has the bindings:

    /usr/bin/python3 gst_whep.py URL TOKEN

Nothing of ours is imported. Besides a camera and a voice it offers a section that nobody here can answer (H.265).
Runs until it is ended; prints ``picture WIDTH`` for each one decoded, ``sound`` for each buffer of decoded sound.
"""

import sys
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstWebRTC  # noqa: E402 - versions come first
from gst_signalling import signal  # noqa: E402 - beside this script

CAPS = (
    "application/x-rtp,media=video,encoding-name=VP8,clock-rate=90000,payload=96",
    "application/x-rtp,media=audio,encoding-name=OPUS,clock-rate=48000,encoding-params=(string)2,payload=97",
    "application/x-rtp,media=video,encoding-name=H265,clock-rate=90000,payload=98",
)
DECODED = {
    "video": "rtpvp8depay request-keyframe=true wait-for-keyframe=true ! vp8dec ! fakesink name=end sync=false",
    "audio": "rtpopusdepay ! opusdec ! fakesink name=end sync=false",
}


def main() -> None:
    url, token = sys.argv[1:3]
    Gst.init(None)
    pipeline = Gst.Pipeline.new(None)
    peer = Gst.ElementFactory.make("webrtcbin", "peer")
    peer.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
    pipeline.add(peer)
    kept = signal(peer, url, token)  # noqa: F841 - see there
    loop = GLib.MainLoop()

    def decoded(pad: Any, _: Any) -> Any:
        caps = pad.get_current_caps().get_structure(0)
        print(f"picture {caps.get_value('width')}" if caps.has_field("width") else "sound", flush=True)
        return Gst.PadProbeReturn.OK

    def added(_: Any, pad: Any) -> None:
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        kind = pad.get_current_caps().get_structure(0).get_value("media")
        sink = Gst.parse_bin_from_description(DECODED[kind], True)
        pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))
        sink.get_by_name("end").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, decoded)

    peer.connect("pad-added", added)
    for caps in CAPS:
        direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        peer.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()


main()
