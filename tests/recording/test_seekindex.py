"""The index that lets players seek: true to the file, and put in without a byte of the film being lost."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import seekindex
from recording.fragments import picture_fragments, scan
from recording.package import MEDIA
from recording.seekindex import Inset, segment_index
from tests.recording.conftest import feed, open_recorder
from tests.recording.media import clip, decode


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("film")
    recorder = open_recorder(directory, clip(6))
    feed(recorder, clip(6))
    recorder.close(6 * 90_000)
    return directory / MEDIA


def references(sidx: bytes) -> list[tuple[int, int, int]]:
    """(size, duration, access) of each entry."""
    (count,) = struct.unpack_from(">H", sidx, 38)
    assert len(sidx) == 40 + 12 * count == struct.unpack_from(">I", sidx)[0]
    return [struct.unpack_from(">III", sidx, 40 + 12 * n) for n in range(count)]  # type: ignore[misc]


def test_it_is_true_to_the_file(film: Path) -> None:
    found = references(segment_index(film))
    with film.open("rb") as file:
        init_bytes, timescale, fragments = picture_fragments(file)
    assert len(found) == len(fragments) >= 6
    assert init_bytes + sum(size for size, _, _ in found) == film.stat().st_size
    assert sum(duration for _, duration, _ in found) == 6 * timescale
    assert [access == 0x90000000 for _, _, access in found] == [fragment.key for fragment in fragments]
    assert fragments[0].key


def test_players_still_play_it_and_it_seeks(film: Path, tmp_path: Path) -> None:
    index = segment_index(film)
    whole = film.read_bytes()
    inset = Inset.make(whole[:4096], index, len(whole))
    assert inset is not None
    spliced = tmp_path / "indexed.mp4"
    spliced.write_bytes(b"".join(inset.read(lambda a, b: iter([whole[a:b]]), 0, None)))
    assert decode(spliced) == decode(film)
    with av.open(str(spliced)) as container:
        container.seek(4 * av.time_base)
        frame = next(container.decode(video=0))
        assert frame.time == pytest.approx(4.0, abs=0.05)


def test_what_begins_a_fragment_is_known(tmp_path: Path) -> None:
    """Against FFmpeg's own reading of which packets are keyframes."""
    media = clip(4, key_every=45)
    recorder = open_recorder(tmp_path, media)
    feed(recorder, media)
    recorder.close(4 * 90_000)
    with av.open(str(tmp_path / MEDIA)) as container:
        keys = {
            p.pts * 90_000 * p.time_base
            for p in container.demux(video=0)
            if p.pts is not None and p.is_keyframe
        }
    with (tmp_path / MEDIA).open("rb") as file:
        _, timescale, fragments = picture_fragments(file)
    assert [f.key for f in fragments] == [f.begins * 90_000 / timescale in keys for f in fragments]
    assert {f.key for f in fragments} == {True, False}


def test_very_long_films_have_coarser_entries(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = references(segment_index(film))
    monkeypatch.setattr(seekindex, "MAX_REFERENCES", 4)
    coarse = references(segment_index(film))
    assert len(coarse) == -(-len(fine) // 2)
    for column in (0, 1):
        assert coarse[1][column] == fine[2][column] + fine[3][column]
        assert sum(one[column] for one in coarse) == sum(one[column] for one in fine)


@given(st.binary(max_size=400))
def test_no_film_has_no_index(tail: bytes) -> None:
    assert picture_fragments(io.BytesIO(tail))[2] == []


@pytest.mark.parametrize("kind", [b"tkhd", b"mdhd", b"tfdt", b"tfhd", b"trun", b"mfhd"])
def test_a_box_that_holds_nothing_ends_what_is_understood(film: Path, kind: bytes) -> None:
    body = bytearray(film.read_bytes())
    at = body.index(kind) - 4
    (length,) = struct.unpack_from(">I", body, at)
    # The rest of it is padding, so that all else keeps its place.
    struct.pack_into(">I4sI4s", body, at, 8, kind, length - 8, b"free")
    picture_fragments(io.BytesIO(bytes(body)))
    assert scan(io.BytesIO(bytes(body))).fragments == 0


def test_a_second_init_segment_is_none(film: Path) -> None:
    body = film.read_bytes()
    first = picture_fragments(io.BytesIO(body))[2][0]
    media = body.index(b"mdat", first.start) - 4
    torn = (
        body[:media] + body[: first.start] + body[media:]
    )  # another one between a fragment's header and its media
    init_bytes, _, found = picture_fragments(io.BytesIO(torn))
    assert init_bytes == first.start
    assert len(found) == len(picture_fragments(io.BytesIO(body))[2]) - 1
    assert all(fragment.start >= init_bytes for fragment in found)


@given(st.data())
def test_any_cut_of_a_film_is_indexed_as_far_as_it_is_whole(film: Path, data: st.DataObject) -> None:
    whole = film.read_bytes()
    body = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    if body and data.draw(st.booleans()):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    for fragment in picture_fragments(io.BytesIO(bytes(body)))[2]:
        assert fragment.start + fragment.size <= len(body)
        assert fragment.ends > fragment.begins


@given(
    st.binary(min_size=1, max_size=40), st.integers(0, 40), st.binary(min_size=1, max_size=20),
    st.integers(0, 70), st.none() | st.integers(0, 70),
)  # fmt: skip
def test_a_range_is_a_range_of_the_whole(
    body: bytes, at: int, put_in: bytes, start: int, end: int | None
) -> None:
    at = min(at, len(body))
    whole = body[:at] + put_in + body[at:]
    got = b"".join(Inset(at, put_in, len(whole)).read(lambda a, b: iter([body[a:b]]), start, end))
    assert got == whole[start:end]


@pytest.mark.parametrize("head", [b"", b"\0" * 100, b"\0\0\0\x08ftyp", struct.pack(">I4s", 10_000, b"moov")])
def test_what_has_no_init_segment_gets_no_index(head: bytes) -> None:
    assert Inset.make(head, b"index", 500) is None
