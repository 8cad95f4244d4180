"""What real devices do beyond the guidelines, quirk by quirk: greetings, ids, replies, endings. See `quirk_table`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from recordings.quirk_table import QUIRKS
from recordings.recording import NAMES
from recordings.replay import C, Replay, sampled
from recordings.script import IDS, V5, Script
from tornado import gen

from katcp_tornado import (
    Client,
    ClientClosed,
    ConnectionLost,
    DeviceDisconnected,
    FailReply,
    HandshakeTimeout,
    InvalidReply,
    LineTooLong,
    Message,
    ProtocolFlags,
    RequestTimeout,
    State,
)
from katcp_tornado.testing import Banner, Connection, RequestContext, VirtualTimeLoop

#: The recorded devices without message ids.
NO_IDS = ["c_ska_v4", "c_ska_v5", "katcp_python_v4", "katcp_python_v5_nomid", "tcpborphserver3_v5"]
PYTHON = ["katcp_python_v4", "katcp_python_v5", "katcp_python_v51", "katcp_python_v5_nomid"]


def test_every_quirk_is_tested_and_every_test_has_a_row() -> None:
    tested: set[Any] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        tested.update(int(number) for number in re.findall(r"def test_quirk_(\d\d)_", path.read_text()))
    assert list(QUIRKS) == list(range(1, 30))
    assert tested == set(QUIRKS)
    assert all(quirk.devices.endswith(".") and quirk.client for quirk in QUIRKS.values())


# Greetings


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_01_recorded_banners(io_loop: VirtualTimeLoop, replay: Any, name: Any) -> None:
    client = await replay(name)
    assert io_loop.now < 0.01
    await io_loop.idle()
    banner = [line for line in client.device.behaviour.conversation.greeting if line.time < 0.01]
    assert len(client.versions) == len(banner)
    assert ("katcp-device" in client.versions) == (name in ("aiokatcp", "rust", *PYTHON[1:]))


@pytest.mark.gen_test
async def test_quirk_01_the_protocol_comes_last(io_loop: VirtualTimeLoop, peer: Any) -> None:
    feeder = b"#version-connect feeder.katcp-protocol 5.0-M\n"
    client = peer(Script(b"#version-connect kcs 1.0\n#version-connect kernel 6.1.0\n" + feeder + V5))
    await client.wait_connected()
    assert client.protocol == ProtocolFlags.parse("5.0-M")
    assert list(client.versions) == ["kcs", "kernel", "feeder.katcp-protocol", "katcp-protocol"]
    # What only looks like it is not enough.
    other = peer(Script(feeder))
    await gen.sleep(10.1)
    assert [type(exc) for exc in other.failed] == [HandshakeTimeout]


@pytest.mark.parametrize("text", ["5.1-MIB", "5.1-BIMT", "5.0-IM", "5.0-M", "5.1-TBIMxyz"])
@pytest.mark.gen_test
async def test_quirk_02_flags_in_any_order(peer: Any, text: str) -> None:
    client = peer(Banner(f"#version-connect katcp-protocol {text}"))
    await client.wait_connected()
    assert client.protocol == ProtocolFlags(5, int(text[2]), frozenset(text[4:]))
    assert client.protocol.supports("I") == ("I" in text)


@pytest.mark.parametrize("name", ["c_ska_v4", "katcp_python_v4"])
@pytest.mark.gen_test
async def test_quirk_03_v4(io_loop: VirtualTimeLoop, replay: Any, name: str) -> None:
    client = await replay(name)
    assert io_loop.now < 0.01
    assert client.protocol == ProtocolFlags(4, 0, frozenset())
    assert set(client.versions) == {"version", "build-state"}
    if name == "c_ska_v4":
        assert await client.request("version-list") == ([b"0"], [])
    else:
        with pytest.raises(InvalidReply, match="Unknown request"):
            await client.request("version-list")


@pytest.mark.parametrize("line", ["#version c-peer-1.0", "#build-state c-peer-build-1"])
@pytest.mark.gen_test
async def test_quirk_03_half_a_greeting(io_loop: VirtualTimeLoop, peer: Any, line: str) -> None:
    client = peer(Banner(line))
    await client.wait_connected()
    assert io_loop.now == pytest.approx(1)
    assert client.protocol == ProtocolFlags(4, 0, frozenset())


# Message ids


@pytest.mark.parametrize("name", NO_IDS)
@pytest.mark.gen_test
async def test_quirk_04_no_ids(replay: Any, name: Any) -> None:
    client = await replay(name)
    futures = [client.request(name) for name in ("help", "sensor-list", "sensor-value", "client-list", "help")]
    await gen.sleep(1)
    assert [message.mid for _, message in client.device.received] == [None] * 5
    replies = [future.result() for future in futures]
    assert all(reply.arguments == [b"%d" % len(reply.informs)] for reply in replies)
    for name, reply in zip(["help", "sensor-list", "sensor-value", "client-list", "help"], replies):
        assert {inform.name for inform in reply.informs} == {name}


def late(behaviour: Any) -> Any:
    """Make the banner come when the first requests are on their way already."""
    greet = behaviour.greet

    def greet_late(connection: Connection) -> None:
        greet(connection)
        connection.resume_reading()

    def wait(connection: Connection) -> None:
        connection.pause_reading()
        connection.call_later(0.001, greet_late, connection)

    behaviour.greet = wait
    return behaviour


@pytest.mark.parametrize("name", ["c_ska_v5", "katcp_python_v5_nomid", "tcpborphserver3_v5"])
@pytest.mark.gen_test
async def test_quirk_04_ids_were_assumed(peer: Any, name: str) -> None:
    client = peer(late(Replay(name)), assume_protocol=ProtocolFlags.parse("5.0-IM"))
    listing = client.request("version-list", wait_connected=True)
    other = client.request("watchdog", wait_connected=True)
    reply, informs = await listing
    assert [message.mid for _, message in client.device.received] == [1, 2]
    assert reply == [b"%d" % len(informs)]
    assert (await other).arguments == []
    assert client.protocol == ProtocolFlags.parse("5.0-M")
    await client.request("watchdog")
    assert client.device.received[-1][1].mid is None
    assert client.stats.unmatched_replies == 0


@pytest.mark.parametrize("inform", [b"#list a\n", b"#list%s a\n"])
@pytest.mark.parametrize("reply", [b"!list ok 1\n", b"!list%s ok 1\n"])
@pytest.mark.gen_test
async def test_quirk_04_ids_come_back_in_part(peer: Any, reply: bytes, inform: bytes) -> None:
    client = peer(late(Script(list=inform + reply)), assume_protocol=ProtocolFlags.parse("5.0-IM"))
    got, informs = await client.request("list", wait_connected=True)
    assert client.device.received[0][1].mid == 1
    assert got == [b"1"]
    assert [each.arguments for each in informs] == [[b"a"]]


@pytest.mark.gen_test
async def test_quirk_05_ids_are_plain_numbers(replay: Any) -> None:
    client = await replay("aiokatcp", "own requests")
    replies = await gen.multi([client.request("echo", "x") for _ in range(12)])
    assert all(reply.arguments == [b"x"] for reply in replies)
    assert [message.mid for _, message in client.device.received] == list(range(1, 13))
    assert bytes(client.device.received[6][1]) == b"?echo[7] x\n"
    for mid in (-1, 0, 2**31):
        with pytest.raises(ValueError, match="mid must be between 1 and"):
            Message.request("watchdog", mid=mid)


# Replies


@pytest.mark.gen_test
async def test_quirk_06_malformed_replies(peer: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = peer(Script(first=b"! fail\n", second=b"!?x invalid unknown\\_command\n", third=b"garbage\n!third ok\n"))
    await client.wait_connected()
    for name in ("first", "second"):
        with pytest.raises(RequestTimeout):
            await client.request(name, timeout=1)
    assert (await client.request("third", timeout=1)).arguments == []
    client.malformed = 3
    assert len([r for r in caplog.records if "is not a KATCP message" in r.getMessage()]) == 1


@pytest.mark.parametrize("name", ["", "?x", "1abc", " watchdog", "watch_dog", "watchdog[1]", "a b", "watchdog\n"])
@pytest.mark.gen_test
async def test_quirk_06_no_malformed_request(replay: Any, name: str) -> None:
    client = await replay("c_ska_v5")
    with pytest.raises(ValueError, match="is not a KATCP name"):
        client.request(name)
    assert client.device.received == []


@pytest.mark.gen_test
async def test_quirk_06_a_traceback_in_a_log(peer: Any, caplog: pytest.LogCaptureFixture) -> None:
    traceback = rb"Traceback\_(most\_recent\_call\_last):\n\n\_\_File\n\nKatcpSyntaxError:\_Bad\_type\_character.\n\n"
    client = peer(Script(watchdog=b"#log error 1795328980.127092 root " + traceback + b"\n!watchdog ok\n"))
    logs = client.informs("log")
    await client.wait_connected()
    assert await client.request("watchdog") == ([], [])
    assert logs[0].arguments[3].count(b"\n") == 6
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_07_unknown_request(replay: Any, name: Any) -> None:
    client = await replay(name)
    with pytest.raises(InvalidReply):
        await client.request("flurble")
    assert client.is_connected


@pytest.mark.gen_test
async def test_quirk_07_unknown_request_is_fail(peer: Any) -> None:
    client = peer(Script(flurble=b"!flurble fail\n"))
    await client.wait_connected()
    with pytest.raises(FailReply):
        await client.request("flurble")


@pytest.mark.parametrize("name", C)
@pytest.mark.gen_test
async def test_quirk_08_fail_without_a_message(replay: Any, name: Any) -> None:
    client = await replay(name)
    logs = client.informs("log")
    requests = [(("sensor-sampling", "nosuch", "event"), FailReply, b"fail")]
    if name != "tcpborphserver3_v5":
        requests += [(("fail",), FailReply, b"fail"), (("add", 1), InvalidReply, b"invalid")]  # type: ignore[list-item]
    for request, error, code in requests:
        with pytest.raises(error) as caught:
            await client.request(*request)
        assert caught.value.reply.arguments == [code]
        assert str(caught.value).startswith(code.decode())
    assert logs[0].arguments[3] == b"unknown sensor nosuch"


@pytest.mark.parametrize("name", PYTHON)
@pytest.mark.gen_test
async def test_quirk_08_many_arguments_and_tracebacks(replay: Any, name: Any) -> None:
    client = await replay(name)
    with pytest.raises(FailReply, match="first") as caught:
        await client.request("fail-many")
    assert caught.value.reply.arguments == [b"fail", b"first", b"second", b"3"]
    with pytest.raises(FailReply, match="RuntimeError: deliberate exception") as caught:
        await client.request("raise")
    assert caught.value.reply.arguments[1].endswith(b"\nRuntimeError: deliberate exception\n")


@pytest.mark.gen_test
async def test_quirk_09_neither_ok_nor_fail(peer: Any) -> None:
    client = peer(Script(odd_reply=b"!odd-reply \\0\\n\\r\\_ 42\n", bare=b"!bare\n"))
    await client.wait_connected()
    with pytest.raises(InvalidReply) as caught:
        await client.request("odd-reply")
    assert caught.value.reply.arguments == [b"\0\n\r ", b"42"]
    with pytest.raises(InvalidReply) as caught:
        await client.request("bare")
    assert caught.value.reply.arguments == []
    assert client.is_connected


# Informs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_18_others_come_and_go(replay: Any, name: Any) -> None:
    client = await replay(name)
    heard = client.informs("client-connected", "client-disconnected")
    await gen.sleep(2)
    told = ["client-connected"] if name in ("aiokatcp", *C) else []
    told += ["client-disconnected"] if name in C else []
    assert [each.name for each in heard] == told
    assert client.is_connected
    assert client.lost == []


@pytest.mark.gen_test
async def test_quirk_18_overloaded(io_loop: VirtualTimeLoop, peer: Any) -> None:
    client = peer(Script(block=b"#client-disconnected overloaded\n"))
    heard = client.informs("client-disconnected")
    await client.wait_connected()
    request = client.request("block")
    await io_loop.idle()
    assert [each.arguments for each in heard] == [[b"overloaded"]]
    assert client.is_connected
    client.device.drop_all()
    with pytest.raises(ConnectionLost):
        await request
    assert type(client.last_exc) is DeviceDisconnected and client.last_exc.reason == "overloaded"
    await client.wait_connected(1.1)


@pytest.mark.gen_test
async def test_quirk_18_another_client_is_thrown_out(io_loop: VirtualTimeLoop, peer: Any) -> None:
    client = peer(Script())
    await client.wait_connected()
    client.device.send_raw(b"#client-disconnected 10.0.0.1:7147\n")
    await io_loop.idle()
    client.device.drop_all()
    await client.wait_disconnected()
    assert type(client.last_exc) is DeviceDisconnected and client.last_exc.reason is None


@pytest.mark.parametrize("name", C)
@pytest.mark.gen_test
async def test_quirk_19_logs_within_a_reply(replay: Any, name: Any) -> None:
    client = await replay(name)
    logs = client.informs("log")
    await client.request("log-level", "debug")
    with pytest.raises(InvalidReply, match="level") as caught:
        await client.request("log-level", "nosuch")
    assert caught.value.informs == []
    assert [each.arguments[0] for each in logs] == [b"debug", b"warn"]
    assert [message.arguments for _, message in client.device.received] == [[b"debug"], [b"nosuch"]]


@pytest.mark.gen_test
async def test_quirk_19_logs_between_informs(peer: Any) -> None:
    log = b"#log info 1795328559.639 Ckatcp hello\n"
    client = peer(Script(help=log + b"#help a b\n" + log + b"#help c d\n" + log + b"!help ok 2\n"))
    logs = client.informs("log")
    await client.wait_connected()
    reply, informs = await client.request("help")
    assert reply == [b"2"]
    assert [each.arguments[0] for each in informs] == [b"a", b"c"]
    assert len(logs) == 3
    assert [message.name for _, message in client.device.received] == ["help"]


# Endings

SHUTTING_DOWN = "Device server shutting down."
#: From a device to what it says in its #disconnect: to who has asked for a halt, to the others; when it gets SIGTERM.
GOODBYES = {
    "aiokatcp": ("server shutting down",) * 3,
    "c_ska_v4": (None, "shutdown", "shutdown"),
    "c_ska_v5": (None, "shutdown", "shutdown"),
    "katcp_python_v4": (SHUTTING_DOWN,) * 3,
    "katcp_python_v5": (SHUTTING_DOWN,) * 3,
    "katcp_python_v51": (SHUTTING_DOWN,) * 3,
    "katcp_python_v5_nomid": (SHUTTING_DOWN,) * 3,
    "tcpborphserver3_v5": (None, "shutdown", "shutdown"),
}


async def it_comes_back(client: Client, reason: Any) -> None:
    """The device has said goodbye, once; the client is connected again when it may be."""
    ((when, cause),) = client.lost  # type: ignore[attr-defined]
    assert type(cause) is DeviceDisconnected
    assert cause.reason == reason
    await client.wait_connected(1.1)
    assert client.io_loop.now == pytest.approx(when + 1, abs=0.01)  # type: ignore[attr-defined]
    assert client.stats.connects == 2


@pytest.mark.parametrize("name", GOODBYES)
@pytest.mark.gen_test
async def test_quirk_20_halt(replay: Any, name: Any) -> None:
    client = await replay(name, "?halt")
    assert await client.request("halt") == ([], [])
    await client.wait_disconnected(0.1)
    await it_comes_back(client, GOODBYES[name][0])


@pytest.mark.parametrize("name", GOODBYES)
@pytest.mark.gen_test
async def test_quirk_20_another_client_says_halt(replay: Any, name: Any) -> None:
    client = await replay(name, "?halt", "c2")
    await client.wait_disconnected(1)
    await it_comes_back(client, GOODBYES[name][1])


@pytest.mark.parametrize("name", [*C, *PYTHON])
@pytest.mark.gen_test
async def test_quirk_20_restart(replay: Any, name: Any) -> None:
    client = await replay(name, "?restart")
    assert await client.request("restart") == ([], [])
    await client.wait_disconnected(0.1)
    await it_comes_back(client, GOODBYES[name][0])
    other = await replay(name, "?restart", "c2")
    await other.wait_disconnected(1)
    await it_comes_back(other, "restart" if name in C else SHUTTING_DOWN)


@pytest.mark.gen_test
async def test_quirk_20_it_goes_on(replay: Any) -> None:
    client = await replay("rust", "?halt")
    assert await client.request("halt") == ([], [])
    for name in ("rust", "aiokatcp"):
        other = await replay(name, "?restart")
        with pytest.raises(InvalidReply):
            await other.request("restart")
        await gen.sleep(100)
        assert other.lost == []
    assert client.lost == []


@pytest.mark.gen_test
async def test_quirk_20_no_reply(peer: Any) -> None:
    client = peer(Script(halt=None))
    await client.wait_connected()
    with pytest.raises(ConnectionLost) as caught:
        await client.request("halt")
    assert caught.value.sent is True
    await it_comes_back(client, None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_21_terminated(io_loop: VirtualTimeLoop, replay: Any, name: Any) -> None:
    client = await replay(name, "server process gets SIGTERM")
    sensor = sampled(name)
    await client.request("sensor-sampling", sensor, "auto")
    statuses = client.informs("sensor-status")
    await client.wait_disconnected(1)
    assert client.lost[0][0] < 0.2, "the first #disconnect counts"
    await io_loop.idle()
    assert client.device.connections == [], "this is what a C device waits for"
    await it_comes_back(client, GOODBYES.get(name, (None,) * 3)[2])
    assert statuses == []


@pytest.mark.gen_test
async def test_quirk_22_winding_down(io_loop: VirtualTimeLoop, peer: Any) -> None:
    class WindingDown(Script):
        def greet(self, connection: Connection) -> None:
            if io_loop.now < 4:
                connection.call_later(0.9, lambda: connection.close(reset=True))
            else:
                super().greet(connection)

    client = peer(WindingDown())
    await client.wait_connected()
    assert [type(exc) for exc in client.failed] == [ConnectionResetError] * 3
    assert client.lost == []
    assert client.stats.connects == 1


# What a device can bear


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_quirk_23_not_utf8(replay: Any, name: Any) -> None:
    client = await replay(name, "argument that is not UTF-8 (fresh connections)", "u8")
    sensor = sampled(name)
    await client.request("sensor-sampling", sensor, "auto")
    statuses = client.informs("sensor-status")
    request = client.request("watchdog", b"\xff", timeout=3)
    if name in PYTHON:
        with pytest.raises(RequestTimeout) as caught:
            await request
        assert caught.value.sent is True
        assert client.is_connected
        assert len(statuses) > 10
    elif name == "rust":
        with pytest.raises(ConnectionLost):
            await request
        await client.wait_connected(1.1)
    elif name == "aiokatcp":
        with pytest.raises(FailReply, match="too many arguments"):
            await request
    else:
        assert (await request).arguments == []
    assert client.device.received[1][1].arguments == [b"\xff"]


@pytest.mark.gen_test
async def test_quirk_23_text_is_utf8(peer: Any) -> None:
    client = peer(Script(say=b"!say ok\n"))
    await client.wait_connected()
    await client.request("say", "h\u00e9")
    assert client.device.received[0][1].arguments == ["h\u00e9".encode()]


@pytest.mark.parametrize("name", ["aiokatcp", "c_ska_v4", "c_ska_v5", *PYTHON])
@pytest.mark.gen_test
async def test_quirk_24_order_of_replies(io_loop: VirtualTimeLoop, replay: Any, name: Any) -> None:
    client = await replay(name, "pipelining: slow then watchdog", watchdog=0.3, watchdog_timeout=0.1)
    order = []
    for request in (("slow", 0.6), ("watchdog",), ("echo", "z")):
        client.request(*request).add_done_callback(lambda future, request=request: order.append((request, future)))
    await gen.sleep(0.62)
    assert [request[0] for request, _ in order] == (
        ["slow", "watchdog", "echo"] if name in C else ["watchdog", "echo", "slow"]
    )
    expected = {"slow": [] if name in C else [b"0.6"], "watchdog": [], "echo": [b"z"]}
    assert {request[0]: future.result().arguments for request, future in order} == expected
    assert client.lost == []


@pytest.mark.gen_test
async def test_quirk_25_too_many_requests(io_loop: VirtualTimeLoop, peer: Any) -> None:
    class Hundred(Script):
        waiting = []

        def receive(self, context: RequestContext) -> None:
            self.waiting.append(context)
            if len(self.waiting) == 100:
                context.connection.pause_reading()
            elif len(self.waiting) > 100:
                super().receive(context)

    client = peer(Hundred(IDS, watchdog=b"!watchdog%s ok\n"))
    await client.wait_connected()
    futures = [client.request("wait", timeout=5) for _ in range(100)]
    await io_loop.idle()
    with pytest.raises(RequestTimeout):
        await client.request("watchdog", timeout=5)
    assert {type(future.exception()) for future in futures} == {RequestTimeout}
    for context in Hundred.waiting[:100]:
        context.connection.write(b"!wait[%d] ok\n" % context.message.mid)  # type: ignore[str-format]
    client.device.connections[0].resume_reading()
    assert (await client.request("watchdog", timeout=5)).arguments == []
    assert client.stats.unmatched_replies == 101
    assert client.lost == []


@pytest.mark.gen_test
async def test_quirk_26_long_requests(peer: Any) -> None:
    class Short(Script):
        def receive(self, context: RequestContext) -> None:
            if len(bytes(context.message)) <= 2**21:
                super().receive(context)
            elif self.refuse:  # type: ignore[attr-defined]
                context.connection.close(reset=True)

    for refuse, error in ((True, ConnectionLost), (False, RequestTimeout)):
        behaviour = Short(IDS, watchdog=b"!watchdog%s ok\n")
        behaviour.refuse = refuse  # type: ignore[attr-defined]
        client = peer(behaviour)
        await client.wait_connected()
        with pytest.raises(error) as caught:
            await client.request("watchdog", b"x" * 2**21)
        assert caught.value.sent is True  # type: ignore[attr-defined]
        assert (await client.request("watchdog", wait_connected=True)).arguments == []
        assert client.stats.connects == 1 + refuse


@pytest.mark.parametrize("name", ["aiokatcp", "c_ska_v4", "c_ska_v5", *PYTHON])
@pytest.mark.gen_test
async def test_quirk_26_long_replies(replay: Any, name: Any) -> None:
    client = await replay(name)
    ((argument,), _) = await client.request("big", 70000)
    assert len(argument) == 70000
    other = await replay(name, limit=70000)
    with pytest.raises(ConnectionLost) as caught:
        await other.request("big", 70000)
    assert type(caught.value.__cause__) is LineTooLong


@pytest.mark.gen_test
async def test_quirk_27_cut_off(io_loop: VirtualTimeLoop, peer: Any) -> None:
    class Flood(Script):
        def receive(self, context: RequestContext) -> None:
            for _ in range(64):  # 4 MiB, while the client's loop is held up
                context.connection.write(b"#tick " + b"x" * 65529 + b"\n")
            context.connection.close(flush=False)

    client = peer(Flood())
    ticks = client.informs("tick")
    await client.wait_connected()
    with pytest.raises(ConnectionLost) as caught:
        await client.request("flood")
    assert caught.value.sent is True
    assert 0 < len(ticks) <= 64
    await client.wait_connected(1.1)


@pytest.mark.gen_test
async def test_quirk_27_reads_while_it_waits(peer: Any) -> None:
    class Late(Script):
        def receive(self, context: RequestContext) -> None:
            for _ in range(128):
                context.connection.write(b"#tick " + b"x" * 65529 + b"\n")
            context.connection.call_later(1, context.connection.write, b"!late ok\n")

    client = peer(Late())
    await client.wait_connected()
    late = client.request("late")
    await gen.sleep(0.5)
    assert client.stats.informs == 1 + 128
    assert not client.device.connections[0].writing
    assert (await late).arguments == []


@pytest.mark.gen_test
async def test_quirk_28_close_closes_both_sides(io_loop: VirtualTimeLoop, replay: Any) -> None:
    client = await replay("katcp_python_v5")
    request = client.request("slow", 0.6)
    await io_loop.idle()
    (connection,) = client.device.connections
    client.close()
    assert type(request.exception()) is ClientClosed and request.exception().sent is True
    await io_loop.idle()
    assert not connection.is_open
    assert client.state is State.CLOSED


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b" \t \n", b"\t\r\n", b"\n\r\n \n\n"])
@pytest.mark.gen_test
async def test_quirk_29_ends_of_lines(io_loop: VirtualTimeLoop, peer: Any, end: bytes) -> None:
    client = peer(
        Script(IDS.replace(b" ", b"\t ").replace(b"\n", end), list=b"#list%s \t a  b" + end + b"!list%s ok\t1" + end)
    )
    await client.wait_connected()
    reply, (inform,) = await client.request("list")
    assert io_loop.now < 0.01
    assert reply == [b"1"]
    assert inform.arguments == [b"a", b"b"]
    ((_, message),) = client.device.received
    assert bytes(message) == b"?list[1]\n"
