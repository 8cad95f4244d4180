"""The page in a real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop

import katcp_tornado
from katcp_tornado import Backoff, Client
from katcp_tornado.testing import FakeDevice
from katcp_tornado.web.site import Site

if TYPE_CHECKING:
    from playwright.async_api import Page

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<img/src=x/onerror=alert(1)>"
#: Milliseconds that the browser has for what it is to show.
PATIENCE = 20_000
#: What Chromium itself writes to the console of a link that fails, and of a page that asks for a token.
EXPECTED = ("WebSocket connection to", "401 (Unauthorized)")

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
timeout = pytest.mark.gen_test(timeout=120)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    """A device in a process of its own, which can be killed and started again at the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        root = str(Path(katcp_tornado.__file__).parent.parent)  # the library that is under test here
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", str(HERE / "process_device.py"), str(self.port)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        await self._process.stdout.readline()

    async def kill(self) -> None:
        """As ``kill -9`` does."""
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
            self._process = None


@pytest.fixture
def process(io_loop: IOLoop) -> Iterator[Process]:
    process = Process()
    yield process
    io_loop.run_sync(process.kill)


class Server:
    """A server of the page, which can be stopped and started again at the same port."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.port = free_port()
        self._server: HTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.site.prefix}/"

    def start(self) -> None:
        self._server = HTTPServer(web.Application(self.site.handlers()))
        self._server.listen(self.port, "127.0.0.1")

    async def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
            self._server = None
            for page in list(self.site.feed._pages):
                page.ws_connection.stream.close()  # type: ignore[attr-defined]


@pytest.fixture
def serve(io_loop: IOLoop) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []
    clients: list[Client] = []

    def serve(ports: dict[str, int], delay: float = 0.3, **options: Any) -> Server:
        made = {name: Client("127.0.0.1", port, backoff=Backoff(maximum=delay)) for name, port in ports.items()}
        clients.extend(made.values())
        servers.append(Server(Site(made, **options)))
        return servers[-1]

    yield serve

    async def stop() -> None:
        for server in servers:
            await server.stop()
        for client in clients:
            client.close()
            await client.wait_closed()

    io_loop.run_sync(stop)


Open = Callable[..., Awaitable["Page"]]


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Open]:
    """Opens pages, and says in the end what the browser's console said, and which dialogs were opened."""
    api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    said: list[str] = []
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        async def open_page(url: str | None, width: int = 1400, height: int = 800, dark: bool = False) -> Page:
            context = await browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            page: Page = await context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            if url is not None:
                await page.goto(url)
            return page

        try:
            yield open_page
        finally:
            await browser.close()
    assert [text for text in said if not any(one in text for one in EXPECTED)] == []


def cell(page: Page, sensor: str, column: str) -> Any:
    """A cell of the table of sensors."""
    row = page.locator("#rows tr", has=page.get_by_role("button", name=sensor, exact=True))
    return row.locator(f"td.{column}")


