"""The deadlines that the device itself names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sensor_tools import asked
from tornado import gen

from katcp_tornado import Client, Message, RequestTimeout
from katcp_tornado.testing import Answer, RequestContext, Silent, Stall, VirtualTimeLoop

HINT = "request-timeout-hint"


@pytest.fixture
def device(device: Any) -> Any:
    device.protocol = "5.1-MIT"
    device.timeout_hints.update({"echo": 3.0, "sleep": 100.0, "add": 0.0})
    return device


@pytest.fixture
def client(io_loop: VirtualTimeLoop, connect: Callable[..., Client], device: Any) -> Any:
    client = connect(timeout_hints=True)
    io_loop.run_sync(client.wait_connected)
    io_loop.run_sync(io_loop.idle)
    return client


@pytest.fixture
def patience(io_loop: VirtualTimeLoop, device: Any) -> Any:
    """``await patience(client, name)``: how long a request waits that gets no reply."""

    async def patience(client: Client, name: Any, **options: Any) -> Any:
        device.on_request(name, Silent())
        began = io_loop.now
        with pytest.raises(RequestTimeout):
            await client.request(name, **options)
        return round(io_loop.now - began, 3)

    return patience


@pytest.mark.gen_test
async def test_a_request_waits_as_long_as_the_device_says(device: Any, client: Any, patience: Any) -> None:
    assert asked(device, HINT) == [""]
    assert await patience(client, "echo") == 3
    assert await patience(client, "add") == 30, "0: there is none"
    assert await patience(client, "watchdog") == 30


@pytest.mark.gen_test
async def test_a_timeout_of_ones_own_counts(client: Any, patience: Any) -> None:
    assert await patience(client, "echo", timeout=7) == 7
    device_hint_ignored = client.request("sleep", 200, timeout=None)
    await gen.sleep(150)
    assert not device_hint_ignored.done()


@pytest.mark.gen_test
async def test_a_longer_one(client: Any) -> None:
    with pytest.raises(RequestTimeout):
        await client.request("sleep", 101)
    await client.request("sleep", 99)


@pytest.mark.parametrize("options", [{}, {"timeout_hints": False}])
@pytest.mark.gen_test
async def test_without_the_option(device: Any, connect: Callable[..., Client], patience: Any, options: Any) -> None:
    client = connect(**options)
    await client.wait_connected()
    assert await patience(client, "echo") == 30
    assert asked(device, HINT) == []


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_without_the_flag(
    io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client], patience: Any, protocol: str
) -> None:
    device.protocol = protocol
    client = connect(timeout_hints=True)
    await client.wait_connected()
    device.inform_all("interface-changed", "request-list")
    await io_loop.idle()
    assert asked(device, HINT) == []
    assert await patience(client, "echo") == 30


@pytest.mark.parametrize("args", [("request-list",), (), ("request", "echo", "modified")])
@pytest.mark.gen_test
async def test_the_requests_have_changed(
    io_loop: VirtualTimeLoop, device: Any, client: Any, patience: Any, args: Any
) -> None:
    device.timeout_hints.clear()
    device.timeout_hints["add"] = 5
    device.inform_all("interface-changed", *args)
    await io_loop.idle()
    assert asked(device, HINT) == ["", ""]
    assert await patience(client, "echo") == 30
    assert await patience(client, "add") == 5


@pytest.mark.parametrize("args", [("sensor-list",), ("sensor", "a", "added")])
@pytest.mark.gen_test
async def test_the_sensors_have_changed(io_loop: VirtualTimeLoop, device: Any, client: Any, args: Any) -> None:
    device.inform_all("interface-changed", *args)
    await io_loop.idle()
    assert asked(device, HINT) == [""]


@pytest.mark.gen_test
async def test_another_connection(io_loop: VirtualTimeLoop, device: Any, client: Any, patience: Any) -> None:
    device.protocol = "5.1-MI"
    device.drop_all()
    await client.wait_disconnected()
    assert client._link.pending.timeouts == {}
    await client.wait_connected()
    assert await patience(client, "echo") == 30, "which has no flag T"
    device.protocol = "5.1-MIT"
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    await io_loop.idle()
    assert await patience(client, "echo") == 3


@pytest.mark.gen_test
async def test_the_answer_of_a_connection_that_was_lost(
    io_loop: VirtualTimeLoop, device: Any, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    device.on_request(HINT, Stall(), Stall())
    client = connect(timeout_hints=True)
    await client.wait_connected()
    await io_loop.idle()
    device.drop_all()
    await client.wait_disconnected()
    await client.wait_connected()
    await io_loop.idle()
    assert client._link.pending.timeouts == {}
    assert HINT not in caplog.text


@pytest.mark.gen_test
async def test_it_is_refused(
    io_loop: VirtualTimeLoop,
    device: Any,
    connect: Callable[..., Client],
    patience: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    device.on_request(HINT, Answer("fail", "never heard of it"))
    client = connect(timeout_hints=True)
    await client.wait_connected()
    assert await patience(client, "echo") == 30
    assert "never heard of it" in caplog.text


@pytest.mark.gen_test
async def test_odd_hints(
    io_loop: VirtualTimeLoop,
    device: Any,
    connect: Callable[..., Client],
    patience: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @device.request(HINT)  # type: ignore[untyped-decorator]
    def hints(context: RequestContext, message: Message) -> None:
        for args in (("a", "soon"), ("b",), (), ("c", -1), ("d", "nan"), ("e", "inf"), ("echo", "2", "more")):
            context.inform(*args)

    client = connect(timeout_hints=True)
    await client.wait_connected()
    await io_loop.idle()
    assert client._link.pending.timeouts == {b"echo": 2.0}
    assert await patience(client, "echo") == 2
    assert "#request-timeout-hint" in caplog.text


@pytest.mark.gen_test
async def test_no_request_is_counted_before_there_is_a_connection(connect: Callable[..., Client], device: Any) -> None:
    client = connect(timeout_hints=True)
    client.close()
    await client.wait_closed()
    assert client.stats.requests == 0
