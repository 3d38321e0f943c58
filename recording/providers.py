"""Stores by name: where they are, whose they are, what they need. Pure: a table and the rules that read it.

Sources: the providers' own pages on their S3 endpoints, as of November 2026. What a store can do beyond
this (locks, conditional writes) it is asked when it is opened; the table holds what cannot be asked.

The jurisdiction guard is here too. Under ``eu`` an endpoint must be one of this table's, region by region:
some of these providers have regions elsewhere. That a region lies in Europe is not enough: what counts is
whose law its operator answers to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from recording.errors import EndpointRefused

Jurisdiction = Literal["eu", "any", "self"]


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider.

    ``endpoint``: host with ``{region}``; empty: each customer has an own host (a subdomain of ``domain``), or it
    is one's own machine. ``regions``: the first is the default. ``country``: of the operator, ISO 3166-1.
    ``path_style``: the bucket in the path, not in the host's name. ``only_compliance``: its Object Lock knows no
    other mode. ``sse_c``: takes a key with each request. ``note``: for the person who sets it up.
    """

    name: str
    title: str
    country: str
    endpoint: str
    regions: tuple[str, ...]
    domain: str = ""
    path_style: bool = True
    only_compliance: bool = False
    sse_c: bool = False
    note: str = ""

    @property
    def self_hosted(self) -> bool:
        """One's own machine: no country, no host of its own."""
        return not self.country

    def host(self, region: str) -> str:
        """The endpoint's host in ``region``; empty when the customer has to say."""
        return self.endpoint.format(region=region)


_TABLE: Final = (
    Provider("scaleway", "Scaleway", "FR", "s3.{region}.scw.cloud", ("fr-par", "nl-ams", "pl-waw"),
             note="at most 1,000 parts an object"),
    Provider("ovhcloud", "OVHcloud", "FR", "s3.{region}.io.cloud.ovh.net",
             ("gra", "rbx", "sbg", "eu-west-par", "de"), sse_c=True),
    Provider("outscale", "3DS Outscale", "FR", "oos.{region}.outscale.com",
             ("eu-west-2", "cloudgouv-eu-west-1"), only_compliance=True,
             note="cloudgouv-eu-west-1 is SecNumCloud; Object Lock only when the bucket is made"),
    Provider("cloud-temple", "Cloud Temple", "FR", "", ("fr1",), domain="s3.fr1.cloud-temple.com",
             note="endpoint https://NAMESPACE.s3.fr1.cloud-temple.com"),
    Provider("exoscale", "Exoscale", "CH", "sos-{region}.exo.io",
             ("ch-dk-2", "ch-gva-2", "de-fra-1", "de-muc-1", "at-vie-1", "at-vie-2", "bg-sof-1")),
    Provider("ionos", "IONOS", "DE", "s3.{region}.ionoscloud.com", ("eu-central-3",)),
    Provider("hetzner", "Hetzner", "DE", "{region}.your-objectstorage.com", ("fsn1", "nbg1", "hel1"), sse_c=True),
    Provider("infomaniak", "Infomaniak", "CH", "s3.pub1.infomaniak.cloud", ("dc3-a",)),
    Provider("clever-cloud", "Clever Cloud Cellar", "FR", "cellar-c2.services.clever-cloud.com", ("default",)),
    Provider("stackit", "STACKIT", "DE", "object.storage.{region}.onstackit.cloud", ("eu01",),
             note="retention of at most 365 days"),
    Provider("otc", "Open Telekom Cloud", "DE", "obs.{region}.otc.t-systems.com", ("eu-de",)),
    Provider("upcloud", "UpCloud", "FI", "", ("europe-1",), domain="upcloudobjects.com",
             note="endpoint https://SERVICE.upcloudobjects.com; make the service in Europe"),
    Provider("cubbit", "Cubbit", "IT", "s3.cubbit.eu", ("eu-west-1",)),
    Provider("ceph", "Ceph RGW, your own", "", "", ("default",), sse_c=True),
    Provider("garage", "Garage, your own", "", "", ("garage",), sse_c=True, note="no versions, so no locks"),
    Provider("seaweedfs", "SeaweedFS, your own", "", "", ("us-east-1",), sse_c=True,
             note="the region's name is only part of the signature"),
)  # fmt: skip
PROVIDERS: Final = {provider.name: provider for provider in _TABLE}

