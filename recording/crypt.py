"""The format of an encrypted object: AES-256-GCM in segments, so that any range can be read. Pure.

    header     8 bytes  "MSQCRYP1"
               32 bytes salt, random for each object
    segment    65,536 bytes of plaintext (the last one 0 to 65,536), encrypted, then its 16-byte tag
    …

The object's own key is HKDF-SHA-256 (RFC 5869) of the recording's key, with the salt, over "mosaique object"
and the object's key in the archive: an object put in another's place does not open. Each segment's nonce is
its number (11 bytes, big endian) and one byte that is 1 in the last segment and 0 before: segments
that were cut off, repeated or changed in order don't open either (the STREAM construction: Hoang,
Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015).
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from recording.errors import FixityError

MAGIC: Final = b"MSQCRYP1"
SALT_BYTES: Final = 32
HEADER_BYTES: Final = len(MAGIC) + SALT_BYTES
SEGMENT_BYTES: Final = 64 * 1024
TAG_BYTES: Final = 16
SEALED_BYTES: Final = SEGMENT_BYTES + TAG_BYTES
KEY_BYTES: Final = 32
_WRAP_NONCE_BYTES: Final = 12


def new_salt() -> bytes:
    """For one object."""
    return os.urandom(SALT_BYTES)


def header(salt: bytes) -> bytes:
    """What stands before the segments."""
    return MAGIC + salt


def read_header(data: bytes) -> bytes:
    """The salt of an object that begins with ``data``. Raises FixityError."""
    if len(data) != HEADER_BYTES or not data.startswith(MAGIC):
        raise FixityError("an object of the encrypted archive does not begin as it should")
    return data[len(MAGIC) :]


def stored_size(plain: int) -> int:
    """Bytes of the object whose content has ``plain`` bytes."""
    return HEADER_BYTES + plain + TAG_BYTES * segments(plain)


def segments(plain: int) -> int:
    """How many segments hold ``plain`` bytes; there is always one."""
    return max(1, -(-plain // SEGMENT_BYTES))


def plain_size(stored: int) -> int:
    """Bytes of content in an object of ``stored`` bytes. Raises FixityError for a size that none has."""
    body = stored - HEADER_BYTES
    count = -(-body // SEALED_BYTES)
    plain = body - TAG_BYTES * count
    if body < TAG_BYTES or plain < 0 or stored_size(plain) != stored:
        raise FixityError("an object of the encrypted archive has been cut off")
    return plain


class ObjectCipher:
    """Encrypts and decrypts the segments of one object. ``name``: its key in the archive."""

    def __init__(self, recording_key: bytes, salt: bytes, name: str) -> None:
        info = b"mosaique object\0" + name.encode()
        key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(recording_key)
        self._aead = AESGCM(key)
        self._name = name

    def seal(self, data: bytes, first: int, *, last: bool) -> bytes:
        """Encrypt whole segments, the first of them number ``first``; ``last``: the object ends with ``data``.

        Without ``last``, ``data`` is a multiple of `SEGMENT_BYTES`.
        """
        if not last and len(data) % SEGMENT_BYTES:
            raise ValueError("only the last segment may be short")
        count = segments(len(data)) if last or data else 0
        view = memoryview(data)
        return b"".join(
            self._aead.encrypt(
                _nonce(first + n, last=last and n == count - 1),
                view[n * SEGMENT_BYTES : (n + 1) * SEGMENT_BYTES],
                None,
            )
            for n in range(count)
        )

    def open(self, data: bytes, number: int, *, last: bool) -> bytes:
        """Decrypt segment ``number``. Raises FixityError when it is not the one that was written there."""
        try:
            return self._aead.decrypt(_nonce(number, last=last), data, None)
        except InvalidTag:
            raise FixityError(
                f"{self._name} was changed in the store, cut off, or encrypted with another key"
            ) from None


def wrap(master: bytes, key: bytes, name: str) -> bytes:
    """A recording's key, encrypted with the archive's master key for ``name`` (AES-256-GCM, random nonce)."""
    nonce = os.urandom(_WRAP_NONCE_BYTES)
    return nonce + AESGCM(master).encrypt(nonce, key, b"mosaique key\0" + name.encode())


def unwrap(master: bytes, wrapped: bytes, name: str) -> bytes:
    """The recording's key. Raises FixityError with another master key, or for another ``name``."""
    try:
        return AESGCM(master).decrypt(
            wrapped[:_WRAP_NONCE_BYTES], wrapped[_WRAP_NONCE_BYTES:], b"mosaique key\0" + name.encode()
        )
    except (InvalidTag, ValueError):
        raise FixityError(
            f"the key of {name} does not open: it was wrapped with another archive.encrypt_key"
        ) from None


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")
