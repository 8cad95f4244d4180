"""F37 to F40: one attempt only, bad networks, two connections, and impatience."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from faults.fault_tools import ScriptedResolver, blackhole, syn_sent
from tornado import gen

from katcp_tornado import (
    Backoff,
    ConnectTimeout,
    DeviceDisconnected,
    HandshakeTimeout,
    LineTooLong,
    NotConnected,
    ProtocolError,
    State,
    WatchdogTimeout,
)
from katcp_tornado.testing import (
    Banner,
    Behaviour,
    Disconnect,
    Drip,
    Drop,
    EndlessLine,
    FakeDevice,
    Partial,
    Raw,
    Reset,
    Silent,
    Stall,
    VirtualTimeLoop,
)

# F37

NO_NAME = ScriptedResolver(socket.gaierror(socket.EAI_NONAME, "no such name"))
#: From a name to how the device behaves, options, the cause, and after how many seconds at most it is known.
ONE_ATTEMPT = {
    "f01 refused": (None, {}, ConnectionRefusedError, 0),
    "f02 black hole": (blackhole, {}, ConnectTimeout, 10),
    "f03 unreachable": ("connect_ex", {}, OSError, 0),
    "f04 no such name": (Behaviour(), {"resolver": NO_NAME}, socket.gaierror, 0),
    "f06 look-up hangs": (Behaviour(), {"resolver": ScriptedResolver(None)}, ConnectTimeout, 10),
    "f09 never speaks": (Silent(), {}, HandshakeTimeout, 10),
    "f10 hangs up": (Drop(), {}, DeviceDisconnected, 0),
    "f10 resets": (Reset(), {}, ConnectionResetError, 0),
    "f11 wrong version": (Banner("#version-connect katcp-protocol 6.0"), {}, ProtocolError, 0),
    "f12 another protocol": (Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), {}, HandshakeTimeout, 10),
    "f13 endless line": (EndlessLine(), {}, LineTooLong, 1),
    "f14 slow drip": (Drip(1.0), {}, HandshakeTimeout, 10),
    "f15 half a banner": (Partial(20), {}, DeviceDisconnected, 0),
}
#: The same for links that come up first.
ONE_LINK = {
    "f13 endless line": (EndlessLine(after_version=True), {"limit": 100_000}, LineTooLong, 1),
    "f15 hangs up": (Drop(after_version=True), {}, DeviceDisconnected, 0),
    "f16 resets": (None, {}, ConnectionResetError, 0),
    "f17 disconnects": (Disconnect("bye"), {}, DeviceDisconnected, 0),
    "f20 hangs": (Stall(), {"watchdog": 5, "watchdog_timeout": 2}, WatchdogTimeout, 7),
}


async def it_is_over(io_loop: VirtualTimeLoop, device: FakeDevice, witness: Any, error: Any) -> None:
    """One attempt was made, and there will be no other."""
    client = witness.client
    assert client.state is State.CLOSED
    assert isinstance(client.last_exc, error)
    assert client.stats.attempts == 1
    with pytest.raises(error) as caught:
        await client.wait_connected()
    assert caught.value is not client.last_exc, "each has an exception of his own"
    assert str(caught.value) == str(client.last_exc)
    assert type(client.request("echo").exception()) is NotConnected
    await client.wait_closed()
    await io_loop.idle()
    assert device.connections == []
    device.behaviour = Behaviour()
    device.start()
    accepted, heard = device.accepted, list(witness.heard)
    client.retry_now()
    await gen.sleep(1000)
    assert (client.stats.attempts, device.accepted, witness.heard) == (1, accepted, heard)


@pytest.mark.parametrize("fault", ONE_ATTEMPT)
@pytest.mark.gen_test
async def test_f37_one_attempt(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    behaviour, options, error, within = ONE_ATTEMPT[fault]
    host, port = device.host, device.port
    with contextlib.ExitStack() as stack:
        if behaviour is None:
            device.stop()
        elif behaviour is blackhole:
            host, port = stack.enter_context(blackhole()).getsockname()
        elif behaviour == "connect_ex":
            patch = stack.enter_context(monkeypatch.context())
            patch.setattr(socket.socket, "connect_ex", lambda sock, address: errno.ENETUNREACH)
        else:
            device.behaviour = behaviour  # type: ignore[assignment]
        witness = witnessed(host, port, auto_reconnect=False, **options)
        waiting = witness.client.request("echo", wait_connected=True, timeout=100)
        with pytest.raises(error):
            await witness.client.wait_connected()
        assert io_loop.now <= within
        exc = waiting.exception()
        assert type(exc) is NotConnected and exc.__cause__ is witness.client.last_exc
    assert witness.heard == ["failed"]
    assert witness.failures == [witness.client.last_exc]
    await it_is_over(io_loop, device, witness, error)


@pytest.mark.parametrize("fault", ONE_LINK)
@pytest.mark.gen_test
async def test_f37_one_link(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, fault: Any) -> None:
    behaviour, options, error, within = ONE_LINK[fault]
    if behaviour is not None:
        device.behaviour = behaviour
    witness = witnessed(device.host, device.port, auto_reconnect=False, **options)
    if behaviour is None:
        await witness.client.wait_connected()
        device.kill()
    await gen.sleep(within + 0.1)
    assert witness.heard == ["connected", "disconnected"]
    assert witness.losses == [witness.client.last_exc]
    await it_is_over(io_loop, device, witness, error)


@pytest.mark.gen_test
async def test_f37_it_works(device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port, auto_reconnect=False)
    assert (await witness.client.request("echo", "x", wait_connected=True)).arguments == [b"x"]
    assert witness.client.auto_reconnect is False
    await gen.sleep(1000)
    assert witness.heard == ["connected"]


# F38


@pytest.mark.gen_test
async def test_f38_latency(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, relay: Any) -> None:
    link = relay(latency=0.5)
    client = witnessed("127.0.0.1", link.port, watchdog=2, watchdog_timeout=2).client
    await client.wait_connected()
    assert io_loop.now == pytest.approx(0.5)
    assert (await client.request("echo", "x")).arguments == [b"x"]
    assert io_loop.now == pytest.approx(1.5)
    # A hundred at once take no longer than one.
    replies = await gen.multi([client.request("echo", n) for n in range(100)])
    assert [reply.arguments for reply in replies] == [[b"%d" % n] for n in range(100)]
    assert io_loop.now == pytest.approx(2.5)
    await gen.sleep(100)
    assert client.is_connected


@pytest.mark.gen_test
async def test_f38_bandwidth(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, relay: Any) -> None:
    link = relay(bandwidth=1000, slice=100)
    witness = witnessed("127.0.0.1", link.port, watchdog=2, watchdog_timeout=1)
    client = witness.client
    await client.wait_connected()
    start = io_loop.now
    assert (await client.request("echo", b"x" * 5000, timeout=100)).arguments == [b"x" * 5000]
    assert io_loop.now - start == pytest.approx(10, abs=0.3)  # 5 s there and 5 s back
    assert witness.heard == ["connected"]


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_f38_single_bytes(device: FakeDevice, witnessed: Any, relay: Any, protocol: str) -> None:
    device.protocol = protocol
    link = relay(slice=1)
    witness = witnessed("127.0.0.1", link.port)
    client = witness.client
    heard = []
    client.add_inform_callback("tick", lambda message: heard.append(message.arguments))
    await client.wait_connected()
    device.inform_all("tick", "a b", b"\0\n\r\x1b\t\\", "")
    reply, informs = await client.request("informs", 50)
    assert reply == [b"50"]
    assert [inform.arguments for inform in informs] == [[b"%d" % n] for n in range(50)]
    everything = bytes(range(256))
    assert (await client.request("echo", everything, "")).arguments == [everything, b""]
    assert heard == [[b"a b", b"\0\n\r\x1b\t\\", b""]]
    assert client.stats.malformed == client.stats.unmatched_replies == 0
    assert witness.heard == ["connected"]


@pytest.mark.gen_test
async def test_f38_all_of_it(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, relay: Any) -> None:
    link = relay(latency=0.5, bandwidth=1000, slice=1)
    witness = witnessed("127.0.0.1", link.port)
    _, informs = await witness.client.request("help", wait_connected=True)
    assert len(informs) > 10
    assert io_loop.now > 1
    assert witness.heard == ["connected"]


@pytest.mark.gen_test
async def test_f38_too_slow_a_line_is_a_hung_device(device: FakeDevice, witnessed: Any, relay: Any) -> None:
    link = relay(latency=11)
    witness = witnessed("127.0.0.1", link.port)
    await gen.sleep(10.5)
    assert [type(exc) for exc in witness.failures] == [HandshakeTimeout]


# F39


@pytest.mark.gen_test
async def test_f39_the_nat_forgets(
    device: FakeDevice, witnessed: Any, relay: Any, record_property: Callable[[str, object], None]
) -> None:
    link = relay()
    witness = witnessed("127.0.0.1", link.port, watchdog=5, watchdog_timeout=5)
    client = witness.client
    for count in range(1, 6):
        await client.wait_connected()
        lost = client.io_loop.now
        request = client.request("sleep", 1000, timeout=3)
        await device.wait(lambda d, count=count: d.count("sleep") == count)  # type: ignore[misc]
        link.forget()
        await client.wait_disconnected()
        record_property("detected_after", client.io_loop.now - lost)
        assert isinstance(client.last_exc, WatchdogTimeout)
        assert request.done()
        await client.io_loop.idle()
        assert link.pairs == [], "no dead connection is kept"
    await client.wait_connected()
    assert len(link.pairs) == 1
    # The device believes in all of them; what it says to the dead ones reaches nobody.
    assert len(device.connections) == 6
    heard = []
    client.add_inform_callback("tick", lambda message: heard.append(message.arguments))
    device.inform_all("tick")
    assert (await client.request("echo", "x")).arguments == [b"x"]
    assert heard == [[]]


@pytest.mark.slow  # the system sends its SYN again after a second
@pytest.mark.real_time
@pytest.mark.gen_test
async def test_f39_two_addresses_answer_at_once(witnessed: Any) -> None:
    # The loop is held up until TCP is up to both of the two addresses: one is used, the other one closed.
    with blackhole("127.0.0.2") as one, blackhole("127.0.0.3") as two:
        holes = (one, two)
        resolver = ScriptedResolver([hole.getsockname() for hole in holes])
        client = witnessed("device.example", 7147, resolver=resolver).client
        while sum(syn_sent(hole.getsockname()[1]) for hole in holes) < 2:
            await gen.sleep(0.01)
        with contextlib.ExitStack() as stack:
            accepted = []

            def accept_all() -> None:
                for hole in holes:
                    while select.select([hole], [], [], 0)[0]:
                        accepted.append(stack.enter_context(hole.accept()[0]))
                        accepted[-1].setblocking(False)

            deadline = time.monotonic() + 10
            while sum(syn_sent(hole.getsockname()[1]) for hole in holes) and time.monotonic() < deadline:
                accept_all()  # makes room
                time.sleep(0.01)  # noqa: ASYNC251
            accept_all()
            assert len({sock.getsockname() for sock in accepted}) == 2
            await gen.sleep(0.05)
            assert client.state is State.NEGOTIATING
            alive = []
            for sock in accepted:
                try:
                    assert sock.recv(1) == b""
                except BlockingIOError:
                    sock.sendall(b"#version-connect katcp-protocol 5.1-MIB\n")
                    alive.append(sock)
            await client.wait_connected(timeout=5)
            client.close()
            await client.wait_closed()
            ours = []
            for sock in alive:
                with contextlib.suppress(BlockingIOError):
                    ours.append(sock.recv(1))
            assert ours == [b""], "one of those that were alive was ours, and it is closed now"


@pytest.mark.gen_test
async def test_f39_one_client_at_a_time(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    # A device for a single client throws out the old one: two clients must not storm it.
    device.protocol = "5.0"
    witnesses = [witnessed(device.host, device.port, backoff=Backoff()) for _ in range(2)]
    await gen.sleep(600)
    assert device.accepted <= 120
    assert len(device.connections) <= 1
    for witness in witnesses:
        assert "connected" in witness.heard


# F40


@pytest.mark.parametrize("state", ["fresh", "CONNECTING", "NEGOTIATING", "CONNECTED", "CLOSED"])
@pytest.mark.gen_test
async def test_f40_retry_now_does_nothing(device: FakeDevice, witnessed: Any, state: str) -> None:
    options, address = {}, (device.host, device.port)
    if state == "CONNECTING":
        address, options = ("device.example", 7147), {"resolver": ScriptedResolver(None)}
    elif state == "NEGOTIATING":
        device.behaviour = Silent()
    witness = witnessed(*address, **options)
    client = witness.client
    if state != "fresh":
        await gen.sleep(1)
    if state == "CLOSED":
        client.close()
    before, stats = client.state, client.stats
    assert before.name == {"fresh": "CONNECTING"}.get(state, state)
    for _ in range(1000):
        assert client.retry_now() is None
    assert client.state is before and client.stats == stats
    await gen.sleep(1)
    assert client.stats.attempts == max(stats.attempts, 1)
    assert len(witness.attempts) == 1


@pytest.mark.gen_test
async def test_f40_retry_now_ends_the_sleep(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.stop()
    witness = witnessed(device.host, device.port)
    client = witness.client
    await gen.sleep(20)
    assert client.state is State.SLEEPING
    assert client.stats.consecutive_failures == 5
    assert client.stats.next_attempt_in == pytest.approx(11)
    for _ in range(1000):
        assert client.retry_now() is None
    await gen.sleep(0.01)
    assert witness.attempts[5:] == [pytest.approx(20)], "one attempt, at once"
    # The failures are counted anew.
    assert client.stats.consecutive_failures == 1
    await gen.sleep(8)
    assert witness.attempts[5:] == pytest.approx([20, 21, 23, 27])


@pytest.mark.gen_test
async def test_f40_retry_now_all_the_time(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.stop()
    witness = witnessed(device.host, device.port)
    client = witness.client
    # As impatient as can be; but not without end, lest a client that gives in to it never lets the clock move on.
    client.add_failed_connect_callback(lambda exc: client.retry_now() if len(witness.attempts) < 1000 else None)
    for _ in range(1000):
        client.retry_now()
        await gen.sleep(0.01)
    distances = [later - earlier for earlier, later in zip(witness.attempts, witness.attempts[1:])]
    assert min(distances) >= 0.1 - 1e-9, "attempts keep the least distance"
    assert max(distances) <= 0.11
    timers = [timer for timer in io_loop.asyncio_loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert len(timers) <= 3
    device.start()
    await client.wait_connected()


@pytest.mark.gen_test
async def test_f40_retry_now_never_makes_it_later(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    # The sleep would have been shorter than the backoff's minimum, because its ceiling is.
    device.stop()
    witness = witnessed(device.host, device.port, backoff=Backoff(first=0.05, maximum=0.05, minimum=0.1))
    await gen.sleep(0.01)
    due = witness.client.stats.next_attempt_in
    assert due == pytest.approx(0.04)
    witness.client.retry_now()
    assert witness.client.stats.next_attempt_in <= due


@pytest.mark.gen_test
async def test_f40_retry_now_after_a_loss(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    await gen.sleep(1)
    device.drop_all()
    await witness.client.wait_disconnected()
    witness.client.retry_now()
    await witness.client.wait_connected()
    assert io_loop.now == pytest.approx(1)
