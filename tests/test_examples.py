"""The larger examples, each against devices that do what theirs would."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.util
import io
import json
import re
import runpy
import socket
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tornado import gen
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError
from tornado.tcpserver import TCPServer
from tornado.testing import bind_unused_port

from katcp_tornado import Backoff, Client, Device, FailReply, SensorStatus, Timestamp, WaitTimeout
from katcp_tornado.testing import Answer, Delay, Fail, FakeDevice

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
QUICK = Backoff(first=0.2, maximum=1.0)


def load(name: str) -> ModuleType:
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMES = ["ten_devices", "proxy", "fpga", "session", "addresses", "bridge", "attributes", "monitor"]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80


def code_lines(name: str) -> int:
    """The lines of an example that are neither empty, nor comments, nor docstrings."""
    source = (EXAMPLES / f"{name}.py").read_text()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines - {len(source.splitlines()) + 1})


def test_the_lines_are_as_the_page_says() -> None:
    page = (EXAMPLES.parent / "howto" / "examples.rst").read_text()
    rows = re.findall(r"``(\w+)\.py`` +\d+ +(\d+)", page)
    assert {name: int(count) for name, count in rows} == {name: code_lines(name) for name, _ in rows} and len(rows) == 6


# Ten devices


class Mode:
    """Gives a device ``?configure``, after which it is in that mode; a restart forgets it."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.is_warm = False
        device.add_sensor("mode", "string", "off")
        device.request("configure")(self.configure)

    def configure(self, context: Any, message: Any) -> None:
        if self.is_warm:
            raise Fail("too warm")
        self.device.set_sensor("mode", message.arguments[0])

    def restart(self) -> None:
        self.device.kill()
        self.device.set_sensor("mode", "off")


@pytest.fixture
def ten(io_loop: IOLoop) -> Iterator[dict[str, Mode]]:
    with contextlib.ExitStack() as stack:
        yield {f"m{number:03}": Mode(stack.enter_context(FakeDevice())) for number in range(10)}


@pytest.mark.gen_test
async def test_ten_devices(ten: dict[str, Mode], capsys: Any) -> None:
    controller = load("ten_devices").Controller({name: (one.device.host, one.device.port) for name, one in ten.items()})
    ten["m007"].is_warm = True
    ten["m008"].device.on_request("configure", Delay(3.0))
    assert await controller.configure(b"observe") == [name for name in ten if name != "m007"]
    assert capsys.readouterr().out == "m007 is not configured: too warm\n"

    for name in ("m001", "m002", "m003"):
        ten[name].restart()
    reply = await controller.group.wait("mode", b"observe", timeout=1, quorum=0.9)
    assert len(reply.replies) == 6 and not reply
    with pytest.raises(WaitTimeout, match="7 of 9 needed are connected; missing: m001"):
        await controller.configure(b"observe")
    ten["m007"].is_warm = False
    for name in ("m001", "m002", "m003"):
        ten[name].device.start()
    assert (await controller.group.wait("mode", b"observe", timeout=60, quorum=0.9)).check()
    assert capsys.readouterr().out.count("is back in mode") == 3
    assert await controller.configure(b"stow") == list(ten)
    await controller.close()


# The proxy


def free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


SENSORS: dict[str, tuple[Any, tuple[str, ...], Any]] = {
    "integer": (7, (), 7),
    "float": (-1.5, (), -1.5),
    "boolean": (True, (), True),
    "timestamp": (Timestamp(12.5), (), Timestamp(12.5)),
    "discrete": ("stand-by", ("busy", "stand-by"), "stand-by"),
    "address": ("10.0.0.1:7147", (), None),
    "string": (b"a text", (), b"a text"),
}


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_the_proxy(device: FakeDevice) -> None:
    pytest.importorskip("aiokatcp", reason="aiokatcp is not installed")
    for kind, (value, params, _) in SENSORS.items():
        device.add_sensor(f"a.{kind}", kind, value, "what it is", "V", params=params)
    katcp_port, web_port = free_port(), free_port()
    client, server, page = await load("proxy").start(device.host, device.port, katcp_port=katcp_port, web_port=web_port)
    async with client, Device("127.0.0.1", katcp_port, backoff=QUICK) as seen:
        await seen.synced(timeout=10)
        while len(seen.sensor) < len(SENSORS):
            await gen.sleep(0.05)
        for kind, (_, params, value) in SENSORS.items():
            sensor = seen.sensor[f"m000.a.{kind}"]
            reading = await sensor.wait(lambda reading: reading.status is SensorStatus.NOMINAL, timeout=10)
            assert (sensor.info.type_name, sensor.info.units, sensor.info.values) == (kind, "V", list(params))
            assert value is None or reading.value == value
        response = await AsyncHTTPClient(force_instance=True).fetch(f"http://127.0.0.1:{web_port}/")
        assert json.loads(response.body)["m000.a.discrete"]["value"] == "stand-by"

        device.set_sensor("a.float", 3.5, "error")
        reading = await seen.sensor.m000_a_float.wait(3.5, timeout=10)
        assert reading.status is SensorStatus.ERROR
        device.remove_sensor("a.string", notify=True)
        device.stop()
        gone = lambda reading: reading.status is SensorStatus.UNREACHABLE  # noqa: E731
        assert (await seen.sensor.m000_a_float.wait(gone, timeout=10)).value == 3.5
        device.start()
        await seen.sensor.m000_a_float.wait(3.5, timeout=10)
        while "m000.a.string" in seen.sensor:
            await gen.sleep(0.05)
    page.stop()
    await page.close_all_connections()
    await server.stop()


