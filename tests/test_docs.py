"""What README.md and the documentation say is so: their programs run, their commands and drawings are right."""

from __future__ import annotations

import ast
import contextlib
import enum
import importlib.util
import inspect
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tornado import gen
from tornado.ioloop import IOLoop

import katcp_tornado
import katcp_tornado.blocking
import katcp_tornado.testing
from katcp_tornado import Backoff, Client, Message, SyncState
from katcp_tornado.connection.states import TRANSITIONS, State
from katcp_tornado.testing import Banner, Fail, FakeDevice, RequestContext, VirtualTimeLoop

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.rst"))}
PATIENCE = 20.0
#: Of methods, not of a client.
#: Names of a BlockingClient that a Client does not have, and words that look like one.
BLOCKING = {"pem", "py", "client", "call", "submit", "expect_inform", "mirror"}
ARGUMENTS = {"timeout", "wait_connected", "on_inform", "strategy", "params", "type", "filter", "rename"}


def fenced(language: str) -> list[str]:
    """The blocks of README.md in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def indented(text: str) -> list[str]:
    """The blocks of Python in a page."""
    blocks = re.findall(r"^\.\. code-block:: python\n((?:\n|   .*\n)+)", text + "\n", re.MULTILINE)
    return [re.sub(r"^ {3}", "", block, flags=re.MULTILINE) for block in blocks]


# Programs


class Player:
    """A device that knows nothing but bytes: it greets, and answers each ``?help[n]`` as written here."""

    GREETING = b"#version-connect katcp-protocol 5.1-MIB\n#version-connect katcp-device player-1.0 player-1.0.0\n"
    HELP = b"#help[%(n)b] help List\\_the\\_requests.\n#help[%(n)b] stow Stow\\_it.\n!help[%(n)b] ok 2\n"

    def __init__(self) -> None:
        self.received = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(PATIENCE)
                sock.sendall(self.GREETING)
                while data := sock.recv(4096):
                    self.received += data
                    for number in re.findall(rb"\?help\[(\d+)\]\n", data):
                        sock.sendall(self.HELP % {b"n": number})

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)


def start(source: str, port: int) -> subprocess.Popen[str]:
    """Run a program of the documentation, with another port."""
    assert "7147" in source
    path = os.pathsep.join([str(Path(katcp_tornado.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", source.replace("7147", str(port))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
    )


@contextlib.contextmanager
def running(source: str, port: int) -> Iterator[subprocess.Popen[str]]:
    process = start(source, port)
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
            return
        assert time.monotonic() < deadline, "nobody listens"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [0, 1], ids=["gen.coroutine", "async"])
def test_the_programs_of_the_readme(number: int) -> None:
    programs = fenced("python")
    assert len(programs) == 3
    assert ("@gen.coroutine" in programs[0]) and ("async def" in programs[1])
    player = Player()
    try:
        process = start(programs[number], player.port)
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    finally:
        player.close()
    assert errors == ""
    assert output == "2 requests:\nhelp - List the requests.\nstow - Stow it.\n"
    assert process.returncode == 0
    assert player.received == b"?help[1]\n"


def example(name: str) -> str:
    return (EXAMPLES / name).read_text(encoding="utf-8")


def stop(process: subprocess.Popen[str]) -> str:
    """Ctrl-C. Returns what it has said on its standard error."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    return errors


def lines_until(process: subprocess.Popen[str], *beginnings: str) -> list[str]:
    """Read lines until each of these beginnings was seen, in this order."""
    assert process.stdout is not None
    seen: list[Any] = []
    for beginning in beginnings:
        while True:
            line = process.stdout.readline()
            assert line, f"{beginning!r} has not come after {seen}"
            seen.append(line)
            if line.startswith(beginning):
                break
    return seen


