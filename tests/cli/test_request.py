"""katcp-tornado request."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import pytest
from click.testing import CliRunner

from katcp_tornado import Message
from katcp_tornado.cli.commands import HostPort, katcp_tornado  # type: ignore[attr-defined]
from katcp_tornado.cli.request import How, ask
from katcp_tornado.cli.targets import Target
from katcp_tornado.cli.terminal import ExitCode, Output
from katcp_tornado.testing import (
    Answer,
    Banner,
    Disconnect,
    Drop,
    FakeDevice,
    Raw,
    RequestContext,
    Silent,
    VirtualTimeLoop,
)


def address_of(device: FakeDevice) -> Any:
    return HostPort(device.host, device.port)


# The program


@pytest.fixture
def request_(device: FakeDevice, output: Any, written: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Makes a request: the exit code, what was written, what was complained of."""

    async def request(name: Any, *args: Any, timeout: float = 10.0, address: Any = None, **how: Any) -> Any:
        target = Target(address or address_of(device), {})
        code = await ask(target, [(name, args)], How(timeout, **how), output)
        return code, written.getvalue(), capsys.readouterr().err

    return request


@pytest.mark.gen_test
async def test_prints_the_reply(request_: Any) -> None:
    assert await request_("add", b"3", b"-4.5") == (ExitCode.OK, "!add[1] ok -1.5\n", "")


@pytest.mark.gen_test
async def test_prints_the_informs_before_the_reply(request_: Any) -> None:
    code, text, _ = await request_("informs", b"2")
    assert code == ExitCode.OK
    assert text == "#informs[1] 0\n#informs[1] 1\n!informs[1] ok 2\n"


@pytest.mark.gen_test
async def test_prints_informs_as_they_come(device: FakeDevice, request_: Any, written: Any) -> None:
    @device.request("slow")
    async def slow(context: RequestContext, message: Message) -> None:
        context.inform("half")
        await asyncio.sleep(1)
        seen.append(written.getvalue())

    seen: list[Any] = []
    assert (await request_("slow"))[0] == ExitCode.OK
    assert seen == ["#slow[1] half\n"]


@pytest.mark.gen_test
async def test_bytes_of_the_device_are_escaped(device: FakeDevice, request_: Any) -> None:
    @device.request("noise")
    def noise(context: RequestContext, message: Message) -> Any:
        context.inform(b"\x1b[31m\xff\x07\n")
        return (b"\x9b\x00",)

    code, text, _ = await request_("noise")
    assert code == ExitCode.OK
    assert text == "#noise[1] \\e[31m\\xff\\x07\\n\n!noise[1] ok \\x9b\\0\n"


@pytest.mark.gen_test
async def test_arguments_reach_the_device_as_they_are(device: FakeDevice, request_: Any) -> None:
    await request_("echo", b"\xff \x00", b"", b"-1")
    ((_, message),) = device.received
    assert message.arguments == [b"\xff \x00", b"", b"-1"]


@pytest.mark.parametrize("code", ["fail", "invalid", "odd"])
@pytest.mark.gen_test
async def test_a_refusal_is_exit_code_1(device: FakeDevice, request_: Any, code: str) -> None:
    device.on_request("add", Answer(code, "not now"))
    assert await request_("add") == (ExitCode.REFUSED, f"!add[1] {code} not\\_now\n", "")


@pytest.mark.parametrize("protocol", ["4", "5.0-M", "5.1-MIB"])
@pytest.mark.gen_test
async def test_every_protocol(device: FakeDevice, request_: Any, protocol: str) -> None:
    device.protocol = protocol
    code, text, _ = await request_("informs", b"1")
    assert code == ExitCode.OK
    assert text.count("\n") == 2


@pytest.mark.gen_test
async def test_ipv6(request_: Any) -> None:
    try:
        device = FakeDevice(host="::1")
        device.start()
    except OSError as exc:
        pytest.skip(f"no IPv6 here: {exc}")
    with device:
        code, _, _ = await request_("watchdog", address=address_of(device))
        assert code == ExitCode.OK
        assert device.count("watchdog") == 1
        device.stop()
        _, _, complaint = await request_("watchdog", address=address_of(device))
        assert f" [::1]:{device.port}: no connection: " in complaint


