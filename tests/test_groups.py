"""Groups of clients and devices: one request to all, and a quorum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tornado import gen

from katcp_tornado import (
    Client,
    ClientGroup,
    Device,
    FailReply,
    GroupReply,
    NotConnected,
    QuorumNotReached,
    Reply,
    RequestTimeout,
    WaitTimeout,
)
from katcp_tornado.testing import Answer, FakeDevice, Silent

NAMES = ["m000", "m001", "m002"]


@pytest.fixture
def devices(io_loop: Any) -> Iterator[dict[str, FakeDevice]]:
    devices = {name: FakeDevice() for name in NAMES}
    for number, device in enumerate(devices.values()):
        device.start()
        device.add_sensor("mode", "string", "off")
        if number:
            device.request("only-some")(lambda context, message: (b"yes",))
    yield devices
    for device in devices.values():
        device.stop()


@pytest.fixture
def group(io_loop: Any, devices: dict[str, FakeDevice]) -> Iterator[ClientGroup]:
    group = ClientGroup({name: Device(device.host, device.port) for name, device in devices.items()})
    yield group
    group.close()
    io_loop.run_sync(group.wait_closed)


@pytest.mark.gen_test
async def test_all_answer(group: ClientGroup) -> None:
    assert await group.wait_connected(timeout=5) == NAMES
    reply = await group.request("echo", "a")
    assert list(reply) == list(reply.replies) == NAMES and reply.failures == {}
    assert {type(one) for one in reply.values()} == {Reply} and reply.check() is reply and bool(reply)


@pytest.mark.gen_test
async def test_failures_stand_beside_the_replies(devices: dict[str, FakeDevice], group: ClientGroup) -> None:
    await group.wait_connected()
    devices["m001"].on_request("echo", Answer("fail", "too warm"))
    devices["m002"].on_request("echo", Silent())
    reply = await group.request("echo", "a", timeout=2)
    assert list(reply) == NAMES and [type(one) for one in reply.values()] == [Reply, FailReply, RequestTimeout]
    assert not reply and list(reply.failures) == ["m001", "m002"]
    with pytest.raises(
        QuorumNotReached, match=r"\?echo: 1 of 3 needed \(m001: FailReply: too warm; m002: Req"
    ) as caught:
        reply.check()
    assert caught.value.reply is reply


@pytest.mark.parametrize(
    ("quorum", "met"), [(None, False), (1, True), (2, True), (3, False), (0.5, True), (0.7, False)]
)
@pytest.mark.gen_test
async def test_quorum(devices: dict[str, FakeDevice], group: ClientGroup, quorum: Any, met: bool) -> None:
    await group.wait_connected()
    devices["m001"].on_request("echo", Answer("fail", "no"))
    reply = await group.request("echo", quorum=quorum)
    assert bool(reply) is met and len(reply) == 3, "all are waited for"


@pytest.mark.parametrize(("quorum", "needed"), [(0.1, 1), (1 / 3, 1), (2 / 3, 2), (0.67, 3), (1.0, 3), (0.6, 2)])
def test_shares_are_rounded_up(group: ClientGroup, quorum: float, needed: int) -> None:
    assert group._needed(quorum) == needed


@pytest.mark.parametrize("quorum", [0, 4, -1, 0.0, 1.1, float("nan")])
def test_wrong_quorums(group: ClientGroup, quorum: Any) -> None:
    for ask in (lambda: group.request("echo", quorum=quorum), lambda: group.wait("mode", 1, quorum=quorum)):
        with pytest.raises(ValueError, match="quorum must be"):
            ask()
    with pytest.raises(TypeError, match="quorum must be an int"):
        group.wait_connected(quorum=True)


@pytest.mark.gen_test
async def test_an_empty_group(io_loop: Any) -> None:
    group = ClientGroup({})
    assert (await group.request("echo")).check() == {} and await group.wait_connected() == []
    assert await group.wait("mode", 1) == {} and await group.wait_closed() is None  # type: ignore[func-returns-value]
    with pytest.raises(ValueError, match="quorum"):
        group.request("echo", quorum=1)


@pytest.mark.gen_test
async def test_members(io_loop: Any, devices: dict[str, FakeDevice], group: ClientGroup) -> None:
    await gen.multi([member.synced() for member in group.values() if isinstance(member, Device)])
    assert list(group) == NAMES and "m001" in group and isinstance(group["m001"], Device)
    assert "only-some" in group.req and group.req.only_some.name == "only-some"
    reply = await group.req.only_some(quorum=2)
    assert reply and type(reply["m000"]).__name__ == "InvalidReply", "it goes to every member"
    removed = group.remove("m000")
    assert list(group) == NAMES[1:] and len(await group.request("echo")) == 2
    with pytest.raises(ValueError, match="has a member 'm001' already"):
        group.add("m001", removed)
    for name, member in ((5, removed), ("x", "localhost")):
        with pytest.raises(TypeError):
            group.add(name, member)  # type: ignore[arg-type]
    group.add("m000", removed)
    assert list(group) == ["m001", "m002", "m000"]
    with pytest.raises(TypeError, match="object"):
        group.request("echo", object())
    with pytest.raises(TypeError):
        ClientGroup([removed])  # type: ignore[arg-type]


@pytest.mark.gen_test
async def test_cancelled(devices: dict[str, FakeDevice], group: ClientGroup) -> None:
    await group.wait_connected()
    for device in devices.values():
        device.on_request("echo", Silent())
    future = group.request("echo", timeout=None)
    future.cancel()
    await gen.sleep(0.1)
    for member in group.values():
        assert isinstance(member, Device)
        assert member.client._link.session is not None
        assert not [entry for entry in member.client._link.session.pending() if not entry.done()]


@pytest.mark.gen_test
async def test_wait_connected_names_who_is_missing(devices: dict[str, FakeDevice], group: ClientGroup) -> None:
    devices["m001"].stop()
    assert await group.wait_connected(timeout=5, quorum=2) == ["m000", "m002"]
    with pytest.raises(
        WaitTimeout, match=r"2 of 3 needed are connected; missing: m001 \(ConnectionRefused.* after 5 s"
    ):
        await group.wait_connected(timeout=5)
    waiting = group.wait_connected()
    devices["m001"].start()
    assert await waiting == NAMES
    reply = await group.request("echo", wait_connected=True)
    assert reply
    group.close()
    with pytest.raises(QuorumNotReached):
        await group.wait_connected()
    assert {type(one) for one in (await group.request("echo")).values()} == {NotConnected}


@pytest.mark.gen_test
async def test_wait(devices: dict[str, FakeDevice], group: ClientGroup) -> None:
    await group.wait_connected()
    waiting = group.wait("mode", b"ready", timeout=30, quorum=2)
    devices["m000"].set_sensor("mode", "ready")
    await gen.sleep(1)
    assert not waiting.done()
    devices["m002"].set_sensor("mode", "ready")
    reply = await waiting
    assert list(reply) == ["m000", "m002"] and bool(reply) and reply["m000"].value == b"ready"  # type: ignore[union-attr]
    reply = await group.wait("mode", b"ready", timeout=2)
    assert not reply and list(reply.replies) == ["m000", "m002"]
    assert isinstance(reply, GroupReply) and type(reply.failures["m001"]) is WaitTimeout
    with pytest.raises(QuorumNotReached, match="sensor mode: 2 of 3 needed"):
        reply.check()
    graceful = group.wait("mode", b"ready", quorum=1, grace=5)
    await gen.sleep(1)
    devices["m001"].set_sensor("mode", "ready")
    assert list(await graceful) == NAMES
    devices["m001"].set_sensor("mode", "idle")
    reply = await group.wait("mode", b"ready", timeout=1, quorum=2, grace=5)
    assert reply and list(reply) == ["m000", "m002"]  # the deadline cuts the grace short: m001 was not needed


@pytest.mark.gen_test
async def test_wait_needs_devices(io_loop: Any, devices: dict[str, FakeDevice]) -> None:
    device = devices["m000"]
    async with ClientGroup({"client": Client(device.host, device.port)}) as group:
        with pytest.raises(TypeError, match="'client' is no Device"):
            group.wait("mode", 1)
        assert await group.wait_connected() == ["client"]
    assert group["client"].state.name == "CLOSED"
