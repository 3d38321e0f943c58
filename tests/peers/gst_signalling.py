"""The HTTP side of GStreamer's webrtcbin, for both ways (RFC 9725; WHEP is the same). Nothing of ours is imported."""

import urllib.request
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402 - versions come first


def signal(peer: Any, url: str, token: str) -> Any:
    """Have ``peer`` offer itself at ``url`` once it plays, and take the answer. What is returned is to be kept."""
    # The test server listens on the loopback only, and libnice ties each socket to its network interface.
    agent = peer.get_property("ice-agent")  # this binding gives us a reference that it takes back
    agent.emit("add-local-ip-address", "127.0.0.1")

    def gathered(element: Any, _: Any) -> None:
        if element.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        offer = element.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(
            url,
            data=offer.encode(),
            method="POST",
            headers={"Content-Type": "application/sdp", "Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read()
        _, answer = GstSdp.SDPMessage.new()
        GstSdp.sdp_message_parse_buffer(text, answer)
        described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, answer)
        element.emit("set-remote-description", described, Gst.Promise.new())

    def offered(promise: Any, element: Any) -> None:
        reply = promise.get_reply()  # owns the offer: must outlive it
        element.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def needed(element: Any) -> None:
        element.emit("create-offer", None, Gst.Promise.new_with_change_func(offered, element))

    peer.connect("on-negotiation-needed", needed)
    peer.connect("notify::ice-gathering-state", gathered)
    return agent
