"""The archive as the HTTP API sees it: start a recording, find it, read it, verify it, take it away as a bag.
What is decided about a recording after that (hold, retention, deletion) is `recording.custody`.

Every method blocks on disk or store; call them from a thread (``asyncio.to_thread``). Iterators that they
return block too, a chunk at a time.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError
from ulid import ULID

from recording import package
from recording.bag import zip_bag
from recording.durable import make_folder
from recording.errors import FixityError, ObjectMissing, RecordingMissing, UnsafePath, WrongState
from recording.fixity import Progress, Verification, check_package, no_progress
from recording.index import Index
from recording.keys import package_key, rfc3339, safe_key
from recording.package import Description, Seal, SealedFile
from recording.rows import Page, Query, RecordingInfo, State
from recording.seekindex import INIT_BYTES_MAX, Inset
from recording.store import ObjectStore, object_sha256, read_object

_log = structlog.get_logger(__name__)

_SEALS_KEPT: Final = 256  # sealed descriptions in memory, a few kB each: range requests come in rows
MAX_NOTE: Final = 2000  # characters; a note is a sentence or two, and goes into every listing
_MEDIA_TYPES: Final = {
    ".mp4": "video/mp4", ".mka": "audio/x-matroska", ".mkv": "video/x-matroska", ".vtt": "text/vtt; charset=utf-8",
    ".jsonl": "application/jsonl", ".json": "application/json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that has begun: hand ``directory`` to a `recording.recorder.Recorder`."""

    id: str
    directory: Path
    description: Description


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of an archived package, to be served: size in bytes, strong entity tag, media type."""

    path: str
    size: int
    sha256: str
    media_type: str
    _store: ObjectStore
    _key: str
    _inset: Inset | None = None

    @property
    def etag(self) -> str:
        """Strong (RFC 9110 section 8.8.3), quotes included: the content's digest."""
        return f'"{self.sha256}"' if self._inset is None else f'"{self.sha256}-indexed"'

    def link(self, ttl_s: int, filename: str) -> str | None:
        """A link that reads the file for ``ttl_s`` seconds without a token; None where the store gives none."""
        if self._inset is not None:
            return None  # no store has it so
        return self._store.presign(self._key, ttl_s, filename=filename, media_type=self.media_type)

    def read(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` (exclusive), in chunks. Raises ObjectMissing, StoreError. Close it to
        stop early.
        """
        if self._inset is not None:
            return self._inset.read(partial(self._store.open_range, self._key), start, end)
        return self._store.open_range(self._key, start, end)


class Archive:
    """Recordings in ``spool``, ``store`` and ``index``. ``wall``: Unix time."""

    def __init__(
        self,
        spool: Path,
        store: ObjectStore,
        index: Index,
        *,
        software: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        make_folder(spool)
        self._spool = spool
        self._store = store
        self._index = index
        self._software = software or _software()
        self._wall = wall
        self._seals: dict[str, tuple[Seal, int]] = {}

    def create(self, room: str, *, note: str = "", tracks: bool = False, language: str = "en") -> Recording:
        """Begin a recording. Raises RecordingLive when the room has one, UnsafePath for no room's name,
        ValueError for a note of more than `MAX_NOTE` characters."""
        if len(note) > MAX_NOTE:
            raise ValueError(f"a note has at most {MAX_NOTE} characters")
        now_s = self._wall()
        identifier = str(ULID.from_timestamp(now_s))
        description = Description(
            id=identifier,
            room=room,
            key=package_key(room, datetime.fromtimestamp(now_s, UTC), identifier),
            created=rfc3339(now_s),
            note=note.encode("utf-8", "replace").decode(),
            tracks=tracks,
            language=language,
            software=self._software,
        )
        directory = self._spool / identifier
        make_folder(directory)
        try:
            # The row last: when it is there, the package is; what a death in between leaves, the archiver
            # clears.
            package.write_model(directory / package.DESCRIPTION, description)
            self._index.add(description)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return Recording(identifier, directory, description)

    def directory(self, identifier: str) -> Path:
        """The live recording's package in the spool, for a worker that continues it. Raises RecordingMissing."""
        return self._spool / self._index.get(identifier).id

    def get(self, identifier: str) -> RecordingInfo:
        """Raises RecordingMissing."""
        return self._index.get(identifier)

    def search(self, query: Query) -> Page:
        """See `recording.index.Index.search`."""
        return self._index.search(query)

    def set_state(self, identifier: str, state: State, reason: str | None = None) -> RecordingInfo:
        """Note that a recording was paused, resumed (``recording``) or stopped (``sealing``), or that its
        worker died (``incomplete``). Stopping frees the room for another recording at once. Raises
        WrongState."""
        return self._index.set_state(identifier, state, reason)

    def media(self, identifier: str) -> StoredFile:
        """The composed film. Raises RecordingMissing, WrongState while it is not archived."""
        return self.open_file(identifier, package.MEDIA)

    def indexed_media(self, identifier: str) -> StoredFile:
        """The film for players: the sealed one with its index put in, so that a player need not read all of it to
        find its way. The sealed one itself where the package has no index. Raises as `media`."""
        film = self.media(identifier)
        try:
            index = b"".join(self.open_file(identifier, package.SEEK_INDEX).read())
            inset = Inset.make(b"".join(film.read(0, INIT_BYTES_MAX)), index, film.size)
        except (RecordingMissing, ObjectMissing):
            return film
        return film if inset is None else replace(film, size=inset.size, _inset=inset)

    def open_file(self, identifier: str, path: str) -> StoredFile:
        """A file of the package by its path inside it. Raises RecordingMissing (also for a file that the
        package does not have, or a path that none could have) and WrongState."""
        info = self._archived(identifier)
        try:
            path = safe_key(path)
        except UnsafePath as error:
            raise RecordingMissing(f"recording {info.id} has no such file") from error
        for file in self._files(info):
            if file.path == path:
                media_type = _MEDIA_TYPES.get(Path(path).suffix, "application/octet-stream")
                return StoredFile(path, file.size, file.sha256, media_type, self._store, info.key + path)
        raise RecordingMissing(f"recording {info.id} has no such file")

    def files(self, identifier: str) -> list[SealedFile]:
        """All files of the package, ``recording.json`` last. Raises RecordingMissing, WrongState."""
        return self._files(self._archived(identifier))

    def seal(self, identifier: str) -> Seal | None:
        """The sealed description; None when the store gives back another one, or none. Raises WrongState."""
        info = self._archived(identifier)
        try:
            return self._seal(info)[0]
        except (FixityError, ObjectMissing):
            return None

    def verify(self, identifier: str, progress: Progress = no_progress) -> Verification:
        """Read every byte again from the store and compare. A missing
        file, and one that nobody sealed, is not ok. Raises RecordingMissing, WrongState, StoreError, and what
        ``progress`` raises."""
        info = self._archived(identifier)
        return check_package(self._store, info.key, self._expected(info), progress)

    def inventory(self, info: RecordingInfo) -> tuple[SealedFile, ...]:
        """What there is, or should be, of a package in any state; sizes of what is there, from the store."""
        sizes = {item.key.removeprefix(info.key): item.size for item in self._store.list(info.key)}
        return tuple(
            SealedFile(path=path, size=sizes.get(path, 0), sha256=sha256)
            for path, sha256 in self._expected(info).items()
            if sha256
        )

    def bag(self, identifier: str) -> Iterator[bytes]:
        """The package as a BagIt bag in a ZIP (stored, ZIP64, one folder named by the id), made while it is
        read.

        Raises RecordingMissing, WrongState before the first byte.
        """
        info = self._archived(identifier)
        return zip_bag(self._store, info, self._files(info))

    def reindex(self, progress: Callable[[], object] = lambda: None) -> int:
        """Make rows again from every ``recording.json`` in the store; returns how many there were. What the ledgers
        say comes after that: see `recording.custody.Custody.reindex`."""
        count = 0
        for item in self._store.list():
            if item.key.endswith("/" + package.SEAL):
                body = read_object(self._store, item.key)
                try:
                    seal = Seal.model_validate_json(body)
                except ValidationError:
                    _log.warning("seal_unreadable", key=item.key)
                    continue
                if seal.key + package.SEAL == item.key:
                    self._index.archived(seal, hashlib.sha256(body).hexdigest())
                    count += 1
                    progress()
        return count

    def _archived(self, identifier: str) -> RecordingInfo:
        info = self._index.get(identifier)
        if info.state != "archived":
            raise WrongState(f"the recording is {info.state}, not archived", info.state)
        return info

    def _files(self, info: RecordingInfo) -> list[SealedFile]:
        seal, size = self._seal(info)
        return [*seal.files, SealedFile(path=package.SEAL, size=size, sha256=info.seal_sha256 or "")]

    def _seal(self, info: RecordingInfo) -> tuple[Seal, int]:
        """The sealed description and its size; FixityError when the store gives back another one."""
        if info.id not in self._seals:
            body = read_object(self._store, info.key + package.SEAL)
            if hashlib.sha256(body).hexdigest() != info.seal_sha256:
                raise FixityError(f"{info.key}{package.SEAL} is not what was sealed")
            if len(self._seals) >= _SEALS_KEPT:
                self._seals.clear()
            self._seals[info.id] = Seal.model_validate_json(body), len(body)
        return self._seals[info.id]

    def _expected(self, info: RecordingInfo) -> dict[str, str]:
        """SHA-256 by path of all that should be there; from the bag's manifests when the seal itself is
        spoilt.
        """
        self._seals.pop(info.id, None)  # verifying believes no memory
        expected: dict[str, str] = {}
        try:
            expected = {file.path: file.sha256 for file in self._seal(info)[0].files}
        except (FixityError, ObjectMissing):
            for name in (package.MANIFEST, package.TAG_MANIFEST):
                with suppress(ObjectMissing):
                    expected |= package.read_manifest(read_object(self._store, info.key + name))
            with suppress(ObjectMissing):  # the one file that nothing but the seal vouches for
                expected[package.TAG_MANIFEST] = object_sha256(self._store, info.key + package.TAG_MANIFEST)
        return {**expected, package.SEAL: info.seal_sha256 or ""}


def _software() -> str:
    try:
        return f"mosaique {version('mosaique')}"
    except PackageNotFoundError:
        return "mosaique"
