"""The page as a browser's requests see it: who gets in, and what comes over its WebSocket."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from tornado import gen, web
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port
from tornado.websocket import WebSocketClientConnection, websocket_connect

from katcp_tornado import Client, Device
from katcp_tornado.testing import FakeDevice
from katcp_tornado.web import feed, handlers
from katcp_tornado.web.site import Site

Connect = Callable[..., Client]
Serve = Callable[[list[Any]], str]
HOSTILE = "<img/src=x/onerror=alert(1)>"


@pytest.fixture
def serve(io_loop: IOLoop) -> Iterator[Serve]:
    servers: list[HTTPServer] = []

    def serve(routes: list[Any]) -> str:
        sock, port = bind_unused_port()
        servers.append(HTTPServer(web.Application(routes)))
        servers[-1].add_socket(sock)
        return f"127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop()
        io_loop.run_sync(server.close_all_connections)


async def fetch(url: str, **options: Any) -> HTTPResponse:
    return await AsyncHTTPClient(force_instance=True).fetch(url, raise_error=False, **options)


class PageClient:
    """What a page knows of the devices, from the frames that it got."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection
        self.frames: list[dict[str, Any]] = []
        self.sensors: dict[tuple[str, str], list[Any]] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.log: list[list[Any]] = []
        self.answers: dict[int, dict[str, Any]] = {}

    async def until(self, condition: Callable[[PageClient], object]) -> PageClient:
        """Read frames until the condition is true."""
        while not condition(self):
            message = await self.connection.read_message()
            assert message is not None, self.connection.close_reason
            frame = json.loads(message, parse_constant=pytest.fail)
            self.frames.append(frame)
            if "answer" in frame:
                self.answers[frame["answer"]] = frame
            for device in frame.get("devices", ()):
                self.devices[device["name"]] = device
            for name in frame.get("gone", ()):
                del self.devices[name]
            for device, rows in frame.get("sensors", ()):
                for name, *row in rows:
                    if row:
                        old = self.sensors.get((device, name), [])
                        self.sensors[device, name] = row + old[len(row) :]
                    else:
                        self.sensors.pop((device, name), None)
            self.log += frame.get("log", ())
        return self

    def value(self, name: str) -> Any:
        return self.sensors.get(("m000", name), [None, None, None])[2]

    def status(self, name: str) -> Any:
        return self.sensors.get(("m000", name), [None, None, None])[0]


async def open_page(address: str, path: str = "/katcp/ws", **headers: str) -> PageClient:
    return PageClient(await websocket_connect(HTTPRequest(f"ws://{address}{path}", headers=headers)))


async def shut(page: PageClient) -> None:
    """Close it, and wait until the server has heard."""
    page.connection.close()
    while await page.connection.read_message() is not None:
        pass


async def gone(page: PageClient) -> None:
    """Close it, and wait until the server has let go of the devices, too."""
    await shut(page)
    await gen.sleep(feed.LINGER + 1)


# Who gets in


@pytest.mark.gen_test
async def test_the_page_comes_from_here_alone(serve: Serve, connect: Connect) -> None:
    address = serve(handlers({"m000": connect()}))
    response = await fetch(f"http://{address}/katcp", follow_redirects=False)
    assert (response.code, response.headers["Location"]) == (302, "katcp/")
    response = await fetch(f"http://{address}/katcp")
    assert response.effective_url.endswith("/katcp/")
    text = response.body.decode()
    assert "<table" in text and "http:" not in text and "https:" not in text and 'src="/' not in text
    assert "<style" not in text and " style=" not in text and "<script>" not in text
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'self'" in policy
    for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css")):
        response = await fetch(f"http://{address}/katcp/static/{name}")
        assert response.headers["Content-Type"].startswith(kind)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert (await fetch(f"http://{address}/katcp/static/../site.py")).code in (403, 404)


