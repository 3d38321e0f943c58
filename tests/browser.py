"""Headless Chromium and Firefox driven over their own WebSocket protocols: one small API for both.

Chromium speaks the DevTools protocol, Firefox WebDriver BiDi. Both are JSON over one WebSocket with
numbered commands, so that a driver is two hundred lines of aiohttp and no driver binary has to match a
browser version. Every browser starts with a fresh profile, fake camera and microphone, permission granted,
and sound allowed to start by itself; it ends with its whole process group.

    async with launch("chromium") as page:
        await page.navigate("http://127.0.0.1:8080/r/demo")
        title = await page.evaluate("document.title")
"""

from __future__ import annotations

import abc
import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp

BrowserName = Literal["chromium", "firefox"]

COMMANDS: Final[dict[BrowserName, tuple[str, ...]]] = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "firefox": ("firefox-esr", "firefox"),
}
START_TIMEOUT_S: Final = 60.0  # a cold start on a machine with two busy cores takes up to 20 s

_CHROMIUM_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # the sandbox refuses to run as root, which containers do
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have 64 MB of /dev/shm
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-features=Translate,MediaRouter,OptimizationHints",
    "--no-first-run",
    "--no-default-browser-check",
    "--mute-audio",
    "--password-store=basic",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--remote-debugging-port=0",
)

_FIREFOX_PREFS: Final[dict[str, bool | int | str]] = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "media.gmp-manager.updateEnabled": False,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "remote.prefs.recommended": True,
    "services.settings.server": "data:,",  # no remote settings: nothing leaves the machine
    "toolkit.telemetry.enabled": False,
}


class BrowserError(Exception):
    """The browser refused a command, a script threw, or the browser ended."""


def find(name: BrowserName) -> str | None:
    """Path of the browser's program, or None when this machine has none."""
    return next((path for command in COMMANDS[name] if (path := shutil.which(command))), None)


