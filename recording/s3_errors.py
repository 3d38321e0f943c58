"""What a store's refusal means: whose fault it was, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from urllib3.exceptions import HTTPError

from recording.errors import (
    FixityError,
    ObjectExists,
    ObjectLocked,
    ObjectMissing,
    StoreError,
    StoreRefused,
    UploadMissing,
)

_MISSING: Final = {"NoSuchKey", "404", "NotFound"}
_EXISTS: Final = {"PreconditionFailed", "412", "ConditionalRequestConflict"}
_CLOCK: Final = {"RequestTimeTooSkewed", "RequestExpired"}
_KEYS: Final = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"}
_REGION: Final = {
    "PermanentRedirect",
    "301",
    "307",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
}
_DAMAGED: Final = {"BadDigest", "XAmzContentSHA256Mismatch", "InvalidDigest", "XAmzContentChecksumMismatch"}
_FULL: Final = {"InsufficientStorage", "507", "QuotaExceeded", "EntityTooLarge", "InsufficientStorageSpace"}
LOCKED: Final = {"AccessDenied", "403", "ObjectLocked", "InvalidRequest"}


@contextmanager
def explained(what: str, *, bucket: str, host: str, key: str = "") -> Iterator[None]:
    """boto3's errors as ours. ``what``: the S3 action, as a policy names it."""
    try:
        yield
    except ClientError as error:
        raise _meaning(error, what, bucket, host, key) from error
    except (ConnectTimeoutError, ReadTimeoutError) as error:
        raise StoreError(f"{host} does not answer: the store or the line to it is slow or down") from error
    except (HTTPClientError, BotoConnectionError, HTTPError) as error:
        raise StoreError(f"{host} cannot be reached, or broke off: {_short(error)}") from error
    except BotoCoreError as error:
        raise StoreError(f"{host}: {_short(error)}") from error


def code_of(error: ClientError) -> str:
    """S3's error code; an answer without a body has only its status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _meaning(error: ClientError, what: str, bucket: str, host: str, key: str) -> StoreError:
    """The rows in order; the first that fits."""
    code, status = code_of(error), status_of(error)
    name = key or bucket
    rows: tuple[tuple[bool, type[StoreError], str], ...] = (
        (code == "NoSuchBucket" or (not key and status == 404), StoreRefused,
         f"{host} has no bucket {bucket}: make it, or correct archive.url"),
        (code == "NoSuchUpload", UploadMissing, f"{host} knows no such unfinished upload of {name}"),
        (code in _MISSING, ObjectMissing, f"there is no object {name}"),
        (code in _EXISTS or status == 412, ObjectExists,
         f"{name} is stored already, and objects are never overwritten"),
        (code in _DAMAGED, FixityError,
         f"{host} got other bytes of {name} than were sent; the line between spoilt them"),
        (code in _FULL or status == 507, StoreError,
         f"{host} is full: no room for {name}; free some, or raise the bucket's quota"),
        (code in _CLOCK, StoreRefused, f"{host} says that this machine's clock is wrong: set it (NTP)"),
        (code in _REGION, StoreRefused,
         f"bucket {bucket} is not in this region of {host}: correct archive.region and archive.endpoint"),
        (code == "AuthorizationHeaderMalformed", StoreRefused,
         f"{host} expects another region: correct archive.region"),
        (code in _KEYS or status == 401, StoreRefused,
         f"{host} does not know these credentials ({code}): correct archive.access_key and archive.secret_key"),
        (status == 403, StoreRefused,
         f"{host} forbids s3:{what} in bucket {bucket}: the access key's policy must allow it"),
        (True, StoreError,
         f"{host} failed with {status} {code} at {what} of {name}: the store's fault; it is tried again"),
    )  # fmt: skip
    return next(kind(sentence) for fits, kind, sentence in rows if fits)


def locked(error: ClientError, key: str) -> ObjectLocked | None:
    """The refusal of a deletion, if it may mean that a lock binds the object."""
    if code_of(error) in LOCKED or status_of(error) == 403:
        return ObjectLocked(f"{key} is bound by a retention or a legal hold of the store")
    return None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
