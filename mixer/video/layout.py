"""Where each picture goes: the contract's "Layout body", and ``arrange``, which makes tiles of it.

Pure and deterministic: the same body, the same people in the same join order and the same speaker give the
same tiles, live, in a preview and when a recording is composed again. Rectangles are ``video.geometry``'s.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from mixer.errors import InvalidBody
from mixer.video.geometry import MAX_TILES, RULES, STRIP_FACES, Rect

Fit = Literal["cover", "contain"]
Preset = Literal["grid", "speaker", "spotlight", "side-by-side", "pip", "presentation", "custom"]

MAX_REGIONS: Final = 64
MIN_REGION_PX: Final = 16  # one macroblock of H.264 and VP8; nothing smaller can be recognised


# --- the body

# Bounded digits: Fraction("1e999999999") would take the machine with it.
_RATIONAL: Final = re.compile(r"[0-9]{1,6}(?:/[0-9]{1,6}|\.[0-9]{1,9})?", re.ASCII)
_SOURCE: Final = re.compile(
    r"speaker|presentation|any|participant:.{1,128}|image:[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
)


def _number_as_text(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return format(value, ".9f").rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _check_rational(text: str) -> str:
    if not _RATIONAL.fullmatch(text) or ("/" in text and int(text.split("/")[1]) == 0):
        raise ValueError('a coordinate is a fraction of the canvas such as "2/3", "0.5" or "1"')
    return text


def _check_source(text: str) -> str:
    if not _SOURCE.fullmatch(text):
        raise ValueError("unknown source: use speaker, presentation, any, participant:ID or image:NAME")
    return text


Rational = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_check_rational)]
"""A coordinate kept as it was written, so that a body survives the round trip exactly."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CanvasBody(_Model):
    """Size in pixels (even), pictures a second, and the colour behind the tiles (``#RRGGBB``)."""

    width: StrictInt = Field(default=1280, ge=160, le=1920, multiple_of=2)
    height: StrictInt = Field(default=720, ge=90, le=1920, multiple_of=2)
    fps: StrictInt = Field(default=30, ge=1, le=60)
    background: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#101820"

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        """The background as 8-bit sRGB."""
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue


class Region(_Model):
    """One rectangle of a ``custom`` layout, in fractions of the canvas. A higher ``z`` lies on top."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    x: Rational = "0"
    y: Rational = "0"
    width: Rational
    height: Rational
    z: StrictInt = Field(default=0, ge=-1000, le=1000)
    source: Annotated[str, AfterValidator(_check_source)] = "any"
    fit: Fit | None = None

    @property
    def rect(self) -> Rect:
        """The rectangle as exact fractions."""
        x, y, width, height = (Fraction(v) for v in (self.x, self.y, self.width, self.height))
        return Rect(x, y, width, height, self.z)


class LayoutBody(_Model):
    """The body of ``PUT /v1/rooms/{room}/layout``. ``model_dump(mode="json")`` gives it back unchanged."""

    preset: Preset = "grid"
    canvas: CanvasBody = CanvasBody()
    fit: Fit = "cover"
    names: StrictBool = True
    speaker_border: StrictBool = True
    max_tiles: StrictInt = Field(default=MAX_TILES, ge=1, le=MAX_TILES)
    pins: Annotated[dict[str, Annotated[StrictInt, Field(ge=0, lt=MAX_TILES)]], Field(max_length=100)] = {}
    regions: Annotated[tuple[Region, ...], Field(max_length=MAX_REGIONS)] = ()

    @model_validator(mode="after")
    def _custom_has_regions(self) -> LayoutBody:
        if self.preset == "custom" and not self.regions:
            raise ValueError("a custom layout needs at least one region")
        return self


def parse_layout(data: object) -> LayoutBody:
    """Read a layout body from decoded JSON. Shape only; ``check`` judges geometry and sources.

    Raises ``InvalidBody`` with one ``{"loc": [...], "msg": str}`` for each wrong field.
    """
    try:
        return LayoutBody.model_validate(data)
    except ValidationError as error:
        errors = [
            {"loc": list(e["loc"]), "msg": e["msg"].removeprefix("Value error, ")}
            for e in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidBody(f"the layout has {len(errors)} wrong field(s)", errors) from None


def check(body: LayoutBody, *, participants: Collection[str] | None, images: Collection[str]) -> None:
    """Refuse regions that leave the canvas, overlap at the same ``z``, or name what is not there.

    ``participants``: ids in the room, or None when any id may come later. ``images``: the names there are.
    Raises ``InvalidBody`` listing every fault, not only the first.
    """
    errors: list[dict[str, Any]] = []

    def wrong(index: int, field: str, message: str) -> None:
        errors.append({"loc": ["regions", index, field], "msg": message})

    seen: set[str] = set()
    for index, region in enumerate(body.regions):
        if region.id in seen:
            wrong(index, "id", f"two regions have the id {region.id!r}")
        seen.add(region.id)
        for field, message in _outside(region.rect, body.canvas):
            wrong(index, field, message)
        kind, _, name = region.source.partition(":")
        if kind == "participant" and participants is not None and name not in participants:
            wrong(index, "source", f"unknown source: nobody in the room has the id {name!r}")
        if kind == "image" and name not in images:
            wrong(index, "source", f"unknown source: there is no image named {name!r}")
        for other in body.regions[:index]:
            if region.z == other.z and region.rect.overlaps(other.rect):
                wrong(index, "x", f"overlaps region {other.id!r}; give one of them another z to stack them")
    if errors:
        raise InvalidBody(f"the layout has {len(errors)} wrong field(s)", errors)


def _outside(rect: Rect, canvas: CanvasBody) -> list[tuple[str, str]]:
    faults: list[tuple[str, str]] = []
    pixels = rect.snap(canvas.width, canvas.height)
    for origin, size, start, length, length_px in (
        ("x", "width", rect.x, rect.width, pixels[2]),
        ("y", "height", rect.y, rect.height, pixels[3]),
    ):
        if start + length > 1:
            faults.append(
                (size if start < 1 else origin, f"leaves the canvas: {origin} + {size} is more than 1")
            )
        elif length_px < MIN_REGION_PX:
            faults.append((size, f"too small: {length_px} px, at least {MIN_REGION_PX}"))
    return faults


def presets() -> list[dict[str, Any]]:
    """The presets for ``GET /v1/layouts``: name, capacity, and the rectangles for each size they come in."""
    listing: list[dict[str, Any]] = []
    for name, rule in RULES.items():
        sizes = [{"count": n, "regions": [r.as_json() for r in rule.rects(n)]} for n in rule.counts]
        listing.append({"preset": name, "summary": rule.summary, "capacity": rule.capacity, "sizes": sizes})
    custom = {"preset": "custom", "summary": "regions of your own", "capacity": MAX_REGIONS, "sizes": []}
    return [*listing, custom]


# --- who sits where


@dataclass(frozen=True, slots=True)
class Source:
    """Someone who can have a tile; sequences of sources are in join order."""

    id: str
    name: str
    kind: Literal["webrtc", "phone"]
    has_video: bool
    screen: bool = False
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """One rectangle of the canvas in even pixels, and what is drawn there.

    ``kind``: ``participant`` (a picture or its placeholder), ``counter`` (``label`` is "+12"), ``image``
    (``image`` names it), ``empty`` (a region whose source is absent: background).
    """

    id: str
    participant: str | None
    x: int
    y: int
    width: int
    height: int
    z: int
    fit: Fit
    label: str
    kind: Literal["participant", "counter", "image", "empty"]
    image: str | None = None


def arrange(body: LayoutBody, sources: Sequence[Source], speaker: str | None) -> tuple[Tile, ...]:
    """Seat ``sources`` (join order) in the body's layout. Tiles come in drawing order (``z``, slot).

    ``speaker``: the active speaker's id; someone unknown or None falls back to the first with a picture.
    """
    if body.preset == "custom":
        return _arrange_custom(body, sources, speaker)
    rule = RULES[body.preset]
    capacity = min(body.max_tiles, rule.capacity)
    if body.preset == "grid":
        seats = _seat(body, sources, capacity, lead=())
    else:
        seats = _seat(body, sources, capacity, lead=_leads(body, sources, speaker))
    hidden = len(sources) - len(seats)
    # Presets that show one or two people on purpose don't count the others.
    counted = hidden > 0 and capacity > 2
    if counted:
        seats = seats[: capacity - 1]
        hidden = len(sources) - len(seats)
    rects: tuple[Rect, ...] = rule.rects(len(seats) + counted)
    tiles = [_participant_tile(body, f"tile-{i}", rects[i], source) for i, source in enumerate(seats)]
    if counted:
        tiles.append(_tile(body, "counter", rects[-1], "counter", label=f"+{hidden}"))
    return tuple(sorted(tiles, key=lambda tile: tile.z))


def _leads(body: LayoutBody, sources: Sequence[Source], speaker: str | None) -> tuple[Source, ...]:
    """Those who take the first slots: the shared screen (``presentation`` only), then the speaker."""
    leads: list[Source] = []
    if body.preset == "presentation":
        leads += [source for source in sources if source.screen][-1:]  # the latest share wins
    active = _speaker(sources, speaker)
    if body.preset == "side-by-side" and active in sources[:2]:
        return ()  # both are seen anyway: nobody changes sides when the other one talks
    if active is not None and active not in leads:
        leads.append(active)
    if body.preset == "side-by-side":
        return (*sources[:1], *leads)
    if (
        body.preset == "presentation"
        and len(leads) > 1
        and len(sources) <= min(body.max_tiles, 1 + STRIP_FACES)
    ):
        return (leads[0],)  # every face is in the strip: keep join order
    return tuple(leads)


def _speaker(sources: Sequence[Source], speaker: str | None) -> Source | None:
    by_id = {source.id: source for source in sources}
    if speaker is not None and speaker in by_id:
        return by_id[speaker]
    pictures = (source for source in sources if source.has_video and not source.screen)
    return next(pictures, None) or next(iter(sources), None)


def _seat(
    body: LayoutBody, sources: Sequence[Source], capacity: int, *, lead: Sequence[Source]
) -> list[Source]:
    """At most ``capacity`` sources in slot order: pins first, then ``lead``, then join order."""
    pinned = _pinned(body, sources)
    order = [*lead, *(source for source in sources if source not in lead)]
    if len(sources) > capacity:
        # Past the capacity one slot goes to the counter, and the least visible leave first: phones,
        # then those without a picture, latest first. Pinned people and leads stay.
        room = capacity - 1 if capacity > 2 else capacity
        kept = sorted(order, key=lambda s: _leave_order(s, s in pinned.values() or s in lead))[:room]
        order = [source for source in order if source in kept]
    free = [source for source in order if source not in pinned.values()]
    seats: list[Source] = []
    for slot in range(len(order)):
        if slot in pinned and pinned[slot] in order:
            seats.append(pinned[slot])
        elif free:
            seats.append(free.pop(0))
    late = [source for slot, source in sorted(pinned.items()) if source in order and source not in seats]
    return seats + late


def _leave_order(source: Source, stays: bool) -> int:
    if stays:
        return 0
    if source.kind == "phone":
        return 3
    return 1 if source.has_video else 2


def _pinned(body: LayoutBody, sources: Sequence[Source]) -> dict[int, Source]:
    """slot → source for the pins of people who are here; a slot taken twice moves the later one on."""
    taken: dict[int, Source] = {}
    for source in sources:
        if source.id in body.pins:
            slot = body.pins[source.id]
            while slot in taken:
                slot += 1
            taken[slot] = source
    return taken


def _arrange_custom(body: LayoutBody, sources: Sequence[Source], speaker: str | None) -> tuple[Tile, ...]:
    by_id = {source.id: source for source in sources}
    screen = next((source for source in reversed(sources) if source.screen), None)
    fixed: dict[str, Source | None] = {"presentation": screen}
    used: set[str] = set()
    for region in body.regions:
        kind, _, name = region.source.partition(":")
        if kind == "participant" and name in by_id:
            used.add(name)
        elif kind == "presentation" and screen is not None:
            used.add(screen.id)
    if any(region.source == "speaker" for region in body.regions):
        # With nobody speaking, don't show a person twice while another is not shown at all.
        fresh = [source for source in sources if source.id not in used]
        fixed["speaker"] = by_id.get(speaker or "") or _speaker(fresh or sources, None)
        if fixed["speaker"] is not None:
            used.add(fixed["speaker"].id)
    crowd = [source for source in sources if source.id not in used]
    waiting = iter(_seat(body, crowd, len(crowd) or 1, lead=()))
    tiles: list[Tile] = []
    for region in body.regions:
        kind, _, name = region.source.partition(":")
        if kind == "image":
            tiles.append(_tile(body, region.id, region.rect, "image", label=name, image=name, fit=region.fit))
            continue
        if kind == "participant":
            source = by_id.get(name)
        elif kind == "any":
            source = next(waiting, None)
        else:
            source = fixed.get(kind)
        if source is None:
            tiles.append(_tile(body, region.id, region.rect, "empty", fit=region.fit))
        else:
            tiles.append(_participant_tile(body, region.id, region.rect, source, region.fit))
    return tuple(sorted(tiles, key=lambda tile: tile.z))


def _participant_tile(
    body: LayoutBody, tile_id: str, rect: Rect, source: Source, fit: Fit | None = None
) -> Tile:
    # A shared screen is text: cropping it loses what people came to read.
    shared: Fit | None = "contain" if source.screen and body.preset == "presentation" else None
    return _tile(
        body, tile_id, rect, "participant", label=source.name, participant=source.id, fit=fit or shared
    )


def _tile(
    body: LayoutBody,
    tile_id: str,
    rect: Rect,
    kind: Literal["participant", "counter", "image", "empty"],
    *,
    label: str = "",
    participant: str | None = None,
    image: str | None = None,
    fit: Fit | None = None,
) -> Tile:
    x, y, width, height = rect.snap(body.canvas.width, body.canvas.height)
    return Tile(
        id=tile_id,
        participant=participant,
        x=x,
        y=y,
        width=width,
        height=height,
        z=rect.z,
        fit=fit or body.fit,
        label=label,
        kind=kind,
        image=image,
    )


# --- what it would cost


class RenditionCost(Protocol):
    """What the prediction needs to know of a rendition (``video.rendition.Rendition`` has it)."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def fps(self) -> int: ...
    @property
    def video_bps(self) -> int: ...
    @property
    def audio_bps(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Cost:
    """Prediction of a layout: cores of CPU of the room, kbit/s of one viewer of each rendition; of the cores, those for
    decoding, and those of the canvas' thread."""

    cpu_cores: float
    kbps: int
    decoding_cores: float = 0.0
    canvas_cores: float = 0.0


# Milliseconds of one core for a million pixels, on the 2-core machine of tests/bench (2026-11).
_DECODE_MS_PER_MPX: Final = 1.9  # 720p VP8 and H.264
_SCALE_MS_PER_MPX: Final = 0.45  # read the whole source once, nearly whatever the tile's size
_COMPOSE_MS_PER_MPX: Final = 0.75
_ENCODE_MS_PER_MPX: Final = 5.7  # x264 superfast
SOURCE_PX: Final = 921_600  # of a source that nothing is known of: 720p
_ALWAYS_CORES: Final = 0.03  # audio tick, signalling


def predict_cost(
    body: LayoutBody,
    tiles: Sequence[Tile],
    renditions: Iterable[RenditionCost],
    sources_px: Mapping[str, int] = MappingProxyType({}),
) -> Cost:
    """Estimate what ``tiles`` cost when all of them move and each of ``renditions`` is being watched.

    ``sources_px``: pixels of each participant's pictures, as they will come.
    """
    moving = {tile.participant for tile in tiles if tile.kind == "participant"}
    canvas_mpx = body.canvas.width * body.canvas.height / 1e6
    sources_mpx = sum(sources_px.get(source or "", SOURCE_PX) for source in moving) / 1e6
    decoding_ms = body.canvas.fps * sources_mpx * _DECODE_MS_PER_MPX
    canvas_ms = body.canvas.fps * (sources_mpx * _SCALE_MS_PER_MPX + canvas_mpx * _COMPOSE_MS_PER_MPX)
    bps = 0
    for rendition in renditions:
        canvas_ms += rendition.fps * rendition.width * rendition.height / 1e6 * _ENCODE_MS_PER_MPX
        bps += rendition.video_bps + rendition.audio_bps
    return Cost(
        cpu_cores=round(_ALWAYS_CORES + (decoding_ms + canvas_ms) / 1000, 3),
        kbps=bps // 1000,
        decoding_cores=round(decoding_ms / 1000, 3),
        canvas_cores=round(canvas_ms / 1000, 3),
    )
