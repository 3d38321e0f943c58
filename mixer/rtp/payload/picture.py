"""The port between the frame assembler and the payload formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import ceil
from typing import Final, Protocol

MAX_PAYLOAD: Final = 1100  # leaves room for IPv6, TURN, SRTP, extensions and RTX below 1280, IPv6's least MTU


class Start(IntEnum):
    """Whether a payload begins a picture that decodes on its own."""

    NO = 0
    PERHAPS = 1  #: only if nothing of the same picture went before it
    KEYFRAME = 2  #: certainly


@dataclass(frozen=True, slots=True)
class Picture:
    """One coded picture without its time. ``data``: H.264 Annex B, VP8/VP9 one frame."""

    data: bytes
    keyframe: bool


class Depacketizer(Protocol):
    """Reads the payloads of one SSRC."""

    def start(self, payload: bytes) -> Start:
        """Could a decoder that knows nothing begin here? Never raises; rubbish is NO."""

    def assemble(self, payloads: Sequence[bytes]) -> Picture | None:
        """Join all the payloads of one timestamp, in order; None when they hold no picture.

        Raises MalformedPacket when they are not the whole of one picture.
        """


def cut(data: bytes, limit: int, offset: int = 0) -> list[bytes]:
    """``data[offset:]`` in pieces of equal size, at most ``limit`` bytes; only the last may be shorter.

    Equal sizes let one UDP GSO call carry a whole picture.
    """
    if limit < 1:
        raise ValueError("the payload limit leaves no room for a picture")
    size = len(data) - offset
    if size <= 0:
        return []
    step = ceil(size / ceil(size / limit))
    return [data[at : at + step] for at in range(offset, len(data), step)]