# The board


class Uploads(TCPServer):
    """The port on which a board takes a file."""

    def __init__(self) -> None:
        super().__init__()
        self.data: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle_stream(self, stream: IOStream, address: Any) -> None:
        chunks = []
        with contextlib.suppress(StreamClosedError):
            while True:
                chunks.append(await stream.read_bytes(65536, partial=True))
        self.data.set_result(b"".join(chunks))


@pytest.fixture
def board(device: FakeDevice) -> FakeDevice:
    registers = {"enable": 0, "counter": 41}
    files: dict[bytes, bytes] = {}

    @device.request("saveremote")
    async def saveremote(context: Any, message: Any) -> None:
        port, name = message.arguments
        if name == b"bad.fpg":
            raise Fail("no such place")
        await asyncio.sleep(0.3)  # the port opens some time after the request
        server = Uploads()
        server.listen(int(port), "127.0.0.1")
        files[name] = await server.data
        server.stop()

    @device.request("progdev")
    def progdev(context: Any, message: Any) -> None:
        if message.arguments[0] not in files:
            raise Fail("no such file")
        if files[message.arguments[0]] != b"broken":
            device.inform_all("fpga", "loaded")
            device.inform_all("fpga", "ready")

    @device.request("listdev")
    def listdev(context: Any, message: Any) -> list[int]:
        for name in registers:
            context.inform(name)
        return [len(registers)]

    @device.request("wordread")
    def wordread(context: Any, message: Any) -> list[str]:
        return [hex(registers[message.arguments[0].decode()])]

    @device.request("wordwrite")
    def wordwrite(context: Any, message: Any) -> None:
        registers[message.arguments[0].decode()] = int(message.arguments[2])

    return device


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_the_board(board: FakeDevice) -> None:
    one, port = load("fpga").Board(board.host, board.port), free_port()
    async with one.client as client:
        await client.wait_connected(timeout=10)
        image = bytes(range(256)) * 1000
        await one.upload("design.fpg", image, port=port)
        await one.program("design.fpg", timeout=5)
        assert await one.registers() == ["enable", "counter"]
        await one.write({"enable": 1})
        assert await one.read(["enable", "counter"]) == {"enable": 1, "counter": 41}
        with pytest.raises(FailReply, match="no such place"):
            await one.upload("bad.fpg", b"", port=port)
        with pytest.raises(FailReply, match="no such file"):
            await one.program("other.fpg")
        await one.upload("broken.fpg", b"broken", port=port)
        with pytest.raises(RuntimeError, match="broken.fpg was loaded, and the FPGA is not ready"):
            await one.program("broken.fpg", timeout=0.3)


