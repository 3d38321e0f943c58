"""From what the configuration says to an open store."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from recording.encrypted import EncryptedStore
from recording.endpoint import resolve
from recording.errors import EndpointRefused, StoreError
from recording.local import LocalStore
from recording.mirrored import MirroredStore
from recording.placement import BadPlace, Place, Places, key_bytes, place
from recording.store import ObjectStore

# A person waits for what the control process reads; the archiver has days.
PATIENT_ATTEMPTS: Final = 8
QUICK_ATTEMPTS: Final = 3


def open_store(where: str | Place, *, attempts: int = PATIENT_ATTEMPTS) -> ObjectStore:
    """The store of a `Place`, or of a folder's ``file:`` URL or path. ``attempts``: of each request to a bucket.

    Nothing is sent yet. Raises StoreError for what is no store of ours, EndpointRefused.
    """
    if isinstance(where, str):
        try:
            where = place(where)
        except BadPlace as error:
            raise StoreError(str(error)) from error
    store = LocalStore(Path(where.folder)) if where.folder else _bucket(where, attempts)
    if where.encrypt_key is not None:
        return EncryptedStore(store, key_bytes(where.encrypt_key.get_secret_value()))
    return store


def _bucket(where: Place, attempts: int) -> ObjectStore:
    from recording.s3 import S3Store  # noqa: PLC0415 - boto3 takes half a second and 30 MB: not for a folder
    from recording.s3_client import S3Access  # noqa: PLC0415

    access = S3Access(
        endpoint=where.endpoint,
        region=where.region,
        access_key=where.access_key.get_secret_value(),
        secret_key=where.secret_key.get_secret_value(),
        jurisdiction=where.jurisdiction,
        path_style=where.path_style,
        ca_file=where.ca_file,
        attempts=attempts,
    )
    return S3Store(
        access,
        where.bucket,
        where.prefix,
        sse_c_key=key_bytes(where.sse_c_key.get_secret_value()) if where.sse_c_key else None,
        lock_mode=where.lock_mode,
    )


def open_both(places: Places) -> ObjectStore:
    """The archive for reading, holding and deleting: with a second store, both in one."""
    first = open_store(places.first, attempts=QUICK_ATTEMPTS)
    if places.second is None:
        return first
    return MirroredStore(first, open_store(places.second, attempts=QUICK_ATTEMPTS))


def check_places(places: Places) -> None:
    """Look the endpoints' names up once, at the start. Raises EndpointRefused for a public host off the list under
    ``self``; a name that cannot be looked up now, or leads astray, is an error of each request later."""
    for one in (places.first, places.second):
        if one is None or one.folder or one.jurisdiction != "self":
            continue
        parts = urlsplit(one.endpoint)
        try:
            resolve(parts.hostname or "", parts.port or 443, one.jurisdiction)
        except EndpointRefused:
            raise
        except (socket.gaierror, OSError):
            continue
