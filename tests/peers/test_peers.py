"""Conversations with real servers: greeting, requests, order, sizes, errors, and how a connection ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from typing import Any, Optional

import pytest
from peers.peer_servers import PEERS
from tornado import gen

from katcp_tornado import (
    Address,
    Client,
    ConnectionLost,
    DeviceDisconnected,
    FailReply,
    InvalidReply,
    NotConnected,
    RequestTimeout,
    Timestamp,
    WatchdogTimeout,
    decode,
)

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_is_here(peer: Any) -> None:
    """Its other tests do not show up at all if it is not."""
    if peer.missing:
        pytest.skip(f"{peer.name}: {peer.missing}")


def losses(client: Client) -> Any:
    """The causes for which its links are lost."""
    causes = []
    client.add_disconnected_callback(lambda: causes.append(client.last_exc))
    return causes


async def held(client: Client, *args: Any, **options: Any) -> Any:
    """A request that the server answers at the next ?release; and that it has come there."""
    there = asyncio.Event()
    request = client.request("hold", *args, on_inform=lambda _: there.set(), **options)
    await asyncio.wait_for(there.wait(), 10)
    return request


# Conversation


@pytest.mark.gen_test
async def test_greeting(client: Client, peer: Any) -> None:
    assert client.protocol == peer.protocol
    await client.request("watchdog")  # now the whole of it has come
    assert peer.versions.items() <= client.versions.items()
    if peer.protocol.major == 4:
        assert set(client.versions) == {"version", "build-state"}
    else:
        assert set(client.versions) == {"katcp-protocol", "katcp-library", "katcp-device"}


@pytest.mark.gen_test
async def test_version_list(client: Client, peer: Any) -> None:
    if peer.protocol.major == 4:
        with pytest.raises(InvalidReply):
            await client.request("version-list")
    else:
        reply, informs = await client.request("version-list")
        assert reply == [b"%d" % len(informs)]
        listed = {inform.arguments[0].decode(): inform.arguments[1].decode() for inform in informs}
        assert listed == {name: versions[0] for name, versions in client.versions.items()}


@pytest.mark.gen_test
def test_help_from_a_generator(client: Client) -> Generator[Any, Any, Any]:
    reply, informs = yield client.request("help")
    assert len(informs) == int(reply[0]) > 20
    names = [inform.arguments[0] for inform in informs]
    assert b"echo" in names and b"watchdog" in names
    reply, informs = yield client.request("help", "echo")
    assert reply == [b"1"]
    assert informs[0].arguments == [b"echo", b"Return the arguments: ?echo [arg ...]"]


@pytest.mark.gen_test
async def test_message_ids(client: Client, peer: Any) -> None:
    ids = [(await client.request("mid")).arguments[0] for _ in range(3)]
    assert ids == ([b"1", b"2", b"3"] if peer.protocol.supports("I") else [b"", b"", b""])


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (7, b"7"),
        (-(2**70), b"-1180591620717411303424"),
        (2.5, b"2.5"),
        (1e300, b"1e+300"),
        (True, b"1"),
        (False, b"0"),
        ("a b\tc\n\\\r\0\x1b", b"a b\tc\n\\\r\0\x1b"),
        ("\u20ac \U0001f600", "\u20ac \U0001f600".encode()),
        ("", b""),
        (Address("127.0.0.1", 7147), b"127.0.0.1:7147"),
        (Address("::1", 7147), b"[::1]:7147"),
        (Address("::1"), b"[::1]"),
    ],
    ids=repr,
)
@pytest.mark.gen_test
async def test_values_both_ways(client: Client, value: Any, wire: Any) -> None:
    (raw,), _ = await client.request("echo", value)
    assert raw == wire
    assert decode(type(value), raw) == value


@pytest.mark.gen_test
async def test_timestamp_both_ways(client: Client, peer: Any) -> None:
    (raw,), _ = await client.request("echo", Timestamp(1234567890.25))
    assert float(raw) == (1234567890250 if peer.protocol.major == 4 else 1234567890.25)
    assert decode(Timestamp, raw, peer.protocol.major) == Timestamp(1234567890.25)


@pytest.mark.needs("any-bytes")
@pytest.mark.gen_test
async def test_any_bytes(client: Client) -> None:
    everything = bytes(range(256))
    assert (await client.request("echo", everything)).arguments == [everything]


@pytest.mark.gen_test
async def test_the_server_understands_them(client: Client) -> None:
    # It decodes the arguments and encodes what it makes of them.
    (total,), _ = await client.request("add", 1, 2.5)
    assert decode(float, total) == 3.5
    assert (await client.request("bytes")).arguments == [bytes(range(256))]
    assert (await client.request("no-args-reply")).arguments == []


# Errors


@pytest.mark.gen_test
async def test_errors(client: Client) -> None:
    with pytest.raises(FailReply, match="deliberate failure") as caught:
        await client.request("fail")
    assert caught.value.reply.arguments == [b"fail", b"deliberate failure"]
    with pytest.raises(FailReply, match="a b\nc"):
        await client.request("fail", "a b\nc")
    with pytest.raises(FailReply, match="deliberate exception"):
        await client.request("raise")
    with pytest.raises(InvalidReply, match="(?i)unknown request"):
        await client.request("no-such-request")
    with pytest.raises(FailReply):
        await client.request("add", "one", "two")
    reply, informs = await client.request_raw("fail")
    assert not reply.reply_ok() and informs == []
    assert client.is_connected


# Order and size


@pytest.mark.gen_test
async def test_informs_in_order(client: Client) -> None:
    reply, informs = await client.request("informs", 1000)
    assert reply == [b"1000"]
    assert [inform.arguments for inform in informs] == [[b"%d" % i, b"payload %d" % i] for i in range(1000)]


@pytest.mark.gen_test
async def test_each_request_has_its_own_informs(client: Client) -> None:
    counts = [7, 0, 30, 1, 12]
    replies = await gen.multi([client.request("informs", count) for count in counts])
    for count, (reply, informs) in zip(counts, replies):
        assert reply == [b"%d" % count]
        assert [inform.arguments[0] for inform in informs] == [b"%d" % i for i in range(count)]


@pytest.mark.gen_test
async def test_informs_as_they_come(client: Client) -> None:
    heard: list[Any] = []
    request = client.request("hold", "x", on_inform=heard.append)
    while not heard:
        await client.request("watchdog")
    assert not request.done()
    assert [inform.arguments for inform in heard] == [[b"x"]]
    await client.request("release")
    assert await request == ([b"x"], [])


@pytest.mark.gen_test
async def test_replies_overtake(client: Client) -> None:
    slow = await held(client, "slow")
    quick = await gen.multi([client.request("echo", i) for i in range(50)])
    assert [reply.arguments for reply in quick] == [[b"%d" % i] for i in range(50)]
    assert not slow.done()
    await client.request("release")
    assert (await slow).arguments == [b"slow"]


@pytest.mark.gen_test
async def test_big_reply(client: Client, peer: Any) -> None:
    (data,), _ = await client.request("big", peer.longest)
    assert data == b"x" * peer.longest


@pytest.mark.gen_test
async def test_big_request(client: Client, peer: Any) -> None:
    data = os.urandom(peer.longest // 2).hex().encode()
    assert (await client.request("echo", data)).arguments == [data]


@pytest.mark.gen_test
async def test_split_reply(client: Client) -> None:
    assert (await client.request("split", 0.1)).arguments == [b"split in two"]


@pytest.mark.gen_test
async def test_raw_bytes(client: Client) -> None:
    heard = []
    client.add_inform_callback("odd", lambda message: heard.append(message.arguments))
    malformed = client.stats.malformed
    await client.request("raw", b"#odd\t a\\_b  c\r\n\n   \n#odd \\@\rgarbage\n#odd z\n")
    assert heard == [[b"a b", b"c"], [b""], [b"z"]]
    assert client.stats.malformed == malformed + 1
    assert client.is_connected


# Deadlines


async def late(client: Client) -> None:
    """The server answers the request that was given up; its reply must not go to the next one."""
    following = client.request("hold", "next")
    while not following.done():  # without ids it goes out only once that reply has come
        await client.request("release")
    assert following.result().arguments == [b"next"]
    assert [inform.arguments for inform in following.result().informs] == [[b"next"]]


@pytest.mark.gen_test
async def test_late_reply_is_dropped(client: Client) -> None:
    with pytest.raises(RequestTimeout) as caught:
        await client.request("hold", timeout=0.05)
    assert caught.value.sent is True
    await late(client)
    assert client.stats.timeouts == 1
    assert client.stats.unmatched_replies >= 1  # and the inform, if it came later than the deadline


@pytest.mark.gen_test
async def test_cancelled_request(client: Client) -> None:
    request = await held(client)
    request.cancel()
    await late(client)
    assert client.stats.unmatched_replies == 1


@pytest.mark.gen_test
async def test_the_whole_server_blocks(client: Client) -> None:
    order = []
    blocked = client.request("block", 0.1)
    other = client.request("watchdog")
    blocked.add_done_callback(lambda _: order.append("block"))
    other.add_done_callback(lambda _: order.append("watchdog"))
    await gen.multi([blocked, other])
    assert order == ["block", "watchdog"]


# How a connection ends


@pytest.mark.parametrize(
    ("how", "answered", "error", "reason"),
    [
        ("inform", True, DeviceDisconnected, "you asked for it"),
        ("close", True, DeviceDisconnected, None),
        ("noreply", False, DeviceDisconnected, None),
        ("abort", False, ConnectionResetError, None),
    ],
)
@pytest.mark.gen_test
async def test_disconnect_me(client: Client, how: str, answered: bool, error: Any, reason: Optional[str]) -> None:
    lost = losses(client)
    other = await held(client)
    request = client.request("disconnect-me", how)
    await client.wait_disconnected(timeout=5)
    (exc,) = lost
    assert type(exc) is error
    assert getattr(exc, "reason", None) == reason
    if answered:
        assert request.result().arguments == []
    else:
        assert type(request.exception()) is ConnectionLost and request.exception().sent is True  # type: ignore[union-attr]
    assert type(other.exception()) is ConnectionLost
    assert other.exception().__cause__ is exc
    await client.wait_connected(timeout=5)
    assert (await client.request("echo", "x")).arguments == [b"x"]


@pytest.mark.gen_test
async def test_kill_and_restart(own: Any, make: Any, peer: Any, until: Any) -> None:
    client = await make(own)
    heard, statuses = [], []

    def on_connected() -> Any:
        heard.append("connected")
        return client.request("sensor-sampling", "ticker", "event")

    client.add_connected_callback(on_connected)
    client.add_disconnected_callback(lambda: heard.append("disconnected"))
    client.add_failed_connect_callback(lambda exc: heard.append(type(exc)))  # type: ignore[arg-type]
    client.add_inform_callback("sensor-status", lambda message: statuses.append(message.arguments[2:]))
    request = await held(client)
    own.end()
    with pytest.raises(ConnectionLost) as caught:
        await request
    assert caught.value.sent is True
    await client.wait_disconnected(timeout=1)
    await until(lambda: heard[-1] is ConnectionRefusedError)  # type: ignore[comparison-overlap]
    assert type(client.request("watchdog").exception()) is NotConnected
    waiting = client.request("echo", "x", wait_connected=True, timeout=10)
    tick = client.wait_inform("sensor-status", lambda message: message.arguments[-1] == b"2", timeout=10)
    own.start()
    await client.wait_connected(timeout=5)
    assert (await waiting).arguments == [b"x"]
    assert client.protocol == peer.protocol
    assert heard[0] == "disconnected" and heard[-1] == "connected"
    assert set(heard[1:-1]) == {ConnectionRefusedError}  # type: ignore[comparison-overlap]
    await client.request("burst", 2)
    await tick
    assert statuses == [[b"ticker", b"nominal", b"%d" % i] for i in range(3)]


@pytest.mark.gen_test
async def test_kill_request(own: Any, make: Any) -> None:
    client = await make(own)
    lost = losses(client)
    with pytest.raises(ConnectionLost):
        await client.request("kill")
    assert type(lost[0]) in (DeviceDisconnected, ConnectionResetError)


@pytest.mark.needs("restart")
@pytest.mark.gen_test
async def test_restart_request(own: Any, make: Any) -> None:
    client = await make(own)
    lost = losses(client)
    assert (await client.request("restart")).arguments == []
    await client.wait_disconnected(timeout=5)
    assert type(lost[0]) is DeviceDisconnected and lost[0].reason
    await client.wait_connected(timeout=5)
    assert (await client.request("echo", "x")).arguments == [b"x"]
    assert own.process.poll() is None


@pytest.mark.gen_test
async def test_halt(own: Any, make: Any) -> None:
    client, other = await make(own), await make(own)
    lost, others = losses(client), losses(other)
    assert (await client.request("halt")).arguments == []
    for each, causes in [(client, lost), (other, others)]:
        await each.wait_disconnected(timeout=5)
        assert type(causes[0]) is DeviceDisconnected and causes[0].reason
    own.process.wait(5)


@pytest.mark.gen_test
async def test_terminated(own: Any, make: Any) -> None:
    client = await make(own)
    lost = losses(client)
    own.signal(signal.SIGTERM)
    await client.wait_disconnected(timeout=5)
    assert type(lost[0]) is DeviceDisconnected and lost[0].reason


@pytest.mark.gen_test
async def test_stopped_process_is_found_out(own: Any, make: Any, until: Any) -> None:
    client = await make(own, watchdog=0.3, watchdog_timeout=1)
    lost = losses(client)
    await until(lambda: client.stats.replies)
    assert client.is_connected, "the watchdog has asked, and had its answer"
    own.signal(signal.SIGSTOP)
    await client.wait_disconnected(timeout=5)
    assert type(lost[0]) is WatchdogTimeout
    own.signal(signal.SIGCONT)
    await client.wait_connected(timeout=15)
    assert (await client.request("echo", "x")).arguments == [b"x"]


# Several clients


@pytest.mark.gen_test
async def test_informs_for_all(shared: Any, make: Any) -> None:
    one, other = await make(shared), await make(shared)
    tick = other.wait_inform("tick", lambda message: message.arguments == [b"2"], timeout=5)
    await one.request("inform-all", "tick", 1)
    await one.request("inform-all", "tick", 2)
    assert (await tick).arguments == [b"2"]


@pytest.mark.needs("client-connected")
@pytest.mark.gen_test
async def test_client_connected(shared: Any, make: Any) -> None:
    one = await make(shared)
    heard = one.wait_inform("client-connected", timeout=5)
    await make(shared)
    await heard
