"""Chromium and Firefox join by the room's page, as a person does, and see a picture that moves."""

from __future__ import annotations

import asyncio

import pytest

from tests.browser import BrowserName, Page, launch
from tests.peers import canvas
from tests.peers.watcher import watching
from tests.serving import Server

# What the <video> shows now, 32 × 18 pixels of luma: enough to tell whether it moves and whether it is black.
SHOWN = """(() => {
  const video = document.querySelector('#mix');
  if (!video || video.readyState < 2) return null;
  const sheet = new OffscreenCanvas(32, 18).getContext('2d');
  sheet.drawImage(video, 0, 0, 32, 18);
  const pixels = sheet.getImageData(0, 0, 32, 18).data, luma = [];
  for (let i = 0; i < pixels.length; i += 4) luma.push(pixels[i] + 2 * pixels[i + 1] + pixels[i + 2] >> 2);
  return luma;
})()"""


async def join(page: Page, url: str, name: str, *, prepare: str = "null") -> None:
    """Fill in the lobby's form and press its button. ``prepare``: a script to run before anything else."""
    await page.navigate(url)
    await page.evaluate(prepare)
    await page.wait_for("document.querySelector('#join')?.textContent")
    await page.evaluate(
        f"(() => {{ const field = document.querySelector('#name'); field.value = {name!r};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    # the devices are listed when the camera is open
    await page.wait_for("document.querySelector('#camera').options.length > 1")
    await page.evaluate("document.querySelector('#join').click()")


async def sees_motion(page: Page) -> None:
    """The mix plays, is not one flat colour, and changes."""
    await page.wait_for("document.querySelector('#mix').currentTime > 0.5", timeout_s=60)
    first: list[int] = await page.wait_for(SHOWN)
    assert max(first) - min(first) > 25, "the picture is flat"
    for _ in range(200):
        now = await page.evaluate(SHOWN)
        if max(abs(a - b) for a, b in zip(first, now, strict=True)) > 25:
            return
        await asyncio.sleep(0.1)  # the fake camera's picture moves by itself
    pytest.fail(f"{page.name} shows a still picture\n" + "\n".join(page.console[-10:]))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.peer(name)) for name in ("chromium", "firefox")]
)
async def test_a_person_joins_sees_and_leaves(server: Server, name: BrowserName) -> None:
    room = server.room(f"page-{name}")
    async with launch(name) as page:
        await join(page, f"{server.url}/r/{room}", f"Anna from {name}")
        await sees_motion(page)
        roster = server.call("GET", f"/v1/rooms/{room}/participants")
        assert [one["name"] for one in roster] == [f"Anna from {name}"]
        place = canvas.tiles(server, room)[roster[0]["id"]]
        assert (place["width"], place["height"]) == (1280, 720)

        # anybody else sees the same person and hears the fake microphone's beeps
        guest = server.enter(room, "viewer")
        async with watching(f"{server.url}/whep/{room}", guest["token"]) as watcher:
            assert (await watcher.picture(after=5)).std() > 10
            assert abs(await watcher.sound(3.0)).max() > 0.01

        await page.evaluate("document.querySelector('#leave').click()")
        await page.wait_for("!document.querySelector('#over').hidden")
        for _ in range(200):
            if not server.call("GET", f"/v1/rooms/{room}/participants"):
                break
            await asyncio.sleep(0.1)  # the page's DELETE is on its way
        assert server.call("GET", f"/v1/rooms/{room}/participants") == []
        assert not [line for line in page.console if line.startswith(("error", "exception"))], page.console


@pytest.mark.peer("chromium", "firefox")
async def test_two_browsers_see_each_other(server: Server) -> None:
    room = server.room("page-both")
    async with launch("chromium") as one, launch("firefox") as other:
        await asyncio.gather(
            join(one, f"{server.url}/r/{room}", "Chromium"), join(other, f"{server.url}/r/{room}", "Firefox")
        )
        await asyncio.gather(sees_motion(one), sees_motion(other))
        roster = server.call("GET", f"/v1/rooms/{room}/participants")
        assert {person["name"] for person in roster} == {"Chromium", "Firefox"}
        for person in roster:
            await _tile_is_bright(server, room, person["id"])


@pytest.mark.peer("chromium")
async def test_who_ticks_the_box_is_left_out_of_recordings_until_they_untick_it(server: Server) -> None:
    room = server.room("page-consent")
    async with launch("chromium") as page:
        tick = "document.querySelector('#unrecorded').click()"
        await join(page, f"{server.url}/r/{room}", "Anna", prepare=tick)
        await sees_motion(page)
        assert server.call("GET", f"/v1/rooms/{room}/participants")[0]["recorded"] is False
        started = server.call("POST", f"/v1/rooms/{room}/recordings", {})
        await page.wait_for("!document.querySelector('#recording').hidden")
        await page.evaluate("document.querySelector('#show-settings').click()")
        await page.evaluate(tick)
        for _ in range(200):
            if server.call("GET", f"/v1/rooms/{room}/participants")[0]["recorded"]:
                break
            await asyncio.sleep(0.1)  # the page's PATCH is on its way
        assert server.call("GET", f"/v1/rooms/{room}/participants")[0]["recorded"] is True
        server.call("PATCH", f"/v1/recordings/{started['id']}", {"state": "stopped"})
        assert not [line for line in page.console if line.startswith(("error", "exception"))], page.console