class _Channel:
    """Numbered JSON commands over one WebSocket; answers find their caller, events are dropped or kept."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, on_event: Callable[[dict[str, Any]], None]
    ) -> None:
        self._socket = socket
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read(), name="browser-channel")

    async def call(self, method: str, params: dict[str, Any], **fields: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": params, **fields})
        message = await answer
        if "error" in message:
            raise BrowserError(f"{method}: {message.get('message') or message['error']}")
        result: dict[str, Any] = message["result"]
        return result

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                content = json.loads(message.data)
                waiting = self._waiting.pop(content["id"], None) if "id" in content else None
                if waiting is None:
                    self._on_event(content)
                elif not waiting.done():
                    waiting.set_result(content)
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(BrowserError("the browser closed its connection"))
            self._waiting.clear()

    async def close(self) -> None:
        await self._socket.close()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader


class Page(abc.ABC):
    """One tab of one browser. ``console``: the last 200 lines that the page logged, for a failing test."""

    name: BrowserName

    def __init__(self) -> None:
        self.console: list[str] = []

    @abc.abstractmethod
    async def navigate(self, url: str) -> None:
        """Open ``url`` and return when its ``load`` event has fired."""

    @abc.abstractmethod
    async def screenshot(self) -> bytes:
        """The viewport as PNG."""

    @abc.abstractmethod
    async def resize(self, width_px: int, height_px: int) -> None:
        """Set the viewport."""

    @abc.abstractmethod
    async def dark(self, dark: bool) -> None:
        """Emulate ``prefers-color-scheme`` where the browser can; Firefox raises ``BrowserError``."""

    @abc.abstractmethod
    async def _evaluate(self, expression: str) -> str:
        """Value of an expression that gives a promise of a string."""

    async def evaluate(self, expression: str, *, timeout_s: float = 60.0) -> Any:
        """JSON value of a JavaScript expression; a promise is awaited. ``BrowserError`` when it throws.

        For statements pass a function call: ``(async () => { …; return x })()``.
        """
        wrapped = f"(async () => JSON.stringify((await ({expression})) ?? null))()"
        async with asyncio.timeout(timeout_s):
            return json.loads(await self._evaluate(wrapped))

    async def wait_for(self, expression: str, *, timeout_s: float = 60.0, every_s: float = 0.1) -> Any:
        """Evaluate until the value is truthy; return it. ``BrowserError`` with the last value after that."""
        deadline = time.monotonic() + timeout_s
        value: Any = None
        while time.monotonic() < deadline:
            value = await self.evaluate(expression)
            if value:
                return value
            await asyncio.sleep(every_s)
        tail = "\n".join(self.console[-10:])
        raise BrowserError(f"{self.name}: {expression!r} still gives {value!r} after {timeout_s} s\n{tail}")

    def _log(self, line: str) -> None:
        self.console.append(line)
        del self.console[:-200]


class _ChromiumPage(Page):
    name: BrowserName = "chromium"

    def __init__(self) -> None:
        super().__init__()
        self._loaded = asyncio.Event()
        self._session = ""
        self._channel: _Channel

    async def attach(self, http: aiohttp.ClientSession, profile: Path) -> None:
        lines = (profile / "DevToolsActivePort").read_text().splitlines()
        socket = await http.ws_connect(f"ws://127.0.0.1:{lines[0]}{lines[1]}", max_msg_size=64 << 20)
        self._channel = _Channel(socket, self._on_event)
        target = await self._channel.call("Target.createTarget", {"url": "about:blank"})
        attached = await self._channel.call(
            "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}
        )
        self._session = attached["sessionId"]
        await self._call("Page.enable")
        await self._call("Runtime.enable")

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._channel.call(method, params, sessionId=self._session)

    def _on_event(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.consoleAPICalled":
                values = (
                    str(arg.get("value", arg.get("description", ""))) for arg in event["params"]["args"]
                )
                self._log(f"{event['params']['type']}: {' '.join(values)}")
            case "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                self._log(f"exception: {details.get('exception', {}).get('description', details['text'])}")

    async def navigate(self, url: str) -> None:
        self._loaded.clear()
        answer = await self._call("Page.navigate", url=url)
        if answer.get("errorText"):
            raise BrowserError(f"{url}: {answer['errorText']}")
        if "loaderId" in answer:  # absent when only the fragment changed: nothing will load
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._loaded.wait()

    async def _evaluate(self, expression: str) -> str:
        answer = await self._call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return str(answer["result"]["value"])

    async def screenshot(self) -> bytes:
        return base64.b64decode((await self._call("Page.captureScreenshot", format="png"))["data"])

    async def resize(self, width_px: int, height_px: int) -> None:
        await self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px,
            height=height_px,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def dark(self, dark: bool) -> None:
        value = "dark" if dark else "light"
        await self._call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}]
        )

    async def close(self) -> None:
        with contextlib.suppress(BrowserError, ConnectionError, TimeoutError):
            async with asyncio.timeout(5.0):
                await self._channel.call("Browser.close", {})
        await self._channel.close()


class _FirefoxPage(Page):
    name: BrowserName = "firefox"

    def __init__(self) -> None:
        super().__init__()
        self._context = ""
        self._channel: _Channel

    async def attach(self, http: aiohttp.ClientSession, profile: Path) -> None:
        server = json.loads((profile / "WebDriverBiDiServer.json").read_text())
        url = f"ws://{server['ws_host']}:{server['ws_port']}/session"
        socket = await http.ws_connect(url, max_msg_size=64 << 20)
        self._channel = _Channel(socket, self._on_event)
        await self._channel.call("session.new", {"capabilities": {}})
        await self._channel.call("session.subscribe", {"events": ["log.entryAdded"]})
        tree = await self._channel.call("browsingContext.getTree", {})
        self._context = tree["contexts"][0]["context"]

    def _on_event(self, event: dict[str, Any]) -> None:
        if event.get("method") == "log.entryAdded":
            self._log(f"{event['params'].get('level')}: {event['params'].get('text')}")

    async def navigate(self, url: str) -> None:
        await self._channel.call(
            "browsingContext.navigate", {"context": self._context, "url": url, "wait": "complete"}
        )

    async def _evaluate(self, expression: str) -> str:
        answer = await self._channel.call(
            "script.evaluate",
            {
                "expression": expression,
                "target": {"context": self._context},
                "awaitPromise": True,
                "userActivation": True,
            },
        )
        if answer["type"] == "exception":
            raise BrowserError(answer["exceptionDetails"]["text"])
        return str(answer["result"]["value"])

    async def screenshot(self) -> bytes:
        answer = await self._channel.call("browsingContext.captureScreenshot", {"context": self._context})
        return base64.b64decode(answer["data"])

    async def resize(self, width_px: int, height_px: int) -> None:
        viewport = {"width": width_px, "height": height_px}
        await self._channel.call(
            "browsingContext.setViewport", {"context": self._context, "viewport": viewport}
        )

    async def dark(self, dark: bool) -> None:
        raise BrowserError("Firefox's BiDi has no prefers-color-scheme emulation")

    async def close(self) -> None:
        with contextlib.suppress(BrowserError, ConnectionError, TimeoutError):
            async with asyncio.timeout(5.0):
                await self._channel.call("browser.close", {})
        await self._channel.close()


def _prepare(name: BrowserName, program: str, profile: Path) -> tuple[Sequence[str], Path]:
    """Command line, and the file in the profile that names the port once the browser listens."""
    if name == "chromium":
        flags = (*_CHROMIUM_FLAGS, f"--user-data-dir={profile}", "--window-size=1280,800", "about:blank")
        return (program, *flags), profile / "DevToolsActivePort"
    lines = (f"user_pref({json.dumps(key)}, {json.dumps(value)});" for key, value in _FIREFOX_PREFS.items())
    (profile / "user.js").write_text("\n".join(lines) + "\n")
    quiet = ("--headless", "--no-remote", "--remote-debugging-port=0", "--profile", str(profile))
    return (program, *quiet, "about:blank"), profile / "WebDriverBiDiServer.json"


def _written(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


async def _listening(process: asyncio.subprocess.Process, port_file: Path) -> None:
    """Wait until the browser has written its port whole."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while not await asyncio.to_thread(_written, port_file):
            if process.returncode is not None:
                raise BrowserError(f"the browser ended with status {process.returncode} while starting")
            await asyncio.sleep(0.05)  # a file that another program writes: nothing to await on


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process group: politely asked already; give it 5 s, then kill what is left of it."""
    try:
        async with asyncio.timeout(5.0):
            await process.wait()
    except TimeoutError:
        pass
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _trust(name: BrowserName, profile: Path, authority: Path) -> None:
    """Both browsers read NSS databases: Firefox that of the profile, Chromium on Linux that of the home directory."""
    store = profile if name == "firefox" else profile / ".pki" / "nssdb"
    store.mkdir(parents=True, exist_ok=True)
    certutil = ("certutil", "-d", f"sql:{store}")
    for arguments in (
        ("-N", "--empty-password"),
        ("-A", "-n", "authority", "-t", "C,,", "-i", str(authority)),
    ):
        process = await asyncio.create_subprocess_exec(
            *certutil, *arguments, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        _, words = await process.communicate()
        if process.returncode:
            raise BrowserError(f"certutil {arguments[0]}: {words.decode(errors='replace').strip()}")


@contextlib.asynccontextmanager
async def launch(
    name: BrowserName, *, language: str = "en-GB", authority: Path | None = None
) -> AsyncIterator[Page]:
    """Start a browser with a fresh profile and give its only tab; ends it with all its children.

    One that ends or hangs while it starts is started once more. ``authority``: a certificate in PEM that this profile
    trusts as one of a certification authority. Raises ``BrowserError`` when this machine has no such browser.
    """
    program = find(name)
    if program is None:
        raise BrowserError(f"{name} is not installed here (tried {', '.join(COMMANDS[name])})")
    async with contextlib.AsyncExitStack() as stack:
        try:
            page = await stack.enter_async_context(_started(name, program, language, authority))
        except (BrowserError, TimeoutError, aiohttp.ClientError) as error:
            print(f"{name} is started once more: {error!r}")
            page = await stack.enter_async_context(_started(name, program, language, authority))
        yield page


@contextlib.asynccontextmanager
async def _started(
    name: BrowserName, program: str, language: str, authority: Path | None
) -> AsyncIterator[Page]:
    # ignore_cleanup_errors: a helper process may write to the profile while it is being removed
    with tempfile.TemporaryDirectory(prefix=f"mosaique-{name}-", ignore_cleanup_errors=True) as directory:
        profile = Path(directory)
        command, port_file = _prepare(name, program, profile)
        if name == "chromium":
            command = (*command[:-1], f"--lang={language}", f"--accept-lang={language}", command[-1])
        else:
            with (profile / "user.js").open("a") as prefs:
                prefs.write(f'user_pref("intl.accept_languages", {json.dumps(language)});\n')
        if authority is not None:
            await _trust(name, profile, authority)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "HOME": directory, "MOZ_REMOTE_ALLOW_SYSTEM_ACCESS": "0"},
        )
        try:
            await _listening(process, port_file)
            async with aiohttp.ClientSession() as http:
                page = _ChromiumPage() if name == "chromium" else _FirefoxPage()
                async with asyncio.timeout(START_TIMEOUT_S):
                    await page.attach(http, profile)
                try:
                    yield page
                finally:
                    await page.close()
        finally:
            await _end(process)
