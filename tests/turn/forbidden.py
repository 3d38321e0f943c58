"""Peers that no relay of ours may reach, in every notation that leads there."""

from __future__ import annotations

from typing import Final

FORBIDDEN: Final = (
    # this host, by each of its names
    "0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "::", "::1",
    # private and shared
    "10.0.0.1", "10.255.255.254", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.255.254",
    "100.64.0.1", "100.127.255.254",
    # link-local, and the clouds' metadata
    "169.254.0.1", "169.254.169.254", "fe80::1", "febf::1", "fec0::1", "fd00:ec2::254",
    # special purpose and documentation
    "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.254", "198.51.100.1", "203.0.113.1",
    "100::1", "2001::1", "2001:20::1", "2001:db8::1", "3fff::1", "5f00::1", "fc00::1", "fdff::1",
    # multicast, reserved, broadcast
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "ff02::1", "ff0e::1",
    # IPv4 in IPv6: mapped, compatible, translated, NAT64, 6to4
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::127.0.0.1", "::192.168.0.1",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:7f00:1::1", "2002:a00:1::",
    "2002:c0a8:1::1", "2002:808:808::1",
)  # fmt: skip
