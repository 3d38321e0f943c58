"""Lips and voice: how long a participant's picture, or voice, has to wait for the other. Pure.

Sound waits in its jitter buffer, pictures are whole when they are whole; and the two may take different ways.
Sender reports map the RTP timestamps of both to one clock, the sender's (RFC 3550 section 6.4.1): what was taken
at one moment there is mixed at one moment here. The picture is held until its sound is due; when it is the
picture that comes later, the voice is asked to wait in its jitter buffer instead.
"""

from __future__ import annotations

from typing import Final

MAX_HOLD_S: Final = 0.2  # more would be a delay that hurts more than lips that are off (ITU-T G.114)
MAX_LEAD_S: Final = 2.0  # further apart than that, one of the two reports is nonsense
DECODED_S: Final = 0.005  # from a picture's arrival until it is decoded, where a core is free
SHOWN_S: Final = 0.02  # until it is seen: that, and half a tick of the canvas
SLACK_S: Final = 0.01  # a picture later than its sound by so little is not worth a later sound

_SOUND_S: Final = 0.5  # time constant of the sound's delay: it moves in steps of a pitch period
_PICTURE_S: Final = 2.0  # of the pictures': one keyframe that took longer must not move the sound
_JUMP_S: Final = 0.5  # a delay that far off is another clock, not a slow network


class _Smooth:
    """A delay, smoothed; starts with the first value and again after a jump."""

    def __init__(self, constant_s: float) -> None:
        self._constant_s = constant_s
        self._at_s = 0.0
        self.value: float | None = None

    def update(self, value: float, now: float) -> float:
        if self.value is None or abs(value - self.value) > _JUMP_S:
            self.value = value
        else:
            share = min(1.0, max(0.0, now - self._at_s) / self._constant_s)
            self.value += (value - self.value) * share
        self._at_s = now
        return self.value


class LipSync:
    """One picture source of a participant, and the participant's voice. Times and delays in seconds.

    ``floor_s``: how long the voice should wait in its jitter buffer at least, because the picture comes later.
    """

    def __init__(self) -> None:
        self._sound = _Smooth(_SOUND_S)
        self._picture = _Smooth(_PICTURE_S)
        self.floor_s = 0.0
        self.nonsense = 0  # pictures whose reports cannot be

    def hold(
        self,
        *,
        taken_s: float | None,
        said_s: float | None,
        waits_s: float | None,
        now: float,
        held_s: float = 0.0,
    ) -> float:
        """How long the picture that arrived at ``now`` has to wait, 0 to ``MAX_HOLD_S``.

        ``taken_s``: when it was taken, ``said_s``: when was said what is heard at ``now``, both on the sender's
        clock, None before a report. ``waits_s``: what sound waits in the jitter buffer, None without sound: until
        there are reports, picture and sound are taken to have been equally long on their way. ``held_s``: how long
        it waits anyway, for an even pace or for a decoder.
        """
        if waits_s is None:
            self.floor_s = 0.0
            return held_s
        if taken_s is None or said_s is None or abs(taken_s - said_s) > MAX_LEAD_S:
            self.nonsense += taken_s is not None and said_s is not None
            self.floor_s = 0.0
            return min(MAX_HOLD_S, max(held_s, waits_s))
        sound_s = self._sound.update(now - said_s, now)
        picture_s = self._picture.update(now + held_s - taken_s, now)
        later_s = picture_s - (now - said_s)  # unsmoothed, as ``waits_s`` is: a wait that grows cancels out
        self.floor_s = min(MAX_HOLD_S, max(0.0, waits_s + later_s + SHOWN_S - SLACK_S))
        return min(MAX_HOLD_S, max(held_s, taken_s + sound_s - now))
