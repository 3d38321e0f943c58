from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.video.names import NameArtist, initials
from mixer.video.picture import Picture, yuv_of

DARK = (16, 24, 32)


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("Ada Lovelace", "AL"), ("zoë", "Z"), ("Ευαγγελία Παπαδοπούλου", "ΕΠ"), ("Жан де Ля Фонтен", "ЖФ"),
        ("Ada-Marie", "AM"), ("+33 6 12 34 56 78", "#"), ("", "?"), ("  ...  ", "?"), ("ß", "SS"), ("你好", "?"),
    ],
)  # fmt: skip
def test_initials(name: str, letters: str) -> None:
    assert initials(name) == letters


@given(
    st.text(max_size=200), st.integers(8, 640).map(lambda n: 2 * n), st.integers(8, 360).map(lambda n: 2 * n)
)
@settings(max_examples=30, deadline=None)
def test_any_name_fits_any_tile(name: str, width: int, height: int) -> None:
    artist = NameArtist()
    card = artist.placeholder(name, width, height, background=DARK)
    assert (card.width, card.height) == (width, height)
    plate = artist.plate(name, width, height, muted=True)
    if plate is not None:
        assert plate.x % 2 == plate.y % 2 == 0
        assert plate.x + plate.width <= width
        assert plate.y + plate.height <= height


@pytest.mark.parametrize("name", ["Ada", "Ωμέγα", "Жанна", "Łukasz", "Nguyễn", "Ῥόδος"])
def test_every_promised_script_has_its_glyphs(name: str) -> None:
    artist = NameArtist()
    missing = artist.plate("\N{WHITE SQUARE}" * len(name), 640, 360)
    drawn = artist.plate(name, 640, 360)
    assert drawn is not None
    assert missing is not None
    # Different letters leave different ink: not the same box over and over.
    columns = [tuple(column) for column in drawn.ink[0].T if column.any()]
    assert len(set(columns)) > len(set(map(tuple, missing.ink[0].T)))


def test_characters_without_a_glyph_show_as_a_box_not_as_nothing() -> None:
    artist = NameArtist()
    assert artist.plate("你好", 640, 360) is not None
    same = artist.plate("你好", 640, 360), artist.plate("\N{WHITE SQUARE}", 640, 360)
    assert np.array_equal(same[0].ink[0], same[1].ink[0])  # type: ignore[union-attr]


def test_control_characters_and_bidi_overrides_are_not_drawn() -> None:
    artist = NameArtist()
    plain, odd = artist.plate("Ada", 640, 360), artist.plate("A\u202eda\n".replace("\u202e", ""), 640, 360)
    assert plain is not None
    assert odd is not None
    assert np.array_equal(plain.ink[0], odd.ink[0])
    assert initials("\u202eAda") == "A"


def test_muted_is_seen() -> None:
    artist = NameArtist()
    muted, open_ = (artist.placeholder("Ada", 426, 240, background=DARK, muted=m) for m in (True, False))
    red = muted.v.astype(int) - open_.v
    assert red.max() > 30
    wide, narrow = artist.plate("Ada", 426, 240, muted=True), artist.plate("Ada", 426, 240)
    assert wide is not None
    assert narrow is not None
    assert wide.width > narrow.width


def test_white_text_stays_readable_on_a_light_canvas() -> None:
    card = NameArtist().counter("+12", 320, 180, background=(250, 250, 250))
    assert card.y.max() >= 230
    assert np.median(card.y) < 110


def test_a_colour_follows_the_person_not_the_name() -> None:
    artist = NameArtist()
    first, renamed = (
        artist.placeholder(name, 426, 240, background=DARK, seed="id-1") for name in ("Ada", "Bob")
    )
    disc = np.s_[66, 90]  # inside the disc, beside the letters, at half resolution
    assert first.u[disc[0] // 2, disc[1]] == renamed.u[disc[0] // 2, disc[1]]


def test_what_was_drawn_is_kept_and_the_cache_is_bounded() -> None:
    artist = NameArtist(entries=2)
    first = artist.counter("+1", 64, 36, background=DARK)
    assert artist.counter("+1", 64, 36, background=DARK) is first
    for number in range(2, 5):
        artist.counter(f"+{number}", 64, 36, background=DARK)
    assert len(artist._kept) == 2
    assert artist.counter("+1", 64, 36, background=DARK) is not first


def test_tiny_tiles_have_no_plate() -> None:
    assert NameArtist().plate("Ada", 32, 18) is None
    assert isinstance(NameArtist().placeholder("Ada", 16, 16, background=DARK), Picture)
    assert yuv_of(DARK)[0] < 40
