"""F15 to F17: the device ends a connection that was good."""

from __future__ import annotations

from typing import Any

import pytest

from katcp_tornado import ConnectionLost, DeviceDisconnected, State
from katcp_tornado.testing import Behaviour, Disconnect, FakeDevice, Partial, Raw, RequestContext, VirtualTimeLoop


class Farewell(Behaviour):
    """Sends these bytes in place of the reply, and hangs up."""

    def __init__(self, data: Any, *, reset: bool = False) -> None:
        self.data = data
        self.reset = reset

    def reply(self, context: RequestContext, reply: Any) -> None:
        context.connection.write(self.data)
        context.connection.close(reset=self.reset)


def settled(futures: Any) -> Any:
    """What each of the Futures was settled with, in the order in which that happened."""
    order = []
    for index, future in enumerate(futures):
        future.add_done_callback(lambda future, index=index: order.append((index, future.exception())))
    return order


# F15


@pytest.mark.parametrize("protocol", ["5.1-MIB", "5.0-M", "4"])
@pytest.mark.gen_test
async def test_f15_end_of_file_within_a_message(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any, protocol: str
) -> None:
    device.protocol = protocol
    witness = witnessed(device.host, device.port)
    client = witness.client
    await client.wait_connected()
    device.on_request("echo", Partial())
    requests = [client.request("sleep", 1000), client.request("echo", "x"), client.request("echo", "y")]
    order = settled(requests)
    waiter = client.wait_inform("never")
    await client.wait_disconnected()
    assert io_loop.now == 0
    assert [index for index, _ in order] == [0, 1, 2]
    for _, exc in order:
        assert type(exc) is ConnectionLost
        assert exc.__cause__ is client.last_exc
    assert [exc.sent for _, exc in order] == [True, True, protocol == "5.1-MIB"]
    assert type(client.last_exc) is DeviceDisconnected and client.last_exc.reason is None
    await client.wait_connected()
    assert io_loop.now == pytest.approx(1)
    assert (await client.request("echo", "z")).arguments == [b"z"]
    assert [message.arguments for _, message in device.received if message.name == "echo"][-1] == [b"z"]
    assert device.count("echo") == 2, "no request is repeated"
    assert client.stats.malformed == client.stats.unmatched_replies == 0
    assert not waiter.done()
    assert witness.heard == ["connected", "disconnected", "connected"]
    waiter.cancel()


@pytest.mark.gen_test
async def test_f15_end_of_file_within_the_banner(device: FakeDevice, witnessed: Any) -> None:
    device.script(Partial(20))
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    assert [type(exc) for exc in witness.failures] == [DeviceDisconnected]
    assert witness.client.stats.malformed == 0


@pytest.mark.gen_test
async def test_f15_end_of_file_behind_the_reply(device: FakeDevice, witnessed: Any) -> None:
    # What came before the end counts.
    witness = witnessed(device.host, device.port)
    client = witness.client
    await client.wait_connected()
    heard = []
    client.add_inform_callback("tick", lambda message: heard.append((message.arguments, client.state)))
    device.on_request("echo", Farewell(b"#tick 1\n!echo[1] ok last\n#tick 2\n#tick 3"))
    request = client.request("echo", "x")
    await client.wait_disconnected()
    assert heard == [([b"1"], State.CONNECTED), ([b"2"], State.CONNECTED)]
    assert request.result().arguments == [b"last"]


# F16


@pytest.mark.gen_test
async def test_f16_reset_within_a_message(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port)
    client = witness.client
    await client.wait_connected()
    heard = []
    client.add_inform_callback("tick", lambda message: heard.append(message.arguments))
    client.add_disconnected_callback(lambda: heard.append("disconnected"))
    device.on_request("add", Farewell(b"#tick 1\n!add[2] ok 3\n#tick 2\n#tick", reset=True))
    requests = [client.request("sleep", 1000), client.request("add", 1, 2)]
    order = settled(requests)
    await client.wait_disconnected()
    assert heard == [[b"1"], [b"2"], "disconnected"]
    assert requests[1].result().arguments == [b"3"]
    assert isinstance(order[1][1] or order[0][1], ConnectionLost)
    assert type(client.last_exc) is ConnectionResetError
    assert requests[0].exception().__cause__ is client.last_exc
    await client.wait_connected()
    assert io_loop.now == pytest.approx(1)


