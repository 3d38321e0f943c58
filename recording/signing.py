"""Signatures of the archive: Ed25519 (RFC 8032), one key a machine, its public half in the archive itself.

What is signed is the canonical JSON of a statement: names sorted, no spaces, ASCII. A public key is known by its
fingerprint, the SHA-256 of its 32 bytes, so that nobody can put another key under its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from recording.durable import make_folder, sync_folder, write_whole
from recording.errors import BadEntry, ObjectExists, StoreError
from recording.store import ObjectStore, read_object

KEYS_PREFIX: Final = "mosaique.archive/keys/"  # no room's name has a dot: no package can lie there
_MAX_PEM_BYTES: Final = 4096  # an Ed25519 key takes 113


def canonical(statement: Mapping[str, Any]) -> bytes:
    """The bytes that are signed. The same statement gives the same bytes, however its JSON was laid out."""
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, in hex."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


class Signer:
    """The private key in the PEM file ``path`` (0600), made when it is not there. Raises StoreError when it cannot
    be read or made."""

    def __init__(self, path: Path) -> None:
        try:
            make_folder(path.parent)
            if not path.exists():
                _generate(path)
            loaded = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise StoreError(f"the archive's key in {path.name} cannot be used: {error}") from error
        if not isinstance(loaded, Ed25519PrivateKey):
            raise StoreError(f"the archive's key in {path.name} is not an Ed25519 key")
        self._key = loaded
        self.public = loaded.public_key()
        self.fingerprint = fingerprint(self.public)

    @property
    def public_pem(self) -> bytes:
        """The public half, to be kept where the archive cannot be changed from."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, statement: Mapping[str, Any]) -> str:
        """The signature of a statement, in hex."""
        return self._key.sign(canonical(statement)).hex()

    def publish(self, store: ObjectStore) -> None:
        """Put the public half into the archive, so that what is signed can be checked without this machine."""
        with suppress(ObjectExists):
            store.put(f"{KEYS_PREFIX}{self.fingerprint}.pem", self.public_pem)


class KeyRing:
    """The public keys that are believed, by fingerprint: ``own``, and those in ``folder``, which `learn` fills.

    The archive's own list is not believed by itself: who can write to the store could add to it.
    """

    def __init__(self, own: Ed25519PublicKey | None = None, folder: Path | None = None) -> None:
        self._folder = folder
        self._keys = {} if own is None else {fingerprint(own): own}
        if folder is not None and folder.is_dir():
            for path in folder.iterdir():
                self._take(path.stem, path.read_bytes())

    def learn(self, store: ObjectStore) -> list[str]:
        """Believe the keys of the archive from now on: for a machine that takes an archive over. The fingerprints that
        are new, for a person to compare with those that were written down."""
        learnt = []
        for item in store.list(KEYS_PREFIX):
            name = item.key.removeprefix(KEYS_PREFIX).removesuffix(".pem")
            if name not in self._keys and item.size <= _MAX_PEM_BYTES:
                pem = read_object(store, item.key)
                if self._take(name, pem):
                    learnt.append(name)
                    if self._folder is not None:
                        make_folder(self._folder)
                        write_whole(self._folder / f"{name}.pem", pem)
        return learnt

    def _take(self, name: str, pem: bytes) -> bool:
        """Whether ``pem`` is a public key that lies under its own name."""
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            return False
        if not isinstance(key, Ed25519PublicKey) or fingerprint(key) != name:
            return False
        self._keys[name] = key
        return True

    def check(self, statement: Mapping[str, Any], key: str, signature: str) -> None:
        """Raise BadEntry unless ``signature`` is that of the key ``key`` (its fingerprint) on the statement."""
        public = self._keys.get(key)
        if public is None:
            raise BadEntry(
                f"it is signed with the key {key[:16]}…, which is not believed here; "
                "`mosaique archive reindex` takes over the keys of an archive"
            )
        try:
            public.verify(bytes.fromhex(signature), canonical(statement))
        except (InvalidSignature, ValueError) as error:
            raise BadEntry("its signature does not fit: it was changed after it was signed") from error


def _generate(path: Path) -> None:
    """Written aside and linked into place: of two processes that start together one decides, and both use it."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
