"""What README.md and the documentation say is so: their programs run, their commands and drawings are right."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import katcp_tornado
import katcp_tornado.testing
from katcp_tornado import Client
from katcp_tornado.states import TRANSITIONS, State

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.rst"))}
PATIENCE = 20.0


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
    assert len(programs) == 2
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
    seen = []
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


def test_the_tutorial_s_test() -> None:
    source = example("test_follow.py")
    namespace: dict[str, object] = {}
    exec(compile(source, "test_follow.py", "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 1
    for test in tests:
        assert callable(test)
        test()


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
    assert "py{39,310,311,312,313}-tornado{oldest,newest}" in tox
    for name in ("lint", "types", "docs"):
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


@pytest.mark.parametrize("module", [katcp_tornado, katcp_tornado.testing], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    documented = set()
    for name, text in PAGES.items():
        if name.startswith("reference/"):
            documented |= set(re.findall(r"^\.\. (?:auto)?(?:class|exception|function):: (\w+)", text, re.MULTILINE))
    assert set(module.__all__) <= documented


def test_every_module_stands_in_the_architecture() -> None:
    package = Path(katcp_tornado.__file__).parent
    units = {path.stem for path in package.glob("*.py")} | {path.parent.name for path in package.glob("*/__init__.py")}
    page = PAGES["explanation/architecture.rst"]
    missing = {unit for unit in units - {"__init__"} if not re.search(rf"^   (\S.*)?  +{unit}  ", page, re.MULTILINE)}
    assert not missing


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
    for name in set(re.findall(r"\bclient\.(\w+)", text)) - {"pem"}:
        assert hasattr(Client, name), name
    options = Client.__init__.__kwdefaults__ or {}
    for option in set(re.findall(r"``(\w+)=``", text)):
        assert option in options or option in {"timeout", "wait_connected", "on_inform"}, option


def test_no_page_is_lost() -> None:
    listed = {"index.rst"}
    for name, text in PAGES.items():
        folder = Path(name).parent
        for entry in re.findall(r"^   ([\w/-]+)$", text, re.MULTILINE):
            listed.add((folder / f"{entry}.rst").as_posix())
    assert set(PAGES) <= listed
