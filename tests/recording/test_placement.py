"""Where an archive may be: presets, the jurisdiction guard, and what each mistake is told."""

from __future__ import annotations

import socket

import pytest
from pydantic import SecretStr

from recording.errors import EndpointRefused
from recording.placement import BadPlace, Place, Places, key_bytes, place
from recording.providers import PROVIDERS, Jurisdiction, check_address, check_host, european
from recording.stores import check_places

ISSUE = {
    "scaleway", "ovhcloud", "outscale", "exoscale", "ionos", "hetzner", "infomaniak", "clever-cloud", "stackit", "otc",
    "upcloud", "cubbit", "ceph", "garage", "seaweedfs",
}  # fmt: skip
KEYS = {"access_key": SecretStr("AK"), "secret_key": SecretStr("SK")}
SECRET = "SK-very-secret"


def test_every_provider_of_the_issue_by_name() -> None:
    assert set(PROVIDERS) >= ISSUE


@pytest.mark.parametrize("name", sorted(name for name, p in PROVIDERS.items() if p.endpoint))
def test_a_preset_is_enough(name: str) -> None:
    provider = PROVIDERS[name]
    for region in (None, *provider.regions):
        made = place("s3://films/conference", provider=name, region=region, **KEYS)
        assert made.endpoint == f"https://{provider.host(region or provider.regions[0])}"
        assert (made.bucket, made.prefix, made.jurisdiction) == ("films", "conference", "eu")
        assert european(made.endpoint.removeprefix("https://")) is provider


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        ("cloud-temple", "https://acme.s3.fr1.cloud-temple.com"),
        ("upcloud", "https://abc12.upcloudobjects.com"),
    ],
)
def test_a_customers_own_host(name: str, endpoint: str) -> None:
    with pytest.raises(BadPlace, match="endpoint https://"):
        place("s3://films", provider=name, **KEYS)
    assert place("s3://films", provider=name, endpoint=endpoint, **KEYS).endpoint == endpoint


def test_secnumcloud() -> None:
    made = place("s3://films", provider="outscale", region="cloudgouv-eu-west-1", **KEYS)
    assert made.endpoint == "https://oos.cloudgouv-eu-west-1.outscale.com"
    assert made.lock_mode == "COMPLIANCE"


REFUSED = [
    ("s3.eu-west-3.amazonaws.com", "belongs to Amazon"),
    ("s3.eu-isoe-west-1.amazonaws.eu", "belongs to Amazon"),
    ("storage.googleapis.com", "belongs to Google"),
    ("acme.blob.core.windows.net", "belongs to Microsoft"),
    ("abc.eu.r2.cloudflarestorage.com", "belongs to Cloudflare"),
    ("s3.eu-central-003.backblazeb2.com", "belongs to Backblaze"),
    ("s3.eu-central-1.wasabisys.com", "belongs to Wasabi"),
    ("s3.bhs.io.cloud.ovh.net", "not an endpoint of a provider on the European list"),  # Canada
    ("oos.us-east-2.outscale.com", "not an endpoint"),
    ("s3.us-central-1.ionoscloud.com", "not an endpoint"),
    ("s3.fr-par.scw.cloud.evil.example", "not an endpoint"),
    ("evils3.fr-par.scw.cloud", "not an endpoint"),
    ("upcloudobjects.com.evil.example", "not an endpoint"),
    ("192.0.2.1", "private address"),
    ("10.0.0.1", "set archive.jurisdiction to self"),
    ("169.254.169.254", "private address"),
    ("::1", "private address"),
]  # fmt: skip


@pytest.mark.parametrize(("host", "why"), REFUSED)
def test_refused_under_eu(host: str, why: str) -> None:
    with pytest.raises(EndpointRefused, match=why) as caught:
        check_host(host, "eu")
    assert caught.value.host == host
    check_host(host, "any")


@pytest.mark.parametrize("host", ["S3.FR-PAR.SCW.CLOUD", "s3.fr-par.scw.cloud.", "films.s3.fr-par.scw.cloud"])
def test_a_name_in_other_letters(host: str) -> None:
    check_host(host, "eu")


