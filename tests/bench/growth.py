"""Ten minutes on lines that lose, with clocks that run apart, in fast time: does the delay grow, and go back?"""

from __future__ import annotations

from typing import Final

from tests.bench.figures import Figure
from tests.fakes.lossy_call import LossyCall
from tests.fakes.netem import Burst
from tests.shaper import bursts

RUN_S: Final = 600.0
SETTLED_S: Final = 10.0  # the buffers have found their depth
MINUTE_S: Final = 60.0
BACK_S: Final = 10.0  # after the line's end, and that long is looked at
PPM: Final = 200.0  # quartzes of phones and computers: 100 each at most
MOST_MS: Final = 40.0
# loss, bursts, and what may be concealed, percent of the time: a good line, and the six that are promised
LINES: Final[tuple[tuple[str, float, Burst | None, float], ...]] = (
    ("a clean line", 0.0, None, 0.1),
    ("2 % random loss", 0.02, None, 2.0),
    ("5 % random loss", 0.05, None, 4.0),
    ("10 % random loss", 0.10, None, 8.0),
    ("2 % loss in bursts of 5", 0.0, bursts(0.02), 2.0),
    ("5 % loss in bursts of 5", 0.0, bursts(0.05), 4.0),
    ("10 % loss in bursts of 5", 0.0, bursts(0.10), 8.0),
)


def growth(seconds: float = RUN_S) -> list[Figure]:
    """The last minute against the first, the talker's clock fast, then slow; the listener's the other way."""
    return [
        figure
        for name, loss, burst, concealed in LINES
        for ppm in (PPM, -PPM)
        for figure in _one(f"{name}, {ppm:+g} ppm", loss, burst, concealed, ppm, seconds)
    ]


def _one(
    name: str, loss: float, burst: Burst | None, concealed: float, ppm: float, seconds: float
) -> list[Figure]:
    call = LossyCall(seed=5, loss=loss, burst=burst, drift_ppm=ppm)
    call.run(seconds)
    first, last = (SETTLED_S, SETTLED_S + MINUTE_S), (seconds - MINUTE_S, seconds)
    sound, picture = (
        1000 * (delay_s(*last) - delay_s(*first)) for delay_s in (call.sound_delay_s, call.picture_delay_s)
    )
    share = 100 * call.concealed_share
    found = [
        Figure(f"{name}: the sound's delay grew in {seconds / 60:g} min by", sound, "ms", MOST_MS),
        Figure("… the pictures' by", picture, "ms", MOST_MS),
        Figure("… sound concealed, in + out", share, "% of time", concealed, digits=1),
    ]
    if not loss and burst is None:
        return found
    plain = LossyCall(seed=5, drift_ppm=ppm)
    plain.run(SETTLED_S + MINUTE_S)
    call.line()
    after = (seconds + BACK_S, seconds + 2 * BACK_S)
    call.run(after[1])
    sound, picture = (
        1000 * (now(*after) - good(*first))
        for now, good in (
            (call.sound_delay_s, plain.sound_delay_s),
            (call.picture_delay_s, plain.picture_delay_s),
        )
    )
    return [
        *found,
        Figure(
            f"… the sound's delay {BACK_S:g} s after the line lost, above a good line's", sound, "ms", MOST_MS
        ),
        Figure("… the pictures'", picture, "ms", MOST_MS),
    ]
