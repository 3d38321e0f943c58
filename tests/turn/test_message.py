"""The codec: known answers of the RFCs, what is refused, and that what is written is read again."""

from __future__ import annotations

import contextlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turn.message import (
    Attribute,
    Class,
    MalformedMessage,
    Method,
    frame_bytes,
    long_term_key,
    parse_message,
    read_address,
    write_address,
    write_error,
    write_message,
)

# RFC 5769 sections 2.1 to 2.4
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff"
    "80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249"
    "c1b571a280280004e57a3bcf"
)
RESPONSE_V4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_V6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa"
    "a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
LONG_TERM = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c"
    "662f2f3439396b39353464364f4c33346f4c39465354767936347341001400"
    "0b6578616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
)
# RFC 8489 appendix B.1, as printed: its length counts 20 bytes that are not there, and so does its MAC
SHA256 = bytes.fromhex(
    "0001009c2112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b2"
    "05c46e41407f1704001500296f624d61744a6f7332414141"
    "43662f2f3439396b39353464364f4c33346f4c394653547679363473410000000014000b6578616d706c652e6f726700001c0020"
    "e4686c8f0edeb59013e07090010a93efccbccc544c0a45d9f830aa6d6f735a01"
)
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
TRANSACTION = bytes(range(12))


@pytest.mark.parametrize("raw", [REQUEST, RESPONSE_V4, RESPONSE_V6])
def test_short_term_vectors_of_rfc_5769(raw: bytes) -> None:
    message = parse_message(raw)
    assert message.method == Method.BINDING
    assert message.proves(PASSWORD)
    assert not message.proves(b"another")


def test_addresses_of_rfc_5769() -> None:
    for raw, address in ((RESPONSE_V4, "192.0.2.1"), (RESPONSE_V6, "2001:db8:1234:5678:11:2233:4455:6677")):
        message = parse_message(raw)
        value = message.get(Attribute.XOR_MAPPED_ADDRESS)
        assert value is not None
        assert read_address(value, message.transaction) == (address, 32853)
        assert write_address((address, 32853), message.transaction) == value


def test_long_term_vector_of_rfc_5769() -> None:
    message = parse_message(LONG_TERM)
    assert (message.get(Attribute.USERNAME) or b"").decode() == "マトリックス"
    assert message.proves(long_term_key("マトリックス", "example.org", "TheMatrIX"))


def test_sha256_vector_of_rfc_8489() -> None:
    """Key and MAC are right; the message itself is one that a strict reader refuses."""
    key = long_term_key("マトリックス", "example.org", "TheMatrIX", sha256=True)
    assert hmac.digest(key, SHA256[:-36], "sha256") == SHA256[-32:]
    with pytest.raises(MalformedMessage, match="length"):
        parse_message(SHA256)


def test_the_vectors_are_written_the_same() -> None:
    """All of RFC 5769's request but the padding, which the RFC fills with blanks and we with zeros."""
    message = parse_message(LONG_TERM)
    key = long_term_key("マトリックス", "example.org", "TheMatrIX")
    again = write_message(message.method, message.kind, message.transaction, message.attributes, key=key)
    assert again == LONG_TERM


def test_a_request_of_ice_has_attributes_that_a_relay_does_not_know() -> None:
    assert parse_message(REQUEST).unknown() == [
        0x0024
    ]  # PRIORITY; ICE-CONTROLLED and SOFTWARE may be ignored


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "shorter"),
        (REQUEST[:19], "shorter"),
        (b"\x40" + REQUEST[1:], "top bits"),
        (b"\xc0" + REQUEST[1:], "top bits"),
        (REQUEST[:4] + b"\x21\x12\xa4\x43" + REQUEST[8:], "cookie"),
        (REQUEST[:-1], "length"),
        (REQUEST + b"\0\0\0\0", "length"),
        (REQUEST[:2] + b"\0\x57" + REQUEST[4:-1], "length"),
        (REQUEST[:-4] + b"\0\0\0\0", "FINGERPRINT is wrong"),
        (RESPONSE_V4[:22] + b"\xff\xff" + RESPONSE_V4[24:], "overruns"),
        (write_message(1, Class.REQUEST, TRANSACTION, [(0x8028, b"12345678")]), "four bytes"),
        (write_message(1, Class.REQUEST, TRANSACTION, [(0x0008, b"1234")]), "20 bytes"),
        (write_message(1, Class.REQUEST, TRANSACTION, [(0x001C, bytes(12))]), "16 to 32"),
        (write_message(1, Class.REQUEST, TRANSACTION, [(0x001C, bytes(18))]), "16 to 32"),
        (write_message(1, Class.REQUEST, TRANSACTION, [(0x8022, b"")] * 65), "more attributes"),
        (REQUEST[:2] + b"\0\x5c" + REQUEST[4:] + b"\x80\x22\0\0", "FINGERPRINT"),
    ],
)
def test_what_is_no_message(raw: bytes, why: str) -> None:
    with pytest.raises(MalformedMessage, match=why):
        parse_message(raw)