def expect(locator: Any, milliseconds: float = PATIENCE) -> Any:
    """What a locator must come to within this time."""
    from playwright.async_api import expect

    expect.set_options(timeout=milliseconds)
    return expect(locator)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something of this process is so."""
    for _ in range(PATIENCE // 50):
        if condition():
            return
        await asyncio.sleep(0.05)
    assert condition()


async def names(page: Page) -> list[str]:
    return [text.strip() for text in await page.locator("#rows td.name button").all_inner_texts()]


@timeout
async def test_a_device_is_killed_and_comes_back(process: Process, serve: Callable[..., Server]) -> None:
    await process.start()
    server = serve({"m000": process.port})
    async with browsing() as open_page:
        page = await open_page(server.url)
        await expect(page.locator("#link-text")).to_have_text("live")
        value, status = cell(page, "counter", "value"), cell(page, "counter", "status")
        await expect(status).to_have_text("nominal")
        before = await value.inner_text()
        await expect(value).not_to_have_text(before)
        await page.evaluate("window.notReloaded = true")
        row, late = page.locator("#rows tr.away"), []
        for _ in range(3):  # a busy machine may be late now and then
            await process.kill()
            killed = time.monotonic()
            await expect(status).to_have_text("unreachable")
            late.append(time.monotonic() - killed)
            await expect(row).to_have_count(3)
            await expect(page.locator(".device .state")).to_contain_text("attempt")
            await expect(page.locator(".device .error")).to_contain_text("refused")
            assert int(await value.inner_text()) >= int(before), "the last value stays, in grey"
            before = "0"  # it counts anew
            await process.start()
            await expect(status).to_have_text("nominal")
            await expect(row).to_have_count(0)
            await expect(page.locator(".device .state")).to_have_text("connected")
        assert min(late) < 1, late
        assert await page.evaluate("window.notReloaded")
        await expect(page.locator(".device .strip")).to_have_attribute("title", "Last 15 minutes: 3 links lost")


@timeout
async def test_the_page_outlives_its_server(device: FakeDevice, serve: Callable[..., Server]) -> None:
    device.add_sensor("a", "integer", 1)
    server = serve({"m000": device.port})
    async with browsing() as open_page:
        page = await open_page(server.url)
        await expect(cell(page, "a", "value")).to_have_text("1")
        await server.stop()
        await expect(page.locator("body.stale #link-text")).to_contain_text("stale")
        device.set_sensor("a", 2)
        server.start()
        await expect(page.locator("#link-text")).to_have_text("live")
        await expect(cell(page, "a", "value")).to_have_text("2")
        await expect(page.locator("body.stale")).to_have_count(0)


@timeout
async def test_a_link_that_has_gone_silent(
    device: FakeDevice, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells the page of a cable that was cut: it hears no more, and says so."""
    device.add_sensor("a", "integer", 1)
    server = serve({"m000": device.port})
    async with browsing() as open_page:
        page = await open_page(server.url)
        await expect(page.locator("#link-text")).to_have_text("live")
        (socket,) = server.site.feed._pages
        monkeypatch.setattr(socket, "send", lambda frame: asyncio.get_running_loop().create_future())  # it never leaves
        await expect(page.locator("body.stale #link-text")).to_contain_text("stale")
        await expect(page.locator("#link-text")).to_have_text("live")


@timeout
async def test_filter_and_sort(device: FakeDevice, serve: Callable[..., Server]) -> None:
    for number in range(30):
        device.add_sensor(
            f"chan.{number}.power", "float", (number * 7) % 30, status="warn" if number < 2 else "nominal"
        )
    device.add_sensor("mode", "string", "ready")
    server = serve({"m000": device.port})
    async with browsing() as open_page:
        page = await open_page(server.url)
        await expect(page.locator("#count")).to_have_text("31 sensors")
        assert (await names(page))[:3] == ["chan.0.power", "chan.1.power", "chan.2.power"], "numbers in their order"
        await page.get_by_role("button", name="Value").click()
        await expect(page.locator("th.value")).to_have_attribute("aria-sort", "ascending")
        assert (await names(page))[:3] == ["chan.0.power", "chan.13.power", "chan.26.power"]
        await page.get_by_role("button", name="Value").click()
        await expect(page.locator("th.value")).to_have_attribute("aria-sort", "descending")
        search = page.get_by_role("searchbox", name="Filter sensors")
        await search.fill("MODE")
        await expect(page.locator("#count")).to_have_text("1 of 31 sensors")
        await search.fill(r"/^chan\.2\d/")
        await expect(page.locator("#count")).to_have_text("10 of 31 sensors")
        await search.fill("/(/")
        await expect(search).to_have_attribute("aria-invalid", "true")
        await search.fill("")
        await page.get_by_label("Status").select_option("warn")
        await expect(page.locator("#count")).to_have_text("2 of 31 sensors")


@timeout
async def test_a_request(device: FakeDevice, serve: Callable[..., Server]) -> None:
    server = serve({"m000": device.port}, allow_requests=True)
    async with browsing() as open_page:
        page = await open_page(server.url)
        line = page.get_by_role("combobox", name="Request and arguments")
        await expect(page.locator("#ask-names").get_by_text("add", exact=True)).to_have_count(1)
        await line.fill("add 3 -4")
        await expect(page.locator("#ask-help")).not_to_have_text("")
        await line.press("Enter")
        await expect(page.locator("#answers li").first).to_have_text("m000  ?add 3 -4!ok  -1")
        await line.fill('fail "not now"')
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#answers .no").first).to_contain_text("!fail  not now")
        await line.press("ArrowUp")
        await expect(line).to_have_value('fail "not now"')


