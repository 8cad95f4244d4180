"""F34 to F36: what becomes of requests, and of what comes too late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faults.fault_tools import ScriptedResolver
from tornado import gen

from katcp_tornado import ConnectionLost, DrainTimeout, NotConnected, RequestTimeout, State
from katcp_tornado.testing import Behaviour, Delay, Drop, FakeDevice, Raw, Silent, Stall, VirtualTimeLoop

# F34


@pytest.mark.parametrize("method", ["request", "request_raw"])
@pytest.mark.gen_test
async def test_f34_request_while_down(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, method: str
) -> None:
    device.stop()
    client = witnessed(device.host, device.port).client
    for cause in (type(None), ConnectionRefusedError):
        future = getattr(client, method)("echo", "x")
        assert future.done()
        exc = future.exception()
        assert type(exc) is NotConnected and isinstance(exc, ConnectionError)
        assert exc.sent is False
        assert isinstance(exc.__cause__, cause) and exc.__cause__ is client.last_exc
        await gen.sleep(0.5)
    device.start()
    await client.wait_connected()
    await client.request("watchdog")
    assert device.count("echo") == 0, "it was not kept"


@pytest.mark.gen_test
async def test_f34_request_before_the_version(device: FakeDevice, witnessed: Any) -> None:
    device.behaviour = Silent()
    client = witnessed(device.host, device.port).client
    await gen.sleep(1)
    assert client.state is State.NEGOTIATING
    assert type(client.request("echo").exception()) is NotConnected


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_f34_lost_in_flight(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, protocol: str) -> None:
    device.protocol = protocol
    witness = witnessed(device.host, device.port)
    client = witness.client
    await client.wait_connected()
    requests = [client.request("sleep", 1000), client.request("sleep", 1001), client.request("informs", 1)]
    device.on_request("informs", Stall())
    device.behaviour = Behaviour()
    settled = []
    for request in requests:
        request.add_done_callback(lambda request: settled.append((io_loop.now, request)))
    client.add_disconnected_callback(lambda: settled.append([request.done() for request in requests]))  # type: ignore[arg-type]
    await device.wait(lambda d: d.count("sleep"))
    device.kill()
    await client.wait_disconnected()
    assert settled == [[True, True, True]] + [(0, request) for request in requests], "before the listeners hear"
    ids = protocol == "5.1-MIB"
    for request, sent in zip(requests, (True, ids, True)):
        exc = request.exception()
        assert type(exc) is ConnectionLost and isinstance(exc, ConnectionResetError)
        assert exc.sent is sent
        assert ("may have been executed" if sent else "not sent") in str(exc)
        assert exc.__cause__ is client.last_exc
    device.start()
    await client.wait_connected()
    await client.request("watchdog")
    assert device.count("sleep") == (2 if ids else 1), "nothing is repeated"


@pytest.mark.gen_test
async def test_f34_waits_for_one_connection_only(device: FakeDevice, witnessed: Any) -> None:
    device.stop()
    client = witnessed(device.host, device.port).client
    request = client.request("sleep", 1000, wait_connected=True)
    await gen.sleep(10)
    device.start()
    await client.wait_connected()
    await device.wait(lambda d: d.count("sleep"))
    device.drop_all()
    await client.wait_disconnected()
    exc = request.exception()
    assert type(exc) is ConnectionLost and exc.sent is True
    await client.wait_connected()
    await gen.sleep(10)
    assert device.count("sleep") == 1


@pytest.mark.gen_test
async def test_f34_its_deadline_counts_while_it_waits(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any
) -> None:
    device.stop()
    client = witnessed(device.host, device.port).client
    with pytest.raises(RequestTimeout) as caught:
        await client.request("echo", wait_connected=True, timeout=5)
    assert caught.value.sent is False
    assert io_loop.now == pytest.approx(5)


# F35


@pytest.mark.parametrize("protocol", ["5.0-M", "4"])
@pytest.mark.gen_test
async def test_f35_late_reply(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, protocol: str) -> None:
    device.protocol = protocol
    client = witnessed(device.host, device.port).client
    await client.wait_connected()
    device.on_request("echo", Delay(5))
    with pytest.raises(RequestTimeout) as caught:
        await client.request("echo", "first", timeout=2)
    assert caught.value.sent is True
    second = client.request("echo", "second", timeout=10)
    assert (await client.request("add", 1, 2)).arguments == [b"3"], "another name does not wait"
    assert io_loop.now == pytest.approx(2)
    assert (await second).arguments == [b"second"]
    assert io_loop.now == pytest.approx(5)
    assert client.stats.unmatched_replies == 1
    assert client.stats.timeouts == 1


@pytest.mark.gen_test
async def test_f35_late_informs(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    device.protocol = "5.0-M"
    client = witnessed(device.host, device.port).client
    await client.wait_connected()
    heard = []
    client.add_inform_callback("informs", lambda message: heard.append(message.arguments))
    device.on_request("informs", Stall())
    with pytest.raises(RequestTimeout):
        await client.request("informs", 3, timeout=1)
    second = client.request("informs", 1)
    device.send_raw(b"#informs 0\n#informs 1\n#informs 2\n!informs ok 3\n")
    reply, informs = await second
    assert reply == [b"1"] and [inform.arguments for inform in informs] == [[b"0"]]
    assert heard == []
    assert client.stats.unmatched_replies == 4


@pytest.mark.gen_test
async def test_f35_the_reply_never_comes(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, record_property: Callable[[str, object], None]
) -> None:
    device.protocol = "5.0-M"
    witness = witnessed(device.host, device.port, drain_timeout=7)
    client = witness.client
    await client.wait_connected()
    device.on_request("echo", Silent())
    with pytest.raises(RequestTimeout):
        await client.request("echo", "first", timeout=2)
    second = client.request("echo", "second", timeout=100)
    third = client.request("echo", "third", timeout=3)
    with pytest.raises(RequestTimeout) as caught:
        await third
    assert caught.value.sent is False
    with pytest.raises(ConnectionLost) as caught:  # type: ignore[assignment]
        await second
    assert caught.value.sent is False
    assert isinstance(client.last_exc, DrainTimeout)
    assert io_loop.now == pytest.approx(9)
    record_property("detected_after", io_loop.now)
    await client.wait_connected()
    assert (await client.request("echo", "fourth")).arguments == [b"fourth"]
    assert witness.heard == ["connected", "disconnected", "connected"]


@pytest.mark.gen_test
async def test_f35_with_ids_nobody_waits(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    client = witnessed(device.host, device.port).client
    await client.wait_connected()
    device.on_request("echo", Delay(5))
    with pytest.raises(RequestTimeout):
        await client.request("echo", "first", timeout=2)
    assert (await client.request("echo", "second")).arguments == [b"second"]
    assert io_loop.now == pytest.approx(2)
    await gen.sleep(4)
    assert client.stats.unmatched_replies == 1
    assert client.is_connected


# F36


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M"])
@pytest.mark.gen_test
async def test_f36_reply_to_the_connection_before(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, protocol: str
) -> None:
    device.protocol = protocol
    client = witnessed(device.host, device.port).client
    await client.wait_connected()
    device.on_request("echo", Stall(), Stall())
    old = client.request("echo", "old")
    await client.request("watchdog")
    device.drop_all()
    await client.wait_disconnected()
    assert type(old.exception()) is ConnectionLost
    await client.wait_connected()
    device.send_raw(b"!echo[1] ok old\n!echo ok old\n")
    await io_loop.idle()
    assert client.stats.unmatched_replies == 2
    new = client.request("echo", "new")
    await gen.sleep(1)
    assert not new.done(), "nothing came for this one"
    assert client.is_connected


@pytest.mark.gen_test
async def test_f36_deadline_of_the_connection_before(device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port)
    client = witness.client
    await client.wait_connected()
    old = client.request("sleep", 1000, timeout=5)
    await device.wait(lambda d: d.count("sleep"))
    device.drop_all()
    await client.wait_connected(timeout=3)
    await client.wait_disconnected()
    await client.wait_connected()
    new = client.request("sleep", 1000, timeout=50)
    await gen.sleep(20)
    assert not new.done()
    assert type(old.exception()) is ConnectionLost
    assert client.stats.timeouts == 0
    assert witness.heard == ["connected", "disconnected", "connected"]


@pytest.mark.gen_test
async def test_f36_timers_of_the_attempt_before(device: FakeDevice, witnessed: Any) -> None:
    # The handshake deadline (10 s), and that of half a v4 greeting (1 s), die with their connection.
    device.script(Raw(b"#version x\n"), Silent(), Silent())
    witness = witnessed(device.host, device.port)
    await gen.sleep(0.5)
    device.drop_all()
    await gen.sleep(1.1)
    assert witness.client.state is State.NEGOTIATING
    device.drop_all()
    await gen.sleep(2.1)
    assert witness.client.state is State.NEGOTIATING
    began = witness.attempts[-1]
    assert began == pytest.approx(0.5 + 1 + 0.1 + 2)
    await gen.sleep(9.8)
    assert witness.heard == ["failed"] * 2
    await gen.sleep(0.2)
    assert witness.times[2] == pytest.approx(began + 10)


@pytest.mark.gen_test
async def test_f36_watchdog_of_the_connection_before(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any
) -> None:
    witness = witnessed(device.host, device.port, watchdog=5, watchdog_timeout=2)
    await witness.client.wait_connected()
    for connection in device.connections:
        connection.behaviour = Stall()
    await gen.sleep(6)
    assert witness.client.stats.requests == 1
    device.drop_all()
    await gen.sleep(1.5)  # it is up again, and the old one would have been declared dead by now
    assert witness.heard == ["connected", "disconnected", "connected"]
    assert device.count("watchdog") == 0
    await gen.sleep(4.4)
    assert device.count("watchdog") == 0, "5 s from the new connection on"
    await gen.sleep(0.2)
    assert device.count("watchdog") == 1


@pytest.mark.gen_test
async def test_f36_drain_of_the_connection_before(device: FakeDevice, witnessed: Any) -> None:
    device.protocol = "5.0-M"
    witness = witnessed(device.host, device.port, drain_timeout=5)
    client = witness.client
    await client.wait_connected()
    device.on_request("echo", Silent())
    client.request("echo", "x").cancel()
    await gen.sleep(3)
    device.drop_all()
    await gen.sleep(1.1)
    assert (await client.request("echo", "y")).arguments == [b"y"]
    await gen.sleep(100)
    assert witness.heard == ["connected", "disconnected", "connected"]


@pytest.mark.gen_test
async def test_f36_look_up_of_the_attempt_before(device: FakeDevice, witnessed: Any) -> None:
    # An answer that comes after its deadline, although it was cancelled.
    resolver = ScriptedResolver(None, [(device.host, device.port)])
    real, late = resolver.resolve, []

    async def resolve(*args: Any) -> Any:
        try:
            return await real(*args)
        except BaseException:  # it does not let itself be cancelled
            late.append(args)
            return [(2, (device.host, device.port))]

    resolver.resolve = resolve
    witness = witnessed("device.example", 7147, resolver=resolver)
    await witness.client.wait_connected()
    assert late == [("device.example", 7147)]
    assert witness.heard == ["failed", "connected"]
    assert device.accepted == 1


@pytest.mark.gen_test
async def test_f36_callback_of_the_connection_before(device: FakeDevice, witnessed: Any) -> None:
    # A coroutine callback that goes on when its connection has long gone acts on the one that is there now.
    client = witnessed(device.host, device.port).client
    outcomes = []

    async def connected() -> None:
        generation = client.stats.generation
        await gen.sleep(0.5)
        outcomes.append((generation == client.stats.generation, client.is_connected))

    client.add_connected_callback(connected)
    await client.wait_connected()
    device.drop_all()
    await gen.sleep(3)
    assert outcomes == [(False, False), (True, True)]


@pytest.mark.gen_test
async def test_f36_stale_end_of_file(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    # close() and the end of file of the same link, in one turn, in both orders.
    for first in ("client", "device"):
        device.script()
        witness = witnessed(device.host, device.port)
        await witness.client.wait_connected()
        if first == "client":
            witness.client.close()
            device.drop_all()
        else:
            device.drop_all()
            witness.client.close()
        await io_loop.idle()
        assert witness.heard == ["connected", "disconnected"]


@pytest.mark.gen_test
async def test_f36_drop_is_no_failure_of_the_next(device: FakeDevice, witnessed: Any) -> None:
    device.script(Drop(), Drop(after_version=True))
    witness = witnessed(device.host, device.port)
    await gen.sleep(100)
    assert witness.heard == ["failed", "connected", "disconnected", "connected"]