@pytest.mark.gen_test
async def test_at_the_root(serve: Serve, connect: Connect) -> None:
    address = serve(handlers({"m000": connect()}, ""))
    assert b"<table" in (await fetch(f"http://{address}/")).body
    await gone(await (await open_page(address, "/ws")).until(lambda page: page.devices))


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("page.example.org:8080", 200),
        ("evil.example.org", 403),
        ("localhost.evil.org", 403),
        ("127.0.0.1.evil.org", 403),
    ],
)
@pytest.mark.gen_test
async def test_hosts(serve: Serve, connect: Connect, host: str, code: int) -> None:
    address = serve(handlers({"m000": connect()}, hosts=["page.example.org"]))
    for path in ("", "static/app.js"):
        response = await fetch(f"http://{address}/katcp/{path}", headers={"Host": host})
        assert response.code == code
        assert "Content-Security-Policy" in response.headers


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        ("http://{}", True),
        ("https://{}", True),  # a proxy ends TLS
        ("https://control.example.org", True),
        ("https://control.example.org:443", True),
        ("http://control.example.org", False),
        ("https://control.example.org.evil.org", False),
        ("http://127.0.0.1:1", False),
        ("http://127.0.0.1", False),
        ("null", False),
        ("file://", False),
    ],
)
@pytest.mark.gen_test
async def test_origins(serve: Serve, connect: Connect, origin: str, good: bool) -> None:
    address = serve(handlers({"m000": connect()}, origins=["https://control.example.org"]))
    origin = origin.format(address)
    assert (await fetch(f"http://{address}/katcp/", headers={"Origin": origin})).code == (200 if good else 403)
    if good:
        await gone(await open_page(address, Origin=origin))
    else:
        with pytest.raises(HTTPClientError, match="403"):
            await open_page(address, Origin=origin)


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "katcp"},
        {"origins": ["example.org"]},
        {"origins": ["*"]},
        {"origins": ["https://*.example.org"]},
        {"origins": ["https://a.org; script-src *"]},
        {"hosts": [""]},
        {"hosts": ["http://a.org"]},
    ],
)
def test_settings_without_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        handlers({}, **options)


def test_settings_of_the_wrong_type() -> None:
    for options in ({"origins": "https://a.org"}, {"hosts": "a.org"}, {"prefix": None}):
        with pytest.raises(TypeError):
            handlers({}, **options)


@pytest.mark.gen_test
async def test_a_token(serve: Serve, connect: Connect) -> None:
    address = serve(Site({"m000": connect()}, token="correct horse").handlers())
    response = await fetch(f"http://{address}/katcp/")
    assert response.code == 401 and b"password" in response.body and b"<table" not in response.body
    with pytest.raises(HTTPClientError, match="401"):
        await open_page(address)
    login = f"http://{address}/katcp/login"
    for wrong in ("token=", "token=correct", "token=%ff"):
        assert (await fetch(login, method="POST", body=wrong)).code in (400, 403)
    headers = {"Origin": "http://evil.org"}
    assert (await fetch(login, method="POST", body="token=correct+horse", headers=headers)).code == 403
    response = await fetch(login, method="POST", body="token=correct+horse", follow_redirects=False)
    assert (response.code, response.headers["Location"]) == (303, "./")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "correct" not in cookie and "Path" not in cookie
    page = await open_page(address, Cookie=cookie.partition(";")[0])
    await gone(await page.until(lambda page: page.devices))


# What comes over the WebSocket