def test_the_tutorial() -> None:
    port = free_port()
    with running(example("device.py"), port) as device:
        wait_for_port(port)
        with running(example("ask.py"), port) as ask:
            output, errors = ask.communicate(timeout=PATIENCE)
        assert (errors, ask.returncode) == ("", 0)
        assert output.splitlines() == [
            "attenuation is 12.5 dB",
            "the device says no: 0 to 30 dB, please",
        ]
        with running(example("follow.py"), port) as follow:
            lines_until(follow, "connected: 5.1-BIM", "temperature")
            assert stop(device) == ""
            lines_until(follow, "lost:", "not yet: [Errno")
            with running(example("device.py"), port) as again:
                lines_until(follow, "connected: 5.1-BIM", "temperature")
                errors = stop(follow)
                assert "the link was lost: DeviceDisconnected" in errors  # the library's own warning
                assert "Traceback" not in errors
                assert stop(again) == ""


def test_the_sensor_of_the_readme() -> None:
    port = free_port()
    with running(example("device.py"), port) as device:
        wait_for_port(port)
        with running(fenced("python")[2], port) as program:
            (said,) = fenced("text")[:1]
            expected = [re.sub(r"[\d.]+$", "", line) for line in said.splitlines()]
            assert expected == ["temperature NOMINAL "] * 2 + ["temperature UNREACHABLE None", "temperature NOMINAL "]
            lines_until(program, *expected[:2])
            assert stop(device) == ""
            lines_until(program, expected[2])
            with running(example("device.py"), port) as again:
                lines_until(program, expected[3])
                stop(program)
                assert stop(again) == ""