@pytest.mark.gen_test
async def test_refused(device: FakeDevice, request_: Any, io_loop: VirtualTimeLoop) -> None:
    device.stop()
    code, text, complaint = await request_("add")
    assert (code, text) == (ExitCode.NO_CONNECTION, "")
    assert complaint.startswith(f"katcp-tornado: {device.address}: no connection: ConnectionRefusedError: ")
    assert complaint.count("\n") == 1
    assert io_loop.now < 1


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        (Drop(), "DeviceDisconnected: the device closed the connection"),
        (Disconnect("overloaded", after_version=False), "DeviceDisconnected: the device disconnected us: overloaded"),
        (Banner("#version-connect katcp-protocol 6.0"), "ProtocolError: the device speaks KATCP 6.0"),
    ],
)
@pytest.mark.gen_test
async def test_the_cause_of_no_connection_is_told(
    device: FakeDevice, request_: Any, behaviour: Any, cause: str
) -> None:
    device.script(behaviour)
    code, text, complaint = await request_("add")
    assert (code, text) == (ExitCode.NO_CONNECTION, "")
    assert f"no connection: {cause}" in complaint
    assert device.accepted == 1


@pytest.mark.gen_test
async def test_a_lost_link(device: FakeDevice, request_: Any) -> None:
    device.on_request("informs", Drop())
    code, text, complaint = await request_("informs", b"1")
    assert code == ExitCode.NO_CONNECTION
    assert text == "#informs[1] 0\n"
    assert "the link was lost before the reply; it may have been executed (DeviceDisconnected: " in complaint
    assert complaint.count("\n") == 1
    assert device.count("informs") == 1


@pytest.mark.gen_test
async def test_what_a_device_says_cannot_reach_the_terminal_through_a_complaint(
    device: FakeDevice, request_: Any
) -> None:
    device.script(Disconnect("\x1b[2J\nbye"))
    _, _, complaint = await request_("add")
    assert complaint[:-1].isprintable()
    assert "bye" in complaint


@pytest.mark.gen_test
async def test_timeout_of_the_reply(device: FakeDevice, request_: Any, io_loop: VirtualTimeLoop) -> None:
    device.on_request("add", Silent())
    code, text, complaint = await request_("add", b"1", b"2", timeout=3.0)
    assert (code, text) == (ExitCode.TIMEOUT, "")
    assert complaint == (
        f"katcp-tornado: {device.address}: ?add was sent, and may have been executed, but no reply came within 3 s\n"
    )
    assert io_loop.now == pytest.approx(3, abs=0.1)


@pytest.mark.gen_test
async def test_timeout_with_rubbish_in_place_of_the_reply(device: FakeDevice, request_: Any) -> None:
    device.on_request("add", Raw(b"!add[1 ok 3\n"))
    code, _, complaint = await request_("add", b"1", b"2")
    assert code == ExitCode.TIMEOUT
    assert "(1 lines came that are no KATCP messages)" in complaint


@pytest.mark.gen_test
async def test_timeout_of_the_version(device: FakeDevice, request_: Any, io_loop: VirtualTimeLoop) -> None:
    device.script(Silent())
    code, text, complaint = await request_("add", timeout=20.0)
    assert (code, text) == (ExitCode.NO_CONNECTION, "")
    assert "connected, but the device has not sent its protocol version within 20 s" in complaint
    assert io_loop.now == pytest.approx(20, abs=0.1)


@pytest.mark.gen_test
async def test_timeout_of_the_connection(request_: Any, io_loop: VirtualTimeLoop) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = HostPort(*server.getsockname())
        crowd = [socket.socket() for _ in range(4)]  # they fill the queue of those that wait to be accepted
        for sock in crowd:
            sock.setblocking(False)
            sock.connect_ex(address)
        code, text, complaint = await request_("add", timeout=20.0, address=address)
        for sock in crowd:
            sock.close()
    assert (code, text) == (ExitCode.NO_CONNECTION, "")
    assert complaint.endswith(": no connection within 20 s\n")
    assert io_loop.now == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")])
@pytest.mark.gen_test
async def test_an_output_that_breaks_ends_the_request(device: FakeDevice, written: Any, error: Any) -> None:
    @device.request("slow")
    async def slow(context: RequestContext, message: Message) -> None:
        context.inform("first")
        await asyncio.sleep(1)
        context.inform("second")

    def failed() -> None:
        task.cancel()

    written.breaks = error
    target = Target(address_of(device), {})
    task = asyncio.ensure_future(ask(target, [("slow", [])], How(10.0), Output(written, failed)))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert written.getvalue() == "#slow[1] first\n"
    await device.wait(lambda device: not device.connections)


def test_without_a_standard_output() -> None:
    Output(None, lambda: pytest.fail("it has failed")).line("nobody reads this")


