"""The S3 store against a real server (SeaweedFS), and against one that fails as stores and lines do."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recording.encrypted import EncryptedStore
from recording.errors import (
    EndpointRefused,
    FixityError,
    LockRefused,
    ObjectExists,
    ObjectLocked,
    StoreError,
    StoreRefused,
)
from recording.s3 import S3Store
from recording.store import ObjectStore, read_object
from recording.store_contract import check_object_store
from tests.fakes.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.weed import QUICK, Weed, access, new_store

KEY = b"k" * 32


@pytest.mark.parametrize("kind", ["plain", "locked", "sse-c", "encrypted"])
def test_contract(kind: str, weed: Weed, tmp_path: Path) -> None:
    store: ObjectStore = new_store(weed, lock=kind == "locked", sse_c_key=KEY if kind == "sse-c" else None)
    check_object_store(EncryptedStore(store, KEY) if kind == "encrypted" else store, tmp_path)


def test_contract_where_keys_are_not_guarded(weed: Weed, tmp_path: Path) -> None:
    """A store without conditional writes is asked first: all of the contract but the race of several writers."""
    with faulty_s3(weed.endpoint) as proxy:
        store = new_store(weed, endpoint=proxy.endpoint)
        refused = Fault(501, "NotImplemented")
        proxy.decide = lambda method, path: (
            refused if method == "PUT" and "PROBE" in path and not done else None
        )
        done: list[bool] = []
        real = store._put_once

        def put_once(key: str, body: bytes, *, conditional: bool) -> None:
            if not conditional:
                done.append(True)
            real(key, body, conditional=conditional)

        store._put_once = put_once  # type: ignore[method-assign]
        assert not store.capabilities.conditional
        store.put("once", b"first")
        with pytest.raises(ObjectExists):
            store.put("once", b"second")
        assert read_object(store, "once") == b"first"


def test_two_prefixes_of_one_bucket_are_apart(weed: Weed) -> None:
    one, other = new_store(weed), new_store(weed)
    one.put("x", b"1")
    assert not list(other.list())
    assert [info.key for info in one.list()] == ["x"]


def test_probe_writes_one_object_and_deletes_nothing(weed: Weed) -> None:
    with faulty_s3(weed.endpoint) as proxy:
        for _ in range(2):
            found = S3Store(access(proxy.endpoint), weed.bucket, "probed").probe()
        assert (found.conditional, found.lock, found.versions, found.ranges) == (True, False, False, True)
        assert {path.split("?")[0] for method, path in proxy.requests if method == "PUT"} == {
            f"/{weed.bucket}/probed/PROBE"
        }
        assert not [path for method, path in proxy.requests if method in {"DELETE", "POST"}]


def test_links(weed: Weed) -> None:
    store = new_store(weed)
    store.put("film", b"0123456789")
    link = store.presign("film", 7200, filename='Réu"nion.mp4', media_type="video/mp4")
    assert link is not None
    assert "X-Amz-Expires=900" in link
    request = urllib.request.Request(link, headers={"Range": "bytes=2-4"})
    with urllib.request.urlopen(request) as answer:
        assert (answer.status, answer.read()) == (206, b"234")
        assert answer.headers["Content-Type"] == "video/mp4"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="Runion.mp4"'
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link.replace("film", "other", 1))
    assert (
        S3Store(access(weed.endpoint), "x-y-z", sse_c_key=KEY).presign(
            "a", 60, filename="a", media_type="a/b"
        )
        is None
    )


def test_retention_binds_and_is_not_shortened(weed: Weed) -> None:
    store = new_store(weed, lock=True, lock_mode="COMPLIANCE")
    store.put("p/film", b"kept")
    until = datetime.now(UTC) + timedelta(days=2)
    store.lock("p/film", until=until, hold=False)
    with pytest.raises(ObjectLocked):
        store.delete("p/film")
    with pytest.raises(LockRefused):
        store.lock("p/film", until=until - timedelta(days=1), hold=False)
    store.lock("p/film", until=until + timedelta(days=1), hold=False)
    assert read_object(store, "p/film") == b"kept"


def test_an_encrypted_store_tells_nothing(weed: Weed) -> None:
    inner = new_store(weed)
    store = EncryptedStore(inner, KEY)
    key = "salon/2026/11/25/01ARZ3NDEKTSV4RRFFQ69G5FAV/recording.json"
    store.put(key, b"confidential " * 9999)
    assert b"confidential" not in read_object(inner, key)
    assert not any(b"confidential" in read_object(inner, info.key) for info in inner.list())


# -- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(weed: Weed) -> Iterator[FaultyS3]:
    with faulty_s3(weed.endpoint) as running:
        yield running


@pytest.fixture
def store(proxy: FaultyS3, weed: Weed) -> S3Store:
    made = new_store(weed, endpoint=proxy.endpoint, **QUICK)
    made.probe()
    return made


FAULTS = [
    (Fault(500, "InternalError"), StoreError, "the store's fault"),
    (Fault(503, "SlowDown"), StoreError, "503 SlowDown"),
    (Fault(507, "InsufficientStorage"), StoreError, "is full"),
    (Fault(403, "QuotaExceeded"), StoreError, "is full"),
    (Fault(403, "AccessDenied"), StoreRefused, "forbids s3:PutObject.*policy must allow"),
    (Fault(403, "InvalidAccessKeyId"), StoreRefused, "correct archive.access_key"),
    (Fault(403, "SignatureDoesNotMatch"), StoreRefused, "correct archive.access_key"),
    (Fault(403, "RequestTimeTooSkewed"), StoreRefused, "clock is wrong"),
    (Fault(404, "NoSuchBucket"), StoreRefused, "has no bucket.*archive.url"),
    (Fault(400, "AuthorizationHeaderMalformed"), StoreRefused, "archive.region"),
    (Fault(400, "BadDigest"), FixityError, "other bytes"),
    (Fault(hang=True), StoreError, "does not answer"),
]


@pytest.mark.parametrize(("fault", "kind", "text"), FAULTS, ids=lambda value: getattr(value, "code", None))
def test_a_refusal_says_whose_fault_it_is(
    fault: Fault, kind: type[StoreError], text: str, proxy: FaultyS3, store: S3Store
) -> None:
    proxy.decide = lambda method, path: fault if method == "PUT" else None
    with pytest.raises(kind, match=text) as caught:
        store.put("a/film", b"x" * 1000)
    assert "not-a-secret" not in str(caught.value)
    proxy.heal()
    store.put("a/film", b"x" * 1000)
    assert read_object(store, "a/film") == b"x" * 1000


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(StoreError, match="cannot be reached"):
        S3Store(access(f"http://127.0.0.1:{port}", **QUICK), "bucket").put("a", b"x")


def test_no_bucket(weed: Weed) -> None:
    with pytest.raises(StoreRefused, match="has no bucket not-there"):
        S3Store(access(weed.endpoint), "not-there").put("a", b"x")


def test_wrong_secret(weed: Weed) -> None:
    store = new_store(weed, secret_key="another")
    with pytest.raises(StoreRefused):
        store.put("a", b"x")


def test_bytes_spoilt_on_the_way_are_refused(proxy: FaultyS3, store: S3Store) -> None:
    proxy.decide = lambda method, path: Fault(flip_up=True) if method == "PUT" else None
    with pytest.raises(StoreError):
        store.put("a", b"x" * 1000)
    proxy.heal()
    assert not list(store.list())


def test_a_read_that_breaks_off_goes_on_where_it_was(proxy: FaultyS3, store: S3Store) -> None:
    body = bytes(range(256)) * 8000
    store.put("a", body)
    cuts = iter([Fault(cut=True), Fault(cut=True)])
    proxy.decide = lambda method, path: next(cuts, None) if method == "GET" else None
    assert b"".join(store.open_range("a", 7, 1_900_000)) == body[7:1_900_000]
    assert not list(cuts)


# -- the guard ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 307])
def test_no_redirect_leads_elsewhere(status: int, proxy: FaultyS3, store: S3Store, weed: Weed) -> None:
    """Neither an HTTP redirect nor S3's own "that bucket is in another region" takes us to another host."""
    with faulty_s3(weed.endpoint) as elsewhere:
        code = "PermanentRedirect" if status == 301 else "TemporaryRedirect"
        there = elsewhere.endpoint.replace("127.0.0.1", "localhost")
        proxy.decide = lambda method, path: Fault(status, code, location=f"{there}/x")
        with pytest.raises(StoreRefused):
            store.put("a", b"x")
        with pytest.raises(StoreRefused):
            store.stat("a")
        assert not elsewhere.requests


def test_a_name_that_leads_to_a_private_address(weed: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name server says that a European provider is on this machine: nothing is sent there."""
    port = int(weed.endpoint.rpartition(":")[2])
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    contacted: list[object] = []
    monkeypatch.setattr(socket, "create_connection", lambda *args, **_: contacted.append(args))
    store = S3Store(access("https://s3.fr-par.scw.cloud", jurisdiction="eu", **QUICK), "bucket")
    with pytest.raises(EndpointRefused) as caught:
        store.put("a", b"x")
    assert str(caught.value) == (
        "s3.fr-par.scw.cloud is refused as an archive: its name leads to 127.0.0.1, a private address: the name"
        " server is wrong or somebody stands in the way; nothing was sent, and what was recorded is still in the spool"
    )
    assert not contacted


def test_the_environments_proxy_is_not_used(weed: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_s3(weed.endpoint) as elsewhere:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, elsewhere.endpoint)
        new_store(weed).put("a", b"x")
        assert not elsewhere.requests
