"""Where a recorded package lies: a folder, a bag in a ZIP, or a timeline with its tracks beside it."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from mixer.compose_io import ComposeFailed
from mixer.replay import MAX_TIMELINE_BYTES
from recording.tracks import FOLDER, JOURNAL, is_track

_TIMELINE: Final = "data/timeline.jsonl"
_MARGIN: Final = 2  # of the disk: the tracks that are taken out, and the film that is made of them


class RecordedPackage:
    """The timeline's bytes, and where each track is. Use as a context: what was unpacked goes at its end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.timeline = b""
        self.clocks = b""  # of ``tracks.jsonl``
        self.tracks: dict[str, Path] = {}  # by their path in the package

    def __enter__(self) -> RecordedPackage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @classmethod
    def open(cls, inputs: Sequence[Path], timeline: Path | None) -> RecordedPackage:
        """``inputs``: folders of a package, ZIPs of a bag, track files. ``timeline``: the journal when it lies
        elsewhere. Raises ComposeFailed.
        """
        package = cls()
        try:
            for path in inputs:
                package._add(path)
            if timeline is not None:
                package.timeline = _read(timeline)
                beside = timeline.with_name(Path(JOURNAL).name)
                package.clocks = _read(beside) if beside.is_file() else package.clocks
        except BaseException:
            package._stack.close()
            raise
        return package

    def _add(self, path: Path) -> None:
        if path.is_dir():
            self._add_folder(path)
        elif path.suffix.lower() == ".zip":
            self._add_zip(path)
        elif is_track(f"{FOLDER}/{path.name}"):
            self.tracks[f"{FOLDER}/{path.name}"] = path
        else:
            raise ComposeFailed(
                f"{path} is no track of a recording (001.mka, 001.mkv, …), nor a package's folder or ZIP"
            )

    def _add_folder(self, folder: Path) -> None:
        """A package, the folder that a bag was unpacked into, or the tracks alone."""
        inside = [path.parent.parent for path in folder.glob(f"*/{_TIMELINE}")]
        root = inside[0] if len(inside) == 1 else folder
        where = root / FOLDER if (root / FOLDER).is_dir() else folder
        tracks = {f"{FOLDER}/{path.name}": path for path in where.iterdir()}
        self.tracks |= {name: path for name, path in tracks.items() if is_track(name)}
        if (root / _TIMELINE).is_file():
            self.timeline = _read(root / _TIMELINE)
        if (root / JOURNAL).is_file():
            self.clocks = _read(root / JOURNAL)

    def _add_zip(self, path: Path) -> None:
        """A bag as the archive gives it: one folder, and the package in it. Only what it must have is taken out."""
        try:
            with zipfile.ZipFile(path) as bag:
                found = {}
                for item in bag.infolist():
                    name = item.filename.partition("/")[2]
                    if name in {_TIMELINE, JOURNAL} or is_track(name):
                        found[name] = item
                self.timeline = _member(bag, found.pop(_TIMELINE, None))
                self.clocks = _member(bag, found.pop(JOURNAL, None))
                folder = Path(
                    self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mosaique-compose-"))
                )
                needed = sum(item.file_size for item in found.values())
                if needed * _MARGIN > shutil.disk_usage(folder).free:
                    raise ComposeFailed(
                        f"{path}: its tracks have {needed / 1e6:.0f} MB, more than there is room for in {folder.parent}"
                    )
                for name, item in found.items():
                    taken = folder / name.rpartition("/")[2]  # a name of ours: it leads nowhere else
                    with bag.open(item) as source, taken.open("wb") as target:
                        shutil.copyfileobj(source, target)
                    self.tracks[name] = taken
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise ComposeFailed(f"{path} cannot be read: {error}") from error


def _member(bag: zipfile.ZipFile, item: zipfile.ZipInfo | None) -> bytes:
    """A journal, one byte more than it may have at most."""
    if item is None:
        return b""
    with bag.open(item) as source:
        return source.read(MAX_TIMELINE_BYTES + 1)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TIMELINE_BYTES + 1)
    except OSError as error:
        raise ComposeFailed(f"{path} cannot be read: {error.strerror}") from error