def test_what_stands_behind_the_integrity_is_not_seen() -> None:
    """An attacker on the way could have put it there (RFC 8489 section 14.5)."""
    sealed = write_message(Method.REFRESH, Class.REQUEST, TRANSACTION, [(Attribute.REALM, b"r")], key=b"k")
    forged = sealed + bytes.fromhex("000d000400000000")
    forged = forged[:2] + (len(forged) - 20).to_bytes(2, "big") + forged[4:]
    message = parse_message(forged)
    assert message.proves(b"k")
    assert message.get(Attribute.LIFETIME) is None
    assert message.get(Attribute.REALM) == b"r"


def test_a_truncated_sha256_counts_and_a_forged_one_does_not() -> None:
    sealed = write_message(Method.REFRESH, Class.REQUEST, TRANSACTION, key=b"k", sha256=True)
    assert parse_message(sealed).proves(b"k")
    broken = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    assert not parse_message(broken).proves(b"k")


def test_both_integrities_the_stronger_counts() -> None:
    inner = write_message(Method.REFRESH, Class.REQUEST, TRANSACTION, key=b"k")
    wrong = inner + bytes.fromhex("001c0020") + bytes(32)
    wrong = wrong[:2] + (len(wrong) - 20).to_bytes(2, "big") + wrong[4:]
    assert not parse_message(wrong).proves(b"k")


@pytest.mark.parametrize(
    "value", [b"", bytes(8), b"\0\2" + bytes(6), b"\0\1" + bytes(18), b"\0\1\0\0", b"\0\3" + bytes(18)]
)
def test_addresses_of_no_family(value: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read_address(value, TRANSACTION)


def test_an_error_code_is_class_and_number() -> None:
    assert write_error(438, "x") == b"\0\0\4\x26x"


def test_frames_of_a_stream() -> None:
    assert frame_bytes(REQUEST[:4]) == len(REQUEST)
    assert frame_bytes(b"\x40\0\0\5") == 12
    assert frame_bytes(b"\x7f\xff\0\4") == 8
    for head in (b"\x80\0\0\0", b"\xff\xff\0\0", b"\0\1\0\3"):
        with pytest.raises(MalformedMessage):
            frame_bytes(head)


attributes = st.lists(
    st.tuples(
        st.integers(0, 0xFFFF).filter(lambda kind: kind not in {0x8, 0x1C, 0x8028}), st.binary(max_size=90)
    ),
    max_size=20,
)


@settings(deadline=None)
@given(
    st.integers(0, 0xFFF), st.sampled_from(Class), st.binary(min_size=12, max_size=12), attributes, st.booleans(),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_what_is_written_is_read_again(
    method: int,
    kind: Class,
    transaction: bytes,
    made: list[tuple[int, bytes]],
    sealed: bool,
    sha256: bool,
    fingerprint: bool,
) -> None:
    raw = write_message(
        method, kind, transaction, made, key=b"k" if sealed else None, sha256=sha256, fingerprint=fingerprint
    )
    message = parse_message(raw)
    assert (message.method, message.kind, message.transaction) == (method, kind, transaction)
    assert list(message.attributes) == made
    assert message.proves(b"k") is sealed
    assert not message.proves(b"j")
    assert frame_bytes(raw[:4]) == len(raw)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_strangers_get_no_other_exception(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        parse_message(data)
    with contextlib.suppress(MalformedMessage):
        parse_message(data[:2] + max(0, len(data) - 20).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + data[8:])


@settings(deadline=None)
@given(st.integers(0, len(LONG_TERM) * 8 - 1))
def test_one_bit_flipped_is_never_proved(bit: int) -> None:
    """Unless it is behind the last padding byte that a receiver must ignore; the MAC covers that, too."""
    raw = bytearray(LONG_TERM)
    raw[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(MalformedMessage):
        assert not parse_message(bytes(raw)).proves(long_term_key("マトリックス", "example.org", "TheMatrIX"))


@settings(deadline=None)
@given(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
    st.integers(0, 65535),
    st.binary(min_size=12, max_size=12),
)
def test_addresses_come_back(address: object, port: int, transaction: bytes) -> None:
    assert read_address(write_address((str(address), port), transaction), transaction) == (str(address), port)
