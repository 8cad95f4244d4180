"""A command in a pseudo-terminal, and the device that it talks to, a process of its own."""

from __future__ import annotations

import io
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Callable, Optional

import pyte
import pytest

pexpect = pytest.importorskip("pexpect", reason="pexpect is not installed")

#: Serves on the port that is given, after the kind of device, until it is killed.
DEVICE = """
import asyncio, sys
kind, port = sys.argv[1], int(sys.argv[2])

async def fake():
    from katcp_tornado.testing import FakeDevice
    device = FakeDevice("4" if kind == "v4" else "5.1-MIB", port=port)
    device.add_sensor("temperature", "float", 21.5, "of the receiver", "degC")
    if kind == "receiver":
        device.add_sensor("attenuation", "float", 3.0, "of the first stage", "dB")
        device.add_sensor("lo.frequency", "float", 1.42e9, "of the local oscillator", "Hz")
        device.add_sensor("lo.locked", "boolean", True, "the oscillator follows its reference")
        device.add_sensor("mode", "discrete", "observe", "what it does", params=["off", "observe"])
        device.set_sensor("attenuation", 31.5, "warn")
        device.start()
        await asyncio.sleep(1e6)
    device.add_sensor("odd", "string", "[bold]\\x1b[31mred\\x07")
    device.start()
    number = 0
    while True:
        await asyncio.sleep(0.1)
        number += 1
        device.log("warn", "tick %d" % number)

async def aio():
    import aiokatcp
    class Server(aiokatcp.DeviceServer):
        VERSION, BUILD_STATE = "test-1.0", "test-1.0.0"
        async def request_wait_for_ever(self, ctx) -> None:
            "Never answer."
            await asyncio.sleep(1e6)
    server = Server("127.0.0.1", port)
    server.sensors.add(aiokatcp.Sensor(float, "temperature", "of the receiver", "degC",
        default=21.5, initial_status=aiokatcp.Sensor.Status.NOMINAL))
    await server.start()
    await asyncio.sleep(1e6)

asyncio.run(aio() if kind == "aiokatcp" else fake())
"""

COMMAND = "from katcp_tornado.cli import main; main()"
PATIENCE = 60.0


def until(condition: Callable[[], object], why: Callable[[], str], turn: Callable[[], object]) -> None:
    """Wait for a condition; *turn* lets the world go on."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(why())
        turn()


class DeviceProcess:
    """A device in a process of its own, always on the same port."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self._process: Optional[subprocess.Popen[bytes]] = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", DEVICE, self.kind, str(self.port)])

        def serves() -> bool:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except OSError:
                return False
            return True

        until(serves, lambda: "the device does not serve", lambda: time.sleep(0.02))

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> DeviceProcess:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.kill()


def _colour(name: str) -> Optional[str]:
    """A colour of pyte, as rich names it."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return {"brown": "yellow", "brightbrown": "bright_yellow"}.get(name, name.replace("bright", "bright_"))


def _look(cell: Any) -> tuple[str, str, bool, bool]:
    return cell.fg, cell.bg, cell.bold, cell.reverse


class _Screen(pyte.HistoryScreen):
    """A screen that answers what it is asked, such as where the cursor is."""

    answer: Callable[[str], object]

    def write_process_input(self, data: str) -> None:
        self.answer(data)


class Terminal:
    """``katcp-tornado`` with these arguments in a pseudo-terminal, and what stands on its screen.

    :arg home: the folder of the user's files.
    """

    def __init__(self, home: Any, *args: str, columns: int = 80, lines: int = 24, **environment: str) -> None:
        self._screen = _Screen(columns, lines, history=2000, ratio=1.0)
        self._stream = pyte.ByteStream(self._screen)
        wanted = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "PYTHONPATH": ":".join(path for path in sys.path if path),
            "HOME": str(home),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            **environment,
        }
        command = ["-W", "error", "-c", COMMAND, *args]
        self.child = pexpect.spawn(
            sys.executable, command, env=wanted, dimensions=(lines, columns), timeout=PATIENCE, echo=True
        )
        self._screen.answer = self.child.send
        self.received = b""
        self.modes = self._modes()

    def _modes(self) -> Any:
        import termios

        return termios.tcgetattr(self.child.child_fd)

    @property
    def sane(self) -> bool:
        """True if the terminal is as it was found: its modes, the cursor, the ordinary screen."""
        hidden = self.received.rfind(b"\x1b[?25l") > self.received.rfind(b"\x1b[?25h")
        alternate = self.received.rfind(b"\x1b[?1049h") > self.received.rfind(b"\x1b[?1049l")
        return bool(self._modes() == self.modes and not hidden and not alternate)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, those that have scrolled away included."""
        width = self._screen.columns
        gone = ["".join(row[at].data for at in range(width)).rstrip() for row in self._screen.history.top]
        return [*gone, *(line.rstrip() for line in self._screen.display)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def svg(self, title: str) -> str:
        """A picture of the screen."""
        from rich import console
        from rich.style import Style
        from rich.text import Text

        lines = Text()
        used = max(at for at, line in enumerate(self._screen.display) if line.strip()) + 1
        for at in range(used):
            cells = [self._screen.buffer[at][column] for column in range(self._screen.columns)]
            for (fg, bg, bold, reverse), run in itertools.groupby(cells, _look):
                style = Style(color=_colour(fg), bgcolor=_colour(bg), bold=bold or None, reverse=reverse or None)
                lines.append("".join(cell.data for cell in run), style)
            lines.append("\n" if at + 1 < used else "")
        drawn = console.Console(record=True, width=self._screen.columns, file=io.StringIO(), force_terminal=True)
        drawn.print(lines)
        template: str = vars(console)["CONSOLE_SVG_FORMAT"]
        without_fonts = re.sub(r"@font-face \{\{.*?\}\}", "", template, flags=re.DOTALL)
        return drawn.export_svg(title=title, code_format=without_fonts, unique_id=re.sub(r"\W+", "-", title))

    def read(self) -> None:
        """Take what the command has written."""
        try:
            data = self.child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            time.sleep(0.05)
            return
        self.received += data
        self._stream.feed(data)

    def until(self, text: str, count: int = 1) -> None:
        """Wait until a text stands on the screen, so many times."""
        until(lambda: self.text.count(text) >= count, lambda: f"no {text!r} in:\n{self.text}", self.read)

    def enter(self, text: str) -> None:
        """Type something."""
        self.child.send(text)

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        self.child.kill(number)

    def ended(self) -> Optional[int]:
        """Wait for the end; the exit code."""
        until(lambda: not self.child.isalive(), lambda: f"it does not end:\n{self.text}", self.read)
        self.read()
        code: Optional[int] = self.child.exitstatus
        return code

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], exc: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.child.close(force=True)
