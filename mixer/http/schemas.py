"""What answers hold, in JSON Schema, where no model of ours writes them: the OpenAPI is made from these.

Every answer in the tests of `mixer.http` is held against them. An object may get more properties than stand here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from mixer.video.layout import Preset

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
MAYBE_TEXT: Final[Schema] = {"type": ["string", "null"]}
MOMENT: Final[Schema] = {"type": "string", "format": "date-time"}
_FLAG: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Schema] = {"type": "number"}
_MAYBE_NUMBER: Final[Schema] = {"type": ["number", "null"]}


def every(**properties: Schema) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def some(**properties: Schema) -> dict[str, Any]:
    """An object that may have these."""
    return {"type": "object", "properties": properties}


def listing(items: Schema) -> dict[str, Any]:
    """An array."""
    return {"type": "array", "items": items}


def by_name(values: Schema) -> dict[str, Any]:
    """An object with a value a name."""
    return {"type": "object", "additionalProperties": values}


PARTICIPANT: Final = every(
    id=TEXT, name=TEXT, kind={"enum": ["webrtc", "phone"]}, muted=_FLAG, video_muted=_FLAG, volume=_NUMBER,
    speaking=_FLAG, hand=_FLAG, agc=_FLAG, noise_suppression=_FLAG, recorded=_FLAG, joined_at=MOMENT,
)  # fmt: skip
PARTICIPANTS: Final = listing(PARTICIPANT)

VERSION: Final = every(version={"type": "integer", "minimum": 1})
_REGION: Final = every(
    id=TEXT, x=TEXT, y=TEXT, width=TEXT, height=TEXT, z={"type": "integer"}, source=TEXT,
    fit={"enum": ["cover", "contain", None]},
)  # fmt: skip
_BODY: Final = {
    "preset": {"enum": list(get_args(Preset))},
    "canvas": every(width=_COUNT, height=_COUNT, fps=_COUNT, background=TEXT),
    "fit": {"enum": ["cover", "contain"]},
    "names": _FLAG,
    "speaker_border": _FLAG,
    "max_tiles": _COUNT,
    "pins": by_name(_COUNT),
    "regions": listing(_REGION),
}
LAYOUT: Final = every(**VERSION["properties"], **_BODY)
LAYOUT_VERSIONS: Final = listing(every(**VERSION["properties"], at=MOMENT, by=TEXT, layout=every(**_BODY)))
PRESETS: Final = listing(
    every(
        preset=TEXT,
        summary=TEXT,
        capacity=_COUNT,
        sizes=listing(every(count=_COUNT, regions={"type": "array"})),
    )
)
PREVIEW: Final = every(
    tiles=listing(
        every(
            id=TEXT,
            participant=MAYBE_TEXT,
            x=_COUNT,
            y=_COUNT,
            width=_COUNT,
            height=_COUNT,
            z={"type": "integer"},
        )
    ),
    cost=every(cpu_cores=_NUMBER, kbps=_NUMBER),
)

ROOM: Final = every(
    name=TEXT, created_at=MOMENT, language=TEXT, record=_FLAG, max_recording_minutes=_COUNT, has_pin=_FLAG,
    has_moderator_pin=_FLAG, max_participants=_COUNT, participants=_COUNT, speaker=MAYBE_TEXT, layout=LAYOUT,
    recording={"oneOf": [{"type": "null"}, every(id=TEXT, state={"enum": ["recording", "paused"]})]},
)  # fmt: skip
ROOMS: Final = listing(ROOM)

_TICKS: Final = {"run": _COUNT, "late": _COUNT, "dropped": _COUNT}
STATS: Final = every(
    participants=by_name(
        some(
            packets=_COUNT,
            lost=_COUNT,
            recovered=_COUNT,
            jitter_ms=_NUMBER,
            rtt_ms=_MAYBE_NUMBER,
            frozen_ms=_NUMBER,
            decode_ms=_NUMBER,
        )
    ),
    renditions=by_name(every(fps=_NUMBER, kbps=_NUMBER, viewers=_COUNT, encode_ms=_NUMBER)),
    viewers=by_name(some(participant=TEXT, asked=TEXT, rendition=TEXT, line_loss=_NUMBER, repeated=_COUNT)),
    ticks=every(audio=every(**_TICKS), video=every(**_TICKS, scale_ms=_NUMBER, compose_ms=_NUMBER)),
    queues=by_name(every(depth=_COUNT, dropped=_COUNT)),
    load=every(pressure=_NUMBER, cause=TEXT, step=_COUNT, name=TEXT, full=_FLAG, cores=_NUMBER),
)

STARTED: Final = every(id=TEXT, state=TEXT)
FILES: Final = listing(every(path=TEXT, size=_COUNT, sha256=TEXT))
VERIFICATION: Final = every(ok=_FLAG, files=listing(every(path=TEXT, sha256=TEXT, ok=_FLAG)))
DELETION: Final = every(recording=TEXT, room=TEXT, time=MOMENT, by=TEXT, reason=TEXT)
TOMBSTONE: Final = every(act={"type": "object"}, key=TEXT, signature=TEXT)
AUDIT: Final = every(items=listing(every(id=TEXT)), cursor=MAYBE_TEXT)
WELL: Final = every(status=TEXT)
