"""The command line of ``mosaique probe``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal as signals
import sys
from typing import Final

import aiohttp

from mixer.errors import MosaiqueError
from mixer.probe import turn_command
from mixer.probe.report import Figures, as_json, as_table, faults
from mixer.probe.run import Plan, opened
from mixer.video.rendition import RENDITIONS

MAX_CALLERS: Final = 50  # tones up to 5.6 kHz; more would leave what Opus keeps at 32 kbit/s
EXIT_HEALTHY: Final = 0
EXIT_NOT: Final = 1


class _Bounded:
    """An argparse type: a whole number within bounds."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = self._least - 1
        if not self._least <= value <= self._most:
            raise argparse.ArgumentTypeError(f"takes a whole number from {self._least} to {self._most}")
        return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``mosaique probe``."""
    parser.description = (
        "Joins synthetic callers (a moving picture with a counter, a tone with pips) to a running server and "
        "reports latency, A/V skew, loss, freezes and self-echo. Exit status 0: healthy, 1: not, 2: usage."
    )
    parser.add_argument("--room", default="probe", help="room to join (default: %(default)s)")
    parser.add_argument(
        "--callers", type=_Bounded(1, MAX_CALLERS), default=4, metavar="N", help="publishers (default: 4)"
    )
    parser.add_argument(
        "--viewers",
        type=_Bounded(1, 1000),
        default=1,
        metavar="N",
        help="watchers; the first one looks and listens, the others only load the server (default: 1)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=15.0,
        metavar="S",
        help="how long to measure; 0: until Ctrl-C (default: 15)",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    parser.add_argument(
        "--token",
        default=os.environ.get("MOSAIQUE_TOKEN"),
        help="admin token, or one of the room's moderator (default: $MOSAIQUE_TOKEN; none: as a guest)",
    )
    parser.add_argument(
        "--rendition",
        choices=["auto", *RENDITIONS],
        default="high",
        help="what the watchers ask for (default: %(default)s)",
    )
    parser.add_argument("--no-video", action="store_true", help="callers send sound only")
    parser.add_argument(
        "--no-follow",
        action="store_true",
        help="callers send 720p at 1.5 Mbit/s whatever the server asks for",
    )
    parser.add_argument(
        "--bind",
        default="0.0.0.0",  # noqa: S104 - a caller may leave by any interface
        metavar="ADDRESS",
        help="local address of media (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON on standard output")
    turn_command.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    if args.turn is not None:
        return turn_command.run(args)
    plan = Plan(
        url=args.url,
        room=args.room,
        token=args.token,
        callers=args.callers,
        viewers=args.viewers,
        rendition=args.rendition,
        video=not args.no_video,
        follow=not args.no_follow,
        bind=args.bind,
    )
    try:
        figures = asyncio.run(_probe(plan, args.seconds or float("inf")))
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell says it: interrupted before anything was measured
    except (MosaiqueError, OSError, aiohttp.ClientError, ExceptionGroup) as error:
        for problem in _flat(error):
            sys.stderr.write(f"probe: {_words(problem)}\n")
        return EXIT_NOT
    return _print(plan, figures, as_text=not args.json)


async def _probe(plan: Plan, seconds: float) -> Figures:
    """Join, measure, leave. The first SIGINT or SIGTERM ends the measuring, not the report."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    sys.stderr.write(f"probe: encoding the pictures of {plan.callers} callers …\n")
    async with opened(plan) as probe:
        sys.stderr.write(f"probe: everyone is in {plan.room}; measuring (Ctrl-C ends it early)\n")
        for number in (signals.SIGINT, signals.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows has no handlers in its loops
                loop.add_signal_handler(number, stop.set)
        return await probe.measure(seconds, stop=stop)


def _print(plan: Plan, figures: Figures, *, as_text: bool) -> int:
    problems = faults(figures, expect_video=plan.sees)
    if as_text:
        sys.stdout.write(as_table(figures, problems) + "\n")
    else:
        sys.stdout.write(json.dumps(as_json(figures, problems), indent=2) + "\n")
    return EXIT_NOT if problems else EXIT_HEALTHY


def _flat(error: Exception) -> list[Exception]:
    """The failures inside a group, or the one that is none. What we don't expect is raised again."""
    if not isinstance(error, ExceptionGroup):
        return [error]
    expected, rest = error.split((MosaiqueError, OSError, aiohttp.ClientError))
    if rest is not None:
        raise rest
    return [leaf for inner in (expected.exceptions if expected else ()) for leaf in _flat(inner)]


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server did not answer in time (media cannot reach it, or no picture came)"
    return str(error) or type(error).__name__


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError("takes seconds from 0 (until Ctrl-C) to 86400")
    return value


if __name__ == "__main__":  # pragma: no cover - `mosaique probe` is the command; this one needs no install
    _parser = argparse.ArgumentParser(prog="mosaique probe")
    add_arguments(_parser)
    raise SystemExit(run(_parser.parse_args()))
