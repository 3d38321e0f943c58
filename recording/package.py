"""A recording's package: what lies in the spool while it is made, and the sealed bag it becomes.

In the spool, ``<spool>/<ULID>/``:

    package.json      what was asked for (`Description`), written once by whoever starts the recording
    lock              held by the live `recording.recorder.Recorder`; free = nobody writes
    anchor.json       wall clock at the file's zero, written at the first keyframe
    reserve           disk space held back for the end
    data/recording.mp4, data/timeline.jsonl
    data/tracks/*.mka, *.mkv, data/tracks.jsonl     when asked for (`recording.tracks`)
    closed.json       `Summary`, written last by the recorder, or by `recording.recovery` in its place

Sealed, the bag (RFC 8493) is added beside them: ``data/chapters.vtt``, ``bagit.txt``, ``bag-info.txt``, the
manifests and ``recording.json``. Only ``data/`` and those go to the archive: `Seal.files`, then the seal.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recording.durable import file_sha256, write_whole
from recording.errors import BadPackage, UnsafePath
from recording.keys import from_rfc3339, safe_key
from recording.seekindex import segment_index
from recording.timeline import TimelineEvent, chapters, presences, read_timeline, write_chapters

DESCRIPTION: Final = "package.json"
ANCHOR: Final = "anchor.json"
LOCK: Final = "lock"
RESERVE: Final = "reserve"
CLOSED: Final = "closed.json"
MEDIA: Final = "data/recording.mp4"
TIMELINE: Final = "data/timeline.jsonl"
CHAPTERS: Final = "data/chapters.vtt"
SEEK_INDEX: Final = "data/recording.sidx"  # see `recording.seekindex`
MANIFEST: Final = "manifest-sha256.txt"
TAG_MANIFEST: Final = "tagmanifest-sha256.txt"
SEAL: Final = "recording.json"
_BAGIT: Final = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"  # RFC 8493 section 2.1.1
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Description(_Strict):
    """What was asked for, before there is any media. ``created``: RFC 3339; ``key``: the package's prefix."""

    id: str
    room: str
    key: str
    created: str
    note: str = ""
    tracks: bool = False
    language: str = "en"
    software: str = "mosaique"


class Anchor(_Strict):
    """Wall clock at the file's zero, and the picture's form: what a continuation or a recovery must know."""

    started: str
    width: int
    height: int
    fps: int
    audio_config: str = ""  # AudioSpecificConfig in hex, empty without sound


class VideoFacts(_Strict):
    """The picture track."""

    codec: Literal["H264"] = "H264"
    width: int
    height: int
    fps: int
    frames: int


class AudioFacts(_Strict):
    """The sound track."""

    codec: Literal["AAC-LC"] = "AAC-LC"
    sample_rate_hz: int
    channels: int


class Loudness(_Strict):
    """How loud the sound is (EBU R128, EBU Tech 3342): programme loudness in LUFS, its range in LU, the highest true
    peak in dBTP; None for silence. The media are not changed by it; a player may turn them to its own level."""

    integrated_lufs: float | None = None
    range_lu: float
    true_peak_dbtp: float | None = None


class Summary(_Strict):
    """What became of a recording. ``complete``: closed by its own writer and nothing lost on the way.

    ``size`` and ``sha256`` are of the media; size 0 means that no picture ever arrived. ``duration_s``: of
    the file.
    """

    started: str
    ended: str
    duration_s: float = Field(ge=0)
    size: int = Field(ge=0)
    sha256: Sha256
    complete: bool
    reason: str = ""
    video: VideoFacts | None = None
    audio: AudioFacts | None = None
    loudness: Loudness | None = None
    digests: dict[str, Sha256] = {}
    """Of the tracks, hashed while they were written, by path."""


class TrackFacts(_Strict):
    """One file of a participant's own voice, camera or screen, from the timeline's ``track`` line."""

    file: str
    participant: str
    name: str
    kind: Literal["voice", "camera", "screen"]
    codec: str
    begins_s: float


class SealedFile(_Strict):
    """One file of the sealed package: path inside it, size in bytes, SHA-256 in hex."""

    path: str
    size: int = Field(ge=0)
    sha256: Sha256


class Stay(_Strict):
    """One stay of a participant; ``left`` is None when nobody saw them leave."""

    id: str
    name: str
    joined: str
    left: str | None


class Seal(BaseModel):
    """``recording.json``: everything the index knows about an archived recording, and every file's digest.

    ``files`` lists all of the package but this file. Readers ignore fields they do not know: it may grow.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1
    id: str
    room: str
    key: str
    state: Literal["archived"] = "archived"
    complete: bool
    reason: str = ""
    created: str
    started: str
    ended: str
    duration_s: float
    size: int
    sha256: Sha256
    video: VideoFacts | None = None
    audio: AudioFacts | None = None
    loudness: Loudness | None = None  # None: no sound, or it could not be measured
    participants: tuple[Stay, ...] = ()
    tracks: tuple[TrackFacts, ...] = ()
    note: str = ""
    language: str = "en"
    software: str
    files: tuple[SealedFile, ...]


_Model = TypeVar("_Model", bound=BaseModel)


def read_model(kind: type[_Model], path: Path) -> _Model | None:
    """The JSON file ``path`` as ``kind``, None when there is no such file; BadPackage when it cannot be read."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise BadPackage(f"{path.name} of {path.parent.name} cannot be read") from error