@timeout
async def test_no_requests_unless_allowed(device: FakeDevice, serve: Callable[..., Server]) -> None:
    server = serve({"m000": device.port})
    async with browsing() as open_page:
        page = await open_page(server.url)
        await expect(page.locator("#link-text")).to_have_text("live")
        await expect(page.locator("#requests")).to_be_hidden()


@timeout
async def test_hostile_texts(device: FakeDevice, serve: Callable[..., Server]) -> None:
    """What a device says is shown as text, wherever it stands."""
    device.add_sensor(HOSTILE, "string", HOSTILE, HOSTILE, HOSTILE)
    server = serve({HOSTILE: device.port}, allow_requests=True)
    async with browsing() as open_page:
        page = await open_page(server.url)
        await expect(cell(page, HOSTILE, "value")).to_have_text(HOSTILE)
        device.log("warn", HOSTILE, HOSTILE)
        await expect(page.locator("#log .text")).to_have_text(HOSTILE)
        await page.get_by_role("button", name=HOSTILE, exact=True).click()
        await expect(page.locator("#detail-name")).to_have_text(HOSTILE)
        await page.get_by_role("combobox", name="Request and arguments").fill(f"echo {HOSTILE}")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#answers .ok")).to_have_text(f"!ok  {HOSTILE}")
        await expect(page.locator("img")).to_have_count(0)


@timeout
async def test_a_page_of_another_origin_learns_nothing(device: FakeDevice, serve: Callable[..., Server]) -> None:
    server, foreign = serve({"m000": device.port}), serve({"evil": device.port})
    async with browsing() as open_page:
        page = await open_page(None)
        said = await page.context.new_page()
        await said.goto(f"http://localhost:{foreign.port}/katcp/static/icon.svg")
        opened = await said.evaluate(
            """(port) => new Promise((done) => {
                const socket = new WebSocket(`ws://127.0.0.1:${port}/katcp/ws`);
                socket.onopen = () => done(true);
                socket.onerror = () => done(false);
            })""",
            server.port,
        )
        assert opened is False
        assert len(server.site.feed._pages) == 0


@timeout
async def test_the_token(device: FakeDevice, serve: Callable[..., Server]) -> None:
    server = serve({"m000": device.port}, token="open sesame")
    async with browsing() as open_page:
        page = await open_page(None)
        await page.goto(server.url)
        await page.get_by_label("Token").fill("open sesame")
        await page.get_by_role("button", name="Show the devices").click()
        await expect(page.locator("#link-text")).to_have_text("live")
        assert await page.evaluate("document.cookie") == "", "no script reads the cookie"