@pytest.mark.gen_test
async def test_a_snapshot_then_changes(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    device.add_sensor("temperature", "float", 21.5, "of the air", "C")
    address = serve(handlers({"m000": connect()}))
    page = await (await open_page(address)).until(lambda page: page.value("temperature") == 21.5)
    assert page.sensors["m000", "temperature"][3:] == ["C", "float", "of the air"]
    assert page.frames[0]["requests"] is False
    device.set_sensor("temperature", 22.5, "warn")
    await page.until(lambda page: page.value("temperature") == 22.5)
    assert page.status("temperature") == "warn"
    other = await (await open_page(address)).until(lambda page: page.value("temperature") == 22.5)
    assert other.devices["m000"]["state"] == "connected"
    await shut(other)
    await gone(page)


@pytest.mark.gen_test
async def test_changes_are_conflated(io_loop: IOLoop, serve: Serve, connect: Connect, device: FakeDevice) -> None:
    device.add_sensor("count", "integer", 0)
    address = serve(handlers({"m000": connect()}))
    page = await (await open_page(address)).until(lambda page: page.value("count") == 0)
    before, began = len(page.frames), io_loop.time()
    for count in range(1, 1001):
        device.set_sensor("count", count)
        await gen.sleep(0.001)
    await page.until(lambda page: page.value("count") == 1000)
    assert len(page.frames) - before <= (io_loop.time() - began) / feed.INTERVAL + 2
    await gone(page)


@pytest.mark.gen_test
async def test_values_survive_json(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    values: dict[str, tuple[str, Any, Any]] = {
        "nan": ("float", math.nan, "nan"),
        "inf": ("float", math.inf, "inf"),
        "minus": ("float", -math.inf, "-inf"),
        "big": ("integer", 2**53 + 1, str(2**53 + 1)),
        "yes": ("boolean", True, True),
        HOSTILE: ("string", HOSTILE.encode(), HOSTILE),
        "raw": ("string", b"\xff", "\\xff"),
        "long": ("string", b"x" * 100_000, "x" * 1000 + "…"),
    }
    for name, (type_name, value, _) in values.items():
        device.add_sensor(name, type_name, value)
    page = await open_page(serve(handlers({"m000": connect()})))
    await page.until(lambda page: all(page.value(name) == shown for name, (_, _, shown) in values.items()))
    await gone(page)


@pytest.mark.gen_test
async def test_a_device_away_and_back(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    device.add_sensor("a", "integer", 1)
    address = serve(handlers({"m000": connect()}))
    page = await (await open_page(address)).until(lambda page: page.status("a") == "nominal")
    device.stop()
    await page.until(lambda page: page.status("a") == "unreachable" and page.devices["m000"]["retry"] is not None)
    assert "DeviceDisconnected" in page.devices["m000"]["error"]
    assert page.devices["m000"]["history"][-1][2] is True
    device.start()
    await page.until(lambda page: page.status("a") == "nominal" and page.devices["m000"]["sync"] == "synced")
    assert page.devices["m000"]["error"] is None
    assert [line[4].split(":")[0] for line in page.log] == ["link lost", "connected to 127.0.0.1"]
    await gone(page)


@pytest.mark.gen_test
async def test_sensors_and_devices_come_and_go(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    device.add_sensor("a", "integer", 1)
    owned = Device(client=connect())
    clients: dict[str, Any] = {"m000": owned}
    page = await (await open_page(serve(handlers(clients)))).until(lambda page: page.value("a") == 1)
    device.add_sensor("b", "integer", 2, notify=True)
    await page.until(lambda page: page.value("b") == 2)
    device.remove_sensor("a", notify=True)
    await page.until(lambda page: ("m000", "a") not in page.sensors)
    clients[HOSTILE] = connect()
    await page.until(lambda page: (HOSTILE, "b") in page.sensors)
    del clients["m000"]
    await page.until(lambda page: "m000" not in page.devices)
    await gone(page)
    owned.close()


@pytest.mark.gen_test
async def test_the_log(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    client = connect()
    page = await (await open_page(serve(handlers({"m000": client})))).until(lambda page: page.devices)
    await client.wait_connected()
    device.log("error", f"too hot {HOSTILE}", "air")
    await page.until(lambda page: any(line[2:] == ["error", "air", f"too hot {HOSTILE}"] for line in page.log))
    await gone(page)


@pytest.mark.gen_test
async def test_many_sensors_come_in_slices(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    for number in range(1200):
        device.add_sensor(f"s{number}", "integer", number)
    client = connect()
    address = serve(handlers({"m000": client}))
    first = await (await open_page(address)).until(lambda page: page.value("s1199") == 1199)
    page = await (await open_page(address)).until(lambda page: len(page.sensors) == 1200)
    assert all(sum(len(rows) for _, rows in frame.get("sensors", ())) <= feed.SLICE for frame in page.frames)
    await shut(page)
    await gone(first)


@pytest.mark.gen_test
async def test_nothing_is_left_behind(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    device.add_sensor("a", "integer", 1)
    client = connect()
    await client.wait_connected()
    address = serve(handlers({"m000": client}))
    assert device.count("sensor-list") == device.count("sensor-sampling") == 0
    for _ in range(50):
        page = await (await open_page(address)).until(lambda page: page.value("a") == 1)
        await shut(page)
    asked = device.count("sensor-list")
    assert asked == 1  # a reload does not end the sampling
    await gen.sleep(feed.LINGER + 1)
    await device.wait(lambda device: not any(connection.samplers for connection in device.connections))
    callbacks = client._link.callbacks
    assert not callbacks._kinds.get("state") and b"log" not in callbacks._informs


# Requests


@pytest.mark.gen_test
async def test_requests_only_if_allowed(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    client = connect()
    await client.wait_connected()
    page = await open_page(serve(handlers({"m000": client})))
    page.connection.write_message(json.dumps({"id": 1, "device": "m000", "name": "echo", "arguments": ["a"]}))
    await page.until(lambda page: page.answers)
    assert page.answers[1]["error"] == "requests are not allowed here"
    assert device.count("echo") == 0
    await gone(page)


@pytest.mark.gen_test
async def test_a_request(serve: Serve, connect: Connect, device: FakeDevice) -> None:
    client = connect()
    await client.wait_connected()
    page = await open_page(serve(handlers({"m000": client}, allow_requests=True)))
    asked = [("m000", "echo", ["a b", HOSTILE]), ("m000", "fail", []), ("m000", "no name", []), ("x", "help", [])]
    asked.append(("m000", "help", []))
    for number, (name, request, arguments) in enumerate(asked):
        frame = {"id": number, "device": name, "name": request, "arguments": arguments}
        page.connection.write_message(json.dumps(frame))
    await page.until(lambda page: len(page.answers) == len(asked))
    assert page.frames[0]["requests"] is True
    assert page.answers[0]["reply"] == ["ok", "a b", HOSTILE]
    assert page.answers[1]["reply"][0] == "fail"
    assert "ValueError" in page.answers[2]["error"]
    assert page.answers[3]["error"] == "there is no such device"
    assert "echo" in [inform[0] for inform in page.answers[4]["informs"]]
    await gone(page)


@pytest.mark.parametrize("frame", ["", "[", "[]", "1", '{"id": "a"}', '{"id": 1, "device": 1}', "[" * 50_000])
@pytest.mark.gen_test
async def test_frames_without_sense_end_the_page(serve: Serve, connect: Connect, frame: str) -> None:
    page = await open_page(serve(handlers({"m000": connect()}, allow_requests=True)))
    page.connection.write_message(frame)
    while await page.connection.read_message() is not None:
        pass
    assert page.connection.close_code == 1008
    page.connection.close()
    await gen.sleep(feed.LINGER + 1)


# Limits


@pytest.mark.gen_test
async def test_a_limit_of_pages(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_PAGES", 2)
    address = serve(handlers({"m000": connect()}))
    pages = [await (await open_page(address)).until(lambda page: page.devices) for _ in range(2)]
    with pytest.raises(HTTPClientError, match="503"):
        await open_page(address)
    await shut(pages[0])
    await gone(pages[1])


class SlowPage:
    """A page whose browser takes a frame only when it is told to."""

    def __init__(self, loop: IOLoop) -> None:
        self.loop = loop
        self.frames: list[dict[str, Any]] = []
        self.last: Any = None

    def send(self, frame: str) -> Any:
        assert self.last is None or self.last.done(), "a frame was sent before the last one had left"
        self.frames.append(json.loads(frame))
        self.last = self.loop.asyncio_loop.create_future()  # type: ignore[attr-defined]
        return self.last


@pytest.mark.gen_test
async def test_a_slow_browser_gets_the_latest(io_loop: IOLoop, connect: Connect, device: FakeDevice) -> None:
    for number in range(20):
        device.add_sensor(f"s{number}", "integer", 0)
    site, page = Site({"m000": connect()}), SlowPage(io_loop)
    site.feed.open(page)
    for count in range(1, 101):
        for number in range(20):
            device.set_sensor(f"s{number}", count)
        await gen.sleep(0.1)
    assert len(page.frames) == 1
    page.last.set_result(None)
    await gen.sleep(0.2)
    assert len(page.frames) == 2
    ((_, rows),) = page.frames[1]["sensors"]
    assert len(rows) == 20 and {row[3] for row in rows} == {100}
    site.feed.close(page)
    page.last.set_result(None)
    await gen.sleep(feed.LINGER + 1)


def has_more(count: int, page: PageClient) -> bool:
    return len(page.frames) > count


@pytest.mark.gen_test
async def test_a_page_hears_something_every_few_seconds(serve: Serve, connect: Connect, io_loop: IOLoop) -> None:
    """Otherwise it could not tell a quiet device from a dead link."""
    address = serve(handlers({"m000": connect()}))
    page = await open_page(address)
    await page.until(lambda page: page.devices)
    await gen.sleep(1)
    await page.until(lambda page: set(page.frames[-1]) == {"now"})
    for _ in range(3):
        before, count = io_loop.time(), len(page.frames)
        await page.until(partial(has_more, count))
        assert set(page.frames[-1]) == {"now"} and 4 < io_loop.time() - before < 8
    await gone(page)
