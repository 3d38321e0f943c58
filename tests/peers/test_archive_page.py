"""The page /archive in Chromium: it finds, plays, seeks to the right picture, checks, keeps, and deletes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from recording.archiver import Archiver
from recording.package import Seal
from recording.recorder import Recorder
from recording.store import read_object
from tests.browser import Page, launch
from tests.mixer.http.site import ADMIN_TOKEN, Site
from tests.recording.media import clip

pytestmark = pytest.mark.peer("chromium")

SECONDS, FPS, WIDTH, HEIGHT = 120, 30, 160, 90
TOLERANCE = 10  # of 255: what coding and colour conversion change of a grey

SEEN = """(async () => {
  const v = document.getElementById('player'), c = document.createElement('canvas');
  if (v.readyState < 2) return null;
  c.width = v.videoWidth; c.height = v.videoHeight;
  const g = c.getContext('2d'); g.drawImage(v, 0, 0);
  return g.getImageData(c.width / 2, c.height / 2, 1, 1).data[0];
})()"""


def grey(second: int) -> int:
    """The luma of all pictures of a second: each is far from its neighbours'."""
    return 40 + second * 67 % 160


def as_shown(luma: int) -> float:
    """Limited range to full."""
    return (luma - 16) * 255 / 219


def archive_film(site: Site) -> str:
    """Two minutes in which each second has its own grey and every other one a keyframe; two who speak in turn."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    codec.framerate, codec.time_base = Fraction(FPS), Fraction(1, 90_000)
    codec.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": "keyint=infinite:scenecut=0",
    }
    made = site.archive.create("council", note="Séance du conseil")
    sound = clip(3)
    recorder = Recorder(made.directory, width=WIDTH, height=HEIGHT, fps=FPS, audio_extradata=sound.extradata)
    for participant, name in (("ann", "Zoë Müller"), ("bob", "Jean-Luc")):
        recorder.event("join", 0, participant=participant, name=name)
    recorder.event("notice", 0, participant="bob", name="not recorded")
    recorder.event("speaker", 0)  # nobody
    for number in range(SECONDS * FPS):
        second = number // FPS
        plane = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        plane[:HEIGHT] = grey(second)
        frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.pts, frame.time_base = number * 90_000 // FPS, Fraction(1, 90_000)
        frame.pict_type = PictureType.I if number % (2 * FPS) == 0 else PictureType.NONE
        for packet in codec.encode(frame):
            recorder.write_video(bytes(packet), int(packet.pts or 0), packet.is_keyframe)
        if number % (3 * FPS) == 0:
            for data, pts in sound.audio:
                recorder.write_audio(data, pts + second * 48_000)
        if number % (15 * FPS) == 0:
            recorder.event("speaker", second * 90_000, participant=("ann", "bob")[second // 15 % 2])
            recorder.settle()
    recorder.event("leave", (SECONDS - 1) * 90_000, participant="bob", name="Jean-Luc")
    recorder.event("join", (SECONDS - 1) * 90_000, participant="bob-again", name="Jean-Luc")
    recorder.close(SECONDS * 90_000)
    site.archive.set_state(made.id, "sealing")
    assert Archiver(site.spool, site.store, site.index).step() == 1
    return made.id


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    running = await Site(tmp_path / "var").start()
    yield running
    await running.stop()


@contextlib.asynccontextmanager
async def archive_page(site: Site, *, language: str = "en-GB") -> AsyncIterator[Page]:
    base = str(site.client.make_url("/")).rstrip("/")
    async with launch("chromium", language=language) as page:
        await page.navigate(f"{base}/archive#token={ADMIN_TOKEN}")
        await page.wait_for("document.querySelector('#found a') !== null")
        yield page


async def opened(page: Page) -> None:
    await page.evaluate("document.querySelector('#found a').click()")
    await page.wait_for("document.getElementById('player').readyState >= 2")
    await page.wait_for("document.querySelectorAll('#chapters li').length > 1")


async def test_it_plays_and_seeks_to_the_right_picture(site: Site) -> None:
    archive_film(site)
    async with archive_page(site) as page:
        await opened(page)
        assert await page.evaluate("document.getElementById('player').duration") == pytest.approx(
            SECONDS, abs=0.2
        )
        await page.evaluate("document.getElementById('player').pause()")
        for second in (100, 7, 63, 118):  # odd ones have no keyframe of their own
            await page.evaluate(f"""new Promise(done => {{
              const v = document.getElementById('player');
              v.addEventListener('seeked', done, {{once: true}}); v.currentTime = {second}.5; }})""")
            assert await page.evaluate(SEEN) == pytest.approx(as_shown(grey(second)), abs=TOLERANCE), second
        source = await page.evaluate("document.getElementById('player').currentSrc")
        assert "indexed=1" in source

        await page.evaluate("document.querySelectorAll('#chapters button')[2].click()")
        await page.wait_for("Math.abs(document.getElementById('player').currentTime - 30) < 5")
        await page.wait_for("document.getElementById('player').currentTime > 30.3")  # it plays
        await page.evaluate("""document.getElementById('plot').dispatchEvent(
          new KeyboardEvent('keydown', {key: 'End', bubbles: true}))""")
        await page.wait_for("document.getElementById('player').currentTime > 119")
        box = await page.evaluate("""(() => { const r = document.getElementById('plot').getBoundingClientRect();
          return [r.left, r.width, r.top, document.getElementById('plot').viewBox.baseVal.width] })()""")
        middle = box[0] + box[1] * (120 + box[3]) / 2 / box[3]
        await page.evaluate(f"""document.getElementById('plot').dispatchEvent(
          new MouseEvent('click', {{clientX: {middle}, clientY: {box[2] + 30}, bubbles: true}}))""")
        await page.wait_for("Math.abs(document.getElementById('player').currentTime - 60) < 5")
        assert await page.evaluate("document.querySelectorAll('#plot .speaks').length") == SECONDS // 15
        assert [line for line in page.console if line.startswith(("exception", "error"))] == []


async def test_it_checks_keeps_and_deletes(site: Site) -> None:
    identifier = archive_film(site)
    async with archive_page(site) as page:
        await opened(page)
        await page.evaluate("document.getElementById('verify').click()")
        await page.wait_for("document.querySelectorAll('#verified li').length > 5")
        assert await page.evaluate("document.querySelectorAll('#verified .error').length") == 0
        await page.evaluate("document.getElementById('hold').click()")
        await page.evaluate("""(() => { const d = document.querySelector('dialog');
          d.querySelector('input').value = 'case 12'; d.querySelector('button').click() })()""")
        await page.wait_for("document.getElementById('terms').textContent.includes('case 12')")
        assert site.archive.get(identifier).hold is not None

        async def delete() -> None:
            await page.evaluate("document.getElementById('delete').click()")
            await page.evaluate("""(() => { const d = document.querySelector('dialog');
              d.querySelector('input').value = 'over'; d.querySelector('button').click() })()""")

        await delete()
        await page.wait_for(
            "document.getElementById('toasts').textContent.includes('held by admin: case 12')"
        )
        await page.evaluate("document.getElementById('release').click()")
        await page.evaluate("document.querySelector('dialog button').click()")
        await page.wait_for("document.getElementById('release').hidden")
        await page.evaluate("document.querySelector('#audit-box summary').click()")
        await page.wait_for("document.querySelectorAll('#audit li').length >= 4")
        await delete()
        await page.wait_for("document.getElementById('facts').textContent.includes('over')")
        assert site.archive.get(identifier).state == "deleted"
        assert await page.evaluate("document.getElementById('takeaway').hidden")


async def test_it_searches_and_fits_a_telephone_in_four_languages(site: Site) -> None:
    archive_film(site)
    site.archive_film("other", b"film")
    async with archive_page(site, language="fr-FR") as page:
        assert await page.evaluate("document.querySelectorAll('#found tr').length") == 2
        await page.evaluate("""(() => { const f = document.getElementById('filter');
          f.participant.value = 'muller'; f.requestSubmit() })()""")
        await page.wait_for("document.querySelectorAll('#found tr').length === 1")
        assert "Séance du conseil" in await page.evaluate("document.getElementById('found').textContent")
        await page.resize(320, 640)
        await opened(page)
        for language in ("fr", "de", "nl", "en"):
            await page.evaluate(f"""(() => {{ const s = document.querySelector('select.language');
              s.value = '{language}'; s.dispatchEvent(new Event('change')) }})()""")
            await page.wait_for(f"document.documentElement.lang === '{language}'")
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320, language


async def test_it_says_what_was_cut_off_and_shows_no_other_recording_for_an_unknown_one(site: Site) -> None:
    whole, cut = site.archive_film("whole"), site.archive_film("cut")
    closing = {"complete": False, "reason": "the recording process ended without closing"}
    info = site.archive.get(cut)
    seal = Seal.model_validate_json(read_object(site.store, f"{info.key}recording.json"))
    site.index.archived(seal.model_copy(update=closing), info.seal_sha256 or "")
    async with archive_page(site) as page:
        badges = "Object.fromEntries([...document.querySelectorAll('#found tr')].map(r => [r.children[1].textContent,"
        badges += " [...r.querySelectorAll('.badge')].map(b => b.textContent)]))"
        assert await page.evaluate(badges) == {"whole": ["Archived"], "cut": ["Archived", "Incomplete"]}
        await page.evaluate("""(() => { const f = document.getElementById('filter');
          f.state.value = 'incomplete'; f.requestSubmit() })()""")
        await page.wait_for("document.querySelectorAll('#found tr').length === 1")
        await page.evaluate(f"location.hash = 'id={cut}'")
        await page.wait_for("!document.getElementById('detail').hidden")
        assert closing["reason"] in await page.evaluate("document.getElementById('facts').textContent")
        await page.evaluate(f"location.hash = 'id={whole}'")
        await page.wait_for("document.getElementById('detail-title').textContent === 'whole'")
        assert "Incomplete" not in await page.evaluate("document.getElementById('facts').textContent")
        await page.evaluate("location.hash = 'id=01JUNKNOWN'")
        await page.wait_for("document.querySelector('#toasts .toast') !== null")
        assert await page.evaluate("document.getElementById('detail').hidden")
        assert not await page.evaluate("document.getElementById('list').hidden")


async def test_its_timeline_says_who(site: Site) -> None:
    archive_film(site)
    async with archive_page(site, language="nl-NL") as page:
        await opened(page)
        lines = await page.evaluate(
            "[...document.querySelectorAll('#timeline button')].map(b => b.lastChild.textContent)"
        )
        assert "Melding Jean-Luc: Geen opname." in lines
        assert [line for line in lines if line.strip().endswith(":")] == []
        people = await page.evaluate("document.getElementById('facts').textContent")
        assert people.count("Jean-Luc") == 1
        ends = await page.evaluate(
            "[...document.querySelectorAll('#plot text')].map(t => t.getBBox()).map(b => b.x + b.width)"
        )
        assert max(ends) <= await page.evaluate("document.getElementById('plot').viewBox.baseVal.width")


async def test_it_says_how_loud_a_film_is(site: Site) -> None:
    site.archive_film()
    async with archive_page(site, language="fr-FR") as page:
        await page.evaluate("document.querySelector('#found a').click()")
        await page.wait_for("document.querySelectorAll('#facts dt').length > 4")
        facts = await page.evaluate("document.getElementById('facts').textContent")
        assert "Sonie-23,4 LUFS · -1,5 dBTP · 5,1 LU" in facts


async def test_the_box_for_tracks_of_the_admins_page(site: Site) -> None:
    base = str(site.client.make_url("/")).rstrip("/")
    async with launch("chromium") as page:
        await page.navigate(f"{base}/admin#token={ADMIN_TOKEN}")
        await page.wait_for("document.querySelector('#rooms a') !== null")
        await page.evaluate("document.querySelector('#rooms a').click()")
        for ticked in (False, True):
            await page.wait_for("document.getElementById('record').textContent === 'Start recording'")
            await page.evaluate(f"document.getElementById('tracks').checked = {str(ticked).lower()}")
            await page.evaluate("document.getElementById('record').click()")
            await page.wait_for("document.getElementById('record').textContent === 'Stop recording'")
            assert await page.evaluate("document.getElementById('tracks').disabled")
            live = site.registry.room(site.room).recording
            assert live is not None
            assert site.archive.get(live.id).tracks is ticked
            await page.evaluate("document.getElementById('record').click()")
        await page.wait_for("!document.getElementById('tracks').disabled")
