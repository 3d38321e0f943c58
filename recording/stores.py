"""From a store's URL, as the configuration has it, to the store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from recording.errors import StoreError
from recording.local import LocalStore
from recording.store import ObjectStore


def open_store(url: str) -> ObjectStore:
    """``file:<folder>`` (relative, absolute or ``file:///…``) or a plain folder. Raises StoreError for
    anything else.
    """
    if not url.startswith("file:"):
        if "://" in url:
            raise StoreError(f"{urlsplit(url).scheme}: is not a kind of archive; use file:FOLDER")
        return LocalStore(Path(url))
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise StoreError("a file: archive names a folder on this machine, as in file:./var/archive")
    return LocalStore(Path(unquote(parts.path)))
