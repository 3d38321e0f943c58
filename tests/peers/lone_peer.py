"""One `Peer` without a room, behind a page of its own, in whose scripts ``await signal(pc)`` connects with it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from mixer.webrtc.peer import Peer
from mixer.webrtc.peers import PeerFactory
from tests.mixer.webrtc.support import HOST

PAGE = """<!doctype html><title>a peer</title><script>
async function signal(pc) {
  await pc.setLocalDescription();
  await new Promise(done => {
    pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done();
    if (pc.iceGatheringState === 'complete') done();
  });
  const answer = await fetch('/offer', {method: 'POST', body: pc.localDescription.sdp});
  await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
}
</script>"""


@contextlib.asynccontextmanager
async def answering(factory: PeerFactory, peer: Peer) -> AsyncIterator[str]:
    """The page's URL. ``factory`` is started, and closed at the end."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def offer(request: web.Request) -> web.Response:
        return web.Response(text=await peer.accept(await request.text()))

    await factory.start()
    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_post("/offer", offer)
    runner = web.AppRunner(app)
    await runner.setup()
    server = web.TCPSite(runner, HOST, 0)
    await server.start()
    try:
        yield f"http://{HOST}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
        await factory.close()
