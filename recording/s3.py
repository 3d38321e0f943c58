"""An object store in an S3 bucket (boto3), as European providers and self-hosted servers offer it.

No two stores can do the same. What one can is found out when it is first used (`S3Store.probe`), by one tiny
object of our own; where a store cannot make an object only if its key is free, it is asked first. ETags are
never compared: what counts is what is read back.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import structlog
from botocore.exceptions import ClientError

from recording.errors import LockRefused, ObjectExists, ObjectMissing, StoreError, UploadMissing
from recording.keys import package_prefix, safe_key, safe_prefix
from recording.s3_client import S3Access, make_client
from recording.s3_errors import code_of, explained, locked, status_of
from recording.store import CHUNK_BYTES, Capabilities, ObjectInfo, Part, PendingUpload

_log = structlog.get_logger(__name__)

PRESIGN_MAX_S: Final = 900  # contract section 4: at most 15 min
_PROBE: Final = "PROBE"  # our own object, upper case: no room's name; never listed, never deleted
_RESUMES: Final = 3  # times a reader begins again where the line broke
_UNSUPPORTED: Final = {"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "MethodNotAllowed"}


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a bucket can do, as it was found. ``ranges``: parts of an object can be read."""

    conditional: bool
    lock: bool
    versions: bool
    ranges: bool


