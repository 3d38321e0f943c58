"""Where a participant's tile is on the canvas of a real room, and what colour it has."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
from PIL import Image

from mixer.probe.signal import Plane
from tests.serving import Server


def tiles(server: Server, room: str) -> dict[str, dict[str, int]]:
    """Participant id → rectangle in pixels, as ``layout/preview`` says it for the present layout."""
    body: dict[str, Any] = server.call("GET", f"/v1/rooms/{room}/layout")
    body.pop("version")
    answer = server.call("POST", f"/v1/rooms/{room}/layout/preview", body)
    return {tile["participant"]: tile for tile in answer["tiles"] if tile["participant"]}


def snapshot(server: Server, room: str) -> Plane:
    """``snapshot.png`` as RGB."""
    content = server.call("GET", f"/v1/rooms/{room}/snapshot.png", accept="image/png")
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def colour(picture: Plane, tile: dict[str, int]) -> tuple[int, int, int]:
    """Median colour of a tile: neither its name nor a border moves that."""
    part = picture[tile["y"] : tile["y"] + tile["height"], tile["x"] : tile["x"] + tile["width"]]
    red, green, blue = np.median(part.reshape(-1, 3), axis=0)
    return int(red), int(green), int(blue)


def near(found: tuple[int, int, int], wanted: tuple[int, int, int], by: int = 40) -> bool:
    """Whether two colours are the same but for two encoders and a colour matrix between them."""
    return all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


def await_colour(
    server: Server, room: str, participant: str, wanted: tuple[int, int, int], timeout_s: float = 60.0
) -> float:
    """Seconds until the participant's tile has that colour. ``AssertionError`` with the last one seen."""
    started = time.monotonic()
    seen: object = "no tile"
    while (waited := time.monotonic() - started) < timeout_s:
        place = tiles(server, room).get(participant)
        if place is not None:
            found = colour(snapshot(server, room), place)
            if near(found, wanted):
                return waited
            seen = found
        time.sleep(0.1)  # pictures arrive when they do
    raise AssertionError(f"tile of {participant} after {timeout_s} s: {seen}, wanted {wanted}")