# The command line


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["127.0.0.1:7147"],
        ["127.0.0.1:", "help"],
        [":7147", "help"],
        ["", "help"],
        ["::1:7147", "help"],
        ["[]:7147", "help"],
        ["127.0.0.1:0", "help"],
        ["127.0.0.1:65536", "help"],
        ["127.0.0.1:-1", "help"],
        ["127.0.0.1:http", "help"],
        ["127.0.0.1:\u0661", "help"],
        ["127.0.0.1:7147", ""],
        ["127.0.0.1:7147", "?help"],
        ["127.0.0.1:7147", "help\n"],
        ["127.0.0.1:7147", "1st"],
        ["127.0.0.1:7147", "-x"],
        ["--timeout", "0", "127.0.0.1:7147", "help"],
        ["--timeout", "-1", "127.0.0.1:7147", "help"],
        ["--timeout", "nan", "127.0.0.1:7147", "help"],
        ["--timeout", "soon", "127.0.0.1:7147", "help"],
        ["--timeou", "3", "127.0.0.1:7147", "help"],
        ["127.0.0.1:7147", "help", "--timeout"],
    ],
)
def test_usage_errors(args: Any) -> None:
    result = CliRunner().invoke(katcp_tornado, ["request", *args])
    assert result.exit_code == ExitCode.USAGE, result.output
    assert "Error: " in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("text", ["::1", "::1:7147", "http://device/", "a b"])
def test_what_is_expected_of_an_address_is_told(text: str) -> None:
    result = CliRunner().invoke(katcp_tornado, ["request", text, "help"])
    assert f"{text!r}: " in result.output


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["h:1", "add", "-1", "-2.5e3"], ("h:1", "add", [b"-1", b"-2.5e3"], 30.0)),
        (["[::1]:7147", "x", "--flag=1", "-", "-abc"], ("[::1]:7147", "x", [b"--flag=1", b"-", b"-abc"], 30.0)),
        (["h:1", "x", "--timeout", "2"], ("h:1", "x", [], 2.0)),
        (["--timeout=0.5", "h:1", "x"], ("h:1", "x", [], 0.5)),
        (["--timeout", "inf", "h:1", "x"], ("h:1", "x", [], float("inf"))),
        (["h:1", "x", "--", "--timeout", "--", "--help"], ("h:1", "x", [b"--timeout", b"--", b"--help"], 30.0)),
        (["h:1", "x", "", "a b", "\u00e9", "\udcff"], ("h:1", "x", [b"", b"a b", b"\xc3\xa9", b"\xff"], 30.0)),
        (["[fe80::1%lo]:65535", "x-1"], ("[fe80::1%lo]:65535", "x-1", [], 30.0)),
    ],
)
def test_arguments(monkeypatch: pytest.MonkeyPatch, args: Any, expected: Any) -> None:
    asked: list[Any] = []

    async def instead(target: Any, requests: Any, how: Any, output: Any) -> Any:
        asked.extend((str(target.address), name, arguments, how.timeout) for name, arguments in requests)
        return ExitCode.TIMEOUT

    monkeypatch.setattr("katcp_tornado.cli.request.ask", instead)
    result = CliRunner().invoke(katcp_tornado, ["request", *args])
    assert result.exit_code == ExitCode.TIMEOUT, result.output
    assert asked == [expected]


# The process


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_process(device: FakeDevice, invoke: Any) -> None:
    assert await invoke("request", device.address, "informs", "1") == (0, "#informs[1] 0\n!informs[1] ok 1\n", "")
    assert await invoke("request", device.address, "fail", "no") == (1, "!fail[1] fail no\n", "")
    device.stop()
    code, stdout, stderr = await invoke("request", device.address, "help")
    assert (code, stdout) == (3, "")
    assert stderr.count("\n") == 1


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_ctrl_c(device: FakeDevice, start: Any) -> None:
    @device.request("stuck")
    async def stuck(context: RequestContext, message: Message) -> None:
        begun.set()
        await asyncio.sleep(60)

    begun = asyncio.Event()
    process = await start("request", device.address, "stuck")
    await begun.wait()
    process.send_signal(signal.SIGINT)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_ctrl_c_while_the_standard_input_says_nothing(device: FakeDevice, start: Any) -> None:
    process = await start("request", device.address, "-", stdin=asyncio.subprocess.PIPE)
    process.stdin.write(b"echo a\\_b\n")
    assert await process.stdout.readline() == b"!echo[1] ok a\\_b\n"
    process.send_signal(signal.SIGINT)
    assert (await process.stdout.read(), await process.stderr.read()) == (b"", b"")
    assert await process.wait() == 130


@pytest.mark.real_time
@pytest.mark.gen_test
async def test_nobody_reads_to_the_end(device: FakeDevice, start: Any) -> None:
    process = await start("request", device.address, "informs", "20000")
    assert await process.stdout.readline() == b"#informs[1] 0\n"
    process.stdout._transport.close()  # as head does
    assert await process.stderr.read() == b""
    assert await process.wait() == 141