# Hosts that people try, and whose they are: for the sentence that refuses them. Not a list to rely upon:
# what is not on the European list is refused whether it stands here or not.
_OTHERS: Final = (
    ("amazonaws.com", "Amazon"), ("amazonaws.eu", "Amazon"), ("aws.dev", "Amazon"), ("googleapis.com", "Google"),
    ("windows.net", "Microsoft"), ("azure.com", "Microsoft"), ("r2.cloudflarestorage.com", "Cloudflare"),
    ("backblazeb2.com", "Backblaze"), ("wasabisys.com", "Wasabi"), ("digitaloceanspaces.com", "DigitalOcean"),
    ("linodeobjects.com", "Akamai"), ("vultrobjects.com", "Vultr"), ("oraclecloud.com", "Oracle"),
    ("appdomain.cloud", "IBM"), ("idrivee2.com", "IDrive"), ("storjshare.io", "Storj"),
)  # fmt: skip


def european(host: str) -> Provider | None:
    """The provider of the European list whose endpoint ``host`` is, or a bucket's name in front of it."""
    name = _plain(host)
    for provider in _TABLE:
        endpoints = [provider.host(region) for region in provider.regions] if provider.endpoint else []
        if any(name == endpoint or name.endswith("." + endpoint) for endpoint in endpoints):
            return provider
        if provider.domain and name.endswith("." + provider.domain):
            return provider
    return None


def check_host(host: str, jurisdiction: Jurisdiction) -> None:
    """Refuse an endpoint by its name, before anything is looked up or sent. Raises `EndpointRefused`.

    Under ``self`` a name off the list passes here: `check_address` decides, it must be a private host.
    """
    if jurisdiction == "any" or european(host) is not None:
        return
    address = _address(host)
    if jurisdiction == "self" and (address is None or _is_private(address)):
        return
    owner = next(
        (who for suffix, who in _OTHERS if _plain(host) == suffix or _plain(host).endswith("." + suffix)), ""
    )
    if owner:
        why = f"it belongs to {owner}, a company of the United States, whose law reaches its European regions too"
    elif address is not None and _is_private(address):
        why = "it is a private address; for a store of your own set archive.jurisdiction to self"
    else:
        why = "it is not an endpoint of a provider on the European list (docs/stores.md)"
    raise EndpointRefused(host, why)


def check_address(host: str, address: str, jurisdiction: Jurisdiction) -> None:
    """Refuse what ``host`` resolved to, before a connection is made. Raises `EndpointRefused`."""
    if jurisdiction == "any":
        return
    private = _is_private(ipaddress.ip_address(address.partition("%")[0]))
    if jurisdiction == "self" and not private and european(host) is None:
        raise EndpointRefused(
            host, f"{address} is a public address, and the host is not on the European list (docs/stores.md)"
        )
    if jurisdiction == "eu" and private:
        raise EndpointRefused(
            host, f"its name leads to {address}, a private address: the name server is wrong or somebody stands"
            " in the way; nothing was sent, and what was recorded is still in the spool"
        )  # fmt: skip


def describe(providers: Sequence[Provider] = _TABLE) -> str:
    """The providers' names, for an error message."""
    return ", ".join(provider.name for provider in providers)


def _plain(host: str) -> str:
    return host.rstrip(".").lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Anything but a unicast address of the public Internet (also carrier NAT, link-local, IPv4 in IPv6)."""
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global or address.is_multicast