ADDRESSES: list[tuple[str, str, Jurisdiction, bool]] = [
    ("s3.fr-par.scw.cloud", "51.159.62.16", "eu", True),
    ("s3.fr-par.scw.cloud", "10.1.2.3", "eu", False),
    ("s3.fr-par.scw.cloud", "127.0.0.1", "eu", False),
    ("s3.fr-par.scw.cloud", "169.254.169.254", "eu", False),
    ("s3.fr-par.scw.cloud", "100.64.0.9", "eu", False),
    ("s3.fr-par.scw.cloud", "::ffff:10.0.0.1", "eu", False),
    ("s3.fr-par.scw.cloud", "fe80::1%eth0", "eu", False),
    ("store.example", "10.1.2.3", "self", True),
    ("store.example", "fd00::1", "self", True),
    ("store.example", "8.8.8.8", "self", False),
    ("s3.fr-par.scw.cloud", "51.159.62.16", "self", True),
    ("store.example", "8.8.8.8", "any", True),
]


@pytest.mark.parametrize(("host", "address", "jurisdiction", "allowed"), ADDRESSES)
def test_addresses(host: str, address: str, jurisdiction: Jurisdiction, allowed: bool) -> None:
    if allowed:
        check_address(host, address, jurisdiction)
        return
    with pytest.raises(EndpointRefused) as caught:
        check_address(host, address, jurisdiction)
    assert host in str(caught.value)
    assert address in str(caught.value)


def test_a_public_host_of_ones_own_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    made = place("s3://films", provider="ceph", endpoint="https://store.example", jurisdiction="self", **KEYS)
    with pytest.raises(EndpointRefused, match=r"store.example is refused as an archive: 8.8.8.8 is a public"):
        check_places(Places(first=made))


def test_a_name_that_cannot_be_looked_up_now_is_no_reason_not_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    made = place("s3://films", provider="ceph", endpoint="https://store", jurisdiction="self", **KEYS)
    check_places(Places(first=made, second=made))


MISTAKES = [
    ({"url": "ftp://x/y"}, "url", "file:PATH or s3://BUCKET/PREFIX"),
    ({"url": "s3://UPPER"}, "url", "lower case"),
    ({"url": "s3://films/../x"}, "url", "prefix is made of"),
    ({"url": "s3://films/a\0b"}, "url", "prefix is made of"),
    ({"provider": None}, "provider", "needs one of scaleway, ovhcloud"),
    ({"provider": "aws"}, "provider", "takes one of scaleway"),
    ({"region": "us-east-1"}, "region", "takes one of fr-par, nl-ams, pl-waw"),
    ({"provider": None, "endpoint": "https://s3.fr-par.scw.cloud"}, "region", "is needed"),
    ({"endpoint": "https://s3.gra.io.cloud.ovh.net"}, "endpoint", "not one of Scaleway"),
    ({"endpoint": "http://s3.fr-par.scw.cloud"}, "endpoint", "https://"),
    ({"endpoint": "https://user:pw@s3.fr-par.scw.cloud"}, "endpoint", r"takes https://HOST\[:PORT\]"),
    ({"endpoint": "https://s3.fr-par.scw.cloud/bucket"}, "endpoint", "nothing behind it"),
    ({"provider": "ceph"}, "endpoint", "needs it"),
    ({"access_key": None}, "access_key", "is needed"),
    ({"secret_key": SecretStr("")}, "secret_key", "is needed"),
    ({"sse_c_key": SecretStr("x")}, "sse_c_key", "archive.encrypt does"),
]


@pytest.mark.parametrize(("change", "field", "text"), MISTAKES)
def test_a_mistake_names_its_setting(change: dict[str, object], field: str, text: str) -> None:
    settings = {"url": "s3://films", "provider": "scaleway", **KEYS, **change}
    with pytest.raises(BadPlace, match=text) as caught:
        place(**settings)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_keys_are_32_bytes() -> None:
    for text in ("QUJD" * 10 + "QUI=", "-_" * 21 + "A", "a" * 43):
        assert len(key_bytes(text)) == 32
    for text in ("", "short", "a" * 44, "ü" * 43, "*" * 43):
        with pytest.raises(ValueError, match="openssl rand -base64 32"):
            key_bytes(text)


def test_secrets_are_not_shown_but_travel() -> None:
    made = Places(
        first=place(
            "s3://films", provider="scaleway", access_key=SecretStr("AK"), secret_key=SecretStr(SECRET)
        )
    )
    assert SECRET not in repr(made)
    assert SECRET not in str(made)
    assert Places.model_validate_json(made.model_dump_json()) == made
    assert made.first.where == "s3.fr-par.scw.cloud/films"
    assert Place(folder="/x").where == "/x"