def test_the_tutorial_s_test() -> None:
    source = example("test_follow.py")
    namespace: dict[str, object] = {}
    exec(compile(source, "test_follow.py", "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 1
    for test in tests:
        assert callable(test)
        test()


# Pages whose code runs, from the top to the bottom


class Awaiting(ast.NodeTransformer):
    """What stands outside of functions is awaited, where the page has ``yield``."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    def visit_Yield(self, node: ast.Yield) -> ast.AST:
        assert node.value is not None
        return ast.copy_location(ast.Await(node.value), node)


class Story:
    """The blocks of a page, one after the other, in one namespace."""

    def __init__(self, page: str, port: int = 7147, **names: object) -> None:
        text = PAGES[page].replace("7147", str(port)) + "\n"
        blocks = re.findall(r"^\.\. code-block:: (python|text)\n((?:\n|   .*\n)+)", text, re.MULTILINE)
        self._blocks = [(language, textwrap.dedent(block).strip("\n")) for language, block in blocks]
        self._said: list[str] = []
        self.names: dict[str, Any] = {**vars(katcp_tornado), **names, "print": self._print}

    def _print(self, *values: object) -> None:
        self._said.append(" ".join(map(str, values)).rstrip())

    async def run(self, beginning: str) -> None:
        """Run the next block, which is Python."""
        language, text = self._blocks.pop(0)
        assert (language, text[: len(beginning)]) == ("python", beginning)
        tree = ast.fix_missing_locations(Awaiting().visit(ast.parse(text)))
        code = compile(tree, beginning, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, self.names)
        if inspect.isawaitable(result):
            await result

    def read(self, beginning: str) -> None:
        """The next block does not run: it is there to be read."""
        _, text = self._blocks.pop(0)
        assert text.startswith(beginning)

    def take(self) -> list[str]:
        """What was printed since the last time."""
        said, self._said = self._said, []
        return said

    def said(self) -> None:
        """It is the next block."""
        language, text = self._blocks.pop(0)
        assert (language, [line.rstrip() for line in text.splitlines()]) == ("text", self.take())

    def over(self) -> None:
        """There is nothing more on the page."""
        assert self._blocks == []


@pytest.fixture
def receiver(io_loop: IOLoop) -> Iterator[FakeDevice]:
    """The device of the pages about sensors."""
    with FakeDevice() as device:
        yield device


@pytest.fixture
def client(receiver: FakeDevice) -> Iterator[Client]:
    with Client(receiver.host, receiver.port, backoff=Backoff(first=0.2, maximum=1.0)) as client:
        yield client


@pytest.mark.gen_test
async def test_follow_a_sensor(receiver: FakeDevice, client: Client, io_loop: VirtualTimeLoop) -> None:
    receiver.add_sensor("temperature", "float", 21.5, "of the amplifier", "degC")
    receiver.add_sensor("attenuation", "float", 3.0, "of the input", "dB")
    receiver.add_sensor("azimuth", "float", 10.0, "of the antenna", "deg")
    receiver.add_sensor("mode", "discrete", "standby", params=["standby", "point-and-track"])
    page = Story("howto/sensors.rst", client=client, enum=enum)

    def sampled(name: str) -> tuple[str, list[bytes]]:
        sampler = receiver.connections[0].samplers[name]
        return sampler.strategy, sampler.arguments

    await page.run("def on_reading")
    await page.names["subscription"].synced()
    receiver.set_sensor("temperature", 36.0, "warn")
    await io_loop.idle()
    receiver.kill()
    await client.wait_disconnected()
    receiver.set_sensor("temperature", 19.0)
    receiver.start()
    await page.names["subscription"].synced()
    page.said()
    await page.run("reading = subscription")
    assert page.take() == ["19.0 degC at 1600000000.0"]
    page.names["subscription"].cancel()

    await page.run("subscription = client.subscribe([")
    page.said()
    assert receiver.connections[0].samplers.keys() == {"temperature", "attenuation"}
    receiver.add_sensor("azmiuth", "float", 0.0)
    await gen.sleep(2.0)  # it is tried again
    assert page.names["subscription"].is_synced

    await page.run('client.subscribe("azimuth"')
    await gen.sleep(0.1)
    assert sampled("azimuth") == ("period", [b"0.5"])
    assert sampled("temperature") == ("event-rate", [b"1", b"60"])

    await page.run("class Mode")
    await page.names["mode"].synced()
    page.take()
    receiver.set_sensor("mode", "point-and-track")
    await io_loop.idle()
    assert page.take() == ["on source"]

    await page.run("slow = ")
    await gen.sleep(0.1)
    assert sampled("azimuth") == ("period", [b"10"])

    page.take()
    await page.run("temperature = yield")
    assert page.take()[-1] == "19.0 NOMINAL POINT_AND_TRACK"
    page.over()


@pytest.mark.gen_test
async def test_the_log_of_the_device(receiver: FakeDevice, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="devices")
    page = Story("howto/logging.rst", client=client, logging=logging)
    page.read("INFO    receiver:7147: connected")
    page.read('logging.getLogger("katcp_tornado")')
    await client.wait_connected()
    await page.run("forward_logs")
    receiver.log("warn", "getting warm", "amplifier")
    receiver.log("debug", "not asked for", "amplifier")
    await client.request("watchdog")
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
    formatter.converter = time.gmtime
    for record in caplog.records:
        if record.name.startswith("devices"):
            page.names["print"](formatter.format(record))
    page.said()
    page.over()


class Database:
    def __init__(self) -> None:
        self.pieces: list[list[tuple[object, ...]]] = []

    def insert(self, rows: list[tuple[object, ...]]) -> None:
        self.pieces.append(rows)


@pytest.mark.gen_test
async def test_mirror_a_device(receiver: FakeDevice, client: Client, io_loop: VirtualTimeLoop) -> None:
    receiver.add_sensor("receiver.temperature", "float", 21.5, "of the amplifier", "degC")
    receiver.add_sensor("receiver.serial-number", "string", "17")
    receiver.add_sensor("receiver.mode", "discrete", "standby", params=["standby", "point-and-track"])
    receiver.add_sensor("servo.azimuth", "float", 10.0, "of the antenna", "deg")

    @receiver.request("point")
    def point(context: RequestContext, message: Message) -> None:
        receiver.set_sensor("receiver.mode", "point-and-track")
        io_loop.call_later(20, receiver.set_sensor, "servo.azimuth", 90.0)

    database = Database()
    page = Story("howto/mirror.rst", client=client, database=database)
    await page.run("watcher = ")
    page.said()
    await page.run("receiver = ")
    page.said()

    await page.run("class Recorder")
    recorder = page.names["recorder"]
    await recorder.synced()
    said = page.take()
    assert said[-1] == "the mirror is SYNCED"
    assert sorted(line for line in said if line.startswith("new:")) == [
        "new: receiver.mode",
        "new: receiver.serial-number",
        "new: receiver.temperature degC",
        "new: servo.azimuth deg",
    ]
    assert sum(map(len, database.pieces)) == 4
    database.pieces.clear()
    receiver.remove_sensor("receiver.serial-number", notify=True)
    await gen.sleep(0.1)
    assert page.take() == ["the mirror is SYNCING", "gone: receiver.serial-number", "the mirror is SYNCED"]
    receiver.drop_all()
    await client.wait_disconnected()
    (piece,) = database.pieces
    assert {row[1:] for row in piece} == {(name, "UNREACHABLE", None) for name in recorder.sensors}
    await recorder.synced()
    assert page.take() == ["the mirror is DISCONNECTED", "the mirror is SYNCING", "the mirror is SYNCED"]

    await page.run("yield client.request")
    assert page.take() == ["there, at 90.0"]
    page.over()

    client.remove_sensor_watcher(recorder)
    client.remove_sensor_watcher(page.names["watcher"])
    assert recorder.state is SyncState.DISCONNECTED and not recorder.sensors
    await gen.sleep(0.1)
    assert receiver.connections[0].samplers.keys() == {"receiver.temperature"}  # for the third one


def add_board_requests(board: FakeDevice) -> None:
    """What boards do differently: sensors by prefixes, and no reading when a strategy is set."""

    @board.request("sensor-list")
    def sensor_list(context: RequestContext, message: Message) -> tuple[int]:
        chosen = [name for name in sorted(board.sensors) if name.encode().startswith(b"".join(message.arguments))]
        for name in chosen:
            context.inform(*board.sensors[name].description_arguments())
        return (len(chosen),)

    @board.request("sensor-value")
    def sensor_value(context: RequestContext, message: Message) -> tuple[int]:
        chosen = [name for name in sorted(board.sensors) if name.encode().startswith(b"".join(message.arguments))]
        for name in chosen:
            context.inform(*board.sensors[name].reading_arguments(4))
        return (len(chosen),)

    @board.request("sensor-sampling")
    def sensor_sampling(context: RequestContext, message: Message) -> list[bytes]:
        return message.arguments

    @board.request("set-start")
    def set_start(context: RequestContext, message: Message) -> list[bytes]:
        return message.arguments


@pytest.mark.gen_test
async def test_talk_to_a_v4_board(io_loop: VirtualTimeLoop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="boards")
    with FakeDevice("4") as board:
        board.add_sensor("fpga.temperature", "float", 41.0)
        board.add_sensor("fpga.temperature.raw", "integer", 1234)
        add_board_requests(board)

        @board.request("progdev")
        async def progdev(context: RequestContext, message: Message) -> None:
            await gen.sleep(15)
            if message.arguments == [b"no-such-file.bof"]:
                board.log("error", "no such file", "borph")
                raise Fail

        board.script(Banner("#version roach-1.2", "#build-state roach-1.2.0"))
        page = Story("howto/v4.rst", port=board.port, host=board.host, logging=logging)
        await page.run("client = ")
        client = page.names["client"]
        with client:
            page.said()
            await page.run("reading = ")
            page.said()
            assert [str(message) for _, message in board.received] == [
                "?sensor-value fpga.temperature",
                "?sensor-list fpga.temperature",
                "?sensor-list fpga.temperature",
                "?sensor-sampling fpga.temperature period 2500",
                "?sensor-value fpga.temperature",
                "?set-start 1600000060000",
            ]
            assert page.names["reading"].value == 41.0
            assert page.names["subscription"].readings["fpga.temperature"].value == 41.0

            await page.run("yield client.request")
            await page.run("forward_logs")
            page.said()
            page.over()
    (record,) = (record for record in caplog.records if record.name.startswith("boards"))
    assert (record.name, record.levelname, record.message) == ("boards.roach.borph", "ERROR", "no such file")
    assert record.created == 1600000030.0


# Commands


def test_the_commands_of_the_readme() -> None:
    demo, tests = fenced("sh")
    for command in (demo, tests):
        assert command.count("\n") == 1, "one line, to be copied"
    assert demo.strip() == (
        'python3 -m venv .venv-demo && .venv-demo/bin/pip install -q ".[cli]" && .venv-demo/bin/katcp-tornado demo'
    )
    ci = ROOT / ".ci" / "run"
    assert tests.strip() in ci.read_text(encoding="utf-8").splitlines()


def test_environments_that_the_readme_names() -> None:
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    for tornado in ("oldest", "newest"):
        assert f"    py{{39,310,311,312,313,314}}-tornado{tornado}\n" in tox
    for name in ("slow-{oldest,newest}python", "peers", "lint", "types", "docs"):
        assert f"[testenv:{name}]" in tox


# Drawings and lists


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drawing", DOCS / "_ext" / "drawing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["drawing"] = module  # NamedTuple looks there
    spec.loader.exec_module(module)
    return module


def words(element: ET.Element) -> str:
    return " ".join(text.text or "" for text in element.iter("{http://www.w3.org/2000/svg}text"))


def test_the_drawing_has_every_state_and_every_arrow() -> None:
    svg = ET.fromstring(drawing().draw())
    said = words(svg)
    for state in State:
        assert said.split().count(state.name) == 1
    arrows = {path.get("id") for path in svg.iter("{http://www.w3.org/2000/svg}path")} - {None}
    assert arrows == {f"{old.value}-{new.value}" for old, row in TRANSITIONS.items() for new in row}
    for row in TRANSITIONS.values():
        for why in row.values():
            assert said.count(why) >= sum(list(row.values()).count(why) for row in TRANSITIONS.values())


def test_the_drawing_has_no_place_for_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    module = drawing()
    table = {**TRANSITIONS, State.CLOSED: {State.SLEEPING: "a miracle"}}
    monkeypatch.setattr(module, "TRANSITIONS", table)
    with pytest.raises(ValueError, match="no place"):
        module.draw()


def text_boxes(svg: ET.Element) -> Iterator[tuple[float, float, float, float, str]]:
    """About where the words stand: left, top, right, bottom."""
    for text in svg.iter("{http://www.w3.org/2000/svg}text"):
        x, y, width = float(text.get("x", 0)), float(text.get("y", 0)), len(text.text or "") * 7.0
        left = x if text.get("class") == "beside" else x - width / 2
        yield left, y - 11, left + width, y + 3, text.text or ""


def test_the_words_of_the_drawing_do_not_overlap() -> None:
    boxes = list(text_boxes(ET.fromstring(drawing().draw())))
    for number, (left, top, right, bottom, text) in enumerate(boxes):
        for left2, top2, right2, bottom2, text2 in boxes[:number]:
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, f"{text!r} and {text2!r}"


@pytest.mark.parametrize(
    "module", [katcp_tornado, katcp_tornado.blocking, katcp_tornado.testing], ids=lambda module: module.__name__
)
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    documented = set()
    for name, text in PAGES.items():
        if name.startswith("reference/"):
            documented |= set(re.findall(r"^\.\. (?:auto)?(?:class|exception|function):: (\w+)", text, re.MULTILINE))
    assert set(module.__all__) <= documented


@pytest.mark.parametrize("name", sorted(PAGES))
def test_code_fits_its_box(name: str) -> None:
    blocks = re.findall(r"^\.\. code-block:: \w+\n((?:\n|   .*\n)+)", PAGES[name], re.MULTILINE)
    included = re.findall(r"^\.\. literalinclude:: examples/(\S+)", PAGES[name], re.MULTILINE)
    for line in [line[3:] for block in blocks for line in block.splitlines()] + [
        line for file in included for line in example(file).splitlines()
    ]:
        assert len(line) <= 88, line


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_python_of_a_page_is_python(name: str) -> None:
    for block in indented(PAGES[name]):
        ast.parse(block)


def test_what_the_pages_say_of_a_client_exists() -> None:
    text = "\n".join([README, *PAGES.values(), *(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py"))])
    for name in set(re.findall(r"\bclient\.(\w+)", text)) - BLOCKING:  # those of a BlockingClient, too
        assert hasattr(Client, name), name
    options = inspect.signature(Client).parameters
    for option in set(re.findall(r"``(\w+)=``", text)):
        assert option in options or option in ARGUMENTS, option


def test_no_page_is_lost() -> None:
    listed = {"index.rst"}
    for name, text in PAGES.items():
        folder = Path(name).parent
        for entry in re.findall(r"^   ([\w/-]+)$", text, re.MULTILINE):
            listed.add((folder / f"{entry}.rst").as_posix())
    assert set(PAGES) <= listed