def write_model(path: Path, model: BaseModel) -> None:
    """Write ``model`` as JSON, whole or not at all, and durable when this returns."""
    write_whole(path, model.model_dump_json(indent=1).encode() + b"\n")


def read_description(directory: Path) -> Description:
    """The package's `Description`; raises BadPackage when it has none or is not where it says."""
    description = read_model(Description, directory / DESCRIPTION)
    if description is None:
        raise BadPackage(f"{directory.name} has no {DESCRIPTION}")
    if description.id != directory.name:
        raise BadPackage(f"{directory.name} holds the description of {description.id}")
    return description


def seal(directory: Path, description: Description, summary: Summary) -> Seal:
    """Make the closed package a bag, in place, ``recording.json`` last. Sealed already: reads the seal.

    Safe to repeat after a crash at any point: nothing is sent anywhere before the seal is there, and the seal
    is not changed afterwards.
    """
    existing = read_model(Seal, directory / SEAL)
    if existing is not None:
        return existing
    events = read_timeline((directory / TIMELINE).read_bytes())
    marks = chapters(events, summary.duration_s, description.language)
    write_whole(directory / CHAPTERS, write_chapters(marks, summary.duration_s))
    if index := segment_index(directory / MEDIA):
        write_whole(directory / SEEK_INDEX, index)
    # The recorder hashed what it meant to write, while writing it: hashing the file anew would bless a bad
    # disk.
    known = {MEDIA: summary.sha256, **summary.digests}
    payload = [_sealed(directory, path, known.get(path)) for path in sorted(_payload(directory))]
    write_whole(directory / MANIFEST, write_manifest(payload))
    write_whole(directory / "bagit.txt", _BAGIT)
    write_whole(directory / "bag-info.txt", _bag_info(description, summary, payload))
    tags = [_sealed(directory, path) for path in ("bag-info.txt", "bagit.txt", MANIFEST)]
    write_whole(directory / TAG_MANIFEST, write_manifest(tags))
    body = Seal(
        **description.model_dump(exclude={"tracks"}),
        **summary.model_dump(exclude={"digests"}),
        participants=tuple(Stay(**asdict(stay)) for stay in presences(events, from_rfc3339(summary.started))),
        tracks=_tracks(events, {file.path for file in payload}),
        files=(*payload, *tags, _sealed(directory, TAG_MANIFEST)),
    )
    write_model(directory / SEAL, body)
    return body


def _tracks(events: Iterable[TimelineEvent], there: Collection[str]) -> tuple[TrackFacts, ...]:
    """Whose the files are; of a line whose file never reached the disk, nothing."""
    found = []
    for event in events:
        if event.event == "track" and event.fields.get("file") in there:
            with suppress(ValidationError):
                found.append(TrackFacts(**event.fields, begins_s=event.t))
    return tuple(found)


def write_manifest(files: Iterable[SealedFile]) -> bytes:
    """A BagIt manifest (RFC 8493 section 2.1.3). Our paths have nothing in them that needs escaping."""
    return "".join(f"{file.sha256}  {safe_key(file.path)}\n" for file in files).encode()


def read_manifest(data: bytes) -> dict[str, str]:
    """SHA-256 by path, from a manifest that `write_manifest` wrote; lines that are none are left out."""
    found: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        digest, _, path = line.partition("  ")
        with suppress(UnsafePath):
            if _SHA256.fullmatch(digest):
                found[safe_key(path)] = digest
    return found


def _payload(directory: Path) -> Iterator[str]:
    for path in (directory / "data").rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            yield safe_key(path.relative_to(directory).as_posix())


def _sealed(directory: Path, path: str, sha256: str | None = None) -> SealedFile:
    file = directory / path
    return SealedFile(path=path, size=file.stat().st_size, sha256=sha256 or file_sha256(file))


def _bag_info(description: Description, summary: Summary, payload: Sequence[SealedFile]) -> bytes:
    """RFC 8493 section 2.2.2. Values are one line each: a note could otherwise add fields of its own."""
    total = sum(file.size for file in payload)
    fields = [
        ("Bagging-Date", summary.ended[:10]),
        ("Bag-Software-Agent", description.software),
        ("External-Identifier", description.id),
        ("External-Description", description.note),
        ("Internal-Sender-Identifier", description.key),
        ("Payload-Oxum", f"{total}.{len(payload)}"),
    ]
    return "".join(f"{name}: {value}\n" for name, text in fields if (value := _one_line(text))).encode()


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
