"""How a FakeDevice executes a request: when it is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from katcp_tornado import Client, Message
from katcp_tornado.testing import Behaviour, FakeDevice, RequestContext, Silent, VirtualTimeLoop


@pytest.fixture
def client(io_loop: VirtualTimeLoop, katcp_device: Any) -> Iterator[Any]:
    with Client(katcp_device.host, katcp_device.port) as client:
        io_loop.run_sync(client.wait_connected)
        yield client


@pytest.mark.gen_test
async def test_a_request_is_seen_before_it_is_executed(katcp_device: Any, client: Any) -> None:
    seen = []
    in_flight = katcp_device.wait(lambda device: device.count("work"))

    @katcp_device.request("work")  # type: ignore[untyped-decorator]
    def work(context: RequestContext, message: Message) -> None:
        seen.append(in_flight.done())

    await client.request("work")
    assert seen == [True]


@pytest.mark.gen_test
async def test_a_request_is_seen_before_its_reply(katcp_device: Any, client: Any) -> None:
    seen = []
    in_flight = katcp_device.wait(lambda device: device.count("echo"))

    class Slow(Behaviour):
        def reply(self, context: RequestContext, reply: Any) -> None:
            seen.append(in_flight.done())
            context.connection.call_later(60, super().reply, context, reply)

    katcp_device.on_request("echo", Slow())
    future = client.request("echo", timeout=None)
    await in_flight
    assert not future.done()
    assert seen == [True]
    await future


@pytest.mark.gen_test
async def test_a_request_that_is_not_known_is_seen_too(katcp_device: Any, client: Any) -> None:
    katcp_device.on_request("nonsense", Silent())
    future = client.request_raw("nonsense")
    await katcp_device.wait(lambda device: device.count("nonsense"))
    assert not future.done()
    future.cancel()


@pytest.mark.gen_test
async def test_what_is_waited_for_may_stop_the_device(io_loop: VirtualTimeLoop, katcp_device: Any, client: Any) -> None:
    def condition(device: FakeDevice) -> bool:
        if device.count("echo") and device.running:
            device.kill()
        return not device.running

    future = client.request("echo", "hello")
    await katcp_device.wait(condition)
    with pytest.raises(ConnectionResetError):
        await future