@pytest.mark.gen_test
async def test_f16_reset_found_while_writing(device: FakeDevice, witnessed: Any) -> None:
    # The request is the first to meet the reset: still, what had come before is delivered, and the cause is told.
    witness = witnessed(device.host, device.port)
    client = witness.client
    await client.wait_connected()
    heard = []
    client.add_inform_callback("tick", lambda message: heard.append(message.arguments))
    client.add_disconnected_callback(lambda: heard.append("disconnected"))
    device.send_raw(b"#tick 1\n#tick 2\n#ti")
    device.drop_all(reset=True)
    request = client.request("echo", "x")
    await client.wait_disconnected()
    assert heard == [[b"1"], [b"2"], "disconnected"]
    assert isinstance(request.exception(), ConnectionLost)
    assert isinstance(client.last_exc, (ConnectionResetError, BrokenPipeError))
    assert not isinstance(client.last_exc, DeviceDisconnected), "it was a reset, not an end of file"
    assert witness.heard == ["connected", "disconnected"]


@pytest.mark.gen_test
async def test_f16_reset_within_the_banner(device: FakeDevice, witnessed: Any) -> None:
    device.script(Partial(20, reset=True))
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    assert [type(exc) for exc in witness.failures] == [ConnectionResetError]


# F17


@pytest.mark.gen_test
async def test_f17_disconnect(io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any) -> None:
    witness = witnessed(device.host, device.port)
    client = witness.client
    await client.wait_connected()
    request = client.request("sleep", 1000)
    await device.wait(lambda d: d.count("sleep"))
    device.drop_all(reason="power cut")
    await client.wait_disconnected()
    exc = client.last_exc
    assert type(exc) is DeviceDisconnected and isinstance(exc, ConnectionResetError)
    assert exc.reason == "power cut"
    assert "power cut" in str(exc)
    assert request.exception().__cause__ is exc
    assert client.stats.disconnects == {"DeviceDisconnected": 1}
    await client.wait_connected()
    assert io_loop.now == pytest.approx(1)


@pytest.mark.gen_test
async def test_f17_disconnect_but_the_device_does_not_hang_up(
    io_loop: VirtualTimeLoop, device: FakeDevice, witnessed: Any
) -> None:
    # The library for C devices keeps the connection until the client closes it. The rest of the chunk still counts.
    device.script(Raw(b"#disconnect shutdown\n#tick 1\n", after_version=True))
    witness = witnessed(device.host, device.port)
    client = witness.client
    heard = []
    client.add_inform_callback("tick", lambda message: heard.append(message.arguments))
    await client.wait_connected()
    await client.wait_disconnected()
    assert client.last_exc.reason == "shutdown"
    assert heard == [[b"1"]]
    await io_loop.idle()
    assert io_loop.now == 0
    assert device.connections == []
    assert witness.heard == ["connected", "disconnected"]


@pytest.mark.gen_test
async def test_f17_disconnect_before_the_version(device: FakeDevice, witnessed: Any) -> None:
    device.script(Disconnect("not now", after_version=False))
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    (exc,) = witness.failures
    assert type(exc) is DeviceDisconnected and exc.reason == "not now"
    assert witness.heard == ["failed", "connected"]


@pytest.mark.gen_test
async def test_f17_disconnect_without_a_reason(device: FakeDevice, witnessed: Any) -> None:
    device.script(Raw(b"#disconnect\n", after_version=True))
    witness = witnessed(device.host, device.port)
    await witness.client.wait_connected()
    await witness.client.wait_disconnected()
    assert witness.client.last_exc.reason == ""
