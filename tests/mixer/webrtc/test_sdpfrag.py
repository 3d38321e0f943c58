"""Trickle fragments (RFC 8840)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.errors import BadOffer, InvalidBody
from mixer.webrtc.sdpfrag import parse_fragment

# RFC 9725 section 4.3.2, its first example
RFC_EXAMPLE = """a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=ice-ufrag:EsAw
a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1
a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1
a=candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host generation 0 ufrag EsAw network-id 2
a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0 ufrag EsAw network-id 1
a=candidate:2154773085 1 tcp 1518214911 198.51.100.2 9 typ host tcptype active generation 0 ufrag EsAw network-id 2
a=end-of-candidates
"""


def test_the_rfc_s_own_example() -> None:
    fragment = parse_fragment(RFC_EXAMPLE.replace("\n", "\r\n"))
    assert (fragment.ufrag, fragment.password) == ("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1")
    assert [(c.host, c.port) for c in fragment.candidates] == [("192.0.2.1", 61764), ("198.51.100.2", 61765)]
    assert fragment.ended


def test_the_same_generation_passes_and_a_restart_is_422() -> None:
    fragment = parse_fragment(RFC_EXAMPLE)
    fragment.check_generation("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1")
    with pytest.raises(InvalidBody, match="ICE restart"):
        fragment.check_generation("other", "P2uYro0UCOQ4zxjKXaWCBui1")
    parse_fragment("a=end-of-candidates").check_generation("any", "any")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n",
        "v=0\r\na=end-of-candidates\r\n",
        "a=candidate:x\r\n",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(BadOffer):
        parse_fragment(text)


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(RFC_EXAMPLE.split("\n"))).map("\n".join)))
def test_nothing_but_bad_offer_leaves_the_parser(text: str) -> None:
    with contextlib.suppress(BadOffer):
        parse_fragment(text)
