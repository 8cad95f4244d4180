"""katcp-tornado demo: a client loses its device, which is really killed, and finds it again."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from rich import console

from katcp_tornado import Backoff
from katcp_tornado.cli import demo
from katcp_tornado.cli.demo import demonstrate
from katcp_tornado.cli.terminal import ExitCode

STORY = r"""A KATCP client that keeps its connection
device       listens on 127\.0\.0\.1:\d+, in a process of its own
client       client\.subscribe\("temperature", on_reading\)
connected    the device speaks KATCP 5\.1-BIM
temperature  2\d\.\d degC  NOMINAL
temperature  2\d\.\d degC  NOMINAL
temperature  2\d\.\d degC  NOMINAL
request      client\.request\("add", 40, 2\): 42
kill -9      the device's process
temperature  UNREACHABLE
lost         .*; next attempt in \d\.\d s
request      client\.request\("add", 1, 2\): NotConnected
attempt      number 2: ConnectionRefusedError; next in \d\.\d s
attempt      number 3: ConnectionRefusedError; next in \d\.\d s
device       is started again
connected    the device speaks KATCP 5\.1-BIM
temperature  2\d\.\d degC  NOMINAL
temperature  2\d\.\d degC  NOMINAL
temperature  2\d\.\d degC  NOMINAL
stats        \d attempts, 2 connections, \d+ informs
Nobody has asked for the readings again: the client has\. All checks passed\."""

pytestmark = pytest.mark.real_time


def check_story(text: str) -> None:
    told = iter(re.sub(r"^ +\d+\.\d\d  ", "", line) for line in text.splitlines())
    for wanted in STORY.splitlines():  # an attempt more, while the device starts, is part of it
        assert any(re.fullmatch(wanted, line) for line in told), (wanted, text)
    assert len(text.splitlines()) <= 25
    assert max(map(len, text.splitlines())) < 80
    assert text.replace("\n", "").isascii() and text.replace("\n", "").isprintable()


@pytest.mark.gen_test
async def test_process(invoke: Any) -> None:
    code, stdout, stderr = await invoke("demo")
    assert (code, stderr) == (0, ""), stdout
    check_story(stdout)


@pytest.mark.gen_test
async def test_ctrl_c(start: Any) -> None:
    process = await start("demo")
    while b"temperature" not in await process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()  # the device would keep the pipe open
    assert (process.returncode, stderr) == (130, b"")


@pytest.mark.gen_test
async def test_nobody_reads_to_the_end(start: Any) -> None:
    process = await start("demo")
    await process.stdout.readline()
    process.stdout._transport.close()  # as head does
    assert await process.stderr.read() == b""
    assert await process.wait() == 141


@pytest.mark.gen_test
async def test_on_a_terminal_it_has_colours_and_fits(
    output: Any, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    written.terminal = True
    assert await demonstrate(output) == ExitCode.OK
    assert "\x1b[1;31mkill -9" in written.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue())
    assert max(map(len, plain.splitlines())) == 40


@pytest.mark.gen_test
async def test_the_device_never_comes_back(
    output: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = demo.Device.start

    async def start_once(self: demo.Device) -> None:
        if not self.port:
            await start(self)

    monkeypatch.setattr(demo.Device, "start", start_once)
    monkeypatch.setattr(demo, "PATIENCE", 2.0)
    assert await demonstrate(output) == ExitCode.REFUSED
    assert capsys.readouterr().err == "katcp-tornado: demo: the client is not connected again within 2 s\n"


@pytest.mark.gen_test
async def test_the_client_does_not_try_again(
    output: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "BACKOFF", Backoff(max_failures=1))
    monkeypatch.setattr(demo, "PATIENCE", 2.0)
    assert await demonstrate(output) == ExitCode.REFUSED
    assert capsys.readouterr().err == "katcp-tornado: demo: no attempt has failed within 2 s\n"


@pytest.mark.gen_test
async def test_a_callback_that_fails_is_noticed(
    output: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Any) -> None:
        raise RuntimeError("ouch")

    monkeypatch.setattr(demo.Demo, "on_connected", failing)
    assert await demonstrate(output) == ExitCode.REFUSED
    assert capsys.readouterr().err.startswith("katcp-tornado: demo: the library has logged an error: ")


@pytest.mark.gen_test
async def test_picture(output: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The picture of the README: ``KATCP_TORNADO_PICTURES=docs/howto/pictures`` has it taken anew."""
    made: list[console.Console] = []

    def recording(**options: Any) -> console.Console:
        made.append(console.Console(**{**options, "record": True, "width": 80, "force_terminal": True}))
        return made[-1]

    monkeypatch.setattr(demo, "Console", recording)
    assert await demonstrate(output) == ExitCode.OK
    folder = Path(os.environ.get("KATCP_TORNADO_PICTURES", tmp_path))
    template: str = vars(console)["CONSOLE_SVG_FORMAT"]
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}", "", template, flags=re.DOTALL)
    made[0].save_svg(str(folder / "demo.svg"), title="katcp-tornado demo", code_format=without_fonts, unique_id="demo")
    text = (folder / "demo.svg").read_text()
    assert "UNREACHABLE" in text and "@font-face" not in text