# Where an element is: [left, top, right, bottom]
BOX = "(e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] })"


@pytest.mark.peer("chromium")
async def test_a_phone_shows_who_is_here_and_one_row_of_controls(server: Server) -> None:
    room = server.room("page-phone")
    async with launch("chromium") as page:
        await page.resize(360, 740)
        await join(page, f"{server.url}/r/{room}", "Anna")
        await page.wait_for("document.querySelectorAll('#people-list li').length === 1")
        await page.evaluate("document.querySelector('#show-people').click()")  # a phone's is closed at first
        left, _, right, bottom = await page.evaluate(f"{BOX}(document.querySelector('#people'))")
        width = await page.evaluate("innerWidth")
        assert (left, right) == (0, width)
        buttons = f"[...document.querySelectorAll('.controls button')].filter(b => !b.hidden).map({BOX})"
        boxes = await page.evaluate(buttons)
        assert len(boxes) == 7
        assert {box[1] for box in boxes} == {boxes[0][1]}, "one row"
        assert min(box[0] for box in boxes) >= 0
        assert max(box[2] for box in boxes) <= width
        assert min(box[2] - box[0] for box in boxes) >= 40
        await page.evaluate("""document.querySelector('#toasts').replaceChildren(
          Object.assign(document.createElement('p'),
            {className: 'toast', textContent: 'A long sentence. '.repeat(9)}))""")
        toast = await page.evaluate(f"{BOX}(document.querySelector('.toast'))")
        assert toast[3] <= bottom <= boxes[0][1], "no control is covered"


@pytest.mark.peer("chromium")
@pytest.mark.parametrize(("role", "asks"), [("viewer", False), ("participant", True)])
async def test_who_only_watches_is_asked_for_no_device(server: Server, role: str, asks: bool) -> None:
    room = server.room(f"page-{role}")
    token = server.enter(room, role, "Vera")["token"]
    shown = "[...document.querySelectorAll('#devices, #sending')].some(e => e.offsetParent)"
    async with launch("chromium") as page:
        await page.navigate(f"{server.url}/r/{room}#token={token}")
        await page.wait_for("document.querySelector('#name').value === 'Vera'")
        assert await page.evaluate(shown) is asks
        await page.evaluate("document.querySelector('#join').click()")
        await page.wait_for("document.querySelector('#mix').currentTime > 0.5")
        await page.evaluate("document.querySelector('#show-settings').click()")
        assert await page.evaluate(shown) is asks
        # the lobby again, and now what it asks the browser for is counted
        await page.evaluate("""(() => {
          const devices = navigator.mediaDevices, really = devices.getUserMedia.bind(devices);
          window.asked = 0;
          devices.getUserMedia = wanted => { window.asked++; return really(wanted); };
          document.querySelector('#leave').click();
          document.querySelector('#again').click();
        })()""")
        assert await page.evaluate(shown) is asks
        assert (await page.evaluate("window.asked") > 0) is asks


# A headless browser has no screen to choose from: a drawn slide takes its place.
SLIDE = """(() => {
  const sheet = document.createElement('canvas');
  [sheet.width, sheet.height] = [1280, 720];
  const pen = sheet.getContext('2d');
  setInterval(() => { pen.fillStyle = '#f4f4f4'; pen.fillRect(0, 0, 1280, 720); }, 100);
  navigator.mediaDevices.getDisplayMedia = async () => sheet.captureStream(10);
})()"""


@pytest.mark.peer("chromium")
async def test_a_shared_screen_has_a_tile_of_its_own_while_it_is_shared(server: Server) -> None:
    room = server.room("page-share")
    async with launch("chromium") as page:
        await join(page, f"{server.url}/r/{room}", "Anna")
        await sees_motion(page)
        await page.evaluate(SLIDE)
        await page.evaluate("document.querySelector('#share').click()")
        assert await _tiles_become(server, room, 2)
        screen = next(source for source in canvas.tiles(server, room) if source.endswith("#screen"))
        await asyncio.to_thread(canvas.await_colour, server, room, screen, (244, 244, 244))
        await page.evaluate("document.querySelector('#share').click()")
        assert await _tiles_become(server, room, 1)


async def _tile_is_bright(server: Server, room: str, participant: str) -> None:
    """Now, or soon: a camera starts when it does, and stops for a moment on a busy machine."""
    for _ in range(200):
        tile = canvas.tiles(server, room)[participant]
        shown = canvas.snapshot(server, room)
        part = shown[tile["y"] : tile["y"] + tile["height"], tile["x"] : tile["x"] + tile["width"]]
        if part.max() > 100:
            return
        await asyncio.sleep(0.1)  # nothing announces a picture
    pytest.fail(f"the tile of {participant} stays dark")


async def _tiles_become(server: Server, room: str, count: int) -> bool:
    for _ in range(300):
        if len(canvas.tiles(server, room)) == count:
            return True
        await asyncio.sleep(0.1)  # a share ends for the server when its packets do
    return False
