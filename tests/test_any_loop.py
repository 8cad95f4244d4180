"""The client on the loops that users have: asyncio's own and uvloop, with real sockets and the real clock.

With ``--uvloop`` all tests that use the real clock run on uvloop; these run on both in any case.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Callable

import pytest
from blocking_tools import serving
from tls_tools import MIB, client_context, server_context
from tornado import gen
from tornado.ioloop import IOLoop

from katcp_tornado import Backoff, Client, ConnectionLost, FailReply, RequestTimeout, State, WatchdogTimeout
from katcp_tornado.blocking import BlockingClient
from katcp_tornado.testing import FakeDevice, Reset, Silent
from katcp_tornado.transport.timers import Timer

pytestmark = pytest.mark.real_time

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def policy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The policy that makes such loops, in force."""
    if request.param == "uvloop":
        new: Any = pytest.importorskip("uvloop", reason="uvloop is not installed").EventLoopPolicy()
    elif sys.version_info >= (3, 14):
        new = asyncio.events._DefaultEventLoopPolicy()  # type: ignore[attr-defined]
    else:
        new = asyncio.DefaultEventLoopPolicy()
    old = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(new)
    yield new
    asyncio.set_event_loop_policy(old)


@pytest.fixture
def run(policy: Any, loop_errors: list[str]) -> Iterator[Run]:
    asyncio.set_event_loop(asyncio.new_event_loop())
    io_loop = IOLoop.current()
    loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop  # type: ignore[attr-defined]
    loop.set_exception_handler(lambda _, context: loop_errors.append(str(context)))
    yield lambda test: io_loop.run_sync(test, timeout=20)
    io_loop.close(all_fds=True)
    asyncio.set_event_loop(None)


def test_a_day_of_a_client(run: Run) -> None:
    """Connects, asks, hears, is refused, loses the link, comes back, and closes."""
    heard: list[Any] = []

    async def test() -> None:
        with FakeDevice() as device:
            async with Client(device.host, device.port, backoff=Backoff(first=0.2)) as client:
                client.add_state_callback(lambda old, new: heard.append(new))
                client.add_inform_callback("note", lambda message: heard.append(message.arguments))
                await client.wait_connected(5)
                replies = await asyncio.gather(*[client.request("echo", i) for i in range(500)])
                assert [reply.arguments for reply in replies] == [[b"%d" % i] for i in range(500)]
                with pytest.raises(FailReply):
                    await client.request("fail", "no")
                assert (await client.request("echo", "x" * 3 * MIB)).arguments == [b"x" * 3 * MIB]
                device.send_raw(b"#note a\n#note b\n")
                device.on_request("echo", Silent())
                lost = client.request("echo", 1)
                await gen.sleep(0.05)
                device.drop_all()
                with pytest.raises(ConnectionLost):
                    await lost
                await client.wait_connected(5)
                device.on_request("echo", Silent())
                with pytest.raises(RequestTimeout):
                    await client.request("echo", 2, timeout=0.05)
            assert client.state is State.CLOSED

    run(test)
    up = [State.NEGOTIATING, State.CONNECTED]
    assert (
        heard
        == [State.CONNECTING, *up, [b"a"], [b"b"], State.SLEEPING, State.CONNECTING, *up, State.CLOSED][
            heard[0] is not State.CONNECTING :
        ]
    )


def test_over_tls(run: Run) -> None:
    async def test() -> None:
        with FakeDevice(ssl_options=server_context()) as device:
            async with Client("localhost", device.port, ssl_options=client_context()) as client:
                await client.wait_connected(5)
                assert (await client.request("echo", "x" * 3 * MIB)).arguments == [b"x" * 3 * MIB]
                device.drop_all()
                await client.wait_disconnected(5)

    run(test)


@pytest.mark.parametrize("behaviour", [Silent(), Reset()], ids=["silent", "reset"])
def test_attempts_go_on(run: Run, behaviour: Any) -> None:
    async def test() -> None:
        with FakeDevice() as device:
            behaving, device.behaviour = device.behaviour, behaviour
            failures: list[BaseException] = []
            options: dict[str, Any] = {"handshake_timeout": 0.05, "backoff": Backoff(first=0.05, minimum=0.01)}
            async with Client(device.host, device.port, **options) as client:
                client.add_failed_connect_callback(failures.append)
                while len(failures) < 4:
                    await gen.sleep(0.02)
                device.behaviour = behaving
                await client.wait_connected(10)

    run(test)


def test_a_hung_device(run: Run) -> None:
    async def test() -> None:
        with FakeDevice() as device:
            device.on_request("watchdog", Silent())
            async with Client(device.host, device.port, watchdog=0.05, watchdog_timeout=0.05) as client:
                await client.wait_connected(5)
                await client.wait_disconnected(5)
                assert type(client.last_exc) is WatchdogTimeout

    run(test)


def test_a_timer_after_a_stall_lets_the_loop_read_first(run: Run) -> None:
    """What came while somebody's callback held up the loop counts, before a deadline that passed meanwhile does."""
    order: list[str] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair(), socket.socketpair()]

        def hold_up() -> None:
            pairs[0][0].recv(9)
            pairs[1][1].send(b"in time")
            time.sleep(1.1)

        loop.add_reader(pairs[0][0], hold_up)  # after this, loops look at their timers first
        loop.add_reader(pairs[1][0], lambda: order.append(f"read {pairs[1][0].recv(9)!r}"))
        timer = Timer(loop, lambda: order.append("fired"))
        timer.start(0.01)
        pairs[0][1].send(b"now")
        while len(order) < 2:
            await gen.sleep(0.3)
        for ours, theirs in pairs:
            loop.remove_reader(ours)
            ours.close()
            theirs.close()

    run(test)
    assert order == ["read b'in time'", "fired"]


def test_blocking(policy: Any) -> None:
    """The loop in a thread of its own is of the same kind."""
    with serving() as served, BlockingClient("127.0.0.1", served.port) as client:
        client.wait_connected(timeout=5)
        assert client.request("echo", 1).arguments == [b"1"]
        ours = type(client.call(lambda: IOLoop.current().asyncio_loop)).__module__  # type: ignore[attr-defined]
        assert ours.startswith("uvloop") == type(policy).__module__.startswith("uvloop")