@timeout
async def test_thousands_of_rows(device: FakeDevice, serve: Callable[..., Server]) -> None:
    """Rows are made for what can be seen; a screen reader hears of all of them."""
    for number in range(5000):
        device.add_sensor(f"s{number:04}", "integer", number)
    server = serve({"m000": device.port})
    async with browsing() as open_page:
        page = await open_page(server.url)
        await expect(page.locator("#count")).to_have_text("5000 sensors")
        await expect(page.locator("#table")).to_have_attribute("aria-rowcount", "5001")
        assert await page.locator("#rows tr").count() < 100
        await page.get_by_role("button", name="s0009", exact=True).focus()
        await page.locator("#scroll").evaluate("node => node.scrollTop = 8 * 32")
        await expect(page.locator("#rows tr:not(.spacer)").first).to_contain_text("s0002")
        await expect(page.locator(":focus")).to_have_text("s0009")
        await page.locator("#scroll").evaluate("node => node.scrollTop = 0")
        await expect(page.locator("#rows tr:not(.spacer)").first).to_contain_text("s0000")
        await expect(page.locator(":focus")).to_have_text("s0009")
        await page.keyboard.press("End")
        await expect(cell(page, "s4999", "value")).to_have_text("4999")
        assert await page.locator("#rows tr").count() < 100


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const node of document.querySelectorAll("h1, h2, label, p, th, td, span, li, div, button, input")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.offsetParent || node.closest(".hidden")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found[`${node.tagName}.${node.className}`] = ratio;
  }
  return found;
}"""


@pytest.mark.parametrize("dark", [False, True])
@timeout
async def test_contrast(device: FakeDevice, serve: Callable[..., Server], dark: bool) -> None:
    """Every text stands out from what is behind it by 4.5 to 1 [WCAG 2, AA]."""
    for status in ("nominal", "warn", "error", "failure", "unknown", "inactive"):
        device.add_sensor(status, "integer", 1, "A sensor", "m", status=status)
    server = serve({"m000": device.port, "away": free_port()}, allow_requests=True)
    async with browsing() as open_page:
        page = await open_page(server.url, dark=dark)
        await expect(page.locator("#count")).to_have_text("6 sensors")
        await expect(page.locator(".device .error").nth(1)).not_to_have_text("")
        device.log("error", "a line")
        await expect(page.locator("#log .text")).to_have_count(1)
        assert await page.evaluate(CONTRAST) == {}
        await server.stop()
        await expect(page.locator("body.stale #link-text")).to_contain_text("stale")
        assert await page.evaluate(CONTRAST) == {}


@timeout
async def test_the_keyboard_reaches_everything(device: FakeDevice, serve: Callable[..., Server]) -> None:
    device.add_sensor("a", "integer", 1)
    server = serve({"m000": device.port}, allow_requests=True)
    async with browsing() as open_page:
        page = await open_page(server.url)
        await expect(cell(page, "a", "value")).to_have_text("1")
        reached: list[str] = []
        for _ in range(20):
            await page.keyboard.press("Tab")
            node = page.locator(":focus")
            if not await node.count():
                break
            reached.append(await node.evaluate("node => node.id || node.className || node.innerText"))
            assert await node.evaluate("node => getComputedStyle(node).outlineStyle") != "none", reached[-1]
        for wanted in ("device", "filter", "status", "scroll", "Sensor", "Value", "a", "ask-line", "log"):
            assert any(wanted in one for one in reached), (wanted, reached)


@timeout
async def test_reloads_leave_nothing_behind(device: FakeDevice, serve: Callable[..., Server]) -> None:
    device.add_sensor("a", "integer", 1)
    server = serve({"m000": device.port})
    async with browsing() as open_page:
        page = await open_page(server.url)
        for _ in range(50):
            await page.reload()
        await expect(cell(page, "a", "value")).to_have_text("1")
        await until(lambda: len(server.site.feed._pages) == 1)
        assert [len(connection.samplers) for connection in device.connections] == [1]
        await page.close()
    await until(lambda: len(server.site.feed._pages) == 0)
    await until(lambda: [len(connection.samplers) for connection in device.connections] == [0])


NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /observatory/ {{
      proxy_pass http://127.0.0.1:{server};
      rewrite ^/observatory(.*) $1 break;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $http_connection;
    }}
  }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx here")
@timeout
async def test_behind_a_proxy_with_a_prefix(device: FakeDevice, serve: Callable[..., Server], tmp_path: Path) -> None:
    """nginx puts a path in front, and asks by another Host: its own origin has to be allowed."""
    device.add_sensor("a", "integer", 1)
    port = free_port()
    server = serve({"m000": device.port}, origins=[f"http://127.0.0.1:{port}"], token="open sesame")
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, server=server.port))
    nginx = await asyncio.create_subprocess_exec(
        *("nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log"))
    )
    try:
        async with browsing() as open_page:
            page = await open_page(None)
            for _ in range(100):
                with contextlib.suppress(Exception):  # it does not listen yet
                    await page.goto(f"http://127.0.0.1:{port}/observatory/katcp")
                    break
                await asyncio.sleep(0.1)
            await page.get_by_label("Token").fill("open sesame")
            await page.get_by_role("button", name="Show the devices").click()
            await expect(cell(page, "a", "value")).to_have_text("1")
            assert page.url == f"http://127.0.0.1:{port}/observatory/katcp/"
            (cookie,) = await page.context.cookies()
            assert cookie["path"] == "/observatory/katcp" and cookie["httpOnly"]
    finally:
        nginx.terminate()
        await nginx.wait()


def furnish(device: FakeDevice) -> Callable[[float], None]:
    """Give a device the sensors of a receiver; returns what moves them."""
    device.add_sensor("lna.temperature", "float", 15.2, "Physical temperature of the amplifier", "K")
    device.add_sensor("lna.vacuum", "float", 2.1e-6, "Pressure in the cryostat", "mbar")
    device.add_sensor("lo.frequency", "integer", 1284000000, "Frequency of the local oscillator", "Hz")
    device.add_sensor("lo.locked", "boolean", True, "The oscillator is locked")
    device.add_sensor("mode", "discrete", "tracking", "What the antenna is doing", params=["stow", "slew", "tracking"])
    device.add_sensor("pointing.azimuth", "float", 101.0, "Where it points", "deg")
    device.add_sensor("pointing.elevation", "float", 44.0, "Where it points", "deg")
    device.add_sensor("pointing.error", "float", 0.0, "Distance from where it should point", "arcsec", status="warn")
    device.add_sensor("power.supply", "float", 11.2, "Voltage of the supply", "V", status="error")
    device.add_sensor("time.source", "string", "gps", "Where the time comes from")

    def move(time: float) -> None:
        device.set_sensor("lna.temperature", round(15.2 + 0.4 * math.sin(time / 3), 3))
        device.set_sensor("pointing.azimuth", round(101 + time / 20, 4))
        device.set_sensor("pointing.elevation", round(44 + 2 * math.sin(time / 15), 4))
        device.set_sensor("pointing.error", round(3 * abs(math.sin(time)) + abs(math.sin(7 * time)), 2), "warn")
        device.set_sensor("power.supply", round(11.2 + 0.1 * math.sin(2 * time), 2), "error")

    return move


@pytest.mark.gen_test(timeout=240)
async def test_pictures(serve: Callable[..., Server], process: Process, tmp_path: Path) -> None:
    """The pictures of the docs: ``KATCP_TORNADO_PICTURES=docs/howto/pictures`` has them taken anew."""
    folder = Path(os.environ.get("KATCP_TORNADO_PICTURES", tmp_path))
    seconds = 60 if folder != tmp_path else 2
    receivers = [FakeDevice(), FakeDevice()]
    with contextlib.ExitStack() as stack:
        moves = [furnish(stack.enter_context(device)) for device in receivers]
        await process.start()
        ports = {"m000": receivers[0].port, "m001": receivers[1].port, "correlator": process.port}
        server = serve(ports, 10, allow_requests=True)
        hostile = FakeDevice()
        hostile.add_sensor(HOSTILE, "string", HOSTILE, HOSTILE, HOSTILE)
        other = serve({HOSTILE: stack.enter_context(hostile).port})

        began = asyncio.get_running_loop().time()

        async def go_on(seconds: float) -> None:
            end = now() + seconds
            while now() < end:
                for number, move in enumerate(moves):
                    move(now() + number)
                await asyncio.sleep(0.25)

        def now() -> float:
            return asyncio.get_running_loop().time() - began

        async def take(page: Page, name: str) -> None:
            path = folder / f"{name}.png"
            await page.screenshot(path=path)
            if folder != tmp_path:  # a third of the size, and no difference to be seen
                image = importlib.import_module("PIL.Image").open(path)
                image.quantize(256, method=1).save(path, optimize=True)  # 1: the most colours, not the commonest

        async with browsing() as open_page:
            pages = {
                "page-light": await open_page(server.url, 1400, 860),
                "page-dark": await open_page(server.url, 1400, 860, dark=True),
                "page-tablet": await open_page(server.url, 800, 1000),
                "page-phone": await open_page(server.url, 400, 800),
            }
            for page in pages.values():
                await expect(page.locator("#count")).to_have_text("23 sensors")
            await go_on(seconds / 2)
            receivers[0].log("info", "tracking PKS 1934-638", "m000.pointing")
            receivers[1].log("warn", "wind 14 m/s: slewing slowly", "m001.drive")
            line = pages["page-light"].get_by_role("combobox", name="Request and arguments")
            await line.fill("echo all is well")
            await line.press("Enter")
            await expect(pages["page-light"].locator("#answers .ok")).to_have_count(1)
            await go_on(seconds / 2)
            for name, page in pages.items():
                await take(page, name)
            await process.kill()
            page = pages["page-light"]
            await expect(page.locator("#rows tr.away")).to_have_count(3)
            await go_on(seconds / 10)
            await expect(page.locator(".device .state").nth(2)).to_contain_text("next attempt")
            await take(page, "page-away")
            await server.stop()
            await expect(page.locator("body.stale #link-text")).to_contain_text("next attempt")
            await take(page, "page-stale")
            page = await open_page(other.url, 1400, 500)
            await expect(cell(page, HOSTILE, "value")).to_have_text(HOSTILE)
            await take(page, "page-hostile")
    assert len(list(folder.glob("page-*.png"))) == 7  # noqa: ASYNC240
