"""The numbers of one connection, as ``GET …/stats`` shows them. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mixer.webrtc.feedback import Feedback
from mixer.webrtc.incoming import Router
from mixer.webrtc.mix import MixOut


def received_stats(
    router: Router, feedback: Feedback, transport: Counter[str], rtt_s: float | None
) -> dict[str, Any]:
    """Of what a peer sends us. ``transport``: what its transport dropped, by reason; shown with the router's."""
    tracks = router.tracks
    assemblers = [incoming.assembler for incoming in tracks if incoming.assembler is not None]
    return {
        "packets": sum(incoming.stats.received for incoming in tracks),
        "lost": sum(max(0, incoming.stats.lost) for incoming in tracks),
        "recovered": sum(assembler.recovered for assembler in assemblers)
        + sum(incoming.red.recovered for incoming in tracks if incoming.red is not None)
        + sum(incoming.gaps.recovered for incoming in tracks if incoming.gaps is not None),
        "jitter_ms": round(max((incoming.stats.jitter_ms for incoming in tracks), default=0.0), 2),
        "rtt_ms": round(rtt_s * 1000, 1) if rtt_s is not None else None,
        "asked_kbps": round(feedback.asked_bps / 1000),
        "received_kbps": round(feedback.received_bps / 1000),
        "layer": feedback.layer,
        "frames": sum(assembler.frames for assembler in assemblers),
        "frames_dropped": sum(assembler.dropped for assembler in assemblers),
        "nacks": sum(incoming.nacks for incoming in tracks),
        "plis": sum(incoming.plis for incoming in tracks),
        "dropped": dict(router.dropped + transport),
    }


def sent_stats(mix: MixOut, transport: Counter[str], now: float) -> dict[str, Any]:
    """Of the mix that we send it. ``transport``: as above; what it could not send was not sent by ``mix`` either."""
    counters = mix.counters
    streams = [stream for stream in (mix.video, mix.audio) if stream is not None]
    return {
        "packets": sum(stream.packets for stream in streams),
        "lost": max(0, counters.remote.packets_lost) if counters.remote else 0,
        "repeated": sum(stream.repeated for stream in streams),
        "refused": sum(stream.refused for stream in streams),
        "nacks": counters.nacks,
        "plis": counters.plis,
        "queued": mix.queued,
        "dropped": mix.dropped + transport["send"],
        "choked": counters.choked,
        "padded": counters.padded,
        "unasked": counters.unasked,
        **mix.downlink.stats(now),
    }