# The session


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_the_session(device: FakeDevice, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    device.add_sensor("attenuation", "float", 1.0, "of the receiver", "dB")

    @device.request("set-attenuation")
    def set_attenuation(context: Any, message: Any) -> None:
        device.set_sensor("attenuation", float(message.arguments[0]))

    def work() -> Any:
        session = runpy.run_path(str(EXAMPLES / "session.py"))
        try:
            session["show"]("/atten/")
            return session["settle"]("attenuation", 12.5).value
        finally:
            session["device"].close()

    monkeypatch.setattr(sys, "argv", ["session.py", device.host, str(device.port)])
    assert await IOLoop.current().run_in_executor(None, work) == 12.5
    said = capsys.readouterr().out
    assert "1 sensors" in said and "of the receiver" in said and "nominal" in said


# What looks on


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_the_bridge(device: FakeDevice) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    device.add_sensor("rx.heaps", "integer", 5, description="prometheus: counter")
    port = free_port()
    client, server = load("bridge").start(device.host, device.port, listen=port)
    async with client:
        fetch = AsyncHTTPClient(force_instance=True).fetch
        text = ""
        while "katcp_heaps_total" not in text:
            text = (await fetch(f"http://127.0.0.1:{port}/metrics")).body.decode()
            await gen.sleep(0.02)
        assert 'katcp_heaps_total{device="127.0.0.1",service="rx"} 5.0' in text
    server.stop()
    await server.close_all_connections()


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_attributes_from_a_thread(device: FakeDevice) -> None:
    device.add_sensor("temperature", "float", 21.5)
    device.add_sensor("broken", "float", 0.0, status="failure")

    def work() -> list[Any]:
        attributes = load("attributes").Attributes(device.host, device.port)
        try:
            names = attributes.names()
            value, seconds, quality = attributes.read("temperature")
            return [names, value, seconds > 1e9, quality, attributes.read("broken")[2], attributes.command("echo", "x")]
        finally:
            attributes.close()

    found = await IOLoop.current().run_in_executor(None, work)
    assert found == [["broken", "temperature"], 21.5, True, "VALID", "INVALID", [b"x"]]


@pytest.mark.gen_test
async def test_the_monitor(device: FakeDevice, capsys: Any) -> None:
    device.add_sensor("temperature", "float", 21.5)
    async with Client(device.host, device.port, backoff=QUICK) as client:
        await load("monitor").Monitor(client).synced(timeout=10)
        device.set_sensor("temperature", 22.5)
        await gen.sleep(1)
        device.drop_all()
        await gen.sleep(5)
    said = [line.partition("127.0.0.1 ")[2] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in said if line.startswith("temp")][:3] == [
        "temperature nominal 21.5",
        "temperature nominal 22.5",
        "temperature unreachable None",
    ]
    assert "is synced: all is well" in said and any(line.startswith("is disconnected: the device") for line in said)


# Addresses


@pytest.mark.gen_test
async def test_a_device_that_moves(io_loop: IOLoop, device: FakeDevice, tmp_path: Path) -> None:
    example = load("addresses")
    file = tmp_path / "addresses.json"
    file.write_text(json.dumps({"m000": [[device.host, device.port]]}))
    resolver = example.Addresses(addresses=example.in_file(file, "m000"))
    device.add_sensor("temperature", "integer", 5)
    heard: list[tuple[str, Any]] = []
    async with Client("m000", 7147, resolver=resolver, backoff=QUICK) as client:
        subscription = client.subscribe(
            "temperature", lambda reading: heard.append((reading.status.name, reading.value))
        )
        await subscription.synced(timeout=10)
        with FakeDevice() as other:
            other.add_sensor("temperature", "integer", 6)
            device.stop()
            await client.wait_disconnected(timeout=10)
            await gen.sleep(10)
            assert heard == [("NOMINAL", 5), ("UNREACHABLE", None)] and not client.is_connected
            file.write_text(json.dumps({"m000": [[device.host, device.port], [other.host, other.port]]}))
            await subscription.synced(timeout=10)
            assert heard[2:] == [("NOMINAL", 6)], "the first that takes a connection"
            file.write_text(json.dumps({"m000": []}))
            other.drop_all()
            await gen.sleep(10)
            assert str(client.last_exc) == "no address of m000 is known" and heard[-1] == ("UNREACHABLE", None)
            file.unlink()
            await gen.sleep(10)
            assert type(client.last_exc) is FileNotFoundError


# The cookbook


@pytest.mark.gen_test
async def test_a_handler_with_live_values(device: FakeDevice, connect: Any, io_loop: IOLoop) -> None:
    device.add_sensor("temperature", "float", 21.5)
    client = connect()
    sock, port = bind_unused_port()
    server = HTTPServer(load("web_handler").make_application(client))
    server.add_socket(sock)
    asked = AsyncHTTPClient(force_instance=True)
    url = f"http://127.0.0.1:{port}/temperature"
    try:
        await client.wait_connected()
        await gen.sleep(0.1)
        answer = await asked.fetch(url)
        assert json.loads(answer.body)["value"] == 21.5
        device.stop()
        await client.wait_disconnected()
        answer = await asked.fetch(url, raise_error=False)
        assert (answer.code, json.loads(answer.body)["status"]) == (503, "unreachable")
    finally:
        server.stop()
        await server.close_all_connections()


@pytest.mark.gen_test
async def test_a_controller(device: FakeDevice, connect: Any, caplog: pytest.LogCaptureFixture) -> None:
    switched: list[bytes] = []
    device.request("cooler")(lambda context, message: switched.append(message.arguments[0]))
    device.add_sensor("temperature", "float", 20.0)
    client = connect()
    load("controller").Cooler(client, on_above=25.0, off_below=15.0)
    await client.wait_connected()
    for value, wanted in ((24.0, []), (26.0, [b"1"]), (27.0, [b"1"]), (20.0, [b"1"]), (14.0, [b"1", b"0"])):
        device.set_sensor("temperature", value)
        await gen.sleep(0.1)
        assert switched == wanted
    device.on_request("cooler", Answer("fail", "jammed"))
    device.set_sensor("temperature", 26.0)
    await gen.sleep(0.1)
    assert "does not switch its cooler: jammed" in caplog.text
    device.set_sensor("temperature", 27.0)
    await gen.sleep(0.1)
    assert switched == [b"1", b"0", b"1", b"1"], "the next reading tries again"
