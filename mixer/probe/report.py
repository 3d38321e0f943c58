"""What a probe found, whether that is healthy, and a table of it for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mixer.probe.signal import percentile


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure that must not be above ``most`` for the room to count as healthy."""

    most: float
    unit: str
    why: str


# The line between healthy and not for an operator's room over a real network. `make bench` has tighter ones,
# for a machine of its own.
LIMITS: Final[dict[str, Limit]] = {
    "video_p95_ms": Limit(400, "ms", "ITU-T G.114: above 400 ms one way people talk over each other"),
    "audio_p95_ms": Limit(300, "ms", "G.114's 400 ms less what the ends need"),
    "skew_ms": Limit(80, "ms", "ITU-R BT.1359: lips that lag by less are not noticed by most"),
    "loss_percent": Limit(2, "%", "what Opus' FEC still hides over two hops"),
    "frozen_percent": Limit(2, "%", "one visible stop a minute"),
    "echo_db": Limit(-30, "dB", "the contract's own bound for a participant's own voice"),
    "join_p95_ms": Limit(3000, "ms", "people reload a page that shows nothing for longer"),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """All measured; None: not measured (no video, too short, nobody was heard).

    ``video_*_ms``: from the last packet of a picture handed to the caller's socket, to that picture decoded
    at the viewer, inside a tile. ``audio_*_ms``: from the packet that holds the edge of a pip handed to the
    caller's socket, to the packet that holds it in the mix received at the viewer; a receiver's own jitter
    buffer comes on top of both. ``skew_ms``: picture later than sound (+) or before (-) on the clock of the
    server's sender reports, which is what a player synchronises by; worst caller's median.
    ``loss_percent``: worst of every way in (as the server reports it) and every way out. ``frozen_percent``:
    share of time in which callers' pictures stood still while they had a tile, mean, at a viewer with a player's
    jitter buffer (``display``); ``stalled_percent``: at one that shows what comes when it comes. ``echo_db``: a
    caller's own tone in the mix it gets back, against the level it was sent at, worst 2 s.
    ``concealed_*_percent``: share of the sound that was invented, of the
    callers' as the server says it, mean, and of the mix on its way to the
    viewer; what FEC brings back is not invented. ``*_growth_ms``: median delay of the second half less that of
    the first.
    ``join_*_ms``: viewers, from POST to the first decoded picture. ``late_p95_ms``: how late this generator itself
    sent; large means this machine, not the server, is what was measured.
    """

    callers: int
    viewers: int
    seconds: float
    seen: int
    heard: int
    video_p50_ms: float | None = None
    video_p95_ms: float | None = None
    audio_p50_ms: float | None = None
    audio_p95_ms: float | None = None
    skew_ms: float | None = None
    loss_percent: float | None = None
    frozen_percent: float | None = None
    stalled_percent: float | None = None
    echo_db: float | None = None
    concealed_in_percent: float | None = None
    concealed_out_percent: float | None = None
    video_growth_ms: float | None = None
    audio_growth_ms: float | None = None
    join_p50_ms: float | None = None
    join_p95_ms: float | None = None
    connect_p95_ms: float | None = None
    fps: float | None = None
    kbps_per_viewer: float | None = None
    late_p95_ms: float | None = None
    pictures: int = 0
    pips: int = 0
    lost_sessions: tuple[str, ...] = field(default_factory=tuple)


def faults(figures: Figures, *, expect_video: bool) -> list[str]:
    """What is not healthy, a sentence each; empty: all is well."""
    found = []
    for name, limit in LIMITS.items():
        value = getattr(figures, name)
        if value is not None and (abs(value) if name == "skew_ms" else value) > limit.most:
            found.append(f"{name} is {value:.1f} {limit.unit}, more than {limit.most:g} ({limit.why})")
    if expect_video and figures.seen < figures.callers:
        found.append(f"{figures.callers - figures.seen} of {figures.callers} callers were never seen")
    audible = max(0, figures.callers - 1)  # the observer listens with the first caller's ears
    if figures.heard < audible:
        found.append(f"{audible - figures.heard} of {audible} other callers were never heard")
    found += [f"a session was lost: {reason}" for reason in figures.lost_sessions]
    return found


def as_json(figures: Figures, problems: Sequence[str]) -> dict[str, Any]:
    """The report as JSON: the figures, ``healthy``, ``faults``."""
    rounded = {
        name: round(value, 2) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(figures).items()
    }
    return {**rounded, "healthy": not problems, "faults": list(problems)}


def spread(samples_s: Sequence[float]) -> tuple[float | None, float | None]:
    """Median and 95th percentile in milliseconds of samples in seconds."""
    middle, high = percentile(samples_s, 50), percentile(samples_s, 95)
    return (
        None if middle is None else middle * 1000,
        None if high is None else high * 1000,
    )


def as_table(figures: Figures, problems: Sequence[str]) -> str:
    """The report for a person, without a final newline."""

    def row(label: str, values: str, limit: str = "", note: str = "") -> str:
        bound = ""
        if limit:
            entry = LIMITS[limit]
            value = getattr(figures, limit)
            ok = value is not None and (abs(value) if limit == "skew_ms" else value) <= entry.most
            verdict = "    " if value is None else "ok  " if ok else "MISS"
            bound = f"{verdict} ≤ {entry.most:g} {entry.unit}"
        return f"  {label:<22}{values:>22}   {bound:<16}  {note}".rstrip()

    pair = _pair
    lines = [
        f"{figures.callers} callers, {figures.viewers} viewers, {figures.seconds:.0f} s",
        row("seen / heard", f"{figures.seen}/{figures.callers} / {figures.heard}/{max(0, figures.callers - 1)}"),
        row(
            "video p50 / p95", pair(figures.video_p50_ms, figures.video_p95_ms, "ms"), "video_p95_ms",
            "picture sent → decoded in its tile at a viewer",
        ),
        row(
            "audio p50 / p95", pair(figures.audio_p50_ms, figures.audio_p95_ms, "ms"), "audio_p95_ms",
            "packet with a pip sent → received in the mix",
        ),
        row("A/V skew", _one(figures.skew_ms, "ms"), "skew_ms", "picture after sound, by sender reports"),
        row("loss", _one(figures.loss_percent, "%", 2), "loss_percent", "worst way in or out"),
        row("frozen", _one(figures.frozen_percent, "%", 2), "frozen_percent", "share of time, mean of callers"),
        row("stalled", _one(figures.stalled_percent, "%", 2), note="the same without a player's jitter buffer"),
        row(
            "concealed in / out", _pair(figures.concealed_in_percent, figures.concealed_out_percent, "%", 2),
            note="sound invented for what was lost: callers' voices, the mix",
        ),
        row(
            "growth of delay", _pair(figures.video_growth_ms, figures.audio_growth_ms, "ms"),
            note="picture / sound, second half against first",
        ),
        row("own voice", _one(figures.echo_db, "dB"), "echo_db", "in the mix back, against what was sent"),
        row(
            "join p50 / p95", pair(figures.join_p50_ms, figures.join_p95_ms, "ms"), "join_p95_ms",
            "WHEP POST → first decoded picture",
        ),
        row("pictures a second", _one(figures.fps, "fps"), note="decoded at the viewer"),
        row("rate a viewer", _one(figures.kbps_per_viewer, "kbit/s", 0), note="RTP received"),
        row("generator late p95", _one(figures.late_p95_ms, "ms"), note="this program's own timing"),
    ]  # fmt: skip
    lines += [f"  ! {problem}" for problem in problems]
    lines.append("healthy" if not problems else "NOT healthy")
    return "\n".join(lines)


def _one(value: float | None, unit: str, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f} {unit}"


def _pair(first: float | None, second: float | None, unit: str, digits: int = 0) -> str:
    return "–" if first is None or second is None else f"{first:.{digits}f} / {second:.{digits}f} {unit}"
