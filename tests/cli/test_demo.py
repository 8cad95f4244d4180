"""katcp-tornado demo."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest
from click.testing import CliRunner

from katcp_tornado import Backoff, Client
from katcp_tornado.cli import demo
from katcp_tornado.cli.commands import katcp_tornado
from katcp_tornado.cli.demo import demonstrate
from katcp_tornado.cli.terminal import ExitCode
from katcp_tornado.testing import FakeDevice, VirtualTimeLoop

SECTIONS = [
    "1. Connect",
    "2. Make requests",
    "3. Follow a sensor",
    "4. The device goes away",
    "5. While it is away",
    "6. The device boots",
    "7. The device is back",
    "8. What the client says of itself",
]

#: What happens, in this order.
STORY = [
    "device  listens on 127.0.0.1:",
    "state   CONNECTING -> NEGOTIATING",
    "state   NEGOTIATING -> CONNECTED",
    "client  connected; the device speaks KATCP 5.1",
    "request ?add 40 2",
    "reply   !add ok 42",
    "raised  FailReply: the receiver is too warm",
    "request ?sensor-sampling temperature event",
    "sensor  temperature 20.",
    "request ?sleep 60",
    "device  goes away",
    "log     WARNING 127.0.0.1:",
    "state   CONNECTED -> SLEEPING",
    "client  disconnected: ConnectionResetError: ",
    "raised  ConnectionLost: ?sleep to 127.0.0.1:",
    "the link was lost",
    "may have been executed",
    "client  will try again in ",
    "request ?add 1 2",
    "raised  NotConnected: ?add: 127.0.0.1:",
    "failed  attempt 2: ConnectionRefusedError: ",
    "refused; the next in ",
    "failed  attempt 3: ConnectionRefusedError: ",
    "failed  attempt 4: ConnectionRefusedError: ",
    "device  listens on 127.0.0.1:",
    "failed  attempt 5: HandshakeTimeout: ",
    "connected again after ",
    "client  connected; the device speaks KATCP 5.1",
    "request ?sensor-sampling temperature event",
    "sensor  temperature 2",
    "client  6 attempts, 4 of them failed",
    "client  2 connections, lost 1 by ConnectionResetError",
    "state   CONNECTED -> CLOSED",
    "All of it happened: ",
]


def check_story(text: Any) -> None:
    assert [line for line in text.splitlines() if line[:2] in {f"{n}." for n in range(10)}] == SECTIONS
    place = 0
    for part in STORY:
        found = text.find(part, place)
        assert found >= 0, f"{part!r} is missing in {text[place:]}"
        place = found + len(part)


def check_plain(text: Any) -> None:
    assert text.replace("\n", "").isascii()
    assert text.replace("\n", "").isprintable()
    assert max(map(len, text.splitlines())) < 80


# As a process


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_process(invoke: Any) -> None:
    began = time.monotonic()
    code, stdout, stderr = await invoke("demo")
    took = time.monotonic() - began
    assert (code, stderr) == (0, ""), stdout
    assert took < 20
    check_story(stdout)
    check_plain(stdout)


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_ctrl_c(start: Any) -> None:
    process = await start("demo")
    while b"temperature" not in await process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    assert stderr == b""
    assert b"-> CLOSED\n" in stdout
    assert process.returncode == 130


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_nobody_reads_to_the_end(start: Any) -> None:
    process = await start("demo")
    await process.stdout.readline()
    process.stdout._transport.close()  # as head does
    assert await process.stderr.read() == b""
    assert await process.wait() == 141


# In virtual time


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.gen_test
async def test_it_works_whatever_the_delays_are(
    io_loop: VirtualTimeLoop,
    output: Any,
    written: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seed: Any,
) -> None:
    backoff = demo.BACKOFF
    monkeypatch.setattr(
        demo, "BACKOFF", Backoff(backoff.first, backoff.maximum, minimum=backoff.minimum, random=random.Random(seed))
    )
    code = await demonstrate(output)
    assert (code, capsys.readouterr().err) == (ExitCode.OK, ""), written.getvalue()
    check_story(written.getvalue())
    check_plain(written.getvalue())
    assert io_loop.now < 20


@pytest.mark.gen_test
async def test_on_a_terminal_it_has_colours(output: Any, written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    written.terminal = True
    assert await demonstrate(output) == ExitCode.OK
    assert "\x1b[36mstate   \x1b[0m" in written.getvalue()


@pytest.mark.gen_test
async def test_the_width_of_the_terminal_changes_nothing(
    output: Any, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert await demonstrate(output) == ExitCode.OK
    check_story(written.getvalue())


def start_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start = FakeDevice.start
    monkeypatch.setattr(FakeDevice, "start", lambda self: None if self.accepted else start(self))


@pytest.mark.gen_test
async def test_the_device_never_comes_back(
    io_loop: VirtualTimeLoop,
    output: Any,
    written: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_only_once(monkeypatch)
    assert await demonstrate(output) == ExitCode.REFUSED
    complaint = capsys.readouterr().err
    assert complaint.startswith('katcp-tornado: demo: failed in "6. The device boots": ')
    assert "ConnectionRefusedError" in complaint
    assert complaint.count("\n") == 1
    assert "All of it happened" not in written.getvalue()
    assert io_loop.now < 20


@pytest.mark.gen_test
async def test_the_device_stays_silent(
    io_loop: VirtualTimeLoop, output: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = FakeDevice.script
    monkeypatch.setattr(FakeDevice, "script", lambda self, *behaviours: script(self, *behaviours * 10))
    assert await demonstrate(output) == ExitCode.REFUSED
    complaint = capsys.readouterr().err
    assert 'failed in "7. The device is back": WaitTimeout: ' in complaint
    assert "HandshakeTimeout" in complaint
    assert io_loop.now < 20


@pytest.mark.gen_test
async def test_the_strategy_is_not_put_back(
    output: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Client.add_connected_callback
    monkeypatch.setattr(Client, "add_connected_callback", lambda self, cb: cb.__name__ != "subscribe" and add(self, cb))
    assert await demonstrate(output) == ExitCode.REFUSED
    assert 'failed in "7. The device is back": WaitTimeout: #sensor-status' in capsys.readouterr().err


@pytest.mark.gen_test
async def test_the_client_does_not_try_again(
    output: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "BACKOFF", Backoff(max_failures=1))
    assert await demonstrate(output) == ExitCode.REFUSED
    assert 'failed in "5. While it is away": no attempt has failed within 6 s' in capsys.readouterr().err


@pytest.mark.gen_test
async def test_a_callback_that_fails_is_noticed(
    output: Any, written: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_state = demo._Demo.on_state

    def failing(self: Any, old: Any, new: Any) -> None:
        on_state(self, old, new)
        raise RuntimeError("ouch")

    monkeypatch.setattr(demo._Demo, "on_state", failing)
    assert await demonstrate(output) == ExitCode.REFUSED
    assert "no errors in the library's log" in capsys.readouterr().err
    assert "RuntimeError: ouch" in " ".join(written.getvalue().split())


# In a hurry


def test_exit_code_when_the_device_never_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICK", "PAUSE", "HANDSHAKE_TIMEOUT"):
        monkeypatch.setattr(demo, name, 0.05)
    monkeypatch.setattr(demo, "BACKOFF", Backoff(first=0.1, maximum=0.1, minimum=0.05))
    start_only_once(monkeypatch)
    result = CliRunner().invoke(katcp_tornado, ["demo"])
    assert result.exit_code == 1, result.output
    assert result.output.splitlines()[-1].startswith('katcp-tornado: demo: failed in "6. The device boots": ')