class S3Store:
    """`recording.store.ObjectStore` in ``bucket`` under ``prefix`` (without a slash at its ends; may be empty).

    ``sse_c_key``: 32 bytes; the store encrypts each object with it and forgets it. ``lock_mode``: of retention.
    """

    def __init__(
        self,
        access: S3Access,
        bucket: str,
        prefix: str = "",
        *,
        sse_c_key: bytes | None = None,
        lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE",
    ) -> None:
        self._client = make_client(access)
        self._host = access.host
        self._bucket = bucket
        self._prefix = f"{safe_key(prefix)}/" if prefix else ""
        self._lock_mode = lock_mode
        self._sse: dict[str, Any] = {}
        if sse_c_key is not None:
            # boto3 adds the key's digest, and encodes both.
            self._sse = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": sse_c_key}
        self._found: ProbeResult | None = None
        self._probing = threading.Lock()

    # -- what it can do ----------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """See the port. Asks the store at the first use: raises StoreError while it cannot be asked."""
        found = self.probe()
        return Capabilities(conditional=found.conditional, lock=found.lock, presign=not self._sse)

    def probe(self) -> ProbeResult:
        """Whether the bucket is there and what it can do; asked once. Writes one object of a few bytes, the first
        time ever; overwrites and deletes nothing. Raises StoreRefused, StoreError."""
        with self._probing:
            if self._found is None:
                with self._explained("ListBucket"):
                    self._client.head_bucket(Bucket=self._bucket)
                self._found = ProbeResult(
                    self._probe_conditional(),
                    self._probe_lock(),
                    self._probe_versions(),
                    self._probe_ranges(),
                )
                _log.info(
                    "store_probed", host=self._host, bucket=self._bucket, conditional=self._found.conditional,
                    lock=self._found.lock, versions=self._found.versions, ranges=self._found.ranges,
                )  # fmt: skip
            return self._found

    def _probe_conditional(self) -> bool:
        """Two puts of one key, if it is free: the second one, at the latest, must be refused."""
        for _ in range(2):
            try:
                with self._explained("PutObject"):
                    self._put_once(_PROBE, b"mosaique", conditional=True)
            except ObjectExists:
                return True
            except StoreError as error:
                cause = error.__cause__
                if not isinstance(cause, ClientError) or code_of(cause) not in _UNSUPPORTED:
                    raise
                self._put_probe_plainly()
                return False
        return False

    def _put_probe_plainly(self) -> None:
        with suppress(ObjectExists):
            try:
                self.stat(_PROBE)
            except ObjectMissing:
                with self._explained("PutObject"):
                    self._put_once(_PROBE, b"mosaique", conditional=False)

    def _probe_lock(self) -> bool:
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError:  # no lock, not implemented, or not ours to know
            return False
        return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def _probe_versions(self) -> bool:
        try:
            answer = self._client.get_bucket_versioning(Bucket=self._bucket)
        except ClientError:
            return False
        return answer.get("Status") in {"Enabled", "Suspended"}

    def _probe_ranges(self) -> bool:
        return b"".join(self.open_range(_PROBE, 1, 4)) == b"osa"

    # -- the port ----------------------------------------------------------------------------------------------

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        """See the port. In one request: files of more than a few MiB are better sent in parts."""
        body = source if isinstance(source, bytes) else source.read_bytes()
        safe_key(key)
        conditional = self._ask_first(key)
        with self._explained("PutObject", key):
            self._put_once(key, body, conditional=conditional)
        return ObjectInfo(key, len(body))

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See the port. A line that breaks is taken up again where it broke, a few times."""
        if end is not None and end <= start:
            self.stat(key)
            return iter(())
        answer = self._get(key, start, end)
        return iter(()) if answer is None else self._chunks(key, answer, start, end)

    def stat(self, key: str) -> ObjectInfo:
        """See the port."""
        with self._explained("GetObject", safe_key(key)):
            answer = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key, **self._sse)
        return ObjectInfo(key, int(answer["ContentLength"]))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See the port. All in memory, and sorted: SeaweedFS lists in the order of a file tree, not of keys."""
        safe_prefix(prefix)
        found = []
        with self._explained("ListBucket"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                found += [
                    ObjectInfo(item["Key"].removeprefix(self._prefix), int(item["Size"]))
                    for item in page.get("Contents", ())
                ]
        return iter(sorted((info for info in found if info.key != _PROBE), key=lambda info: info.key))

    def delete(self, key: str) -> None:
        """See the port."""
        if self.probe().versions:
            self._delete_versions(safe_key(key), exact=True)
        else:
            self._delete_one(safe_key(key), {})

    def delete_all(self, prefix: str) -> int:
        """See the port. One by one: DeleteObjects needs checksums on which stores do not agree."""
        found = [info.key for info in self.list(package_prefix(prefix))]
        if self.probe().versions:
            self._delete_versions(prefix, exact=False)
        else:
            for key in found:
                self._delete_one(key, {})
        return len(found)

    def presign(self, key: str, ttl_s: int, *, filename: str, media_type: str) -> str | None:
        """See the port. At most `PRESIGN_MAX_S`; None for what is encrypted with our key."""
        safe_key(key)
        if self._sse:
            return None
        name = "".join(c for c in filename if c.isascii() and (c.isalnum() or c in "._- ")) or "recording"
        link: str = self._client.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self._bucket, "Key": self._prefix + key, "ResponseContentType": media_type,
                "ResponseContentDisposition": f'attachment; filename="{name}"',
            },
            ExpiresIn=max(1, min(ttl_s, PRESIGN_MAX_S)),
        )  # fmt: skip
        return link

    def lock(self, key: str, *, until: datetime | None, hold: bool) -> None:
        """See the port."""
        self.stat(key)
        if not self.probe().lock:
            raise LockRefused(
                f"bucket {self._bucket} was made without Object Lock; that cannot be added later"
            )
        place = {"Bucket": self._bucket, "Key": self._prefix + key, "ChecksumAlgorithm": "SHA256"}
        try:
            if until is not None:
                retention = {"Mode": self._lock_mode, "RetainUntilDate": until.astimezone(UTC)}
                self._client.put_object_retention(**place, Retention=retention)
            self._client.put_object_legal_hold(**place, LegalHold={"Status": "ON" if hold else "OFF"})
        except ClientError as error:
            if status_of(error) in {400, 403}:
                raise LockRefused(f"{self._host} refuses that lock of {key}: {code_of(error)}") from error
            with self._explained("PutObjectRetention", key):
                raise

    # -- parts -------------------------------------------------------------------------------------------------

    def begin(self, key: str, source: Path | None = None) -> str:
        """See the port."""
        with self._explained("PutObject", safe_key(key)):
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=self._prefix + key, **self._sse
            )
        return str(answer["UploadId"])

    def put_part(self, key: str, upload: str, number: int, offset: int, data: bytes, *, last: bool) -> str:
        """See the port."""
        with self._explained("PutObject", safe_key(key)):
            answer = self._client.upload_part(
                **self._upload(key, upload), PartNumber=number, Body=data, ContentMD5=_md5(data), **self._sse
            )
        return str(answer["ETag"])

    def parts(self, key: str, upload: str) -> Sequence[Part]:
        """See the port."""
        found: dict[int, Part] = {}
        with self._explained("ListMultipartUploadParts", safe_key(key)):
            for page in self._client.get_paginator("list_parts").paginate(**self._upload(key, upload)):
                for item in page.get("Parts", ()):  # SeaweedFS lists a part that was put again twice
                    part = Part(int(item["PartNumber"]), int(item["Size"]), str(item["ETag"]))
                    found[part.number] = part
        return [found[number] for number in sorted(found)]

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> ObjectInfo:
        """See the port."""
        self.parts(key, upload)  # a store may take a second completion for the first
        conditional = self._ask_first(safe_key(key))
        listed = [{"PartNumber": part.number, "ETag": part.tag} for part in parts]
        with self._explained("PutObject", key):
            self._client.complete_multipart_upload(
                **self._upload(key, upload), MultipartUpload={"Parts": listed}, **_if_free(conditional)
            )
        return ObjectInfo(key, sum(part.size for part in parts))

    def abort(self, key: str, upload: str) -> None:
        """See the port."""
        safe_key(key)
        with suppress(UploadMissing), self._explained("AbortMultipartUpload", key):
            self._client.abort_multipart_upload(**self._upload(key, upload))

    def uploads(self, prefix: str = "") -> Iterator[PendingUpload]:
        """See the port."""
        safe_prefix(prefix)
        with self._explained("ListBucketMultipartUploads"):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Uploads", ()):
                    begun = item.get("Initiated") or datetime.now(UTC)
                    yield PendingUpload(item["Key"].removeprefix(self._prefix), item["UploadId"], begun)

    # -- requests ----------------------------------------------------------------------------------------------

    def _ask_first(self, key: str) -> bool:
        """Whether the store itself guards the key. Where not: raises ObjectExists when it is taken."""
        if self.probe().conditional:
            return True
        with suppress(ObjectMissing):
            self.stat(key)
            raise ObjectExists(f"{key} is stored already, and objects are never overwritten")
        return False

    def _put_once(self, key: str, body: bytes, *, conditional: bool) -> None:
        self._client.put_object(
            Bucket=self._bucket, Key=self._prefix + key, Body=body, ContentMD5=_md5(body),
            **_if_free(conditional), **self._sse,
        )  # fmt: skip

    def _get(self, key: str, start: int, end: int | None) -> Mapping[str, Any] | None:
        """GetObject of a range; None when it lies behind the end."""
        span = (
            {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        )
        try:
            with self._explained("GetObject", safe_key(key)):
                answer: Mapping[str, Any] = self._client.get_object(
                    Bucket=self._bucket, Key=self._prefix + key, **span, **self._sse
                )
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and (
                code_of(cause) == "InvalidRange" or status_of(cause) == 416
            ):
                return None
            raise
        return answer

    def _chunks(self, key: str, answer: Mapping[str, Any], start: int, end: int | None) -> Iterator[bytes]:
        position, resumes = start, 0
        while True:
            try:
                with self._explained("GetObject", key), closing(answer["Body"]) as body:
                    while chunk := body.read(CHUNK_BYTES):
                        position += len(chunk)
                        yield chunk
            except StoreError:
                resumes += 1
                if resumes > _RESUMES or (end is not None and position >= end):
                    raise
                again = self._get(key, position, end)
                if again is None:
                    return
                answer = again
            else:
                return

    def _delete_versions(self, prefix: str, *, exact: bool) -> None:
        with self._explained("ListBucketVersions"):
            pages = self._client.get_paginator("list_object_versions")
            found = [
                (item["Key"].removeprefix(self._prefix), item["VersionId"])
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
                for kind in ("Versions", "DeleteMarkers")
                for item in page.get(kind, ())
            ]
        for key, version in found:
            if not exact or key == prefix:
                self._delete_one(key, {"VersionId": version})

    def _delete_one(self, key: str, version: Mapping[str, str]) -> None:
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key, **version)
        except ClientError as error:
            if self.probe().lock and self._is_bound(key) and (bound := locked(error, key)):
                raise bound from error
            with suppress(ObjectMissing), self._explained("DeleteObject", key):
                raise

    def _is_bound(self, key: str) -> bool:
        """Whether a retention or a hold binds the object as it is now."""
        place = {"Bucket": self._bucket, "Key": self._prefix + key}
        with suppress(ClientError):
            if self._client.get_object_legal_hold(**place)["LegalHold"].get("Status") == "ON":
                return True
        with suppress(ClientError, KeyError):
            until: datetime = self._client.get_object_retention(**place)["Retention"]["RetainUntilDate"]
            return until > datetime.now(UTC)
        return False

    def _upload(self, key: str, upload: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + safe_key(key), "UploadId": upload}

    def _explained(self, what: str, key: str = "") -> Any:
        return explained(what, bucket=self._bucket, host=self._host, key=key)


def _if_free(conditional: bool) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if conditional else {}


def _md5(data: bytes) -> str:
    """Content-MD5 (RFC 1864): the one checksum that every store takes, and that Object Lock asks for."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
